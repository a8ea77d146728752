"""Commands on hashes, as Redis 7 has them, on a store; what each takes and raises is said in `strings`."""

from __future__ import annotations

from typing import Final

from proxy.core.outage.offline.numbers import INT64_MAX, INT64_MIN, added, float_of, integer_of, written
from proxy.core.outage.offline.replies import OK, ONE, ZERO, fields, maybe_bulk, maybe_bulks
from proxy.core.outage.offline.store import RefusedError, Store
from proxy.core.outage.offline.strings import INFINITE, NOT_FLOAT, OVERFLOW
from proxy.core.outage.offline.words import integer
from proxy.wire.encode import array, bulk
from proxy.wire.encode import integer as integer_reply

NOT_INTEGER: Final = b"-ERR hash value is not an integer\r\n"
INFINITE_STEP: Final = b"-ERR value is NaN or Infinity\r\n"
NOT_FLOAT_FIELD: Final = b"-ERR hash value is not a float\r\n"


def hset(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HSET and HMSET."""
    if len(args) % 2:
        raise RefusedError(b"-ERR wrong number of arguments for '%b' command\r\n" % args[0].lower())
    held = store.hash(args[1]) or {}
    given = dict(zip(args[2::2], args[3::2], strict=True))
    made = sum(field not in held for field in given)
    store.set_fields(args[1], given)
    return OK if args[0].upper() == b"HMSET" else integer_reply(made)


def hsetnx(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HSETNX."""
    held = store.hash(args[1])
    if held is not None and args[2] in held:
        return ZERO
    store.set_fields(args[1], {args[2]: args[3]})
    return ONE


def hget(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HGET."""
    return maybe_bulk((store.hash(args[1]) or {}).get(args[2]), protocol)


def hmget(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HMGET."""
    held = store.hash(args[1]) or {}
    return maybe_bulks((held.get(field) for field in args[2:]), protocol)


def hgetall(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HGETALL."""
    return fields(store.hash(args[1]) or {}, protocol)


def hkeys(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HKEYS."""
    return array(map(bulk, store.hash(args[1]) or {}))


def hvals(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HVALS."""
    return array(map(bulk, (store.hash(args[1]) or {}).values()))


def hlen(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HLEN."""
    return integer_reply(len(store.hash(args[1]) or {}))


def hexists(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HEXISTS."""
    return ONE if args[2] in (store.hash(args[1]) or {}) else ZERO


def hstrlen(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HSTRLEN."""
    return integer_reply(len((store.hash(args[1]) or {}).get(args[2], b"")))


def hdel(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HDEL."""
    store.hash(args[1])
    return integer_reply(store.drop_fields(args[1], dict.fromkeys(args[2:])))


def hincrby(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HINCRBY."""
    by = integer(args[3])
    held = (store.hash(args[1]) or {}).get(args[2])
    number = 0 if held is None else integer_of(held)
    if number is None:
        raise RefusedError(NOT_INTEGER)
    if not INT64_MIN <= number + by <= INT64_MAX:
        raise RefusedError(OVERFLOW)
    store.set_fields(args[1], {args[2]: b"%d" % (number + by)})
    return integer_reply(number + by)


def hincrbyfloat(store: Store, args: list[bytes], protocol: int) -> bytes:
    """HINCRBYFLOAT."""
    by = float_of(args[3])
    if by is None:
        raise RefusedError(NOT_FLOAT)
    if isinstance(by, float):
        raise RefusedError(INFINITE_STEP)
    held = (store.hash(args[1]) or {}).get(args[2])
    number = float_of(b"0" if held is None else held)
    if number is None:
        raise RefusedError(NOT_FLOAT_FIELD)
    total = added(number, by)
    if total is None:
        raise RefusedError(INFINITE)
    text = written(total)
    store.set_fields(args[1], {args[2]: text})
    return bulk(text)
