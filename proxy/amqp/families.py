"""The figures of events as Prometheus sees them. Owns names and sentences of the metrics, nothing else."""

from __future__ import annotations

from typing import Final

from proxy.core.figures.stats import Histogram, MetricFamily, Sample
from proxy.events.figures import EventFigures

_COUNTERS: Final = {
    "received": ("respite_events_received", "Events that came for the first time."),
    "redelivered": ("respite_events_redelivered", "Events that the broker delivered again."),
    "applied": ("respite_events_applied", "Events with which both tiers agree."),
    "ignored_old": ("respite_events_ignored_old", "Of these, those older than everything they name."),
    "retried": ("respite_events_retried", "Events put into a retry queue."),
    "dead": ("respite_events_dead", "Events put into the dead letter queue."),
    "garbage": ("respite_events_garbage", "Of these, messages that could not be understood."),
    "failed": ("respite_events_failed", "Of these, events that could not be made true: the sync errors."),
    "keys": ("respite_events_keys", "Keys that events removed from Redis."),
    "entries": ("respite_events_entries", "Entries that events removed from L1."),
    "fences": ("respite_events_fences", "Fences that events set."),
    "gaps": ("respite_events_gaps", "Holes in the numbers of a publisher."),
    "flushes": ("respite_events_flushes", "Times that something was dropped because its events may have been lost."),
    "reconnects": ("respite_events_reconnects", "Connections to the broker after the first."),
}
_LAG: Final = "Seconds from the publishing of an event until both tiers agreed with it."


def families(figures: EventFigures, *, now_ms: int, now: float) -> list[MetricFamily]:
    """Return every metric of events; times as for `EventFigures.report`. A depth that is not known is left out."""
    found = [
        MetricFamily(metric, "counter", text, (Sample("_total", {}, getattr(figures, name)),))
        for name, (metric, text) in _COUNTERS.items()
    ]
    held = "Seconds for which events waited because Redis was away."
    held_s = Sample("_total", {}, figures.held_s(now))
    found.append(MetricFamily("respite_events_held_seconds", "counter", held, (held_s,)))
    gauges: dict[str, tuple[float | None, str]] = {
        "respite_events_up": (figures.state == "up", "1 while events come from the broker."),
        "respite_events_blocked": (figures.is_blocked, "1 while the broker takes nothing for lack of memory or disk."),
        "respite_events_queue_depth": (figures.depth, "Events that wait in the queue."),
        "respite_events_queue_consumers": (figures.consumers, "Consumers of the queue, those of other proxies too."),
        "respite_events_dead_letters": (figures.dead_depth, "Messages in the dead letter queue."),
        "respite_events_flushes_owed": (figures.owed, "Flushes that are due and not done yet."),
        "respite_events_under_way": (figures.waiting(), "Events that came and are not acknowledged yet."),
        "respite_events_oldest_seconds": (figures.oldest_s(now_ms), "Age of the oldest of these."),
        "respite_events_sync_error_ratio": (figures.sync_errors, "Share of the events received that failed for good."),
    }
    found += [
        MetricFamily(name, "gauge", text, (Sample("", {}, float(value)),))
        for name, (value, text) in gauges.items()
        if value is not None
    ]
    if isinstance(figures.lag, Histogram):
        found.append(figures.lag.family("respite_events_lag_seconds", _LAG))
    return found
