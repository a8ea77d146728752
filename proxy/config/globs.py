r"""How a glob is read: the one of KEYS and SCAN, byte by byte, the odd ones included.

    b"ticket:[0-9]?*"  --parse_glob-->  t i c k e t :  [0-9]  ?  *        one `Part` each

Reading never fails, as Redis never does: an unclosed bracket ends with the glob, a last backslash stands for itself.
What can hardly have been meant is noted as the part's `flaw`; the loader refuses it, `RESPITE INVALIDATE` need not.
What fits a key is decided in `values/globs.py`. Source: redis, `stringmatchlen`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Final

import attrs

EVERY_BYTE: Final = frozenset(range(256))

_STAR, _QUESTION, _OPEN, _CLOSE, _ESCAPE, _NOT, _DASH = b"*?[]\\^-"
# `char` is signed where Redis mostly runs, so a range from ASCII to beyond runs the other way round; see `_range`.
_FIRST_NEGATIVE: Final = 0x80


class Sort(Enum):
    """What a part is. All but LITERAL are wildcards: what they took from a key is a capture."""

    LITERAL = "a byte"
    ANY = "?"
    SET = "[...]"
    STAR = "*"


@attrs.frozen
class Part:
    """One step of a glob: takes one byte of `accepts`, or as a STAR any number of bytes, none included.

    `flaw` is a sentence on what can hardly have been meant, else "".
    """

    sort: Sort
    accepts: frozenset[int]
    flaw: str = ""


def parse_glob(glob: bytes) -> tuple[Part, ...]:
    """Read a glob. Stars in a row are one part, and one capture."""
    return tuple(_parts(glob))


def _parts(glob: bytes) -> Iterator[Part]:
    at, end = 0, len(glob)
    while at < end:
        byte = glob[at]
        at += 1
        if byte == _STAR:
            while at < end and glob[at] == _STAR:
                at += 1
            yield Part(Sort.STAR, EVERY_BYTE)
        elif byte == _QUESTION:
            yield Part(Sort.ANY, EVERY_BYTE)
        elif byte == _OPEN:
            part, at = _read_set(glob, at)
            yield part
        elif byte == _ESCAPE and at < end:
            yield Part(Sort.LITERAL, frozenset({glob[at]}))
            at += 1
        elif byte == _ESCAPE:
            yield Part(Sort.LITERAL, frozenset({byte}), r"the \ at the end escapes nothing; a backslash itself is \\")
        else:
            yield Part(Sort.LITERAL, frozenset({byte}))


def _read_set(glob: bytes, at: int) -> tuple[Part, int]:
    """Read from behind the [; returns the part and where the glob goes on."""
    end = len(glob)
    begin = at
    is_negated = at < end and glob[at] == _NOT
    at += is_negated
    members: set[int] = set()
    ranges_to_close = False
    while at < end and glob[at] != _CLOSE:
        if glob[at] == _ESCAPE and at + 1 < end:
            members.add(glob[at + 1])
            at += 2
        elif at + 2 < end and glob[at + 1] == _DASH:
            members.update(_range(glob[at], glob[at + 2]))
            ranges_to_close |= glob[at + 2] == _CLOSE
            at += 3
        else:
            members.add(glob[at])
            at += 1
    written = glob[begin:at]
    flaw = _flaw_of_set(written, members, is_closed=at < end, ranges_to_close=ranges_to_close)
    accepts = EVERY_BYTE - members if is_negated else frozenset(members)
    return Part(Sort.SET, accepts, flaw), min(at + 1, end)


def _range(first: int, last: int) -> Iterator[int]:
    """Yield the bytes of a range, whichever end comes first, in the order of signed ones: 0x80 .. 0xff, 0 .. 0x7f."""
    low, high = sorted((first ^ _FIRST_NEGATIVE, last ^ _FIRST_NEGATIVE))
    return (byte ^ _FIRST_NEGATIVE for byte in range(low, high + 1))


def _flaw_of_set(written: bytes, members: set[int], *, is_closed: bool, ranges_to_close: bool) -> str:
    shown = f"[{written.decode(errors='replace')}{']' if is_closed else ''}"
    if ranges_to_close:
        return rf"in {shown} the - makes a range up to the ]; a - itself stands first, or is \-"
    if not is_closed:
        return rf"{shown} is never closed; a [ itself is \["
    if not members:
        return (
            f"{shown} takes any byte; write ?" if written else r"[] takes no byte at all; brackets themselves are \[\]"
        )
    if not written.isascii():
        return f"{shown} takes one byte, and a letter beyond ASCII has several; write a glob for each of them"
    if written.startswith(b"!"):
        return rf"{shown} is how a shell says not; write [^{shown[2:]}, or \! for a ! itself"
    return ""
