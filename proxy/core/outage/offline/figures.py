"""What is counted of the commands that are taken in memory, as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.core.figures.stats import MetricFamily, Sample

if TYPE_CHECKING:
    from proxy.core.outage.offline.memory import Memory


def families(memory: Memory) -> list[MetricFamily]:
    """Return the metrics of a memory."""
    report = memory.report()
    return [
        _counter(
            "respite_offline_taken", "Commands answered in memory while Redis was away.", "what", report["taken_total"]
        ),
        MetricFamily(
            "respite_offline_refused",
            "counter",
            "Writes refused while Redis was away because there was no room for them (outage.memory_bytes).",
            (Sample("_total", {}, float(report["refused_total"])),),
        ),
        _counter(
            "respite_offline_reconciled",
            "Keys that Redis was told of when it was back, by what became of them.",
            "outcome",
            report["reconciled_total"],
        ),
        _gauge("respite_offline_keys", "Keys held in memory until Redis has been told of them.", report["keys"]),
        _gauge("respite_offline_bytes", "Bytes that these keys take.", report["bytes"]),
        _gauge("respite_offline_max_bytes", "Bound of these bytes (outage.memory_bytes).", report["max_bytes"]),
    ]


def _counter(name: str, text: str, label: str, counts: dict[str, int]) -> MetricFamily:
    samples = (Sample("_total", {label: what}, float(count)) for what, count in counts.items())
    return MetricFamily(name, "counter", text, tuple(samples))


def _gauge(name: str, text: str, value: int) -> MetricFamily:
    return MetricFamily(name, "gauge", text, (Sample("", {}, float(value)),))
