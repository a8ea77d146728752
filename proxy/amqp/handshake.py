"""The first words with a broker: who we are, what both can do, which vhost.

    header -> Start -> StartOk -> Tune -> TuneOk, Open -> OpenOk

Source: AMQP 0-9-1 2.2.4, and RabbitMQ's authentication_failure_close.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import attrs
import trio
from pamqp import base, commands

from proxy import __version__
from proxy.amqp.frames import (
    FRAME_MAX,
    FRAME_MIN,
    HEARTBEAT,
    METHOD,
    PROTOCOL_HEADER,
    ConnectionOpen,
    FrameFaultError,
    FrameReader,
    RawFrame,
    read_method,
    write_method,
)
from proxy.config.model import AmqpEndpoint
from proxy.errors import BrokerRefusedError, ConnectionLostError

CHANNEL_MAX: Final = 255  # more than we ever open; each is a number that must be kept
READ_BYTES: Final = 4096
_REFUSALS: Final = frozenset({402, 403, 530})  # invalid path, access refused, not allowed
CAPABILITIES: Final = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}

_F = TypeVar("_F", bound=base.Frame)


@attrs.frozen
class Tuned:
    """What both sides agreed on: sizes in bytes, the heartbeat in seconds (0 none), what the broker says it is."""

    frame_max: int
    channel_max: int
    heartbeat_s: float
    server: dict[str, Any]


class _Talk:
    """Methods of channel 0, one at a time."""

    def __init__(self, stream: trio.abc.Stream, reader: FrameReader, display: str) -> None:
        self._stream = stream
        self._reader = reader
        self._display = display
        self._frames: list[RawFrame] = []

    async def send(self, *methods: base.Frame) -> None:
        """Send methods in one go."""
        await self._send(b"".join(write_method(method, 0) for method in methods))

    async def begin(self) -> None:
        """Send the protocol header."""
        await self._send(PROTOCOL_HEADER)

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, OSError) as exc:
            raise ConnectionLostError(f"{self._display} broke the connection: {exc.__cause__ or exc}") from exc

    async def receive(self, doing: str) -> base.Frame:
        """Return the next method. Raises ConnectionLostError, BrokerRefusedError when the broker closes, saying why."""
        while not self._frames:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, OSError) as exc:
                raise ConnectionLostError(f"{self._display} broke the connection: {exc.__cause__ or exc}") from exc
            if not data:
                raise ConnectionLostError(f"{self._display} closed the connection while {doing}")
            self._frames += self._reader.feed(data)
        frame = self._frames.pop(0)
        if frame.kind == HEARTBEAT:
            return await self.receive(doing)
        if frame.kind != METHOD or frame.channel:
            raise FrameFaultError(505, f"the broker sent content while {doing}")
        method = read_method(frame.payload)
        if isinstance(method, commands.Connection.Close):
            await self.send(commands.Connection.CloseOk())
            text = f"{self._display}: {method.reply_text} ({method.reply_code})"
            raise (BrokerRefusedError if method.reply_code in _REFUSALS else ConnectionLostError)(text)
        if not isinstance(method, base.Frame):
            raise FrameFaultError(503, f"the broker sent a message while {doing}")
        return method


async def shake_hands(
    stream: trio.abc.Stream, reader: FrameReader, endpoint: AmqpEndpoint, *, name: str, heartbeat_s: float
) -> Tuned:
    """Log in and open the vhost. Raises BrokerRefusedError, ConnectionLostError, FrameFaultError."""
    talk = _Talk(stream, reader, endpoint.display)
    await talk.begin()
    start = _expect(await talk.receive("greeting"), commands.Connection.Start)
    await talk.send(_start_ok(start, endpoint, name))
    try:
        method = await talk.receive("logging in")
    except ConnectionLostError as exc:
        # A broker that does not know authentication_failure_close says nothing else.
        raise BrokerRefusedError(f"{exc}; that is how some refuse the user or password") from exc
    if isinstance(method, commands.Connection.Secure):
        raise BrokerRefusedError(f"{endpoint.display} asks for more than the user and password")
    tune = _expect(method, commands.Connection.Tune)
    frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
    if frame_max < FRAME_MIN:
        raise FrameFaultError(501, f"the broker takes frames of {frame_max} bytes only")
    channel_max = min(tune.channel_max or CHANNEL_MAX, CHANNEL_MAX)
    heartbeat = max(round(heartbeat_s), 1) if heartbeat_s else 0
    await talk.send(
        commands.Connection.TuneOk(channel_max, frame_max, heartbeat), ConnectionOpen(virtual_host=endpoint.vhost)
    )
    _expect(await talk.receive("opening the vhost"), commands.Connection.OpenOk)
    return Tuned(frame_max, channel_max, heartbeat, dict(start.server_properties or {}))


def _start_ok(start: commands.Connection.Start, endpoint: AmqpEndpoint, name: str) -> commands.Connection.StartOk:
    mechanism = "PLAIN" if endpoint.username else "EXTERNAL"
    mechanisms: str | bytes = start.mechanisms or ""  # bytes where it is no UTF-8
    offered = (mechanisms.decode("latin-1") if isinstance(mechanisms, bytes) else mechanisms).split()
    if mechanism not in offered:
        hint = "" if endpoint.username else "; without a user in the URL the client certificate is to say who we are"
        raise BrokerRefusedError(
            f"{endpoint.display} lets nobody in by {mechanism}, only by {', '.join(offered)}{hint}"
        )
    response = f"\0{endpoint.username}\0{endpoint.password}" if endpoint.username else ""
    properties: dict[str, Any] = {
        "product": "respite",
        "version": __version__,
        "connection_name": name,
        "capabilities": dict(CAPABILITIES),
    }
    return commands.Connection.StartOk(properties, mechanism, response)


def _expect(method: base.Frame, kind: type[_F]) -> _F:
    if not isinstance(method, kind):
        raise FrameFaultError(503, f"the broker sent {method.name} where {kind.name} was due")
    return method
