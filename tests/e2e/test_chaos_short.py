"""Twenty seconds of chaos: what `make soak` does for half an hour, with every kind of client."""

from __future__ import annotations

import subprocess
import sys

from .targets import ROOT

FAULTS = "redis killed,redis frozen,links silent,links killed,worker killed"
TIMEOUT_S = 150


def test_chaos_loses_nothing_and_answers_everybody() -> None:
    """Redis, links and a worker fall: each request is answered, no acknowledged write is lost or doubled."""
    # Not in this process: a network of its own is for a whole process. The bounds are for a busy machine, and for
    # faults that come so soon one after the other.
    words = ["--no-broker", "--seconds", "20", "--every", "3.6", "--seed", "5", "--pause", "0.2"]
    words += ["--recovery", "6", "--outside", "0.05"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.chaos", *words, "--only", FAULTS],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is wrong" in done.stdout
    assert all(f"\n{name} " in done.stdout for name in FAULTS.split(",")), done.stdout
