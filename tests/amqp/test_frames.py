"""proxy/amqp/frames.py: where frames end, however their bytes come."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from pamqp import commands, frame

from proxy.amqp.frames import (
    BODY,
    FRAME_MAX,
    HEARTBEAT_FRAME,
    METHOD,
    FrameFaultError,
    FrameReader,
    Outgoing,
    read_method,
    write_ack,
    write_message,
    write_method,
    write_nack,
)

STREAM = (
    write_method(commands.Queue.DeclareOk("q", 1, 2), 1)
    + HEARTBEAT_FRAME
    + write_message(Outgoing("x", "k", b"body", commands.Basic.Properties(content_type="t")), 7, 4096)
)


def test_stream_is_read_the_same_at_every_split() -> None:
    """No place to cut the stream in two makes a difference."""
    whole = list(FrameReader().feed(STREAM))
    for place in range(len(STREAM)):
        reader = FrameReader()
        assert [*reader.feed(STREAM[:place]), *reader.feed(STREAM[place:])] == whole


def test_stream_is_read_the_same_byte_by_byte() -> None:
    """Nor do as many reads as there are bytes."""
    reader = FrameReader()
    frames = [found for byte in STREAM for found in reader.feed(bytes((byte,)))]

    assert [(found.kind, found.channel) for found in frames] == [(1, 1), (8, 0), (1, 7), (2, 7), (3, 7)]


def test_reader_knows_how_much_is_missing() -> None:
    """A frame under way says how much to read; before its head is there, nothing is known."""
    reader = FrameReader()
    list(reader.feed(STREAM[:6]))
    before = reader.missing
    list(reader.feed(STREAM[6:10]))

    assert before == 0
    assert reader.missing == len(write_method(commands.Queue.DeclareOk("q", 1, 2), 1)) - 10


def test_frames_before_a_fault_are_handed_out() -> None:
    """What came whole before the noise counts."""
    reader = FrameReader()
    frames = reader.feed(STREAM + b"\x05noise....")
    found = [next(frames) for _ in range(5)]
    with pytest.raises(FrameFaultError):
        next(frames)

    assert found[-1].kind == BODY


@pytest.mark.parametrize("seed", range(200))
def test_noise_is_a_fault_or_waits(seed: int) -> None:
    """Random bytes and changed streams raise FrameFaultError or nothing."""
    chance = random.Random(seed)
    raw = bytearray(STREAM)
    for _ in range(chance.randrange(1, 5)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    with suppress(FrameFaultError):
        for found in FrameReader().feed(bytes(raw) if seed % 2 else chance.randbytes(64)):
            if found.kind == METHOD:
                assert read_method(found.payload) is not None


def test_body_is_cut_to_the_size_of_frames() -> None:
    """No frame is larger than agreed, and none is empty."""
    raw = write_message(Outgoing("", "q", bytes(10_000), commands.Basic.Properties()), 1, 4096)
    sizes = [len(found.payload) + 8 for found in FrameReader().feed(raw)][2:]

    assert sizes == [4096, 4096, 10_000 - 2 * 4088 + 8]


def test_frame_of_the_most_bytes_is_taken() -> None:
    """The limit itself is allowed."""
    payload = bytes(FRAME_MAX - 8)
    (found,) = FrameReader().feed(b"\x03\0\1" + len(payload).to_bytes(4, "big") + payload + b"\xce")

    assert found.payload == payload


@pytest.mark.parametrize("multiple", [True, False])
@pytest.mark.parametrize("requeue", [True, False])
def test_acknowledgements_are_what_another_codec_reads(multiple: bool, requeue: bool) -> None:
    """Both bits are at their places."""
    _, channel, ack = frame.unmarshal(write_ack(3, 1 << 40, multiple=multiple))
    _, _, nack = frame.unmarshal(write_nack(3, 5, multiple=multiple, requeue=requeue))

    assert isinstance(ack, commands.Basic.Ack)
    assert isinstance(nack, commands.Basic.Nack)
    assert (channel, ack.delivery_tag, ack.multiple) == (3, 1 << 40, multiple)
    assert (nack.delivery_tag, nack.multiple, nack.requeue) == (5, multiple, requeue)
