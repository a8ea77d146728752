"""Clients of /ws and /events, on raw sockets, and the feed that they listen to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection, Event, Ping, TextMessage

from proxy.admin.pushing import Push
from proxy.config.load import default_settings
from proxy.config.model import PushToken
from proxy.core.feed.feed import Change, Feed
from proxy.values.rules import Rules

from .fakes import Answer, Port

HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def make_push(
    *,
    heartbeat_s: float = 15.0,
    max_subscribers: int = 100,
    buffer_bytes: int = 1 << 20,
    tokens: Iterable[PushToken] = (),
    origins: tuple[str, ...] = (),
    write_s: float = 10.0,
) -> Push:
    """Make a deliverer over a feed all of whose channels are watched."""
    settings = attrs.evolve(
        default_settings().push,
        heartbeat_s=heartbeat_s,
        max_subscribers=max_subscribers,
        buffer_bytes=buffer_bytes,
        tokens=tuple(tokens),
        origins=origins,
    )
    feed = Feed(settings, Rules(()), now_ms=lambda: 1_732_272_000_000, epoch="life")
    feed.watched([b""])
    return Push(feed, settings, write_s=write_s)


def change(feed: Feed, *keys: str) -> None:
    """Tell that keys were written."""
    feed.publish(
        Change(
            tuple(key.encode("utf-8", "surrogateescape") for key in keys),
            "write",
            1_732_272_000_000 << 16,
            1_732_272_000_000,
        )
    )


@attrs.define
class Listener:
    """One stream's client: `head` is the answer that began it."""

    socket: trio.SocketStream
    head: Answer

    async def _read(self, size: int = 65536) -> bytes:
        with trio.fail_after(10):
            return bytes(await self.socket.receive_some(size))


@attrs.define
class WebSocket(Listener):
    """A client of /ws. `closed` is what the server closed with."""

    protocol: Connection = attrs.field(factory=lambda: Connection(ConnectionType.CLIENT))
    closed: tuple[int, str] | None = None
    pings: int = 0
    answers_pings: bool = True
    _sending: trio.Lock = attrs.field(factory=trio.Lock)  # a test may speak while it hears pings
    _events: list[Event] = attrs.field(factory=list)

    async def message(self) -> dict[str, Any]:
        """Return the next message; fails when the server ends the stream instead."""
        text = ""
        while True:
            event = await self._event()
            assert isinstance(event, TextMessage), (event, self.closed)
            text += event.data
            if event.message_finished:
                message: dict[str, Any] = json.loads(text)
                return message

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """Return so many messages."""
        return [await self.message() for _ in range(count)]

    async def say(self, message: object) -> None:
        """Send a message, as JSON where it is no text."""
        text = message if isinstance(message, str) else json.dumps(message)
        await self.send(self.protocol.send(TextMessage(text)))

    async def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        async with self._sending:
            await self.socket.send_all(raw)

    async def end(self) -> tuple[int, str] | None:
        """Read to the end of the stream; return the code and the reason of the server's close."""
        while await self._event() is not None:
            pass
        return self.closed

    async def _event(self) -> Event | None:
        while True:
            while self._events:
                event = self._events.pop(0)
                match event:
                    case Ping():
                        self.pings += 1
                        if self.answers_pings:
                            await self.send(self.protocol.send(event.response()))
                    case CloseConnection():
                        self.closed = (event.code, event.reason or "")
                    case TextMessage():
                        return event
            data = await self._read()
            if not data:
                return None
            self.protocol.receive_data(data)
            self._events += list(self.protocol.events())


@attrs.define
class EventSource(Listener):
    """A client of /events. `last_id` is what it would come back with."""

    last_id: str = ""
    comments: int = 0
    _text: bytes = b""

    async def message(self) -> dict[str, Any]:
        """Return the next message; fails when the server ends the stream instead."""
        while True:
            block = await self._block()
            assert block is not None
            data = self._take(block)
            if data:
                message: dict[str, Any] = json.loads(data)
                return message

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """Return so many messages."""
        return [await self.message() for _ in range(count)]

    async def beat(self) -> None:
        """Return when a comment has come."""
        before = self.comments
        while self.comments == before:
            block = await self._block()
            assert block is not None
            self._take(block)

    async def end(self) -> None:
        """Read to the end of the stream."""
        while await self._block() is not None:
            pass

    def _take(self, block: bytes) -> bytes:
        data = b""
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if not name:
                self.comments += 1
            elif name == b"id":
                self.last_id = value.strip().decode()
            elif name == b"data":
                data += value.strip()
        return data

    async def _block(self) -> bytes | None:
        while b"\n\n" not in self._text:
            more = await self._read()
            if not more:
                return None
            self._text += more
        block, _, self._text = self._text.partition(b"\n\n")
        return block


async def _begin(port: Port, target: str, headers: Iterable[str]) -> tuple[trio.SocketStream, Answer]:
    socket = await port.connect()
    lines = [f"GET {target} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    await socket.send_all("\r\n".join(lines).encode())
    raw = b""
    with trio.fail_after(10):
        while not raw.endswith(b"\r\n\r\n"):
            more = await socket.receive_some(1)
            assert more, raw
            raw += more
    return socket, Answer.of(raw)


@asynccontextmanager
async def websocket(port: Port, target: str, *headers: str) -> AsyncIterator[WebSocket]:
    """Open a WebSocket, and close its connection at the end without a word."""
    socket, head = await _begin(port, f"/ws{target}", [*HANDSHAKE, *headers])
    async with socket:
        yield WebSocket(socket, head)


@asynccontextmanager
async def events(port: Port, target: str, *headers: str) -> AsyncIterator[EventSource]:
    """Open a stream of events, and close its connection at the end."""
    socket, head = await _begin(port, f"/events{target}", headers)
    async with socket:
        yield EventSource(socket, head)
