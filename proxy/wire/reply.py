"""Replies: find where each frame ends, without decoding it.

Owns the splitter. A reply is forwarded as the bytes it came in: decoding and encoding again would lose what RESP3 says
(`_` or `$-1`, sets, doubles, verbatim strings, attributes). `frame_end` is for frames that lie whole in one chunk, the
`FrameScanner` goes on where a chunk ended, at any byte, with no second look at what it has seen.
"""

from __future__ import annotations

from typing import Final

from proxy.errors import RemoteError

_LINE: Final = frozenset(b"+-:_#,(")  # the frame is one line
_BLOB: Final = frozenset(b"$=!")  # a length, then so many bytes
_PUSH: Final = 0x3E
_AGGREGATE: Final = {0x2A: 1, 0x7E: 1, 0x25: 2}  # a count, then count x factor frames
_ATTRIBUTE: Final = 0x7C  # a count of pairs, then the frame they belong to

HEADER_MAX: Final = 64 * 1024  # longest header we wait for: a type and a number


class ReplyError(RemoteError):
    """The upstream sent bytes that are no RESP: the link cannot be trusted any more."""


class FrameScanner:
    """Find the end of one frame over any number of chunks.

    `busy` is true between the first byte of a frame and its last. Source: RESP3 specification (aggregates, attributes).
    """

    __slots__ = ("_frames", "_line", "_outermost", "_skip", "busy")

    def __init__(self) -> None:
        self.busy = False
        self._frames = 0  # frames still to come before the outermost one ends
        self._outermost = True  # no header has been read yet
        self._skip = 0  # bytes of a blob (and its CRLF) still to come
        self._line = b""  # a header line cut by the end of a chunk

    def scan(self, data: bytes, pos: int) -> int:
        """Return the offset just past the frame that begins (or goes on) at `pos`; -1 when the chunk ends first.

        Raises ReplyError for what is no RESP.
        """
        if not self.busy:
            self.busy = self._outermost = True
            self._frames = 1
        size = len(data)
        frames = self._frames
        if self._skip:
            if self._skip > size - pos:
                self._skip -= size - pos
                return -1
            pos += self._skip
            self._skip = 0
            frames -= 1
        find = data.find
        while frames:
            end = find(b"\n", pos)
            if end < 0:
                self._line += data[pos:]
                if self._line and self._line[0] in _LINE:
                    self._line = self._line[:1]  # its kind is all that is looked at, and it may be long
                elif len(self._line) > HEADER_MAX:
                    raise ReplyError("the upstream sent a header without an end")
                self._frames = frames
                return -1
            line = data[pos : end + 1]
            if self._line:
                line = self._line + line
                self._line = b""
            pos = end + 1
            kind = line[0]
            if kind == 0x24 or kind in _BLOB:
                length = _number(line)
                if length >= 0:
                    if length + 2 > size - pos:
                        self._skip = length + 2 - (size - pos)
                        self._frames = frames
                        return -1
                    pos += length + 2
                frames -= 1
            elif kind in _LINE:
                frames -= 1
            elif kind == _PUSH:
                # Redis writes a push that comes during EXEC into its array, where it is no element.
                count = max(_number(line), 0)
                frames += count - 1 if self._outermost else count
                self._outermost = False
            elif kind in _AGGREGATE:
                self._outermost = False
                count = _number(line)
                frames += count * _AGGREGATE[kind] - 1 if count > 0 else -1
            elif kind == _ATTRIBUTE:
                frames += 2 * max(_number(line), 0)
            else:
                raise ReplyError(f"the upstream sent {line[:16]!r}, which is no RESP")
        self.busy = False
        self._frames = 0
        return pos

    def offset_of_next_header(self, data: bytes) -> int:
        """Return where in the next chunk the first header begins; past its end if it has none.

        Not moved by it: the chunk is still to be scanned.
        """
        if self._skip:
            return self._skip
        if not self._line:
            return 0
        end = data.find(b"\n") + 1
        if not end:
            return len(data)
        line = self._line + data[:end]
        return end + (_number(line) + 2 if line[0] in _BLOB and line[1:2] != b"-" else 0)


def _number(line: bytes) -> int:
    try:
        return int(line[1:])
    except ValueError:
        raise ReplyError(f"the upstream sent {line[:24]!r}, which is no RESP") from None


def frame_end(data: bytes, pos: int) -> int:
    """Return the offset just past the frame at `pos`, -1 when `data` ends before it. Raises ReplyError."""
    return FrameScanner().scan(data, pos)


def elements(frame: bytes) -> list[bytes]:
    """Split a whole array, set or push into the raw frames it holds (a map gives keys and values in turn).

    A push that lies inside an array is no element of it, and is left out.
    """
    return [part for part in frames(frame, frame.index(b"\n") + 1) if part[0] != _PUSH]


def frames(data: bytes, pos: int = 0) -> list[bytes]:
    """Split whole frames that lie back to back from `pos` on. Raises ReplyError where the last one is cut short."""
    scanner = FrameScanner()
    parts: list[bytes] = []
    while pos < len(data):
        end = scanner.scan(data, pos)
        if end < 0:
            raise ReplyError(f"a reply is cut short: {data[pos : pos + 16]!r}")
        parts.append(data[pos:end])
        pos = end
    return parts


def text(frame: bytes) -> bytes:
    """Return what a simple line or a blob says, without its RESP dress; b"" for a nil."""
    if frame[0] in _LINE:
        return frame[1:-2]
    head = frame.index(b"\n") + 1
    return frame[head:-2]
