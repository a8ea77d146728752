"""A RESP client of raw bytes, for tests that compare what arrives and not what it means.

Owns one socket and its receive buffer. A frame is one whole top-level reply or push, exactly as it came, with the
attribute before it when there is one. Nothing here decodes values; `tree` only shows how a frame is built.
"""

from __future__ import annotations

import random
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs

Address = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""

Arg = bytes | str | int | float

AGGREGATES = b"*%~>|"
BULKS = b"$=!"
CHUNK_BYTES = 256 * 1024


class ClosedError(Exception):
    """The peer closed the connection inside or before a frame; `partial` is what it had sent."""

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"closed after {partial[-200:]!r}")
        self.partial = partial


class NoFrameError(Exception):
    """No whole frame arrived in time; `partial` is what did."""

    def __init__(self, partial: bytes) -> None:
        super().__init__(f"no whole frame in time, only {partial[-200:]!r}")
        self.partial = partial


def encode(*args: Arg) -> bytes:
    """Encode one command as an array of bulk strings."""
    words = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def encode_all(commands: Sequence[Sequence[Arg]]) -> bytes:
    """Encode a pipeline."""
    return b"".join(encode(*command) for command in commands)


class RawClient:
    """One connection. Not for use by two threads at once."""

    def __init__(self, address: Address, *, tls: ssl.SSLContext | None = None, timeout_s: float = 10.0) -> None:
        self.timeout_s = timeout_s
        self.socket = connect(address, tls=tls, timeout_s=timeout_s)
        self._buffer = bytearray()

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send all of `data`. Raises: OSError when the peer has gone."""
        self.socket.settimeout(self.timeout_s)
        self.socket.sendall(data)

    def send_split(self, data: bytes, rng: random.Random) -> None:
        """Send `data` in pieces cut at random places, now and then with a pause that makes the cut arrive as a cut."""
        start = 0
        while start < len(data):
            end = start + rng.choice((1, 1, 2, 3, 7, 16, 40, 200))
            self.send(data[start:end])
            start = end
            if rng.random() < 0.02:
                time.sleep(0.0005)

    def command(self, *args: Arg) -> bytes:
        """Send one command and read one frame."""
        self.send(encode(*args))
        return self.frame()

    def frame(self, timeout_s: float | None = None) -> bytes:
        """Read one whole frame. Raises: ClosedError, NoFrameError."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        end = self._end_of_frame(0, deadline)
        frame = bytes(self._buffer[:end])
        del self._buffer[:end]
        return frame

    def frames(self, count: int, timeout_s: float | None = None) -> list[bytes]:
        """Read `count` frames, each with the time limit."""
        return [self.frame(timeout_s) for _ in range(count)]

    def until_closed(self, timeout_s: float | None = None) -> bytes:
        """Read everything until the peer closes. Raises: NoFrameError when it does not."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        try:
            while True:
                self._receive(deadline)
        except ClosedError as closed:
            self._buffer.clear()
            return closed.partial

    def is_quiet(self, for_s: float) -> bool:
        """Tell whether nothing arrives (and nothing waits in the buffer) for this long."""
        return not self._buffer and not self.is_readable(for_s)

    def is_readable(self, within_s: float) -> bool:
        """Tell whether bytes or a close arrive within this time."""
        return bool(select.select([self.socket], [], [], within_s)[0])

    def _end_of_frame(self, start: int, deadline: float) -> int:
        kind, count, at = self._head(start, deadline)
        if kind in BULKS:
            return at if count < 0 else self._need(at + count + 2, deadline)
        if kind not in AGGREGATES:
            return at
        wanted = max(count, 0) * (2 if kind in b"%|" else 1)
        while wanted:
            # Redis 7.0 writes a push in the middle of EXEC's array: it is no element of it.
            wanted -= self._kind(at, deadline) != ord(">")
            at = self._end_of_frame(at, deadline)
        return self._end_of_frame(at, deadline) if kind == ord("|") else at

    def _head(self, start: int, deadline: float) -> tuple[int, int, int]:
        searched = start
        while (line_end := self._buffer.find(b"\r\n", searched)) < 0:
            searched = max(start, len(self._buffer) - 1)
            self._receive(deadline)
        kind = self._buffer[start]
        is_counted = kind in BULKS or kind in AGGREGATES
        return kind, int(self._buffer[start + 1 : line_end]) if is_counted else 0, line_end + 2

    def _kind(self, start: int, deadline: float) -> int:
        self._need(start + 1, deadline)
        return self._buffer[start]

    def _need(self, end: int, deadline: float) -> int:
        while len(self._buffer) < end:
            self._receive(deadline)
        return end

    def _receive(self, deadline: float) -> None:
        self.socket.settimeout(max(deadline - time.monotonic(), 0.000_001))
        try:
            chunk = self.socket.recv(CHUNK_BYTES)
        except TimeoutError:
            raise NoFrameError(bytes(self._buffer)) from None
        except ConnectionError:
            chunk = b""
        if not chunk:
            raise ClosedError(bytes(self._buffer))
        self._buffer += chunk


def connect(address: Address, *, tls: ssl.SSLContext | None = None, timeout_s: float = 10.0) -> socket.socket:
    """Open a plain, TLS or unix socket."""
    opened = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    try:
        opened.settimeout(timeout_s)
        opened.connect(address)
        if isinstance(address, str):
            return opened
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return tls.wrap_socket(opened, server_hostname=address[0]) if tls else opened
    except BaseException:
        opened.close()
        raise


@attrs.frozen
class Node:
    """One part of a frame: its type byte, its own bytes (head line, and the payload of a bulk), its children."""

    kind: bytes
    own: bytes
    children: tuple[Node, ...] = ()

    def join(self) -> bytes:
        """Give the bytes back."""
        return self.own + b"".join(child.join() for child in self.children)

    def shape(self) -> bytes:
        """Name the types only: aggregates keep their count, everything else its type byte."""
        return self.own if self.children else self.kind + b"".join(child.shape() for child in self.children)

    def map(self, change: Callable[[Node], Node]) -> Node:
        """Rebuild bottom-up through `change`."""
        return change(attrs.evolve(self, children=tuple(child.map(change) for child in self.children)))


def tree(frame: bytes) -> Node:
    """Take one whole frame apart; an attribute becomes the parent of what it belongs to."""
    node, end = _node(frame, 0)
    assert end == len(frame), f"more than one frame: {frame[:200]!r}"
    return node


def _node(frame: bytes, start: int) -> tuple[Node, int]:
    line_end = frame.index(b"\r\n", start) + 2
    kind = frame[start : start + 1]
    if kind in (b"$", b"=", b"!"):
        size = int(frame[start + 1 : line_end])
        end = line_end if size < 0 else line_end + size + 2
        return Node(kind, frame[start:end]), end
    if kind[0] not in AGGREGATES:
        return Node(kind, frame[start:line_end]), line_end
    count = max(int(frame[start + 1 : line_end]), 0) * (2 if kind in (b"%", b"|") else 1) + (kind == b"|")
    children: list[Node] = []
    at = line_end
    while count:
        child, at = _node(frame, at)
        count -= child.kind != b">"
        children.append(child)
    return Node(kind, frame[start:line_end], tuple(children)), at


@contextmanager
def clients(address: Address, count: int) -> Iterator[list[RawClient]]:
    """Open `count` clients and close them all at the end."""
    opened: list[RawClient] = []
    try:
        opened.extend(RawClient(address) for _ in range(count))
        yield opened
    finally:
        for client in opened:
            client.close()
