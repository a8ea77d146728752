"""Do the others notice clients who misbehave? Run as `python -m bench.crowd`.

10,000 clients are connected. Nine of ten are honest: each reads a key now and then, all together at a steady pace. The
tenth misbehaves in every way of `bench._mischief`: half commands, garbage, huge announcements, replies that are never
read, storms of reconnects and resets, guessed passwords, subscriptions without end, other protocols, held links.

    calm     the honest ones alone       in turns, on the same connections;
    crowd    all of them                 the ratio is that of the honest ones' p99 in each pair

Redis itself is measured the same way, as the measure of this machine: what the misbehaving cost both is their own share
of two cores. Memory and descriptors of the server are looked at before, with, and after them.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from bench._lib import (
    ROOT,
    BenchError,
    Disturbance,
    machine,
    markdown_table,
    need_programs,
    quantile,
    run_main,
    say,
    spread,
    verdict,
    write_result,
)
from bench._mischief import BIG_KEY, KINDS
from bench._paced import KEYS, VALUE, Generator
from bench._servers import Rig, Server, end, versions
from bench.connections import SPARE_DESCRIPTORS, open_connection, raise_descriptor_limit
from bench.relay import sharpen_timers

BIG_VALUE = b"b" * 100_000
WARM_S = 2.0
SETTLE_S = 3.0
FLOOR_P99_MS = 20.0
MODES = ("calm", "crowd")


@attrs.frozen
class Seen:
    """What the honest clients saw in one round of one mode."""

    round: int
    target: str
    mode: str
    requests: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float
    cores: float
    """Processor time of the server a second: says what it costs also where others keep it waiting."""


@attrs.frozen
class Held:
    """What a server held at one moment."""

    target: str
    when: str
    rss_mib: float
    descriptors: int


class Crowd:
    """The process of those who misbehave."""

    def __init__(self, server: Server, count: int, options: argparse.Namespace, seed: int) -> None:
        flags = {"port": server.port, "count": count, "pace": options.pace, "seed": seed}
        words = [str(part) for name, value in flags.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench._mischief", *words, "--kinds", *options.only],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def done(self) -> dict[str, Any]:
        """Return how often each kind has acted, and was closed. Raises BenchError when the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            counted: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise BenchError("those who misbehave have ended by themselves") from error
        return counted

    def close(self) -> None:
        """End it, and with it all its connections."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        end(self._process)
        self._process.stdout.close()


def held(server: Server, when: str) -> Held:
    """Look at a server's memory and descriptors."""
    descriptors = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    return Held(server.name, when, server.rss_bytes() / (1 << 20), descriptors)


def look(generator: Generator, server: Server, mode: str, number: int, seconds: float) -> Seen:
    """Let the honest clients read for a while, and say what they saw."""
    generator.run(time.monotonic() + WARM_S)
    generator.latency_s.clear()
    generator.late_s.clear()
    began, cpu_s = time.monotonic(), server.cpu_s()
    generator.run(began + seconds)
    cores = (server.cpu_s() - cpu_s) / (time.monotonic() - began)
    seen = generator.latency_s
    found = Seen(
        round=number,
        target=server.name,
        mode=mode,
        requests=len(seen),
        p50_ms=quantile(seen, 0.5) * 1000,
        p99_ms=quantile(seen, 0.99) * 1000,
        max_ms=max(seen) * 1000,
        late_p99_ms=quantile(generator.late_s, 0.99) * 1000,
        cores=cores,
    )
    say(
        f"round {number}  {server.name:8} {mode:6} {found.requests / seconds:,.0f}/s  p50 {found.p50_ms:.2f} ms  "
        f"p99 {found.p99_ms:.2f} ms  max {found.max_ms:.2f} ms  "
        f"(generator late {found.late_p99_ms:.2f} ms, {cores:.2f} cores)"
    )
    return found


def measure(server: Server, options: argparse.Namespace) -> tuple[list[Seen], list[Held], dict[str, Any]]:
    """Measure one server: calm and crowd in turns."""
    bad = options.clients // 10
    seen: list[Seen] = []
    done: dict[str, Any] = {}
    with ExitStack() as stack:
        connections = [stack.enter_context(open_connection(server)) for _ in range(options.clients - bad)]
        generator = Generator(connections, options.rate)
        stack.callback(generator.close)
        generator.run(time.monotonic() + WARM_S)
        holds = [held(server, "before")]
        for number in range(1, options.rounds + 1):
            seen.append(look(generator, server, "calm", number, options.seconds))
            crowd = Crowd(server, bad, options, seed=options.seed + number)
            try:
                generator.run(time.monotonic() + SETTLE_S)
                seen.append(look(generator, server, "crowd", number, options.seconds))
                done = crowd.done()
                holds.append(held(server, f"with, round {number}"))
            finally:
                crowd.close()
            generator.run(time.monotonic() + SETTLE_S)
            holds.append(held(server, f"after, round {number}"))
            server.check_alive()
    return seen, holds, done


def summary(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Sum up each server and mode; with the crowd, Respite is judged."""
    rows = []
    for target in dict.fromkeys(one.target for one in seen):
        rounds = {mode: [one for one in seen if (one.target, one.mode) == (target, mode)] for mode in MODES}
        ratio = spread([b.p99_ms / a.p99_ms for a, b in zip(*rounds.values(), strict=True)])
        for mode, found in rounds.items():
            p99 = spread([one.p99_ms for one in found])
            row: dict[str, Any] = {
                "target": target,
                "mode": mode,
                "p50_ms": attrs.asdict(spread([one.p50_ms for one in found])),
                "p99_ms": attrs.asdict(p99),
                "max_ms": max(one.max_ms for one in found),
                "late_p99_ms": max(one.late_p99_ms for one in found),
                "cores": attrs.asdict(spread([one.cores for one in found])),
            }
            if mode == "crowd":
                row["p99_ratio"] = attrs.asdict(ratio)
            if (target, mode) == ("respite", "crowd"):
                row["verdict"] = verdict(p99.median, FLOOR_P99_MS, None, less_is_better=True)
            rows.append(row)
    return rows


def print_tables(rows: Sequence[dict[str, Any]], holds: Sequence[Held], done: dict[str, Any]) -> None:
    """Print latency, what was held, and what was done to them."""
    print(
        markdown_table(
            [
                "server",
                "",
                "p50 ms",
                "p99 ms",
                "max ms",
                "crowd/calm, p99",
                "its cores",
                "generator late, p99 ms",
                "verdict",
            ],
            [
                [
                    row["target"],
                    row["mode"],
                    f"{row['p50_ms']['median']:.2f}",
                    f"{row['p99_ms']['median']:.2f}",
                    f"{row['max_ms']:.2f}",
                    f"{row['p99_ratio']['median']:.2f}" if "p99_ratio" in row else "",
                    f"{row['cores']['median']:.2f}",
                    f"{row['late_p99_ms']:.2f}",
                    row.get("verdict", ""),
                ]
                for row in rows
            ],
        )
    )
    print()
    table = [[one.target, one.when, f"{one.rss_mib:.1f}", str(one.descriptors)] for one in holds]
    print(markdown_table(["server", "", "resident MiB", "descriptors"], table))
    print()
    table = [[name, str(done["acted"].get(name, 0)), str(done["closed"].get(name, 0))] for name in KINDS]
    print(markdown_table(["kind, last round on Respite", "acted", "connections that ended"], table))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=10_000, help="of which one in ten misbehaves")
    parser.add_argument("--rate", type=float, default=2000, help="requests/s of all honest ones together")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds between two deeds of one who misbehaves")
    parser.add_argument("--rounds", type=int, help="default 3, with --quick 1")
    parser.add_argument("--seconds", type=float, help="of each half of a round (default 10, with --quick 3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=list(KINDS), choices=list(KINDS), help="ways to misbehave")
    parser.add_argument("--no-redis", action="store_true", help="do without Redis beside it")
    parser.add_argument("--quick", action="store_true", help="to try it, not to quote")
    parser.add_argument("--out", type=Path, help="the JSON file (default bench/results/)")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (3.0 if options.quick else 10.0)
    need_programs(["redis-server"])
    raise_descriptor_limit(options.clients + SPARE_DESCRIPTORS)
    sharpen_timers()
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    seen: list[Seen] = []
    holds: list[Held] = []
    done: dict[str, Any] = {}
    with Rig() as rig:
        redis, behind = (rig.redis(name, max_clients=options.clients + 500) for name in ("redis", "redis-behind"))
        for server in (redis, behind):
            with server.client() as client:
                client.mset({f"key:{number}": VALUE for number in range(KEYS)})
                client.set(BIG_KEY, BIG_VALUE)
        respite = rig.respite("respite", behind, max_clients=options.clients + 500)
        for server in (respite,) if options.no_redis else (redis, respite):
            found, held_by, done = measure(server, options)
            seen += found
            holds += held_by
    rows = summary(seen)
    print_tables(rows, holds, done)
    result = {
        "script": "crowd",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "summary": rows,
        "rounds": [attrs.asdict(one) for one in seen],
        "held": [attrs.asdict(one) for one in holds],
        "done": done,
    }
    say(f"figures: {write_result('crowd', result, options.out)}")


if __name__ == "__main__":
    run_main(main)
