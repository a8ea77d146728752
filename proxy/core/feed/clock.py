"""What the server's clock shows at most: the time at which a change that was just heard of cannot have come later.

    TIME sent      executed        received        When the reply is here, the server's clock shows at most
        |------------|---------------|             server_us + (received - sent), and from then on that and what passes.
                 server_us

The opposite of `values.clock`, whose versions must not be ahead: the version that a change is told with must not be
below the one that the value got, or a client that compares them would take the change for an old one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_FASTEST: Final = 1.0005e6  # what a clock that is being corrected gains at most (500 ppm, adjtimex)


class LatestClock:
    """An upper bound of the server's time. `monotonic` is in seconds; `local_us` is taken before anything was heard."""

    def __init__(self, monotonic: Callable[[], float], local_us: Callable[[], int]) -> None:
        self._monotonic = monotonic
        self._local_us = local_us
        self._most_us = 0
        self._at = 0.0

    def anchor(self, server_us: int, sent_at: float) -> None:
        """Take the reply to a TIME that was sent at this moment and has just come."""
        now = self._monotonic()
        most_us = server_us + round((now - sent_at) * _FASTEST)
        known_us = self._bound_us(now)
        # What is known is kept where it says more, unless it cannot be true: the server's clock was set.
        self._most_us = known_us if server_us <= known_us < most_us else most_us
        self._at = now

    def now_us(self) -> int:
        """Return the microseconds since 1970 that the server's clock shows at most."""
        return self._bound_us(self._monotonic()) if self._most_us else self._local_us()

    def _bound_us(self, now: float) -> int:
        return self._most_us + round((now - self._at) * _FASTEST)
