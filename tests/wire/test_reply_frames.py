"""Frames that lie back to back, and where in a chunk the first header begins."""

from __future__ import annotations

import random

import pytest

from proxy.wire.reply import FrameScanner, ReplyError, elements, frames

from .resp import blob, random_frame

PUSH = b">2\r\n$10\r\ninvalidate\r\n*0\r\n"


def test_frames_splits_what_lies_back_to_back() -> None:
    """Any number of them, of any type, from any offset."""
    rng = random.Random(7)
    for _ in range(200):
        parts = [random_frame(rng) for _ in range(rng.randrange(6))]
        assert frames(b"".join(parts)) == parts
        assert frames(b"junk" + b"".join(parts), 4) == parts


def test_frames_attribute_belongs_to_the_frame_behind_it() -> None:
    """It is no frame of its own."""
    assert frames(b"|1\r\n+ttl\r\n:5\r\n$1\r\na\r\n:1\r\n") == [b"|1\r\n+ttl\r\n:5\r\n$1\r\na\r\n", b":1\r\n"]


@pytest.mark.parametrize("data", [b"hello\r\n", b"+OK\r\nhello\r\n", b"$x\r\n"])
def test_frames_of_what_is_no_resp_fails(data: bytes) -> None:
    """As for any reply."""
    with pytest.raises(ReplyError):
        frames(data)


def test_elements_leaves_out_pushes_inside() -> None:
    """Redis writes a push that comes during EXEC into its array."""
    assert elements(b"*2\r\n:1\r\n" + PUSH + b":2\r\n") == [b":1\r\n", b":2\r\n"]


@pytest.mark.parametrize(
    "frame",
    [
        *(b"$10\r\n0123456789\r\n", b"=7\r\ntxt:abc\r\n", b"!4\r\nERR \r\n", b"$0\r\n\r\n", b"$-1\r\n", b"_\r\n"),
        *(b"+a long line of text\r\n", b":123456\r\n", b"*2\r\n$5\r\nhello\r\n*1\r\n$-1\r\n", b"*-1\r\n", b"*0\r\n"),
        b"%1\r\n+key\r\n$3\r\nabc\r\n",
        PUSH,
    ],
)
def test_offset_of_next_header_behind_every_split(frame: bytes) -> None:
    """A chunk may begin inside a blob, inside its line end, inside a header, or with one: the next header is found."""
    stream = frame + b"$3\r\nend\r\n:1\r\n"
    headers = header_offsets(stream)
    for at in range(1, len(stream)):
        scanner, pos = FrameScanner(), 0
        while 0 <= pos < at:
            pos = scanner.scan(stream[:at], pos)
        rest = stream[at:]
        expected = min((one for one in headers if one >= at), default=len(stream)) - at

        found = scanner.offset_of_next_header(rest)

        assert min(found, len(rest)) == expected, at
        assert scanner.offset_of_next_header(rest) == found  # it has moved nothing


def test_offset_of_next_header_lies_behind_a_chunk_that_has_none() -> None:
    """The rest of a blob is longer than the chunk, or a header is still not whole."""
    scanner = FrameScanner()
    assert scanner.scan(b"$100\r\nabc", 0) == -1
    assert scanner.offset_of_next_header(b"x" * 10) == 99

    scanner = FrameScanner()
    assert scanner.scan(b"$1", 0) == -1
    assert scanner.offset_of_next_header(b"0") == 1
    assert scanner.offset_of_next_header(b"0\r\nabc") == 3 + 102 - 90


def test_offset_of_next_header_of_a_long_line_is_behind_it() -> None:
    """Of a line only its kind is kept."""
    scanner = FrameScanner()
    assert scanner.scan(b"+a line that goes", 0) == -1

    assert scanner.offset_of_next_header(b" on\r\n$3\r\nabc\r\n") == 5


def test_offset_of_next_header_between_frames_is_the_beginning() -> None:
    """Nothing is cut."""
    scanner = FrameScanner()
    assert scanner.scan(blob(b"$", b"abc"), 0) == 9

    assert scanner.offset_of_next_header(b":1\r\n") == 0


def header_offsets(stream: bytes) -> list[int]:
    """List where the headers of a stream begin, by a plain walk over its lines and blobs."""
    found, pos = [], 0
    while pos < len(stream):
        found.append(pos)
        line_end = stream.index(b"\n", pos) + 1
        line = stream[pos:line_end]
        pos = line_end
        if line[:1] in (b"$", b"=", b"!") and not line[1:].startswith(b"-"):
            pos += int(line[1:]) + 2
    return found
