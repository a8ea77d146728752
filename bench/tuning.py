"""Can tuning trust its ghosts, what do they cost, and would L1 do better with a share for each class? Three tables.

    python -m bench.tuning [--traces zipf-0.9,scans] [--requests N] [--rounds N] [--out FILE]

**Ghosts**: a trace is played with L1 at a tenth of the bytes of all entries, and what its ghosts say of 1.25, 1.5 and
2 times the room is held against what those rooms then have. **Cost**: the processor time of a trace with ghosts, less
that without, alternating, for each miss. Nearly every miss evicts, and so small an L1 has ghosts of more of its keys
than a large one, so this is the most they cost; hits pay nothing. **Classes**: two traces at once, each of keys of its
own, in one L1 that takes them for one class, in one that learns by class, and in the same bytes split between two, at
every share from 10 to 90 %.

Floors: what is promised is between a fifth and twice of what comes where that is a point or more; ghosts cost a miss
at most 5 us, a small part of what a trip to Redis costs the proxy; no split is more than a point better than one L1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

from bench import _lib as lib
from bench._traces import GENERATED, Trace, load
from proxy.cache.entry import ENTRY_OVERHEAD_BYTES, Scope, held_bytes
from proxy.cache.ghost import ROOMS, Ghosts
from proxy.cache.groups import ClassOf
from proxy.cache.l1 import L1, TABLES_FREE_BYTES
from proxy.wire.encode import bulk

TRACES: Final = ("zipf-0.7", "zipf-0.9", "zipf-1.0", "scans", "shifting", "sessions", "zipf-0.9-mixed", "scans-mixed")
SHARE: Final = 0.1
TICK_S: Final = 1e-4
PAIRS: Final = (("zipf-1.0", "scans"), ("zipf-0.9", "sessions"), ("zipf-0.9", "zipf-0.7"), ("shifting", "scans-mixed"))
SPLITS: Final = tuple(part / 10 for part in range(1, 10))
LOW, HIGH, TELLING = 0.2, 2.0, 0.01
COST_MOST_US: Final = 5.0
SPLIT_MOST: Final = 0.01


class Player:
    """One L1 that reads of numbered keys are played against."""

    def __init__(self, max_bytes: int, *, has_ghosts: bool = False) -> None:
        self.l1 = L1(max_bytes)
        self.l1.serve()
        self.l1.ghosts = Ghosts() if has_ghosts else None
        self.hits = 0
        self._namespace = self.l1.namespace(Scope(b"", 0, 2))

    def read(self, key: bytes, reply: bytes, now: float) -> None:
        """Read one key."""
        entry = self._namespace.entries.get(key)
        if entry is not None:
            entry.uses += 1
            entry.used_at = now
            self.hits += 1
        elif self.l1.admits(key, key):
            self.l1.put(self._namespace, key, reply, float("inf"), now)


class Frames:
    """The keys and replies of a trace, as L1 holds them."""

    def __init__(self, trace: Trace, prefix: bytes = b"key") -> None:
        by_size = {size: bulk(bytes(size)) for size in set(trace.sizes)}
        self.keys = [bulk(b"%b:%d" % (prefix, number)) for number in range(len(trace.sizes))]
        self.replies = [by_size[size] for size in trace.sizes]
        self.reads = list(trace.keys)
        self.bytes = sum(
            held_bytes(key) + held_bytes(reply) + ENTRY_OVERHEAD_BYTES
            for key, reply in zip(self.keys, self.replies, strict=True)
        )

    def play(self, player: Player) -> float:
        """Play it; return the hit rate of its second half."""
        half, before = len(self.reads) // 2, 0
        for at, number in enumerate(self.reads):
            if at == half:
                before = player.hits
            player.read(self.keys[number], self.replies[number], at * TICK_S)
        return (player.hits - before) / half


def promised(frames: Frames, max_bytes: int) -> tuple[float, list[float]]:
    """Return the hit rate of the second half, and by how much ghosts say that it would be higher."""
    player = Player(max_bytes, has_ghosts=True)
    ghosts = player.l1.ghosts
    assert ghosts is not None
    half = len(frames.reads) // 2
    hits, before = 0, (0,) * len(ROOMS)
    for at, number in enumerate(frames.reads):
        if at == half:
            hits, before = player.hits, ghosts.hits()
        player.read(frames.keys[number], frames.replies[number], at * TICK_S)
    gains = [(new - old) / half for new, old in zip(ghosts.hits(), before, strict=True)]
    return (player.hits - hits) / half, gains


def cost_us(frames: Frames, max_bytes: int, rounds: int) -> lib.Spread:
    """Return the microseconds of processor time that ghosts cost a miss, round by round."""
    costs = []
    for number in range(rounds):
        took = dict.fromkeys((True, False), 0.0)
        misses = 1
        for has_ghosts in lib.rotated([True, False], number):
            player = Player(max_bytes, has_ghosts=has_ghosts)
            began = time.process_time()
            frames.play(player)
            took[has_ghosts] = time.process_time() - began
            misses = len(frames.reads) - player.hits
        costs.append((took[True] - took[False]) / misses * 1e6)
    return lib.spread(costs)


def class_of(key: bytes) -> str:
    """Return the trace that a key is of."""
    return key[key.index(b"\n") + 1 : key.index(b":")].decode()


def split(pair: tuple[str, str], requests: int) -> tuple[float, float, float, float]:
    """Return the hit rate of one L1 for two traces, as one class and as two, of its best split, and where that is."""
    both = [Frames(load(name, requests), name.encode()) for name in pair]
    room = int(SHARE * sum(frames.bytes for frames in both))

    def one(groups: ClassOf | None) -> float:
        # Small tables are not counted, once for each L1: two of them have twice as much for nothing.
        player = Player(room + TABLES_FREE_BYTES)
        player.l1.group_by(groups)
        half, before = requests // 2, 0
        for at in range(requests):
            if at == half:
                before = player.hits
            for frames in both:
                number = frames.reads[at]
                player.read(frames.keys[number], frames.replies[number], at * TICK_S)
        return (player.hits - before) / (2 * half)

    def parted(part: float) -> float:
        first, second = both
        return (first.play(Player(int(part * room))) + second.play(Player(int((1 - part) * room)))) / 2

    return one(None), one(class_of), *max((parted(part), part) for part in SPLITS)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="What ghosts promise, what they cost, and L1 split by class.")
    parser.add_argument("--traces", default=",".join(TRACES), help=f"some of {', '.join(GENERATED)} (%(default)s)")
    parser.add_argument("--requests", type=int, default=200_000, help="reads of each trace (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the cost (%(default)s)")
    parser.add_argument("--out", type=Path, help="the JSON file (bench/results/tuning-TIME.json)")
    return parser.parse_args()


def main() -> None:
    """Play everything, print the tables, write JSON."""
    options = arguments()
    about, disturbance = lib.machine(), lib.Disturbance()
    result: dict[str, Any] = {"machine": about, "requests": options.requests, "ghosts": [], "cost": [], "classes": []}
    rows, costs = [], []
    for name in options.traces.split(","):
        lib.say(f"playing {name}")
        frames = Frames(load(name.strip(), options.requests))
        room = int(SHARE * frames.bytes)
        rate, gains = promised(frames, room)
        came = [frames.play(Player(int(times * room))) - rate for times in ROOMS]
        telling = [gain / real for gain, real in zip(gains, came, strict=True) if real >= TELLING]
        verdict = "met" if all(LOW <= ratio <= HIGH for ratio in telling) else "MISSED"
        pairs = [f"{gain:.2%} / {real:.2%}" for gain, real in zip(gains, came, strict=True)]
        rows.append([name, f"{rate:.2%}", *pairs, verdict])
        result["ghosts"].append({"trace": name, "hit_rate": rate, "promised": gains, "came": came})
        paid = cost_us(frames, room, options.rounds)
        costs.append([name, paid.text(2), lib.verdict(paid.median, COST_MOST_US, None, less_is_better=True)])
        result["cost"].append({"trace": name, "us": [paid.median, paid.low, paid.high]})
    print("\nHits besides, as ghosts promise / as they come:\n")
    print(lib.markdown_table(["trace", "hit rate", *(f"{times:g} times the room" for times in ROOMS), "verdict"], rows))
    print("\nMicroseconds that ghosts cost a miss:\n")
    print(lib.markdown_table(["trace", "us a miss", "verdict"], costs))
    rows = []
    for pair in PAIRS:
        lib.say(f"splitting {' and '.join(pair)}")
        blind, whole, best, part = split(pair, options.requests)
        verdict = lib.verdict(best - whole, SPLIT_MOST, None, less_is_better=True)
        rows.append([" and ".join(pair), f"{blind:.2%}", f"{whole:.2%}", f"{best:.2%} at {part:.0%}", verdict])
        result["classes"].append({"pair": pair, "one_class": blind, "one": whole, "split": best, "part": part})
    print("\nHits of two classes in one L1, not told of them and told, and in the best split (share of the first):\n")
    print(lib.markdown_table(["classes", "as one class", "as two", "best split", "verdict"], rows))
    result["disturbed"] = disturbance.report()
    print(f"\n{lib.write_result('tuning', result, options.out)}")


if __name__ == "__main__":
    lib.run_main(main)
