"""Half an hour of chaos on each server, a fault every ten seconds, with a broker.

RESPITE_SOAK_SECONDS sets how long; RESPITE_CHAOS_SEED what falls when, a new choice each time without it. What
the run says goes to standard output: `pytest -s` shows it as it comes, a failure with the line that repeats it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from ..e2e.conftest import kind_or_skip
from ..e2e.servers import REQUIRED_KINDS
from ..e2e.targets import ROOT

SECONDS = float(os.environ.get("RESPITE_SOAK_SECONDS", "1800"))


@pytest.mark.parametrize("name", REQUIRED_KINDS)
def test_chaos_for_half_an_hour(name: str) -> None:
    """Every request answered, no acknowledged write lost or doubled, nothing too stale, nobody grew."""
    kind_or_skip(name)
    seed = os.environ.get("RESPITE_CHAOS_SEED") or str(int(time.time()) % 1_000_000)
    words = ["--kind", name, "--seconds", f"{SECONDS:g}", "--every", "10", "--seed", seed, "--show", "20"]

    done = subprocess.run([sys.executable, "-m", "tests.e2e.chaos", *words], cwd=ROOT, check=False)

    assert done.returncode == 0, f"repeat it with: python -m tests.e2e.chaos {' '.join(words)}"
