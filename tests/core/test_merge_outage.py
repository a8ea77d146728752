"""What several workers say of an outage, as one proxy would: the state of the one who sees it worst, all counts."""

from __future__ import annotations

from typing import Any

from proxy.core.figures.merge import Figures, join_reports, retire


def _joined(*reports: dict[str, Any]) -> dict[str, Any]:
    return join_reports([Figures(index, report) for index, report in enumerate(reports)], uptime_s=10.0)


def test_join_reports_of_an_outage_says_since_when_and_why_of_those_who_see_it_worst() -> None:
    """A worker for which Redis is away for seconds, beside one for which it is up for days: away, for seconds."""
    up = {"state": "up", "since_s": 86_400.0, "why": "", "last_lasted_s": 3.0, "stale_served": {"news": 4}}
    late = {"state": "slow", "since_s": 900.0, "why": "late", "last_lasted_s": 0.0, "stale_served": {"news": 1}}
    fallback = {"name": "news", "stale_if_error_s": 30.0, "offline": "fail"}
    gone = {"state": "away", "since_s": 5.0, "why": "refused", "stale_served": {"carts": 2}, "fallbacks": [fallback]}

    joined = _joined(
        {"outage": up, "upstream": {"breaker": "closed"}},
        {"outage": late, "upstream": {"breaker": "half-open"}},
        {"outage": gone, "upstream": {"breaker": "open"}},
        {"outage": {**gone, "since_s": 6.0}, "upstream": {"breaker": "open"}},
    )

    assert joined["outage"] == {
        "state": "away",
        "since_s": 6.0,
        "why": "refused",
        "last_lasted_s": 3.0,
        "stale_served": {"news": 5, "carts": 4},
        "fallbacks": [fallback],
    }
    assert joined["upstream"] == {"breaker": "open"}
    assert _joined({"outage": up}, {"outage": {**up, "since_s": 5.0}})["outage"]["since_s"] == 86_400.0


def test_retire_keeps_what_is_counted_by_name() -> None:
    """What was served stale by class, and what Redis refused by kind, is counted still when the worker is no more."""
    report = {
        "outage": {"state": "away", "stale_served_total": 3, "stale_served": {"news": 3}, "stale_bytes": 9},
        "upstream": {"state": "up", "refusals": {"OOM": 2}},
        "commands": {"denied_by_user_total": {"web": 1}},
    }

    kept = retire(Figures(1, report), retire(Figures(1, report))).report

    assert kept == {
        "outage": {"stale_served_total": 6, "stale_served": {"news": 6}},
        "upstream": {"refusals": {"OOM": 4}},
        "commands": {"denied_by_user_total": {"web": 2}},
    }
