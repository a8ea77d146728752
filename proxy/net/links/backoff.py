"""How long to wait before the next attempt: growing, and never in step with others."""

from __future__ import annotations

import random
from typing import Final

FIRST_S: Final = 0.02
MAX_S: Final = 1.0  # a server that is back is found within it


class Backoff:
    """Half to all of an exponentially growing bound, by chance."""

    __slots__ = ("_random", "failures")

    def __init__(self, seed: int | None = None) -> None:
        self.failures = 0
        self._random = random.Random(seed)

    def next_s(self) -> float:
        """Return how long to wait, and count a failure."""
        bound = min(FIRST_S * 2.0 ** min(self.failures, 10), MAX_S)
        self.failures += 1
        return bound * (0.5 + self._random.random() / 2)

    def reset(self) -> None:
        """Start again: it worked."""
        self.failures = 0
