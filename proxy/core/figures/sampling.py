"""Which of many are looked at: all of them while they are few, one of N when they are many.

Owns N, which follows the rate. What is looked at stands for those that were not: its weight is how many there were
since the last look, so that the weights add up to all there were.
"""

from __future__ import annotations

import random
from typing import Final

NEVER: Final = 1 << 62
LOOKS_PER_S: Final = 200
"""A look takes 3 us in a loop and 10 to 20 where it is met seldom, so all of them some thousandths of a processor."""
LOOKS: Final = 100  # after so many N is chosen anew
EVERY_MAX: Final = 1 << 16
QUIET_S: Final = 0.25  # .. and after that time, when they do not come


class Pace:
    """Choose which number of a count that grows is looked at next: `next_at`, which the hot path compares."""

    __slots__ = ("_every", "_looked", "_random", "_seen", "_since", "next_at")

    def __init__(self) -> None:
        self.next_at = 1
        self._seen = 0  # the count at the last look
        self._every = 1.0
        self._looked = 0
        self._since = 0.0
        self._random = random.Random(0).random

    def take(self, count: int, now: float) -> int:
        """Look at one: return how many it stands for, and choose the next."""
        weight = count - self._seen
        self._seen = count
        self._looked += 1
        if self._looked >= LOOKS:
            self._adapt(now)
        # Between half and three halves of N: a pattern in the traffic must not always hide the same ones.
        wait = 1 if self._every == 1.0 else max(1, round(self._every * (0.5 + self._random())))
        self.next_at = count + wait
        return weight

    def tick(self, count: int, now: float) -> None:
        """Look more often again when there is less to see."""
        if now - self._since >= QUIET_S:
            self._adapt(now)
            self.next_at = min(self.next_at, count + round(self._every))

    def stop(self) -> None:
        """Look at nothing until `go`."""
        self.next_at = NEVER

    def go(self, count: int) -> None:
        """Look again; what went by meanwhile is not counted."""
        self._seen = count
        self.next_at = count + 1

    def _adapt(self, now: float) -> None:
        elapsed_s = now - self._since
        most = max(elapsed_s * LOOKS_PER_S, 1.0)
        self._every = min(max(self._every * self._looked / most, 1.0), EVERY_MAX)
        self._looked = 0
        self._since = now
