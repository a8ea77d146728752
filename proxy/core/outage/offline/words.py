"""The words of commands, read as Redis reads them: numbers, moments, options, and the errors for what is wrong.

Every function raises RefusedError with Redis' own error. Words are checked in the order in which Redis does, as the
first thing wrong is what the client is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import attrs

from proxy.core.outage.offline.numbers import INT64_MAX, INT64_MIN, integer_of
from proxy.core.outage.offline.store import RefusedError

SYNTAX: Final = b"-ERR syntax error\r\n"
NOT_INTEGER: Final = b"-ERR value is not an integer or out of range\r\n"
NX_ALONE: Final = b"-ERR NX and XX, GT or LT options at the same time are not compatible\r\n"
GT_OR_LT: Final = b"-ERR GT and LT options at the same time are not compatible\r\n"
_TTL_UNITS: Final = {b"EX": 1000, b"PX": 1, b"EXAT": 1000, b"PXAT": 1}
_WORD_MAX: Final = 8


@attrs.define
class SetOptions:
    """What the words behind SET's value, or GETEX's key, say."""

    life: bytes = b""
    """EX, PX, EXAT, PXAT, KEEPTTL, PERSIST, or none of them."""
    number: bytes = b""
    """Behind it, where it has one."""
    only_if: Literal["", "missing", "there"] = ""
    wants_old: bool = False


def set_options(words: Sequence[bytes], *, is_set: bool) -> SetOptions:
    """Read the options of SET, or of GETEX."""
    options = SetOptions()
    at = 0
    while at < len(words):
        word = words[at].upper() if len(words[at]) <= _WORD_MAX else b""
        at += 1
        if is_set and word == b"NX" and options.only_if != "there":
            options.only_if = "missing"
        elif is_set and word == b"XX" and options.only_if != "missing":
            options.only_if = "there"
        elif is_set and word == b"GET":
            options.wants_old = True
        elif word == (b"KEEPTTL" if is_set else b"PERSIST") and options.life in (b"", word):
            options.life = word
        elif word in _TTL_UNITS and options.life in (b"", word) and at < len(words):
            options.life, options.number = word, words[at]
            at += 1
        else:
            raise RefusedError(SYNTAX)
    return options


def integer(word: bytes) -> int:
    """Read a signed 64-bit integer."""
    number = integer_of(word)
    if number is None:
        raise RefusedError(NOT_INTEGER)
    return number


def bad_expire(name: bytes) -> RefusedError:
    """Return the error for a moment that cannot be."""
    return RefusedError(b"-ERR invalid expire time in '%b' command\r\n" % name.lower())


def moment_ms(name: bytes, word: bytes, unit: bytes, now_ms: int) -> int:
    """Return the moment that EX, PX, EXAT or PXAT and a number mean; it must not be 0 or less."""
    number, scale = integer(word), _TTL_UNITS[unit]
    if number <= 0 or number > INT64_MAX // scale:
        raise bad_expire(name)
    number *= scale
    if unit in (b"EX", b"PX"):
        number += now_ms
    if number > INT64_MAX:
        raise bad_expire(name)
    return number


def expire_conditions(words: Sequence[bytes]) -> frozenset[bytes]:
    """Read NX, XX, GT and LT behind an EXPIRE."""
    found = set()
    for word in words:
        condition = word[:3].upper()
        if condition not in (b"NX", b"XX", b"GT", b"LT"):
            # As Redis words it: a C string ends at the first zero, and line breaks would end the error.
            shown = word.partition(b"\0")[0].replace(b"\r", b" ").replace(b"\n", b" ")
            raise RefusedError(b"-ERR Unsupported option %b\r\n" % shown)
        found.add(condition)
    if b"NX" in found and len(found) > 1:
        raise RefusedError(NX_ALONE)
    if {b"GT", b"LT"} <= found:
        raise RefusedError(GT_OR_LT)
    return frozenset(found)


def expire_moment_ms(name: bytes, word: bytes, scale: int, base_ms: int) -> int:
    """Return the moment that EXPIRE and its kin name; it may have passed. `base_ms` is now, or 0 for a moment."""
    number = integer(word) * scale
    if not INT64_MIN <= number <= INT64_MAX or number > INT64_MAX - base_ms:
        raise bad_expire(name)
    return number + base_ms
