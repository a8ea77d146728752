"""The figures of the change feed, as metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from proxy.core.figures.stats import MetricFamily, Sample

_GAUGES: Final = (
    ("subscribers", "Clients that listen to channels, streams and polls under way."),
    ("channels", "Channels that somebody listens to, or did a moment ago."),
    ("buffered_bytes", "Memory of messages that are kept for those who lag or come back."),
)
_COUNTERS: Final = (
    ("changes", "Changes that were told in at least one channel."),
    ("delivered", "Messages taken for subscribers."),
    ("lost", "Messages that subscribers were too slow for, which they were told."),
    ("gaps", "Times that changes may have been missed, which all subscribers were told."),
)


def feed_families(report: Mapping[str, Any]) -> Iterator[MetricFamily]:
    """Yield the metrics of a report of `Feed.report`."""
    for name, about in _GAUGES:
        yield MetricFamily(f"respite_push_{name}", "gauge", about, (Sample("", {}, float(report[name])),))
    for name, about in _COUNTERS:
        sample = Sample("_total", {}, float(report[f"{name}_total"]))
        yield MetricFamily(f"respite_push_{name}", "counter", about, (sample,))
