"""The randomised checker for five minutes on every server there is, in each tracking mode.

RESPITE_SOAK_SECONDS sets how long; RESPITE_CONSISTENCY_SEED what is chosen, a new choice each time without it.
"""

from __future__ import annotations

import os
import time
from typing import Literal

import pytest

from ..e2e.conftest import kind_or_skip
from ..e2e.consistency.checker import Plan, check
from ..e2e.servers import OPTIONAL_KINDS, REQUIRED_KINDS

SECONDS = float(os.environ.get("RESPITE_SOAK_SECONDS", "300"))


@pytest.mark.parametrize("tracking", ["redirect", "broadcast"])
@pytest.mark.parametrize("name", [*REQUIRED_KINDS, *OPTIONAL_KINDS])
def test_randomised_checker_finds_no_violation_in_five_minutes(
    name: str, tracking: Literal["redirect", "broadcast"]
) -> None:
    """Every read of a long run is one that may be."""
    seed = int(os.environ.get("RESPITE_CONSISTENCY_SEED") or time.time())
    report = check(Plan(kind_or_skip(name), tracking, SECONDS, seed))
    print(report)

    assert not report.violations, str(report)
    assert report.hits > report.counts.reads / 20
