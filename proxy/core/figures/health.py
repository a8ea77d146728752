"""How the proxy is doing, in a word with its reasons, and the report of it in four parts.

    healthy    everything does what it is there for
    degraded   clients are served, but something is not as it should be: each reason is a sentence
    unhealthy  clients get errors, or what is out of date

Owns the words and the parts of /report.json; computes nothing that is not in the figures, the report or the alerts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from proxy.config.alert_conditions import format_figure

ERRORS_UNHEALTHY: Final = 0.05  # of all commands: beyond that, clients are not served
STALE_UNHEALTHY_S: Final = 5.0  # what no client may ever be given
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "cache": (
        *("hit_rate", "saved_rate", "staleness", "memory_ratio", "l1_bytes", "l1_fill", "l1_entries"),
        *("evictions_per_second", "invalidations_per_second", "tracking_pressure"),
    ),
    "queue": (
        *("amqp_up", "queue_depth", "queue_lag", "queue_growth", "events_per_second", "sync_error_rate"),
        "outbox_depth",
    ),
    "polling": ("subscribers", "changes_per_second", "changes_lost"),
    "overall": (
        *("commands_per_second", "latency_mean", "latency_p50", "latency_p90", "latency_p99", "upstream_p99"),
        *("error_rate", "clients", "upstream_up", "stale_per_second", "offline_fill", "offline_lost"),
    ),
}
"""Which part of the report a figure belongs to."""
_SECTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "cache": ("l1", "rollout", "consistency", "values", "classes"),
    "queue": ("events",),
    "polling": ("push",),
    "overall": ("upstream", "outage", "offline", "clients", "commands", "latency", "memory"),
}
"""Which sections of stats.json, counted since the start, belong to it."""


@attrs.frozen
class Health:
    """A word and why, "" when there is nothing to say."""

    state: Literal["healthy", "degraded", "unhealthy"]
    reasons: tuple[str, ...]


def assess(figures: Mapping[str, float], report: Mapping[str, Any], alerts: Iterable[Mapping[str, Any]]) -> Health:
    """Judge by the figures of the last seconds, the report, and the rows of the alerts. What is worst stands first."""
    bad = list(_bad(figures, report))
    doubtful = list(_doubtful(figures, report))
    known = {reason.partition(":")[0] for reason in (*bad, *doubtful)}
    doubtful += [row["text"] for row in alerts if row["state"] == "on" and row["name"] not in known]
    state: Literal["healthy", "degraded", "unhealthy"] = "unhealthy" if bad else "degraded" if doubtful else "healthy"
    return Health(state, (*bad, *doubtful))


def parts_of(
    figures: Mapping[str, float],
    report: Mapping[str, Any],
    health: Health,
    alerts: Sequence[Mapping[str, Any]],
    trends: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the four parts: of each its figures, over the last seconds, and its sections, since the start.

    A part has the alerts and the trends of its figures; "overall" has all of them, and the health.
    """
    parts: dict[str, dict[str, Any]] = {}
    for part, names in _PARTS.items():
        is_all = part == "overall"
        parts[part] = {
            "figures": {name: figures[name] for name in names if name in figures},
            "alerts": [row for row in alerts if row["state"] != "off" and (is_all or row["figure"] in names)],
            "trends": [row for row in trends if is_all or row["figure"] in names],
            **{name: report[name] for name in _SECTIONS[part] if name in report},
        }
    overall = {"health": health.state, "reasons": list(health.reasons), "rules": list(alerts), **parts["overall"]}
    return {**parts, "overall": overall}


def _bad(figures: Mapping[str, float], report: Mapping[str, Any]) -> Iterable[str]:
    if figures.get("upstream_up") == 0:
        why = report.get("upstream", {}).get("why") or report.get("upstream", {}).get("state", "")
        yield f"redis down: {why or 'it does not answer'}"
    if (failing := figures.get("error_rate", 0.0)) > ERRORS_UNHEALTHY:
        yield f"errors: {format_figure('error_rate', failing)} of the commands fail"
    if (stale_s := figures.get("staleness", 0.0)) > STALE_UNHEALTHY_S:
        yield f"stale data: what was served is up to {format_figure('staleness', stale_s)} out of date"


def _doubtful(figures: Mapping[str, float], report: Mapping[str, Any]) -> Iterable[str]:
    if figures.get("amqp_up") == 0:
        events = report.get("events", {})
        yield f"broker down: {events.get('why') or events.get('state', '')}; the cache goes on without events"
    outage, stale = report.get("outage", {}), figures.get("stale_per_second", 0.0)
    if stale > 0 and outage.get("state") == "slow":
        yield f"redis slow: {outage.get('why', '')}; {stale:.3g} reads a second get what L1 held last"
    l1 = report.get("l1", {})
    if l1.get("enabled") and not l1.get("serving", True) and figures.get("upstream_up") != 0:
        yield "L1 not served: the invalidation link is not proven, every read goes to Redis"
    silent = [row["index"] for row in report.get("workers", ()) if row.get("state") != "serving"]
    if silent:
        yield f"workers away: {', '.join(map(str, silent))}"
