"""What more room would bring: the hits that entries would have been, had they not been evicted.

Owns ghosts, which are what is left of evicted entries: a size and an end, no value, in the order in which they went. A
larger L1 would still hold those that went last, so a key that comes back is looked for among them:

    evicted -> [ a quarter of the room | one more quarter | one more half ] -> forgotten
                 a hit at 1.25 times     at 1.5             at twice

Only one key in some has a ghost, chosen by its hash, and counts for all. A hit of L1 pays nothing; a miss pays for the
look whether its key is one of those. What has changed or ended since would have gone from a larger L1, too: it does
not count. It is an estimate all the same: a larger L1 would evict others.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from proxy.cache.entry import Entry, ReplyEntry

ROOMS: Final = (1.25, 1.5, 2.0)
"""Times the room of L1 for which hits are counted."""
_SHARES: Final = (0.25, 0.25, 0.5)  # of the room, that each part of the list stands for
KEYS_PER_GHOST: Final = 64
GHOSTS_MIN: Final = 256
GHOSTS_MAX: Final = 1024
"""So many for once the room, and twice as many at most: 300 bytes each (tests/cache/test_ghost.py)."""
_SPARSE: Final = 4  # so many times fewer than wanted, and more keys get a ghost: they begin anew, which loses some


class _Ghost(NamedTuple):
    size_bytes: int
    ends_at: float
    went_at: float


class Ghosts:
    """Count what would have been hits. Whatever `id` is found by has one ghost; its key says when it has changed."""

    __slots__ = ("_bytes", "_changed", "_limits", "_parts", "_room_bytes", "came_back", "mask")

    def __init__(self) -> None:
        self._parts: tuple[OrderedDict[int, _Ghost], ...] = tuple(OrderedDict() for _ in ROOMS)
        self._bytes = [0] * len(ROOMS)
        self._limits = [0.0] * len(ROOMS)
        self._room_bytes = 0
        self.mask = 0  # keys whose hash has none of these bits have ghosts
        self._changed: dict[int, float] = {}  # hashes of keys -> when they changed last
        self.came_back = [0] * len(ROOMS)  # by part, since the start: for all keys, not only for those with a ghost

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    @property
    def one_in(self) -> int:
        """Of how many keys one has a ghost: a power of two."""
        return self.mask + 1

    def hits(self) -> tuple[int, ...]:
        """Return how many more hits there would have been since the start, with each of `ROOMS`."""
        return tuple(sum(self.came_back[: at + 1]) for at in range(len(ROOMS)))

    def fit(self, room_bytes: int, entries: int) -> None:
        """Follow the room of L1, and how many entries fill it."""
        wanted = min(GHOSTS_MAX, max(GHOSTS_MIN, entries // KEYS_PER_GHOST))
        sampled = entries // self.one_in
        if sampled > wanted or (self.mask and sampled < wanted // _SPARSE):
            self.mask = (1 << (entries // wanted).bit_length()) - 1
            self._limit(room_bytes)
            self.clear()
        elif room_bytes != self._room_bytes:
            self._limit(room_bytes)

    def _limit(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._limits = [share * room_bytes / self.one_in for share in _SHARES]

    def went(self, entry: Entry, now: float) -> None:
        """Note that an entry is evicted, of a key that may have a ghost: ask `mask` before, it saves the call."""
        if entry.ends_at <= now:
            return
        number = hash(entry.request if isinstance(entry, ReplyEntry) else entry.key)
        self._forget(number)
        self._add(0, number, _Ghost(entry.size_bytes, entry.ends_at, now))
        if len(self) > 2 * GHOSTS_MAX:  # of entries that are small for their number
            at = max(at for at, part in enumerate(self._parts) if part)
            self._bytes[at] -= self._parts[at].popitem(last=False)[1].size_bytes

    def came(self, key: bytes, id: bytes, now: float) -> None:  # noqa: A002
        """Note that what L1 did not hold enters it, of a key that may have a ghost: with one, a larger L1 had a hit."""
        at, ghost = self._forget(hash(id))
        if ghost is not None and ghost.ends_at > now and self._changed.get(hash(key), -1.0) < ghost.went_at:
            self.came_back[at] += self.one_in

    def changed(self, key: bytes, now: float) -> None:
        """Note that a key has changed: no L1 would hold any more what was evicted of it."""
        number = hash(key)
        if number & self.mask:
            return
        self._changed.pop(number, None)  # what changed last stands last
        self._changed[number] = now
        if len(self._changed) > 2 * GHOSTS_MAX:
            del self._changed[next(iter(self._changed))]

    def room_for(self, key: bytes, id: bytes) -> float | None:  # noqa: A002
        """Return with how many times the room an evicted entry would still be held; None where that is not known."""
        if hash(key) & self.mask:
            return None
        return next((room for room, part in zip(ROOMS, self._parts, strict=True) if hash(id) in part), None)

    def clear(self) -> None:
        """Forget all ghosts: everything has gone from L1, and would have from a larger one. What they counted stays."""
        for part in self._parts:
            part.clear()
        self._changed.clear()
        self._bytes = [0] * len(ROOMS)

    def _add(self, at: int, number: int, ghost: _Ghost) -> None:
        """Put a ghost behind those of a part; the first of it move on, and from the last part away."""
        part = self._parts[at]
        part[number] = ghost
        self._bytes[at] += ghost.size_bytes
        while self._bytes[at] > self._limits[at]:
            oldest, moved = part.popitem(last=False)
            self._bytes[at] -= moved.size_bytes
            if at + 1 < len(ROOMS):
                self._add(at + 1, oldest, moved)

    def _forget(self, number: int) -> tuple[int, _Ghost | None]:
        for at, part in enumerate(self._parts):
            ghost = part.pop(number, None)
            if ghost is not None:
                self._bytes[at] -= ghost.size_bytes
                return at, ghost
        return 0, None
