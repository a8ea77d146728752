"""Bytes to frames and back: where a frame ends, what a method says, how a message is cut into frames.

Methods go through pamqp. What a publisher has a say in (routing keys, properties) is read here and in `fields`,
because it must never be able to end the connection. Source: AMQP 0-9-1 4.2.3 (frames) and 4.2.6 (content).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeVar

import attrs
from pamqp import base, commands, exceptions

from proxy.amqp.fields import read_short, write_properties, write_short
from proxy.errors import ConnectionLostError

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
FRAME_MAX: Final = 131072  # RabbitMQ's own default; a larger frame would only make others wait longer
FRAME_MIN: Final = 4096  # by the specification
FRAME_OVERHEAD: Final = 8
PROTOCOL_HEADER: Final = b"AMQP\0\0\x09\1"
HEARTBEAT_FRAME: Final = b"\x08\0\0\0\0\0\0\xce"
_END: Final = 0xCE
_HEAD: Final = struct.Struct(">BHI")
_DELIVER: Final = 60 << 16 | 60
_GET_OK: Final = 60 << 16 | 71
_RETURN: Final = 60 << 16 | 50
_BROKEN: Final = (
    *(exceptions.UnmarshalingException, ValueError, struct.error, IndexError, TypeError, KeyError),
    *(ArithmeticError, RecursionError),
)

_F = TypeVar("_F", bound=base.Frame)


class FrameFaultError(ConnectionLostError):
    """The broker sent what is no AMQP, or not here. `code` is what it is told: 501 frame, 503 command, 504, 505."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return self.text


class RawFrame(NamedTuple):
    """A frame as it came. `kind` is METHOD, HEADER, BODY or HEARTBEAT."""

    kind: int
    channel: int
    payload: bytes


@attrs.frozen
class Deliver:
    """A message comes for a consumer; its content follows."""

    consumer_tag: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str


@attrs.frozen
class GetOk:
    """A message comes that was asked for; its content follows. `left` are still in the queue."""

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    left: int


@attrs.frozen
class Returned:
    """A message comes back because no queue takes it; its content follows."""

    code: int
    text: str
    exchange: str
    routing_key: str


Method = base.Frame | Deliver | GetOk | Returned


class FrameReader:
    """Cuts what comes into frames; holds at most one that is not whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def missing(self) -> int:
        """How many bytes the frame under way lacks, 0 when not even that is known."""
        buffer = self._buffer
        if len(buffer) < _HEAD.size:
            return 0
        size: int = _HEAD.unpack_from(buffer)[2]
        return max(size + FRAME_OVERHEAD - len(buffer), 0)

    def feed(self, data: bytes | bytearray) -> Iterator[RawFrame]:
        """Yield the frames that are whole now. Raises FrameFaultError; what is not taken is kept for the next call."""
        buffer = self._buffer
        buffer += data
        pos = 0
        try:
            while len(buffer) - pos >= _HEAD.size:
                kind, channel, size = _HEAD.unpack_from(buffer, pos)
                if kind not in {METHOD, HEADER, BODY, HEARTBEAT}:
                    raise FrameFaultError(501, _no_frame(bytes(buffer[pos : pos + 8])))
                if size > FRAME_MAX - FRAME_OVERHEAD:
                    raise FrameFaultError(501, f"the broker sent a frame of {size} bytes")
                end = pos + _HEAD.size + size
                if end >= len(buffer):
                    break
                if buffer[end] != _END:
                    raise FrameFaultError(501, "the broker sent a frame that does not end as one")
                frame = RawFrame(kind, channel, bytes(buffer[pos + _HEAD.size : end]))
                pos = end + 1
                yield frame
        finally:
            del buffer[:pos]


def _no_frame(start: bytes) -> str:
    if start[:4] == b"AMQP":
        return f"the broker speaks another AMQP, version {'.'.join(map(str, start[5:8]))}; 0-9-1 is wanted"
    return f"the other side does not speak AMQP: it sent {start!r}"


def read_method(payload: bytes) -> Method:
    """Read a method. Raises FrameFaultError for one that is unknown or cut short."""
    try:
        (index,) = struct.unpack_from(">I", payload)
        match index:
            case 0x3C003C:
                return _deliver(payload)
            case 0x3C0047:
                return _get_ok(payload)
            case 0x3C0032:
                (code,) = struct.unpack_from(">H", payload, 4)
                text, pos = read_short(payload, 6)
                exchange, pos = read_short(payload, pos)
                return Returned(code, text, exchange, read_short(payload, pos)[0])
        method: base.Frame = commands.INDEX_MAPPING[index]()
        method.unmarshal(payload[4:])
        return method
    except _BROKEN as exc:
        raise FrameFaultError(501, f"the broker sent a method that cannot be read ({payload[:4].hex()})") from exc


_DELIVERY: Final = struct.Struct(">QB")
_ROUTES: Final[dict[bytes, tuple[str, str]]] = {}  # exchange and routing key as they come; they are few, and come often
_ROUTES_MAX: Final = 1024


def _deliver(payload: bytes) -> Deliver:
    consumer_tag, pos = read_short(payload, 4)
    tag, is_again = _DELIVERY.unpack_from(payload, pos)
    names = payload[pos + 9 :]
    route = _ROUTES.get(names)
    if route is None:
        exchange, pos = read_short(names, 0)
        if len(_ROUTES) >= _ROUTES_MAX:
            _ROUTES.clear()
        route = _ROUTES[names] = exchange, read_short(names, pos)[0]
    return Deliver(consumer_tag, tag, bool(is_again & 1), *route)


def _get_ok(payload: bytes) -> GetOk:
    (tag, is_again) = struct.unpack_from(">QB", payload, 4)
    exchange, pos = read_short(payload, 13)
    routing_key, pos = read_short(payload, pos)
    return GetOk(tag, bool(is_again & 1), exchange, routing_key, struct.unpack_from(">I", payload, pos)[0])


def read_content_header(payload: bytes) -> tuple[int, int]:
    """Return the size of the body that follows, in bytes, and where the properties begin (fields.read_properties)."""
    if len(payload) < 14:
        raise FrameFaultError(501, "the broker sent a content header that is cut short")
    return struct.unpack_from(">Q", payload, 4)[0], 12


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"%b%b\xce" % (_HEAD.pack(kind, channel, len(payload)), payload)


def write_method(method: base.Frame, channel: int) -> bytes:
    """Return the frame of a method. Raises ValueError or TypeError for an argument that AMQP cannot hold."""
    try:
        return _frame(METHOD, channel, method.index.to_bytes(4, "big") + method.marshal())
    except (struct.error, OverflowError) as exc:
        raise ValueError(str(exc)) from exc


def write_ack(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Return the frame of Basic.Ack."""
    return _frame(METHOD, channel, struct.pack(">HHQB", 60, 80, tag, multiple))


def write_nack(channel: int, tag: int, *, multiple: bool, requeue: bool) -> bytes:
    """Return the frame of Basic.Nack."""
    return _frame(METHOD, channel, struct.pack(">HHQB", 60, 120, tag, multiple | requeue << 1))


@attrs.frozen
class Outgoing:
    """A message to publish. `mandatory`: the broker gives it back where no queue takes it."""

    exchange: str
    routing_key: str
    body: bytes
    properties: commands.Basic.Properties
    mandatory: bool = False


def write_message(message: Outgoing, channel: int, frame_max: int) -> bytes:
    """Return the frames of a message. Raises ValueError for what cannot be written, saying what it is."""
    body = message.body
    room = frame_max - FRAME_OVERHEAD
    method = b"".join(
        (
            b"\0\x3c\0\x28\0\0",
            *(write_short(message.exchange), write_short(message.routing_key)),
            b"\1" if message.mandatory else b"\0",
        )
    )
    header = struct.pack(">HHQ", 60, 0, len(body)) + write_properties(message.properties)
    if len(header) > room:
        raise ValueError(f"its properties have {len(header)} bytes, and the broker takes {room}")
    parts = [_frame(METHOD, channel, method), _frame(HEADER, channel, header)]
    parts.extend(_frame(BODY, channel, body[pos : pos + room]) for pos in range(0, len(body), room))
    return b"".join(parts)


def _unchecked(method: type[_F]) -> type[_F]:
    """Return a method class without pamqp's rules for names: RabbitMQ has queues that they refuse."""
    body: dict[str, Any] = {"__slots__": method.__slots__, "validate": lambda _: None}
    return type(method.__name__, (method,), body)


ConnectionOpen = _unchecked(commands.Connection.Open)
ExchangeDeclare = _unchecked(commands.Exchange.Declare)
QueueDeclare = _unchecked(commands.Queue.Declare)
QueueBind = _unchecked(commands.Queue.Bind)
QueuePurge = _unchecked(commands.Queue.Purge)
QueueDelete = _unchecked(commands.Queue.Delete)
Consume = _unchecked(commands.Basic.Consume)
Get = _unchecked(commands.Basic.Get)
