"""How often a key is read: an estimate over a sliding window, in bounded memory.

Owns two tables, of hashes of keys and never of keys: what clients send must not choose how much memory is taken.

    Frequency   | slice | slice | slice | slice | slice | slice | now    reads by key, in each sixth of the window
                    ^ the part of it that is out of the window counts as if its reads had come evenly
    Marks       up to where the uses of a key's entries in L1 have been counted

Estimates err low where there are more keys than places: a slice that is full forgets the half of its keys that were
read least. They err by what one slice holds where reads come in bursts.
"""

from __future__ import annotations

from array import array
from collections import deque
from operator import itemgetter
from typing import Final, NamedTuple

SLICES: Final = 6
KEYS_MAX: Final = 65_536
"""Places in all slices together; a key takes one in each slice it is read in. Full, they are 7 MB."""
_SLICE_KEYS_MAX: Final = KEYS_MAX // (SLICES + 1)  # the one that is begun besides

_CELLS: Final = 65_536  # 1.1 MB
_LEVEL_MAX: Final = 2**32 - 1
_BEQUEST_MAX: Final = 255


class _Slice:
    """Reads by the hash of their key, from `start` to `end`."""

    __slots__ = ("counts", "end", "start")

    def __init__(self, start: float, end: float) -> None:
        self.start = start
        self.end = end
        self.counts: dict[int, float] = {}

    def add(self, number: int, reads: float) -> None:
        counts = self.counts
        if number not in counts and len(counts) >= _SLICE_KEYS_MAX:
            # The half that was read least goes, of those read alike the older ones.
            ranked = sorted(counts.items(), key=itemgetter(1))
            counts = self.counts = dict(ranked[len(ranked) // 2 :])
        counts[number] = counts.get(number, 0) + reads


class Frequency:
    """Count reads. All times are seconds of the caller's clock, which does not go back. `window_s` may be set."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._slices: deque[_Slice] = deque()

    def __len__(self) -> int:
        """Return how many places are taken."""
        return sum(len(one.counts) for one in self._slices)

    def count(self, key: bytes, now: float) -> None:
        """Count one read."""
        slices = self._slices
        one = slices[-1] if slices and now < slices[-1].end else self._begin(now)
        one.add(hash(key), 1)

    def add(self, key: bytes, reads: float, since: float, until: float, now: float) -> None:
        """Count reads that came between two moments, as if evenly; what is out of the window is not counted."""
        if not self._slices or now >= self._slices[-1].end:
            self._begin(now)
        number = hash(key)
        until = min(until, now)
        length = until - since
        for one in self._slices:
            if length > 0:
                share = (min(until, one.end) - max(since, one.start)) / length
            else:
                share = float(one.start <= until < one.end)
            if share > 0:
                one.add(number, reads * share)

    def reads(self, key: bytes, now: float) -> float:
        """Return how many reads of a key the window has."""
        number = hash(key)
        start = now - self.window_s
        found = 0.0
        for one in self._slices:
            reads = one.counts.get(number)
            if reads is not None and one.end > start:
                inside = (one.end - start) / (one.end - one.start)
                found += reads if inside >= 1 else reads * inside
        return found

    def _begin(self, now: float) -> _Slice:
        """Begin the slice of now, and those since the last one: they have no gaps; let go of what is too old."""
        slices = self._slices
        width = self.window_s / SLICES
        at = now - self.window_s
        if slices:
            at = max(at, slices[-1].end)
        while at <= now:
            slices.append(_Slice(at, at + width))
            at += width
        while len(slices) > SLICES + 1:
            slices.popleft()
        return slices[-1]


class Mark(NamedTuple):
    """Up to where the uses of a key's entries are counted."""

    at: float
    level: int
    """The uses up to then, of all entries of the key; those of an entry that is on its way included."""
    bequest: int
    """Of the uses of entries that are gone, those that the next ones may begin with."""


class Marks:
    """Remember a mark for each key, in one table of fixed size; a newer key takes the place of an older one."""

    __slots__ = ("_at", "_bequests", "_levels", "_tags")

    def __init__(self) -> None:
        self._tags = array("I", bytes(4 * _CELLS))
        self._levels = array("I", bytes(4 * _CELLS))
        self._at = array("d", bytes(8 * _CELLS))
        self._bequests = array("B", bytes(_CELLS))

    def put(self, key: bytes, mark: Mark) -> None:
        """Set the mark of a key."""
        number = hash(key)
        cell = number & (_CELLS - 1)
        self._tags[cell] = _tag(number)
        self._at[cell] = mark.at
        self._levels[cell] = min(mark.level, _LEVEL_MAX)
        self._bequests[cell] = min(mark.bequest, _BEQUEST_MAX)

    def find(self, key: bytes) -> Mark | None:
        """Return the mark of a key; None if it has none, or has lost it."""
        number = hash(key)
        cell = number & (_CELLS - 1)
        if self._tags[cell] != _tag(number):
            return None
        return Mark(self._at[cell], self._levels[cell], self._bequests[cell])

    def lost_at(self, key: bytes) -> float:
        """Return since when, at the latest, a key without a mark has none; 0.0 if it never had one."""
        return self._at[hash(key) & (_CELLS - 1)]


def _tag(number: int) -> int:
    """Return 32 bits of a hash that do not choose the cell; never 0, which is what an empty cell has."""
    return number >> 16 & 0xFFFFFFFF or 1
