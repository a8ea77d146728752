"""Our figures in the Prometheus text format.

Owns the translation from `MetricFamily` values to prometheus-client's. That library runs only while a scrape is being
answered, over a registry that lives as long as the answer: its own counters cost ten times ours on the hot path, and
its global registry would add figures nobody declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import attrs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric

from proxy.core.figures.stats import MetricFamily

# What `generate_latest` writes in every version of the library we allow; its own constant names another one since 0.22.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def render_metrics(families: Iterable[MetricFamily]) -> bytes:
    """Write families in the order given; a counter's name stands without `_total`, which is its samples' suffix.

    Source: Prometheus exposition formats, "Text-based format".
    """
    registry = CollectorRegistry()
    registry.register(_Collector(families))
    return generate_latest(registry)


@attrs.frozen(eq=False)
class _Collector:
    families: Iterable[MetricFamily]

    def collect(self) -> Iterator[Metric]:
        for family in self.families:
            metric = Metric(family.name, family.help, family.kind)
            for sample in family.samples:
                metric.add_sample(family.name + sample.suffix, dict(sample.labels), sample.value)
            yield metric
