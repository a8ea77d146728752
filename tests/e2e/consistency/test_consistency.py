"""Nothing that is read through Respite is older than it may be, whatever fails between it and Redis.

RESPITE_CONSISTENCY_SECONDS sets how long each server and mode is checked, RESPITE_CONSISTENCY_SEED what is chosen.
"""

from __future__ import annotations

import os
from typing import Literal

import pytest

from ..servers import Kind
from .checker import Plan, check

pytestmark = pytest.mark.alone

SECONDS = float(os.environ.get("RESPITE_CONSISTENCY_SECONDS", "10"))
SEED = int(os.environ.get("RESPITE_CONSISTENCY_SEED", "1"))
TROUBLES = ("frozen", "crash", "wiped")
"""What happens to Redis in the short runs, each of it surely; fail-overs besides in the long ones."""


@pytest.mark.long("redis7-broadcast", "valkey9-redirect")
@pytest.mark.parametrize("tracking", ["redirect", "broadcast"])
def test_randomised_checker_finds_no_violation(kind: Kind, tracking: Literal["redirect", "broadcast"]) -> None:
    """Whatever is written, by whom, and whatever fails, of links and of Redis: every read is one that may be."""
    report = check(Plan(kind, tracking, SECONDS, SEED, troubles=TROUBLES))
    print(report)

    assert not report.violations, str(report)
    assert report.counts.reads > 200 * SECONDS
    assert report.hits > report.counts.reads / 20
    assert set(TROUBLES) <= set(report.faults)


SHOWN_BY = {
    "pushes": "pass",
    "own-writes": "pass",
    "replies": "pass",
    "expiry": "delay",
    "leases": "lag",
    "losses": "kill",
    "fences": "delay",
    "silence": "freeze",
}
"""Each rule that can be taken out, and the fault that it is for."""


@pytest.mark.long
@pytest.mark.parametrize("rule", SHOWN_BY)
def test_randomised_checker_finds_what_a_missing_rule_lets_through(redis7: Kind, rule: str) -> None:
    """The checker can fail: with one rule taken out of Respite it finds violations."""
    plan = Plan(redis7, "redirect", 90.0, SEED, sabotage=rule, harm=(SHOWN_BY[rule],), troubles=(), stop_at=1)
    report = check(plan)
    print(report)

    assert report.violations
