"""What every benchmark shares: spreads and ratios, zipf keys, tables, result files, a clean end.

Pure helpers; processes are in `_servers.py`, pictures in `_chart.py`. Two runs are only ever compared inside one
round, because the machine's speed drifts by tens of percent over a day and much less within seconds.
"""

import json
import math
import os
import platform
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import attrs

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"

Verdict = Literal["goal", "floor", "MISSED"]
T = TypeVar("T")
# Above it, a warning is printed: some daemon is always awake, a compiler or a test run is not.
DISTURBED_SHARE = 0.03


class BenchError(Exception):
    """A benchmark cannot be run, or what it measured is not what it claims to measure."""


@attrs.frozen
class Spread:
    """The median of some rounds with the lowest and highest of them."""

    median: float
    low: float
    high: float

    def text(self, digits: int = 2, scale: float = 1.0) -> str:
        """Write `median (low..high)`, each multiplied by `scale`."""
        median, low, high = (f"{value * scale:,.{digits}f}" for value in (self.median, self.low, self.high))
        return f"{median} ({low}..{high})"


def spread(values: Sequence[float]) -> Spread:
    """Sum up one figure over its rounds. Raises BenchError if there is none."""
    if not values:
        raise BenchError("no rounds to sum up")
    return Spread(quantile(values, 0.5), min(values), max(values))


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0..1) of them lie, interpolated. Raises BenchError if there is none."""
    if not values:
        raise BenchError("no values to take a quantile of")
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def paired_ratios(subject: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    """Divide subject by base within each round; both map a round's number to its figure.

    Rounds that only one of them has are left out. Raises BenchError if no round has both, or a base is zero.
    """
    rounds = sorted(subject.keys() & base.keys())
    if not rounds:
        raise BenchError("the two sides have no round in common")
    if any(base[number] == 0 for number in rounds):
        raise BenchError("a base figure is zero, there is no ratio to it")
    return [subject[number] / base[number] for number in rounds]


def rotated(items: Sequence[T], by: int) -> list[T]:
    """Return the items in turn, starting `by` places further on: no target is always first in its round."""
    if not items:
        return []
    start = by % len(items)
    return [*items[start:], *items[:start]]


def verdict(measured: float, floor: float, goal: float | None, *, less_is_better: bool | None = None) -> Verdict:
    """Judge a figure. Less is better where the goal lies below the floor; without a goal, say so."""
    if less_is_better is None:
        less_is_better = goal is not None and goal < floor
    sign = -1.0 if less_is_better else 1.0
    if goal is not None and sign * measured >= sign * goal:
        return "goal"
    return "floor" if sign * measured >= sign * floor else "MISSED"


class ZipfKeys:
    """Draws key numbers 0..count-1; number i is drawn in proportion to 1 / (i + 1) ** theta."""

    def __init__(self, count: int, theta: float, seed: int) -> None:
        self._numbers = range(count)
        self._cumulative = list(accumulate((rank + 1) ** -theta for rank in self._numbers))
        self._random = random.Random(seed)

    def take(self, count: int) -> list[int]:
        """Draw `count` key numbers; the same seed draws the same ones."""
        return self._random.choices(self._numbers, cum_weights=self._cumulative, k=count)


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table whose columns also line up on a terminal."""
    widths = [max(len(line[column]) for line in [headers, *rows]) for column in range(len(headers))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(headers), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def size_text(size_bytes: int) -> str:
    """Write 100 as `100 B` and 10240 as `10 KiB`."""
    return f"{size_bytes // 1024} KiB" if size_bytes >= 1024 and size_bytes % 1024 == 0 else f"{size_bytes} B"


def say(text: str) -> None:
    """Report progress on stderr, so that stdout holds nothing but the tables."""
    print(text, file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Describe where the figures come from; no figure means anything without it."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "nproc": len(os.sched_getaffinity(0)),
        "cpu": model,
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load_before": os.getloadavg()[0],
    }


class Disturbance:
    """Tells how much of the machine other work took while a script ran, whose figures suffer from it."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._own_s = _own_cpu_s()
        self._busy_s, self._stolen_s = _machine_cpu_s()

    def shares(self) -> dict[str, float]:
        """Return the share of all cores that others took since; ask once all our processes have ended and been reaped.

        `stolen` is what the hypervisor gave to other machines.
        """
        capacity_s = (time.monotonic() - self._started) * (os.cpu_count() or 1)
        busy_s, stolen_s = _machine_cpu_s()
        others_s = busy_s - self._busy_s - (_own_cpu_s() - self._own_s)
        return {
            "others": round(max(0.0, others_s) / capacity_s, 3),
            "stolen": round((stolen_s - self._stolen_s) / capacity_s, 3),
        }

    def report(self) -> dict[str, float]:
        """Return the shares, and print a warning if they are not small."""
        shares = self.shares()
        if sum(shares.values()) > DISTURBED_SHARE:
            others, stolen = shares["others"], shares["stolen"]
            print(f"\nDisturbed: other work took {others:.0%} of the cores, other machines {stolen:.0%}; do not quote.")
        return shares


def _own_cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _machine_cpu_s() -> tuple[float, float]:
    """Return what the machine has worked (user, nice, system) and what was stolen from it; zeros where /proc is not."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0, 0.0
    ticks = [
        int(each) / os.sysconf("SC_CLK_TCK") for each in stat.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    ]
    return ticks[0] + ticks[1] + ticks[2], ticks[7]


def write_result(name: str, result: Mapping[str, Any], out: Path | None) -> Path:
    """Write the JSON to `out`, else to bench/results/NAME-TIME.json; return where it went."""
    path = out or RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def need_programs(programs: Sequence[str]) -> None:
    """Raise BenchError naming every program that is not on PATH."""
    missing = [program for program in programs if find_program(program) is None]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)}; run bench/install-tools.sh")


def find_program(program: str) -> str | None:
    """Look on PATH and where Debian puts daemons, which the PATH of a user often lacks."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")


def run_main(main: Callable[[], None]) -> None:
    """Run a script's `main`; errors are one line on stderr, and SIGTERM ends it as cleanly as Ctrl-C does."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        main()
    except BenchError as error:
        say(f"bench: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("bench: interrupted, everything it started has been ended")
        sys.exit(130)
