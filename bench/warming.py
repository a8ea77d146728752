"""Does TOUCH keep in Redis what is hot in L1? Run as `python -m bench.warming`.

A Redis that holds half of what is put into it, and evicts by LRU or LFU. Hits of L1 never reach it, so that the keys it
is asked for most look idle to it. When it evicts one it says so, as it does for a change, and L1 loses its entry too:
nothing else takes entries from L1 here, and the next reader finds the key in neither.

    an app: zipf reads, cache-aside --+--------------------------------> Redis 1        direct
    (a nil: it makes the value anew   +--> Respite, l1.touch_rate 0 ---> Redis 2        touch 0
     and SETs it)                     +--> Respite, 100 ---------------> Redis 3        touch 100
                                      +--> Respite, 1000 --------------> Redis 4        touch 1000
    another app: new keys, each read twice and never again ------------> each of the four

All sides run at the same time and get the same reads of the same keys at the same moments; the pace is far from what
the machine can do, so all but the share of processor time are counts. What decides is how many keys are touched while
Redis turns over once, here some 25 s: a real Redis takes minutes or hours, and the same rate then covers more keys.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench._chart import Panel, draw, need_matplotlib
from bench._lib import (
    BenchError,
    Disturbance,
    ZipfKeys,
    machine,
    markdown_table,
    need_programs,
    paired_ratios,
    rotated,
    run_main,
    say,
    spread,
    write_result,
)
from bench._load import key_name
from bench._servers import Rig, Server, free_port, versions

POLICIES = ("allkeys-lru", "allkeys-lfu")
DIRECT = "direct"
BASE = "touch 0"
TICK_S = 0.02
# How often the other app reads each of its keys: once at once, once a while later.
LATER_TICKS = 10
# Further behind its schedule than this, and the run was not what it claims to be; below, rates are of the time it took.
LATE_SHARE = 0.25
RATIOS = ("recomputed_per_s", "hot_share", "found_share")
DIGITS = {"recomputed_per_s": 1, "evicted_per_s": 0, "touched_per_s": 0, "touch_cpu_share": 4}


@attrs.frozen
class Run:
    """What one side showed in one round under one policy."""

    round: int
    policy: str
    side: str
    recomputed_per_s: float
    """Values the app had to make anew: its reads that found the key in neither tier."""
    hot_share: float
    """Share of the most popular keys that Redis holds at the end."""
    found_share: float
    """Share of all reads that a sidecar which starts cold then would find in Redis."""
    l1_hit_share: float | None
    evicted_per_s: float
    touched_per_s: float
    touch_cpu_share: float
    """Share of the time Redis spent on commands that went to TOUCH."""


def side_names(rates: Sequence[int]) -> list[str]:
    """Name the sides, the reference first."""
    return [DIRECT, *(f"touch {rate}" for rate in rates)]


class TunedRig(Rig):
    """A rig whose Respites differ in numbers of [l1], which `Rig.respite` would write as strings."""

    def tuned(self, name: str, upstream: Server, l1: Mapping[str, float]) -> Server:
        """Start Respite with defaults but for the keys of [l1] that are given."""
        port, admin_port = free_port(), free_port()
        config = self._file(
            f"{name}.toml",
            f'[listen]\nurl = "redis://127.0.0.1:{port}"\nadmin = "http://127.0.0.1:{admin_port}"\n'
            f'[upstream]\nurl = "redis://127.0.0.1:{upstream.port}"\n'
            "[l1]\n" + "".join(f"{key} = {value}\n" for key, value in l1.items()),
        )
        command = [sys.executable, "-m", "proxy", "run", "-c", str(config)]
        return self._start(name, port, command, admin_port=admin_port)


class Side:
    """A Redis under memory pressure, and what the two apps reach it through."""

    def __init__(self, rig: TunedRig, name: str, rate: int | None, policy: str, options: argparse.Namespace) -> None:
        self.name = name
        self.redis = rig.redis(f"redis-{name}-{policy}".replace(" ", "-"))
        self._direct = self.redis.client()
        self._value = b"x" * options.value_bytes
        self._fill(policy, options)
        self.respite: Server | None = None
        if rate is not None:
            self.respite = rig.tuned(f"respite-{rate}-{policy}", self.redis, {"touch_rate": rate})
        self._app = (self.respite or self.redis).client()
        self._recomputed = 0

    def _fill(self, policy: str, options: argparse.Namespace) -> None:
        """Hold every key of the app, then no more than a share of them."""
        empty = self._direct.info("memory")["used_memory"]
        with self._direct.pipeline(transaction=False) as pipeline:
            for number in range(options.keys):
                pipeline.set(key_name(number), self._value)
            pipeline.execute()
        full = self._direct.info("memory")["used_memory"]
        self._direct.config_set("maxmemory-policy", policy)
        self._direct.config_set("maxmemory", round(empty + (full - empty) * options.memory_share))

    def read(self, keys: Sequence[str]) -> None:
        """Be the app: read, and make anew what is nowhere."""
        with self._app.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.get(key)
            found = pipeline.execute()
            missing = dict.fromkeys(key for key, value in zip(keys, found, strict=True) if value is None)
            self._recomputed += len(missing)
            for key in missing:
                pipeline.set(key, self._value)
            pipeline.execute()

    def interfere(self, written: Sequence[str], read: Sequence[str]) -> None:
        """Be the other app."""
        with self._direct.pipeline(transaction=False) as pipeline:
            for key in written:
                pipeline.set(key, self._value)
            for key in read:
                pipeline.get(key)
            pipeline.execute()

    def figures(self) -> dict[str, float]:
        """Read every running total that a run is the difference of."""
        stats = self._direct.info("commandstats")
        l1 = self.respite.stats()["l1"] if self.respite else {}
        return {
            "recomputed": self._recomputed,
            "evicted": self._direct.info("stats")["evicted_keys"],
            "touch_us": stats.get("cmdstat_touch", {}).get("usec", 0),
            "all_us": sum(each["usec"] for each in stats.values()),
            "touched": l1.get("touched_total", 0),
            "hits": l1.get("hits_total", 0),
            "misses": l1.get("misses_total", 0),
        }

    def held(self, count: int) -> list[bool]:
        """Return which of the app's keys Redis holds, the most popular first; EXISTS is no use of a key."""
        with self._direct.pipeline(transaction=False) as pipeline:
            for number in range(count):
                pipeline.exists(key_name(number))
            return [answer == 1 for answer in pipeline.execute()]

    def close(self) -> None:
        """Leave the servers to the rig."""
        self._app.close()
        self._direct.close()


class Load:
    """Plays both apps on all sides at once, a tick at a time."""

    def __init__(
        self, sides: Sequence[Side], number: int, options: argparse.Namespace, *, late_share: float = LATE_SHARE
    ) -> None:
        self._sides = sides
        self._late_share = late_share
        self._drawn = ZipfKeys(options.keys, options.theta, number)
        self._reads = round(options.rate * TICK_S)
        self._writes = round(options.other_rate * TICK_S)
        self._tick = 0

    def run(self, seconds: float) -> float:
        """Play what belongs into so many seconds; return how many it took. Raises BenchError if that is much more."""
        began = time.monotonic()
        ticks = round(seconds / TICK_S)
        for tick in range(ticks):
            time.sleep(max(0.0, began + tick * TICK_S - time.monotonic()))
            self._play()
        took_s = time.monotonic() - began
        if took_s > seconds * (1 + self._late_share):
            raise BenchError(f"{seconds:.0f} s of load took {took_s:.0f}: a smaller --rate, or a quieter machine")
        return took_s

    def _play(self) -> None:
        keys = [key_name(number) for number in self._drawn.take(self._reads)]
        new, older = (
            [f"other:{tick * self._writes + at}" for at in range(self._writes)]
            for tick in (self._tick, self._tick - LATER_TICKS)
        )
        for side in rotated(self._sides, self._tick):
            side.read(keys)
            side.interfere(new, [*new, *older])
        self._tick += 1


def popularity(count: int, theta: float) -> list[float]:
    """Return the share of the reads that each key gets."""
    weights = [(rank + 1) ** -theta for rank in range(count)]
    total = sum(weights)
    return [weight / total for weight in weights]


def run_policy(rig: TunedRig, policy: str, number: int, options: argparse.Namespace) -> list[Run]:
    """Run all sides under one policy, on servers of their own."""
    rates: list[int | None] = [None, *options.rates]
    sides = [Side(rig, *each, policy, options) for each in zip(side_names(options.rates), rates, strict=True)]
    try:
        load = Load(sides, number, options)
        load.run(options.warm_s)
        before = [side.figures() for side in sides]
        took_s = load.run(options.seconds)
        return [sum_up(side, each, took_s, (number, policy), options) for side, each in zip(sides, before, strict=True)]
    finally:
        for side in sides:
            side.close()


def sum_up(
    side: Side, before: Mapping[str, float], took_s: float, where: tuple[int, str], options: argparse.Namespace
) -> Run:
    """Make a run of what a side counted since `before`; `where` is its round and policy."""
    used = {name: value - before[name] for name, value in side.figures().items()}
    held = side.held(options.keys)
    shares = popularity(options.keys, options.theta)
    reads = used["hits"] + used["misses"]
    if side.respite and not reads:
        raise BenchError(f"{side.name}: no read passed L1")
    if not used["evicted"]:
        raise BenchError(f"{side.name}: Redis evicted nothing, it is under no pressure")
    return Run(
        round=where[0],
        policy=where[1],
        side=side.name,
        recomputed_per_s=used["recomputed"] / took_s,
        hot_share=sum(held[: options.hot]) / options.hot,
        found_share=sum(share for share, is_held in zip(shares, held, strict=True) if is_held),
        l1_hit_share=used["hits"] / reads if side.respite else None,
        evicted_per_s=used["evicted"] / took_s,
        touched_per_s=used["touched"] / took_s,
        touch_cpu_share=used["touch_us"] / used["all_us"],
    )


def measure(options: argparse.Namespace) -> list[Run]:
    """Run all rounds; the policy that goes first takes turns. Every run has fresh servers."""
    runs = []
    for number in range(1, options.rounds + 1):
        for policy in rotated(options.policies, number - 1):
            with TunedRig() as rig:
                found = run_policy(rig, policy, number, options)
            for run in found:
                say(
                    f"round {number}/{options.rounds}  {policy}  {run.side:10}  recomputed {run.recomputed_per_s:.1f}/s"
                    f"  hot keys in Redis {run.hot_share:.0%}  touched {run.touched_per_s:.0f}/s"
                )
            runs += found
    return runs


def picked(runs: Sequence[Run], policy: str, side: str, name: str) -> dict[int, float]:
    """Map round to one figure of one side; a figure that a side has not is left out."""
    chosen = ((run.round, getattr(run, name)) for run in runs if (run.policy, run.side) == (policy, side))
    return {number: value for number, value in chosen if value is not None}


def policies_of(runs: Sequence[Run]) -> list[str]:
    """Return the policies that were run, in the order of the tables."""
    return [policy for policy in POLICIES if any(run.policy == policy for run in runs)]


def ratio_rows(runs: Sequence[Run], sides: Sequence[str]) -> list[dict[str, Any]]:
    """Put each side's figures over those of the side without TOUCH in the same round."""
    rows = []
    for policy in policies_of(runs):
        for side in sides:
            if side == BASE:
                continue
            row: dict[str, Any] = {"policy": policy, "side": side}
            for name in RATIOS:
                ratio = spread(paired_ratios(picked(runs, policy, side, name), picked(runs, policy, BASE, name)))
                row |= {name: attrs.asdict(ratio), f"{name} text": ratio.text()}
            rows.append(row)
    return rows


def print_tables(runs: Sequence[Run], ratios: Sequence[dict[str, Any]], sides: Sequence[str]) -> None:
    """Print the ratios to no TOUCH, then what each side showed."""
    print(
        markdown_table(
            ["policy", f"side / {BASE}", *(name.removesuffix("_per_s").replace("_", " ") for name in RATIOS)],
            [[row["policy"], row["side"], *(row[f"{name} text"] for name in RATIOS)] for row in ratios],
        )
    )
    shown = [field.name for field in attrs.fields(Run) if field.name not in {"round", "policy", "side"}]
    for policy in policies_of(runs):
        rows = []
        for name in shown:
            found = [list(picked(runs, policy, side, name).values()) for side in sides]
            rows.append([name, *(spread(each).text(DIGITS.get(name, 3)) if each else "" for each in found)])
        print(f"\n{policy}\n")
        print(markdown_table(["median (min..max)", *sides], rows))


def draw_chart(path: Path, runs: Sequence[Run], sides: Sequence[str], options: argparse.Namespace) -> None:
    """Draw what the app made anew, and what Redis still held."""
    policies = policies_of(runs)

    def panel(title: str, label: str, name: str) -> Panel:
        return Panel(
            title,
            label,
            policies,
            {side: [spread(list(picked(runs, policy, side, name).values())) for policy in policies] for side in sides},
        )

    draw(
        path,
        "A Redis that evicts, and hot keys served from L1: with and without TOUCH, median and range of the rounds",
        [
            panel("Values the app had to make anew", "a second", "recomputed_per_s"),
            panel(f"The {options.hot:,} most popular keys that Redis holds at the end", "share", "hot_share"),
        ],
    )


def parsed_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, help="default 3, with --quick 1")
    parser.add_argument("--quick", action="store_true", help="to try it, not to quote")
    parser.add_argument("--seconds", type=float, help="measured time of a run (default 30, with --quick 5)")
    parser.add_argument(
        "--warm-s", type=float, help="time before it that is not measured (default 40, with --quick 10)"
    )
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES)
    parser.add_argument("--rates", type=int, nargs="+", default=[100, 1000], help="l1.touch_rate, besides 0")
    parser.add_argument("--rate", type=float, default=1000, help="reads/s of the app")
    parser.add_argument("--other-rate", type=float, default=200, help="keys/s that the other app writes")
    parser.add_argument("--keys", type=int, default=20_000, help="of the app")
    parser.add_argument("--hot", type=int, default=1000, help="of them, the most popular: those that should stay")
    parser.add_argument("--theta", type=float, default=0.99, help="of the zipf distribution")
    parser.add_argument("--value-bytes", type=int, default=1024)
    parser.add_argument("--memory-share", type=float, default=0.5, help="of the app's data that Redis may hold")
    parser.add_argument("--out", type=Path, help="the JSON file; the chart goes beside it (default bench/results/)")
    parser.add_argument("--no-chart", action="store_true", help="do without matplotlib")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (5.0 if options.quick else 30.0)
    options.warm_s = options.warm_s if options.warm_s is not None else (10.0 if options.quick else 40.0)
    options.rates = [0, *(rate for rate in options.rates if rate)]
    return options


def main() -> None:
    """Measure, print, write."""
    options = parsed_options()
    need_programs(["redis-server"])
    if not options.no_chart:
        need_matplotlib()
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    runs = measure(options)
    sides = side_names(options.rates)
    ratios = ratio_rows(runs, sides)
    print_tables(runs, ratios, sides)
    result = {
        "script": "warming",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "ratios": ratios,
        "runs": [attrs.asdict(run) for run in runs],
    }
    path = write_result("warming", result, options.out)
    say(f"figures: {path}")
    if not options.no_chart:
        draw_chart(path.with_suffix(".png"), runs, sides, options)


if __name__ == "__main__":
    run_main(main)
