"""RESPITE VERSION, SETV, INVALIDATE and EXPLAIN: what they ask Redis, and that they are always answered."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.config.model import ClassSettings
from proxy.core.invalidation import Invalidated
from proxy.core.respite_values import (
    BAD_TTL,
    BAD_VERSION,
    NOT_VERSIONED,
    SYNTAX,
    as_version,
    ask_value,
    invalidate,
    set_versioned,
    value_facts,
    version,
)
from proxy.core.slots import Failure, Pending, Slot
from proxy.errors import DEPENDENTS_LEFT, UPSTREAM_LOST, UPSTREAM_UNAVAILABLE
from proxy.values.dependencies import Dependents
from proxy.values.envelope import Codec, open_value, wrap
from proxy.wire.commands import CommandTable
from proxy.wire.encode import array, bulk, error, integer

from .scripted_values import CLASSES, DAMAGED, Asked, ScriptedLink, ValueClient, make_values

MS = 1_700_000_000_123
NOPERM = b"-NOPERM not for you\r\n"
TIMED = ClassSettings("both", ("vt:*",), version=True, ttl_s=100.0, adaptive_ttl="on", max_ttl_s=10_000.0)


class World:
    """A client that asks, and the link its questions travel on."""

    def __init__(self) -> None:
        self.values, self.invalidations = make_values((*CLASSES, TIMED))
        self.link = ScriptedLink()
        self.client = ValueClient(self.link)
        self.asked = Asked()
        self.services: Any = SimpleNamespace(values=self.values, invalidate=self.asked, table=CommandTable.builtin())

    def reply(self, answer: Pending | bytes) -> Callable[[], bytes | None]:
        """Have a slot wait for an answer; what is returned says what it was filled with."""
        slot = Slot(None)
        if isinstance(answer, Pending):
            answer.await_in(slot)
        else:
            slot.fill(answer)
        return lambda: slot.reply

    def setv(self, *words: bytes) -> Callable[[], bytes | None]:
        """Ask for RESPITE SETV."""
        return self.reply(set_versioned(self.client, self.services, words))


def facts_reply(stored: bytes, pttl: int = -1) -> bytes:
    """Write what Redis says of a string."""
    return array([bulk(b"string"), bulk(stored[:32].hex().encode()), integer(len(stored)), integer(pttl)])


def set_it(world: World) -> Pending | bytes:
    """Ask for RESPITE SETV of something."""
    return set_versioned(world.client, world.services, [b"v:1", b"5", b"text"])


# -- VERSION -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (facts_reply(wrap(b"text", 77)), b":77\r\n"),
        (facts_reply(wrap(b"text", 0, codec=Codec.LZ4, body=b"x")), b"$-1\r\n"),
        (facts_reply(b"bare"), b"$-1\r\n"),
        (facts_reply(DAMAGED[:10]), b"$-1\r\n"),
        (array([bulk(b"hash")]), b"$-1\r\n"),
        (array([bulk(b"none"), bulk(b""), b":0\r\n", b":-2\r\n"]), b"$-1\r\n"),
        (NOPERM, NOPERM),
    ],
)
def test_version_is_that_of_the_envelope(answer: bytes, expected: bytes) -> None:
    """Nil for everything that has none, Redis' own words where it refuses."""
    world = World()
    reply = world.reply(version(world.client, world.services, b"v:1"))
    assert reply() is None
    world.link.answer(answer)

    assert reply() == expected


def test_version_in_resp3_has_its_nil() -> None:
    """The protocol of the session."""
    world = World()
    world.client.session.protocol = 3
    reply = world.reply(version(world.client, world.services, b"v:1"))
    world.link.answer(facts_reply(b"bare"))

    assert reply() == b"_\r\n"


@pytest.mark.parametrize("ask", [lambda world: version(world.client, world.services, b"v:1"), set_it])
def test_question_without_a_link_or_with_one_that_is_lost_is_answered(ask: Callable[[World], Pending | bytes]) -> None:
    """No key stays marked."""
    world = World()
    lost = world.reply(ask(world))
    world.link.lose(Failure.LOST)
    world.client.link = None
    away = world.reply(ask(world))

    assert (lost(), away()) == (UPSTREAM_LOST, UPSTREAM_UNAVAILABLE)
    assert world.values.engine.writing == {}


# -- SETV --------------------------------------------------------------------------------------------------------------


def test_as_version_takes_milliseconds_and_versions() -> None:
    """What RESPITE VERSION says is taken as it is."""
    assert as_version(MS) == MS << 16
    assert as_version(MS << 16 | 5) == MS << 16 | 5
    assert as_version((1 << 48) - 1) == ((1 << 48) - 1) << 16
    assert as_version(1 << 48) == 1 << 48


def test_setv_writes_an_envelope_of_that_version_and_marks_the_key() -> None:
    """Answered by what the script says: written, or a newer value is there."""
    for answer in (b":1\r\n", b":0\r\n"):
        world = World()
        reply = world.setv(b"v:1", b"%d" % MS, b"12")
        (asked,) = world.link.asked()
        value, header = open_value(asked[5], {})
        assert (asked[3], value, header.version, asked[6]) == (b"v:1", b"12", MS << 16, b"")
        assert world.values.engine.writing == {bulk(b"v:1"): 1}
        world.link.answer(answer)
        assert (reply(), world.values.engine.writing) == (answer, {})


@pytest.mark.parametrize(
    ("words", "ttl"),
    [([b"EX", b"5"], b"5000"), ([b"px", b"5"], b"5"), ([], b"")],
)
def test_setv_ttl_in_both_units(words: list[bytes], ttl: bytes) -> None:
    """In any case."""
    world = World()
    world.setv(b"v:1", b"5", b"text", *words)

    assert world.link.asked()[0][6] == ttl


def test_setv_ttl_is_the_classs_where_it_has_one() -> None:
    """As for any other write of the class: a key that nobody reads is kept."""
    world = World()
    world.setv(b"vt:1", b"5", b"text", b"EX", b"50")

    assert world.link.asked()[0][6] == b"3600000"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        *(([b"x", b"5", b"text"], NOT_VERSIONED), ([b"c:1", b"5", b"text"], NOT_VERSIONED)),
        ([b"respite:clock", b"5", b"text"], NOT_VERSIONED),
        *(([b"v:1", number, b"text"], BAD_VERSION) for number in (b"0", b"-1", b"x", b"1.5", b"9" * 30, b"", b"05")),
        ([b"v:1", b"9223372036854775808", b"text"], BAD_VERSION),
        ([b"v:1", b"140737488355328", b"text"], BAD_VERSION),
        *(([b"v:1", b"5", b"text", *rest], SYNTAX) for rest in ([b"EX"], [b"XX", b"5"], [b"EX", b"5", b"6"])),
        *(([b"v:1", b"5", b"text", b"EX", ttl], BAD_TTL) for ttl in (b"0", b"-1", b"x", b"1.5")),
    ],
)
def test_setv_that_makes_no_sense_is_refused_here(words: list[bytes], why: str) -> None:
    """Nothing is sent, nothing is marked."""
    world = World()

    assert world.setv(*words)() == error(why)
    assert (world.link.raws, world.values.engine.writing) == ([], {})


def test_setv_drops_what_depends_on_the_key_first() -> None:
    """It is a write; where they could not be dropped it says so."""
    for failed, expected in (("", b":1\r\n"), ("ERR away", DEPENDENTS_LEFT)):
        world = World()
        world.client.session.db = 2
        reply = world.setv(b"d:7", b"5", b"text")
        world.link.answer(b":1\r\n")
        assert reply() is None
        assert world.invalidations.calls[0][0].keys == (b"v:7",)
        assert world.invalidations.calls[0][1] == 2
        world.invalidations.end(failed)
        assert reply() == expected


@pytest.mark.parametrize("answer", [NOPERM, b"-ERR respite: the version is more than an hour ahead of the server\r\n"])
def test_setv_that_redis_refuses_drops_nothing(answer: bytes) -> None:
    """And the key is not left marked."""
    world = World()
    reply = world.setv(b"d:7", b"5", b"text")
    world.link.answer(answer)

    assert (reply(), world.invalidations.calls, world.values.engine.writing) == (answer, [], {})


# -- INVALIDATE --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "names", "expected"),
    [
        (b"KEY", [b"a", b"b"], Dependents(keys=(b"a", b"b"))),
        (b"MATCH", [b"a:*"], Dependents(globs=(b"a:*",))),
        (b"TAG", [b"t"], Dependents(tags=(b"t",))),
    ],
)
def test_invalidate_asks_for_what_was_named(what: bytes, names: list[bytes], expected: Dependents) -> None:
    """In the session's database; answered with one number when it is done."""
    world = World()
    world.client.session.db = 4
    reply = world.reply(invalidate(world.client, world.services, what, names))
    ((asked, db, then),) = world.asked.calls
    assert (asked, db, reply()) == (expected, 4, None)
    then(Invalidated(keys=2, entries=9, fences=1))

    assert reply() == b":3\r\n"


def test_invalidate_that_fails_says_why() -> None:
    """Whatever part of it was done."""
    world = World()
    reply = world.reply(invalidate(world.client, world.services, b"KEY", [b"a"]))
    world.asked.end("ERR respite: upstream unavailable")

    assert reply() == b"-ERR respite: upstream unavailable\r\n"


# -- EXPLAIN -----------------------------------------------------------------------------------------------------------


def test_ask_value_tells_what_redis_holds_or_why_it_cannot_be_asked() -> None:
    """Always once."""
    world = World()
    heard: list[dict[str, Any]] = []
    ask_value(world.client, world.services, b"v:1", heard.append)
    world.link.answer(facts_reply(wrap(b"text", 77), 5_000))
    ask_value(world.client, world.services, b"v:1", heard.append)
    world.link.lose()
    world.client.link = None
    ask_value(world.client, world.services, b"v:1", heard.append)

    assert [found.get("version") for found in heard] == [77, None, None]
    assert [found.get("error", "") for found in heard[1:]] == [
        "ERR respite: upstream lost, the command may have been applied",
        "ERR respite: upstream unavailable",
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (array([bulk(b"hash")]), {"type": "hash"}),
        (NOPERM, {"error": "NOPERM not for you"}),
        (facts_reply(b"bare", 1500), {"type": "string", "stored_bytes": 4, "raw_bytes": 4, "ttl_ms": 1500}),
        (facts_reply(DAMAGED[:10]), {"type": "string", "stored_bytes": 10, "raw_bytes": 10, "ttl_ms": None}),
        (
            facts_reply(wrap(b"x" * 500, 9, codec=Codec.LZ4, body=b"0123456789", dictionary=4711)),
            {
                "type": "string",
                "stored_bytes": 34,
                "raw_bytes": 500,
                "ttl_ms": None,
                "version": 9,
                "codec": "lz4",
                "dictionary": 4711,
            },
        ),
    ],
)
def test_value_facts_are_read_from_the_first_bytes(answer: bytes, expected: dict[str, Any]) -> None:
    """A damaged envelope is a value like any other here."""
    assert value_facts(answer) == expected
