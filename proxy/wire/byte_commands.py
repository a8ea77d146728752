"""Which commands look at the bytes of a string value, and so must find it as the app wrote it.

Owns the list: whatever is on it is run on a value that has been unwrapped first. What only hands a value over whole
(GET, SORT GET, a script's result) is not: there it is opened on the way. What is about the key and not its bytes
(TYPE, TTL, DEL), or about how it is stored (OBJECT, MEMORY, DUMP), is not either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

Finder = Callable[[Sequence[bytes]], Sequence[bytes]]


def _first(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:2]


def _second(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[2:3]


def _both(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:3]


def _all(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:]


def _sources(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[3:]


def _named(args: Sequence[bytes]) -> Sequence[bytes]:
    at = next((at for at, word in enumerate(args) if bytes(word[:5]).upper() == b"KEYS"), len(args))
    return args[at + 1 : at + 3]


def _set(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:2] if _compares(args[3:]) else ()  # the value before them may begin with any word


def _deleted(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:2] if _compares(args[2:]) else ()


def _compares(options: Sequence[bytes]) -> bool:
    return any(bytes(word[:2]).upper() == b"IF" for word in options)  # IFEQ and its kin


BYTE_COMMANDS: Final[Mapping[bytes, Finder]] = {
    **dict.fromkeys((b"STRLEN", b"GETRANGE", b"SUBSTR", b"GETBIT", b"BITCOUNT", b"BITPOS", b"BITFIELD_RO"), _first),
    **dict.fromkeys((b"APPEND", b"SETRANGE", b"SETBIT", b"BITFIELD", b"PFADD", b"DIGEST"), _first),
    **dict.fromkeys((b"PFCOUNT", b"PFMERGE"), _all),
    b"LCS": _both,
    b"STRALGO": _named,  # its name in Redis 6
    b"BITOP": _sources,
    b"PFDEBUG": _second,
    b"SET": _set,
    b"DELEX": _deleted,
    b"DELIFEQ": _first,
}
"""From the name to the keys whose bytes it looks at, in a command's words."""

MOVES: Final = frozenset([b"RENAME", b"RENAMENX", b"COPY"])
"""They carry a value, as it is stored, to another key."""
