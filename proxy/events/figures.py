"""What is counted about events, from the broker to both tiers, and how it is shown.

Owns the counts and the section "events" of stats.json. Plain numbers: whoever does the work adds to them. The same as
metrics of Prometheus is `amqp/families.py`; a histogram is of an inner layer's making, so it is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

import attrs

State = Literal["off", "connecting", "up", "misconfigured"]


class Durations(Protocol):
    """A histogram of durations in seconds; `core.figures.stats.Histogram` is one."""

    count: int

    def add(self, seconds: float) -> None:
        """Count one."""
        ...

    def quantile_us(self, share: float) -> float:
        """Return a quantile in microseconds, 0.0 when nothing was counted."""
        ...


@attrs.define
class EventFigures:
    """Counted since the start. `lag` is from publishing to both tiers done, for events that say when they were sent."""

    lag: Durations

    state: State = "off"
    why: str = ""
    """What is wrong, for a person; "" while nothing is."""
    url: str = ""
    """The broker that is, or was last, spoken to; without credentials."""
    is_blocked: bool = False
    """The broker takes nothing from us for lack of memory or disk: what failed waits to be put into a queue."""

    received: int = 0
    """Messages that came for the first time; neither repeats of the broker nor our own retries."""
    redelivered: int = 0
    applied: int = 0
    """Messages, retries included, with which both tiers agree: those that were too old among them."""
    ignored_old: int = 0
    retried: int = 0
    """Copies put into a retry queue."""
    dead: int = 0
    """Messages put into the dead letter queue, for whatever reason."""
    garbage: int = 0
    """Of these: those that could not be understood."""
    failed: int = 0
    """Of these: those that were understood and could not be made true."""

    keys: int = 0
    entries: int = 0
    fences: int = 0
    gaps: int = 0
    """Holes in a publisher's numbers."""
    flushes: int = 0
    """Times that something was dropped because events about it may have been lost."""
    owed: int = 0
    """Flushes that are due and not done yet."""
    reconnects: int = 0
    """Connections to the broker after the first."""

    depth: int | None = None
    """Messages that wait in the queue; None: not known now. Those handed out already are not in it."""
    consumers: int | None = None
    dead_depth: int | None = None

    _held_s: float = 0.0
    _holders: int = 0
    _held_since: float = 0.0
    _under_way: list[Mapping[int, int]] = attrs.field(factory=list)

    @property
    def sync_errors(self) -> float:
        """Share of what was received that ended in the dead letter queue although it was understood."""
        return self.failed / self.received if self.received else 0.0

    def hold(self, now: float) -> bool:
        """Note that events wait for Redis, from `now` in seconds. Says whether none did before."""
        self._holders += 1
        if self._holders == 1:
            self._held_since = now
        return self._holders == 1

    def release(self, now: float) -> bool:
        """Note that one holder of `hold` waits no longer. Says whether it was the last."""
        self._holders -= 1
        if not self._holders:
            self._held_s += max(now - self._held_since, 0.0)
        return not self._holders

    def held_s(self, now: float) -> float:
        """Return for how long, in all, events have waited for Redis."""
        return self._held_s + (max(now - self._held_since, 0.0) if self._holders else 0.0)

    def watch(self, under_way: Mapping[int, int]) -> None:
        """Look at what is under way with one consumer: by its tag, when each was published, in ms since 1970."""
        self._under_way.append(under_way)

    def unwatch(self, under_way: Mapping[int, int]) -> None:
        """Look at it no longer."""
        self._under_way = [one for one in self._under_way if one is not under_way]

    def waiting(self) -> int:
        """Return how many messages are under way here."""
        return sum(map(len, self._under_way))

    def oldest_s(self, now_ms: int) -> float:
        """Return how long ago the oldest message under way was published (came, where that is not known)."""
        oldest = min(_each(self._under_way), default=now_ms)
        return max(now_ms - oldest, 0) / 1000

    def report(self, now_ms: int, now: float) -> dict[str, Any]:
        """Return the section "events" of stats.json. `now_ms` is since 1970, `now` as `hold` was given it, seconds."""
        return {
            "state": self.state,
            "why": self.why,
            "url": self.url,
            "blocked": self.is_blocked,
            "received_total": self.received,
            "redelivered_total": self.redelivered,
            "applied_total": self.applied,
            "ignored_old_total": self.ignored_old,
            "retried_total": self.retried,
            "dead_total": self.dead,
            "garbage_total": self.garbage,
            "failed_total": self.failed,
            "sync_errors": round(self.sync_errors, 6),
            "keys_total": self.keys,
            "entries_total": self.entries,
            "fences_total": self.fences,
            "gaps_total": self.gaps,
            "flushes_total": self.flushes,
            "owed": self.owed,
            "reconnects_total": self.reconnects,
            "held_s_total": round(self.held_s(now), 3),
            "depth": self.depth,
            "consumers": self.consumers,
            "dead_depth": self.dead_depth,
            "under_way": self.waiting(),
            "oldest_s": round(self.oldest_s(now_ms), 3),
            "lag_count": self.lag.count,
            "lag_p50_us": self.lag.quantile_us(0.50),
            "lag_p99_us": self.lag.quantile_us(0.99),
        }


def _each(under_way: Iterable[Mapping[int, int]]) -> Iterable[int]:
    for one in under_way:
        yield from one.values()
