"""Figures over a span: rates and shares of what grew in it, quantiles of what was counted in it, nothing invented."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.figures.snapshot import FIGURES, Snapshot, read_figures
from proxy.core.figures.stats import Histogram

from .test_report import Reported, build_report


def filled(*seconds: float) -> Histogram:
    """Count durations."""
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    return histogram


def report(**sections: dict[str, Any]) -> dict[str, Any]:
    """Return a report with some sections."""
    return {"uptime_s": 100.0, **sections}


def test_figures_of_a_span_are_of_what_happened_in_it() -> None:
    """What was counted before does not weigh on what is told now."""
    before = Snapshot(
        10.0,
        report(
            l1={"hits_total": 1_000, "misses_total": 9_000, "joined_total": 0, "evictions_total": 5},
            commands={"total": 20_000, "errors_total": 500},
            values={"raw_bytes_total": 1_000, "stored_bytes_total": 1_000},
        ),
        {"waited": filled(*[0.5] * 100), "latency": filled(0.5)},
    )
    waited = filled(*[0.5] * 100, *[0.001] * 98, 0.1, 0.1)
    now = Snapshot(
        20.0,
        report(
            l1={"hits_total": 1_090, "misses_total": 9_010, "joined_total": 5, "evictions_total": 25},
            commands={"total": 20_200, "errors_total": 502},
            values={"raw_bytes_total": 2_000, "stored_bytes_total": 1_400},
        ),
        {"waited": waited, "latency": filled(0.5)},
    )

    found = read_figures(now, before)

    assert found["hit_rate"] == pytest.approx(0.9)
    assert found["saved_rate"] == pytest.approx(0.95)
    assert found["commands_per_second"] == pytest.approx(20.0)
    assert found["error_rate"] == pytest.approx(0.01)
    assert found["memory_ratio"] == pytest.approx(0.4)
    assert found["evictions_per_second"] == pytest.approx(2.0)
    assert found["latency_p50"] == pytest.approx(0.001, rel=0.13)
    assert found["latency_p99"] == pytest.approx(0.1, rel=0.13)
    assert found["latency_mean"] == pytest.approx(0.00298, rel=0.01)
    assert "upstream_p99" not in found  # Redis was asked nothing in between
    now.report["rollout"] = {"mode": "shadow", "percent": 100.0}
    shadow = read_figures(now, before)
    assert shadow["hit_rate"] == found["hit_rate"]
    assert "saved_rate" not in shadow  # every one of them was sent


def test_figures_of_an_idle_proxy_are_only_those_that_are_known() -> None:
    """No reads, no hit rate; no broker, no queue; no bound, no pressure. Not 0: an alert would go off."""
    idle = Snapshot(
        1.0,
        report(
            l1={"hits_total": 5, "misses_total": 5, "bytes": 10, "max_bytes": 100, "entries": 1},
            commands={"total": 10, "errors_total": 0},
            upstream={"state": "up", "tracked_keys": 5, "tracked_max_keys": 0},
            events={"state": "off"},
            clients={"connected": 0},
        ),
    )

    found = read_figures(Snapshot(2.0, idle.report), idle)

    assert found == {
        "commands_per_second": 0.0,
        "l1_bytes": 10.0,
        "l1_fill": 0.1,
        "l1_entries": 1.0,
        "clients": 0.0,
        "upstream_up": 1.0,
    }


def test_figures_without_an_earlier_look_are_those_since_the_start() -> None:
    """The first report of a proxy that has run for a while is about all of that while."""
    now = Snapshot(
        5_000.0,
        report(l1={"hits_total": 3, "misses_total": 1}, commands={"total": 50, "errors_total": 0}),
        {"waited": filled(0.01)},
    )

    found = read_figures(now, None)

    assert (found["hit_rate"], found["commands_per_second"]) == (0.75, 0.5)
    assert found["latency_p50"] == pytest.approx(0.01, rel=0.13)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ({"upstream": {"state": "unreachable"}}, "upstream_up", 0.0),
        ({"upstream": {"tracked_keys": 30, "tracked_max_keys": 40}}, "tracking_pressure", 0.75),
        ({"events": {"state": "connecting"}}, "amqp_up", 0.0),
        ({"events": {"state": "up", "depth": 7}}, "queue_depth", 7.0),
        ({"events": {"state": "up", "oldest_s": 1.5}}, "queue_lag", 1.5),
        ({"events": {"received_total": 200, "failed_total": 1}}, "sync_error_rate", 0.005),
        ({"events": {"changes": {"depth": 3}}}, "outbox_depth", 3.0),
        ({"outage": {"stale_served_total": 5}}, "stale_per_second", 0.05),
        ({"offline": {"bytes": 30, "max_bytes": 40}}, "offline_fill", 0.75),
        ({"offline": {"reconciled_total": {"written": 9, "lost": 2}}}, "offline_lost", 2.0),
        ({"push": {"subscribers": 4}}, "subscribers", 4.0),
        ({"push": {"lost_total": 2}}, "changes_lost", 2.0),
        ({"consistency": {"verified_total": 3}}, "staleness", 0.0),
    ],
)
def test_figures_are_read_from_their_place(section: dict[str, Any], name: str, value: float) -> None:
    """Each where stats.json has it."""
    assert read_figures(Snapshot(1.0, report(**section)), None)[name] == value


def test_figures_unknown_depth_is_absent() -> None:
    """A queue that cannot be asked now has no depth, which is not an empty queue."""
    assert "queue_depth" not in read_figures(Snapshot(1.0, report(events={"state": "connecting", "depth": None})), None)


def test_figures_of_a_staleness_that_was_seen() -> None:
    """The p99 of what was stale; nothing when nothing was compared."""
    section = {"consistency": {"verified_total": 0}}
    assert "staleness" not in read_figures(Snapshot(1.0, report(**section)), None)

    found = read_figures(Snapshot(1.0, report(**section), {"staleness": filled(0.02)}), None)

    assert found["staleness"] == pytest.approx(0.02, rel=0.13)


def test_figures_of_a_worker_are_known_by_their_names() -> None:
    """A real report has the sections that the figures are read from: none is looked for in a wrong place."""
    worker = Reported()
    worker.stats.hits, worker.stats.misses, worker.stats.commands, worker.stats.verified = 3, 1, 5, 1
    worker.stats.waited.add(0.001)
    worker.stats.latency.add(0.001)
    snapshot = Snapshot(1.0, build_report(worker), worker.stats.histograms())

    found = read_figures(snapshot, None)

    needs_more = {name for name in FIGURES if name.startswith(("queue", "events", "sync", "outbox", "amqp", "offline"))}
    assert set(found) == set(FIGURES) - needs_more - {"subscribers", "changes_per_second", "changes_lost"}


def test_figures_have_sentences_and_units() -> None:
    """What people read about them begins small and has no full stop: it stands behind the name."""
    for name, figure in FIGURES.items():
        assert figure.name == name
        assert figure.about[0].islower() or figure.about.startswith(("L1", "Redis"))
        assert not figure.about.endswith(".")
        assert figure.good in ("up", "down", "")
