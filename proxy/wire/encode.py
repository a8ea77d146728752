"""Write RESP: the few frames Respite makes itself. Everything else is forwarded as raw bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import hiredis

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
RESET = b"+RESET\r\n"
NIL = {2: b"$-1\r\n", 3: b"_\r\n"}


def command(*args: bytes | memoryview | str | int) -> bytes:
    """Encode a request: an array of bulk strings."""
    words = tuple(bytes(arg) if isinstance(arg, memoryview) else arg for arg in args)
    raw: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub wants a tuple of one
    return raw


def bulk(value: bytes) -> bytes:
    """Encode a bulk string; also the form in which L1 knows a key."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


_COUNT: Final = re.compile(rb"0|[1-9][0-9]{0,17}")


def count(word: bytes) -> int | None:
    """Read a number as Redis does, where it is none below 0 and fits 64 bits; None for anything else.

    Never `int` on a client's word: it takes other forms than Redis, and raises on 4,301 digits.
    """
    return int(word) if _COUNT.fullmatch(word) else None


def unbulk(raw: bytes) -> bytes:
    """Undo `bulk`."""
    return raw[raw.index(b"\r\n") + 2 : -2]


def integer(value: int) -> bytes:
    """Encode an integer reply."""
    return b":%d\r\n" % value


def error(text: str) -> bytes:
    """Encode an error line; `text` starts with its code (`ERR ...`). Line breaks become spaces, as Redis does."""
    return b"-%b\r\n" % text.replace("\r", " ").replace("\n", " ").encode("utf-8", "surrogateescape")


def array(frames: Iterable[bytes]) -> bytes:
    """Encode an array of frames that are encoded already."""
    parts = list(frames)
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


def bulk_or_nil(value: bytes | None, protocol: int) -> bytes:
    """Encode a bulk string, None as the nil of `protocol` (2 or 3)."""
    return NIL[protocol] if value is None else bulk(value)


def verbatim(text: str, protocol: int) -> bytes:
    """Encode text for people: RESP3 verbatim string, RESP2 bulk string."""
    raw = text.encode()
    return bulk(raw) if protocol == 2 else b"=%d\r\ntxt:%b\r\n" % (len(raw) + 4, raw)


def strings(values: Sequence[str | bytes]) -> bytes:
    """Encode an array of bulk strings."""
    return array(bulk(value.encode() if isinstance(value, str) else value) for value in values)
