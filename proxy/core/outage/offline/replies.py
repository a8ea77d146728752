"""The replies that are given from memory, in the protocol of who asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from proxy.wire.encode import NIL, array, bulk

OK: Final = b"+OK\r\n"
ZERO: Final = b":0\r\n"
ONE: Final = b":1\r\n"


def maybe_bulk(value: bytes | None, protocol: int) -> bytes:
    """Return a bulk string, or nil."""
    return NIL[protocol] if value is None else bulk(value)


def maybe_bulks(values: Iterable[bytes | None], protocol: int) -> bytes:
    """Return an array of bulk strings and nils."""
    return array(maybe_bulk(value, protocol) for value in values)


def fields(held: Mapping[bytes, bytes], protocol: int) -> bytes:
    """Return a hash: a map in RESP3, fields and values in turn in RESP2."""
    body = b"".join(bulk(field) + bulk(value) for field, value in held.items())
    return (b"%%%d\r\n" % len(held) if protocol == 3 else b"*%d\r\n" % (2 * len(held))) + body
