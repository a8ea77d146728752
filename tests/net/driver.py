"""A Worker in the test's own event loop, and clients of it that see raw replies.

Owns nothing of what is tested: settings are made from the defaults, the worker runs in the nursery it is given.
"""

from __future__ import annotations

import gc
import socket
import ssl
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import attrs
import trio

from proxy.config.load import default_settings
from proxy.config.model import Endpoint, Settings, parse_endpoint
from proxy.net.worker import Worker
from proxy.wire.encode import command

from .peer import DEADLINE_S, until

_AGGREGATES = b"*%~>|"
_BULKS = b"$=!"
T = TypeVar("T")
LOOPBACK = "redis://127.0.0.1:0"


class Upstreamlike(Protocol):
    """Whoever has a URL to be reached at: a scripted peer, or a server of tests/e2e."""

    @property
    def url(self) -> str:
        """The URL."""


def make_settings(*urls: str, **sections: dict[str, Any]) -> Settings:
    """Return the default settings with some fields of some sections changed; times that fail soon."""
    settings = default_settings()
    changes: dict[str, dict[str, Any]] = {
        "listen": {"urls": tuple(_listening(url) for url in urls or (LOOPBACK,))},
        "upstream": {"connect_timeout_s": 2.0, "response_timeout_s": 4.0},
    }
    for section, fields in sections.items():
        changes.setdefault(section, {}).update(fields)
    return attrs.evolve(
        settings, **{name: attrs.evolve(getattr(settings, name), **fields) for name, fields in changes.items()}
    )


def _listening(url: str) -> Endpoint:
    return attrs.evolve(parse_endpoint(url.replace(":0", ":1")), port=0) if url.endswith(":0") else parse_endpoint(url)


class Client:
    """A client connection. Replies are raw frames."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, *words: bytes | str | int) -> None:
        """Send one command."""
        await self.send_raw(command(*words))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes."""
        await within(self.stream.send_all(data), "the bytes are taken")

    async def command(self, *words: bytes | str | int) -> bytes:
        """Send one command and read one frame."""
        await self.send(*words)
        return await self.frame()

    async def frame(self, timeout_s: float = DEADLINE_S) -> bytes:
        """Read one frame. AssertionError when it does not come, or the connection ends first."""

        async def read() -> bytes:
            while (end := frame_end(self._buffer)) < 0:
                data = await self._receive()
                assert data, f"closed after {bytes(self._buffer[-200:])!r}"
                self._buffer += data
            frame = bytes(self._buffer[:end])
            del self._buffer[:end]
            return frame

        return await within(read(), "a reply", timeout_s)

    async def frames(self, count: int) -> list[bytes]:
        """Read so many frames."""
        return [await self.frame() for _ in range(count)]

    async def exactly(self, size: int, timeout_s: float = 20.0) -> bytes:
        """Read so many bytes."""

        async def read() -> bytes:
            while len(self._buffer) < size:
                data = await self._receive()
                assert data, f"closed after {len(self._buffer)} of {size} bytes"
                self._buffer += data
            taken = bytes(self._buffer[:size])
            del self._buffer[:size]
            return taken

        return await within(read(), f"{size} bytes", timeout_s)

    async def until_closed(self, timeout_s: float = DEADLINE_S) -> bytes:
        """Read everything until the connection ends; AssertionError when it does not."""

        async def read() -> bytes:
            while data := await self._receive():
                self._buffer += data
            return bytes(self._buffer)

        return await within(read(), "the end of the connection", timeout_s)

    async def _receive(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(1 << 18))
        except trio.BrokenResourceError:
            return b""

    @property
    def socket(self) -> trio.socket.SocketType:
        """The socket, under TLS where there is some."""
        stream = self.stream.transport_stream if isinstance(self.stream, trio.SSLStream) else self.stream
        assert isinstance(stream, trio.SocketStream)
        return stream.socket

    def close(self) -> None:
        """Close without a word, as a process that dies."""
        self.socket.close()


class Proxy:
    """A running worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.urls: list[str] = []
        self.clients: list[Client] = []
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the worker until stopped; what it dies of fails the test."""
        try:
            with self._scope, _usual_gc():
                async with trio.open_nursery() as nursery:
                    self.urls = await nursery.start(self.worker.run)
                    task_status.started()
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Cancel the worker and wait until it has ended."""
        self._scope.cancel()
        await within(self._ended.wait(), "the worker has ended")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.urls[0].rpartition(":")[2])

    async def connect(self) -> Client:
        """Connect a client over TCP."""
        return self._keep(await within(trio.open_tcp_stream("127.0.0.1", self.port), "connected"))

    async def connect_tls(self, context: ssl.SSLContext) -> Client:
        """Connect a client over TLS."""
        return await self._by_tls(await within(trio.open_tcp_stream("127.0.0.1", self.port), "connected"), context)

    async def connect_narrow(self, context: ssl.SSLContext | None = None) -> Client:
        """Connect a client whose kernel takes few bytes before it reads, by TLS where a context is given."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow = trio.socket.from_stdlib_socket(sock)
        await within(narrow.connect(("127.0.0.1", self.port)), "connected")
        stream = trio.SocketStream(narrow)
        return self._keep(stream) if context is None else await self._by_tls(stream, context)

    async def _by_tls(self, plain: trio.SocketStream, context: ssl.SSLContext) -> Client:
        stream = trio.SSLStream(plain, context, server_hostname="127.0.0.1", https_compatible=True)
        await within(stream.do_handshake(), "the TLS handshake")
        return self._keep(stream)

    def _keep(self, stream: trio.abc.Stream) -> Client:
        self.clients.append(Client(stream))
        return self.clients[-1]

    def stats(self) -> dict[str, Any]:
        """Return what /stats.json would say."""
        self.worker.reactor.enter()
        return self.worker.report("")

    def links(self, kind: str) -> list[dict[str, Any]]:
        """Return the rows of the links of a kind."""
        return [row for row in self.stats()["links"] if row["kind"] == kind]

    async def settled(self) -> None:
        """Wait until the data links stand and are tracked, where L1 is used."""
        await until(
            lambda: (
                (rows := self.links("data")) and all(row["tracked"] for row in rows) and self.worker.engine.l1.serving
            ),
            "the data links are tracked and L1 is served",
        )


async def within(awaitable: Awaitable[T], what: str, timeout_s: float = DEADLINE_S) -> T:
    """Await with a deadline; AssertionError names what did not happen."""
    with trio.move_on_after(timeout_s):
        return await awaitable
    raise AssertionError(f"not within {timeout_s} s: {what}")


async def warm(client: Client, key: str = "warm") -> bytes:
    """Read a key until it comes from L1; return its reply."""
    first = await client.command("GET", key)
    assert first == await client.command("GET", key)
    return first


def frame_end(data: bytes | bytearray, at: int = 0) -> int:
    """Return where the frame at `at` ends, -1 when the data ends first."""
    line_end = data.find(b"\r\n", at) + 2
    if line_end == 1:
        return -1
    kind = data[at : at + 1]
    if kind in _BULKS:
        length = int(data[at + 1 : line_end])
        end = line_end if length < 0 else line_end + length + 2
        return end if end <= len(data) else -1
    if kind in _AGGREGATES:
        wanted = max(int(data[at + 1 : line_end]), 0) * (2 if kind in b"%|" else 1) + (kind == b"|")
        for _ in range(wanted):
            line_end = frame_end(data, line_end)
            if line_end < 0:
                return -1
    return line_end


@contextmanager
def _usual_gc() -> Iterator[None]:
    """Undo what a worker does to the garbage collector of its process."""
    before = gc.get_threshold()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
