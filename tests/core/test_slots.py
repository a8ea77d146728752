"""A slot takes what comes for it, whole or in parts, and ends: with the reply, or with the right error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.cache.entry import Scope
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.slots import (
    STREAM_BYTES,
    CallSlot,
    EffectSlot,
    Failure,
    FilledSlot,
    Mode,
    Slot,
    WriteAllSlot,
    WriteSlot,
    failure_line,
)
from proxy.errors import UPSTREAM_LOST, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE
from proxy.wire.encode import bulk

from .scripted_slots import ScriptedClient

KEY = bulk(b"k")


def engine_of() -> Engine:
    """Make an engine that serves L1."""
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=200_000)
    engine.serve()
    return engine


def noting(into: list[bytes], answer: bytes) -> Callable[[bytes], bytes]:
    """Make a `then` that notes what it reads and answers the same each time."""

    def then(raw: bytes) -> bytes:
        into.append(raw)
        return answer

    return then


def owed(client: ScriptedClient, slot: Slot, replies: int = 1) -> Slot:
    """Let a client be owed a slot."""
    slot.left = replies
    client.owe(slot)
    return slot


@pytest.mark.parametrize(
    ("failure", "is_write", "expected"),
    [
        (Failure.UNAVAILABLE, True, UPSTREAM_UNAVAILABLE),
        (Failure.UNAVAILABLE, False, UPSTREAM_UNAVAILABLE),
        (Failure.LOST, True, UPSTREAM_LOST),
        (Failure.LOST, False, UPSTREAM_UNAVAILABLE),
        (Failure.TIMED_OUT, True, UPSTREAM_TIMED_OUT),
        (Failure.TIMED_OUT, False, UPSTREAM_TIMED_OUT),
    ],
)
def test_failure_line_says_what_is_known(failure: Failure, is_write: bool, expected: bytes) -> None:
    """Only of a write that was sent is it said that it may have been applied; what is late is called late."""
    assert expected == failure_line(failure, is_write=is_write)


def test_slots_settle_in_the_order_they_were_owed() -> None:
    """A reply that comes early waits for those before it."""
    client = ScriptedClient()
    first, second, third = (owed(client, Slot(client)) for _ in range(3))

    second.land(b"+two\r\n")
    third.land(b"+three\r\n")
    assert client.received == b""
    client.reply(b"+known\r\n")
    first.land(b"+one\r\n")

    assert client.received == b"+one\r\n+two\r\n+three\r\n+known\r\n"
    assert not client.queue


def test_filled_slot_is_there_at_once() -> None:
    """A reply that is known waits for nothing but its turn."""
    assert FilledSlot(b"+OK\r\n").reply == b"+OK\r\n"


def test_slot_parts_of_one_reply_come_out_joined() -> None:
    """A reply that comes in pieces is given once, when it is whole."""
    client = ScriptedClient()
    slot = owed(client, Slot(client))

    for part in (b"$5\r\nhe", b"ll", b"o\r"):
        slot.partial(part)
        assert slot.reply is None
    slot.land(b"\n")

    assert client.received == b"$5\r\nhello\r\n"
    assert client.streamed == []


def test_slot_batch_counts_down_and_is_given_once() -> None:
    """The replies of a batch are given together, when the last is in."""
    client = ScriptedClient()
    slot = owed(client, Slot(client), 5)

    slot.keep(b"+1\r\n+2\r\n", 2)
    slot.partial(b"+")
    slot.keep(b"3\r\n", 1)
    assert slot.left == 2
    slot.keep(b"+4\r\n", 1)
    slot.land(b"+5\r\n")

    assert client.received == b"+1\r\n+2\r\n+3\r\n+4\r\n+5\r\n"


@pytest.mark.parametrize(
    ("feed", "expected"),
    [
        (lambda slot: None, UPSTREAM_LOST * 4),
        (lambda slot: slot.partial(b"+half"), UPSTREAM_LOST * 4),
        (lambda slot: slot.keep(b"+1\r\n", 1), b"+1\r\n" + UPSTREAM_LOST * 3),
        (lambda slot: (slot.keep(b"+1\r\n+2\r\n", 2), slot.partial(b"+")), b"+1\r\n+2\r\n" + UPSTREAM_LOST * 2),
        (lambda slot: (slot.partial(b"+"), slot.keep(b"1\r\n", 1), slot.partial(b"+2")), b"+1\r\n" + UPSTREAM_LOST * 3),
        (
            lambda slot: (slot.keep(b"+1\r\n", 1), slot.keep(b"+2\r\n", 1), slot.keep(b"+3\r\n", 1)),
            b"+1\r\n+2\r\n+3\r\n" + UPSTREAM_LOST,
        ),
    ],
)
def test_slot_failed_keeps_whole_replies_and_answers_the_rest(feed: Callable[[Slot], object], expected: bytes) -> None:
    """Whole replies that came are passed on, half a one is not, and every command gets one answer."""
    client = ScriptedClient()
    slot = owed(client, EffectSlot(client), 4)
    feed(slot)

    slot.fail(Failure.LOST)

    assert expected == client.received
    assert not client.aborted


def test_slot_refused_answers_each_command_with_the_words_of_redis() -> None:
    """Commands that waited for a link which Redis did not let in get Redis' own refusal, each of them."""
    client = ScriptedClient()

    owed(client, Slot(client), 3).refuse(b"-NOAUTH no\r\n")

    assert client.received == b"-NOAUTH no\r\n" * 3


def test_slot_large_reply_streams_when_it_is_its_turn() -> None:
    """From a size on parts are passed on as they come, in order, and are held no longer."""
    client = ScriptedClient()
    slot = owed(client, Slot(client))

    slot.partial(b"x" * STREAM_BYTES)
    assert client.streamed == []
    slot.partial(b"y")
    assert client.streamed == [b"x" * STREAM_BYTES, b"y"]
    assert slot.parts is None
    slot.partial(b"z")
    assert slot.streams
    slot.land(b"\r\n")

    assert client.received == b"x" * STREAM_BYTES + b"yz\r\n"
    assert not client.queue


def test_slot_large_reply_waits_for_its_turn() -> None:
    """A large reply behind another slot is kept until that is filled; what comes then streams."""
    client = ScriptedClient()
    first, second = owed(client, Slot(client)), owed(client, Slot(client))

    second.partial(b"x" * (2 * STREAM_BYTES))
    assert client.received == b""
    first.land(b"+one\r\n")
    second.partial(b"y")
    assert client.received == b"+one\r\n" + b"x" * (2 * STREAM_BYTES) + b"y"
    second.land(b"z")

    assert client.received.endswith(b"xyz")


def test_slot_failed_inside_a_streamed_reply_aborts() -> None:
    """Half a reply has reached the client: nothing can follow it but the end of the connection."""
    client = ScriptedClient()
    slot = owed(client, EffectSlot(client))
    slot.partial(b"x" * (STREAM_BYTES + 1))

    slot.fail(Failure.LOST)

    assert client.aborted
    assert client.received == b"x" * (STREAM_BYTES + 1)


def test_slot_failed_between_streamed_replies_does_not_abort() -> None:
    """Whole replies have reached the client: the others are answered with errors."""
    client = ScriptedClient()
    slot = owed(client, EffectSlot(client), 3)
    slot.partial(b"x" * (STREAM_BYTES + 1))
    assert slot.mode is Mode.HALF
    slot.keep(b"\r\n", 1)

    slot.fail(Failure.LOST)

    assert not client.aborted
    assert client.received == b"x" * (STREAM_BYTES + 1) + b"\r\n" + UPSTREAM_LOST * 2


def test_slot_muted_is_awaited_and_not_sent() -> None:
    """CLIENT REPLY OFF: the reply is taken from the link, never held, and nothing reaches the client."""
    client = ScriptedClient()
    muted, after = owed(client, Slot(client), 2), owed(client, Slot(client))
    muted.mode = Mode.MUTED

    muted.keep(b"+1\r\n", 1)
    muted.partial(b"x" * (2 * STREAM_BYTES))
    assert muted.parts is None
    after.land(b"+after\r\n")
    assert client.received == b""
    muted.land(b"\r\n")

    assert client.received == b"+after\r\n"


@pytest.mark.parametrize("make", [Slot, EffectSlot, lambda client: CallSlot(client, bytes.upper)])
def test_slot_muted_and_failed_says_nothing(make: Callable[[ScriptedClient], Slot]) -> None:
    """Nor does an error reach a client that wants no replies."""
    client = ScriptedClient()
    slot = owed(client, make(client))
    slot.mode = Mode.MUTED

    slot.fail(Failure.LOST)

    assert client.received == b""
    assert not client.queue


def test_slot_orphaned_reaches_nobody() -> None:
    """A client that has gone is sent nothing more, whether its reply streamed already or not; the reply is awaited."""
    for before in (0, STREAM_BYTES + 1):
        client = ScriptedClient()
        slot = owed(client, Slot(client), 2)
        if before:
            slot.partial(b"x" * before)
        slot.orphan()
        slot.partial(b"y" * (2 * STREAM_BYTES))
        slot.keep(b"\r\n", 1)
        slot.land(b"+two\r\n")

        assert before == len(client.received)
        assert slot.reply is not None
        assert not client.aborted


def test_slot_orphaned_and_failed_aborts_nobody() -> None:
    """There is nobody left to be cut off."""
    client = ScriptedClient()
    slot = owed(client, Slot(client))
    slot.partial(b"x" * (STREAM_BYTES + 1))
    slot.orphan()

    slot.fail(Failure.LOST)

    assert not client.aborted


@pytest.mark.parametrize("end", [lambda slot: slot.land(b"+OK\r\n"), lambda slot: slot.fail(Failure.LOST)])
def test_write_slot_ends_its_writes_before_anybody_is_answered(end: Callable[[Slot], None]) -> None:
    """When the reply is read, or will never come, its keys are dropped again and may be leased; not before."""
    engine, client = engine_of(), ScriptedClient()
    namespace = engine.l1.namespace(Scope(b"", 0, 2))
    seen: list[object] = []
    client.settle = lambda: seen.append((KEY in namespace.resident, engine.can_lease(KEY)))  # type: ignore[method-assign]
    engine.begin_write([KEY])
    slot = owed(client, WriteSlot(client, engine, [KEY]))
    engine.l1.put(namespace, KEY, b"$3\r\nold\r\n", 1e9, 0.0)
    assert not engine.can_lease(KEY)

    end(slot)

    assert seen == [(False, True)]


def test_write_slot_batch_ends_with_its_last_reply() -> None:
    """Keys of a batch are being written until all of it is answered, each as often as it was named."""
    engine, client = engine_of(), ScriptedClient()
    engine.begin_write([KEY, KEY, bulk(b"other")])
    slot = owed(client, WriteSlot(client, engine, [KEY, KEY, bulk(b"other")]), 2)

    slot.keep(b"+OK\r\n", 1)
    assert not engine.can_lease(KEY)
    slot.land(b"+OK\r\n")

    assert engine.can_lease(KEY)
    assert engine.writing == {}


@pytest.mark.parametrize("end", [lambda slot: slot.land(b"+OK\r\n"), lambda slot: slot.fail(Failure.LOST)])
def test_write_all_slot_drops_everything_before_the_answer(end: Callable[[Slot], None]) -> None:
    """A write that may have changed any key ends like one of a known key; what follows from it comes last."""
    engine, client = engine_of(), ScriptedClient()
    namespace = engine.l1.namespace(Scope(b"", 0, 2))
    seen: list[object] = []
    client.settle = lambda: seen.append((len(engine.l1), engine.can_lease(KEY)))  # type: ignore[method-assign]
    engine.begin_write_all()
    slot = owed(client, WriteAllSlot(client, engine, lambda: seen.append("after")))
    engine.l1.put(namespace, KEY, b"$3\r\nold\r\n", 1e9, 0.0)
    assert not engine.can_lease(KEY)

    end(slot)

    assert seen == [(0, True), "after"]


@pytest.mark.parametrize(
    "end", [lambda slot: slot.land(b"-ERR DB index is out of range\r\n"), lambda slot: slot.fail(Failure.UNAVAILABLE)]
)
def test_write_all_slot_that_changed_nothing_is_followed_by_nothing(end: Callable[[Slot], None]) -> None:
    """Who is refused can have nobody flush."""
    engine, client = engine_of(), ScriptedClient()
    seen: list[object] = []
    engine.begin_write_all()

    end(owed(client, WriteAllSlot(client, engine, lambda: seen.append("after"))))

    assert seen == []
    assert client.received[:1] == b"-"


def test_call_slot_reads_the_reply_before_the_client() -> None:
    """The client is sent what `then` makes of the whole reply, however large, and none of it before."""
    client = ScriptedClient()
    slot = owed(client, CallSlot(client, lambda raw: b"$%d\r\n" % len(raw)))

    slot.partial(b"x" * (2 * STREAM_BYTES))
    assert client.received == b""
    slot.land(b"y")

    assert client.received == b"$%d\r\n" % (2 * STREAM_BYTES + 1)


def test_call_slot_muted_is_read_all_the_same() -> None:
    """The proxy must see the reply of a command whose client wants to hear nothing."""
    client = ScriptedClient()
    read: list[bytes] = []
    slot = owed(client, CallSlot(client, noting(read, b"+OK\r\n")))
    slot.mode = Mode.MUTED

    slot.partial(b"+O")
    slot.land(b"K\r\n")

    assert read == [b"+OK\r\n"]
    assert client.received == b""


def test_call_slot_without_a_client_is_only_read() -> None:
    """What the proxy asks for itself reaches `then`, and nobody else."""
    read: list[bytes] = []
    slot = CallSlot(None, noting(read, b""))

    slot.land(b":5\r\n")

    assert read == [b":5\r\n"]


def test_call_slot_failed_tells_whoever_waits_first() -> None:
    """Whoever asked is told that no reply will come, before the client reads the error; `then` is not called."""
    client = ScriptedClient()
    order: list[bytes] = []
    slot = owed(client, CallSlot(client, noting(order, b""), lambda: order.append(client.received)))

    slot.fail(Failure.LOST)

    assert order == [b""]
    assert client.received == UPSTREAM_LOST
