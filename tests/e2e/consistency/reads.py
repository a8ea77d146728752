"""The reads that L1 may serve, each with what it must be answered in a state: strings, hashes, lists, sets, streams.

A maker takes a source of chance, a key and the value that the key may hold, and returns one `Read`. Its arguments
come out of a few, so that they come again and L1 is asked for what it holds. Sorted sets are in reads_sorted.py.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import attrs
import hiredis

from ..raw import Arg
from .states import EMPTY, FIRST, LAST, NOTHING, TYPES, WRONG, State

Maker = Callable[[Random, bytes, Any], "Read"]


def plain(reply: Any) -> Any:
    """Take a reply as it is."""
    return reply


@attrs.frozen
class Read:
    """One read: its words, the reply that a state gives, and how a reply of either protocol is made comparable."""

    words: tuple[Arg, ...]
    expect: Callable[[State], Any]
    view: Callable[[Any], Any] = plain

    def see(self, reply: Any) -> Any:
        """Return the reply as `expect` would give it."""
        if isinstance(reply, hiredis.ReplyError):
            return WRONG if str(reply).startswith("WRONGTYPE") else reply
        return self.view(reply)


def read(family: str, *words: Arg, then: Callable[[Any], Any], view: Callable[[Any], Any] = plain) -> Read:
    """Make a read of one family: `then` gives the reply for a value, and for the empty one of a missing key."""

    def expect(state: State) -> Any:
        if state.type == TYPES[family]:
            return then(state.value)
        return then(EMPTY[family]) if state is NOTHING else WRONG

    return Read(words, expect, view)


def cut(items: Any, start: int, stop: int) -> list[Any]:
    """Cut a range as Redis does: `stop` is in it, negative ones count from the end."""
    size = len(items)
    start = max(start + size, 0) if start < 0 else start
    return list(items[start : (stop + size if stop < 0 else stop) + 1])


def flat(reply: Any) -> Any:
    """Return a map of RESP3, or the list that stands for it in RESP2, as a dict."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))


# Of any type.


def get_type(_: Random, key: bytes, __: Any) -> Read:
    """TYPE."""
    return Read(("TYPE", key), lambda state: state.type)


def exists(_: Random, key: bytes, __: Any) -> Read:
    """EXISTS of one key."""
    return Read(("EXISTS", key), lambda state: int(state is not NOTHING))


def mget(_: Random, key: bytes, __: Any) -> Read:
    """One key of an MGET: what is no string is nil."""
    return Read(("MGET", key), lambda state: state.value if state.type == b"string" else None)


# Strings.


def get(_: Random, key: bytes, __: Any) -> Read:
    """GET: no string is empty, so the empty one stands for nil."""
    return read("string", "GET", key, then=lambda value: value or None)


def strlen(_: Random, key: bytes, __: Any) -> Read:
    """STRLEN."""
    return read("string", "STRLEN", key, then=len)


def getrange(rng: Random, key: bytes, _: Any) -> Read:
    """GETRANGE and SUBSTR."""
    start, stop = rng.choice(((0, 30), (-8, -1), (1, -2)))
    return read(
        "string",
        rng.choice(("GETRANGE", "SUBSTR")),
        key,
        start,
        stop,
        then=lambda value: bytes(cut(value, start, stop)),
    )


def getbit(rng: Random, key: bytes, value: Any) -> Read:
    """GETBIT, at the end mostly: the serial's last digit."""
    offset = 8 * max(len(value) - 1, 0) + rng.choice((6, 7)) if rng.random() < 0.8 else 0
    return read("string", "GETBIT", key, offset, then=lambda value: _bits(value, offset, 1))


def bitcount(rng: Random, key: bytes, _: Any) -> Read:
    """BITCOUNT of all and of the end."""
    if rng.random() < 0.5:
        return read("string", "BITCOUNT", key, then=lambda value: int.from_bytes(value, "big").bit_count())
    return read("string", "BITCOUNT", key, -2, -1, then=lambda value: int.from_bytes(value[-2:], "big").bit_count())


def bitpos(rng: Random, key: bytes, value: Any) -> Read:
    """BITPOS of a set bit, in all and from the last byte that the value had."""
    start = rng.choice((0, max(len(value) - 1, 0)))

    def find(value: bytes) -> int:
        number = int.from_bytes(value[start:], "big")
        return 8 * len(value) - number.bit_length() if number else -1

    return read("string", "BITPOS", key, 1, start, then=find)


def bitfield(_: Random, key: bytes, value: Any) -> Read:
    """BITFIELD_RO: the first byte, and four at the end."""
    offset = 8 * max(len(value) - 4, 0)
    return read(
        "string",
        *("BITFIELD_RO", key, "GET", "u8", 0, "GET", "u32", offset),
        then=lambda value: [_bits(value, 0, 8), _bits(value, offset, 32)],
    )


def _bits(value: bytes, offset: int, count: int) -> int:
    """Read an unsigned number out of a string that goes on with zeros."""
    start = offset // 8
    window = value[start : start + 8].ljust(8, b"\0")
    return int.from_bytes(window, "big") >> (64 - offset % 8 - count) & ((1 << count) - 1)


# Hashes.

FIELDS = (FIRST, b"a", b"x1", LAST)


def hget(rng: Random, key: bytes, _: Any) -> Read:
    """HGET, HEXISTS, HSTRLEN of one field."""
    field = rng.choice(FIELDS)
    word, then = rng.choice(
        (
            ("HGET", lambda value: value.get(field)),
            ("HEXISTS", lambda value: int(field in value)),
            ("HSTRLEN", lambda value: len(value.get(field, b""))),
        )
    )
    return read("hash", word, key, field, then=then)


def hmget(_: Random, key: bytes, __: Any) -> Read:
    """HMGET of all there may be."""
    return read("hash", "HMGET", key, *FIELDS, then=lambda value: [value.get(field) for field in FIELDS])


def hgetall(_: Random, key: bytes, __: Any) -> Read:
    """HGETALL."""
    return read("hash", "HGETALL", key, then=lambda value: value, view=flat)


def hkeys(rng: Random, key: bytes, _: Any) -> Read:
    """HKEYS, HVALS."""
    if rng.random() < 0.5:
        return read("hash", "HKEYS", key, then=sorted, view=sorted)
    return read("hash", "HVALS", key, then=lambda value: sorted(value.values()), view=sorted)


def hlen(_: Random, key: bytes, __: Any) -> Read:
    """HLEN."""
    return read("hash", "HLEN", key, then=len)


# Lists.


def lindex(rng: Random, key: bytes, _: Any) -> Read:
    """LINDEX from both ends."""
    index = rng.choice((0, 1, -1))
    return read("list", "LINDEX", key, index, then=lambda value: next(iter(cut(value, index, index)), None))


def llen(_: Random, key: bytes, __: Any) -> Read:
    """LLEN."""
    return read("list", "LLEN", key, then=len)


def lpos(_: Random, key: bytes, value: Any) -> Read:
    """LPOS of the element that was last."""
    element = value[-1] if value else b"none"
    return read("list", "LPOS", key, element, then=lambda value: value.index(element) if element in value else None)


def lrange(rng: Random, key: bytes, _: Any) -> Read:
    """LRANGE."""
    start, stop = rng.choice(((0, -1), (0, 1), (-2, -1)))
    return read("list", "LRANGE", key, start, stop, then=lambda value: cut(value, start, stop))


# Sets.


def scard(_: Random, key: bytes, __: Any) -> Read:
    """SCARD."""
    return read("set", "SCARD", key, then=len)


def smembers(_: Random, key: bytes, __: Any) -> Read:
    """SMEMBERS."""
    return read("set", "SMEMBERS", key, then=sorted, view=sorted)


def sismember(rng: Random, key: bytes, value: Any) -> Read:
    """SISMEMBER and SMISMEMBER of what was in it, and of what may be."""
    member = max(value, default=b"none")
    if rng.random() < 0.5:
        return read("set", "SISMEMBER", key, member, then=lambda value: int(member in value))
    return read(
        "set", "SMISMEMBER", key, member, b"m1", then=lambda value: [int(name in value) for name in (member, b"m1")]
    )


# Streams.


def xlen(_: Random, key: bytes, __: Any) -> Read:
    """XLEN."""
    return read("stream", "XLEN", key, then=len)


def xrange(rng: Random, key: bytes, value: Any) -> Read:
    """XRANGE: all, the first, and what comes behind the entry that was first."""
    kind = rng.randrange(3)
    if kind == 0:
        return read("stream", "XRANGE", key, "-", "+", then=_entries)
    if kind == 1:
        return read("stream", "XRANGE", key, "-", "+", "COUNT", 1, then=lambda value: _entries(value[:1]))
    after = value[0][0] if value else b"1-1"

    def find(value: Any) -> list[Any]:
        return _entries([entry for entry in value if _order(entry[0]) > _order(after)])

    return read("stream", "XRANGE", key, b"(" + after, "+", then=find)


def xrevrange(rng: Random, key: bytes, _: Any) -> Read:
    """XREVRANGE: all and the last."""
    if rng.random() < 0.5:
        return read("stream", "XREVRANGE", key, "+", "-", then=lambda value: _entries(value[::-1]))
    return read("stream", "XREVRANGE", key, "+", "-", "COUNT", 1, then=lambda value: _entries(value[:-2:-1]))


def _entries(value: Any) -> list[Any]:
    return [[entry_id, [FIRST, element]] for entry_id, element in value]


def _order(entry_id: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in entry_id.split(b"-"))


STRING_READS: tuple[Maker, ...] = (get, get, get, strlen, getrange, getrange, getbit, bitcount, bitpos, bitfield)
HASH_READS: tuple[Maker, ...] = (hget, hget, hget, hmget, hgetall, hgetall, hkeys, hlen)
LIST_READS: tuple[Maker, ...] = (lindex, llen, lpos, lrange, lrange)
SET_READS: tuple[Maker, ...] = (scard, smembers, smembers, sismember, sismember)
STREAM_READS: tuple[Maker, ...] = (xlen, xrange, xrange, xrange, xrevrange, xrevrange)
COMMON_READS: tuple[Maker, ...] = (get_type, exists)
