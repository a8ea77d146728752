"""Rows that have a name are joined by it: classes, commands, kinds of links, the hottest keys."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.figures.merge import Figures, join_reports, retire
from proxy.core.figures.stats import Histogram


def _histogram(*seconds: float) -> Histogram:
    histogram = Histogram()
    for value in seconds:
        histogram.add(value)
    return histogram


def _row(name: str, hits: int, misses: int, **more: float) -> dict[str, Any]:
    latency = {"mean_us": 1.0, "p50_us": 1.0, "p90_us": 1.0, "p99_us": 1.0}
    return {"name": name, "hits_total": hits, "misses_total": misses, "hit_rate": 0.5, **latency, **more}


def test_join_reports_adds_up_classes_commands_and_kinds_of_links() -> None:
    """One row a name: counts are added, hit rates and latencies computed again from their parts."""
    first = {"classes": [_row("a", 90, 10), _row("b", 1, 1)], "link_kinds": [{"name": "data", "up": 1, "mean_us": 2.0}]}
    second = {"classes": [_row("a", 0, 100)], "link_kinds": [{"name": "data", "up": 2, "mean_us": 4.0}]}
    counted = [
        Figures(0, first, (), {"classes/a": _histogram(*[0.001] * 9), "link_kinds/data": _histogram(0.001)}),
        Figures(1, second, (), {"classes/a": _histogram(0.1), "link_kinds/data": _histogram(0.003)}),
    ]

    joined = join_reports(counted, uptime_s=1.0)

    whole = _histogram(*[0.001] * 9, 0.1)
    assert joined["classes"][0] == {
        **_row("a", 90, 110, hit_rate=0.45),
        "mean_us": pytest.approx(10_900.0),
        **{f"p{share}_us": whole.quantile_us(share / 100) for share in (50, 90, 99)},
    }
    assert joined["classes"][1]["hits_total"] == 1
    assert joined["link_kinds"] == [{"name": "data", "up": 3, "mean_us": pytest.approx(2_000.0)}]


def test_join_reports_shows_the_first_few_of_all_workers() -> None:
    """The hottest keys of all, the hits of one key in several added up; of what happened the last, whosever it was."""
    hot = [{"name": f"k{at}", "db": 1, "uses": 10, "per_second": float(at), "idle_s": 2.0} for at in range(20)]
    other = [{"name": "k3", "db": 1, "uses": 5, "per_second": 30.0, "idle_s": 1.0}]
    recent = [{"key": "k", "cause": "push", "ago_s": float(at)} for at in range(0, 80, 2)]
    later = [{"key": "x", "cause": "push", "ago_s": float(at)} for at in range(1, 81, 2)]

    joined = join_reports(
        [Figures(0, {"hot": hot, "recent": recent}), Figures(1, {"hot": other, "recent": later})], uptime_s=1.0
    )

    assert len(joined["hot"]) == 20
    assert joined["hot"][0] == {"name": "k3", "db": 1, "uses": 15, "per_second": 33.0, "idle_s": 1.0}
    assert [row["ago_s"] for row in joined["recent"]] == [float(at) for at in range(50)]
    assert [row["worker"] for row in joined["recent"][:3]] == [0, 1, 0]


def test_retire_keeps_the_sums_by_name() -> None:
    """Of a worker that has died, what it counted of a class stays; the links it had are no more."""
    report = {"classes": [_row("a", 3, 1)], "links": [{"id": "data-0", "commands_total": 5}], "hot": [{"name": "k"}]}
    histograms = {"classes/a": _histogram(0.001)}
    retired = retire(Figures(0, report, (), histograms))

    joined = join_reports([Figures(1, {"classes": [_row("a", 1, 1)]}, (), histograms), retired], uptime_s=1.0)

    assert retired.report == {"classes": [{"name": "a", "hits_total": 3, "misses_total": 1}]}
    assert (joined["classes"][0]["hits_total"], joined["classes"][0]["hit_rate"]) == (4, 0.666667)


def test_retire_keeps_totals_by_name() -> None:
    """What is counted one by one under a name that ends in _total is as cumulative as one number."""
    ttl = {"decided_total": {"hot": 100, "why": "x"}, "base_s": 5}
    report = {"values": {"ttl": ttl}, "tuning": {"ghosts": {"held": 3, "more_hits_total": {"1.25": 50}}}}

    assert retire(Figures(0, report)).report == {
        "values": {"ttl": {"decided_total": {"hot": 100}}},
        "tuning": {"ghosts": {"more_hits_total": {"1.25": 50}}},
    }
