"""Does L1 keep the right entries? Its object hit ratio beside that of W-TinyLFU and S3-FIFO, and what a hit costs.

    python -m bench.hitratio [--traces zipf-0.9,twitter] [--requests N] [--quick] [--no-chart] [--out FILE]

Generated traces and two real samples (`_traces.py`), at 1, 5, 10 and 25 % of the bytes of all their entries. The
referee is libcachesim; it is told the sizes that L1 counts, key and overhead included, and adds nothing of its own, so
that all three have the same bytes for the same entries. L1 is driven as the proxy drives it: a look-up and two
attribute writes a hit, `admits` and `put` a miss. Its clock is virtual, 0.1 ms a read. Hits are timed over the last
reads of each trace, in what L1 then holds, so with the misses of the processor's caches that such reads have.

Floors: ahead of both on average, never more than 2 points behind either, at most 0.3 us a hit.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from bench import _lib as lib
from bench._chart import Panel, draw, need_matplotlib
from bench._traces import NAMES, REFEREE, Trace, load
from proxy.cache.entry import Entry, Namespace, Scope
from proxy.cache.l1 import L1
from proxy.wire.encode import bulk

SHARES: Final = (1, 5, 10, 25)
OTHERS: Final = {"W-TinyLFU": "WTinyLFU", "S3-FIFO": "S3FIFO"}
TICK_S: Final = 1e-4
AVERAGE_FLOOR: Final = 0.0
WORST_FLOOR: Final = -2.0
HIT_US_FLOOR: Final = 0.3
QUICK_REQUESTS: Final = 60_000
HIT_READS: Final = 50_000
HIT_ROUNDS: Final = 3
HIT_BURST: Final = 100


@attrs.frozen
class Cell:
    """One trace at one size: the percentages of hits, ours and theirs."""

    trace: str
    share: int
    ours: float
    theirs: dict[str, float]
    refused: float
    """The percentage of reads that admission kept out."""
    hit_us: float

    def lead(self, other: str) -> float:
        """Return how many points we are ahead."""
        return self.ours - self.theirs[other]


@attrs.frozen
class Played:
    """What one trace came to with L1."""

    hits: float
    refused: float
    hit_us: float


def frames(trace: Trace) -> tuple[list[bytes], list[bytes]]:
    """Return the key and the reply of every number, as they are held; replies of one size are one object."""
    by_size = {size: bulk(bytes(size)) for size in set(trace.sizes)}
    return [bulk(b"key:%d" % number) for number in range(len(trace.sizes))], [by_size[size] for size in trace.sizes]


def hit_us(namespace: Namespace, pattern: Sequence[int]) -> float:
    """Return microseconds a hit: the look-up, the check of the deadline, two attribute writes; the loop taken off."""
    find = namespace.entries.get
    now = len(pattern) * 1e3
    took = 0.0
    gc.disable()
    try:
        for start in range(0, len(pattern), HIT_BURST):
            # A key has just been sliced from what a client sent: near, but its hash is not known yet.
            asked = [bulk(b"key:%d" % number) for number in pattern[start : start + HIT_BURST]]
            began = time.thread_time()  # not the wall: other work on the machine is no part of a hit
            for key in asked:
                entry = find(key)
                if entry is not None and entry.deadline > now:
                    entry.uses += 1
                    entry.used_at = now
            hit = time.thread_time()
            for key in asked:  # noqa: B007
                pass
            took += hit - began - (time.thread_time() - hit)
        return took / max(1, len(pattern)) * 1e6
    finally:
        gc.enable()


def play_ours(trace: Trace, keys: Sequence[bytes], replies: Sequence[bytes], max_bytes: int) -> Played:
    """Play a trace against L1; then time the reads of its end that are hits by now."""
    cache = L1(max_bytes)
    cache.serve()
    namespace = cache.namespace(Scope(b"", 0, 2))
    find = namespace.entries.get
    hits = 0
    for at, number in enumerate(trace.keys):
        now = at * TICK_S
        key = keys[number]
        entry = find(key)
        if entry is not None and entry.deadline > now:
            entry.uses += 1
            entry.used_at = now
            hits += 1
        elif cache.admits(key, key):
            cache.put(namespace, key, replies[number], float("inf"), now)
    reads = len(trace.keys)
    pattern = [number for number in trace.keys[-HIT_READS:] if keys[number] in namespace.entries]
    cost = min(hit_us(namespace, pattern) for _ in range(HIT_ROUNDS))
    return Played(hits / reads * 100, cache.admission.refusals / reads * 100, cost)


def play_theirs(policy: str, trace: Trace, sizes: Sequence[int], max_bytes: int) -> float:
    """Play a trace against a policy of libcachesim; return the percentage of hits."""
    import libcachesim  # noqa: PLC0415

    cache = getattr(libcachesim, policy)(max_bytes, hashpower=18, consider_obj_metadata=False)
    request = libcachesim.Request()
    hits = 0
    for number in trace.keys:
        request.obj_id = number
        request.obj_size = sizes[number]
        hits += cache.get(request)
    return hits / len(trace.keys) * 100


def compare(trace: Trace) -> list[Cell]:
    """Play one trace at every size."""
    keys, replies = frames(trace)
    namespace = Namespace(Scope(b"", 0, 2))
    sizes = [Entry(namespace, key, reply, 0.0, 0.0).size_bytes for key, reply in zip(keys, replies, strict=True)]
    footprint = sum(sizes)
    cells = []
    for share in SHARES:
        max_bytes = footprint * share // 100
        theirs = {name: play_theirs(policy, trace, sizes, max_bytes) for name, policy in OTHERS.items()}
        ours = play_ours(trace, keys, replies, max_bytes)
        cells.append(Cell(trace.name, share, ours.hits, theirs, ours.refused, ours.hit_us))
    return cells


def report(cells: Sequence[Cell]) -> dict[str, Any]:
    """Print the tables and the verdicts; return the verdicts."""
    headers = ["trace", "size", "Respite", *OTHERS, *(f"to {name}" for name in OTHERS), "refused", "us a hit"]
    rows = [
        [
            cell.trace,
            f"{cell.share} %",
            f"{cell.ours:.2f}",
            *(f"{cell.theirs[name]:.2f}" for name in OTHERS),
            *(f"{cell.lead(name):+.2f}" for name in OTHERS),
            f"{cell.refused:.1f}",
            f"{cell.hit_us:.3f}",
        ]
        for cell in cells
    ]
    means = [statistics.mean(cell.theirs[name] for cell in cells) for name in OTHERS]
    leads = {name: statistics.mean(cell.lead(name) for cell in cells) for name in OTHERS}
    worst = {name: min(cells, key=partial(Cell.lead, other=name)) for name in OTHERS}
    ours = statistics.mean(cell.ours for cell in cells)
    cost = lib.spread([cell.hit_us for cell in cells])
    figures = [*(f"{mean:.2f}" for mean in (ours, *means)), *(f"{lead:+.2f}" for lead in leads.values())]
    rows.append(["mean", "", *figures, "", ""])
    print("Object hit ratio in %, and the points Respite is ahead:\n")
    print(lib.markdown_table(headers, rows))
    print()
    verdicts: dict[str, Any] = {}
    judged: list[list[str]] = []
    for name in OTHERS:
        average = lib.verdict(leads[name], AVERAGE_FLOOR, None)
        judged.append([f"mean lead on {name}", f"{leads[name]:+.2f} points", f"> {AVERAGE_FLOOR:.0f}", average])
        lowest = worst[name].lead(name)
        where = f"{worst[name].trace} at {worst[name].share} %"
        verdicts[f"mean {name}"] = average
        verdicts[f"worst {name}"] = lib.verdict(lowest, WORST_FLOOR, None)
        floor = f">= {WORST_FLOOR:.0f}"
        judged.append([f"worst against {name}", f"{lowest:+.2f} ({where})", floor, verdicts[f"worst {name}"]])
    verdicts["hit"] = lib.verdict(cost.median, HIT_US_FLOOR, None, less_is_better=True)
    judged.append(["us a hit, median of the cells", cost.text(3), f"<= {HIT_US_FLOOR}", verdicts["hit"]])
    print(lib.markdown_table(["what", "measured", "floor", "verdict"], judged))
    return verdicts


def panel(cells: Sequence[Cell], share: int) -> Panel:
    """Draw the three policies side by side at one size."""
    chosen = [cell for cell in cells if cell.share == share]
    series: dict[str, list[lib.Spread | None]] = {
        name: [lib.spread([cell.theirs[name]]) for cell in chosen] for name in OTHERS
    }
    series["Respite"] = [lib.spread([cell.ours]) for cell in chosen]
    return Panel(f"{share} % of the bytes", "hits, %", [cell.trace for cell in chosen], series)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Object hit ratio beside W-TinyLFU and S3-FIFO.")
    parser.add_argument("--traces", default=",".join(NAMES), help="some of these, by commas (all): %(default)s")
    parser.add_argument("--requests", type=int, help="reads of each trace (400,000; samples whole)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_REQUESTS:,} reads of each, to try it")
    parser.add_argument("--no-chart", action="store_true", help="write no PNG")
    parser.add_argument("--out", type=Path, help="the JSON file (bench/results/hitratio-TIME.json)")
    return parser.parse_args()


def main() -> None:
    """Play everything, print the table, write JSON and chart."""
    options = arguments()
    if importlib.util.find_spec("libcachesim") is None:
        raise lib.BenchError(f"the referee is not installed (GPL-3, so no dependency of ours): pip install '{REFEREE}'")
    if not options.no_chart:
        need_matplotlib()
    requests = options.requests or (QUICK_REQUESTS if options.quick else None)
    about = lib.machine()
    disturbance = lib.Disturbance()
    cells: list[Cell] = []
    for name in options.traces.split(","):
        lib.say(f"playing {name}")
        cells += compare(load(name.strip(), requests))
    verdicts = report(cells)
    result = {
        "machine": about,
        "requests": requests,
        "cells": [attrs.asdict(cell) for cell in cells],
        "verdicts": verdicts,
        "disturbed": disturbance.report(),
    }
    path = lib.write_result("hitratio", result, options.out)
    print(f"\n{path}")
    if not options.no_chart:
        draw(path.with_suffix(".png"), "Object hit ratio", [panel(cells, share) for share in SHARES])
        print(path.with_suffix(".png"))


if __name__ == "__main__":
    lib.run_main(main)
