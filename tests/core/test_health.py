"""How the proxy is said to be doing, and the four parts of the report."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.figures.health import Health, assess, parts_of
from proxy.core.figures.history import WATCHED

REPORT: dict[str, Any] = {
    "l1": {"enabled": True, "serving": True, "hits_total": 5},
    "upstream": {"state": "up", "why": ""},
    "events": {"state": "up", "why": ""},
    "push": {"subscribers": 2},
    "commands": {"total": 9},
}
FINE = {"upstream_up": 1.0, "amqp_up": 1.0, "error_rate": 0.0, "staleness": 0.001}


def _alert(name: str, figure: str = "hit_rate", state: str = "on") -> dict[str, Any]:
    return {"name": name, "state": state, "figure": figure, "text": f"{name}: words"}


def test_assess_with_nothing_wrong_is_healthy() -> None:
    """No reason, no word; so it is when nothing is known yet."""
    assert assess(FINE, REPORT, [_alert("a", state="pending")]) == Health("healthy", ())
    assert assess({}, {}, []) == Health("healthy", ())


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        ({"upstream_up": 0.0}, "redis down: refused"),
        ({"error_rate": 0.2}, "errors: 20% of the commands fail"),
        ({"staleness": 6.0}, "stale data: what was served is up to 6s out of date"),
    ],
)
def test_assess_when_clients_are_not_served_right_is_unhealthy(figures: dict[str, float], reason: str) -> None:
    """Errors, or what is out of date, whatever else is fine."""
    report = {**REPORT, "upstream": {"state": "down", "why": "refused"}}

    assert assess({**FINE, **figures}, report, []) == Health("unhealthy", (reason,))


@pytest.mark.parametrize(
    ("figures", "report", "reason"),
    [
        (
            {"amqp_up": 0.0},
            {"events": {"state": "connecting", "why": "refused"}},
            "broker down: refused; the cache goes on without events",
        ),
        (
            {},
            {"l1": {"enabled": True, "serving": False}},
            "L1 not served: the invalidation link is not proven, every read goes to Redis",
        ),
        (
            {"stale_per_second": 12.34},
            {"outage": {"state": "slow", "why": "it says LOADING"}},
            "redis slow: it says LOADING; 12.3 reads a second get what L1 held last",
        ),
        (
            {},
            {"workers": [{"index": 0, "state": "serving"}, {"index": 1, "state": "silent"}]},
            "workers away: 1",
        ),
    ],
)
def test_assess_when_something_is_missing_is_degraded(
    figures: dict[str, float], report: dict[str, Any], reason: str
) -> None:
    """Clients are served; a sentence says what is not as it should be."""
    assert assess({**FINE, **figures}, {**REPORT, **report}, []) == Health("degraded", (reason,))


def test_assess_says_alerts_that_are_on_and_nothing_twice() -> None:
    """An alert about what is said already adds nothing; what is worst stands first."""
    alerts = [_alert("redis down", "upstream_up"), _alert("hit rate low"), _alert("errors", state="pending")]

    assert assess(FINE, REPORT, alerts[1:]) == Health("degraded", ("hit rate low: words",))
    health = assess({**FINE, "upstream_up": 0.0}, REPORT, alerts)
    assert health.state == "unhealthy"
    assert [reason.partition(":")[0] for reason in health.reasons] == ["redis down", "hit rate low"]


@pytest.mark.parametrize(("state", "up", "reasons"), [("away", 0.0, ["redis down"]), ("up", 1.0, [])])
def test_assess_what_was_served_while_redis_was_away_is_no_reason_of_its_own(
    state: str, up: float, reasons: list[str]
) -> None:
    """It is said that Redis is down; and once it is back, the last seconds of that are not said to be slow."""
    figures = {**FINE, "upstream_up": up, "stale_per_second": 5.0}

    health = assess(figures, {**REPORT, "outage": {"state": state}}, [])

    assert [reason.partition(":")[0] for reason in health.reasons] == reasons


def test_assess_l1_that_is_switched_off_is_no_reason() -> None:
    """Whoever turned it off knows."""
    assert assess(FINE, {"l1": {"enabled": False, "serving": False}}, []).state == "healthy"


def test_parts_are_the_four_with_their_figures_sections_alerts_and_trends() -> None:
    """Each has what belongs to it; overall has every alert and trend, and the health."""
    figures = dict.fromkeys(WATCHED, 1.0)
    alerts = [_alert("a", "queue_depth"), _alert("b", "hit_rate", state="off")]
    trends = [{"figure": "l1_fill", "text": "L1 grows"}]

    parts = parts_of(figures, REPORT, Health("degraded", ("why",)), alerts, trends)

    assert list(parts) == ["cache", "queue", "polling", "overall"]
    assert sorted(name for part in parts.values() for name in part["figures"]) == sorted(WATCHED)
    assert parts["cache"]["l1"] == REPORT["l1"]
    assert parts["queue"]["events"] == REPORT["events"]
    assert parts["polling"]["push"] == REPORT["push"]
    assert [parts[part]["alerts"] for part in parts] == [[], alerts[:1], [], alerts[:1]]
    assert [parts[part]["trends"] for part in parts] == [trends, [], [], trends]
    overall = parts["overall"]
    assert (overall["health"], overall["reasons"], overall["rules"]) == ("degraded", ["why"], alerts)
