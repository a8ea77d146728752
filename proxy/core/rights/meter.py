"""How many commands somebody may ask for: a bucket that fills at a rate, and may be owed something.

    rate 100/s, burst 50      50 at once, then 100 a second; what came beyond is waited off, never refused

What came in one read is always taken, so a bucket can be below empty: it is read on when that has been made up for.
"""

from __future__ import annotations

import attrs


@attrs.define
class Bucket:
    """So many commands a second, `burst` of them at once after a quiet time. Times are the engine's seconds."""

    rate: float
    burst: float
    level: float
    at: float

    @classmethod
    def full(cls, rate: float, burst: float, now: float) -> Bucket:
        """Return one that nobody has taken from; without a burst it holds what one second brings."""
        most = burst or rate
        return cls(rate, most, most, now)

    def take(self, count: int, now: float) -> bool:
        """Take so many; return whether more may come at once."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate) - count
        self.at = now
        return self.level >= 0

    def is_dry(self, now: float) -> bool:
        """Return whether what was taken has not been made up for yet."""
        return self.level + (now - self.at) * self.rate < 0
