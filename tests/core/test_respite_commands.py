"""RESPITE: what a user with a Redis client can ask the proxy, once Redis has said that the user may."""

from __future__ import annotations

import json
import re

import pytest

from proxy.config.model import ClassSettings
from proxy.core.invalidation import Invalidated
from proxy.core.respite_commands import HELP, RespiteCommands
from proxy.core.slots import CallSlot
from proxy.values.dependencies import Dependents
from proxy.values.envelope import open_value, wrap
from proxy.values.rules import Rules
from proxy.values.scripts import facts, set_newer
from proxy.wire.encode import bulk
from proxy.wire.reply import elements, text

from .asking import MAY_SET, NOT_THERE, ask, talk
from .scripted import ScriptedServices, words_of

VERSION = 1_760_000_000_000 << 16 | 7
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


def _facts(stored: bytes, pttl_ms: int = -1) -> bytes:
    """Return what Redis says of a key that holds a string."""
    return b"*4\r\n%b%b:%d\r\n:%d\r\n" % (bulk(b"string"), bulk(stored[:32].hex().encode()), len(stored), pttl_ms)


def _body(reply: bytes) -> str:
    """Return the text of a bulk string or verbatim string."""
    return text(reply).decode().removeprefix("txt:")


def test_respite_help_lists_every_subcommand(services: ScriptedServices) -> None:
    """HELP is an array of lines, as the HELP of Redis' own commands; each subcommand it names is answered."""
    lines = [text(frame).decode() for frame in elements(ask(services, "respite help"))]

    assert lines == list(HELP)
    named = [line for line in lines[1:] if not line.startswith(" ")]
    first = {name.split()[0] for name in named}
    assert first == {
        *("CLIENTS", "EXPLAIN", "HELP", "INFO", "INVALIDATE", "L1", "LINKS", "RELOAD", "SETV", "STATS", "VERSION")
    }
    services.values.take(Rules([ClassSettings("k", ("k",), version=True)]))
    for name in [name for name in named if name != "RELOAD"]:  # which is answered later
        services.asked.clear()
        line = re.sub(r" \[(?!<section>).*?\]| \|.*", "", name).replace("<key>", "k").replace("[<section>]", "l1")
        redis = b":1\r\n" if "SETV" in name else NOT_THERE
        assert talk(services, "RESPITE " + line.replace("<version>", "1"), redis=redis)[0][:1] in b"*$:", line


def test_respite_stats_is_the_admin_ports_json(services: ScriptedServices) -> None:
    """Whatever /stats.json says, as one text."""
    assert json.loads(_body(ask(services, "RESPITE STATS"))) == REPORT


def test_respite_info_reads_like_redis_info(services: ScriptedServices) -> None:
    """Sections with a heading, one `name:value` a line; figures of no section come first, lists are left out."""
    assert _body(ask(services, "RESPITE INFO")) == (
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

    assert _body(ask(services, f"RESPITE INFO {section}")) == wanted


def test_respite_info_of_an_outage_has_a_line_a_figure(services: ScriptedServices) -> None:
    """What is counted by name stands on one line, as INFO has its own; of classes with a fallback the names."""
    services.answers["outage"] = {
        "state": "away",
        "fallbacks": [{"name": "news", "offline": "fail"}, {"name": "carts", "offline": "memory"}],
        "stale_served": {"news": 4, "carts": 1},
        "refusals": {},
    }
    expected = "# Outage\r\nstate:away\r\nfallbacks:news,carts\r\nstale_served:news=4,carts=1\r\nrefusals:\r\n"

    assert _body(ask(services, "RESPITE INFO outage")) == expected


def test_respite_info_has_a_line_for_each_name(services: ScriptedServices) -> None:
    """Rows that have a name read as those of INFO commandstats; each section can be asked for."""
    services.answers["classes"] = [{"name": "tickets", "hits_total": 3, "p50_us": 1.5}, {"name": "(none)"}]
    expected = "# Classes\r\ntickets:hits_total=3,p50_us=1.5\r\n(none):\r\n"

    assert _body(ask(services, "RESPITE INFO classes")) == expected
    services.asked.clear()
    assert _body(ask(services, "RESPITE INFO")).endswith(expected)


def test_respite_explain_takes_the_key_as_it_is(services: ScriptedServices) -> None:
    """The key's case and bytes matter."""
    reply, asked = talk(services, ("RESPITE", "explain", "Key With Space"))

    assert json.loads(_body(reply)) == {"key": "Key With Space", "value": {"type": "none"}}
    assert services.asked == [("explain", b"Key With Space")]
    assert asked == [facts(b"Key With Space")]


@pytest.mark.parametrize(
    ("redis", "value"),
    [
        (b"", {"error": "ERR respite: away"}),
        (b"-OOM no\r\n", {"error": "OOM no"}),
        (b"*1\r\n$4\r\nhash\r\n", {"type": "hash"}),
        (_facts(b"plain", 1500), {"type": "string", "stored_bytes": 5, "raw_bytes": 5, "ttl_ms": 1500}),
        (
            _facts(wrap(b"value", VERSION)),
            {
                "type": "string",
                "stored_bytes": 24,
                "raw_bytes": 5,
                "ttl_ms": None,
                "version": VERSION,
                "codec": "plain",
                "dictionary": 0,
            },
        ),
    ],
)
def test_respite_explain_tells_what_redis_holds(
    services: ScriptedServices, redis: bytes, value: dict[str, object]
) -> None:
    """Of an envelope what its head says; where Redis cannot be asked, why: what is known here is told all the same."""
    reply, _ = talk(services, "RESPITE EXPLAIN k", redis=redis)

    assert json.loads(_body(reply)) == {"key": "k", "value": value}


@pytest.mark.parametrize(
    ("redis", "expected"),
    [
        (_facts(wrap(b"value", VERSION)), b":%d\r\n" % VERSION),
        (_facts(wrap(b"value", 0)), b"$-1\r\n"),
        (_facts(b"plain"), b"$-1\r\n"),
        (NOT_THERE, b"$-1\r\n"),
        (b"-NOPERM no\r\n", b"-NOPERM no\r\n"),
        (b"", b"-ERR respite: away\r\n"),
    ],
)
def test_respite_version_is_the_value_s(services: ScriptedServices, redis: bytes, expected: bytes) -> None:
    """Nil where there is none; RESP3 has a nil of its own."""
    assert talk(services, "RESPITE VERSION k", redis=redis)[0] == expected
    if expected == b"$-1\r\n":
        assert talk(services, "RESPITE VERSION k", redis=redis, protocol=3)[0] == b"_\r\n"


@pytest.mark.parametrize(("life", "ttl_ms"), [("", None), (" EX 3", 3000), (" px 7", 7)])
@pytest.mark.parametrize(("number", "version"), [(VERSION, VERSION), (VERSION >> 16, VERSION >> 16 << 16)])
def test_respite_setv_writes_an_envelope_with_the_version(
    services: ScriptedServices, life: str, ttl_ms: int | None, number: int, version: int
) -> None:
    """Small numbers are milliseconds; the reply is Redis'; readers of the key get no lease until it is there."""
    services.values.take(Rules([ClassSettings("k", ("k",), version=True)]))

    reply, (asked,) = talk(services, f"RESPITE SETV k {number} value{life}", redis=b":0\r\n")

    stored = wrap(b"value", version)
    value, header = open_value(stored, {})
    assert (value, header.version) == (b"value", version)
    assert (reply, asked) == (b":0\r\n", set_newer(b"k", stored, ttl_ms))
    assert not services.values.engine.writing


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        *(("other 1 v", b"no version = true"), ("k 0 v", b"a version is a positive"), ("k x v", b"a version is a")),
        *((f"k {1 << 63} v", b"a version is a positive"), ("k 1 v EX 0", b"invalid expire time")),
        *(("k 1 v EX", b"syntax error"), ("k 1 v NX 1", b"syntax error"), ("k 1 v EX 1 PX 1", b"syntax error")),
    ],
)
def test_respite_setv_that_is_wrong_asks_nothing(services: ScriptedServices, rest: str, why: bytes) -> None:
    """The error says what is, and the key is left alone."""
    services.values.take(Rules([ClassSettings("k", ("k",), version=True)]))

    reply, asked = talk(services, f"RESPITE SETV {rest}")

    assert reply[:1] == b"-"
    assert why in reply
    assert asked == []


@pytest.mark.parametrize(
    ("rest", "what", "count"),
    [
        ("KEY a b", Dependents(keys=(b"a", b"b")), 2),
        ("match a:*", Dependents(globs=(b"a:*",)), 1),
        ("Tag t", Dependents(tags=(b"t",)), 1),
    ],
)
def test_respite_invalidate_is_done_by_the_worker(
    services: ScriptedServices, rest: str, what: Dependents, count: int
) -> None:
    """In the session's database; the reply counts keys and fences, and is an error when not all was done."""
    assert ask(services, f"RESPITE INVALIDATE {rest}") == b":%d\r\n" % count
    assert services.asked == [("invalidate", (what, 0))]

    services.asked.clear()
    services.answers["invalidate"] = Invalidated(1, error="ERR respite: away")
    assert ask(services, f"RESPITE INVALIDATE {rest}") == b"-ERR respite: away\r\n"


def test_respite_l1_clear_counts_what_went(services: ScriptedServices) -> None:
    """As an integer."""
    assert ask(services, "RESPITE l1 clear") == b":7\r\n"
    assert services.asked == [("clear_l1", None)]


def test_respite_clients_and_links_are_lines(services: ScriptedServices) -> None:
    """One line each: clients as CLIENT LIST has them, links with what the report says of them."""
    services.client()
    lines = _body(ask(services, "RESPITE CLIENTS")).splitlines()
    assert [line.split()[0] for line in lines] == ["id=1", "id=2"]

    assert _body(ask(services, "RESPITE LINKS")) == (
        "id=data-0 kind=data db=0 state=up\nid=pinned-7 kind=pinned db=1 state=idle\n"
    )


@pytest.mark.parametrize(
    "line", ["RESPITE STATS", "RESPITE INFO", "RESPITE LINKS", "RESPITE CLIENTS", "RESPITE EXPLAIN k"]
)
def test_respite_text_has_the_clients_protocol(services: ScriptedServices, line: str) -> None:
    """RESP3 clients read a verbatim string, others a bulk string, of the same text."""
    assert ask(services, line)[:1] == b"$"
    services.asked.clear()
    reply = ask(services, line, protocol=3)

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
        "RESPITE VERSION",
        "RESPITE SETV k 1",
        "RESPITE INVALIDATE KEY",
        "RESPITE INVALIDATE TAG a b",
        "RESPITE INVALIDATE NOSUCH a",
    ],
)
def test_respite_of_another_form_says_what_was_wrong(services: ScriptedServices, line: str) -> None:
    """An unknown subcommand, or one of wrong arity, is told so and pointed to HELP."""
    reply = ask(services, line)

    assert reply.startswith(b"-ERR unknown RESPITE subcommand")
    assert reply.endswith(b"Try RESPITE HELP.\r\n")
    assert services.asked == []


def test_respite_error_cannot_break_the_protocol(services: ScriptedServices) -> None:
    """What a client sends as a subcommand comes back short and in one line."""
    reply = ask(services, ("RESPITE", b"a\r\n+OK\r\n" + b"\xff" * 10_000))

    assert reply.count(b"\r\n") == 1
    assert len(reply) < 1000


def test_respite_alone_is_of_wrong_arity(services: ScriptedServices) -> None:
    """In Redis' words."""
    assert ask(services, "RESPITE") == b"-ERR wrong number of arguments for 'respite' command\r\n"


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

    slot.land(MAY_SET)

    assert services.asked == [("reload", None)]
    assert slot.reply is not None
    assert expected in slot.reply


def test_reload_that_some_worker_did_not_hear_is_no_wrong_file(services: ScriptedServices) -> None:
    """The others have applied it: the old settings do not stay."""
    problems = ["worker 0 has not applied it: no answer"]
    services.answers["reload"] = {"applied": [], "needs_restart": [], "problems": problems, "partly": True}
    _, then = RespiteCommands(services).ask(services.client(), words_of("RESPITE RELOAD"))
    slot = CallSlot(None, then)

    slot.land(MAY_SET)

    assert slot.reply == b"-ERR respite: the file is applied, but not everywhere: " + problems[0].encode() + b"\r\n"
