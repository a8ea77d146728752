"""Families as OpenTelemetry has them: names, units, kinds, and numbers that are the same."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, Metric, Sum
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from proxy.core.figures.stats import Histogram as OurHistogram
from proxy.core.figures.stats import MetricFamily, Sample
from proxy.otel.figures import name_and_unit, to_metrics

BEGAN_NS, NOW_NS = 1_000, 2_000


def _converted(family: MetricFamily) -> Metric:
    data = to_metrics([family], Resource({"a": "b"}), InstrumentationScope("respite"), began_ns=BEGAN_NS, now_ns=NOW_NS)
    (of_resource,) = data.resource_metrics
    (of_scope,) = of_resource.scope_metrics
    (metric,) = of_scope.metrics
    assert of_resource.resource.attributes == {"a": "b"}
    return metric


@pytest.mark.parametrize(
    ("family", "name", "unit"),
    [
        ("respite_l1_hits", "respite.l1_hits", ""),
        ("respite_upstream_latency_seconds", "respite.upstream_latency", "s"),
        ("respite_resident_memory_bytes", "respite.resident_memory", "By"),
    ],
)
def test_name_has_a_dot_and_the_unit_stands_apart(family: str, name: str, unit: str) -> None:
    """A collector that writes Prometheus' names puts the unit behind again."""
    assert name_and_unit(family) == (name, unit)


def test_counter_is_a_sum_that_only_rises() -> None:
    """Each series is a point with its labels, from when all stood at 0 until now."""
    samples = (Sample("_total", {"class": "a"}, 3.0), Sample("_total", {"class": "b"}, 4.0))

    metric = _converted(MetricFamily("respite_x", "counter", "Text.", samples))

    assert isinstance(metric.data, Sum)
    assert (metric.name, metric.description, metric.data.is_monotonic) == ("respite.x", "Text.", True)
    assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
    assert [
        (one.attributes, one.value, one.start_time_unix_nano, one.time_unix_nano) for one in metric.data.data_points
    ] == [
        ({"class": "a"}, 3.0, BEGAN_NS, NOW_NS),
        ({"class": "b"}, 4.0, BEGAN_NS, NOW_NS),
    ]


def test_gauge_is_what_it_is_now() -> None:
    """It has begun at no time."""
    metric = _converted(MetricFamily("respite_clients", "gauge", "", (Sample("", {}, 7.0),)))

    assert isinstance(metric.data, Gauge)
    (point,) = metric.data.data_points
    assert (point.value, point.start_time_unix_nano) == (7.0, None)


def test_histogram_has_each_value_in_one_bucket() -> None:
    """Buckets that add up are taken apart: together they are all that was counted; the last one has no bound."""
    ours = OurHistogram()
    for seconds in (0.0, 3e-6, 0.001, 0.001, 0.5, 5000.0):
        ours.add(seconds)

    metric = _converted(ours.family("respite_latency_seconds", "Text."))

    assert isinstance(metric.data, Histogram)
    (point,) = metric.data.data_points
    assert (point.count, point.sum) == (6, ours.sum_s)
    assert sum(point.bucket_counts) == 6
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert min(point.bucket_counts) == 0
    assert point.bucket_counts[bisect_left(point.explicit_bounds, 0.001)] == 2
    assert list(point.explicit_bounds) == sorted(point.explicit_bounds)


def test_histogram_with_labels_is_a_point_for_each() -> None:
    """Buckets of one label do not run into those of the next."""
    samples = []
    for name, counts in (("a", (1, 3)), ("b", (2, 2))):
        samples += [
            Sample("_bucket", {"command": name, "le": "0.1"}, counts[0]),
            Sample("_bucket", {"command": name, "le": "+Inf"}, counts[1]),
            Sample("_sum", {"command": name}, 1.5),
            Sample("_count", {"command": name}, counts[1]),
        ]

    metric = _converted(MetricFamily("respite_latency_seconds", "histogram", "", tuple(samples)))

    assert isinstance(metric.data, Histogram)
    assert [(one.attributes, one.count, one.bucket_counts, one.explicit_bounds) for one in metric.data.data_points] == [
        ({"command": "a"}, 3, [1, 2], [0.1]),
        ({"command": "b"}, 2, [2, 0], [0.1]),
    ]
