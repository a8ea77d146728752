"""Who may ask the proxy what: whom Redis lets run CONFIG, or whom listen.users says."""

from __future__ import annotations

from typing import Literal

import pytest

from proxy.core.respite_commands import RespiteCommands
from proxy.core.rights.rights import Rights
from proxy.values.scripts import facts
from proxy.wire.commands import CommandSpec, CommandTable, Kind
from proxy.wire.encode import command

from ..asking import MAY_SET, ask, talk
from ..scripted import ScriptedServices, words_of


@pytest.fixture
def services() -> ScriptedServices:
    """Make a worker."""
    return ScriptedServices()


@pytest.mark.parametrize(
    "line",
    [
        "RESPITE",
        "RESPITE HELP",
        "RESPITE STATS",
        "RESPITE L1 CLEAR",
        "RESPITE EXPLAIN k",
        "RESPITE CLIENTS",
        "RESPITE VERSION k",
        "RESPITE SETV k 1 v",
        "RESPITE INVALIDATE KEY k",
        "RESPITE NOSUCH",
    ],
)
def test_respite_of_a_user_without_config_is_refused_in_redis_words(services: ScriptedServices, line: str) -> None:
    """Who may not run CONFIG reads Redis' refusal, and nothing is done."""
    refusal = b"-NOPERM this user has no permissions to run the 'config|get' command\r\n"

    assert talk(services, line, may=refusal) == (refusal, [])
    assert services.asked == []


@pytest.mark.parametrize(
    "refusal",
    [
        "-NOPERM User x has no permissions to run the 'config|set' command",
        "-ERR unknown command 'CONFIG', with args beginning with: 'SET' 'respite-may-i' ''",
        "-ERR unknown subcommand 'SET'. Try CONFIG HELP.",
        "-NOAUTH Authentication required.",
    ],
)
def test_respite_that_changes_something_needs_config_set(services: ScriptedServices, refusal: str) -> None:
    """Who may only read settings, as a monitor may, changes nothing; Redis' words say why."""
    reply = refusal.encode() + b"\r\n"

    assert talk(services, "RESPITE L1 CLEAR", may=reply) == (reply, [])
    assert services.asked == []


@pytest.mark.parametrize("words", [MAY_SET, b"-ERR Unsupported CONFIG parameter: respite-may-i\r\n", b"+OK\r\n"])
def test_respite_is_done_for_those_whom_redis_tells_that_there_is_no_such_setting(
    services: ScriptedServices, words: bytes
) -> None:
    """Each server has its own words for it; the name of the setting is in all of them."""
    assert ask(services, "RESPITE L1 CLEAR", may=words) == b":7\r\n"


def test_respite_explain_of_a_key_the_user_may_not_read_tells_nothing(services: ScriptedServices) -> None:
    """Not even what L1 holds of it for others."""
    reply, _ = talk(services, "RESPITE EXPLAIN k", redis=b"-NOPERM no\r\n")

    assert reply == b"-NOPERM no\r\n"
    assert services.asked == []


@pytest.mark.parametrize("line", ["RESPITE STATS", "RESPITE INFO", "respite info hot"])
@pytest.mark.parametrize(
    ("redis", "is_named"), [(b"*2\r\n$1\r\n0\r\n*0\r\n", True), (b"-NOPERM no\r\n", False), (b"", False)]
)
def test_respite_figures_name_keys_to_those_whom_redis_lets_list_them(
    services: ScriptedServices, line: str, redis: bytes, is_named: bool
) -> None:
    """Key patterns do not hold for SCAN: who may run it learns all names from Redis, and nobody else does from us."""
    services.answers |= {"hot": [{"name": "secret", "uses": 1}], "recent": [{"key": "secret", "cause": "push"}]}

    reply, asked = talk(services, line, redis=redis)

    assert reply[:1] == b"$"
    assert (b"secret" in reply) is is_named
    assert asked == ([command("SCAN", 0, "COUNT", 1)] if redis else [])


def test_respite_asks_for_facts_as_a_reader_where_the_server_can(services: ScriptedServices) -> None:
    """A user with the right to read a key, and not to write it, may ask for its version."""
    services.table = CommandTable([CommandSpec(b"EVAL_RO", Kind.SCRIPT)])

    assert talk(services, "RESPITE VERSION k")[1] == [facts(b"k", read_only=True)]


@pytest.mark.parametrize(
    ("level", "line", "expected"),
    [
        ("none", "RESPITE HELP", b"-NOPERM respite: user 'app' may not run 'respite help' here (listen.users)\r\n"),
        ("none", "RESPITE", b"-NOPERM respite: user 'app' may not run 'respite ' here (listen.users)\r\n"),
        ("read", "respite l1 clear", b"-NOPERM respite: user 'app' may not run 'respite l1' here (listen.users)\r\n"),
        ("all", "respite l1 clear", b":7\r\n"),
    ],
)
def test_respite_is_for_whom_listen_users_says(
    services: ScriptedServices, level: Literal["none", "read", "all"], line: str, expected: bytes
) -> None:
    """Redis is not asked whether the user of the URL may run CONFIG: that says nothing of this one."""
    client = services.client()
    client.rights = Rights(services.table, user="app", respite=level, asks_redis=False)

    raw, then = RespiteCommands(services).ask(client, words_of(line))

    assert (raw, then(b"+PONG\r\n")) == (command("PING"), expected)
