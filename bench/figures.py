"""What collecting figures costs: paths of `bench.hotpath` with it and without it, in turns, in one process.

    python -m bench.figures [--rounds N] [--only NAME]

No socket, no server: only the proxy's own nanoseconds, of which the share is largest there. Sampling is switched off
through `Tally.is_on`; what is left without it is a comparison a request. The proxy's clock is that of this process's
processor time: how often it looks depends on the time that passes, which must not be what others take of the machine.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator
from functools import partial

from bench._lib import markdown_table, spread
from bench.hotpath import CLIENTS, HASH, VALUE, Stage, keep, keys, script

FLOOR = 1.05
"""What it may cost: less than 5 % of hit throughput."""
REPLY = b"$100\r\n" + VALUE + b"\r\n"


def cases() -> Iterator[tuple[str, Stage, int, Callable[[], None]]]:
    """Return (name, stage, requests a wake-up, what to time)."""
    for name, reply in ((b"GET", REPLY), (b"HGETALL", HASH)):
        for depth in (1, 16):
            total = CLIENTS * depth
            hit = Stage(mode="on")
            script(hit, name, depth)
            for key in keys(total):
                keep(hit, key, reply=reply, name=name)
            yield f"hit {name.decode()} P={depth}", hit, total, partial(hit.wake_up, b"")
            missing = Stage(mode="on", max_bytes="256KiB")
            script(missing, name, depth, spread=1_000_003)

            def miss(stage: Stage = missing, raw: bytes = (reply + b":-1\r\n") * total) -> None:
                stage.worker.engine.flush()
                stage.wake_up(raw)

            yield f"miss {name.decode()} P={depth}", missing, total, miss


def timed(play: Callable[[], None], total: int) -> float:
    """Return nanoseconds of processor time a request."""
    repeats = max(20_000 // total, 1)
    began = time.process_time()
    for _ in range(repeats):
        play()
    return (time.process_time() - began) / repeats / total * 1e9


def main() -> int:
    """Print a row a path; return 1 when collecting costs more than it may on a path of hits alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows: list[list[str]] = []
    is_fine = True
    for name, stage, total, play in (case for case in cases() if options.only in case[0]):
        stage.worker.reactor.clock = time.process_time
        gc.collect()
        found: dict[bool, list[float]] = {True: [], False: []}
        for number in range(options.rounds):
            for is_on in (True, False) if number % 2 else (False, True):
                stage.worker.engine.tally.is_on = is_on
                found[is_on].append(timed(play, total))
        ratios = [on / off for on, off in zip(found[True], found[False], strict=True)]
        rows.append([name, spread(found[False]).text(0), spread(found[True]).text(0), spread(ratios).text(3)])
        is_fine = is_fine and not (name.startswith("hit") and spread(ratios).median > FLOOR)
    print(markdown_table(["path", "without, ns a request", "with", "ratio"], rows))
    return 0 if is_fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
