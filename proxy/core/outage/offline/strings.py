"""Commands on strings, as Redis 7 has them, on a store.

Each takes the store, the words with the name before them, and the protocol of who asks; it returns the raw reply, or
raises RefusedError with Redis' own error (or NoRoomError), or UnsureError where only Redis could say. Arity has been
checked before.
"""

from __future__ import annotations

from typing import Final

from proxy.core.outage.offline.numbers import INT64_MAX, INT64_MIN, added, float_of, integer_of, written
from proxy.core.outage.offline.replies import OK, ONE, ZERO, maybe_bulk, maybe_bulks
from proxy.core.outage.offline.store import RefusedError, Store
from proxy.core.outage.offline.words import NOT_INTEGER, integer, moment_ms, set_options
from proxy.wire.encode import NIL, bulk
from proxy.wire.encode import integer as integer_reply

STRING_MAX_BYTES: Final = 512 << 20  # proto-max-bulk-len as Redis has it when nobody changes it
TOO_LONG: Final = b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n"
OVERFLOW: Final = b"-ERR increment or decrement would overflow\r\n"
DECREMENT_OVERFLOW: Final = b"-ERR decrement would overflow\r\n"
NOT_FLOAT: Final = b"-ERR value is not a valid float\r\n"
INFINITE: Final = b"-ERR increment would produce NaN or Infinity\r\n"


def get(store: Store, args: list[bytes], protocol: int) -> bytes:
    """GET."""
    return maybe_bulk(store.string(args[1]), protocol)


def mget(store: Store, args: list[bytes], protocol: int) -> bytes:
    """MGET: nil for what is no string."""
    found = (store.find(key) for key in args[1:])
    return maybe_bulks((value if isinstance(value, bytes) else None for value in found), protocol)


def strlen(store: Store, args: list[bytes], protocol: int) -> bytes:
    """STRLEN."""
    return integer_reply(len(store.string(args[1]) or b""))


def set_(store: Store, args: list[bytes], protocol: int) -> bytes:
    """SET, with all its options."""
    key, value = args[1], args[2]
    options = set_options(args[3:], is_set=True)
    ends_ms = moment_ms(args[0], options.number, options.life, store.now_ms) if options.number else None
    old = store.string(key) if options.wants_old else None
    if options.only_if and (store.find(key) is None) != (options.only_if == "missing"):
        return maybe_bulk(old, protocol)
    if options.only_if:
        store.replace(key, value)  # that it is set at all owes to what was there
        if options.life != b"KEEPTTL":
            store.live_until(key, ends_ms)
    else:
        store.put(key, value, ends_ms=ends_ms, keeps=options.life == b"KEEPTTL")
    return maybe_bulk(old, protocol) if options.wants_old else OK


def setex(store: Store, args: list[bytes], protocol: int) -> bytes:
    """SETEX and PSETEX."""
    unit = b"PX" if args[0].upper() == b"PSETEX" else b"EX"
    store.put(args[1], args[3], ends_ms=moment_ms(args[0], args[2], unit, store.now_ms))
    return OK


def setnx(store: Store, args: list[bytes], protocol: int) -> bytes:
    """SETNX."""
    if store.find(args[1]) is not None:
        return ZERO
    store.replace(args[1], args[2])
    return ONE


def mset(store: Store, args: list[bytes], protocol: int) -> bytes:
    """MSET: all of them or none."""
    if len(args) % 2 == 0:
        raise RefusedError(b"-ERR wrong number of arguments for 'mset' command\r\n")
    pairs = dict(zip(args[1::2], args[2::2], strict=True))
    store.expect(pairs)
    for key, value in pairs.items():
        store.put(key, value)
    return OK


def getset(store: Store, args: list[bytes], protocol: int) -> bytes:
    """GETSET."""
    old = store.string(args[1])
    store.put(args[1], args[2])
    return maybe_bulk(old, protocol)


def getdel(store: Store, args: list[bytes], protocol: int) -> bytes:
    """GETDEL."""
    old = store.string(args[1])
    store.remove(args[1])
    return maybe_bulk(old, protocol)


def getex(store: Store, args: list[bytes], protocol: int) -> bytes:
    """GETEX."""
    options = set_options(args[2:], is_set=False)
    value = store.string(args[1])
    if value is None:
        return NIL[protocol]
    if options.number:
        store.live_until(args[1], moment_ms(args[0], options.number, options.life, store.now_ms))
    elif options.life:
        store.live_until(args[1], None)
    return bulk(value)


def append(store: Store, args: list[bytes], protocol: int) -> bytes:
    """APPEND."""
    value = store.string(args[1])
    longer = (value or b"") + args[2]
    if len(longer) > STRING_MAX_BYTES:
        raise RefusedError(TOO_LONG)
    store.replace(args[1], longer)
    return integer_reply(len(longer))


def incr(store: Store, args: list[bytes], protocol: int) -> bytes:
    """INCR, DECR, INCRBY and DECRBY."""
    name = args[0].upper()
    by = integer(args[2]) if len(args) > 2 else 1
    if name.startswith(b"DECR"):
        if by == INT64_MIN:
            raise RefusedError(DECREMENT_OVERFLOW)
        by = -by
    value = store.string(args[1])
    number = 0 if value is None else integer_of(value)
    if number is None:
        raise RefusedError(NOT_INTEGER)
    if not INT64_MIN <= number + by <= INT64_MAX:
        raise RefusedError(OVERFLOW)
    store.replace(args[1], b"%d" % (number + by))
    return integer_reply(number + by)


def incrbyfloat(store: Store, args: list[bytes], protocol: int) -> bytes:
    """INCRBYFLOAT."""
    value = store.string(args[1])
    number, by = float_of(b"0" if value is None else value), float_of(args[2])
    if number is None or by is None:
        raise RefusedError(NOT_FLOAT)
    total = added(number, by)
    if total is None:
        raise RefusedError(INFINITE)
    text = written(total)
    store.replace(args[1], text)
    return bulk(text)


def remove(store: Store, args: list[bytes], protocol: int) -> bytes:
    """DEL and UNLINK: all of the keys or none."""
    if len(args) > 2:
        store.expect(dict.fromkeys(args[1:]))
    return integer_reply(sum(store.remove(key) for key in args[1:]))


def exists(store: Store, args: list[bytes], protocol: int) -> bytes:
    """EXISTS: a key that is named twice counts twice."""
    return integer_reply(sum(store.find(key) is not None for key in args[1:]))


def type_(store: Store, args: list[bytes], protocol: int) -> bytes:
    """TYPE."""
    value = store.find(args[1])
    return b"+none\r\n" if value is None else b"+string\r\n" if isinstance(value, bytes) else b"+hash\r\n"
