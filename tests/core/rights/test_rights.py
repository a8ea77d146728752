"""What each user of the proxy may run, and what he reads when he may not."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from structlog.testing import capture_logs

from proxy.config.command_words import read_command_rules
from proxy.config.load import default_settings
from proxy.config.model import Listen, ProxyUser
from proxy.core.rights.rights import CATEGORIES_UNTOLD, RightsBook
from proxy.wire.commands import CommandTable, Kind

from .test_narrowing import TABLE


def _listen(**changed: Any) -> Listen:
    return attrs.evolve(default_settings().listen, **changed)


def _book(**changed: Any) -> RightsBook:
    book = RightsBook(TABLE)
    book.take(_listen(**changed))
    return book


def _user(name: str, *commands: str, **more: Any) -> ProxyUser:
    return ProxyUser(name, "pw", None, read_command_rules(list(commands)), **more)


@pytest.mark.parametrize(
    ("changed", "user", "line", "reason"),
    [
        ({"deny_commands": ("flushall",)}, b"", "FLUSHALL", "'flushall' (listen.deny_commands)"),
        ({"deny_commands": ("config|set",)}, b"", "config SET a b", "'config|set' (listen.deny_commands)"),
        ({"allow_commands": ("get",)}, b"", "Set k v", "'set' (listen.allow_commands)"),
        ({"allow_commands": ("get",)}, b"", "nosuch", "'nosuch' (listen.allow_commands)"),
        ({"users": (_user("app", "-keys"),)}, b"app", "keys *", "user 'app' may not run 'keys' here (listen.users)"),
        (
            {"users": (_user("app", "+get"),), "deny_commands": ("get",)},
            b"app",
            "get k",
            "'get' (listen.deny_commands)",
        ),
    ],
)
def test_refusal_names_the_command_and_the_key_of_the_configuration(
    changed: dict[str, Any], user: bytes, line: str, reason: str
) -> None:
    """Whoever reads it knows whom to ask for what."""
    rights = _book(**changed).of(user)
    args = line.encode().split()

    spec = rights.table.find(args)

    assert spec.kind is Kind.DENIED
    refusal = rights.refusal(spec, args).decode()
    assert refusal.startswith("-NOPERM respite: ")
    assert refusal.endswith(reason + "\r\n")


def test_refusal_of_an_unknown_command_cannot_break_the_protocol() -> None:
    """What a client sent as a name is shown cut short, in one line."""
    rights = _book(allow_commands=("get",)).of(b"")
    args = [b"a\r\n+OK\r\n" + b"x" * 1000]

    refusal = rights.refusal(rights.table.find(args), args)

    assert refusal.count(b"\n") == 1
    assert len(refusal) < 200


def test_refusal_before_the_server_has_told_its_commands_says_so() -> None:
    """Nobody can say what a command is that is denied by category: it is not run, and that is no lack of rights."""
    book = RightsBook(CommandTable.builtin())
    book.take(_listen(deny_commands=("@dangerous",)))
    rights = book.of(b"")

    assert rights.refusal(rights.table.find([b"GET", b"k"]), [b"GET", b"k"]) == CATEGORIES_UNTOLD

    book.learn(TABLE)
    assert rights.table.find([b"GET", b"k"]).kind is Kind.GET
    assert rights.table.find([b"KEYS", b"*"]).kind is Kind.DENIED


@pytest.mark.parametrize(
    ("changed", "looks"),
    [
        ({}, False),
        ({"deny_commands": ("flushall",)}, False),
        ({"deny_commands": ("get",)}, True),
        ({"deny_commands": ("get|secret",)}, True),
        ({"allow_commands": ("set",)}, True),
        ({"allow_commands": ("get",)}, False),
    ],
)
def test_hits_are_looked_at_only_where_a_read_is_denied(changed: dict[str, Any], looks: bool) -> None:
    """Everybody else is answered from the bytes of the request, as ever."""
    assert _book(**changed).of(b"").looks_at_reads is looks


@pytest.mark.parametrize(
    ("user", "changed", "expected"),
    [
        (_user("a"), {}, ("all", True)),
        (_user("a", "-config|set"), {}, ("read", True)),
        (_user("a", "-config"), {}, ("none", True)),
        (_user("a", "-@dangerous"), {}, ("none", True)),
        (_user("a", "+get"), {}, ("none", True)),
        (_user("a", "+get", "+config|get"), {}, ("read", True)),
        (_user("a", "+get", "+respite"), {}, ("all", True)),
        (_user("a"), {"deny_commands": ("respite",)}, ("none", True)),
        (_user("a"), {"deny_commands": ("@admin",)}, ("none", True)),
        (_user("a", "+get", respite="read"), {}, ("read", False)),
        (_user("a", respite="none"), {}, ("none", False)),
    ],
)
def test_respite_is_as_much_ones_own_as_config_is_or_as_the_user_says(
    user: ProxyUser, changed: dict[str, Any], expected: tuple[str, bool]
) -> None:
    """Its own right counts where there is one."""
    rights = _book(users=(user,), **changed).of(b"a")

    assert (rights.respite, rights.asks_redis) == expected


def test_users_have_each_their_own_rights_and_nobody_those_of_all() -> None:
    """Who has not logged in has what listen.allow_commands and deny_commands leave."""
    book = _book(users=(_user("a", "+get"), _user("b")), deny_commands=("keys",))

    def may(user: bytes) -> list[bool]:
        find = book.of(user).table.find
        return [find([word]).kind is not Kind.DENIED for word in (b"GET", b"SET", b"KEYS")]

    assert [may(b"a"), may(b"b"), may(b"")] == [[True, False, False], [True, True, False], [True, True, False]]


def test_words_about_no_command_are_told_once_the_server_has_told_its_own() -> None:
    """Each time it does, and not before: then nothing is known of any."""
    book = RightsBook(CommandTable.builtin())
    with capture_logs() as logs:
        book.take(_listen(deny_commands=("flushal",)))
        before = len(logs)
        book.learn(TABLE)

    assert (before, [line["words"] for line in logs]) == (0, ["flushal"])


def test_users_of_one_role_share_what_was_learnt_and_are_warned_of_once() -> None:
    """Hundreds of users with the same lists cost what one of them does, at each reload and each restart of Redis."""
    users = [_user(f"user-{number}", "-keys", "-nonsense") for number in range(3)]
    with capture_logs() as logs:
        book = _book(users=(*users, _user("other", "-get")), deny_commands=("nosuch",))
        book.learn(TABLE)

    first, second, other = (book.of(name) for name in (b"user-0", b"user-2", b"other"))
    assert first.table is second.table is not other.table
    assert [second.looks_at_reads, other.looks_at_reads] == [False, True]
    assert second.refusal(second.table.find([b"keys"]), [b"keys"]).startswith(b"-NOPERM respite: user 'user-2' ")
    assert [(one["user"], one["words"]) for one in logs] == [("", "nosuch"), ("user-0", "nonsense")] * 2
