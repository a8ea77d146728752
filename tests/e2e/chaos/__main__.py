"""Run it from the command line: `python -m tests.e2e.chaos --seconds 1800 --every 10 --seed 7`."""

from __future__ import annotations

import argparse
import sys
import time

from . import namespace
from .checks import OUTSIDE_SHARE, RECOVERY_S, problems
from .faults import FAULTS
from .report import table
from .run import play
from .schedule import Plan

SHOWN = 40  # problems


def main() -> int:
    """Run, print the table and every problem; 0 when there is none."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.chaos", description=__doc__)
    parser.add_argument("--kind", default="redis7", help="which server: redis7, valkey9, ..")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds from one fault to the next")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--no-broker", action="store_true", help="without RabbitMQ, which takes long to start")
    parser.add_argument("--only", default="", help=f"these faults, by comma: {', '.join(FAULTS)}")
    parser.add_argument("--without", action="append", default=[], choices=["stale", "memory"], help="no such class")
    parser.add_argument("--actors", type=int, default=6, help="clients that do everything")
    parser.add_argument("--pause", type=float, default=0.06, help="seconds at most between two moves of a client")
    parser.add_argument("--recovery", type=float, default=RECOVERY_S, help="seconds that p99 of recovery may take")
    parser.add_argument("--outside", type=float, default=OUTSIDE_SHARE, help="share of requests that may fail in calm")
    parser.add_argument("--here", action="store_true", help="in no network of its own: no packet is dropped")
    parser.add_argument("--show", type=int, default=0, help="print so many of the errors outside of outages")
    given = parser.parse_args()
    if not given.here and not namespace.is_inside():
        namespace.enter("tests.e2e.chaos", [*sys.argv[1:], "--seed", str(given.seed)])
    plan = Plan(
        given.kind,
        given.seconds,
        given.every,
        given.seed,
        not given.no_broker,
        tuple(filter(None, given.only.split(","))),
        frozenset({"stale", "memory"}) - set(given.without),
        given.actors,
        given.pause,
    )
    print(plan, flush=True)
    cast = play(plan, lambda text: print(text, flush=True))
    found = problems(cast, recovery_s=given.recovery, outside=given.outside)
    print(table(cast, shown=given.show))
    print(*(f"WRONG  {text}" for text in found[:SHOWN]), sep="\n")
    print(f"{len(found)} problems; {plan}" if found else "nothing is wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
