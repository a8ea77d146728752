"""Writes that may be taken in memory are sent together; what becomes of each is what it would be alone."""

from __future__ import annotations

import random

import attrs
import pytest

from proxy.core.outage.fallback_slot import FallbackSlot
from proxy.core.slots import STREAM_BYTES, Failure
from proxy.errors import UPSTREAM_LOST, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE
from proxy.wire.encode import bulk, command

from .fallback_parts import MEMORY, OK, OTHER, Stand, parsed
from .peer import error

LOADING = error("LOADING Redis is loading the dataset in memory")


def lines(*texts: str) -> bytes:
    """Encode commands, one a text."""
    return b"".join(command(*text.split()) for text in texts)


def kinds(stand: Stand, number: int = 0) -> list[tuple[str, int]]:
    """Return what a client is owed, without what only looks on."""
    return [slot for slot in stand.slots(number) if slot[0] != "WatchSlot"]


def test_writes_of_the_class_are_one_slot_and_one_submit() -> None:
    """As many as follow each other, whatever their names; all their keys count as being written."""
    stand = Stand()
    asked = lines("SET m:1 a", "INCR m:n", "MSET m:2 b m:3 c", "SET m:1 a EX 9", "DEL m:1")
    stand.ask(asked)

    assert [("FallbackSlot", 5)] == kinds(stand)
    assert asked == stand.redis.sent
    assert {bulk(key): times for key, times in ((b"m:1", 3), (b"m:n", 1), (b"m:2", 1), (b"m:3", 1))} == (
        stand.worker.engine.writing
    )
    stand.answer(OK + b":1\r\n" + OK + OK + b":-1\r\n")
    assert OK + b":1\r\n" + OK + OK + b":-1\r\n" == stand.seen()
    assert {} == stand.worker.engine.writing


def test_what_the_class_does_not_take_stands_between_in_its_place() -> None:
    """Others have slots of their own; what may answer with a value has one for itself, so that it may stream."""
    stand = Stand()
    asked = lines(
        *("SET m:1 a", "SET m:2 b", "SET o:1 c", "SET o:2 d", "SET m:3 e", "SET m:4 f GET", "GETSET m:5 g"),
        *("PUBLISH m:6 h", "COPY m:7 o:3", "SET m:8 i", "RPUSH m:9 j"),
    )
    stand.ask(asked)

    assert asked == stand.redis.sent
    assert [
        ("FallbackSlot", 2),
        ("WriteSlot", 2),
        ("FallbackSlot", 1),
        *[("EffectSlot", 1)] * 4,
        ("FallbackSlot", 1),
        ("EffectSlot", 1),
    ] == kinds(stand)
    stand.answer(b"".join(b":%d\r\n" % number for number in range(11)))
    assert b"".join(b":%d\r\n" % number for number in range(11)) == stand.seen()


@pytest.mark.parametrize(
    ("failure", "unsure"), [(Failure.LOST, UPSTREAM_LOST), (Failure.TIMED_OUT, UPSTREAM_TIMED_OUT)]
)
@pytest.mark.parametrize("is_cut", [False, True])
def test_batch_whose_link_dies_keeps_what_was_answered(failure: Failure, unsure: bytes, is_cut: bool) -> None:
    """Two were answered by Redis; of the rest, what may be repeated is taken, the others' outcome is unknown."""
    stand = Stand(clients=2)
    stand.ask(lines("SET m:1 a", "INCR m:n", "SET m:2 b", "INCR m:n", "DEL m:1", "SET m:3 c NX", "SET m:4 d"))
    stand.ask(lines("SET m:2 later", "SET o:1 x", "SET m:5 e"), 1)
    stand.answer(OK + b":1\r\n" + (b"+O" if is_cut else b""))
    assert b"" == stand.seen()
    stand.lose(failure)

    assert OK + b":1\r\n" + OK + unsure + b":0\r\n" + unsure + OK == stand.seen()
    assert OK + unsure + OK == stand.seen(1)
    assert {b"m:2": b"later", b"m:1": None, b"m:4": b"d", b"m:5": b"e"} == stand.memory
    assert {bulk(key): 1 for key in stand.memory} == stand.worker.engine.writing
    assert 3 == stand.worker.stats.failed


def test_batch_that_was_never_sent_is_taken_whole() -> None:
    """Redis has not done it: an INCR is counted here, once."""
    stand = Stand()
    stand.redis.room = [0] * 9
    stand.ask(lines("SET m:n 4", "INCR m:n", "SET m:2 b NX"))
    stand.lose()

    assert OK + b":5\r\n" + OK == stand.seen()
    assert {b"m:n": b"5", b"m:2": b"b"} == stand.memory
    assert 0 == stand.worker.stats.failed


@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("cuts", [(), (9,), (30,), (3, 7, 40, 60)])
def test_refusal_in_a_batch_concerns_its_command_alone(is_away: bool, cuts: tuple[int, ...]) -> None:
    """Redis loads: its words, while it counts as up; taken in memory, where it counts as away. The rest was done."""
    stand = Stand()
    outage = stand.worker.engine.outage
    if is_away:
        outage.failed("test")
    stand.ask(lines("SET m:1 a", "INCR m:n", "SET m:2 b", "HSET m:h f v", "SET m:3 c"))
    replies = OK + LOADING + OK + error("WRONGTYPE x") + error("OOM y")
    stand.answer(*(replies[a:b] for a, b in zip((0, *cuts), (*cuts, len(replies)), strict=True)))

    taken = b":1\r\n" if is_away else LOADING
    assert OK + taken + OK + error("WRONGTYPE x") + error("OOM y") == stand.seen()
    assert ({b"m:n": b"1"} if is_away else {}) == stand.memory
    assert {"LOADING": 1, "OOM": 1} == outage.refusals
    assert 0 == stand.worker.stats.failed


def test_words_of_redis_that_are_no_refusal_stay() -> None:
    """A value that is spelled like an error, a negative number, an error about the key."""
    stand = Stand()
    stand.worker.engine.outage.failed("test")
    stand.ask(lines("INCR m:1", "INCR m:2", "INCR m:3"))
    stand.answer(b":-1\r\n$10\r\n-BUSY\r\n-x-\r\n-NOPERM no\r\n")

    assert b":-1\r\n$10\r\n-BUSY\r\n-x-\r\n-NOPERM no\r\n" == stand.seen()
    assert {} == stand.memory


def test_long_words_of_redis_are_not_passed_on_before_they_are_looked_at() -> None:
    """They come in parts, more than what otherwise streams; Redis counts as away, so all of it is taken."""
    stand = Stand()
    stand.worker.engine.outage.failed("test")
    stand.ask(lines("SET m:1 a", "INCR m:n", "SET m:2 b"))
    busy = error("BUSY " + "x" * STREAM_BYTES)
    stand.answer(busy[:9000], busy[9000:], busy + busy)

    assert OK + b":1\r\n" + OK == stand.seen()


def test_batch_of_a_client_that_has_gone_is_taken_all_the_same() -> None:
    """Nobody reads the replies; which commands Redis has not done is still known, also where they came in parts."""
    stand = Stand()
    stand.worker.engine.outage.failed("test")
    stand.ask(lines("SET m:1 a", "INCR m:n", "SET m:2 b", "INCR m:2", "SET m:3 c"))
    stand.clients[0].close()
    stand.answer(OK, LOADING)
    stand.lose()

    assert {b"m:n": b"1", b"m:2": b"b", b"m:3": b"c"} == stand.memory
    assert b"" == stand.seen()


def test_pipeline_without_a_link_reads_what_it_has_just_written() -> None:
    """One command is taken after the other, and those behind it see it."""
    stand = Stand()
    stand.group.failures = 1
    stand.lose()
    stand.ask(lines("SET m:1 4", "INCR m:1", "GET m:1", "SET o:1 x", "DEL m:1", "GET m:1"))

    assert OK + b":5\r\n" + bulk(b"5") + UPSTREAM_UNAVAILABLE + b":1\r\n$-1\r\n" == stand.seen()
    assert {b"m:1": None} == stand.memory


def test_pipeline_that_waits_for_its_link_is_taken_when_none_comes() -> None:
    """The first link that is opened takes commands at once; they were never sent."""
    stand = Stand()
    stand.lose()
    stand.ask(lines("SET m:1 4", "INCR m:1", "SET m:2 b"))
    assert [("FallbackSlot", 3)] == kinds(stand)
    stand.worker.links._give_up(stand.group, stand.group.links[0])
    stand.worker.reactor.flush()

    assert OK + b":5\r\n" + OK == stand.seen()


def test_batch_on_a_link_that_redis_does_not_let_in_gets_its_words() -> None:
    """Each of them, and nothing is taken: whom Redis refuses has no fallback."""
    stand = Stand()
    stand.lose()
    stand.ask(lines("SET m:1 a", "SET m:2 b"))
    stand.worker.links._answer(stand.group.links[0], error("NOAUTH x"))
    stand.worker.reactor.flush()

    assert error("NOAUTH x") * 2 == stand.seen()
    assert {} == stand.memory


def test_write_waits_for_reads_that_may_have_to_ask_again() -> None:
    """A reader has joined a flight and is out of L1 since: behind its next read comes no write that overtakes it."""
    stand = Stand(clients=2)
    stand.ask(lines("GET m:1"), 1)
    stand.ask(lines("GET m:1"))
    stand.clients[0].namespace = None
    stand.ask(lines("GET o:1", "SET m:1 b"))

    assert [[b"GET", b"m:1"], [b"PTTL", b"m:1"], [b"GET", b"o:1"]] == [words for words, _ in parsed(stand.redis.sent)]
    stand.answer(bulk(b"a") + b":-1\r\n" + bulk(b"x"))
    assert [b"SET", b"m:1", b"b"] == parsed(stand.redis.sent)[-1][0]
    stand.answer(OK)
    assert bulk(b"a") + bulk(b"x") + OK == stand.seen()


@pytest.mark.parametrize("is_answered", [False, True])
def test_batch_that_is_late_says_that_redis_is_slow(is_answered: bool) -> None:
    """A write gets nothing from L1 after upstream.soft_timeout, and still tells that Redis is late."""
    stand = Stand(upstream={"soft_timeout_s": 0.1})
    stand.ask(lines("SET m:1 a", "SET m:2 b"))
    stand.answer(OK, *([OK] if is_answered else []))
    stand.worker.engine.outage.fallbacks.tick(100.2)

    assert ("up" if is_answered else "slow") == stand.worker.engine.outage.state


def test_values_are_sent_sealed_and_taken_plain() -> None:
    """A class with versions: Redis gets envelopes, memory what the client wrote."""
    stand = Stand(attrs.evolve(MEMORY, version=True), OTHER)
    stand.ask(lines("SET m:1 a", "SET m:2 b"))
    assert [("FallbackSlot", 2)] == kinds(stand)
    assert lines("SET m:1 a", "SET m:2 b") != stand.redis.sent
    stand.answer(OK)
    stand.lose()

    assert OK * 2 == stand.seen()
    assert {b"m:2": b"b"} == stand.memory


# -- one by one, or together ------------------------------------------------------------------------------------------

SHAPES = (
    *("SET {m} {v}", "SET {m} {v}", "SET {m} {v} NX", "SET {m} {v} GET", "SET {m} {v} EX 100", "INCR m:n"),
    *("APPEND {m} {v}", "DEL {m} {m}", "MSET {m} {v} {m} {v}", "MSET {m} {v} {o} {v}", "HSET m:h f {v}", "RPUSH m:l x"),
    *("GETSET {m} {v}", "SET {o} {v}", "INCR o:n", "COPY {m} {o}", "GET {m}", "GET {o}", "STRLEN {m}", "PUBLISH c {v}"),
    *("PEXPIRE {m} 100000", "PEXPIRE o:2 100000"),
)
PINNED_BY_VERSIONS = ("APPEND", "COPY", "STRLEN")
"""Where values are sealed these need a link of their own."""
REPLIES = (
    *(OK, OK, OK, b":1\r\n", b":-1\r\n", bulk(b"-x\r\n-y"), b"$-1\r\n", LOADING, error("BUSY x"), error("OOM x")),
    *(error("WRONGTYPE x"), UPSTREAM_UNAVAILABLE, UPSTREAM_LOST, UPSTREAM_TIMED_OUT),
)


def played(seed: int) -> list[object]:
    """Play pipelines of some clients against a Redis that answers some of it and goes away; return what came of it."""
    rng = random.Random(seed)
    has_versions = rng.random() < 0.3
    shapes_of = [shape for shape in SHAPES if not has_versions or not shape.startswith(PINNED_BY_VERSIONS)]
    stand = Stand(attrs.evolve(MEMORY, version=has_versions), OTHER, clients=3)
    choices = {"{m}": ("m:0", "m:1", "m:2"), "{o}": ("o:0", "o:1"), "{v}": ("1", "2", "a", "b")}

    def pipeline() -> bytes:
        shapes = [rng.choice(shapes_of).split() for _ in range(rng.randrange(1, 9))]
        return b"".join(command(*(rng.choice(choices.get(word, (word,))) for word in shape)) for shape in shapes)

    if rng.random() < 0.4:
        stand.worker.engine.outage.failed("test")
    if rng.random() < 0.2:
        stand.redis.room = [rng.choice((0, 40, 100)), 0, 0, 0, 0, 0]
    gone = rng.random() < 0.2
    for number in [rng.randrange(3) for _ in range(rng.randrange(1, 7))]:
        stand.ask(pipeline(), number)
    if gone:
        stand.clients[1].close()
    replies = b"".join(
        b":-1\r\n" if words[0] == b"PTTL" else rng.choice(REPLIES) for words, _ in parsed(stand.redis.sent)
    )
    if rng.random() < 0.8:
        replies = replies[: rng.randrange(len(replies) + 1)]
    while replies:
        size = rng.randrange(1, len(replies) + 1)
        stand.answer(replies[:size])
        replies = replies[size:]
    stand.lose(rng.choice((Failure.LOST, Failure.TIMED_OUT)))
    for number in range(3):
        if not stand.clients[number].closed:
            stand.ask(pipeline(), number)
    engine = stand.worker.engine
    return [
        [stand.seen(number) for number in range(3)],
        stand.redis.sent,
        {key: (item.value, item.ends_ms, item.version, item.changes) for key, item in stand.items.items()},
        engine.writing,
        {} if has_versions else dict(engine.outage.refusals),  # those of sealed writes count where they go together
        stand.worker.stats.failed,
        stand.group.links[0]._out,
    ]


def test_what_becomes_of_writes_is_the_same_one_by_one_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random pipelines, replies, cuts and losses: every byte to clients and to Redis, and all that is held."""
    together = 0
    made = FallbackSlot.fill

    def fill(slot: FallbackSlot, reply: bytes) -> None:
        nonlocal together
        together += len(slot._commands) > 1
        made(slot, reply)

    for seed in range(150):
        with monkeypatch.context() as patch:
            patch.setattr(FallbackSlot, "fill", fill)
            batched = played(seed)
        with monkeypatch.context() as patch:
            patch.setattr("proxy.core.pipeline.is_brief", lambda _name, _args: False)
            alone = played(seed)

        assert alone == batched, f"seed {seed}"
    assert together > 75
