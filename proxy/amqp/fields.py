"""Field tables and the properties of a message, read and written without loss.

pamqp's own tables raise on what any publisher may send (a timestamp of the year 300000, bytes that are no UTF-8 sent
on again), read a crowded table in quadratic time and narrow doubles. One such message must not end a connection, or
it ends the next one as well. So: what cannot be read is left out, and whatever was read can be written again.
Source: AMQP 0-9-1 4.2.5.5, and RabbitMQ's errata for the letters of the types.
"""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from pamqp import commands

MAX_DEPTH: Final = 32  # of tables and lists in each other; nobody means more, and the stack is not endless
_FIXED: Final = {
    ord(form[0]): struct.Struct(form[1:])
    for form in ("t>?", "b>b", "B>B", "s>h", "u>H", "I>i", "i>I", "l>q", "L>q", "f>f", "d>d")
}
_LENGTH: Final = struct.Struct(">I")
_TIMESTAMP: Final = struct.Struct(">Q")
_DECIMAL: Final = struct.Struct(">Bi")
_MILLISECONDS_FROM: Final = 0xFFFFFFFF  # more seconds than that is the year 2106 and later: these are milliseconds
_FLAGS: Final = tuple(commands.Basic.Properties.flags.items())
_NO_STRINGS: Final = frozenset({"headers", "delivery_mode", "priority", "timestamp"})


def read_table(data: bytes, start: int = 0) -> tuple[dict[str, Any], int]:
    """Read the table at `start`; return it and where it ends. Raises ValueError for what is none.

    Values are bool, int, float, str (bytes where it is no UTF-8), Decimal, datetime (None if out of range), bytearray,
    None, lists and dicts of these.
    """
    try:
        return _table(data, start, 0)
    except (struct.error, IndexError) as exc:
        raise ValueError("a table is cut short") from exc


def _table(data: bytes, start: int, depth: int) -> tuple[dict[str, Any], int]:
    pos, end = _span(data, start, depth)
    table: dict[str, Any] = {}
    while pos < end:
        name_end = pos + 1 + data[pos]
        name = data[pos + 1 : name_end].decode("utf-8", "surrogateescape")
        table[name], pos = _value(data, name_end, depth)
    if pos != end:
        raise ValueError("a table ends within a field")
    return table, end


def _list(data: bytes, start: int, depth: int) -> tuple[list[Any], int]:
    pos, end = _span(data, start, depth)
    values: list[Any] = []
    while pos < end:
        value, pos = _value(data, pos, depth)
        values.append(value)
    if pos != end:
        raise ValueError("a list ends within a value")
    return values, end


def _span(data: bytes, start: int, depth: int) -> tuple[int, int]:
    if depth > MAX_DEPTH:
        raise ValueError(f"tables are nested more than {MAX_DEPTH} deep")
    (length,) = _LENGTH.unpack_from(data, start)
    if start + 4 + length > len(data):
        raise ValueError("a table is cut short")
    return start + 4, start + 4 + length


def _value(data: bytes, start: int, depth: int) -> tuple[Any, int]:
    letter = data[start]
    pos = start + 1
    if form := _FIXED.get(letter):
        return form.unpack_from(data, pos)[0], pos + form.size
    match letter:
        case 0x53 | 0x78:  # S, x
            start, end = _span(data, pos, depth)
            raw = data[start:end]
            return (bytearray(raw) if letter == 0x78 else _text(raw)), end
        case 0x46:  # F
            return _table(data, pos, depth + 1)
        case 0x41:  # A
            return _list(data, pos, depth + 1)
        case 0x54:  # T
            return read_timestamp(data, pos), pos + 8
        case 0x44:  # D
            places, digits = _DECIMAL.unpack_from(data, pos)
            return Decimal(digits).scaleb(-places), pos + 5
        case 0x56 | 0:  # V
            return None, pos
    raise ValueError(f"a field has the unknown type {letter}")


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def read_timestamp(data: bytes, start: int) -> datetime.datetime | None:
    """Read a timestamp of seconds, or of milliseconds when it is too large for seconds; None when for both."""
    (number,) = _TIMESTAMP.unpack_from(data, start)
    try:
        return datetime.datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS_FROM else number, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return None


def write_table(table: Mapping[str, Any]) -> bytes:
    """Write a table. Raises TypeError or ValueError for a value that AMQP has no type for."""
    parts: list[bytes] = []
    for name, value in table.items():
        raw = name.encode("utf-8", "surrogateescape")
        if len(raw) > 255:
            raise ValueError(f"the name of a header is longer than 255 bytes: {name[:32]}...")
        parts += (bytes((len(raw),)), raw, _written(value))
    return _sized(b"".join(parts))


def _written(value: object) -> bytes:
    match value:
        case None:
            return b"V"
        case bool():
            return b"t\1" if value else b"t\0"
        case int():
            if -(1 << 31) <= value < 1 << 31:
                return b"I" + value.to_bytes(4, "big", signed=True)
            if -(1 << 63) <= value < 1 << 63:
                return b"l" + value.to_bytes(8, "big", signed=True)
            raise ValueError("a whole number of a header has more than 64 bits")
        case float():
            return b"d" + struct.pack(">d", value)
        case str():
            return b"S" + _sized(value.encode("utf-8", "surrogateescape"))
        case bytes():
            return b"S" + _sized(value)
        case bytearray():
            return b"x" + _sized(bytes(value))
        case Mapping():
            return b"F" + write_table(value)
        case list() | tuple():
            return b"A" + _sized(b"".join(map(_written, value)))
        case datetime.datetime():
            return b"T" + _written_timestamp(value)
        case Decimal():
            return b"D" + _written_decimal(value)
    raise TypeError(f"a header of type {type(value).__name__} cannot be written")


def _sized(raw: bytes) -> bytes:
    return _LENGTH.pack(len(raw)) + raw


def _written_timestamp(value: datetime.datetime) -> bytes:
    if value.tzinfo is None:
        value = value.replace(tzinfo=datetime.UTC)
    seconds = value.timestamp()
    # Read again, so many seconds would be taken for milliseconds: as such it comes, and goes.
    return _TIMESTAMP.pack(max(round(seconds * 1000) if seconds > _MILLISECONDS_FROM else int(seconds), 0))


def _written_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -255 <= exponent <= 0:
        raise ValueError("a decimal of a header has an exponent that AMQP does not know")
    number = int("".join(map(str, digits)) or "0")
    try:
        return _DECIMAL.pack(-exponent, -number if sign else number)
    except struct.error as exc:
        raise ValueError("a decimal of a header has more than 32 bits") from exc


def read_properties(data: bytes, start: int) -> commands.Basic.Properties:
    """Read the flags and properties of a content header.

    A timestamp out of range and headers that are no table are left out. Raises ValueError when it is cut short.
    """
    properties = commands.Basic.Properties()
    try:
        (flags,) = struct.unpack_from(">H", data, start)
        if flags & 1:
            raise ValueError("it has properties that AMQP 0-9-1 does not know")
        pos = start + 2
        for name, flag in _FLAGS:
            if not flags & flag:
                continue
            flags ^= flag
            if name == "headers":
                properties.headers, pos = _headers(data, pos)
            elif name == "timestamp":
                properties.timestamp = read_timestamp(data, pos)
                pos += 8
            elif name in _NO_STRINGS:
                setattr(properties, name, data[pos])
                pos += 1
            else:
                text, pos = read_short(data, pos)
                setattr(properties, name, text)
            if not flags:
                break
    except (struct.error, IndexError) as exc:
        raise ValueError("its properties are cut short") from exc
    return properties


def _headers(data: bytes, start: int) -> tuple[dict[str, Any], int]:
    _, end = _span(data, start, 0)
    try:
        return read_table(data, start)[0], end
    except ValueError:
        return {}, end


def read_short(data: bytes, start: int) -> tuple[str, int]:
    """Read a short string; return it (surrogateescape) and where it ends. Raises ValueError when it is cut short."""
    end = start + 1 + data[start]
    if end > len(data):
        raise ValueError("a string is cut short")
    return data[start + 1 : end].decode("utf-8", "surrogateescape"), end


def write_short(text: str) -> bytes:
    """Write a short string. Raises ValueError above 255 bytes."""
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) > 255:
        raise ValueError(f"it has more than 255 bytes: {text[:32]}...")
    return bytes((len(raw),)) + raw


def write_properties(properties: commands.Basic.Properties) -> bytes:
    """Write the flags and properties of a content header. Raises TypeError or ValueError, naming the property."""
    flags = 0
    parts = []
    for name, flag in commands.Basic.Properties.flags.items():
        value = getattr(properties, name)
        if value is None or value == "":
            continue
        flags |= flag
        try:
            parts.append(_WRITERS.get(name, write_short)(value))
        except (AttributeError, TypeError, ValueError, OverflowError) as exc:
            raise ValueError(f"`{name}` cannot be written: {exc}") from exc
    return struct.pack(">H", flags) + b"".join(parts)


_WRITERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "headers": write_table,
    "delivery_mode": lambda number: bytes((number,)),
    "priority": lambda number: bytes((number,)),
    "timestamp": _written_timestamp,
}
