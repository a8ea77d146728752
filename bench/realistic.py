"""What does an app gain? Run as `python -m bench.realistic`.

Redis behind an added 0.5 ms each way, zipf keys, 9 reads to a write, 20 real redis-py clients; direct against Respite.

    20 redis-py clients --------------> relay, 0.5 ms each way --> Redis          direct
    20 redis-py clients --> Respite --> relay, 0.5 ms each way --> Redis          respite

Each round runs both sides twice: `paced`, the same load for both and far from what the machine can do, for latency;
and `full speed`, every client as fast as it can, for throughput. At full speed the clients also run once against that
Redis with no delay and no proxy: the `ceiling`, the most that these clients can do on this machine.
"""

import argparse
import statistics
import time
from array import array
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
    quantile,
    rotated,
    run_main,
    say,
    spread,
    verdict,
    write_result,
)
from bench._load import Clients, Job, Workload, key_name
from bench._servers import Rig, Server, versions
from bench.relay import measure_rtt_s

SIDES = ("direct", "respite")
CEILING = "ceiling"
MODES = ("paced", "full speed")
PINGS = 400
# Connecting and drawing keys, before the first call.
PREPARE_S = 0.7
# Ratio to direct, floor and goal: mean latency -40 % / -70 %, throughput +60 % / +200 %.
JUDGED = {("paced", "mean_ms"): (0.6, 0.3), ("full speed", "per_second"): (1.6, 3.0)}
RATIOS = ("mean_ms", "p99_ms", "per_second", "redis_cpu_s_per_1000")


@attrs.frozen
class Run:
    """What one side showed in one mode of one round; latencies are of reads and writes together unless they say so."""

    round: int
    side: str
    mode: str
    requests: int
    per_second: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    read_mean_ms: float
    write_mean_ms: float
    hit_rate: float | None
    redis_cpu_s_per_1000: float
    clients_cpu_share: float
    """Share of all cores that the clients themselves used: near 1 less the others' they bound the run."""
    relay_cores: float | None
    proxy_cores: float | None


@attrs.frozen
class Side:
    """The servers of one side."""

    name: str
    redis: Server
    relay: Server | None
    respite: Server | None

    @property
    def port(self) -> int:
        """Where the clients connect."""
        return (self.respite or self.relay or self.redis).port

    def figures(self) -> dict[str, float]:
        """Read every running total that a run is the difference of."""
        l1 = self.respite.stats()["l1"] if self.respite else {"hits_total": 0, "misses_total": 0}
        with self.redis.client() as client:
            cpu = client.info("cpu")
        return {
            "redis": cpu["used_cpu_sys"] + cpu["used_cpu_user"],
            "relay": self.relay.cpu_s() if self.relay else 0.0,
            "respite": self.respite.cpu_s() if self.respite else 0.0,
            "hits": l1["hits_total"],
            "misses": l1["misses_total"],
        }


def start_sides(
    rig: Rig, workload: Workload, delay_ms: float, l1_max_bytes: str
) -> tuple[list[Side], dict[str, dict[str, float]]]:
    """Start and fill a Redis with a relay for each side; the ceiling shares the Redis of the direct side.

    Also returns what a PING takes with and without each relay.
    """
    sides, delays = [], {}
    for name in SIDES:
        redis = rig.redis(f"redis-{name}")
        with redis.client() as client, client.pipeline(transaction=False) as pipeline:
            for number, size_bytes in enumerate(workload.sizes()):
                pipeline.set(key_name(number), b"x" * size_bytes)
            pipeline.execute()
        relay = rig.relay(redis, delay_ms)
        delays[name] = check_delay(redis, relay, delay_ms)
        respite = rig.respite("respite", relay, l1={"max_bytes": l1_max_bytes}) if name == "respite" else None
        sides.append(Side(name, redis, relay, respite))
    return [*sides, Side(CEILING, sides[0].redis, relay=None, respite=None)], delays


def check_delay(redis: Server, relay: Server, delay_ms: float) -> dict[str, float]:
    """Measure what the relay adds to a PING. Raises BenchError if it is less than it was asked to add."""
    found = {}
    for name, port in (("redis", redis.port), ("relay", relay.port)):
        times = measure_rtt_s(port, PINGS)
        found[f"{name}_p50_ms"] = quantile(times, 0.5) * 1000
        found[f"{name}_p99_ms"] = quantile(times, 0.99) * 1000
    say(
        "PING p50/p99: "
        f"Redis {found['redis_p50_ms']:.2f}/{found['redis_p99_ms']:.2f} ms, "
        f"through the relay {found['relay_p50_ms']:.2f}/{found['relay_p99_ms']:.2f} ms"
    )
    if found["relay_p50_ms"] < 2 * delay_ms:
        raise BenchError(f"the relay adds less than {delay_ms} ms each way")
    return found


def run_side(side: Side, clients: Clients, mode: str, number: int, options: argparse.Namespace) -> Run:
    """Run one side in one mode and sum it up."""
    start_at = time.monotonic() + PREPARE_S
    measure_from = start_at + options.warm_s
    interval_s = clients.count / options.rate if mode == "paced" else 0.0
    clients.begin(Job(side.port, start_at, measure_from, measure_from + options.seconds, number, interval_s))
    time.sleep(max(0.0, measure_from - time.monotonic()))
    before = side.figures()
    time.sleep(max(0.0, measure_from + options.seconds - time.monotonic()))
    after = side.figures()
    reports = clients.collect()
    used = {name: after[name] - before[name] for name in after}
    reads, writes = array("d"), array("d")
    for report in reports:
        reads.extend(report.read_s)
        writes.extend(report.write_s)
    if missing := sum(report.missing for report in reports):
        raise BenchError(f"{side.name}: {missing} reads found no value")
    if not reads or not writes:
        raise BenchError(f"{side.name}: no reads or no writes in {options.seconds} s")
    every = reads + writes
    return Run(
        round=number,
        side=side.name,
        mode=mode,
        requests=len(every),
        per_second=len(every) / options.seconds,
        mean_ms=statistics.fmean(every) * 1000,
        p50_ms=quantile(every, 0.5) * 1000,
        p99_ms=quantile(every, 0.99) * 1000,
        read_mean_ms=statistics.fmean(reads) * 1000,
        write_mean_ms=statistics.fmean(writes) * 1000,
        hit_rate=used["hits"] / max(1.0, used["hits"] + used["misses"]) if side.respite else None,
        redis_cpu_s_per_1000=used["redis"] / len(every) * 1000,
        clients_cpu_share=sum(report.cpu_s for report in reports) / options.seconds / machine()["nproc"],
        relay_cores=used["relay"] / options.seconds if side.relay else None,
        proxy_cores=used["respite"] / options.seconds if side.respite else None,
    )


def measure(sides: Sequence[Side], clients: Clients, options: argparse.Namespace) -> list[Run]:
    """Run all rounds; the side that goes first takes turns."""
    runs = []
    for number in range(1, options.rounds + 1):
        for mode in MODES:
            for side in rotated([each for each in sides if mode == "full speed" or each.name != CEILING], number - 1):
                run = run_side(side, clients, mode, number, options)
                runs.append(run)
                say(
                    f"round {number}/{options.rounds}  {mode:10} {side.name:8} {run.per_second:>8,.0f}/s  "
                    f"mean {run.mean_ms:.2f} ms  p99 {run.p99_ms:.2f} ms  "
                    f"clients {run.clients_cpu_share:.0%} of the cores, relay {run.relay_cores or 0:.0%} of one"
                )
    return runs


def picked(runs: Sequence[Run], mode: str, side: str, name: str) -> dict[int, float]:
    """Map round to one figure of one side; a figure that a side has not is left out."""
    chosen = ((run.round, getattr(run, name)) for run in runs if (run.mode, run.side) == (mode, side))
    return {number: value for number, value in chosen if value is not None}


def ratio_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Put each figure of Respite over that of direct in the same round, and judge those that have a floor."""
    rows = []
    for mode in MODES:
        for name in RATIOS:
            ratio = spread(paired_ratios(*(picked(runs, mode, side, name) for side in reversed(SIDES))))
            row: dict[str, Any] = {"mode": mode, "figure": name, "ratio": attrs.asdict(ratio), "text": ratio.text()}
            row["change"] = f"{(ratio.median - 1) * 100:+.0f} %"
            if limits := JUDGED.get((mode, name)):
                row |= {"floor": limits[0], "goal": limits[1], "verdict": verdict(ratio.median, *limits)}
            rows.append(row)
    return rows


def print_tables(runs: Sequence[Run], ratios: Sequence[dict[str, Any]]) -> None:
    """Print the ratios, then what each side did."""
    headers = ["load", "respite / direct", "ratio: median (min..max)", "change", "floor", "goal", "verdict"]
    columns = ("mode", "figure", "text", "change", "floor", "goal", "verdict")
    print(markdown_table(headers, [[str(row.get(column, "")) for column in columns] for row in ratios]))
    print()
    shown = [field.name for field in attrs.fields(Run) if field.name not in {"round", "side", "mode"}]
    combinations = [*((mode, side) for mode in MODES for side in SIDES), ("full speed", CEILING)]
    rows = []
    for name in shown:
        found = [list(picked(runs, mode, side, name).values()) for mode, side in combinations]
        digits = 0 if name in {"requests", "per_second"} else 4 if name.startswith("redis_cpu") else 2
        rows.append([name, *(spread(values).text(digits) if values else "" for values in found)])
    print(markdown_table(["median (min..max)", *(f"{side}, {mode}" for mode, side in combinations)], rows))


def draw_chart(path: Path, runs: Sequence[Run]) -> None:
    """Draw latency at equal load, and throughput at full speed."""

    def panel(title: str, label: str, mode: str, names: Sequence[str], sides: Sequence[str]) -> Panel:
        series: dict[str, list[Spread | None]] = {
            side: [spread(list(picked(runs, mode, side, name).values())) for name in names] for side in sides
        }
        return Panel(title, label, names, series)

    latencies = ["mean_ms", "p50_ms", "p99_ms", "read_mean_ms", "write_mean_ms"]
    draw(
        path,
        "redis-py clients, a Redis that is away: direct and through Respite, median and range of the rounds",
        [
            panel("Latency, both sides at the same paced load", "ms", "paced", latencies, SIDES),
            panel("Every client as fast as it can", "requests/s", "full speed", ["per_second"], [*SIDES, CEILING]),
        ],
    )


def parsed_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--quick", action="store_true", help="1 s a run: to try it, not to quote")
    parser.add_argument("--seconds", type=float, help="measured time of a run (default 5)")
    parser.add_argument("--warm-s", type=float, help="time before it that is not measured (default 2)")
    parser.add_argument("--rate", type=float, default=3000, help="requests/s of the paced runs, all clients together")
    parser.add_argument("--processes", type=int, default=20, help="of clients")
    parser.add_argument("--threads", type=int, default=1, help="a client each, in every process")
    parser.add_argument("--delay-ms", type=float, default=0.5, help="added each way")
    parser.add_argument("--keys", type=int, default=20_000)
    parser.add_argument("--theta", type=float, default=0.99, help="of the zipf distribution")
    parser.add_argument("--reads", type=float, default=0.9, help="share of reads")
    parser.add_argument("--l1-max-bytes", default="64MiB", help="Respite's default; all keys take some 30 MB")
    parser.add_argument("--out", type=Path, help="the JSON file; the chart goes beside it (default bench/results/)")
    parser.add_argument("--no-chart", action="store_true", help="do without matplotlib")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 5.0)
    options.warm_s = options.warm_s if options.warm_s is not None else (0.5 if options.quick else 2.0)
    return options


def main() -> None:
    """Measure, print, write."""
    options = parsed_options()
    need_programs(["redis-server"])
    if not options.no_chart:
        need_matplotlib()
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    workload = Workload(options.keys, options.theta, options.reads)
    with Clients(workload, processes=options.processes, threads=options.threads) as clients, Rig() as rig:
        sides, delay = start_sides(rig, workload, options.delay_ms, options.l1_max_bytes)
        runs = measure(sides, clients, options)
    ratios = ratio_rows(runs)
    print_tables(runs, ratios)
    result = {
        "script": "realistic",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "delay": delay,
        "ratios": ratios,
        "runs": [attrs.asdict(run) for run in runs],
    }
    path = write_result("realistic", result, options.out)
    say(f"figures: {path}")
    if not options.no_chart:
        draw_chart(path.with_suffix(".png"), runs)


if __name__ == "__main__":
    run_main(main)
