"""The figures people watch: each read from two looks at the proxy, over the time between them.

Owns which figures there are, their units, which way is good, and how each is got from a report. Alerts, trends, the
history, the dashboard and `respite stats` know no others. What cannot be known is absent, never 0: no hit rate without
reads, no queue depth without a broker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import attrs

from proxy.core.figures.stats import Histogram

Unit = Literal["ratio", "seconds", "bytes", "per_second", "count", "state"]
"""A ratio is 0 to 1, or more where the sentence says so; a state is 1 while it is so, else 0."""


@attrs.frozen(eq=False)
class Snapshot:
    """Everything the proxy says of itself at one moment: one worker, or all of them joined.

    `at` is in seconds of the monotonic clock, `report` the body of stats.json, `histograms` what is behind its
    quantiles: "waited" (clients), "latency" (Redis), "staleness".
    """

    at: float
    report: Mapping[str, Any]
    histograms: Mapping[str, Histogram] = attrs.field(factory=dict)


class Span:
    """The time between two snapshots; since the start of the proxy when there is no earlier one."""

    def __init__(self, now: Snapshot, before: Snapshot | None) -> None:
        self._now = now
        self._before = before
        self._histograms: dict[str, Histogram | None] = {}
        self.seconds = now.at - before.at if before is not None else float(now.report.get("uptime_s", 0.0))

    def value(self, path: str) -> float | None:
        """Return what a dotted path of the report says now; None when it says nothing, or no number."""
        return _find(self._now.report, path)

    def word(self, path: str) -> object:
        """Return what a dotted path of the report says now, whatever it is."""
        return _at(self._now.report, path)

    def grown(self, path: str) -> float | None:
        """Return by how much a count grew; None when it is not counted."""
        now = _find(self._now.report, path)
        if now is None:
            return None
        before = _find(self._before.report, path) if self._before is not None else None
        return max(now - (before or 0.0), 0.0)

    def rate(self, path: str) -> float | None:
        """Return by how much a count grew a second."""
        grown = self.grown(path)
        return grown / self.seconds if grown is not None and self.seconds > 0 else None

    def share(self, part: Iterable[str], whole: Iterable[str]) -> float | None:
        """Return the share that some counts have of others, as they grew; None when the others did not grow."""
        total = sum(self.grown(path) or 0.0 for path in whole)
        return sum(self.grown(path) or 0.0 for path in part) / total if total else None

    def histogram(self, name: str) -> Histogram | None:
        """Return what a histogram counted in between; None when that is nothing. Several figures ask for the same."""
        if name not in self._histograms:
            self._histograms[name] = self._grown_histogram(name)
        return self._histograms[name]

    def _grown_histogram(self, name: str) -> Histogram | None:
        now = self._now.histograms.get(name)
        before = self._before.histograms.get(name) if self._before is not None else None
        if now is None:
            return None
        grown = now if before is None else now.since(before)
        return grown if grown.count else None


@attrs.frozen
class Figure:
    """One figure: its unit, a sentence for people, the way it should go ("" when neither is better), where it is."""

    name: str
    unit: Unit
    about: str
    good: Literal["up", "down", ""]
    read: Callable[[Span], float | None]


def read_figures(now: Snapshot, before: Snapshot | None) -> dict[str, float]:
    """Return every figure that is known, over the time between two snapshots (since the start: `before` None)."""
    span = Span(now, before)
    found = ((name, figure.read(span)) for name, figure in FIGURES.items())
    return {name: value for name, value in found if value is not None}


def _at(report: Mapping[str, Any], path: str) -> object:
    found: object = report
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _find(report: Mapping[str, Any], path: str) -> float | None:
    found = _at(report, path)
    return float(found) if isinstance(found, int | float) else None


def _value(path: str) -> Callable[[Span], float | None]:
    return lambda span: span.value(path)


def _rate(path: str) -> Callable[[Span], float | None]:
    return lambda span: span.rate(path)


def _share(part: Iterable[str], whole: Iterable[str]) -> Callable[[Span], float | None]:
    return lambda span: span.share(part, whole)


def _quantile(name: str, share: float) -> Callable[[Span], float | None]:
    def read(span: Span) -> float | None:
        histogram = span.histogram(name)
        return None if histogram is None else histogram.quantile_us(share) / 1e6

    return read


def _mean(name: str) -> Callable[[Span], float | None]:
    def read(span: Span) -> float | None:
        histogram = span.histogram(name)
        return None if histogram is None else histogram.sum_s / histogram.count

    return read


def _staleness(span: Span) -> float | None:
    """0.0 when hits were compared with Redis and none was stale; nothing when none was compared."""
    histogram = span.histogram("staleness")
    if histogram is not None:
        return histogram.quantile_us(0.99) / 1e6
    return 0.0 if span.grown("consistency.verified_total") else None


def _filled(part: str, whole: str) -> Callable[[Span], float | None]:
    """Return how full something is; nothing where it has no bound."""

    def read(span: Span) -> float | None:
        held, bound = span.value(part), span.value(whole)
        return held / bound if held is not None and bound else None

    return read


def _up(path: str, *, off: str = "") -> Callable[[Span], float | None]:
    def read(span: Span) -> float | None:
        state = span.word(path)
        return None if state is None or state == off else float(state == "up")

    return read


_READS: Final = ("l1.hits_total", "l1.misses_total")


def _saved(span: Span) -> float | None:
    """Nothing in shadow mode: what would have been a hit was sent to Redis all the same."""
    if span.word("rollout.mode") == "shadow":
        return None
    return span.share((_READS[0], "l1.joined_total"), _READS)


FIGURES: Final[Mapping[str, Figure]] = {
    figure.name: figure
    for figure in (
        Figure("hit_rate", "ratio", "reads answered from L1", "up", _share(_READS[:1], _READS)),
        Figure(
            "saved_rate",
            "ratio",
            "reads that never reached Redis: hits, and those that joined another's flight",
            "up",
            _saved,
        ),
        Figure("latency_mean", "seconds", "what clients waited, on average", "down", _mean("waited")),
        Figure("latency_p50", "seconds", "what half of the commands waited at most", "down", _quantile("waited", 0.5)),
        Figure("latency_p90", "seconds", "what 90 % of the commands waited at most", "down", _quantile("waited", 0.9)),
        Figure("latency_p99", "seconds", "what 99 % of the commands waited at most", "down", _quantile("waited", 0.99)),
        Figure(
            "upstream_p99", "seconds", "what 99 % of those asked of Redis waited", "down", _quantile("latency", 0.99)
        ),
        Figure("commands_per_second", "per_second", "commands of clients", "", _rate("commands.total")),
        Figure(
            "error_rate",
            "ratio",
            "commands that failed: Redis lost, away or late",
            "down",
            _share(("commands.errors_total",), ("commands.total",)),
        ),
        Figure("staleness", "seconds", "how long 99 % of stale hits were stale at most", "down", _staleness),
        Figure(
            "memory_ratio",
            "ratio",
            "bytes of values in Redis for each of theirs; 1.0 = nothing saved",
            "down",
            _share(("values.stored_bytes_total",), ("values.raw_bytes_total",)),
        ),
        Figure("l1_bytes", "bytes", "what L1 takes", "", _value("l1.bytes")),
        Figure("l1_fill", "ratio", "how full L1 is", "", _filled("l1.bytes", "l1.max_bytes")),
        Figure("l1_entries", "count", "entries in L1", "", _value("l1.entries")),
        Figure("evictions_per_second", "per_second", "entries evicted from L1", "down", _rate("l1.evictions_total")),
        Figure(
            "invalidations_per_second",
            "per_second",
            "keys that Redis pushed as changed",
            "",
            _rate("l1.invalidations_total"),
        ),
        Figure("clients", "count", "clients connected", "", _value("clients.connected")),
        Figure("upstream_up", "state", "the invalidation link to Redis stands", "up", _up("upstream.state")),
        Figure(
            "tracking_pressure",
            "ratio",
            "how full the server's table of tracked keys is",
            "down",
            _filled("upstream.tracked_keys", "upstream.tracked_max_keys"),
        ),
        Figure("amqp_up", "state", "events come from the broker", "up", _up("events.state", off="off")),
        Figure("queue_depth", "count", "events that wait in the queue", "down", _value("events.depth")),
        Figure("queue_lag", "seconds", "age of the oldest event under way", "down", _value("events.oldest_s")),
        Figure("events_per_second", "per_second", "events received", "", _rate("events.received_total")),
        Figure(
            "sync_error_rate",
            "ratio",
            "events that could not be made true",
            "down",
            _share(("events.failed_total",), ("events.received_total",)),
        ),
        Figure(
            "stale_per_second",
            "per_second",
            "reads answered with what L1 held last, because Redis was away or late",
            "down",
            _rate("outage.stale_served_total"),
        ),
        Figure(
            "offline_fill",
            "ratio",
            "how full the memory for writes is that Redis has still to be told of",
            "down",
            _filled("offline.bytes", "offline.max_bytes"),
        ),
        Figure(
            "offline_lost",
            "count",
            "keys taken in memory that Redis would not take in the end",
            "down",
            lambda span: span.grown("offline.reconciled_total.lost"),
        ),
        Figure("outbox_depth", "count", "changes that wait to be published", "down", _value("events.changes.depth")),
        Figure("subscribers", "count", "subscribers of the push channels", "", _value("push.subscribers")),
        Figure("changes_per_second", "per_second", "changes told to subscribers", "", _rate("push.changes_total")),
        Figure(
            "changes_lost",
            "count",
            "messages subscribers were too slow for",
            "down",
            lambda span: span.grown("push.lost_total"),
        ),
    )
}
