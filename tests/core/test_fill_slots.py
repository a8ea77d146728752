"""Slots that fill L1: the opener is answered, the value published or not, and those who joined are never forgotten."""

from __future__ import annotations

import pytest

from proxy.cache.entry import Flight, Namespace, Scope
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.fill_slots import FillSlot, JoinSlot, MgetSlot, PttlSlot
from proxy.core.slots import STREAM_BYTES, Failure, Mode
from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.wire.encode import array, bulk

from .scripted_slots import ScriptedClient

KEY = bulk(b"k")
VALUE = bulk(b"value")
ASK = b"*2\r\n$3\r\nGET\r\n" + KEY


class Miss:
    """One GET that missed: its opener, and a reader who joined 1 s after it was sent."""

    def __init__(self, *, max_value_bytes: int = 200_000) -> None:
        self.engine = Engine(L1(1 << 22), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=max_value_bytes)
        self.engine.now = 100.0
        self.engine.serve()
        self.namespace: Namespace = self.engine.l1.namespace(Scope(b"", 0, 2))
        self.opener, self.joiner = ScriptedClient(), ScriptedClient()
        self.flight: Flight = self.engine.open(self.namespace, KEY, "link")
        self.slot = FillSlot(self.opener, self.engine, self.flight)
        self.opener.owe(self.slot)
        self.engine.now = 101.0
        self.join = JoinSlot(self.joiner, ASK, self.engine)

        self.joiner.owe(self.join)
        self.flight.joiners = [self.join]

    @property
    def held(self) -> bytes | None:
        """What L1 holds."""
        entry = self.namespace.resident.get(KEY)
        return entry.reply if entry else None


Steps = tuple[tuple[str, bytes], ...]
"""What comes for a slot: the verb, and the bytes; `keep` ends one reply."""

PIECES: tuple[Steps, ...] = (
    (("land", VALUE + b":5000\r\n"),),
    (("keep", VALUE), ("land", b":5000\r\n")),
    (("partial", VALUE[:4]), ("keep", VALUE[4:]), ("partial", b":50"), ("land", b"00\r\n")),
    (("keep", VALUE), ("partial", b":"), ("partial", b"5000\r"), ("land", b"\n")),
    (("partial", VALUE[:4]), ("land", VALUE[4:] + b":5000\r\n")),
)


def feed(slot: FillSlot, steps: Steps) -> None:
    """Let it come."""
    for verb, raw in steps:
        if verb == "keep":
            slot.keep(raw, 1)
        elif verb == "partial":
            slot.partial(raw)
        else:
            slot.land(raw)


@pytest.mark.parametrize("steps", PIECES)
def test_fill_publishes_and_answers_everybody(steps: Steps) -> None:
    """However value and PTTL arrive, the opener gets the value alone, L1 holds it, and who joined gets it too."""
    miss = Miss()

    feed(miss.slot, steps)

    assert miss.opener.received == VALUE
    assert miss.joiner.received == VALUE
    assert miss.held == VALUE
    assert miss.namespace.resident[KEY].deadline == 105.0
    assert miss.joiner.joins == 0
    assert miss.engine.can_lease(KEY)
    assert not miss.namespace.flights


@pytest.mark.parametrize(
    ("value", "pttl", "held", "joined"),
    [
        (VALUE, b":-1\r\n", True, VALUE),
        (VALUE, b":500\r\n", False, None),  # it had ended before the reader came: it asks again
        (VALUE, b":-2\r\n", False, None),  # the key went between the two
        (b"$-1\r\n", b":-2\r\n", True, b"$-1\r\n"),
        (b"$-1\r\n", b":-1\r\n", False, None),  # the key came between the two
        (b"-WRONGTYPE no\r\n", b":-1\r\n", False, b"-WRONGTYPE no\r\n"),
        (VALUE, b"-NOPERM no\r\n", False, None),  # may read, may not ask how long: no deadline
        (b"-NOPERM a\r\n", b"-NOPERM b\r\n", False, None),
    ],
)
def test_fill_publishes_only_what_is_certain(value: bytes, pttl: bytes, held: bool, joined: bytes | None) -> None:
    """The opener gets the reply whatever it is; L1 and those who joined only what held when they came."""
    miss = Miss()

    miss.slot.land(value + pttl)

    assert value == miss.opener.received
    assert (value if held else None) == miss.held
    assert (joined or b"") == miss.joiner.received
    assert ([] if joined else [ASK]) == miss.joiner.asked
    assert not miss.namespace.flights


def test_fill_revoked_answers_and_publishes_nothing() -> None:
    """A lease that was taken back fills nothing; who asked and who joined before that are answered."""
    miss = Miss()
    miss.engine.drop(KEY)

    miss.slot.land(VALUE + b":5000\r\n")

    assert miss.opener.received == miss.joiner.received == VALUE
    assert miss.held is None


@pytest.mark.parametrize("together", [True, False])
def test_fill_too_large_streams_and_gives_its_lease_back(together: bool) -> None:
    """A value too large for L1 reaches the opener as it comes, without the PTTL; who joined asks again."""
    miss = Miss(max_value_bytes=1000)
    value = bulk(b"v" * (3 * STREAM_BYTES))

    miss.slot.partial(value[: 2 * STREAM_BYTES])
    assert value[: 2 * STREAM_BYTES] == miss.opener.received
    assert not miss.flight.standing
    if together:
        miss.slot.land(value[2 * STREAM_BYTES :] + b":5000\r\n")
    else:
        miss.slot.keep(value[2 * STREAM_BYTES :], 1)
        assert not miss.opener.queue
        miss.slot.partial(b":50")
        miss.slot.land(b"00\r\n")

    assert value == miss.opener.received
    assert not miss.opener.queue
    assert miss.joiner.asked == [ASK]
    assert miss.held is None


def test_fill_within_the_limit_is_kept_until_it_is_whole() -> None:
    """A large value that L1 takes is not streamed: it must be there to be published."""
    miss = Miss()
    value = bulk(b"v" * (2 * STREAM_BYTES))

    miss.slot.partial(value[:-5])
    assert miss.opener.streamed == []
    miss.slot.land(value[-5:] + b":-1\r\n")

    assert value == miss.opener.received == miss.joiner.received == miss.held


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), UPSTREAM_UNAVAILABLE),
        ((("partial", VALUE[:4]),), UPSTREAM_UNAVAILABLE),
        ((("keep", VALUE),), VALUE),
        ((("keep", VALUE), ("partial", b":5")), VALUE),
    ],
)
def test_fill_failed_gives_the_lease_back(steps: Steps, expected: bytes) -> None:
    """One answer for the opener: the value if it came whole, else the error; who joined asks again."""
    miss = Miss()
    miss.joiner.asks_again = True
    feed(miss.slot, steps)

    miss.slot.fail(Failure.LOST)

    assert expected == miss.opener.received
    assert miss.joiner.asked == [ASK]
    assert miss.held is None
    assert not miss.namespace.flights


def test_fill_failed_inside_a_streamed_value_aborts_the_opener_alone() -> None:
    """Half a value has reached the opener, who is cut off; who joined has got nothing yet, and asks again."""
    miss = Miss(max_value_bytes=1000)
    miss.joiner.asks_again = True
    miss.slot.partial(b"$999999\r\n" + b"v" * (2 * STREAM_BYTES))

    miss.slot.fail(Failure.LOST)

    assert miss.opener.aborted
    assert not miss.joiner.aborted
    assert miss.joiner.asked == [ASK]


def test_fill_failed_behind_a_streamed_value_says_nothing_more() -> None:
    """The opener has its value: that its PTTL never comes is nothing to it."""
    miss = Miss(max_value_bytes=1000)
    value = bulk(b"v" * (2 * STREAM_BYTES))
    miss.slot.partial(value[:-5])
    miss.slot.keep(value[-5:], 1)

    miss.slot.fail(Failure.LOST)

    assert value == miss.opener.received
    assert not miss.opener.aborted


def test_fill_refused_answers_once_and_gives_the_lease_back() -> None:
    """A link that Redis did not let in: one refusal for one GET, although it is two commands."""
    miss = Miss()

    miss.slot.refuse(b"-NOAUTH no\r\n")

    assert miss.opener.received == miss.joiner.received == b"-NOAUTH no\r\n"
    assert miss.joiner.asked == []
    assert not miss.namespace.flights


@pytest.mark.parametrize("how", ["muted", "orphaned"])
def test_fill_without_its_opener_still_serves_who_joined(how: str) -> None:
    """An opener that is gone, or wants no replies, has still opened a flight for the others."""
    miss = Miss()
    if how == "muted":
        miss.slot.mode = Mode.MUTED
    else:
        miss.slot.orphan()

    miss.slot.partial(VALUE[:3])
    miss.slot.land(VALUE[3:] + b":5000\r\n")

    assert miss.opener.received == b""
    assert miss.joiner.received == miss.held == VALUE


def test_fill_orphaned_while_it_streams_gives_nobody_half_a_value() -> None:
    """The first part went to an opener who is gone: what is left of the value is no value, whoever has joined asks."""
    miss = Miss(max_value_bytes=1000)
    value = bulk(b"v" * (3 * STREAM_BYTES))
    miss.slot.partial(value[: 2 * STREAM_BYTES])
    miss.slot.orphan()

    miss.slot.partial(value[2 * STREAM_BYTES : -5])
    miss.slot.land(value[-5:] + b":5000\r\n")

    assert value[: 2 * STREAM_BYTES] == miss.opener.received
    assert miss.joiner.received == b""
    assert miss.joiner.asked == [ASK]
    assert miss.held is None


def mget(miss: Miss, frames: list[bytes | None], *, leased: list[bool]) -> tuple[MgetSlot, list[Flight | None]]:
    """Ask for what is None in `frames`, with a lease or without."""
    flights: list[Flight | None] = [
        miss.engine.open(miss.namespace, bulk(b"m%d" % at), "link") if lease else None
        for at, lease in enumerate(leased)
    ]
    client = miss.joiner = ScriptedClient()
    slot = MgetSlot(client, miss.engine, frames, flights)
    client.owe(slot)
    return slot, flights


def test_mget_joins_what_was_here_with_what_was_fetched() -> None:
    """The values come in the order of the keys; what was fetched under a lease is published when its PTTL has come."""
    miss = Miss()
    slot, flights = mget(miss, [None, b"$1\r\nb\r\n", None, b"$-1\r\n"], leased=[True, False])

    slot.partial(b"*2\r\n$1\r\na")
    slot.land(b"\r\n$1\r\nc\r\n")
    assert flights[0] is not None
    assert bulk(b"m0") not in miss.namespace.resident
    PttlSlot(miss.engine, flights[0]).land(b":-1\r\n")

    assert miss.joiner.received == array([b"$1\r\na\r\n", b"$1\r\nb\r\n", b"$1\r\nc\r\n", b"$-1\r\n"])
    assert miss.namespace.resident[bulk(b"m0")].reply == b"$1\r\na\r\n"
    assert bulk(b"m1") not in miss.namespace.resident


def test_mget_all_fetched_is_passed_on_as_it_came() -> None:
    """When nothing was here the reply of Redis goes through untouched."""
    miss = Miss()
    slot, _ = mget(miss, [None, None], leased=[False, False])

    slot.land(b"*2\r\n$1\r\na\r\n$-1\r\n")

    assert miss.joiner.received == b"*2\r\n$1\r\na\r\n$-1\r\n"


@pytest.mark.parametrize("end", ["error", "lost"])
def test_mget_that_fails_gives_its_leases_back(end: str) -> None:
    """An error of Redis is passed on as it is, a lost link answered; nothing is published either way."""
    miss = Miss()
    slot, flights = mget(miss, [None, b"$1\r\nb\r\n"], leased=[True])

    if end == "error":
        slot.land(b"-NOPERM no\r\n")
    else:
        slot.fail(Failure.LOST)

    assert (b"-NOPERM no\r\n" if end == "error" else UPSTREAM_UNAVAILABLE) == miss.joiner.received
    assert flights[0] is not None
    assert not flights[0].standing
    PttlSlot(miss.engine, flights[0]).fail(Failure.LOST)
    assert bulk(b"m0") not in miss.namespace.flights


def test_mget_too_large_streams_only_when_nothing_must_be_joined() -> None:
    """A reply that is fetched whole is passed on as it comes; one that must be joined is kept."""
    for frames, streams in (([None, None], True), ([None, b"$1\r\nb\r\n"], False)):
        miss = Miss(max_value_bytes=1000)
        slot, flights = mget(miss, list(frames), leased=[True, False][: frames.count(None)])
        fetched = array([bulk(b"v" * (2 * STREAM_BYTES))] + [b"$-1\r\n"] * (frames.count(None) - 1))

        slot.partial(fetched[:-3])
        assert streams == bool(miss.joiner.received)
        assert flights[0] is not None
        assert streams != flights[0].standing
        slot.land(fetched[-3:])

        parts = [fetched[4:], b"$1\r\nb\r\n"] if not streams else [fetched[4:]]
        assert b"*2\r\n" + b"".join(parts) == miss.joiner.received
        assert streams != flights[0].standing


def test_pttl_failed_lets_who_joined_ask_again() -> None:
    """The value of an MGET's key has come, its PTTL never will: nothing is known to last."""
    miss = Miss()
    miss.joiner.asks_again = True
    miss.flight.reply = VALUE

    PttlSlot(miss.engine, miss.flight).fail(Failure.LOST)

    assert miss.joiner.asked == [ASK]
    assert miss.held is None
