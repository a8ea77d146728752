"""A connection to the broker: three tasks around one stream, and the channels on it.

    stream --_read--> frames --> channels            _beat: nothing came for two heartbeats: it is gone
    stream <--Writer.run-- frames <-- channels              nothing was sent for half of one: send one

When it ends, for whatever reason, everybody who waits on it raises that reason; nothing is tried again here.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from pamqp import base, commands

from proxy.amqp.channel import Channel
from proxy.amqp.deliveries import Waiting
from proxy.amqp.frames import (
    BODY,
    HEADER,
    HEARTBEAT,
    HEARTBEAT_FRAME,
    METHOD,
    FrameFaultError,
    FrameReader,
    RawFrame,
    read_method,
    write_method,
)
from proxy.amqp.handshake import Tuned, shake_hands
from proxy.amqp.writer import Writer
from proxy.config.model import AmqpEndpoint
from proxy.errors import AmqpError, ConnectionLostError
from proxy.log import get_logger

LEAST_READ: Final = 4096  # while a backlog is drained, others wait for no more than what this holds
MOST_READ: Final = 65536  # while a large message comes
METHODS_A_TURN: Final = 8  # then others get their turn
FAREWELL_S: Final = 0.5  # for the last words of either side
TICKS: Final = 4  # without a byte, each half a heartbeat
OVER_PAUSE_S: Final = 0.05  # what is put back for lack of memory comes again at once


@asynccontextmanager
async def connect(
    endpoint: AmqpEndpoint,
    *,
    context: ssl.SSLContext | None,
    name: str,
    timeout_s: float,
    heartbeat_s: float = 2.0,
) -> AsyncIterator[Connection]:
    """Connect and log in within `timeout_s`; close in order at the end.

    `name` is what the broker shows. `context` is used where the endpoint is amqps://, None: what the system trusts.
    `heartbeat_s` (whole seconds, 0 none): a broker that is silent for two is gone.
    Raises ConnectionLostError when there is no broker, BrokerRefusedError when it does not let us in. What the body
    raises passes as it is, and a loss of the connection does not cancel it: the next call on it raises.
    """
    try:
        with trio.fail_after(timeout_s):
            connection = await _open(endpoint, context, name=name, heartbeat_s=heartbeat_s)
    except trio.TooSlowError as exc:
        raise ConnectionLostError(f"{endpoint.display} gave no answer within {timeout_s:g} s") from exc
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            try:
                yield connection
            except BaseException as exc:  # a nursery would wrap it
                if nursery.cancel_scope.cancel_called:  # it was we who cancelled the body
                    raise
                failure = exc
            await connection.close()
    finally:
        if failure is not None:
            raise failure


async def _open(endpoint: AmqpEndpoint, context: ssl.SSLContext | None, *, name: str, heartbeat_s: float) -> Connection:
    try:
        tcp = await trio.open_tcp_stream(endpoint.host, endpoint.port)
    except OSError as exc:
        raise ConnectionLostError(f"no connection to {endpoint.display}: {_reason(exc)}") from exc
    stream: trio.abc.Stream = tcp
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if endpoint.is_tls:
            context = context or ssl.create_default_context()
            stream = tls = trio.SSLStream(tcp, context, server_hostname=endpoint.host, https_compatible=True)
            try:
                await tls.do_handshake()
            except (trio.BrokenResourceError, OSError) as exc:
                raise ConnectionLostError(f"no TLS with {endpoint.display}: {_reason(exc)}") from exc
        reader = FrameReader()
        tuned = await shake_hands(stream, reader, endpoint, name=name, heartbeat_s=heartbeat_s)
        return Connection(stream, reader, tuned, endpoint=endpoint)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


def _reason(exc: BaseException) -> str:
    """Return what is at the bottom of it; trio's own words hide it."""
    while (cause := exc.__cause__) is not None:
        exc = cause
    if isinstance(exc, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(map(_reason, exc.exceptions)))
    return str(exc) or type(exc).__name__


class Connection:
    """A connection that is logged in. Made by `connect`, which runs it."""

    def __init__(self, stream: trio.abc.Stream, reader: FrameReader, tuned: Tuned, *, endpoint: AmqpEndpoint) -> None:
        self.endpoint = endpoint
        self._stream = stream
        self._reader = reader
        self._tuned = tuned
        self._writer = Writer()
        self._waiting = Waiting()
        self._channels: dict[int, Channel] = {}
        self._scope = trio.CancelScope(shield=True)
        self._closed = trio.Event()
        self._is_closing = False
        self._has_read = False

    @property
    def server(self) -> dict[str, Any]:
        """What the broker says of itself: `product`, `version`, `cluster_name`, ..."""
        return self._tuned.server

    @property
    def is_blocked(self) -> bool:
        """Whether the broker takes no messages now: it lacks memory or disk. Publishing waits."""
        return self._writer.blocked_reason is not None

    @property
    def blocked_reason(self) -> str:
        """Why it takes none, "" while it does."""
        return self._writer.blocked_reason or ""

    async def channel(self) -> Channel:
        """Open a channel. Raises AmqpError when all numbers are taken."""
        self._writer.check()
        for number in range(1, self._tuned.channel_max + 1):
            if number not in self._channels:
                break
        else:
            raise AmqpError(f"the broker allows {self._tuned.channel_max} channels, and all are open")
        channel = Channel(
            number,
            self._writer,
            self._waiting,
            frame_max=self._tuned.frame_max,
            on_gone=self._forget,
        )
        self._channels[number] = channel
        await channel.open()
        return channel

    def _forget(self, number: int) -> None:
        self._channels.pop(number, None)

    async def wait_closed(self) -> None:
        """Wait until it ends, and raise what it ended with."""
        await self._closed.wait()
        self._writer.check()

    async def close(self) -> None:
        """Close it in order, within FAREWELL_S, whoever is cancelled meanwhile."""
        with trio.move_on_after(FAREWELL_S, shield=True):
            if self._writer.error is None:
                self._is_closing = True
                self._writer.append(write_method(commands.Connection.Close(200, "done", 0, 0), 0))
            await self._closed.wait()
        self._end(ConnectionLostError("the connection was closed"))
        self._scope.cancel()

    async def run(self) -> None:
        """Run its tasks until it ends. Raises nothing for what the broker does; a cancellation waits for `close`."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guard, self._writer.run, self._stream)
                    nursery.start_soon(self._guard, self._beat)
                    await self._guard(self._read)
                    with trio.move_on_after(FAREWELL_S):
                        await self._writer.flush()
                    nursery.cancel_scope.cancel()
        finally:
            self._end(ConnectionLostError("the connection was closed"))
            self._closed.set()
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self._stream)

    async def _guard(self, task: Callable[..., Any], *args: Any) -> None:
        """Run a task and let the connection end with what it raises."""
        try:
            await task(*args)
        except FrameFaultError as exc:
            self._writer.append_last(write_method(commands.Connection.Close(exc.code, exc.text[:200], 0, 0), 0))
            self._end(exc)
        except ConnectionLostError as exc:
            self._end(exc)
            self._scope.cancel()
        except Exception as exc:  # whatever a message can make of us, the cache goes on without a broker
            get_logger("amqp").error("amqp_fault", error=repr(exc), exc_info=True)
            self._end(ConnectionLostError(f"a fault of Respite ended the connection to the broker: {exc!r}"))
            self._scope.cancel()

    def _end(self, error: AmqpError) -> None:
        if self._writer.error is not None:
            return
        self._writer.fail(error)
        for channel in self._channels.values():
            channel.fail(error)
        self._channels.clear()

    async def _beat(self) -> None:
        """Count ticks, not time: a process that was stopped finds its bytes waiting and is not fooled by the clock."""
        if not self._tuned.heartbeat_s:
            return
        silent = 0
        while True:
            await trio.sleep(self._tuned.heartbeat_s / 2)
            silent = 0 if self._has_read else silent + 1
            self._has_read = False
            if silent >= TICKS:
                raise ConnectionLostError(f"the broker was silent for {TICKS * self._tuned.heartbeat_s / 2:g} s")
            if not self._writer.has_written:
                self._writer.append(HEARTBEAT_FRAME)
            self._writer.has_written = False

    async def _read(self) -> None:
        methods = 0
        while True:
            size = min(max(self._reader.missing, LEAST_READ), MOST_READ)
            try:
                data = await self._stream.receive_some(size)
            except (trio.BrokenResourceError, OSError) as exc:
                raise ConnectionLostError(f"the connection to the broker broke: {_reason(exc)}") from exc
            if not data:
                raise ConnectionLostError("the broker closed the connection")
            self._has_read = True
            for frame in self._reader.feed(data):
                if not self._take(frame):
                    return
                methods += frame.kind == METHOD
                if methods >= METHODS_A_TURN:
                    methods = 0
                    await trio.lowlevel.checkpoint()
            if self._waiting.is_over:
                self._waiting.is_over = False
                await trio.sleep(OVER_PAUSE_S)

    def _take(self, frame: RawFrame) -> bool:
        """Take a frame; return whether more may come. Raises FrameFaultError."""
        if frame.kind == HEARTBEAT:
            return True
        if not frame.channel:
            if frame.kind != METHOD:
                raise FrameFaultError(505, "the broker sent content on channel 0")
            return self._take_own(read_method(frame.payload))
        channel = self._channels.get(frame.channel)
        if channel is None:
            raise FrameFaultError(504, f"the broker sent something on channel {frame.channel}, which is not open")
        if frame.kind == METHOD:
            channel.take_method(read_method(frame.payload))
        elif frame.kind == HEADER:
            channel.take_header(frame.payload)
        elif frame.kind == BODY:
            channel.take_body(frame.payload)
        return True

    def _take_own(self, method: object) -> bool:
        match method:
            case commands.Connection.Close(reply_code=code, reply_text=text):
                self._writer.append_last(write_method(commands.Connection.CloseOk(), 0))
                self._end(ConnectionLostError(f"the broker closed the connection: {text} ({code})"))
                return False
            case commands.Connection.CloseOk() if self._is_closing:
                self._end(ConnectionLostError("the connection was closed"))
                return False
            case commands.Connection.Blocked(reason=reason):
                self._writer.block(reason or "the broker does not say why")
            case commands.Connection.Unblocked():
                self._writer.block(None)
            case _:
                what = method.name if isinstance(method, base.Frame) else "a message"
                raise FrameFaultError(503, f"the broker sent {what} on channel 0, which nobody asked for")
        return True
