"""Generated replies are split where they were joined; damaged ones end in ReplyError and in nothing else."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.reply import ReplyError, elements, frame_end

from .feeding import cut, every_split, singly
from .resp import aggregate, frames, random_frame
from .test_reply import ends_of, expected_ends


@settings(max_examples=400, deadline=None)
@given(st.lists(frames, min_size=1, max_size=6), st.integers(min_value=0))
def test_scanner_generated_frames_end_where_they_were_joined(made: list[bytes], seed: int) -> None:
    """Whole, byte by byte and in random pieces, a stream of frames has the ends it was made with."""
    data = b"".join(made)
    expected = expected_ends(tuple(made))

    assert expected == ends_of([data])
    assert expected == ends_of(singly(data))
    assert expected == ends_of(cut(data, random.Random(seed)))


@settings(max_examples=40, deadline=None)
@given(frames, frames)
def test_scanner_generated_frames_every_split(first: bytes, second: bytes) -> None:
    """There is no byte at which a chunk must not end."""
    for pieces in every_split(first + second):
        assert [len(first), len(first) + len(second)] == ends_of(pieces)


@settings(max_examples=200, deadline=None)
@given(st.lists(frames.filter(lambda frame: not frame.startswith(b">")), max_size=8))
def test_elements_generated_frames_come_back(made: list[bytes]) -> None:
    """What an array was made of comes out of it, attributes with what they belong to."""
    assert made == elements(aggregate(b"*", made))


@settings(max_examples=800, deadline=None)
@given(st.binary(max_size=60))
def test_scanner_any_bytes_end_or_wait_or_are_refused(data: bytes) -> None:
    """Any bytes at all: an end inside the data, a wait for more, or ReplyError."""
    try:
        end = frame_end(data, 0)
    except ReplyError:
        return

    assert end == -1 or 0 < end <= len(data)


def test_scanner_seeded_damage_is_the_same_however_it_is_cut() -> None:
    """Ten thousand damaged streams: whole or in pieces the same frames are found before the same kind of end."""
    rng = random.Random(6)
    refused = 0
    for _ in range(10_000):
        data = bytearray(b"".join(random_frame(rng) for _ in range(rng.randrange(1, 4))))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            if rng.random() < 0.5:
                data[at] = rng.choice(b"\r\n$*+-%|>~_0123456789x")
            else:
                del data[at]
            data = data or bytearray(b"\n")
        whole = _outcome([bytes(data)])
        refused += whole == "refused"

        assert whole == _outcome(cut(bytes(data), rng)), bytes(data)
        assert whole == _outcome(singly(bytes(data))), bytes(data)
    assert 1000 < refused < 9000


def _outcome(pieces: list[bytes]) -> object:
    try:
        return ends_of(pieces)
    except ReplyError:
        return "refused"
