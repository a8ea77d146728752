"""`python -m tests.fuzz`, as `make fuzz` runs it: each target in a process of its own, one after the other.

--seconds 60 --seed 1                  all targets, 60 s together
requests replies --inputs 1000000      two of them, a million inputs each
requests --input FILE                  one input again
--seconds 600 --grow                   and keep in corpus/ what reached new lines
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import trio
from trio.testing import MockClock

from . import corpus
from .findings import Finding
from .fuzzer import GROWTH_BYTES, Outcome, fuzz, minimise, try_once
from .target import Target
from .targets import TARGETS


def main(arguments: list[str]) -> int:
    """Run what is asked for; 1 when something was found."""
    asked = _parser().parse_args(arguments)
    targets = [TARGETS[name] for name in asked.targets or TARGETS]
    if asked.input is not None:
        try_once(targets[0], asked.input.read_bytes())
        print(f"{targets[0].name}: nothing is wrong with it")
        return 0
    if asked.inputs is None and asked.seconds is None:
        asked.seconds = 60.0
    if len(targets) > 1:
        return _each_by_itself(asked, targets)
    return _one(asked, targets[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feed our parsers what nobody meant.")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, help="for so long, all targets together (default: 60)")
    parser.add_argument("--inputs", type=int, help="so many inputs for each target")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same inputs (default: 1)")
    parser.add_argument("--input", type=Path, metavar="FILE", help="try this one input, and show what it raises")
    parser.add_argument("--grow", action="store_true", help="keep what reached new lines in the corpus")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)  # no heading: another process wrote it
    return parser


def _each_by_itself(asked: argparse.Namespace, targets: list[Target]) -> int:
    """Start a process for each target: what one holds is not counted for the next."""
    _heading()
    bounds = [] if asked.seconds is None else ["--seconds", f"{asked.seconds / len(targets):.3f}"]
    bounds += [] if asked.inputs is None else ["--inputs", str(asked.inputs)]
    bounds += ["--grow"] if asked.grow else []
    worst = 0
    for target in targets:
        words = [sys.executable, "-m", "tests.fuzz", target.name, "--seed", str(asked.seed), "--bare", *bounds]
        worst = max(worst, subprocess.run(words, check=False, stdin=subprocess.DEVNULL).returncode)
    return worst


def _one(asked: argparse.Namespace, target: Target) -> int:
    folder = Path(tempfile.mkdtemp(prefix="respite-fuzz-"))

    def show(finding: Finding) -> None:
        print(finding.show(folder), flush=True)

    if not asked.bare:
        _heading()
    seconds = float("inf") if asked.seconds is None else asked.seconds
    outcome = fuzz(target, seed=asked.seed, seconds=seconds, inputs=asked.inputs, on_finding=show)
    _row(outcome)
    if asked.grow and not outcome.findings:
        inputs = [one for one in (*corpus.load(target.name), *outcome.pool) if len(one) <= target.max_bytes]
        kept = trio.run(minimise, target, inputs, clock=MockClock(autojump_threshold=0))
        path = corpus.save(target.name, kept)
        print(f"  {len(kept)} inputs are kept in {path.name}, {path.stat().st_size:,} bytes", flush=True)
    if outcome.findings or not outcome.is_flat:
        return 1
    folder.rmdir()
    return 0


def _heading() -> None:
    print(
        f"{'target':<14} {'inputs':>10} {'seconds':>8} {'of cpu':>8} {'steps':>6} {'kept':>5} {'found':>5}  memory",
        flush=True,
    )


def _row(outcome: Outcome) -> None:
    grown = outcome.growth_bytes
    memory = "too short to tell" if grown is None else f"{grown / (1 << 20):+.1f} MiB"
    if not outcome.is_flat:
        memory += f": it GREW, more than {GROWTH_BYTES >> 20} MiB"
    print(
        f"{outcome.target:<14} {outcome.inputs:>10,} {outcome.seconds:>8.1f} "
        f"{outcome.computed_s:>8.1f} {outcome.steps:>6} "
        f"{len(outcome.pool):>5} {len(outcome.findings):>5}  {memory}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
