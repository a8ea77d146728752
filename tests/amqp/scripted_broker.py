"""A broker that does what a test says: for faults that a real one does not have when they are wanted.

It reads and writes with pamqp alone, so that what Respite writes by hand is checked by somebody else.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import attrs
import trio
import trio.testing
from pamqp import base, body, commands, frame, header, heartbeat

from proxy.amqp.connection import Connection, connect
from proxy.config.model import AmqpEndpoint

Method = TypeVar("Method", bound=base.Frame)


def endpoint_at(port: int, *, username: str = "guest", vhost: str = "/") -> AmqpEndpoint:
    """Return an endpoint without TLS on this machine."""
    return AmqpEndpoint("127.0.0.1", port, False, username, "guest", vhost)


def content(size: int, properties: commands.Basic.Properties | None = None, *, channel: int = 1) -> bytes:
    """Return the frame of a content header."""
    return frame.marshal(header.ContentHeader(body_size=size, properties=properties), channel)


def piece(data: bytes, *, channel: int = 1) -> bytes:
    """Return the frame of a piece of a body."""
    return frame.marshal(body.ContentBody(data), channel)


def delivery(tag: int, data: bytes, *, channel: int = 1, consumer: str = "respite-1") -> bytes:
    """Return the frames of a message for a consumer."""
    deliver = commands.Basic.Deliver(consumer, tag, False, "x", "k")
    return frame.marshal(deliver, channel) + content(len(data), channel=channel) + piece(data, channel=channel)


@attrs.define
class Peer:
    """The broker's end of one connection."""

    stream: trio.SocketStream
    heartbeats: int = 0
    _buffer: bytearray = attrs.field(factory=bytearray)

    async def send(self, *methods: base.Frame, channel: int = 0) -> None:
        """Send methods in one go."""
        await self.send_raw(b"".join(frame.marshal(method, channel) for method in methods))

    async def send_raw(self, data: bytes) -> None:
        """Send any bytes."""
        await self.stream.send_all(data)

    async def receive(self) -> tuple[int, Any]:
        """Return the channel and the next frame, counting heartbeats. Raises EOFError at the end."""
        while True:
            if len(self._buffer) >= 7:
                (size,) = struct.unpack_from(">I", self._buffer, 3)
                if len(self._buffer) >= size + 8:
                    raw = bytes(self._buffer[: size + 8])
                    del self._buffer[: size + 8]
                    _, channel, found = frame.unmarshal(raw)
                    if not isinstance(found, heartbeat.Heartbeat):
                        return channel, found
                    self.heartbeats += 1
                    continue
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._buffer += data

    async def expect(self, kind: type[Method], *, channel: int | None = None) -> Method:
        """Return the next frame, which is a method of this kind."""
        found_on, found = await self.receive()
        assert isinstance(found, kind), found
        assert channel is None or channel == found_on
        return found

    async def start(self, mechanisms: str = "PLAIN AMQPLAIN") -> commands.Connection.StartOk:
        """Read the protocol header, greet, and return the answer."""
        while len(self._buffer) < 8:
            self._buffer += await self.stream.receive_some(8 - len(self._buffer))
        assert self._buffer == b"AMQP\x00\x00\x09\x01"
        self._buffer.clear()
        await self.send(commands.Connection.Start(0, 9, {"product": "Scripted", "version": "1"}, mechanisms, "en_US"))
        return await self.expect(commands.Connection.StartOk)

    async def greet(self, *, channel_max: int = 0, frame_max: int = 131072, heartbeat_s: int = 60) -> None:
        """Let the client in."""
        await self.start()
        await self.send(commands.Connection.Tune(channel_max, frame_max, heartbeat_s))
        await self.expect(commands.Connection.TuneOk)
        await self.expect(commands.Connection.Open)
        await self.send(commands.Connection.OpenOk())

    async def answer(self, kind: type[base.Frame], *replies: base.Frame, channel: int = 1) -> base.Frame:
        """Expect a method and answer it."""
        asked = await self.expect(kind, channel=channel)
        await self.send(*replies, channel=channel)
        return asked

    async def farewell(self) -> None:
        """Read what comes, and let the client close."""
        async with self.stream:
            with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    _, found = await self.receive()
                    if isinstance(found, commands.Connection.Close):
                        await self.send(commands.Connection.CloseOk())


@asynccontextmanager
async def listening(script: Callable[[Peer], Any]) -> AsyncIterator[AmqpEndpoint]:
    """Run a script with each client that connects; the client's end closes the peer's."""

    async def serve(stream: trio.SocketStream) -> None:
        with suppress(EOFError, trio.BrokenResourceError):
            await script(Peer(stream))

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield endpoint_at(listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def linked(*, heartbeat_s: float = 0, **tune: int) -> AsyncIterator[tuple[Connection, Peer]]:
    """Connect to a scripted broker and return both ends, logged in."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peers: list[Peer] = []

    async def accept() -> None:
        peer = Peer(await listener.accept())
        await peer.greet(**tune)
        peers.append(peer)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        endpoint = endpoint_at(listener.socket.getsockname()[1])
        async with connect(endpoint, context=None, name="test", timeout_s=5, heartbeat_s=heartbeat_s) as connection:
            while not peers:
                await trio.testing.wait_all_tasks_blocked()
            try:
                yield connection, peers[0]
            finally:
                nursery.start_soon(peers[0].farewell)


@asynccontextmanager
async def opened(**tune: int) -> AsyncIterator[tuple[Any, Peer]]:
    """Return channel 1 of a scripted broker, and the broker."""
    async with linked(**tune) as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer, commands.Channel.Open, commands.Channel.OpenOk())
        yield await connection.channel(), peer
