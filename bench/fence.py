"""How soon is a fence over a million keys in force for every reader? Run as `python -m bench.fence`.

    1,000,000 keys of a class with versions --- Redis ---+--- Respite A     the fence is set here
                                                         +--- Respite B     hears of it

Each proxy has one reader that asks without a pause: for one key that L1 of the proxy holds, or for one after the other
that it never held. What counts is the time from sending the fence until the reader sends the first read that no longer
gets the old value; beside it stands when the issuer had its reply. A round begins with all keys written anew, and ends
with a check that keys from all over them are gone for both, and with the wait for the sweep.

`--held` keys are in L1 of both, all of them covered: from some thousands on, a fence takes L1 out of use and walks.
"""

import argparse
import itertools
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from bench._chart import Panel, draw, need_matplotlib
from bench._lib import (
    BenchError,
    Disturbance,
    machine,
    markdown_table,
    need_programs,
    run_main,
    say,
    spread,
    write_result,
)
from bench._servers import Rig, Server, versions
from bench.connections import open_connection

MOMENTS = ("held in L1", "not held")
SIDES = ("issuer", "other")
GLOB = "page:*"
CLASS = f'[[class]]\nname = "pages"\nmatch = ["{GLOB}"]\nversion = true\n'
PIPELINE = 2_000
WAIT_S = 30.0
LEAD_S = 0.05
CHECKED = 200
GOAL_MS = 10.0
NIL = b"$-1\r\n"


@attrs.frozen
class Run:
    """One fence, as one reader of one proxy saw it."""

    round: int
    moment: str
    side: str
    seen_ms: float
    ack_ms: float
    reads: int
    """What the reader asked from the fence on until it was in force."""


def key_of(number: int) -> str:
    """Name a key."""
    return f"page:{number}"


def value_of(number: int, size_bytes: int) -> str:
    """Make its value."""
    return f"{number:08}".ljust(size_bytes, "x")


def request(*words: str) -> bytes:
    """Write a command as clients do."""
    return f"*{len(words)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in words)


def batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Cut into pipelines."""
    for at in range(0, len(numbers), PIPELINE):
        yield numbers[at : at + PIPELINE]


def write_all(side: Server, numbers: Sequence[int], size_bytes: int) -> None:
    """Write keys through a proxy: their values get versions."""
    with side.client() as client:
        for batch in batches(numbers):
            with client.pipeline(transaction=False) as pipeline:
                for number in batch:
                    pipeline.set(key_of(number), value_of(number, size_bytes))
                pipeline.execute()


def read_all(side: Server, numbers: Sequence[int]) -> list[bytes | None]:
    """Read keys through a proxy, one GET each: they are in L1 then, as far as it takes them."""
    found: list[bytes | None] = []
    with side.client() as client:
        for batch in batches(numbers):
            with client.pipeline(transaction=False) as pipeline:
                for number in batch:
                    pipeline.get(key_of(number))
                found += pipeline.execute()
    return found


class Reader(threading.Thread):
    """Asks one proxy for its keys in turn until it gets nothing."""

    def __init__(self, side: str, client: socket.socket, keys: Sequence[int], size_bytes: int) -> None:
        super().__init__(daemon=True)
        self.side = side
        self.asked_at: list[float] = []
        """When each read was sent; the last one is the first that got nothing."""
        self.problem = ""
        self._client = client
        self._keys = keys
        self._size_bytes = size_bytes

    def run(self) -> None:
        """Read until there is nothing."""
        deadline = time.monotonic() + WAIT_S
        for key in itertools.cycle(self._keys):
            raw = request("GET", key_of(key))
            value = f"${self._size_bytes}\r\n{value_of(key, self._size_bytes)}\r\n".encode()
            self.asked_at.append(time.monotonic())
            self._client.sendall(raw)
            reply = self._client.recv(65536)
            while reply != NIL and len(reply) < len(value) and (more := self._client.recv(65536)):
                reply += more
            if reply == NIL:
                return
            if reply != value:
                self.problem = f"was told {reply[:60]!r}"
                return
            if self.asked_at[-1] > deadline:
                break
        self.problem = f"still gets the old value after {WAIT_S:.0f} s"


def fence(client: socket.socket) -> tuple[float, float]:
    """Set the fence; return when it was sent and when its reply came. Raises BenchError if it is refused."""
    raw = request("RESPITE", "INVALIDATE", "MATCH", GLOB)
    sent_at = time.monotonic()
    client.sendall(raw)
    reply = client.recv(65536)
    if reply[:1] != b":":
        raise BenchError(f"the fence was refused: {reply[:200]!r}")
    return sent_at, time.monotonic()


def run_round(sides: Sequence[Server], moment: str, number: int, options: argparse.Namespace) -> list[Run]:
    """Let two readers read, set a fence, and see when each finds nothing."""
    held = range(options.held)
    fresh = range(options.held, options.keys)  # nobody reads one of these twice
    half = len(fresh) // 2
    chosen = [held[:1], held[:1]] if moment == MOMENTS[0] else [fresh[:half], fresh[half:]]
    for side in sides:
        read_all(side, held)
    with ExitStack() as stack:
        issuer = stack.enter_context(open_connection(sides[0]))
        readers = [
            Reader(name, stack.enter_context(open_connection(side)), keys, options.value_bytes)
            for name, side, keys in zip(SIDES, sides, chosen, strict=True)
        ]
        for reader in readers:
            reader.start()
        time.sleep(LEAD_S)
        hits = [int(side.stats()["l1"]["hits_total"]) for side in sides]
        time.sleep(LEAD_S)
        rates = [int(side.stats()["l1"]["hits_total"]) - before for side, before in zip(sides, hits, strict=True)]
        if [rate > 0 for rate in rates] != [moment == MOMENTS[0]] * len(sides):
            raise BenchError(f"{moment}: {rates} hits of L1 while the readers read")
        sent_at, acked_at = fence(issuer)
        for reader in readers:
            reader.join(WAIT_S + 1)
    for reader in readers:
        if reader.problem:
            raise BenchError(f"{moment}: the reader of the {reader.side} {reader.problem}")
        if reader.asked_at[-1] < sent_at:
            raise BenchError(f"{moment}: the reader of the {reader.side} found nothing before the fence")
    return [
        Run(
            number,
            moment,
            reader.side,
            1000 * (reader.asked_at[-1] - sent_at),
            1000 * (acked_at - sent_at),
            sum(asked >= sent_at for asked in reader.asked_at),
        )
        for reader in readers
    ]


def check_gone(sides: Sequence[Server], options: argparse.Namespace) -> None:
    """Look at keys all over the place. Raises BenchError if one is left."""
    numbers = range(0, options.keys, max(1, options.keys // CHECKED))
    for side in sides:
        left = [value for value in read_all(side, numbers) if value is not None]
        if left:
            raise BenchError(f"{side.name}: {len(left)} of {len(numbers)} keys are still there behind the fence")


def await_sweep(redis: Server) -> float:
    """Wait until the bodies are gone and the fence is lifted; return how many seconds it took."""
    began = time.monotonic()
    with redis.client() as client:
        while client.hlen("respite:fences"):
            if time.monotonic() - began > 20 * WAIT_S:
                raise BenchError("the fence is not lifted")
            time.sleep(0.05)
    return time.monotonic() - began


def measure(rig: Rig, options: argparse.Namespace) -> tuple[list[Run], list[float]]:
    """Run all rounds; all keys are written anew for each."""
    redis = rig.redis("redis")
    sides = [rig.respite(f"respite-{name}", redis, l1={"max_bytes": "512MiB"}, more=CLASS) for name in SIDES]
    runs: list[Run] = []
    sweeps: list[float] = []
    for number in range(1, options.rounds + 1):
        for moment in MOMENTS:
            write_all(sides[1], range(options.keys), options.value_bytes)
            found = run_round(sides, moment, number, options)
            check_gone(sides, options)
            sweeps.append(await_sweep(redis))
            runs += found
            text = ", ".join(f"{run.side} {run.seen_ms:.1f} ms" for run in found)
            say(
                f"round {number}/{options.rounds}  {moment:10}  {text}, reply after {found[0].ack_ms:.1f} ms, "
                f"swept after {sweeps[-1]:.1f} s"
            )
    return runs, sweeps


def summary(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Sum up each case; what is judged is the worst round."""
    rows = []
    for moment in MOMENTS:
        for side in SIDES:
            own = [run for run in runs if (run.moment, run.side) == (moment, side)]
            seen = spread([run.seen_ms for run in own])
            rows.append(
                {
                    "moment": moment,
                    "side": side,
                    "seen_ms": attrs.asdict(seen),
                    "seen_text": seen.text(1),
                    "ack_text": spread([run.ack_ms for run in own]).text(1),
                    "verdict": "goal" if seen.high < GOAL_MS else "MISSED",
                }
            )
    return rows


def print_table(rows: Sequence[dict[str, Any]], sweeps: Sequence[float], options: argparse.Namespace) -> None:
    """Print a row a case."""
    headers = [f"fence over {options.keys:,} keys", "reader at", "in force after, ms", "goal", "verdict", "reply, ms"]
    goal = f"< {GOAL_MS:.0f}"
    cells = [[row["moment"], row["side"], row["seen_text"], goal, row["verdict"], row["ack_text"]] for row in rows]
    print(markdown_table(headers, cells))
    print(f"\nThe bodies were gone and the fence lifted after {spread(sweeps).text(1)} s.")


def draw_chart(path: Path, runs: Sequence[Run], options: argparse.Namespace) -> None:
    """Draw when each reader found the fence in force."""
    times = {
        side: [spread([run.seen_ms for run in runs if (run.moment, run.side) == (moment, side)]) for moment in MOMENTS]
        for side in SIDES
    }
    title = f"A fence over {options.keys:,} keys, median and range of the rounds"
    draw(path, title, [Panel("Until the first read that finds it in force", "ms", list(MOMENTS), times)])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--held", type=int, default=1_000, help="keys that are in L1 of both proxies, all covered")
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--quick", action="store_true", help="to try it, not to quote")
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--out", type=Path, help="the JSON file; the chart goes beside it (default bench/results/)")
    parser.add_argument("--no-chart", action="store_true", help="do without matplotlib")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    if not 2 <= options.held <= options.keys // 2:
        raise BenchError("--held must be from 2 to half of --keys")
    if not 8 <= options.value_bytes <= 65_000:
        raise BenchError("--value-bytes must be between 8 and 65000")
    need_programs(["redis-server"])
    if not options.no_chart:
        need_matplotlib()
    sys.setswitchinterval(0.0005)  # a reader that has its reply must not wait for another one's turn
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    with Rig() as rig:
        runs, sweeps = measure(rig, options)
    rows = summary(runs)
    print_table(rows, sweeps, options)
    result = {
        "script": "fence",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "summary": rows,
        "sweeps_s": sweeps,
        "runs": [attrs.asdict(run) for run in runs],
    }
    path = write_result("fence", result, options.out)
    say(f"figures: {path}")
    if not options.no_chart:
        draw_chart(path.with_suffix(".png"), runs, options)


if __name__ == "__main__":
    run_main(main)
