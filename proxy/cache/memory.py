"""What is remembered of keys that are not held: how often they were read while they were, and how they went.

Owns one table of four bytes a cell and one to two cells an entry of L1; a key has one place in it.

    cell = 26 bits of the key's hash | 2 bits: how it went | 4 bits: how often it was read

Where two keys want one cell, the one read more stays and counts two reads less, so that no fame lasts for ever. A cell
may be mistaken for another key's, once in 67 million.
"""

from __future__ import annotations

from array import array
from typing import Final

USES_MAX: Final = 8
"""Reads above it are one. What was read more often would outlive its popularity: with 32, sessions that have ended stay
(0.4 points of hits less on them); with 4 zipf loses 1 point."""

# How a key went: evicted by either of the two rules that are compared, dropped because it changed, or never let in.
FLAT: Final = 0
STEEP: Final = 1
DROPPED: Final = 2
REFUSED: Final = 3

_CELLS_MIN: Final = 1024
_FADING: Final = 2


class Memory:
    """Remember keys, about as many as L1 holds."""

    __slots__ = ("_cells", "_lost")

    def __init__(self) -> None:
        self._cells = array("I", bytes(4 * _CELLS_MIN))
        self._lost = 0  # refused keys that had no place, or took that of another, since it was made larger

    @property
    def is_crowded(self) -> bool:
        """Whether keys that are refused are forgotten before they can be read again."""
        return self._lost > len(self._cells) // 16

    def __len__(self) -> int:
        return len(self._cells)

    def fit(self, entries: int) -> bool:
        """Have at least one cell for each entry; what is remembered stays. Return whether there are more cells now."""
        if len(self._cells) >= entries:
            return False
        while len(self._cells) < entries:
            # A key's place is the low bits of its hash: one more bit decides between the halves, which begin alike.
            self._cells *= 2
            self._lost = 0
        return True

    def shrink(self, entries: int) -> None:
        """Have no more cells than so many entries need; half of what is remembered goes with half of the cells."""
        while len(self._cells) // 2 >= max(entries, _CELLS_MIN):
            del self._cells[len(self._cells) // 2 :]

    def remember(self, key: bytes, uses: int, how: int) -> None:
        """Note that a key went, or was not let in, having been read `uses` times."""
        uses = min(uses, USES_MAX)
        number = hash(key)
        place = number & (len(self._cells) - 1)
        old = self._cells[place]
        mark = (number >> 32) & 0x3FFFFFF
        if how == REFUSED and old and old >> 6 != mark:
            self._lost += 1
        if old & 15 <= uses or old >> 6 == mark:
            self._cells[place] = mark << 6 | how << 4 | uses
        else:
            self._cells[place] = old - _FADING

    def knows(self, key: bytes) -> int | None:
        """Return how a key went; None if it is not remembered."""
        number = hash(key)
        cell = self._cells[number & (len(self._cells) - 1)]
        return cell >> 4 & 3 if cell and cell >> 6 == (number >> 32) & 0x3FFFFFF else None

    def recall(self, key: bytes) -> tuple[int, int] | None:
        """Return how often a key was read and how it went, and forget it; None if it is not remembered."""
        number = hash(key)
        place = number & (len(self._cells) - 1)
        cell = self._cells[place]
        if not cell or cell >> 6 != (number >> 32) & 0x3FFFFFF:
            return None
        self._cells[place] = 0
        return cell & 15, cell >> 4 & 3
