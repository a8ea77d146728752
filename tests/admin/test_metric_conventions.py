"""/metrics of a running worker keeps Prometheus' conventions: read by the library's own parsers, then looked at."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import attrs
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from proxy.admin.metrics import _Collector, render_metrics
from proxy.amqp.change_families import change_families
from proxy.amqp.families import families as event_families
from proxy.config.model import ClassSettings
from proxy.core.feed.families import feed_families
from proxy.core.feed.feed import Feed
from proxy.core.figures.stats import Histogram, MetricFamily
from proxy.events.figures import EventFigures
from proxy.values.rules import Rules

from ..core.world import World, make_settings, running_world

UNITS = ("seconds", "bytes", "ratio")
NOT_UNITS = ("milliseconds", "ms", "kilobytes", "mb", "percent", "minutes", "us")


@pytest.fixture(scope="module")
def families() -> list[MetricFamily]:
    """Return every metric of a worker that has seen some traffic, of a broker and of announced changes."""
    settings = attrs.evolve(make_settings(), classes=(ClassSettings("tickets", ("ticket:*",)),))
    with running_world(settings) as world:
        traffic(world)
        figures = EventFigures(Histogram())
        figures.lag.add(0.01)
        figures.depth = figures.consumers = figures.dead_depth = 3
        changes = {"announced_total": 1, "depth": 2, "oldest_s": 0.5}
        return [
            *world.worker.families(),
            *event_families(figures, now_ms=0, now=0.0),
            *change_families(changes),
            *feed_families(Feed(settings.push, Rules(()), now_ms=lambda: 0, epoch="e").report()),
        ]


def traffic(world: World) -> None:
    """Ask for something of each sort."""
    client = world.client()
    world.redis.foreign("SET", "ticket:1", "x")
    for _ in range(5):
        client.ask("GET", "ticket:1")
        client.ask("SET", "user:1", "x")
        client.ask("LLEN", "ticket:1")
    world.pass_time(2.0)


def series(sample: Sample) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return what makes a series."""
    return sample.name, tuple(sorted(sample.labels.items()))


def test_metrics_are_read_by_the_official_parser(families: list[MetricFamily]) -> None:
    """Everything comes back: each family once, with a sentence, and no series twice."""
    read = list(text_string_to_metric_families(render_metrics(families).decode()))

    assert Counter(family.name for family in read).most_common(1)[0][1] == 1
    assert [family.name for family in read] == [family.name for family in families]
    assert all(re.fullmatch(r"[A-Z1].*\.", family.documentation) for family in read)
    assert {family.name: family.type for family in read} == {family.name: family.kind for family in families}
    counted = Counter(series(sample) for family in read for sample in family.samples)
    assert counted.most_common(1)[0][1] == 1


def test_metrics_are_read_by_the_strict_openmetrics_parser(families: list[MetricFamily]) -> None:
    """It refuses what Prometheus lets pass: wrong suffixes, buckets that fall, series that are not together."""
    registry = CollectorRegistry()
    registry.register(_Collector(families))

    read = list(parse_openmetrics(generate_openmetrics(registry).decode()))

    assert [family.name for family in read] == [family.name for family in families]


def test_metrics_names_are_by_convention(families: list[MetricFamily]) -> None:
    """Prefix, small letters, base units at the end, _total only where it is added, no label in the name."""
    for family in families:
        name = family.name
        assert re.fullmatch(r"respite(_[a-z0-9]+)+", name), name
        assert not name.endswith(("_total", "_count", "_sum", "_bucket")), name
        assert not set(name.split("_")) & set(NOT_UNITS), name
        for unit in UNITS:
            assert f"_{unit}_" not in name.removeprefix("respite"), f"{name}: the unit stands last"
        if family.kind == "histogram":
            assert name.endswith("_seconds"), name
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= {"le", "class", "command", "kind", "tier", "what", "tuner", "setting", "outcome"}, name


def test_metrics_histograms_are_cumulative_and_whole(families: list[MetricFamily]) -> None:
    """Buckets rise to +Inf, which is the count, for each set of labels."""
    for family in families:
        if family.kind != "histogram":
            continue
        buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)
        counts: dict[tuple[tuple[str, str], ...], float] = {}
        for sample in family.samples:
            rest = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
            if sample.suffix == "_bucket":
                buckets[rest].append((float(sample.labels["le"]), sample.value))
            elif sample.suffix == "_count":
                counts[rest] = sample.value
        assert buckets.keys() == counts.keys()
        for rest, found in buckets.items():
            assert found == sorted(found)
            assert [value for _, value in found] == sorted(value for _, value in found)
            assert found[-1] == (float("inf"), counts[rest])


def test_metrics_by_class_command_and_link_are_there(families: list[MetricFamily]) -> None:
    """Each with the names that it has seen."""
    named = {family.name: family for family in families}

    def value(name: str, **labels: str) -> float:
        return next(sample.value for sample in named[name].samples if sample.labels == labels)

    assert value("respite_class_hits", **{"class": "tickets"}) == 4
    assert value("respite_class_misses", **{"class": "tickets"}) == 6
    assert value("respite_class_errors", **{"class": "tickets"}) == 5
    assert value("respite_command_calls", command="SET") == 5
    assert value("respite_command_hits", command="GET") == 4
    assert value("respite_link_commands", kind="data") > 0
    assert value("respite_links", kind="invalidation") == 1
    assert sum(sample.value for sample in named["respite_latency_seconds"].samples if sample.suffix == "_count") > 0
