r"""Which keys a glob takes, and what its wildcards took: exactly as KEYS of Redis decides.

    parts:   a : * [0-9] b *   ->   a:  (?>.*?[0-9]b)  .*      a star takes as little as it can, the last one the rest

Compiles to a regular expression over bytes; how a glob is read is in `config/globs.py`. Each star but the last sits in
an atomic group: what stands between two stars has a fixed length, so its first occurrence is as good as any, and no
key, however long, is searched more often than once per star.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import attrs

from proxy.config.globs import EVERY_BYTE, Part, Sort, parse_glob


@attrs.frozen
class Glob:
    """One glob, compiled.

    `prefix` is what every key it takes begins with, b"" where it begins with a wildcard. `expression` is the source of
    a regular expression without groups, to be compiled with DOTALL, whose `match` takes exactly the keys of the glob.
    """

    raw: bytes
    parts: tuple[Part, ...]
    prefix: bytes
    expression: bytes
    _capturing: re.Pattern[bytes]

    def captures(self, key: bytes) -> tuple[bytes, ...] | None:
        """Return what each wildcard took, in the order they stand in the glob; None when the glob does not fit.

        Every ? and bracket takes a byte. A * takes as little as it can, the last one the rest: `a:*:*` takes
        `a:1:2:3` as 1 and 2:3. Stars in a row are one.
        """
        found = self._capturing.match(key)
        return None if found is None else found.groups()

    def matches(self, key: bytes) -> bool:
        """Say whether the glob takes the key."""
        return self._capturing.match(key) is not None


def compile_glob(raw: bytes) -> Glob:
    """Compile a glob; every sequence of bytes is one."""
    parts = parse_glob(raw)
    literal = 0
    while literal < len(parts) and parts[literal].sort is Sort.LITERAL:
        literal += 1
    prefix = b"".join(map(_only_byte, parts[:literal]))
    capturing = re.compile(_expression(raw, parts, capture=True), re.DOTALL)
    return Glob(raw, parts, prefix, _expression(raw, parts, capture=False), capturing)


def _expression(raw: bytes, parts: Sequence[Part], *, capture: bool) -> bytes:
    opening, closing = (b"(", b")") if capture else (b"", b"")
    if [part.sort for part in parts] == [Sort.STAR]:
        # A quirk: KEYS * lists the key that is empty, KEYS ** does not.
        body = b".*" if raw == b"*" else b".+"
        return opening + body + closing + rb"\Z"
    segments: list[list[bytes]] = [[]]
    for part in parts:
        if part.sort is Sort.STAR:
            segments.append([])
        elif part.sort is Sort.LITERAL:
            segments[-1].append(re.escape(_only_byte(part)))
        else:
            segments[-1].append(opening + _one_of(part.accepts) + closing)
    first, *others = (b"".join(segment) for segment in segments)
    if not others:
        return first + rb"\Z"
    *middle, last = others
    star = opening + b".*?" + closing
    found = b"".join(b"(?>" + star + segment + b")" for segment in middle)
    # Nothing behind the last star: what stands before it decides, the rest need not be looked at.
    if not last and not capture:
        return first + found
    return first + found + opening + b".*" + closing + last + rb"\Z"


def _only_byte(part: Part) -> bytes:
    return bytes(part.accepts)


def _one_of(accepts: frozenset[int]) -> bytes:
    if accepts == EVERY_BYTE:
        return b"."
    if not accepts:
        return b"(?!)"
    return b"[" + b"".join(rb"\x%02x" % byte for byte in sorted(accepts)) + b"]"
