"""How many entries should an eviction look at, and how many should it drop? Hit ratio and time of variants.

    python -m bench.eviction [--requests N]

Zipf traces over 20,000 keys with log-normal sizes, two skews, two cache sizes, with and without shifting popularity;
the variants change the two constants of `proxy.cache.l1`. The row named "as shipped" is what Respite does.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import random
import statistics
import time
from collections.abc import Iterator

from proxy.cache import l1 as policy
from proxy.cache.entry import Scope

KEYS = 20_000
VARIANTS = ((8, 1), (16, 1), (32, 1), (16, 2), (32, 2), (32, 4), (48, 4))


def trace(skew: float, requests: int, *, shifts: bool) -> Iterator[int]:
    """Yield keys; when popularity shifts, every tenth of the trace swaps the ranks of a twentieth of the keys."""
    chance = random.Random(3)
    weights = list(itertools.accumulate(1 / (rank + 1) ** skew for rank in range(KEYS)))
    names = list(range(KEYS))
    chance.shuffle(names)
    for at in range(requests):
        if shifts and at % (requests // 10) == 0:
            for _ in range(KEYS // 20):
                one, other = chance.randrange(KEYS), chance.randrange(KEYS)
                names[one], names[other] = names[other], names[one]
        yield names[bisect.bisect_left(weights, chance.random() * weights[-1])]


def hit_ratio(skew: float, share: float, requests: int, *, shifts: bool) -> float:
    """Play one trace against an L1 that holds `share` of all bytes; return the percentage of hits."""
    chance = random.Random(7)
    sizes = [min(20_000, max(100, int(chance.lognormvariate(6.5, 1)))) for _ in range(KEYS)]
    cache = policy.L1(int((sum(sizes) + KEYS * 380) * share))
    namespace = cache.namespace(Scope(b"", 0, 2))
    hits = 0
    for at, number in enumerate(trace(skew, requests, shifts=shifts)):
        now = at * 1e-4
        key = b"key:%d" % number
        entry = namespace.resident.get(key)
        if entry is None:
            cache.put(namespace, key, bytes(sizes[number]), float("inf"), now)
        else:
            entry.uses += 1
            entry.used_at = now
            hits += 1
    return hits / requests * 100


def main() -> None:
    """Print a row a variant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=150_000)
    requests = parser.parse_args().requests
    shipped = (policy.SAMPLE, policy.BATCH)
    print(f"{'looks at':>8} {'drops':>5} {'mean hits %':>11} {'s':>6}")
    for sample, batch in VARIANTS:
        policy.SAMPLE, policy.BATCH = sample, batch  # type: ignore[misc]
        began = time.perf_counter()
        ratios = [
            hit_ratio(skew, share, requests, shifts=shifts)
            for skew in (0.8, 1.0)
            for share in (0.02, 0.10)
            for shifts in (False, True)
        ]
        note = "   as shipped" if (sample, batch) == shipped else ""
        print(f"{sample:>8} {batch:>5} {statistics.mean(ratios):>11.2f} {time.perf_counter() - began:>6.1f}{note}")


if __name__ == "__main__":
    main()
