"""How every request of a run ended, and when something had fallen: what rates and times are counted from.

A request that ended well is only counted, by group and second; one that did not is kept. Times are of the monotonic
clock. Many threads write, one reads in the end.
"""

from __future__ import annotations

import threading
import time
from collections import Counter

import attrs

PLAIN, STALE, MEMORY = "plain", "stale", "memory"
GROUPS = (PLAIN, STALE, MEMORY)
"""What a class promises while Redis is away: nothing, old values for reads, everything in memory."""


@attrs.frozen
class Failure:
    """A request that got no result. `how`: refused (not done), unknown, closed (unknown, too), unanswered."""

    who: str
    proxy: int
    group: str
    what: str
    began: float
    ended: float
    how: str
    text: str


@attrs.define
class Window:
    """One fault: from when it was made until it was undone. `touches`: the proxies whose own clients it cuts off."""

    name: str
    about: str
    began: float
    touches: frozenset[int] = frozenset()
    ended: float = float("inf")
    next_began: float = float("inf")

    def overlaps(self, began: float, ended: float) -> bool:
        """Tell whether a request ran during it."""
        return began < self.ended and ended > self.began


@attrs.define(eq=False)
class Ledger:
    """All that happened. `bound_s` is within what every request must be answered."""

    bound_s: float
    began: float = attrs.field(factory=time.monotonic)
    windows: list[Window] = attrs.field(factory=list)
    failures: list[Failure] = attrs.field(factory=list)
    slow: list[Failure] = attrs.field(factory=list)  # answered, over the bound; with how long in `text`
    wrong: list[str] = attrs.field(factory=list)  # what may never happen, in words
    down: list[tuple[float, float, int]] = attrs.field(factory=list)  # from, to, proxy: nobody answered there
    probes: int = 0
    _done: Counter[tuple[str, int]] = attrs.field(factory=Counter)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def succeed(self, group: str, ended: float) -> None:
        """Count a request that got its result."""
        with self._lock:
            self._done[group, int(ended - self.began)] += 1

    def fail(self, failure: Failure) -> None:
        """Keep a request that got none."""
        self.failures.append(failure)

    def judge_time(self, failure: Failure, allowed_s: float) -> None:
        """Keep a request that took longer than it may; `allowed_s` is what it waits for by its own wish."""
        if failure.ended - failure.began > self.bound_s + allowed_s:
            self.slow.append(failure)

    def blame(self, text: str) -> None:
        """Note what may never happen."""
        now = time.monotonic()
        after = f"{self.windows[-1].name} {now - self.windows[-1].began:.2f} s ago: " if self.windows else ""
        self.wrong.append(f"{now - self.began:.3f} s, {after}{text}")

    def begin(self, name: str, about: str, touches: frozenset[int]) -> Window:
        """Note that something is about to fall."""
        now = time.monotonic()
        for window in self.windows[-1:]:
            window.next_began = now
        window = Window(name, about, now, touches)
        self.windows.append(window)
        return window

    def done(self, group: str) -> int:
        """Return how many requests of a group got their result."""
        return sum(count for (name, _), count in self._done.items() if name == group)

    def by_second(self) -> Counter[int]:
        """Return how many requests got their result, by second of the run."""
        seconds: Counter[int] = Counter()
        for (_, second), count in self._done.items():
            seconds[second] += count
        return seconds

    def recovery_s(self, window: Window) -> float:
        """Return how long after the end of a fault the last request failed that failed before the next fault."""
        ends = [
            failure.ended
            for failure in self.failures
            if failure.ended >= window.began and failure.began < window.next_began and failure.ended > window.ended
        ]
        return max([end - window.ended for end in ends if end < window.next_began], default=0.0)

    def is_outside(self, failure: Failure) -> bool:
        """Tell whether a request ran while nothing was fallen."""
        return not any(window.overlaps(failure.began, failure.ended) for window in self.windows)

    def is_excused(self, failure: Failure) -> bool:
        """Tell whether a fault had cut off the clients of that proxy themselves, then or a moment before."""
        return any(
            failure.proxy in window.touches and failure.began < window.ended + 1.0 and failure.ended > window.began
            for window in self.windows
        )
