"""What do envelopes cost? Run as `python -m bench.sealing`.

redis-benchmark with 50 connections writes and reads a JSON document, of 20 kB and of 1 kB, through Respites with the
defaults, each class with a Redis of its own:

    no class      values pass as they are: what the others are compared with
    compress      values of 10 KiB and more are compressed
    and version   and each value carries a version

GET is answered from L1, where values are held opened; "GET from Redis" is asked of a second Respite with L1 off, which
opens each value. A round runs every case on every side; the ratio is that of requests per second inside the round.
"""

import argparse
import csv
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from bench._chart import Panel, draw, need_matplotlib
from bench._lib import (
    BenchError,
    Disturbance,
    Spread,
    machine,
    markdown_table,
    need_programs,
    paired_ratios,
    rotated,
    run_main,
    say,
    size_text,
    spread,
    verdict,
    write_result,
)
from bench._servers import Rig, Server, versions
from bench._values import Writer, document

BASE = "no class"
SIDES = {
    BASE: "",
    "compress": '[[class]]\nname = "all"\nmatch = ["doc:*"]\ncompress = true\n',
    "and version": '[[class]]\nname = "all"\nmatch = ["doc:*"]\ncompress = true\nversion = true\n',
}
SIZES = (20_000, 1_000)
FLOORS = {20_000: 0.80, 1_000: 0.95}
COMMANDS = ("SET", "GET", "GET from Redis")
# A second and more: compressing has saved up half a second's share of the time before, and L1 is empty at first.
REQUESTS = {20_000: 40_000, 1_000: 120_000}
KEYS = 1_000
CLIENTS = 50
RUN_TIMEOUT_S = 120.0


@attrs.frozen
class Run:
    """What one run of redis-benchmark showed."""

    round: int
    side: str
    command: str
    size_bytes: int
    pipeline: int
    rps: float
    proxy_cpu_us: float

    @property
    def case(self) -> str:
        """Name what was run, on whichever side."""
        return f"{self.command} {size_text(self.size_bytes)} P={self.pipeline}"


def benchmark(port: int, words: Sequence[str], value: bytes, requests: int, pipeline: int) -> float:
    """Run redis-benchmark once; the value is the last word, where there is one. Returns requests per second."""
    command = ["redis-benchmark", "-p", str(port), "-n", str(requests), "-c", str(CLIENTS), "-P", str(pipeline)]
    command += ["-r", str(KEYS), "--csv", *(["-x"] if value else []), *words]
    try:
        answer = subprocess.run(command, input=value, capture_output=True, timeout=RUN_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)} is not done after {RUN_TIMEOUT_S} s") from None
    lines = [line for line in answer.stdout.decode("utf-8", "replace").splitlines() if line.startswith('"')]
    if answer.returncode or len(lines) < 2:
        raise BenchError(f"{' '.join(command)} failed:\n{answer.stderr.decode('utf-8', 'replace')}")
    return float(next(csv.reader([lines[-1]]))[1])


def run(sides: dict[str, Sequence[Server]], number: int, side: str, case: tuple[str, int, int, bytes]) -> Run:
    """Run one case on one side."""
    command, size, pipeline, value = case
    proxy = sides[side][command == COMMANDS[2]]
    requests = REQUESTS[size]
    before_s = proxy.cpu_s()
    written = value if command == "SET" else b""
    rps = benchmark(proxy.port, [command[:3], f"doc:{size}:__rand_int__"], written, requests, pipeline)
    return Run(number, side, command, size, pipeline, rps, (proxy.cpu_s() - before_s) / requests * 1e6)


def measure(options: argparse.Namespace) -> list[Run]:
    """Run every round and return what it showed."""
    writer = Writer(options.seed)
    values = {size: document(writer, size) for size in SIZES}
    cases = [(command, size, pipeline, values[size]) for size in SIZES for pipeline in (1, 16) for command in COMMANDS]
    found = []
    with Rig() as rig:
        sides: dict[str, Sequence[Server]] = {}
        for at, (name, more) in enumerate(SIDES.items()):
            redis = rig.redis(f"redis-{at}")
            sides[name] = [
                rig.respite(f"respite-{at}-{l1}", redis, l1={"enabled": l1}, more=more) for l1 in (True, False)
            ]
        for number in range(options.rounds + 1):
            for case in cases:
                for side in rotated(tuple(SIDES), number):
                    result = run(sides, number, side, case)
                    if number:  # the first round fills the keys, and warms everything
                        found.append(result)
                        say(f"round {number}/{options.rounds}  {result.case:18} {side:12}{result.rps:>10,.0f}/s")
        for name, (_, server) in sides.items():
            figures = server.stats()["values"]
            if (figures["opened_total"] > 0) is not (name != BASE):
                raise BenchError(f"{name}: {figures['opened_total']} values were opened")
    return found


def summary(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return one row a case and side."""
    rows = []
    for case in dict.fromkeys(each.case for each in runs):
        of_case = [each for each in runs if each.case == case]
        base = {each.round: each.rps for each in of_case if each.side == BASE}
        for side in SIDES:
            if side == BASE:
                continue
            ours = [each for each in of_case if each.side == side]
            ratio = spread(paired_ratios({each.round: each.rps for each in ours}, base))
            costs = {
                name: spread([each.proxy_cpu_us for each in of_case if each.side == name]) for name in (side, BASE)
            }
            floor = FLOORS[ours[0].size_bytes] if ours[0].command != COMMANDS[2] else None
            rows.append(
                {
                    "case": case,
                    "side": side,
                    "ratio": attrs.asdict(ratio),
                    "text": ratio.text(),
                    "us": costs[side].text(1),
                    "base_us": costs[BASE].text(1),
                    "floor": floor or "",
                    "verdict": "" if floor is None else verdict(ratio.median, floor, None),
                }
            )
    return rows


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print what was found."""
    headers = ("case", "class", "throughput / no class", "us a request", "without class", "floor", "")
    keys = ("case", "side", "text", "us", "base_us", "floor", "verdict")
    print(markdown_table(headers, [[str(row[key]) for key in keys] for row in rows]))


def draw_chart(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draw the ratios."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    series = {
        side: [Spread(**row["ratio"]) for case in cases for row in rows if (row["case"], row["side"]) == (case, side)]
        for side in SIDES
        if side != BASE
    }
    draw(path, "What envelopes cost", [Panel("throughput", "with class / without", cases, series, 1.0)])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.sealing", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where to write the figures (default: bench/results)")
    parser.add_argument("--no-chart", action="store_true")
    options = parser.parse_args()
    need_programs(["redis-server", "redis-benchmark"])
    if not options.no_chart:
        need_matplotlib()
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server", "redis-benchmark"])}
    runs = measure(options)
    rows = summary(runs)
    print_table(rows)
    result = {
        "script": "sealing",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "summary": rows,
        "runs": [attrs.asdict(each) for each in runs],
    }
    path = write_result("sealing", result, options.out)
    say(f"figures: {path}")
    if not options.no_chart:
        draw_chart(path.with_suffix(".png"), rows)


if __name__ == "__main__":
    run_main(main)
