"""A run against proxies that break a promise says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ..targets import ROOT

SAYS = {
    "pushes": "was acknowledged (proxy",
    "promises": "acknowledged and lost",
    "answers": "unanswered",
    "fallbacks": "error in a class with a fallback",
}
WORDS = ["--no-broker", "--seconds", "9", "--every", "4", "--seed", "2"]


@pytest.mark.long
@pytest.mark.parametrize("rule", SAYS)
def test_run_notices_a_broken_promise(rule: str) -> None:
    """Old values, writes that are said to be done, requests that nobody answers, errors where there should be none."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.chaos", *WORDS, "--only", "redis killed"],
        cwd=ROOT,
        env=os.environ | {"CHAOS_SABOTAGE": rule},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert SAYS[rule] in done.stdout
