"""The write commands that carry string values or TTLs: taken apart, and put together again.

Owns where in a command's words a value stands and where its TTL does, in which unit, from when on. What the new value
and the new TTL are is decided elsewhere. A command stays the command it is: only words of it change, and nothing is
sent besides.

    SET key value PX 500 NX          values at 2, TTL at 4, in ms, from now on
    SETEX key 10 value               values at 3, TTL at 2, in s, from now on
    EXPIREAT key 1700000000          no values, TTL at 2, in s, a moment

What Redis would refuse is not taken apart: Redis has the words for it. (One that it refuses only because the TTL and
the time of day together pass 64 bits is; its TTL is left as it is.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

_INT64_MAX: Final = 2**63 - 1
MOST_MS: Final = 2**62
"""TTLs beyond it are left as they are: Redis adds the time of day, and refuses what then passes 64 bits."""


class Write(NamedTuple):
    """Where things stand in the words of a write. A plain tuple: one is built for each write of a class."""

    keys: tuple[bytes, ...]
    value_at: tuple[int, ...] = ()
    """The places of the values, one a key in the same order; () if there are none."""
    ttl_at: int = 0
    """The place of the TTL's number; 0 if there is none."""
    ttl_unit: Literal["s", "ms"] = "s"
    ttl_absolute: bool = False
    """Whether the number is a moment (Unix time), and not a while."""
    keep_ttl: bool = False
    """Whether the TTL is not ours to choose.

    The app keeps the one there is or takes it away by name, makes it depend on the one there is, or the command has no
    place for a TTL.
    """
    is_read: bool = False
    """Whether it is a read of the key, too."""


LIFE_ONLY: Final = frozenset([b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT", b"PERSIST", b"GETEX", b"TOUCH"])
"""Commands that write, and change no value: only how long it lives."""

_TTL_WORDS: Final[Mapping[bytes, tuple[Literal["s", "ms"], bool]]] = {
    b"EX": ("s", False),
    b"PX": ("ms", False),
    b"EXAT": ("s", True),
    b"PXAT": ("ms", True),
}
_LIVES_ON: Final = frozenset([b"KEEPTTL", b"PERSIST"])
_CONDITIONS: Final = frozenset([b"NX", b"XX"])
_COMPARISONS: Final = frozenset([b"IFEQ", b"IFNE", b"IFDEQ", b"IFDNE"])  # Valkey 8.1, Redis 8.4; a word follows
_SET_WORDS: Final = frozenset([*_TTL_WORDS, *_CONDITIONS, *_COMPARISONS, b"KEEPTTL", b"GET"])
_GETEX_WORDS: Final = frozenset([*_TTL_WORDS, b"PERSIST"])
_MSETEX_WORDS: Final = frozenset([*_TTL_WORDS, *_CONDITIONS, b"KEEPTTL"])
_LONGEST_WORD: Final = 7
_INTEGER: Final = re.compile(rb"-?[1-9][0-9]{0,18}|0")


def parse(name: bytes, args: Sequence[bytes]) -> Write | None:
    """Take a command apart; `name` in upper case, `args` with the name before them.

    None for a command that is not one of these, and for one that Redis would refuse for its words.
    """
    parser = _PARSERS.get(name)
    return None if parser is None else parser(args)


def asked_ms(write: Write, args: Sequence[bytes], now_ms: int) -> int | None:
    """Return the TTL that the app asks for, from now on; None if it asks for none, or for the one there is.

    0 or less for a moment that has passed; 0, too, for a moment while the server's time is not known (`now_ms` 0).
    """
    if not write.ttl_at or write.keep_ttl:
        return None
    number = int(bytes(args[write.ttl_at]))
    if write.ttl_unit == "s":
        number *= 1000
    if not write.ttl_absolute:
        return number
    return number - now_ms if now_ms else 0


def rewrite(
    write: Write, args: Sequence[bytes], values: Mapping[int, bytes], ttl_ms: int | None, now_ms: int
) -> list[bytes]:
    """Return the words to send: values replaced by place, the TTL by one of `ttl_ms` from now on (None: left).

    The TTL keeps the app's unit and its kind; whole seconds are rounded up. A SET without one gets a `PX`. It is left,
    too, where the app's own has run out already: such a command deletes its key.
    """
    words = list(args)
    for at, value in values.items():
        words[at] = value
    if ttl_ms is None or write.keep_ttl or not 0 < ttl_ms <= MOST_MS:
        return words
    if not write.ttl_at:  # of a SET: all others without one have no place for it
        return [*words, b"PX", b"%d" % ttl_ms]
    asked = asked_ms(write, args, now_ms)
    if asked is None or not 0 < asked <= MOST_MS:
        return words
    number = ttl_ms + now_ms if write.ttl_absolute else ttl_ms
    if write.ttl_unit == "s":
        number = -(-number // 1000)
    words[write.ttl_at] = b"%d" % number
    return words


class _Options(NamedTuple):
    ttl_at: int = 0
    unit: Literal["s", "ms"] = "s"
    absolute: bool = False
    keeps: bool = False


_NO_OPTIONS: Final = _Options()


def _options(args: Sequence[bytes], start: int, allowed: frozenset[bytes]) -> _Options | None:
    """Read the options from a place on, in any order and case; None if Redis would refuse them.

    As Redis has it, a word may be said twice, and the last number counts: only that one must be a number.
    """
    life = condition = b""
    ttl_at = 0
    at, end = start, len(args)
    while at < end:
        word = bytes(args[at]).upper() if len(args[at]) <= _LONGEST_WORD else b""
        if word not in allowed:
            return None
        at += 1
        if word in _TTL_WORDS or word in _LIVES_ON:
            if life not in (b"", word):
                return None
            life = word
            if word in _TTL_WORDS:
                ttl_at = at
                at += 1
        elif word in _COMPARISONS:
            if condition:
                return None
            condition = word
            at += 1
        elif word in _CONDITIONS:
            if condition not in (b"", word):
                return None
            condition = word
    if at > end:
        return None
    if not ttl_at:
        return _Options(keeps=True) if life else _NO_OPTIONS
    unit, absolute = _TTL_WORDS[life]
    return _Options(ttl_at, unit, absolute) if _is_ttl(args[ttl_at], unit) else None


def _number(word: bytes, unit: Literal["s", "ms"]) -> int | None:
    """Read a number as Redis does, in ms; None where it is none, or is too large for Redis."""
    word = bytes(word[:21])
    if _INTEGER.fullmatch(word) is None:
        return None
    number = int(word) * (1000 if unit == "s" else 1)
    return number if -_INT64_MAX <= number <= _INT64_MAX else None


def _is_ttl(word: bytes, unit: Literal["s", "ms"]) -> bool:
    number = _number(word, unit)
    return number is not None and number > 0


def _set(args: Sequence[bytes]) -> Write | None:
    if len(args) < 3:
        return None
    if len(args) == 5 and (life := _TTL_WORDS.get(bytes(args[3]).upper())) is not None:  # 1 us sooner
        return Write((bytes(args[1]),), (2,), 4, *life) if _is_ttl(args[4], life[0]) else None
    options = _options(args, 3, _SET_WORDS) if len(args) > 3 else _NO_OPTIONS
    if options is None:
        return None
    return Write((bytes(args[1]),), (2,), options.ttl_at, options.unit, options.absolute, options.keeps)


def _getex(args: Sequence[bytes]) -> Write | None:
    options = _options(args, 2, _GETEX_WORDS) if len(args) > 1 else None
    if options is None:
        return None
    keeps = not options.ttl_at
    return Write((bytes(args[1]),), (), options.ttl_at, options.unit, options.absolute, keeps, is_read=True)


def _setex(args: Sequence[bytes], unit: Literal["s", "ms"]) -> Write | None:
    if len(args) != 4 or not _is_ttl(args[2], unit):
        return None
    return Write((bytes(args[1]),), (3,), 2, unit)


def _one(args: Sequence[bytes]) -> Write | None:
    """SETNX and GETSET."""
    return Write((bytes(args[1]),), (2,), keep_ttl=True) if len(args) == 3 else None


def _mset(args: Sequence[bytes]) -> Write | None:
    if len(args) < 3 or len(args) % 2 == 0:
        return None
    return Write(tuple(map(bytes, args[1::2])), tuple(range(2, len(args), 2)), keep_ttl=True)


def _msetex(args: Sequence[bytes]) -> Write | None:
    count = _number(args[1], "ms") if len(args) > 1 else None
    if count is None or not 0 < count <= (len(args) - 2) // 2:
        return None
    end = 2 + 2 * count
    options = _options(args, end, _MSETEX_WORDS)
    if options is None:
        return None
    # Without a TTL none is added: it would be every key's, and they may be of several classes.
    keeps = not options.ttl_at
    keys = tuple(map(bytes, args[2:end:2]))
    return Write(keys, tuple(range(3, end, 2)), options.ttl_at, options.unit, options.absolute, keeps)


def _expire(args: Sequence[bytes], unit: Literal["s", "ms"], *, absolute: bool) -> Write | None:
    if len(args) < 3 or _number(args[2], unit) is None:
        return None
    conditions = {bytes(word[:3]).upper() for word in args[3:]}
    if not conditions <= {b"NX", b"XX", b"GT", b"LT"} or conditions > {b"NX"} or conditions >= {b"GT", b"LT"}:
        return None
    return Write((bytes(args[1]),), (), 2, unit, absolute, keep_ttl=bool(conditions))


_PARSERS: Final[Mapping[bytes, Callable[[Sequence[bytes]], Write | None]]] = {
    b"SET": _set,
    b"SETEX": lambda args: _setex(args, "s"),
    b"PSETEX": lambda args: _setex(args, "ms"),
    b"SETNX": _one,
    b"GETSET": _one,
    b"MSET": _mset,
    b"MSETNX": _mset,
    b"MSETEX": _msetex,
    b"GETEX": _getex,
    b"EXPIRE": lambda args: _expire(args, "s", absolute=False),
    b"PEXPIRE": lambda args: _expire(args, "ms", absolute=False),
    b"EXPIREAT": lambda args: _expire(args, "s", absolute=True),
    b"PEXPIREAT": lambda args: _expire(args, "ms", absolute=True),
}
