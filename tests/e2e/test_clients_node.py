"""ioredis and node-redis do their everyday work through Respite: the scenarios are in `node/*.mjs`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .targets import Target

HERE = Path(__file__).resolve().parent
RUNS = (("ioredis", "ioredis", 2), ("node-redis", "redis", 2), ("node-redis", "redis", 3))
TIMEOUT_S = 60


def find_node(package: str) -> str:
    """Find node, and fail in words when it or the package is not installed: these tests are never skipped."""
    node = shutil.which("node")
    assert node, "node is not on the PATH: install Debian's nodejs and npm, or run `make test`, which does"
    assert (HERE / "node_modules" / package).is_dir(), (
        f"{package} is missing: run `npm ci` in tests/e2e, or `make test`"
    )
    return node


@pytest.mark.parametrize(("script", "package", "protocol"), RUNS, ids=[f"{run[0]}-resp{run[2]}" for run in RUNS])
def test_node_client_does_its_everyday_work(target: Target, script: str, package: str, protocol: int) -> None:
    """Every scenario of the library ends well through Respite."""
    command = [find_node(package), str(HERE / "node" / f"{script}.mjs"), str(target.port), str(protocol)]

    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0, done.stderr[-3000:]
    assert len(results) >= 10, done.stderr[-3000:]
    assert {result["name"]: result["error"] for result in results if result["error"]} == {}
