"""What the dicts of a namespace take in memory, and how they are kept from growing for keys that are gone.

CPython's dict gives a new key a new place, also where one was deleted; when its places are used up it takes three times
those its keys need, up to the next power of two. Where keys come and go that is 60 to 120 bytes a key. Made anew in
time a dict needs 30 to 70:

    share of the places that keys have
    over 0.85       made larger at once if L1 has room for that: later, entries would have to go for it, and the memory
                    of entries that go here and there is not given back. Else made anew when no place is left
    0.5 .. 0.85     made anew, of the same size, when no place is left
    0.425 .. 0.5    CPython will make it anew, of the same size, when no place is left
    below           made anew, of half the size, when no place is left
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final

FULL: Final = 0.85
OVERFULL: Final = 0.97
SLOTS_MAX: Final = 1 << 19
"""Larger ones are left to grow: to make a dict of 180,000 keys anew takes 20 ms, and nothing is served meanwhile."""
KEYS_MIN: Final = 512
"""So many keys come before the first look: a small dict is not worth it."""
_EMPTY_BYTES: Final = 0
_LOOK_EVERY: Final = 4096
"""So many new keys at most until the size is looked at: only this, not CPython's sizes, must hold for the bound."""
_FILLER: Final = b""  # neither a bulk string nor a request
_RESERVE: Final = 8  # places that are left when it is time to look: CPython must not come first
_MMAP_THRESHOLD: Final = -3
_TRIM_THRESHOLD: Final = -1
_MMAPPED_BYTES: Final = 1 << 20
_BUFFER_BYTES: Final = 32 << 20
_mallopt: Final = getattr(ctypes.CDLL(None), "mallopt", None)  # once: each CDLL is classes, which only gc frees


def in_block_of_its_own(resize: Callable[[], None]) -> None:
    """Resize a dict so that its memory is a block of its own, given back when it is freed; without glibc just do it.

    Else malloc keeps the old place of a dict that is made anew, empty and resident. Only for that moment: with a low
    threshold for all, each large buffer would come from the kernel and go back to it (bench.compare, SET of 10 KiB at
    16 deep: 21 us of CPU a request in place of 11). What stands before and after is where malloc's own adapting ends.
    """
    if _mallopt is None:
        resize()
        return
    _mallopt(_MMAP_THRESHOLD, _MMAPPED_BYTES)
    try:
        resize()
    finally:
        _mallopt(_MMAP_THRESHOLD, _BUFFER_BYTES)
        _mallopt(_TRIM_THRESHOLD, 2 * _BUFFER_BYTES)


class Table:
    """One dict.

    `room` is how many new keys it may get before `look` is due, `_left` how many more have places besides. Should
    CPython have made the dict anew unseen they are wrong until a look finds another size: the size is a poor one then.
    """

    __slots__ = ("_keys", "_left", "bytes", "room")

    def __init__(self, keys: dict[bytes, Any]) -> None:
        self._keys = keys
        self.reset()

    def look(self, spare_bytes: int) -> None:
        """Measure the dict once `room` is used up; change its size if that is worth it, by up to `spare_bytes`."""
        keys = self._keys
        if keys.__sizeof__() != self.bytes:
            self._measure()
            return
        slots, places = _shape(self.bytes)
        share = len(keys) / places
        if slots > SLOTS_MAX:
            self.room = _LOOK_EVERY
        elif share > FULL and self.bytes <= spare_bytes:
            self._fill_up(places)
        elif self._left or share >= OVERFULL:
            self._allow()
        elif FULL / 2 <= share <= 0.5:
            self._fill_up(_RESERVE + 1)
        else:
            self.renew()

    def renew(self) -> None:
        """Make the dict anew, as small as its keys allow; in place, for there are others who hold it."""
        in_block_of_its_own(self._refill)
        self._measure()

    def _refill(self) -> None:
        fresh = dict(self._keys)
        self._keys.clear()
        self._keys.update(fresh)

    def reset(self) -> None:
        """Take note that the dict was cleared."""
        self.bytes = _EMPTY_BYTES
        self._left = 0
        self.room = KEYS_MIN

    def _fill_up(self, places: int) -> None:
        """Use up the places that are left, at most so many: CPython makes the dict anew, as large as it will."""
        in_block_of_its_own(lambda: self._waste(places))
        self._measure(1)

    def _waste(self, places: int) -> None:
        keys = self._keys
        for _ in range(places):
            keys[_FILLER] = None
            del keys[_FILLER]
            if keys.__sizeof__() != self.bytes:
                break

    def _measure(self, wasted: int = 0) -> None:
        """Begin with a dict that has just been made anew, and has lost so many places since."""
        self.bytes = self._keys.__sizeof__()
        self._left = max(0, _shape(self.bytes)[1] - len(self._keys) - wasted - _RESERVE)
        self._allow()

    def _allow(self) -> None:
        until_full = int(_shape(self.bytes)[1] * FULL) + 1 - len(self._keys)
        room = min(self._left, _LOOK_EVERY, until_full if until_full > 0 else _LOOK_EVERY)
        self._left -= room
        self.room = max(1, room)


def _shape(size: int) -> tuple[int, int]:
    """Return how many slots a dict of so many bytes has, and how many keys ever find a place there.

    A slot is 1, 2 or 4 bytes, and for two of three slots there are 24 bytes more: 17, 18 or 20 a slot.
    """
    slots = 1 << max(3, (size // 18).bit_length() - 1)
    return slots, slots * 2 // 3


class Tables:
    """The three dicts of a namespace."""

    __slots__ = ("heads", "replies", "resident")

    def __init__(self, resident: dict[bytes, Any], replies: dict[bytes, Any], heads: dict[bytes, Any]) -> None:
        self.resident = Table(resident)
        self.replies = Table(replies)
        self.heads = Table(heads)

    @property
    def taken(self) -> int:
        """Bytes they take."""
        return self.resident.bytes + self.replies.bytes + self.heads.bytes

    def renew(self) -> int:
        """Make all anew; return by how many bytes they have grown, which may be less than none."""
        before = self.taken
        self.resident.renew()
        self.replies.renew()
        self.heads.renew()
        return self.taken - before

    def reset(self) -> None:
        """Measure all after they were cleared."""
        self.resident.reset()
        self.replies.reset()
        self.heads.reset()
