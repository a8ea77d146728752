"""Nothing that is read through Respite is older than it may be, whatever fails between it and Redis.

RESPITE_CONSISTENCY_SECONDS sets how long each server and mode is checked, RESPITE_CONSISTENCY_SEED what is chosen.
"""

from __future__ import annotations

import os
from typing import Literal

import pytest

from ..servers import Kind
from .checker import Plan, check

SECONDS = float(os.environ.get("RESPITE_CONSISTENCY_SECONDS", "15"))
SEED = int(os.environ.get("RESPITE_CONSISTENCY_SEED", "1"))


@pytest.mark.parametrize("tracking", ["redirect", "broadcast"])
def test_randomised_checker_finds_no_violation(kind: Kind, tracking: Literal["redirect", "broadcast"]) -> None:
    """Own writers, strangers, expiry, flushes, a late, cut and dying network: every read is one that may be."""
    report = check(Plan(kind, tracking, SECONDS, SEED))
    print(report)

    assert not report.violations, str(report)
    assert report.counts.reads > 500 * SECONDS
    assert report.l1["hits_total"] > report.counts.reads / 10


@pytest.mark.parametrize("rule", ["pushes", "own-writes", "expiry", "leases", "losses"])
def test_randomised_checker_finds_what_a_missing_rule_lets_through(redis7: Kind, rule: str) -> None:
    """The checker can fail: with one rule taken out of Respite it finds violations."""
    report = check(Plan(redis7, "redirect", 60.0, SEED, sabotage=rule, stop_at=1))
    print(report)

    assert report.violations
