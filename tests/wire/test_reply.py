"""Where a reply ends is found without decoding it, wherever the chunks end."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections.abc import Callable

import pytest

from proxy.wire.reply import HEADER_MAX, FrameScanner, ReplyError, elements, frame_end, text

from .feeding import every_split
from .resp import aggregate, blob

FRAMES = (
    *(b"+OK\r\n", b"+\r\n", b"-ERR no\r\n", b":1\r\n", b":-9223372036854775808\r\n", b"_\r\n", b"#t\r\n", b"#f\r\n"),
    *(b",1.5\r\n", b",inf\r\n", b"(3492890328409238509324850943850943825024385\r\n", b"$-1\r\n", b"*-1\r\n"),
    *(b"$0\r\n\r\n", b"$5\r\nhello\r\n", b"$6\r\n\r\n+a\r\n\r\n", b"=7\r\ntxt:abc\r\n", b"!5\r\nERR x\r\n"),
    *(b"*0\r\n", b"*1\r\n:1\r\n", b"*2\r\n$1\r\na\r\n$-1\r\n", b"*2\r\n*2\r\n:1\r\n*0\r\n*-1\r\n"),
    *(b"~0\r\n", b"~2\r\n+a\r\n+b\r\n", b"%0\r\n", b"%1\r\n+k\r\n*1\r\n:1\r\n", b"%2\r\n+a\r\n:1\r\n+b\r\n%0\r\n"),
    *(b">0\r\n", b">2\r\n+pubsub\r\n*1\r\n$1\r\na\r\n", b">2\r\n$10\r\ninvalidate\r\n_\r\n"),
    b"|1\r\n+ttl\r\n:3600\r\n$1\r\na\r\n",
    b"|0\r\n+OK\r\n",
    b"|1\r\n+k\r\n%1\r\n+a\r\n+b\r\n*2\r\n|1\r\n+x\r\n:1\r\n:2\r\n:3\r\n",
    b"*2\r\n+a\r\n>2\r\n+invalidate\r\n_\r\n+b\r\n",  # a push during EXEC, written into its array
    b"*2\r\n>2\r\n+invalidate\r\n*1\r\n+k\r\n+a\r\n>1\r\n+x\r\n*1\r\n:1\r\n",
)


def ends_of(pieces: list[bytes]) -> list[int]:
    """Scan a stream in pieces; return where its frames end, counted from its start."""
    scanner = FrameScanner()
    ends = []
    before = 0
    for piece in pieces:
        pos = 0
        while pos < len(piece):
            end = scanner.scan(piece, pos)
            if end < 0:
                assert scanner.busy
                break
            assert not scanner.busy
            ends.append(before + end)
            pos = end
        before += len(piece)
    return ends


def expected_ends(frames: tuple[bytes, ...]) -> list[int]:
    """Say where frames end that follow each other."""
    return [len(b"".join(frames[: at + 1])) for at in range(len(frames))]


@pytest.mark.parametrize("frame", FRAMES, ids=repr)
def test_frame_end_whole_frame_is_its_length(frame: bytes) -> None:
    """A frame ends with its last byte, also when others follow and when it does not begin the chunk."""
    assert len(frame) == frame_end(frame, 0)
    assert len(frame) == frame_end(frame + b"+OK\r\n", 0)
    assert len(frame) + 5 == frame_end(b"+OK\r\n" + frame + b"$1\r\n", 5)


@pytest.mark.parametrize("frame", FRAMES, ids=repr)
def test_frame_end_any_part_of_a_frame_has_no_end(frame: bytes) -> None:
    """Every proper part of a frame, from its start, waits for more."""
    for size in range(len(frame)):
        assert frame_end(frame[:size], 0) == -1


def test_scanner_every_split_of_every_frame_gives_the_same_ends() -> None:
    """Wherever a chunk ends, the ends found are the same; two frames, so that one starts inside a chunk."""
    for frame in FRAMES:
        for pieces in every_split(frame + frame):
            assert [len(frame), 2 * len(frame)] == ends_of(pieces), pieces


def test_scanner_byte_by_byte_gives_the_same_ends() -> None:
    """All frames one after another, in single bytes, have the ends they have as a whole."""
    data = b"".join(FRAMES)

    assert expected_ends(FRAMES) == ends_of([data])
    assert expected_ends(FRAMES) == ends_of([data[at : at + 1] for at in range(len(data))])


@pytest.mark.parametrize(
    "garbage",
    [
        *(b"hello\r\n", b"\r\n", b"\n", b"\0\n", b"\xff\r\n", b"PONG\r\n", b"@1\r\n"),
        *(b"$\r\n", b"$a\r\n", b"$1.5\r\n", b"$?\r\n", b"*?\r\n", b"*\r\n", b"*1x\r\n", b"%a\r\n", b"|\r\n", b"|x\r\n"),
        *(
            b"*1\r\nx\r\n",
            b"*2\r\n:1\r\n\r\n",
            b"|1\r\n+k\r\nx\r\n",
            b"$1\r\nab\r\nx\r\n$",
            b"*" + b"9" * 5000 + b"\r\n",
        ),
        *(b">1\r\nx\r\n", b">\r\n", b"=\r\n", b"!x\r\n", b"~x\r\n"),
    ],
    ids=lambda garbage: repr(garbage[:20]),
)
def test_scanner_garbage_is_a_reply_error(garbage: bytes) -> None:
    """What is no RESP ends the link with ReplyError and with nothing else, whole and byte by byte."""
    for pieces in ([garbage], [garbage[at : at + 1] for at in range(len(garbage))]):
        with pytest.raises(ReplyError, match="the upstream sent"):
            ends_of(pieces)


@pytest.mark.parametrize("head", [b"*-2", b"%-1", b"~-7", b"|-1", b"|-9", b">-1", b">-5", b"$-3"])
def test_scanner_negative_count_is_an_empty_frame(head: bytes) -> None:
    """A count below zero takes nothing with it: what follows is a frame again, and the scanner comes to an end."""
    data = head + b"\r\n" + b"+OK\r\n" * 4

    ends = ends_of([data])

    assert len(data) == ends[-1]
    assert len(ends) >= 4


@pytest.mark.parametrize("kind", [b"$", b"*", b"%", b"~", b"|", b">", b"=", b"!", b"x"])
def test_scanner_header_without_an_end_is_an_error(kind: bytes) -> None:
    """A count is a few digits: one that does not end within 64 KiB is no RESP, however it arrives."""
    scanner = FrameScanner()
    assert scanner.scan(kind + b"1" * (HEADER_MAX - 1), 0) == -1

    with pytest.raises(ReplyError, match="a header without an end"):
        scanner.scan(b"1" * 10, 0)


@pytest.mark.parametrize("kind", [b"+", b"-", b"("])
def test_scanner_simple_line_may_be_long_and_is_not_held(kind: bytes) -> None:
    """A script may answer with a status of megabytes: its end is found, and nothing of it is kept."""
    scanner = FrameScanner()
    chunk = b"x" * 65536
    tracemalloc.start()
    try:
        assert scanner.scan(kind + chunk, 0) == -1
        for _ in range(64):
            assert scanner.scan(chunk, 0) == -1
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert scanner.scan(b"xx\r\n+OK\r\n", 0) == 4


def test_scanner_announced_size_takes_no_memory() -> None:
    """A terabyte may be announced; only what is still missing is counted."""
    scanner = FrameScanner()
    tracemalloc.start()
    try:
        assert scanner.scan(b"*99999999999\r\n$1099511627776\r\nabc", 0) == -1
        assert scanner.scan(b"x" * 10_000, 0) == -1
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


def _seconds(pieces: list[bytes]) -> float:
    began = time.process_time()
    assert len(ends_of(pieces)) == 1
    return time.process_time() - began


@pytest.mark.parametrize("chunk", [200, 256 * 1024])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: blob(b"$", b"v" * size),
        lambda size: aggregate(b"*", [b"$4\r\nabcd\r\n"] * (size // 10)),
        lambda size: b"*1\r\n" * (size // 4) + b":1\r\n",
        lambda size: aggregate(b"%", [b"+k\r\n", b":1\r\n"] * (size // 9), 2),
        lambda size: b"+" + b"x" * size + b"\r\n",
    ],
    ids=["blob", "array", "nested", "map", "line"],
)
def test_scanner_time_grows_with_the_size_and_no_faster(make: Callable[[int], bytes], chunk: int) -> None:
    """Sixteen times the frame, in small chunks or in one, takes about sixteen times the time, not its square."""
    small, large = (make(size) for size in ((60_000, 960_000) if chunk == 200 else (16_000, 256_000)))
    small_pieces, large_pieces = (
        [data[at : at + chunk] for at in range(0, len(data), chunk)] for data in (small, large)
    )

    ratio = min(_seconds(large_pieces) for _ in range(3)) / max(min(_seconds(small_pieces) for _ in range(5)), 20e-6)

    assert ratio < 64


def test_elements_are_the_raw_frames_of_an_aggregate() -> None:
    """An array comes apart into the frames it was made of; a map into keys and values in turn."""
    parts = [frame for frame in FRAMES if not frame.startswith(b">")]
    for kind in (b"*", b"~", b">"):
        assert parts == elements(aggregate(kind, parts))
    assert parts * 2 == elements(aggregate(b"%", parts * 2, 2))
    assert elements(b"*0\r\n") == []
    assert elements(b"*-1\r\n") == []


def test_elements_leave_out_a_push_between_them() -> None:
    """A push that Redis wrote into the array of an EXEC is none of its elements."""
    push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"

    frame = b"*2\r\n" + push + b"+OK\r\n" + push + b"*1\r\n:1\r\n"

    assert len(frame) == frame_end(frame + b"+next\r\n", 0)
    assert elements(frame) == [b"+OK\r\n", b"*1\r\n:1\r\n"]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"+OK\r\n", b"OK"),
        (b"-ERR x\r\n", b"ERR x"),
        (b":12\r\n", b"12"),
        (b",1.5\r\n", b"1.5"),
        (b"#t\r\n", b"t"),
        (b"_\r\n", b""),
        (b"$-1\r\n", b""),
        (b"$0\r\n\r\n", b""),
        (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
        (b"=7\r\ntxt:abc\r\n", b"txt:abc"),
        (b"!5\r\nERR x\r\n", b"ERR x"),
    ],
)
def test_text_is_what_a_frame_says(frame: bytes, expected: bytes) -> None:
    """A line or a blob says its text, a nil says nothing."""
    assert expected == text(frame)


def test_scanner_random_chunks_of_a_long_stream_give_the_same_ends() -> None:
    """A stream of all frames many times over, in chunks of many sizes, has the ends it has as a whole."""
    rng = random.Random(5)
    frames = tuple(rng.choices((*FRAMES, blob(b"$", b"x" * 70_000)), k=400))
    data = b"".join(frames)
    pieces = []
    at = 0
    while at < len(data):
        size = rng.choice((1, 7, 100, 4096, 65536))
        pieces.append(data[at : at + size])
        at += size

    assert expected_ends(frames) == ends_of(pieces)
