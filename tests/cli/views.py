"""A view of a proxy that has everything: a report, courses, alerts, trends, classes, tuning, a broker."""

from __future__ import annotations

import copy
import math
from typing import Any

from proxy.cli.overview import View

from ..admin.fakes import STATS

TRENDS = [
    {
        "figure": "hit_rate",
        "direction": "down",
        "per_hour": -0.03,
        "good": False,
        "text": "hit rate falls 3 points an hour",
    },
    {
        "figure": "queue_depth",
        "direction": "up",
        "per_hour": 9e3,
        "good": False,
        "text": "queue grows, full in 12 minutes",
    },
    {
        "figure": "clients",
        "direction": "up",
        "per_hour": 9.0,
        "good": None,
        "text": "number of clients rises 20 % an hour",
    },
]
REPORT: dict[str, Any] = {
    "at": "2026-11-30T06:00:00.000Z",
    "cache": {
        "figures": {"hit_rate": 0.8123, "saved_rate": 0.85, "staleness": 0.0021, "memory_ratio": 0.61, "l1_fill": 0.99}
    },
    "queue": {"figures": {"queue_depth": 1234.0, "queue_lag": 75.0, "sync_error_rate": 0.0004}},
    "polling": {"figures": {"subscribers": 7.0, "changes_per_second": 12.5}},
    "overall": {
        "figures": {
            "commands_per_second": 45678.0,
            "latency_p50": 0.00004,
            "latency_p99": 0.0031,
            "error_rate": 0.0012,
        },
        "health": "degraded",
        "reasons": ["broker down: connection refused; the cache goes on without events"],
        "alerts": [
            {"name": "hit rate low", "state": "on", "text": "hit rate low: 81.2 % for 3 minutes, below 85 %"},
            {"name": "latency high", "state": "pending", "text": "latency high"},
            {"name": "broker down", "state": "on", "text": "broker down"},
        ],
        "trends": TRENDS,
    },
}
TUNING: dict[str, Any] = {
    "mode": "apply",
    "steps_total": 4,
    "kept_total": 2,
    "undone_total": 1,
    "ghosts": {"held": 900, "reads_total": 100_000, "more_hits_total": {"1.25": 1200, "1.5": 2100, "2": 3000}},
    "settings": [
        {
            "name": "l1.max_bytes",
            "configured": "64MiB",
            "value": "80MiB",
            "state": "trying",
            "why": "with 80MiB, 1.2% of the reads would have been hits besides, as ghosts tell",
            "expected": "hit rate +1.20 points",
        },
        {"name": "l1.admit", "configured": "auto", "value": "auto", "state": "steady", "why": ""},
        {
            "name": "ttl.hot",
            "configured": "5m",
            "value": "5m",
            "state": "suggested",
            "suggested": "375s",
            "why": "as a test",
        },
    ],
    "steps": [
        {
            "ago_s": 300.0 * (3 - number),
            "setting": "l1.max_bytes",
            "from": f"{60 + number}MiB",
            "to": f"{61 + number}MiB",
            "why": "",
            "expected": "hit rate +2.00 points",
            "measured": f"hit rate +{number}.00 points",
            "outcome": "kept" if number else "undone",
        }
        for number in range(4)
    ],
}
CLASSES = [
    {
        "name": f"class-{number}-with-a-long-name",
        "commands_total": 1_000_000 // (number + 1),
        "hits_total": 900_000 // (number + 1),
        "misses_total": 100_000 // (number + 1),
        "hit_rate": 0.9,
        "errors_total": number % 2,
        "p99_us": 1250.0,
    }
    for number in range(14)
]
COMMANDS = [{"name": name, "commands_total": 100, "errors_total": 0} for name in ("GET", "SET", "HGETALL")]


TROUBLE: dict[str, dict[str, Any]] = {
    "outage": {
        "state": "away",
        "since_s": 75.2,
        "why": "connection refused",
        "last_why": "",
        "last_lasted_s": 0.0,
        "fallbacks": [
            {"name": "news", "stale_if_error_s": 30.0, "offline": "fail"},
            {"name": "carts", "stale_if_error_s": 5.0, "offline": "memory"},
        ],
        "stale_entries": 1200,
        "stale_bytes": 1_234_567,
        "stale_max_bytes": 32 << 20,
        "stale_served_total": 12_345,
        "stale_served": {"carts": 345, "news": 12_000},
    },
    "offline": {
        "keys": 71,
        "bytes": 14_000_000,
        "max_bytes": 16 << 20,
        "waiting": 2,
        "taken_total": {"read": 120, "write": 300},
        "refused_total": 3,
        "reconciled_total": {"written": 12, "older": 4, "deleted": 1, "lost": 2},
    },
    "upstream": {
        "state": "unreachable",
        "why": "connection refused",
        "breaker": "open",
        "breaker_opened_total": 3,
        "retried_total": 4,
        "refusals": {"OOM": 3, "LOADING": 12},
    },
    "clients": {
        "connected": 42,
        "rejected_total": 3,
        "crowded_total": 2,
        "pins_refused_total": 1,
        "logins_failed_total": 5,
        "logins_refused_total": 1,
        "killed_unproven_total": 2,
        "handshakes_failed_total": 7,
        "killed_unread_total": 8,
        "protocol_errors_total": 9,
        "throttled_total": 44,
    },
    "commands": {"denied_total": 10, "denied_by_user_total": {"jobs": 4, "web": 6}},
    "doors": {"state": "draining"},
}
"""Everything that can be told of outages and doors, as the sections of /stats.json have it."""


def full_view(**stats: Any) -> View:
    """Return the view; sections of the figures may be replaced."""
    figures = copy.deepcopy(STATS) | {
        "events": {"state": "reconnecting", "url": "amqp://mq:5672//", "depth": 1234},
        "values": {"enabled": True, "saved": 0.39},
        "push": {"subscribers": 7},
        "tuning": TUNING,
        "classes": CLASSES,
        "commands_by_name": COMMANDS,
    }
    course = [None] * 10 + [abs(math.sin(at / 9)) for at in range(90)]
    series = dict.fromkeys(("hit_rate", "latency_p99", "commands_per_second", "error_rate", "queue_depth"), course)
    return View(figures | stats, REPORT, series)
