"""RESPITE: what a user with a Redis client can ask the proxy, once Redis has said that the user may."""

from __future__ import annotations

import json

import pytest

from proxy.core.respite_commands import HELP, RespiteCommands
from proxy.core.slots import CallSlot
from proxy.wire.encode import command
from proxy.wire.reply import elements, text

from .scripted import ScriptedServices, words_of

MAY = b"*0\r\n"
REPORT = {
    "version": "1.2.3",
    "uptime_s": 4.5,
    "upstream": {"url": "redis://x:1", "state": "up"},
    "l1": {"entries": 3, "hit_rate": 0.5},
    "links": [
        {"id": "data-0", "kind": "data", "db": 0, "state": "up"},
        {"id": "pinned-7", "kind": "pinned", "db": 1, "state": "idle"},
    ],
}


@pytest.fixture
def services() -> ScriptedServices:
    """Make a worker with a few figures."""
    made = ScriptedServices()
    made.answers = dict(REPORT)
    return made


def _ask(
    services: ScriptedServices, line: str | tuple[str | bytes, ...], *, may: bytes = MAY, protocol: int = 2
) -> bytes:
    """Send a RESPITE command of a client whose rights Redis answers with `may`; return what it reads."""
    client = services.client(protocol=protocol)
    raw, then = RespiteCommands(services).ask(client, words_of(line))
    assert raw == command("CONFIG", "GET", "respite-may-i")
    assert services.asked == [], "nothing is looked at before Redis has answered"
    return then(may)


def _body(reply: bytes) -> str:
    """Return the text of a bulk string or verbatim string."""
    return text(reply).decode().removeprefix("txt:")


@pytest.mark.parametrize(
    "line",
    [
        "RESPITE",
        "RESPITE HELP",
        "RESPITE STATS",
        "RESPITE L1 CLEAR",
        "RESPITE EXPLAIN k",
        "RESPITE CLIENTS",
        "RESPITE NOSUCH",
    ],
)
def test_respite_of_a_user_without_config_is_refused_in_redis_words(services: ScriptedServices, line: str) -> None:
    """Who may not run CONFIG reads Redis' refusal, and nothing is done."""
    refusal = b"-NOPERM this user has no permissions to run the 'config|get' command\r\n"

    assert _ask(services, line, may=refusal) == refusal
    assert services.asked == []


def test_respite_help_lists_every_subcommand(services: ScriptedServices) -> None:
    """HELP is an array of lines, as the HELP of Redis' own commands; each subcommand it names is answered."""
    lines = [text(frame).decode() for frame in elements(_ask(services, "respite help"))]

    assert lines == list(HELP)
    named = [line for line in lines[1:] if not line.startswith(" ")]
    first = {name.split()[0] for name in named}
    assert first == {"CLIENTS", "EXPLAIN", "HELP", "INFO", "L1", "LINKS", "RELOAD", "STATS"}
    for name in [name for name in named if name != "RELOAD"]:  # which is answered later
        services.asked.clear()
        assert _ask(services, "RESPITE " + name.replace("<key>", "k").replace("[<section>]", "l1"))[:1] in b"*$:"


def test_respite_stats_is_the_admin_ports_json(services: ScriptedServices) -> None:
    """Whatever /stats.json says, as one text."""
    assert json.loads(_body(_ask(services, "RESPITE STATS"))) == REPORT


def test_respite_info_reads_like_redis_info(services: ScriptedServices) -> None:
    """Sections with a heading, one `name:value` a line; figures of no section come first, lists are left out."""
    assert _body(_ask(services, "RESPITE INFO")) == (
        "# Respite\r\nversion:1.2.3\r\nuptime_s:4.5\r\n\r\n"
        "# Upstream\r\nurl:redis://x:1\r\nstate:up\r\n\r\n"
        "# L1\r\nentries:3\r\nhit_rate:0.5\r\n"
    )


@pytest.mark.parametrize(
    ("section", "expected"),
    [("l1", "# L1\r\nentries:3\r\nhit_rate:0.5\r\n"), ("UPSTREAM", None), ("nosuch", ""), ("links", "")],
)
def test_respite_info_of_a_section_is_that_section(
    services: ScriptedServices, section: str, expected: str | None
) -> None:
    """In any case; one that is not there is empty, as in Redis."""
    services.answers["links"] = {}
    wanted = "# Upstream\r\nurl:redis://x:1\r\nstate:up\r\n" if expected is None else expected

    assert _body(_ask(services, f"RESPITE INFO {section}")) == wanted


def test_respite_explain_takes_the_key_as_it_is(services: ScriptedServices) -> None:
    """The key's case and bytes matter."""
    assert json.loads(_body(_ask(services, ("RESPITE", "explain", "Key With Space")))) == {"key": "Key With Space"}
    assert services.asked == [("explain", b"Key With Space")]


def test_respite_l1_clear_counts_what_went(services: ScriptedServices) -> None:
    """As an integer."""
    assert _ask(services, "RESPITE l1 clear") == b":7\r\n"
    assert services.asked == [("clear_l1", None)]


def test_respite_clients_and_links_are_lines(services: ScriptedServices) -> None:
    """One line each: clients as CLIENT LIST has them, links with what the report says of them."""
    services.client()
    lines = _body(_ask(services, "RESPITE CLIENTS")).splitlines()
    assert [line.split()[0] for line in lines] == ["id=1", "id=2"]

    assert _body(_ask(services, "RESPITE LINKS")) == (
        "id=data-0 kind=data db=0 state=up\nid=pinned-7 kind=pinned db=1 state=idle\n"
    )


@pytest.mark.parametrize(
    "line", ["RESPITE STATS", "RESPITE INFO", "RESPITE LINKS", "RESPITE CLIENTS", "RESPITE EXPLAIN k"]
)
def test_respite_text_has_the_clients_protocol(services: ScriptedServices, line: str) -> None:
    """RESP3 clients read a verbatim string, others a bulk string, of the same text."""
    assert _ask(services, line)[:1] == b"$"
    services.asked.clear()
    reply = _ask(services, line, protocol=3)

    head, _, body = reply.partition(b"\r\n")
    assert (head[:1], int(head[1:]) + 2, body[:4]) == (b"=", len(body), b"txt:")


@pytest.mark.parametrize(
    "line",
    [
        "RESPITE NOSUCH",
        "RESPITE L1",
        "RESPITE L1 NOSUCH",
        "RESPITE STATS x",
        "RESPITE EXPLAIN",
        "RESPITE INFO a b",
        "RESPITE L1 CLEAR x",
    ],
)
def test_respite_of_another_form_says_what_was_wrong(services: ScriptedServices, line: str) -> None:
    """An unknown subcommand, or one of wrong arity, is told so and pointed to HELP."""
    reply = _ask(services, line)

    assert reply.startswith(b"-ERR unknown RESPITE subcommand")
    assert reply.endswith(b"Try RESPITE HELP.\r\n")
    assert services.asked == []


def test_respite_error_cannot_break_the_protocol(services: ScriptedServices) -> None:
    """What a client sends as a subcommand comes back short and in one line."""
    reply = _ask(services, ("RESPITE", b"a\r\n+OK\r\n" + b"\xff" * 10_000))

    assert reply.count(b"\r\n") == 1
    assert len(reply) < 1000


def test_respite_alone_is_of_wrong_arity(services: ScriptedServices) -> None:
    """In Redis' words."""
    assert _ask(services, "RESPITE") == b"-ERR wrong number of arguments for 'respite' command\r\n"


@pytest.mark.parametrize(
    ("problems", "expected"),
    [
        ([], b'{"applied": ["l1.max_age"], "needs_restart": [], "problems": []}'),
        (
            ["l1.max_ag = 3: unknown", "x = 1: unknown"],
            b"-ERR respite: the old settings stay: l1.max_ag = 3: unknown; ",
        ),
    ],
)
def test_reload_tells_what_came_of_it(services: ScriptedServices, problems: list[str], expected: bytes) -> None:
    """The configuration is read again; a wrong one is named, and changes nothing."""
    services.answers["reload"] = {"applied": ["l1.max_age"], "needs_restart": [], "problems": problems}
    client = services.client()
    _, then = RespiteCommands(services).ask(client, words_of("RESPITE RELOAD"))
    slot = CallSlot(None, then)

    slot.land(MAY)

    assert services.asked == [("reload", None)]
    assert slot.reply is not None
    assert expected in slot.reply
