"""What a socket does not take is kept in order, once, and sent when it takes more."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from proxy.net.outbox import JOIN_BYTES, Outbox
from proxy.wire.request import Raw

from .scripted import ScriptedStream


def put(outbox: Outbox, *parts: bytes) -> None:
    """Add parts."""
    outbox.put(list(parts), sum(map(len, parts)))


def test_outbox_empty_pumps_nothing() -> None:
    """Nothing to send is sent at once, with no call to the socket."""
    stream = ScriptedStream()

    assert Outbox().pump(stream.send)
    assert stream.sends == []


def test_outbox_small_parts_go_in_one_send() -> None:
    """Parts that are small together are joined: one call instead of three."""
    outbox, stream = Outbox(), ScriptedStream()
    put(outbox, b"a", b"", b"bc")

    assert outbox.size == 3
    assert outbox.pump(stream.send)
    assert stream.sends == [b"abc"]
    assert outbox.size == 0


def test_outbox_large_parts_are_held_once() -> None:
    """Parts too large to be joined are kept as they are, not copied."""
    outbox, stream = Outbox(), ScriptedStream()
    parts: list[Raw] = [b"x" * JOIN_BYTES, memoryview(b"y" * JOIN_BYTES), b""]
    tracemalloc.start()
    try:
        outbox.put(list(parts), 2 * JOIN_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()

    assert outbox.size == 2 * JOIN_BYTES
    assert outbox.pump(stream.send)
    assert [len(send) for send in stream.sends] == [JOIN_BYTES, JOIN_BYTES]


def test_outbox_full_socket_keeps_the_rest() -> None:
    """A socket that takes a part of it leaves the rest for later, byte for byte."""
    outbox, stream = Outbox(), ScriptedStream()
    put(outbox, b"hello ")
    put(outbox, b"world")
    stream.room = [4, 2, 3, 0]

    assert not outbox.pump(stream.send)
    assert outbox.size == 7
    assert not outbox.pump(stream.send)
    assert outbox.size == 2
    assert not outbox.pump(stream.send)
    assert outbox.pump(stream.send)
    assert stream.sent == b"hello world"
    assert outbox.size == 0


@pytest.mark.parametrize("error", [BlockingIOError(), InterruptedError()])
def test_outbox_socket_that_takes_nothing_keeps_everything(error: OSError) -> None:
    """EAGAIN and EINTR are no errors: the bytes wait."""
    outbox, stream = Outbox(), ScriptedStream()
    put(outbox, b"hello")
    stream.room = [error]

    assert not outbox.pump(stream.send)
    assert outbox.size == 5


def test_outbox_broken_socket_raises_and_knows_what_was_not_sent() -> None:
    """Any other error is the owner's to judge; what was not taken is still counted."""
    outbox, stream = Outbox(), ScriptedStream()
    put(outbox, b"hello")
    put(outbox, b"world")
    stream.room = [5, ConnectionResetError()]

    with pytest.raises(ConnectionResetError):
        outbox.pump(stream.send)
    assert outbox.size == 5


def test_outbox_cleared_has_nothing() -> None:
    """What was forgotten is neither counted nor sent."""
    outbox, stream = Outbox(), ScriptedStream()
    put(outbox, b"hello")

    outbox.clear()

    assert outbox.size == 0
    assert outbox.pump(stream.send)
    assert stream.sent == b""


def test_outbox_random_parts_and_rooms_arrive_in_order() -> None:
    """Whatever is put when, and however little is taken at a time, every byte arrives once and in its place."""
    rng = random.Random(7)
    for _ in range(200):
        outbox, stream = Outbox(), ScriptedStream()
        expected = b""
        for _ in range(rng.randrange(1, 12)):
            parts = [rng.randbytes(rng.choice((0, 1, 5, 100))) for _ in range(rng.randrange(1, 4))]
            put(outbox, *parts)
            expected += b"".join(parts)
            stream.room = [*(rng.choice((0, 1, 7, 50, 1000)) for _ in range(rng.randrange(3))), 0]
            outbox.pump(stream.send)
            assert len(expected) == len(stream.sent) + outbox.size
        stream.room = []
        assert outbox.pump(stream.send)
        assert expected == stream.sent
