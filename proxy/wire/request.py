"""Requests: bytes of a client -> commands, exactly as Redis would read them.

Owns the two ways a request is read. `parse` is the fast one, for chunks that hold whole commands: hiredis splits them,
and every command is packed again and compared with the bytes it came from. What passes is canonical: an array of bulk
strings with nothing else in it, safe to forward on a link that others share. Whatever does not pass (inline commands,
a command cut by the end of the chunk, a count or size that needs checking before memory is taken, garbage) goes to an
`Assembler`, which follows Redis' own parser step by step and holds its errors' words.

Must not know what a command means.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import hiredis

from proxy.errors import ProtocolError
from proxy.wire.encode import command

Raw = bytes | memoryview
"""Request bytes ready to be sent; a memoryview where a copy of a large value is saved."""


Request = tuple[list[bytes], Raw]
"""One command: its words, and the bytes to forward. A word over `LARGE_BYTES` may be a memoryview. A plain tuple:
a NamedTuple costs 0.25 us more, a quarter of what parsing a command takes."""

LINE_MAX: Final = 64 * 1024  # Redis' PROTO_INLINE_MAX_SIZE: inline commands and count lines
LARGE_BYTES: Final = 64 * 1024  # from here on a copy costs more than a view
ARGS_MAX: Final = 4 * 1024 * 1024  # Redis has INT_MAX; each word costs us 40 bytes and more before its first byte
UNAUTHENTICATED_ARGS: Final = 10  # Redis before AUTH
UNAUTHENTICATED_BULK: Final = 16384

SMALL_CHUNK: Final = 4096  # up to here hiredis splits a chunk; above, bodies are long and it copies them too often
# hiredis makes a list of as many elements as a head announces, at any depth: 80 KiB need no check, and chunks that hold
# other aggregates' marks are not shown to it. `*0` is a request to hiredis, and none to Redis.
_UNSAFE: Final = re.compile(rb"\*(?:0|[0-9]{5})")
_FIRST: Final = re.compile(rb"\*([1-9][0-9]?)\r\n\$([1-9][0-9]{0,8})\r\n").match  # a command, and its first word
_HEADER: Final = re.compile(rb"\$(0|[1-9][0-9]{0,8})\r\n").match
_NUMBER: Final = re.compile(rb"-?[1-9][0-9]{0,18}|0")


def is_bulk(raw: bytes) -> bool:
    """Return whether bytes are exactly one bulk string, of fewer than a million bytes, as a client should write it."""
    end = raw.find(b"\r\n", 1, 8)
    digits = raw[1:end]
    return (
        end > 0
        and raw[0] == 0x24
        and digits.isdigit()
        and len(raw) == end + 4 + int(digits)
        and raw.endswith(b"\r\n")
        and (raw[1] != 0x30 or end == 2)
    )


class Limits(NamedTuple):
    """What a client may ask us to hold: one bulk string, one whole request, in bytes."""

    bulk_bytes: int = 512 * 1024 * 1024
    request_bytes: int = 1024 * 1024 * 1024


class RequestParser:
    """Split chunks into requests. One serves all clients: it keeps nothing between two calls."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = hiredis.Reader()

    def parse(self, data: bytes, out: list[Request]) -> int:
        """Append to `out` the canonical requests that `data` starts with; return how many bytes they took.

        What is left (0 bytes when all was taken) is for an `Assembler`.
        """
        if len(data) > SMALL_CHUNK or _UNSAFE.search(data) is not None or 0x7E in data or 0x3E in data or 0x7C in data:
            return walk(data, out)
        reader = self._reader
        reader.feed(data)
        gets = reader.gets
        pack = hiredis.pack_command
        requests: list[Request] = []
        try:
            while (args := gets()) is not False:
                requests.append((args, pack(tuple(args))))
        except (hiredis.HiredisError, TypeError, ValueError):
            self._reader = hiredis.Reader()
            return walk(data, out)
        raw = requests[0][1] if len(requests) == 1 else b"".join([request[1] for request in requests])
        if raw != data:
            self._reader = hiredis.Reader()  # a reader that holds half a command cannot be emptied
            if not data.startswith(raw):
                return walk(data, out)
        out += requests
        return len(raw)


def walk(data: bytes, out: list[Request]) -> int:
    """Do what `RequestParser.parse` does, header by header: dearer for many short words, cheaper for long ones.

    Bodies are not looked at, copied once, and nothing is taken before it is there. A header is matched and measured in
    one go: a third less than to look for its end first.
    """
    header = _HEADER
    size = len(data)
    start = 0
    while start < size:
        found = _FIRST(data, start)
        if found is None:
            break
        count, length = int(found[1]), int(found[2])
        args: list[bytes] = []
        while True:
            body = found.end()
            end = body + length
            pos = end + 2
            if data[end:pos] != b"\r\n":
                return start
            args.append(data[body:end])
            if len(args) == count:
                break
            found = header(data, pos)
            if found is None:
                return start
            length = int(found[1])
        out.append((args, data[start:pos]))
        start = pos
    return start


class Assembler:
    """Read requests byte-exactly and incrementally; one a client, only while one of its commands is incomplete.

    Memory is taken as bytes arrive, never as a header announces. After a ProtocolError it must not be fed again.
    """

    __slots__ = (
        "_argc",
        "_args",
        "_buffer",
        "_bulk",
        "_canonical",
        "_large",
        "_limits",
        "_pos",
        "_start",
        "authenticated",
    )

    def __init__(self, limits: Limits, *, authenticated: bool = True) -> None:
        self._buffer = bytearray()
        self._limits = limits
        self._start = 0  # where the command being read begins
        self._pos = 0  # how far it was read
        self._argc = 0  # words still to come; 0 = between commands
        self._bulk = -1  # length of the word being read, -1 = its header is next
        self._args: list[bytes] = []
        self._large: list[tuple[int, int, int]] = []  # words to be views: place, and where from `_start` it lies
        self._canonical = True
        self.authenticated = authenticated

    @property
    def held_bytes(self) -> int:
        """Bytes held of commands not yet complete."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Add bytes."""
        if self._start and (self._start == len(self._buffer) or self._start > LARGE_BYTES):
            del self._buffer[: self._start]
            self._pos -= self._start
            self._start = 0
        self._buffer += data

    def next(self) -> Request | None:
        """Return the next whole request; None when more bytes are needed. Raises ProtocolError (the client's fault)."""
        while True:
            if self._argc == 0:
                if self._pos >= len(self._buffer):
                    return None
                if self._buffer[self._pos] != 0x2A:
                    request = self._inline()
                    if request is None or request[0]:
                        return request
                    continue
                if not self._head():
                    return None
                continue
            if not self._words():
                return None
            return self._finish()

    def _line(self, too_big: str) -> bytes | None:
        """Take the line at `_pos` up to CR, as Redis does (the byte after CR is not looked at)."""
        end = self._buffer.find(b"\r", self._pos)
        if end < 0 or end + 2 > len(self._buffer):
            if (end if end >= 0 else len(self._buffer)) - self._pos > LINE_MAX:
                raise ProtocolError(f"Protocol error: {too_big}")
            return None
        line = bytes(self._buffer[self._pos : end])
        if self._buffer[end + 1] != 0x0A:
            self._canonical = False
        self._pos = end + 2
        return line

    def _head(self) -> bool:
        start = self._pos
        line = self._line("too big mbulk count string")
        if line is None:
            return False
        if not _NUMBER.fullmatch(line, 1) or (count := int(line[1:])) > ARGS_MAX:
            raise ProtocolError("Protocol error: invalid multibulk length")
        if count > UNAUTHENTICATED_ARGS and not self.authenticated:
            raise ProtocolError("Protocol error: unauthenticated multibulk length")
        if count <= 0:
            self._start = self._pos
            self._canonical = True
            return True
        self._start, self._argc, self._args = start, count, []
        return True

    def _words(self) -> bool:
        buffer = self._buffer
        while self._argc:
            if self._bulk < 0:
                if self._pos >= len(buffer):
                    return False
                at = self._pos
                line = self._line("too big bulk count string")
                if line is None:
                    return False
                if buffer[at] != 0x24:
                    raise ProtocolError(f"Protocol error: expected '$', got '{_shown(buffer[at])}'")
                if not _NUMBER.fullmatch(line, 1) or not 0 <= int(line[1:]) <= self._limits.bulk_bytes:
                    raise ProtocolError("Protocol error: invalid bulk length")
                self._bulk = int(line[1:])
                if self._bulk > UNAUTHENTICATED_BULK and not self.authenticated:
                    raise ProtocolError("Protocol error: unauthenticated bulk length")
            end = self._pos + self._bulk
            if end + 2 - self._start > self._limits.request_bytes:
                raise ProtocolError("Protocol error: request too large")
            if end + 2 > len(buffer):
                return False
            if self._bulk <= LARGE_BYTES or not self._args:  # the command's name is looked up: never a view
                self._args.append(bytes(buffer[self._pos : end]))
            else:  # a view now would keep the buffer from growing
                self._large.append((len(self._args), self._pos - self._start, end - self._start))
                self._args.append(b"")
            if buffer[end] != 0x0D or buffer[end + 1] != 0x0A:
                self._canonical = False
            self._pos = end + 2
            self._bulk = -1
            self._argc -= 1
        return True

    def _finish(self) -> Request:
        args, start, end = self._args, self._start, self._pos
        if self._large:
            view = memoryview(self._buffer)[start:end]
            for place, first, last in self._large:
                args[place] = view[first:last]  # type: ignore[call-overload]  # a copy saved, see Request
            self._large = []
        if not self._canonical:
            raw: Raw = command(*args)
        elif end - start <= LARGE_BYTES:
            raw = bytes(self._buffer[start:end])
        else:
            raw = memoryview(self._buffer)[start:end]
        if end - start > LARGE_BYTES:  # views pin the buffer: leave it to them, go on with a new one
            self._buffer = bytearray(memoryview(self._buffer)[end:])
            self._start = self._pos = 0
        else:
            self._start = end
            if end > LARGE_BYTES:
                del self._buffer[:end]
                self._start = self._pos = 0
        self._args = []
        self._canonical = True
        return args, raw

    def _inline(self) -> Request | None:
        """Take an inline command; an empty line gives a request with no words."""
        end = self._buffer.find(b"\n", self._pos)
        if end < 0 or self._buffer.find(b"\0", self._pos, end) >= 0:  # Redis looks for the end no further than a NUL
            if len(self._buffer) - self._pos > LINE_MAX:
                raise ProtocolError("Protocol error: too big inline request")
            return None
        line = bytes(self._buffer[self._pos : end]).removesuffix(b"\r")
        if len(line) > LINE_MAX:
            raise ProtocolError("Protocol error: too big inline request")
        self._pos = self._start = end + 1
        self._canonical = True
        args = split_inline(line)
        return args, command(*args) if args else b""


_SPACES: Final = b" \t\n\v\f\r\0"
_BREAKS: Final = b" \t\n\r\0"  # what ends a word without quotes is less than what may stand between words
_ESCAPES: Final = {0x6E: 0x0A, 0x72: 0x0D, 0x74: 0x09, 0x62: 0x08, 0x61: 0x07}
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


def _shown(byte: int) -> str:
    """Return a byte as text that `encode.error` makes the same byte of."""
    return bytes((byte,)).decode("utf-8", "surrogateescape")


def split_inline(line: bytes) -> list[bytes]:
    """Split an inline command into words, quotes and escapes as in Redis' sdssplitargs.

    Raises ProtocolError when quotes are not closed, or closed by something that is no space.
    """
    line = line.partition(b"\0")[0]  # sdssplitargs reads a C string
    words: list[bytes] = []
    pos, size = 0, len(line)
    while True:
        while pos < size and line[pos] in _SPACES:
            pos += 1
        if pos >= size:
            return words
        word = bytearray()
        while pos < size and line[pos] not in _BREAKS:
            if line[pos] in b"\"'":
                pos = _quoted(line, pos, word)
                if pos < size and line[pos] not in _SPACES:
                    raise ProtocolError("Protocol error: unbalanced quotes in request")
                break
            word.append(line[pos])
            pos += 1
        words.append(bytes(word))


def _quoted(line: bytes, pos: int, word: bytearray) -> int:
    """Read the quoted part that opens at `pos` into `word`; return the position after the closing quote."""
    quote, size = line[pos], len(line)
    pos += 1
    while pos < size:
        byte = line[pos]
        if byte == quote:
            return pos + 1
        if byte == 0x5C and quote == 0x22 and pos + 1 < size:
            digits = line[pos + 2 : pos + 4]
            if line[pos + 1] == 0x78 and len(digits) == 2 and _HEX.issuperset(digits):
                word.append(int(digits, 16))
                pos += 4
            else:
                word.append(_ESCAPES.get(line[pos + 1], line[pos + 1]))
                pos += 2
        elif byte == 0x5C and line[pos + 1 : pos + 2] == b"'":
            word.append(0x27)
            pos += 2
        else:
            word.append(byte)
            pos += 1
    raise ProtocolError("Protocol error: unbalanced quotes in request")
