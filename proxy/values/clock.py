"""The clock that versions come from: Redis' own time, whatever the clocks of this machine say.

    version   48 bits milliseconds since 1970 | 16 bits their fraction     0 = none

    TIME sent      executed        received        The server's clock showed `server_us` before its reply was here, so
        |------------|---------------|             from then on it shows at least that: the versions of this clock are
                 server_us                         never ahead of the server, unless they must be to pass another.

Owns what was learnt of the server's clock, and the last version that was given out or seen. A fence takes the server's
time in the moment it is set: a value that was written before must not bear a later one. Hence a lower bound, and one
that runs a little slow. Behind it may be, by the time a reply takes: then a value written right after a fence counts
as one from before it, and is fetched once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

VERSION_BITS: Final = 16
"""How many bits of a version are the fraction of its millisecond."""

VERSION_END: Final = 1 << 64
"""Every version is below; those of this clock are below half of it until the year 6429."""

AHEAD_MAX_MS: Final = 3_600_000
"""How far ahead of the server a version may be that RESPITE SETV brings (values.scripts refuses more)."""

_FOLLOWED_MS: Final = AHEAD_MAX_MS + 60_000
"""How far ahead a version may be that this clock moves past. A minute more: it may be behind the server itself."""

# What a clock that is being corrected is slowed down by at most (500 ppm, adjtimex). Between two anchors the server's
# clock is taken to run so slow; asked once a second, that is 0.5 ms.
_SLOWEST: Final = 0.9995 * 1e6
_VERSIONS_A_SECOND: Final = 0.9995 * (1000 << VERSION_BITS)


def version_at(server_us: int) -> int:
    """Return the version of a moment, in microseconds since 1970."""
    return (server_us << VERSION_BITS) // 1000


class HybridClock:
    """A hybrid logical clock: at least the server's time, and past every version it has seen.

    `monotonic` is the clock in which `anchor` gives its moments, in seconds.
    """

    __slots__ = ("_anchored", "_at", "_last", "_monotonic", "_server_us", "_waiting", "is_anchored")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.is_anchored = False
        self._monotonic = monotonic
        self._server_us = 0  # what the server's clock showed at least ..
        self._at = 0.0  # .. at this moment
        self._anchored = 0  # .. as a version
        self._last = 0  # the highest version given out or seen
        self._waiting = 0  # the highest that was seen before anything was known of the time

    def anchor(self, server_us: int, sent_at: float, received_at: float) -> None:
        """Take the reply to a TIME that was sent and received at these moments.

        What was known before is kept where it says more: a reply that was late says little. Where it cannot be true,
        the server's clock was set back, or it is another server, and what was known is forgotten.
        """
        most_us = server_us + round((received_at - sent_at) * 1e6)
        known_us = self._lower_bound_us(received_at) if self.is_anchored else 0
        self._server_us = known_us if server_us < known_us <= most_us else server_us
        self._at = received_at
        self._anchored = version_at(self._server_us)
        self.is_anchored = True
        if self._waiting:
            waiting, self._waiting = self._waiting, 0
            self.observe(waiting)

    def next(self) -> int:
        """Return a version above all that were given out or seen; 0 while nothing is known of the server's time."""
        if not self.is_anchored:
            return 0
        # version_at(self._lower_bound_us(now)) or one less, without two calls and a division: made once a write.
        version = self._anchored + int((self._monotonic() - self._at) * _VERSIONS_A_SECOND)
        last = self._last
        self._last = version = version if version > last else last + 1
        return version

    @property
    def last(self) -> int:
        """The highest version that was given out or seen."""
        return self._last

    def observe(self, version: int) -> None:
        """Move past a version that was read; one that is further ahead than any may be is not followed."""
        if version <= self._last:
            return
        if not self.is_anchored:
            self._waiting = max(self._waiting, version)
        elif version >> VERSION_BITS <= self.now_ms() + _FOLLOWED_MS:
            self._last = version

    def now_ms(self) -> int:
        """Return what the server's clock shows, in milliseconds since 1970; 0 while nothing is known of it."""
        return self._lower_bound_us(self._monotonic()) // 1000 if self.is_anchored else 0

    def _lower_bound_us(self, at: float) -> int:
        return self._server_us + int((at - self._at) * _SLOWEST)
