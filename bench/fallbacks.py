"""What commands of a class with a fallback cost while Redis is up: Python a request, beside the same class without one.

    python -m bench.fallbacks [--rounds N]

Streams are scripted, as in `hotpath`; the cases are played in turns, with garbage collected as seldom as in a worker:
the words of writes that have a fallback are kept until they are answered. "elsewhere" is a class without a fallback
where another class has one: each write is looked up then.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from bench.hotpath import CLIENTS, VALUE, Stage, keep, keys, script
from proxy.config.model import ClassSettings
from proxy.net.worker import GC_EVERY

REPLY: Final = b"$%d\r\n%b\r\n" % (len(VALUE), VALUE)
PLAIN: Final = ClassSettings("c", ("key:*",))
STALE: Final = ClassSettings("c", ("key:*",), stale_if_error_s=30.0)
MEMORY: Final = ClassSettings("c", ("key:*",), offline="memory")
OTHER: Final = ClassSettings("z", ("z:*",), stale_if_error_s=30.0, offline="memory")
CLASSES: Final = {"none": (PLAIN,), "stale_if_error": (STALE,), "memory": (MEMORY,), "elsewhere": (PLAIN, OTHER)}


def cases(classes: tuple[ClassSettings, ...]) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Return (name, requests a wake-up, what to time) for these classes."""
    for depth in (1, 16):
        total = CLIENTS * depth
        hit = Stage(mode="on", classes=classes)
        script(hit, b"GET", depth)
        for key in keys(total):
            keep(hit, key, reply=REPLY)
        yield f"hit GET P={depth}", total, partial(hit.wake_up, b"")
        writing = Stage(mode="on", classes=classes)
        script(writing, b"SET", depth, VALUE)
        yield f"SET P={depth}", total, partial(writing.wake_up, b"+OK\r\n" * total)
        missing = Stage(mode="on", max_bytes="256KiB", classes=classes)
        script(missing, b"GET", depth, spread=1_000_003)

        def miss(stage: Stage = missing, raw: bytes = (REPLY + b":-1\r\n") * total) -> None:
            stage.worker.engine.flush()
            stage.wake_up(raw)

        yield f"miss GET P={depth}", total, miss


def main() -> None:
    """Print a row a path: the ratio inside each round, its median and spread, for each kind of class."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    built = {kind: list(cases(classes)) for kind, classes in CLASSES.items()}
    gc.set_threshold(*GC_EVERY)
    gc.collect()
    gc.freeze()
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for rows in zip(*built.values(), strict=True):
            for kind, (name, total, play) in zip(built, rows, strict=True):
                repeats = max(5_000 // total, 1)
                began = time.process_time()
                for _ in range(repeats):
                    play()
                found.setdefault((name, kind), []).append((time.process_time() - began) / repeats / total * 1e9)
    for name, _, _ in built["none"]:
        base = found[name, "none"]
        print(f"{name:<16} none {statistics.median(base):7.0f} ns", end="")
        for kind in (kind for kind in built if kind != "none"):
            ratios = [one / other for one, other in zip(found[name, kind], base, strict=True)]
            print(f"   {kind} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})", end="")
        print()


if __name__ == "__main__":
    main()
