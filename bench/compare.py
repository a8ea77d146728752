"""How fast is Respite beside Redis itself and beside the C proxies? Run as `python -m bench.compare`.

Direct Redis, twemproxy, HAProxy and Respite (passing through, missing L1, hitting L1) under redis-benchmark, one at a
time, in interleaved rounds. Every run is checked against the counters of the Redis behind it, so that a "hit" was one
and a GET found its key.

    plain Redis <-- direct, twemproxy, haproxy, pass-through
    hot Redis   <-- l1-hit           (own servers: tracking pushes for one Respite are no load for another target)
    wide Redis  <-- l1-miss
"""

import argparse
import csv
import subprocess
import time
from pathlib import Path
from typing import Any

import attrs

from bench._cases import (
    CLIENTS,
    HOT_KEYS,
    WIDE_KEYS,
    Case,
    Figures,
    Sample,
    draw_chart,
    filtered,
    goal_rows,
    planned_cases,
    print_tables,
)
from bench._chart import need_matplotlib
from bench._lib import BenchError, Disturbance, machine, need_programs, rotated, run_main, say, size_text, write_result
from bench._servers import Rig, Server, versions

RUN_TIMEOUT_S = 120
# Enough for some 0.5 s on the fastest target: less, and 10 ms ticks blur the processor time.
REQUESTS = {(100, 1): 80_000, (100, 16): 640_000, (10_240, 1): 50_000, (10_240, 16): 120_000}
MISS_L1 = {"max_bytes": "512KiB", "max_value_bytes": "64KiB"}
MAX_MISS_HIT_RATE = 0.02
MIN_HIT_RATE = 0.99
# What must reach Redis where nothing is to be hit. Not all: of 800 outstanding GETs some join the flight of another.
MIN_REACHING = 0.95
WARM_PASSES = 20
FILL_SCRIPT = """
local value = string.rep('x', ARGV[3])
for number = ARGV[1], ARGV[2] - 1 do redis.call('SET', string.format('key:%012d', number), value) end
"""


class Bench:
    """The servers of one value size, and the runs against them."""

    def __init__(self, rig: Rig, size_bytes: int, targets: set[str]) -> None:
        self._size_bytes = size_bytes
        self._redis: dict[str, Server] = {}
        self._proxies: dict[str, Server] = {}
        plain = targets & {"direct", "twemproxy", "haproxy", "pass-through"}
        if plain:
            redis = self._filled(rig, "redis-plain", WIDE_KEYS[size_bytes])
            self._redis |= dict.fromkeys(plain, redis)
        if "twemproxy" in targets:
            self._proxies["twemproxy"] = rig.twemproxy(redis)
        if "haproxy" in targets:
            self._proxies["haproxy"] = rig.haproxy(redis)
        if "pass-through" in targets:
            self._proxies["pass-through"] = rig.respite("respite-off", redis, rollout="off")
        if "l1-hit" in targets:
            self._redis["l1-hit"] = self._filled(rig, "redis-hot", HOT_KEYS[size_bytes])
            self._proxies["l1-hit"] = rig.respite("respite-hit", self._redis["l1-hit"], l1={"max_bytes": "256MiB"})
        if "l1-miss" in targets:
            self._redis["l1-miss"] = self._filled(rig, "redis-wide", WIDE_KEYS[size_bytes])
            self._proxies["l1-miss"] = rig.respite("respite-miss", self._redis["l1-miss"], l1=MISS_L1)

    def run(self, number: int, target: str, case: Case, requests: int) -> Sample:
        """Run redis-benchmark once and check that it measured what it was meant to."""
        redis = self._redis[target]
        proxy = self._proxies.get(target)
        if target == "l1-hit":
            self._make_resident(case.key_count)
        before, before_l1 = _counters(redis), _l1_counters(proxy)
        redis_cpu_s = redis.cpu_s()
        proxy_cpu_s = proxy.cpu_s() if proxy else 0.0
        row = redis_benchmark((proxy or redis).port, case, requests)
        redis_cpu_s = redis.cpu_s() - redis_cpu_s
        proxy_cpu_s = proxy.cpu_s() - proxy_cpu_s if proxy else 0.0
        self._check(target, case, requests, _minus(_counters(redis), before), _minus(_l1_counters(proxy), before_l1))
        return Sample(
            round=number,
            target=target,
            case=case,
            requests=requests,
            rps=float(row["rps"]),
            p50_ms=float(row["p50_latency_ms"]),
            p99_ms=float(row["p99_latency_ms"]),
            proxy_cpu_us=proxy_cpu_s / requests * 1e6 if proxy else None,
            redis_cpu_us=redis_cpu_s / requests * 1e6,
        )

    def _filled(self, rig: Rig, name: str, key_count: int) -> Server:
        server = rig.redis(name)
        fill(server, key_count, self._size_bytes)
        return server

    def _make_resident(self, key_count: int) -> None:
        """Read every key through Respite until L1 has them all; a few hits are compared with Redis all the same."""
        proxy = self._proxies["l1-hit"]
        with proxy.client() as client:
            for _ in range(WARM_PASSES):
                before = _l1_counters(proxy)
                for start in range(0, key_count, 1000):
                    pipeline = client.pipeline(transaction=False)
                    for number in range(start, min(start + 1000, key_count)):
                        pipeline.get(f"key:{number:012d}")
                    pipeline.execute()
                if _minus(_l1_counters(proxy), before)["misses"] == 0:
                    return
        raise BenchError(f"L1 does not hold {key_count} keys of {self._size_bytes} B after {WARM_PASSES} passes")

    def _check(self, target: str, case: Case, requests: int, redis: dict[str, int], l1: dict[str, int]) -> None:
        what = f"{size_text(case.size_bytes)} {case.label} against {target}"
        if case.command == "GET" and redis["keyspace_misses"]:
            raise BenchError(f"{what}: {redis['keyspace_misses']} GETs found no value in Redis")
        share = redis[case.command.lower()] / requests
        hit_rate = l1["hits"] / max(1, l1["hits"] + l1["misses"])
        if (target, case.command) == ("l1-hit", "GET"):
            if share > 1 - MIN_HIT_RATE or hit_rate < MIN_HIT_RATE:
                raise BenchError(f"{what}: hit rate {hit_rate:.2%}, {share:.2%} of the GETs reached Redis")
        elif share < MIN_REACHING or hit_rate > MAX_MISS_HIT_RATE:
            raise BenchError(f"{what}: hit rate {hit_rate:.2%}, only {share:.2%} of the requests reached Redis")


def fill(server: Server, key_count: int, size_bytes: int) -> None:
    """Set the first `key_count` of redis-benchmark's keys, in Redis itself."""
    with server.client() as client:
        for start in range(0, key_count, 10_000):
            client.eval(FILL_SCRIPT, 0, start, min(start + 10_000, key_count), size_bytes)


def _counters(server: Server) -> dict[str, int]:
    with server.client() as client:
        commands: dict[str, Any] = client.info("commandstats")
        misses = client.info("stats")["keyspace_misses"]
    calls = {name: commands.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("get", "set")}
    return {**calls, "keyspace_misses": misses}


def _l1_counters(proxy: Server | None) -> dict[str, int]:
    if proxy is None or not proxy.admin_port:
        return {"hits": 0, "misses": 0}
    l1 = proxy.stats()["l1"]
    return {"hits": l1["hits_total"], "misses": l1["misses_total"]}


def _minus(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in after}


def redis_benchmark(port: int, case: Case, requests: int) -> dict[str, str]:
    """Run redis-benchmark against 127.0.0.1:port and return its one line of CSV."""
    command = ["redis-benchmark", "-p", str(port), "-t", case.command.lower(), "-n", str(requests), "-c", str(CLIENTS)]
    command += ["-P", str(case.pipeline), "-d", str(case.size_bytes), "-r", str(case.key_count), "--csv"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(command)} is not done after {RUN_TIMEOUT_S} s") from None
    rows = list(csv.DictReader(line for line in answer.stdout.splitlines() if line.startswith('"')))
    if answer.returncode or len(rows) != 1:
        raise BenchError(f"{' '.join(command)} failed:\n{answer.stdout}{answer.stderr}")
    return rows[0]


def measure(options: argparse.Namespace) -> list[Sample]:
    """Run every round of every case and return all samples."""
    samples = []
    for size in HOT_KEYS:
        cases = [each for each in options.cases if each[0].size_bytes == size]
        targets = {target for _, each in cases for target in each}
        if not cases:
            continue
        say(f"{size_text(size)}: starting and filling the servers")
        with Rig() as rig:
            bench = Bench(rig, size, targets)
            for case, each in cases:
                for target in each:
                    bench.run(0, target, case, 5_000)
            for number in range(1, options.rounds + 1):
                for case, each in cases:
                    requests = REQUESTS[size, case.pipeline] // (5 if options.quick else 1)
                    for target in rotated(each, number - 1):
                        sample = bench.run(number, target, case, requests)
                        samples.append(sample)
                        what = f"{size_text(size)} {case.label:15} {target:13}"
                        say(f"round {number}/{options.rounds}  {what}{sample.rps:>12,.0f}/s")
    return samples


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--quick", action="store_true", help="a fifth of the requests: to try it, not to quote")
    parser.add_argument("--only", default="", help="e.g. get,p1,100,direct,l1-hit; a word that is unknown lists them")
    parser.add_argument("--out", type=Path, help="the JSON file; the chart goes beside it (default bench/results/)")
    parser.add_argument("--no-chart", action="store_true", help="do without matplotlib")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.cases = filtered(planned_cases(list(HOT_KEYS)), [word for word in options.only.lower().split(",") if word])
    need_programs(["redis-server", "redis-benchmark", "nutcracker", "haproxy"])
    if not options.no_chart:
        need_matplotlib()
    started = time.monotonic()
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server", "redis-benchmark", "nutcracker", "haproxy"])}
    figures = Figures(measure(options))
    goals = goal_rows(figures)
    print_tables(figures, goals)
    result = {
        "script": "compare",
        "machine": about,
        "disturbance": disturbance.report(),
        "rounds": options.rounds,
        "quick": options.quick,
        "clients": CLIENTS,
        "duration_s": round(time.monotonic() - started, 1),
        "goals": goals,
        "samples": [attrs.asdict(sample) for sample in figures.samples],
    }
    path = write_result("compare", result, options.out)
    say(f"figures: {path}")
    if not options.no_chart:
        draw_chart(path.with_suffix(".png"), figures)


if __name__ == "__main__":
    run_main(main)
