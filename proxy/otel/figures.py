"""From our metric families to what OpenTelemetry's exporters send, point by point.

    respite_l1_hits (counter)                     -> respite.l1_hits            a sum that only rises
    respite_upstream_latency_seconds (histogram)  -> respite.upstream_latency   unit s, buckets that do not add up

A collector that writes Prometheus' names again (dots to underscores, unit and `_total` behind) writes those of
/metrics: one dashboard does for both ways. Nothing is measured here, and no instrument of the SDK is used: it would
count everything a second time, on the hot path.
Source: OpenTelemetry, "Metrics Data Model" and "Prometheus and OpenMetrics Compatibility".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from proxy.core.figures.stats import MetricFamily, Sample

_UNITS: Final = {"_seconds": "s", "_bytes": "By"}
_ALL: Final = AggregationTemporality.CUMULATIVE


def to_metrics(
    families: Iterable[MetricFamily],
    resource: Resource,
    scope: InstrumentationScope,
    *,
    began_ns: int,
    now_ns: int,
) -> MetricsData:
    """Return everything that is counted, as it is at `now_ns`; both moments are nanoseconds since 1970.

    `began_ns` is when all counters stood at 0.
    """
    metrics = [_metric(family, began_ns, now_ns) for family in families]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])


def name_and_unit(family: str) -> tuple[str, str]:
    """Return what a family is called there, and its unit, "" where it only counts."""
    suffix = next((one for one in _UNITS if family.endswith(one)), "")
    return family.removesuffix(suffix).replace("_", ".", 1), _UNITS.get(suffix, "")


def _metric(family: MetricFamily, began_ns: int, now_ns: int) -> Metric:
    name, unit = name_and_unit(family.name)
    data: Sum | Gauge | Histogram
    match family.kind:
        case "counter":
            data = Sum(_numbers(family.samples, began_ns, now_ns), _ALL, is_monotonic=True)
        case "gauge":
            data = Gauge(_numbers(family.samples, None, now_ns))
        case "histogram":
            data = Histogram(_distributions(family.samples, began_ns, now_ns), _ALL)
    return Metric(name, family.help, unit, data)


def _numbers(samples: Iterable[Sample], began_ns: int | None, now_ns: int) -> list[NumberDataPoint]:
    return [NumberDataPoint(dict(one.labels), began_ns, now_ns, float(one.value)) for one in samples]  # type: ignore[arg-type]


def _distributions(samples: Iterable[Sample], began_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        series.setdefault(labels, []).append(sample)
    return [_distribution(dict(labels), of_one, began_ns, now_ns) for labels, of_one in series.items()]


def _distribution(
    labels: Mapping[str, str], samples: Iterable[Sample], began_ns: int, now_ns: int
) -> HistogramDataPoint:
    """Take the buckets apart, which add up in Prometheus' form; the last one, +Inf, has no bound of its own."""
    bounds: list[float] = []
    counts: list[int] = []
    total = seen = 0
    sum_s = 0.0
    for sample in samples:
        match sample.suffix:
            case "_bucket":
                counts.append(int(sample.value) - seen)
                seen = int(sample.value)
                if sample.labels["le"] != "+Inf":
                    bounds.append(float(sample.labels["le"]))
            case "_count":
                total = int(sample.value)
            case "_sum":
                sum_s = sample.value
    unknown: Any = None  # of a distribution that is cumulative the least and the most are not known
    return HistogramDataPoint(labels, began_ns, now_ns, total, sum_s, counts, bounds, unknown, unknown)
