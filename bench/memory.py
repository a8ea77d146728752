"""How much less memory does Redis need? Run as `python -m bench.memory`.

Three data sets (bench/_values.py) are written through Respite into a Redis of its own, once for each way of storing:

    as written            classes that ask for nothing                               --> Redis 1
    lz4                   compress = true                                            --> Redis 2
    lz4 + dictionary      compress = true, dictionary = true                         --> Redis 3
    zstd (+ dictionary)   the same with [compression] codec = "zstd", if installed   --> Redis 4, 5

Where dictionaries are learnt, other values are written to the same keys first, until each class has one. What counts is
INFO used_memory: keys, Redis' own structures, what its allocator rounds up, and the dictionaries are all in it. Nothing
is compared in time, so a busy machine changes nothing. Every value is read back through Respite at the end.
"""

import argparse
import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import redis

from bench._chart import Panel, draw, need_matplotlib
from bench._lib import (
    BenchError,
    Disturbance,
    Spread,
    machine,
    markdown_table,
    need_programs,
    run_main,
    say,
    verdict,
    write_result,
)
from bench._servers import Rig, versions
from bench._values import DATA_SETS, DataSet

AS_WRITTEN = "as written"
MIX = "mix"
COUNTS = {"JSON documents": 1_000, "chat messages": 15_000, "HTML fragments": 2_200}
"""So that each is about a third of the bytes."""
BATCH = 50
LEARN_TIMEOUT_S = 60.0
# A dictionary is used a second after it was announced.
SETTLE_S = 2.0
SAVED_FLOOR, SAVED_GOAL = 0.30, 0.60
DICTIONARIES = "respite:dictionaries"

Values = Sequence[tuple[str, bytes]]


@attrs.frozen
class Way:
    """One way of storing values."""

    name: str
    codec: str = "lz4"
    compress: bool = False
    dictionary: bool = False


WAYS = (
    Way(AS_WRITTEN),
    Way("lz4", compress=True),
    Way("lz4 + dictionary", compress=True, dictionary=True),
    Way("zstd", "zstd", compress=True),
    Way("zstd + dictionary", "zstd", compress=True, dictionary=True),
)


@attrs.frozen
class Taken:
    """What one data set, or all of them, took in one Redis."""

    way: str
    data_set: str
    values: int
    raw_bytes: int
    used_bytes: int
    """By how much used_memory grew."""


def sections(way: Way) -> str:
    """Return a class for each data set, and how values are compressed, as the configuration file has them."""
    classes = "".join(
        f'[[class]]\nname = "{each.prefix}"\nmatch = ["{each.prefix}:*"]\n'
        f"compress = {str(way.compress).lower()}\ndictionary = {str(way.dictionary).lower()}\n"
        for each in DATA_SETS
    )
    # Everything is written without a pause here: let nothing be stored as it is because of that.
    return f'[compression]\ncodec = "{way.codec}"\ntime_share = 1\n{classes}'


def used_memory(client: "redis.Redis") -> int:
    """Ask Redis what it takes, once it has nothing left to free."""
    time.sleep(0.2)
    return int(client.info("memory")["used_memory"])


def write(client: "redis.Redis", values: Values) -> None:
    """Write values, some at a time."""
    for start in range(0, len(values), BATCH):
        with client.pipeline(transaction=False) as pipeline:
            for key, value in values[start : start + BATCH]:
                pipeline.set(key, value)
            pipeline.execute()


def learn(through: "redis.Redis", direct: "redis.Redis", earlier: Mapping[str, Values]) -> None:
    """Write other values until each class has a dictionary. Raises BenchError if that takes too long."""
    deadline = time.monotonic() + LEARN_TIMEOUT_S
    while direct.hlen(DICTIONARIES) < len(earlier):
        if time.monotonic() > deadline:
            raise BenchError(f"{direct.hlen(DICTIONARIES)} of {len(earlier)} classes have learnt a dictionary")
        for values in earlier.values():
            write(through, values)
    time.sleep(SETTLE_S)
    # Deleted and not overwritten: what used_memory grows by is then all of a data set.
    for values in earlier.values():
        direct.unlink(*(key for key, _ in values))


def check(through: "redis.Redis", values: Values) -> None:
    """Raise BenchError unless every value reads as it was written."""
    for start in range(0, len(values), BATCH):
        batch = values[start : start + BATCH]
        found = through.mget([key for key, _ in batch])
        if found != [value for _, value in batch]:
            raise BenchError(f"a value between {batch[0][0]} and {batch[-1][0]} does not read as it was written")


def measure_way(rig: Rig, way: Way, data: Mapping[str, Values], earlier: Mapping[str, Values]) -> list[Taken]:
    """Store all data sets one way, one after the other."""
    slug = way.name.replace(" ", "-").replace("+", "and")
    server = rig.redis(f"redis-{slug}")
    respite = rig.respite(f"respite-{slug}", server, more=sections(way))
    taken = []
    with server.client() as direct, respite.client() as through:
        empty = used_memory(direct)
        if way.dictionary:
            learn(through, direct, earlier)
        # Dictionaries count for the mix: for one data set their share would only tell how many values it has.
        before = used_memory(direct)
        for name, values in data.items():
            write(through, values)
            after = used_memory(direct)
            taken.append(Taken(way.name, name, len(values), raw_bytes(values), after - before))
            say(f"{way.name:18} {name:16} {taken[-1].raw_bytes / 1e6:6.1f} MB take {(after - before) / 1e6:6.1f} MB")
            before = after
        everything = [each for values in data.values() for each in values]
        taken.append(Taken(way.name, MIX, len(everything), raw_bytes(everything), before - empty))
        if way.compress and direct.strlen(everything[0][0]) == len(everything[0][1]) > 20_000:
            raise BenchError(f"{way.name}: {everything[0][0]} lies in Redis as it was written")
        for values in data.values():
            check(through, values)
    return taken


def raw_bytes(values: Values) -> int:
    """Return the bytes of the values alone."""
    return sum(len(value) for _, value in values)


def saved(taken: Sequence[Taken], way: str, data_set: str) -> float:
    """Return the share of the memory that a way saves."""
    used = {each.way: each.used_bytes for each in taken if each.data_set == data_set}
    return 1 - used[way] / used[AS_WRITTEN]


def summary(taken: Sequence[Taken]) -> list[dict[str, Any]]:
    """Return a row a data set, the mix last; a way's mix is judged."""
    rows: list[dict[str, Any]] = []
    for first in (each for each in taken if each.way == AS_WRITTEN):
        ways = [each for each in taken if each.data_set == first.data_set]
        rows.append(
            {
                "data_set": first.data_set,
                "values": first.values,
                "raw_bytes": first.raw_bytes,
                "used_bytes": {each.way: each.used_bytes for each in ways},
                "saved": {each.way: round(saved(taken, each.way, first.data_set), 4) for each in ways[1:]},
            }
        )
    mix = rows[-1]["saved"]
    rows[-1]["verdicts"] = {way: verdict(share, SAVED_FLOOR, SAVED_GOAL) for way, share in mix.items()}
    return rows


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what each way takes, and the share it saves."""
    ways = list(rows[0]["used_bytes"])
    cells = []
    for row in rows:
        line = [row["data_set"], f"{row['values']:,}", f"{row['raw_bytes'] / 1e6:.1f} MB"]
        for way in ways:
            text = f"{row['used_bytes'][way] / 1e6:.1f} MB"
            line.append(text if way == AS_WRITTEN else f"{text} ({-row['saved'][way]:+.0%})")
        cells.append(line)
    cells.append(["verdict on the mix", "", "", "", *(rows[-1]["verdicts"][way] for way in ways[1:])])
    print(markdown_table(["used_memory", "values", "their bytes", *ways], cells))
    print(f"\nFloor: {SAVED_FLOOR:.0%} saved of the mix. Goal, with dictionaries: {SAVED_GOAL:.0%}.")


def draw_chart(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw used_memory of each data set, a bar a way."""
    bars = {
        way: [Spread(used, used, used) for used in (row["used_bytes"][way] / 1e6 for row in rows)]
        for way in rows[0]["used_bytes"]
    }
    draw(path, "Memory of Redis", [Panel("used_memory", "MB", [row["data_set"] for row in rows], bars)])


def make(data_set: DataSet, share: float, seed: int) -> Values:
    """Make the values of a data set."""
    return list(data_set.values(max(1, round(COUNTS[data_set.name] * share)), seed))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a tenth of the values; to try it, not to quote")
    parser.add_argument("--only", help="one way of storing besides as written, by its name")
    parser.add_argument("--out", type=Path, help="the JSON file; the chart goes beside it (default bench/results/)")
    parser.add_argument("--no-chart", action="store_true", help="do without matplotlib")
    options = parser.parse_args()
    need_programs(["redis-server"])
    if not options.no_chart:
        need_matplotlib()
    has_zstd = importlib.util.find_spec("zstandard") is not None
    ways = [way for way in WAYS if (way.codec != "zstd" or has_zstd) and options.only in (None, way.name, way.codec)]
    ways = [WAYS[0], *(way for way in ways if way is not WAYS[0])]
    if len(ways) == 1:
        raise BenchError(f"--only is one of: {', '.join(way.name for way in WAYS[1:])}")
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    share = 0.1 if options.quick else 1.0
    say("making the values")
    data = {each.name: make(each, share, options.seed) for each in DATA_SETS}
    earlier = {each.name: make(each, max(share, 0.2), options.seed + 1) for each in DATA_SETS}
    taken = []
    for way in ways:
        with Rig() as rig:
            taken += measure_way(rig, way, data, earlier)
    rows = summary(taken)
    print_table(rows)
    result = {
        "script": "memory",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "summary": rows,
        "taken": [attrs.asdict(each) for each in taken],
    }
    path = write_result("memory", result, options.out)
    say(f"figures: {path}")
    if not options.no_chart:
        draw_chart(path.with_suffix(".png"), rows)


if __name__ == "__main__":
    run_main(main)
