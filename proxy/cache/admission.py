"""Admission: whether what was just missed may enter L1, or only once it is read again.

    always         everything enters
    second_read    only keys that are remembered: read before, or held before
    auto           as second_read while that costs nothing, else as always

Entries that are never hit are evicted soon whatever is done here, so refusing them wins few hits: it spares a lease, a
PTTL and a place in Redis' tracking table each. `auto` refuses from when 19 of 20 evicted entries were never hit, until
1 in 33 of the refused comes back, each a hit lost.
"""

from __future__ import annotations

from typing import Final, Literal

from proxy.cache.memory import REFUSED, Memory

Mode = Literal["auto", "always", "second_read"]

# bench/hitratio.py: from 0.80 on, with 0.20 back, CloudPhysics at 25 % loses 2.9 points, and sharing 0.03 loses 0.7.
_EVICTED: Final = 1024
_NEVER_HIT: Final = 0.95
_REFUSED: Final = 256
_RETURNED: Final = 0.03


class Admission:
    """Decide on misses. `mode` may be set at any time."""

    __slots__ = (
        *("_evicted", "_never_hit", "_refused", "_returned", "_strict"),
        *("_evicted_before", "_unused_before", "mode", "refusals", "returns"),
    )

    def __init__(self) -> None:
        self.mode: Mode = "auto"
        self.refusals = 0
        self.returns = 0  # keys that were refused and came back: a hit lost each
        self._evicted_before = self._unused_before = 0  # in the rounds that have ended
        self._strict = False
        self._evicted = self._never_hit = self._refused = self._returned = 0

    @property
    def evictions(self) -> int:
        """Entries that were evicted."""
        return self._evicted_before + self._evicted

    @property
    def evictions_unused(self) -> int:
        """Entries that were evicted and had never been hit."""
        return self._unused_before + self._never_hit

    @property
    def is_strict(self) -> bool:
        """Whether a key must be read twice to enter."""
        return self.mode == "second_read" or (self.mode == "auto" and self._strict)

    def admits(self, key: bytes, memory: Memory) -> bool:
        """Return whether a key that was missed may enter; one that may not is remembered, and may the next time."""
        if not self.is_strict:
            return True
        how = memory.knows(key)
        if how is not None:
            if how == REFUSED:
                self._returned += 1
                self.returns += 1
            return True
        memory.remember(key, 1, REFUSED)
        self.refusals += 1
        self._refused += 1
        if self._refused >= _REFUSED:
            if self._returned > _RETURNED * self._refused:
                self._strict = False
            self._refused = self._returned = 0
        return False

    def evicted(self, uses: int) -> None:
        """Count an entry that was evicted, for `auto`."""
        self._evicted += 1
        self._never_hit += uses == 1
        if self._evicted >= _EVICTED:
            if not self._strict and self._never_hit > _NEVER_HIT * self._evicted:
                self._strict = True
                self._refused = self._returned = 0
            self._evicted_before += self._evicted
            self._unused_before += self._never_hit
            self._evicted = self._never_hit = 0
