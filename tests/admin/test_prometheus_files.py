"""The files for Prometheus and Grafana: they say the same as the defaults, and name only metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import yaml

from proxy.admin.metrics import render_metrics
from proxy.amqp.families import families
from proxy.config.alerts import DEFAULTS
from proxy.config.endpoint import parse_endpoint
from proxy.config.load import default_settings
from proxy.config.units import parse_seconds
from proxy.core.feed.families import feed_families
from proxy.core.figures.stats import Histogram
from proxy.events.figures import EventFigures
from proxy.net.worker import Worker

CONF = Path(__file__).parents[2] / "conf"
RULES = yaml.safe_load((CONF / "prometheus" / "rules.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((CONF / "grafana" / "respite.json").read_text(encoding="utf-8"))
EXPRESSIONS = {
    "hit_rate": "rate(respite_l1_hits_total[5m]) / "
    "(rate(respite_l1_hits_total[5m]) + rate(respite_l1_misses_total[5m]))",
    "latency_p99": "histogram_quantile(0.99, rate(respite_latency_seconds_bucket[5m]))",
    "error_rate": "rate(respite_commands_failed_total[5m]) / rate(respite_commands_total[5m])",
    "staleness": "histogram_quantile(0.99, rate(respite_staleness_seconds_bucket[5m]))",
    "sync_error_rate": "rate(respite_events_failed_total[5m]) / rate(respite_events_received_total[5m])",
    "memory_ratio": "rate(respite_values_stored_bytes_total[5m]) / rate(respite_values_raw_bytes_total[5m])",
    "queue_growth": "deriv(respite_events_queue_depth[5m])",
    "queue_lag": "respite_events_oldest_seconds",
    "upstream_up": "respite_upstream_up",
    "offline_fill": "respite_offline_bytes / respite_offline_max_bytes",
    "offline_lost": 'increase(respite_offline_reconciled_total{outcome="lost"}[5m])',
    "amqp_up": "respite_events_up",
}
"""Figures as Prometheus computes them."""


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """Return the name of every sample of a proxy with everything."""
    settings = default_settings()
    listen = attrs.evolve(settings.listen, urls=(parse_endpoint("redis://127.0.0.1:0", default_port=0),))
    found: list[bytes] = []

    async def collect() -> None:
        worker = Worker(attrs.evolve(settings, listen=listen), parse_endpoint("redis://127.0.0.1:1"))
        events = EventFigures(Histogram(), depth=0, consumers=0, dead_depth=0)
        counts = dict.fromkeys(
            ("subscribers", "channels", "changes_total", "delivered_total", "lost_total", "gaps_total"), 0
        )
        push = {**counts, "buffered": 0, "buffered_bytes": 0}
        found.append(render_metrics([*worker.families(), *families(events, now_ms=0, now=0.0), *feed_families(push)]))
        for listener in worker.listeners:
            listener.close()

    trio.run(collect)
    (text,) = found
    names = set(re.findall(r"^(respite_\w+)", text.decode(), re.MULTILINE))
    # A family that has no sample yet still says its name: buckets of a histogram with labels come with the first one.
    for name, kind in re.findall(r"^# TYPE (respite_\w+) (\w+)$", text.decode(), re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    return names


def _named(expression: str) -> set[str]:
    return set(re.findall(r"respite_\w+", expression))


def _panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", [])


def _queries() -> list[str]:
    targets = [target["expr"] for panel in _panels() for target in panel.get("targets", [])]
    variables = [one["definition"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"]
    return targets + variables


def test_rules_are_the_defaults() -> None:
    """Each default has its rule: the same figure, comparison, bound and patience; and no rule is besides."""
    said = {rule["labels"]["rule"]: (rule["expr"], parse_seconds(str(rule["for"]))) for rule in RULES}
    expected = {}
    for one in DEFAULTS:
        assert one.when is not None
        condition = f"{EXPRESSIONS[one.when.figure]} {one.when.comparison} {one.when.bound:g}"
        expected[one.name] = (condition, one.for_s)

    assert said == expected
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


def test_rules_name_only_metrics_that_there_are(metrics: set[str]) -> None:
    """A rule about a metric that nobody exports would be silent for ever."""
    assert {name for rule in RULES for name in _named(rule["expr"])} <= metrics


def test_rules_say_in_words_what_is_wrong_and_what_to_do() -> None:
    """Somebody is woken by it."""
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_dashboard_queries_name_only_metrics_that_there_are(metrics: set[str]) -> None:
    """Every panel shows something."""
    assert {name for query in _queries() for name in _named(query)} <= metrics
    assert len(_queries()) > 40


def test_dashboard_is_what_grafana_loads() -> None:
    """Ids are unique, panels do not lie on each other, each has a title and words, and the data source is chosen."""
    panels = list(_panels())
    shown = [panel for panel in panels if panel["type"] != "row"]
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert {panel["type"] for panel in panels} == {"row", "stat", "timeseries"}
    assert all(panel["title"] and panel["description"] for panel in shown)
    assert {panel["datasource"]["uid"] for panel in shown} == {"${datasource}"}
    assert [one["name"] for one in DASHBOARD["templating"]["list"]] == ["datasource", "job", "instance"]
    assert {"uid", "title", "schemaVersion", "version", "time", "annotations"} <= DASHBOARD.keys()
    for panel in shown:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_dashboard_brackets_of_queries_are_closed() -> None:
    """A query with a bracket too many shows an error instead of a line."""
    pairs = {")": "(", "]": "[", "}": "{"}
    for query in _queries():
        opened: list[str] = []
        for character in re.sub(r'"[^"]*"', "", query):
            if character in pairs.values():
                opened.append(character)
            elif character in pairs:
                assert opened.pop() == pairs[character], query
        assert opened == [], query
