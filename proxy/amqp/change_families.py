"""The figures of announced changes as Prometheus sees them. Owns names and sentences of the metrics, nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from proxy.core.figures.stats import MetricFamily, Sample

_COUNTERS: Final = {
    "announced_total": ("respite_changes_announced", "Writes whose notice entered the outbox with them."),
    "withdrawn_total": ("respite_changes_withdrawn", "Notices removed: Redis refused the write, or nothing changed."),
    "coarse_total": ("respite_changes_coarse", "Writes announced by class, because the outbox was full."),
    "unannounced_total": ("respite_changes_unannounced", "Writes that went without a notice."),
    "published_total": ("respite_changes_published", "Notices that the broker has confirmed."),
    "failed_total": ("respite_changes_failed", "Notices that the broker refused, or was lost with: published again."),
}
_GAUGES: Final = {
    "depth": ("respite_outbox_depth", "Notices that wait in the outbox, of all databases."),
    "oldest_s": ("respite_outbox_oldest_seconds", "Age of the oldest of these."),
}


def change_families(report: Mapping[str, Any]) -> Iterable[MetricFamily]:
    """Return the metrics of a report of changes; what it does not have is left out."""
    for field, (name, text) in _COUNTERS.items():
        if field in report:
            yield MetricFamily(name, "counter", text, (Sample("_total", {}, float(report[field])),))
    for field, (name, text) in _GAUGES.items():
        if field in report:
            yield MetricFamily(name, "gauge", text, (Sample("", {}, float(report[field])),))
