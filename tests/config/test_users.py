"""listen.users: who they are, how they prove it, what they may run; and the hash that stands for a password."""

from __future__ import annotations

import pytest

from proxy.config.command_words import CommandRule
from proxy.config.passwords import PasswordHash
from proxy.config.users import ProxyUser
from proxy.values.advice import warnings

from .conftest import Fail, Load

HASH = "$scrypt$ln=14,r=8,p=5$AAAAAAAAAAAAAAAAAAAAAA$7Nx1n4w5wBoXrdBkVxLQfJ0gSk0kXHnUHnqKUtFDRk0"


def test_user_has_rules_in_their_order_and_a_right_of_respite(load: Load) -> None:
    """The first sign says where the rules begin."""
    settings = load(f"""
        [[listen.users]]
        name = "app"
        password_hash = "{HASH}"
        commands = ["+@read", "-Keys"]
        respite = "read"
        [[listen.users]]
        name = "ops"
        password = "pw"
        commands = ["-@dangerous"]
        """)

    rules = CommandRule(False, "@all"), CommandRule(True, "@read"), CommandRule(False, "keys")
    begins_with_all = CommandRule(True, "@all"), CommandRule(False, "@dangerous")
    assert settings.listen.users == (
        ProxyUser("app", "", PasswordHash.parse(HASH), rules, "read"),
        ProxyUser("ops", "pw", None, begins_with_all),
    )


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ('name = "a"', "user 1 needs a name, and either password or password_hash"),
        ('password = "s3cret"', "user 1 needs a name, and either password or password_hash"),
        (f'name = "a", password = "s3cret", password_hash = "{HASH}"', "either password or password_hash"),
        ('name = "a", password_hash = "s3cret"', "what `respite hash-password` prints"),
        (f'name = "a", password_hash = "{HASH[:-9]}"', "a password_hash is cut short"),
        (f'name = "a", password_hash = "{HASH.replace("ln=14", "ln=5")}"', "too little work, or for too much"),
        (f'name = "a", password_hash = "{HASH.replace("ln=14", "ln=20")}"', "too little work, or for too much"),
        (f'name = "a", password_hash = "{HASH.replace("r=8", "r=0")}"', "too little work, or for too much"),
        ('name = "a", password = "s3cret", commands = "get"', "commands of user 1: a list of texts"),
        ('name = "a", password = "s3cret", commands = ["get"]', "'get' begins with neither + nor -"),
        ('name = "a", password = "s3cret", commands = ["+"]', "'' is no name of a command"),
        ('name = "a", password = "s3cret", commands = ["+get k"]', "'get k' is no name of a command"),
        ('name = "a", password = "s3cret", respite = "some"', "respite of user 1 is one of none, read, all"),
        ('name = "a", password = "s3cret", keys = ["x"]', "user 1 has other keys than"),
    ],
)
def test_user_that_is_wrong_is_told_of_without_a_secret(fail: Fail, user: str, reason: str) -> None:
    """What is wrong is said, and nothing of what was written: it may be a password with a slip of the pen."""
    problem = fail(f"listen.users = [{{ {user} }}]")["listen.users"]

    assert reason in problem.allowed
    assert "s3cret" not in str(problem)
    assert HASH[-20:] not in str(problem)


@pytest.mark.parametrize("key", ["allow_commands", "deny_commands"])
@pytest.mark.parametrize("value", ['"get"', '["get set"]', '["get", "GET"]', '["@"]', '["config|"]', "[1]", '["+get"]'])
def test_list_of_commands_that_is_wrong_is_refused(fail: Fail, key: str, value: str) -> None:
    """Names, subcommands and categories, each once."""
    assert list(fail(f"listen.{key} = {value}")) == [f"listen.{key}"]


def test_hash_takes_the_password_and_no_other() -> None:
    """Also after it was written down and read again."""
    made = PasswordHash.make(b"pa:$$wort", b"s" * 16)

    read = PasswordHash.parse(str(made))

    assert read == made
    assert [read.matches(word) for word in (b"pa:$$wort", b"pa:$$wor", b"", str(made).encode())] == [True] + [False] * 3
    assert made != PasswordHash.make(b"pa:$$wort", b"t" * 16)


def test_secrets_of_users_are_in_no_repr(load: Load) -> None:
    """Settings may end up in a traceback."""
    settings = load(f"""
        listen.users = [{{ name = "a", password = "s3cret" }}, {{ name = "b", password_hash = "{HASH}" }}]
        """)

    shown = repr(settings)

    assert "s3cret" not in shown
    assert repr(PasswordHash.parse(HASH).digest) not in shown


def test_password_that_stands_in_the_file_is_warned_of(load: Load) -> None:
    """By the names of the users, never by the password."""
    settings = load(f"""
        listen.users = [{{ name = "a", password = "s3cret" }}, {{ name = "b", password_hash = "{HASH}" }}]
        """)

    (warning,) = warnings(settings)

    assert warning.startswith("listen.users: the password of a stands in the file as it is")
