"""What a broker sends: frames, the first words, field tables and properties.

What must hold: nothing but the errors that end a connection in order; frames are the same wherever chunks end; whatever
a publisher put into its headers is read without an error that ends the connection, and can be written again.
"""

from __future__ import annotations

import datetime
import random
import struct
from collections.abc import Iterator
from typing import Any, Final

import trio
from pamqp import commands

from proxy.amqp import deliveries, fields, frames, handshake, letters
from proxy.amqp.deliveries import Content, Delivery, Waiting
from proxy.amqp.fields import read_properties, read_table, write_properties, write_table
from proxy.amqp.frames import (
    BODY,
    FRAME_MAX,
    FRAME_OVERHEAD,
    HEADER,
    METHOD,
    Deliver,
    FrameFaultError,
    FrameReader,
    GetOk,
    Outgoing,
    RawFrame,
    Returned,
    read_method,
    write_message,
    write_method,
)
from proxy.amqp.handshake import shake_hands
from proxy.amqp.letters import fresh_headers, message_of, read_letter
from proxy.config.endpoint import parse_amqp_url
from proxy.errors import AmqpError

from ...wire.feeding import cut
from ..target import Target, cuts, dice, expect

_PROPERTIES: Final = commands.Basic.Properties(
    content_type="application/json",
    headers={
        "x-death": [{"queue": "q", "reason": "rejected", "routing-keys": ["a.b"], "count": 1}],
        "n": -7,
        "big": 1 << 40,
        "yes": True,
        "f": 1.5,
        "none": None,
        "raw": bytearray(b"\xff"),
        "at": datetime.datetime(2024, 11, 22, tzinfo=datetime.UTC),
    },
    delivery_mode=2,
    priority=3,
    message_id="m-1",
    timestamp=datetime.datetime(2024, 11, 22, tzinfo=datetime.UTC),
)
_HEADER: Final = struct.pack(">HHQ", 60, 0, 5) + write_properties(_PROPERTIES)
_DELIVER: Final = struct.pack(">HHB", 60, 60, 1) + b"c" + struct.pack(">QB", 7, 1) + b"\2ex\3a.b"
_START: Final = commands.Connection.Start(
    server_properties={"product": "RabbitMQ", "capabilities": {"basic.nack": True}},
    mechanisms="PLAIN AMQPLAIN",
    locales="en_US",
)
_TUNE: Final = commands.Connection.Tune(2047, 131072, 60)
_CLOSE: Final = commands.Connection.Close(403, "ACCESS_REFUSED", 0, 0)
_METHODS: Final = (
    *(_START, _TUNE, commands.Connection.OpenOk(), _CLOSE, commands.Connection.Secure("x"), commands.Channel.OpenOk()),
    *(commands.Queue.DeclareOk("q", 1, 2), commands.Basic.ConsumeOk("c"), commands.Basic.Ack(7, True)),
    *(commands.Basic.Nack(7, True, False), commands.Basic.Cancel("c", True), commands.Basic.GetEmpty()),
    *(commands.Channel.Close(404, "NOT_FOUND", 50, 10), commands.Connection.Blocked("low on memory")),
)
_END: Final = b"\xce"
_TOKENS: Final = (
    *(b"\1\0\0\0\0\0\4", b"\2\0\1\0\0\0\x10", b"\3\0\1\0\0\0\5hello\xce", b"\x08\0\0\0\0\0\0\xce", b"AMQP\0\0\x09\1"),
    *(b"\0\x0a\0\x0a", b"\0\x0a\0\x1e", b"\0\x0a\0\x32", b"\0\x3c\0\x3c", b"\0\x3c\0\x47", b"\0\x3c\0\x32", _END),
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"S\0\0\0\1a", b"F\0\0\0\0", b"A\0\0\0\0"),
    *(b"A\0\0\0\5F\0\0\0\0", b"T\0\0\0\0g@\x51\0", b"T\xff\xff\xff\xff\xff\xff\xff\xff", b"D\2\0\0\1\0", b"D\xff\xff"),
    *(b"V", b"t\1", b"b\xff", b"s\1\2", b"I\0\0\0\1", b"l" + b"\xff" * 8, b"f\0\0\0\0", b"d\x7f\xf8" + b"\0" * 6),
    *(b"x\0\0\0\1\xff", b"\1a", b"\7x-death", b"\6queue", b"\x0eresponse-code", b"\xff\xff", b"\xf8\0", b"\x20\0"),
    *(b"\x0frespite-attempt", b"\x0erespite-reason", b"\x13respite-routing-key", b"\x0ftimestamp_in_ms", b"CC"),
)


def _value(rng: random.Random, depth: int) -> bytes:
    """Make a field of a table, of any type, and of none now and then."""
    letter = rng.choice(b"tbBsuIilLfdSxFATDVV?")
    fixed = {"t": 1, "b": 1, "B": 1, "s": 2, "u": 2, "I": 4, "i": 4, "l": 8, "L": 8, "f": 4, "d": 8, "T": 8, "D": 5}
    match chr(letter):
        case "S" | "x":
            rest = _sized_bytes(rng.choice((b"", b"a.b", b"\xff\xfe", b"7" * 40)))
        case "F":
            rest = _table(rng, depth + 1)
        case "A":
            rest = _sized_bytes(b"".join(_value(rng, depth + 1) for _ in range(rng.randrange(3) if depth < 4 else 0)))
        case other:
            size = fixed.get(other, 0)
            rest = rng.choice((bytes(size), b"\xff" * size, b"\x7f" + b"\xff" * (size - 1), rng.randbytes(size)))[:size]
    return b"%c%b" % (letter, rest)


def _table(rng: random.Random, depth: int = 0) -> bytes:
    names = (b"\1a", b"\7x-death", b"\x0erespite-reason", b"\x0ftimestamp_in_ms", b"\2CC", b"\1\xff", b"\0")
    fields = [rng.choice(names) + _value(rng, depth) for _ in range(rng.randrange(4) if depth < 4 else 0)]
    return _sized_bytes(b"".join(fields))


def _sized_bytes(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "big") + raw


def _make_frames(rng: random.Random) -> bytes:
    """Make a greeting with any table in it, or a delivery whose headers are one."""
    table = _table(rng)
    if rng.random() < 0.4:
        mechanisms = _sized_bytes(rng.choice((b"PLAIN", b"EXTERNAL", b"\xff", b"")))
        return _frame(METHOD, 0, b"\0\x0a\0\x0a\0\x09" + table + mechanisms + _sized_bytes(b"en_US"))
    header = struct.pack(">HHQH", 60, 0, 5, 0x2000) + table
    return _frame(METHOD, 1, _DELIVER) + _frame(HEADER, 1, header) + _frame(BODY, 1, b"hello")


def _make_fields(rng: random.Random) -> bytes:
    return _table(rng) if rng.random() < 0.6 else b"\x20\0" + _table(rng)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _END


def _sized(data: bytes) -> bytes:
    """Put sizes and ends of frames right: cut where an end stands, and say how much there is."""
    out = b""
    while len(data) > 7:
        end = data.find(_END, 7)
        body = data[7 : end if end >= 0 else len(data)]
        out += _frame(data[0] if data[0] in {1, 2, 3, 8} else 1, int.from_bytes(data[1:3], "big"), body)
        data = data[8 + len(body) :]
    return out


def _cut_frames(pieces: list[bytes]) -> tuple[list[RawFrame], int]:
    """Return the frames, and what the broker is told at the end, 0 for nothing."""
    reader = FrameReader()
    found: list[RawFrame] = []
    try:
        for piece in pieces:
            for frame in reader.feed(piece):
                found.append(frame)
            expect(reader.missing <= FRAME_MAX, "more than a frame is waited for", reader.missing)
    except FrameFaultError as exc:
        return found, exc.code
    return found, 0


def _frames(data: bytes) -> None:
    whole = _cut_frames([data])
    for pieces in cuts(data):
        expect(_cut_frames(pieces) == whole, "frames go by how they are cut", whole, pieces)
    waiting = Waiting()
    content: Content | None = None
    for frame in whole[0]:
        try:
            if frame.kind == METHOD:
                content = _method(frame)
            elif content is not None and frame.kind == HEADER:
                _delivered(content, is_whole=content.take_header(frame.payload, waiting))
            elif content is not None and frame.kind == BODY:
                _delivered(content, is_whole=content.take_body(frame.payload))
        except FrameFaultError:
            content = None


def _method(frame: RawFrame) -> Content | None:
    """Read a method; one that others of ours would write is written again."""
    method = read_method(frame.payload)
    if isinstance(method, Deliver | GetOk | Returned):
        return Content(method)
    try:
        again = write_method(method, frame.channel)
    except (ValueError, TypeError):  # what cannot be written cannot be meant
        return None
    (raw,) = FrameReader().feed(again)
    expect(type(read_method(raw.payload)) is type(method), "written, it is another method", method)
    return None


def _delivered(content: Content, *, is_whole: bool) -> None:
    if is_whole and not isinstance(content.method, Returned):
        _letter(content.delivery(content.method))


def _letter(delivery: Delivery) -> None:
    """Do with a message what is done with one that comes out of a queue."""
    message_of(delivery)
    letter = read_letter(1, delivery)
    expect(letter.id == read_letter(2, delivery).id, "a letter has two ids", letter)
    properties = delivery.properties
    properties.headers = fresh_headers(letter)
    try:
        write_message(Outgoing("", letter.message.routing_key, delivery.body, properties), 1, FRAME_MAX)
    except ValueError as exc:  # a routing key that the headers name may be longer than one can be
        expect(str(exc), "no reason")


FRAMES: Final = Target(
    "amqp-frames",
    _frames,
    [frames, deliveries, fields, letters],
    [write_method(method, 0) for method in _METHODS]
    + [_frame(METHOD, 1, _DELIVER) + _frame(HEADER, 1, _HEADER) + _frame(BODY, 1, b"hello")],
    _TOKENS,
    _make_frames,
    repair=_sized,
)


class _Broker(trio.abc.Stream):
    """Says what it was given, in pieces; takes everything."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        expect(len(data) < FRAME_MAX + FRAME_OVERHEAD, "more than a frame is said", data[:64])

    async def wait_send_all_might_not_block(self) -> None:
        return

    async def receive_some(self, _max_bytes: int | None = None) -> bytes:
        return next(self._pieces, b"")

    async def aclose(self) -> None:
        return


_ENDPOINTS: Final = (parse_amqp_url("amqp://u:p@host/v"), parse_amqp_url("amqps://host"))


async def _greet(data: bytes) -> None:
    for endpoint in _ENDPOINTS:
        broker = _Broker(iter(cut(data, dice(data))))
        try:
            tuned = await shake_hands(broker, FrameReader(), endpoint, name="fuzz", heartbeat_s=10)
        except AmqpError as exc:
            expect("\n" not in str(exc) or b"\n" in data, "an error of two lines", str(exc))
            expect("p" != str(exc), "a password in an error")
        else:
            expect(4096 <= tuned.frame_max <= FRAME_MAX, "a frame of any size", tuned)
            expect(1 <= tuned.channel_max <= 255, "channels without end", tuned)


HANDSHAKE: Final = Target(
    "amqp-handshake",
    _greet,
    [handshake, frames],
    [
        b"".join(write_method(method, 0) for method in (_START, _TUNE, commands.Connection.OpenOk())),
        b"".join(write_method(method, 0) for method in (_START, _CLOSE)),
        write_method(_START, 0) + write_method(commands.Connection.Secure("x"), 0),
        b"AMQP\0\0\x09\1",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
    (*_TOKENS, *(write_method(method, 0) for method in _METHODS[:6]), b"PLAIN", b"EXTERNAL"),
    _make_frames,
    repair=_sized,
)


def _equal(one: Any, other: Any) -> bool:
    """Compare tables as the bytes they are written to: NaN is none to itself."""
    return write_table(one) == write_table(other)


def _fields(data: bytes) -> None:
    try:
        table, end = read_table(data)
    except ValueError:
        pass
    else:
        expect(4 <= end <= len(data), "a table ends where there is nothing", end)
        written = write_table(table)
        again, its_end = read_table(written)
        expect(its_end == len(written) and _equal(again, table), "written, it is another table", table, again)
    try:
        properties = read_properties(data, 0)
    except ValueError:
        return
    written = write_properties(properties)
    expect(write_properties(read_properties(written, 0)) == written, "written, they are other properties", written)
    _letter(Delivery(1, False, "ex", "a.b", b"body", properties))


FIELDS: Final = Target(
    "amqp-fields",
    _fields,
    [fields, letters],
    [
        write_table(_PROPERTIES.headers or {}),
        write_properties(_PROPERTIES),
        write_table({}),
        b"\0\0\0\x08\1aD\2\0\0\1\0",
        b"\0\0\0\x07\1ax\0\0\0\0",
    ],
    _TOKENS,
    _make_fields,
)
