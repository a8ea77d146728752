"""Whether there is a key that two globs both take.

Walks one glob part by part and holds all places of the other at which a common key may then be, as the bits of one
number: so this is exact, and costs a few operations a part, for every two globs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.config.globs import Part, Sort


class Places:
    """The places in one glob, from before its first part to behind its last; made once, met with many globs."""

    __slots__ = ("_count", "_is_void", "_of_byte", "_of_sets", "_stars", "_wild")

    def __init__(self, parts: Sequence[Part]) -> None:
        self._count: Final = len(parts)
        self._is_void: Final = _is_void(parts)
        self._of_byte: Final[dict[int, int]] = {}
        self._of_sets: Final[dict[frozenset[int], int]] = {}
        stars = wild = 0
        for at, part in enumerate(parts):
            if part.sort is Sort.LITERAL:
                (byte,) = part.accepts
                self._of_byte[byte] = self._of_byte.get(byte, 0) | 1 << at
            elif part.sort is Sort.SET:
                self._of_sets[part.accepts] = self._of_sets.get(part.accepts, 0) | 1 << at
            else:
                wild |= 1 << at
                stars |= (part.sort is Sort.STAR) << at
        self._stars: Final = stars
        self._wild: Final = wild

    def meet(self, other: Sequence[Part]) -> bool:
        """Return whether some key, be it the empty one, is taken by this glob and by the other."""
        if self._is_void:
            return False
        stars, behind = self._stars, 1 << self._count
        places = 1 | (stars & 1) << 1
        for part in other:
            if part.sort is Sort.STAR:
                places = (behind << 1) - (places & -places)  # every place from the first one on
                continue
            taken = places & self._taking(part)
            places = (taken & ~stars) << 1 | taken & stars
            places |= (places & stars) << 1
            if not places:
                return False
        return places & behind != 0

    def _taking(self, part: Part) -> int:
        """Return the places whose part takes a byte that this one takes."""
        places = self._wild if part.accepts else 0
        if part.sort is Sort.LITERAL:
            (byte,) = part.accepts
            places |= self._of_byte.get(byte, 0)
        else:
            for byte, found in self._of_byte.items():
                if byte in part.accepts:
                    places |= found
        for accepts, found in self._of_sets.items():
            if not part.accepts.isdisjoint(accepts):
                places |= found
        return places


def do_overlap(one: Sequence[Part], other: Sequence[Part]) -> bool:
    """Return whether some key, be it the empty one, is taken by the globs of both."""
    return Places(one).meet(other)


def _is_void(parts: Sequence[Part]) -> bool:
    """Say whether no key is taken at all: [] takes no byte."""
    return any(not part.accepts for part in parts)
