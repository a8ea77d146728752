"""What a key holds: the states that the writers make and the readers compare with.

A state is the whole truth about a key: its type, and its value as plain Python. Every element of a value carries a
serial that rises with each change in the whole run, so that a reply shows which change it is from.

    string  bytes                       list    tuple of elements       zset    dict of member and score
    hash    dict of field and value     set     frozenset of members    stream  tuple of (id, value)
    geo     a zset: dict of member and place, places lie 0.1 degrees apart on the equator
"""

from __future__ import annotations

from typing import Any

import attrs

PLACE_DEGREES = 0.1
FIRST, LAST = b"v", b"z"
"""Names of elements: the first carries the serial, the last is never changed alone."""


@attrs.frozen
class State:
    """The type, as TYPE says it, and the value."""

    type: bytes
    value: Any


NOTHING = State(b"none", None)
WRONG = "WRONGTYPE"
"""What a reply of that error is taken for."""

TYPES = {
    "string": b"string",
    "large": b"string",
    "counter": b"string",
    "hash": b"hash",
    "list": b"list",
    "set": b"set",
    "zset": b"zset",
    "lex": b"zset",
    "geo": b"zset",
    "stream": b"stream",
}
"""The families of states and their types: what is read of a family makes no sense for another of the same type."""

EMPTY: dict[str, Any] = {
    "string": b"",
    "large": b"",
    "counter": b"",
    "hash": {},
    "list": (),
    "set": frozenset(),
    "zset": {},
    "lex": {},
    "geo": {},
    "stream": (),
}
"""What a missing key is like for the reads of a family."""
