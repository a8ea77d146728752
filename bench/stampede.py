"""How many of 1,000 readers of one key reach Redis? Run as `python -m bench.stampede`.

1,000 connected clients send the same read at once, and each must get the right reply. Before that the key was in L1:

    expired    its TTL has ended, and nobody has made it anew: the reply is that of a missing key
    changed    another app has just written it, straight to Redis: the reply is the new value
    stalled    as changed, but Redis answers nothing until all have asked: not a hit among them

Side by side in the same round, straight to Redis and through Respite: the reads that Redis ran (INFO commandstats), and
the time from the first request, where it stalled from when Redis goes on, until the last client has its reply.
"""

import argparse
import os
import select
import signal
import socket
import time
from collections.abc import Sequence
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
    paired_ratios,
    rotated,
    run_main,
    say,
    spread,
    write_result,
)
from bench._servers import Server, versions
from bench.connections import SPARE_DESCRIPTORS, open_connection, raise_descriptor_limit
from bench.warming import TunedRig

SIDES = ("direct", "respite")
COMMANDS = ("GET", "HGETALL")
MOMENTS = ("expired", "changed", "stalled")
KEY = "popular"
FIELDS = 10
TTL_S = 0.1
STALL_S = 0.2
WAIT_S = 10.0
# Redis tells the fields of a small hash in the order they were written, as long as no value is longer.
SMALL_FIELD_BYTES = 64
# Above what L1 serves without asking, for ever: one reader asks, all others get what it is told.
MOST_READS = 1


@attrs.frozen
class Case:
    """What is read, and what has happened to it."""

    command: str
    moment: str

    @property
    def label(self) -> str:
        """Name it in tables."""
        return f"{self.command} {self.moment}"


@attrs.frozen
class Run:
    """One stampede on one side."""

    round: int
    case: str
    side: str
    reads: int
    """How often Redis ran the command."""
    last_ms: float


@attrs.frozen
class Side:
    """Where the clients of one side connect, and the Redis behind it."""

    name: str
    redis: Server
    respite: Server | None
    clients: Sequence[socket.socket]

    def misses(self) -> int:
        """Return the reads that L1 could not answer so far, 0 where there is none."""
        return int(self.respite.stats()["l1"]["misses_total"]) if self.respite else 0


def request(command: str) -> bytes:
    """Write the read as clients do."""
    return f"*2\r\n${len(command)}\r\n{command}\r\n${len(KEY)}\r\n{KEY}\r\n".encode()


def values(version: int, size_bytes: int) -> list[str]:
    """Return the values of the fields of the hash; the string is all of them."""
    return [f"{version:08}".ljust(size_bytes // FIELDS, "x") for _ in range(FIELDS)]


def bulk(text: str) -> str:
    """Write a bulk string."""
    return f"${len(text)}\r\n{text}\r\n"


def expected_reply(case: Case, version: int, size_bytes: int) -> bytes:
    """Return what every client must be answered."""
    if case.moment == "expired":
        return b"$-1\r\n" if case.command == "GET" else b"*0\r\n"
    found = values(version, size_bytes)
    if case.command == "GET":
        return bulk("".join(found)).encode()
    fields = "".join(bulk(f"field{number}") + bulk(value) for number, value in enumerate(found))
    return f"*{2 * FIELDS}\r\n{fields}".encode()


def write(side: Side, case: Case, version: int, size_bytes: int) -> None:
    """Be the other app: write the key straight to Redis, for a short time where it is to expire."""
    found = values(version, size_bytes)
    with side.redis.client() as client, client.pipeline() as pipeline:
        pipeline.delete(KEY)
        if case.command == "GET":
            pipeline.set(KEY, "".join(found))
        else:
            pipeline.hset(KEY, mapping={f"field{number}": value for number, value in enumerate(found)})
        if case.moment == "expired":
            pipeline.pexpire(KEY, round(TTL_S * 1000))
        pipeline.execute()


def prepare(side: Side, case: Case, version: int, size_bytes: int) -> None:
    """Let the key be read, then let happen to it what the case says. Raises BenchError if it does not."""
    write(side, case, version, size_bytes)
    ask(attrs.evolve(side, clients=side.clients[:2]), request(case.command))
    deadline = time.monotonic() + WAIT_S
    if case.moment == "expired":
        with side.redis.client() as client:
            while client.exists(KEY):
                if time.monotonic() > deadline:
                    raise BenchError(f"{side.redis.name} does not let the key expire")
                time.sleep(TTL_S / 10)
        return
    write(side, case, version + 1, size_bytes)
    while side.respite is not None and side.respite.stats()["l1"]["entries"]:
        if time.monotonic() > deadline:
            raise BenchError(f"{side.respite.name} does not learn of the change")
        time.sleep(TTL_S / 10)


def ask(side: Side, raw: bytes, *, stalled: bool = False) -> tuple[list[bytes], float]:
    """Let all clients of a side ask at once; return what each is told, and the seconds until the last has it.

    `stalled`: Redis is stopped before the first asks, and goes on when all have.
    """
    redis = side.redis.process.pid
    if stalled:
        os.kill(redis, signal.SIGSTOP)
    try:
        misses = side.misses()
        began = time.monotonic()
        for client in side.clients:
            client.sendall(raw)
        if stalled:
            await_misses(side, misses + len(side.clients))
            began = time.monotonic()
    finally:
        if stalled:
            os.kill(redis, signal.SIGCONT)
    return gather(side.clients), time.monotonic() - began


def await_misses(side: Side, total: int) -> None:
    """Wait until Respite has looked at every request and found none in L1; Redis itself gets as long in any case."""
    time.sleep(STALL_S)
    deadline = time.monotonic() + WAIT_S
    while side.respite is not None and side.misses() < total:
        if time.monotonic() > deadline:
            raise BenchError(f"{side.respite.name} had {total - side.misses()} of the requests fewer than were sent")
        time.sleep(STALL_S / 10)


def gather(clients: Sequence[socket.socket]) -> list[bytes]:
    """Take one whole reply of each client. Raises BenchError if one does not come."""
    poller = select.epoll()
    by_descriptor = {client.fileno(): (client, bytearray()) for client in clients}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.EPOLLIN)
    waiting = set(by_descriptor)
    deadline = time.monotonic() + WAIT_S
    with poller:
        while waiting:
            if time.monotonic() > deadline:
                raise BenchError(f"{len(waiting)} of {len(clients)} clients were not answered in {WAIT_S:.0f} s")
            for descriptor, _ in poller.poll(1.0):
                client, received = by_descriptor[descriptor]
                data = client.recv(65536)
                if not data:
                    raise BenchError("a client's connection was closed")
                received += data
                if is_whole(bytes(received)):
                    waiting.discard(descriptor)
    return [bytes(received) for _, received in by_descriptor.values()]


def is_whole(received: bytes) -> bool:
    """Return whether bytes hold one whole reply: a line, a bulk string, or a flat array of bulk strings."""
    end = received.find(b"\r\n")
    if end < 0:
        return False
    head, number = received[:1], received[1:end]
    if head == b"$":
        return number == b"-1" or len(received) >= end + 4 + int(number)
    if head != b"*":
        return True
    at = end + 2
    for _ in range(int(number)):
        end = received.find(b"\r\n", at)
        if end < 0:
            return False
        at = end + 4 + int(received[at + 1 : end])
    return len(received) >= at


def calls(redis: Server, command: str) -> int:
    """Return how often a Redis has run a command."""
    with redis.client() as client:
        found = client.info("commandstats").get(f"cmdstat_{command.lower()}", {})
    return int(found.get("calls", 0))


def run_case(side: Side, case: Case, number: int, size_bytes: int) -> Run:
    """Let one stampede happen. Raises BenchError if a client is told anything but what is true."""
    version = 2 * number
    prepare(side, case, version, size_bytes)
    before = calls(side.redis, case.command)
    replies, took_s = ask(side, request(case.command), stalled=case.moment == "stalled")
    reads = calls(side.redis, case.command) - before
    expected = expected_reply(case, version + 1, size_bytes)
    if wrong := [reply for reply in replies if reply != expected]:
        raise BenchError(f"{side.name}, {case.label}: {len(wrong)} wrong replies, one is {wrong[0][:60]!r}")
    return Run(number, case.label, side.name, reads, took_s * 1000)


def measure(rig: TunedRig, cases: Sequence[Case], options: argparse.Namespace) -> list[Run]:
    """Run all rounds; the side that goes first takes turns."""
    runs = []
    with ExitStack() as stack:
        sides = []
        for name in SIDES:
            redis = rig.redis(f"redis-{name}", max_clients=options.clients + SPARE_DESCRIPTORS)
            # No hit is compared with Redis: that is a read there, which no client asked for.
            respite = rig.tuned("respite", redis, {"verify": 0}) if name == "respite" else None
            opened = [stack.enter_context(open_connection(respite or redis)) for _ in range(options.clients)]
            sides.append(Side(name, redis, respite, opened))
        for number in range(1, options.rounds + 1):
            for case in cases:
                for side in rotated(sides, number - 1):
                    run = run_case(side, case, number, options.value_bytes)
                    runs.append(run)
                    say(
                        f"round {number}/{options.rounds}  {run.case:16} {run.side:8} "
                        f"{run.reads:>5} reads, the last after {run.last_ms:.1f} ms"
                    )
    return runs


def picked(runs: Sequence[Run], case: Case, side: str, name: str) -> dict[int, float]:
    """Map round to one figure of one side."""
    return {run.round: getattr(run, name) for run in runs if (run.case, run.side) == (case.label, side)}


def summary(runs: Sequence[Run], cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Sum up each case; what reaches Redis through Respite is judged in its worst round."""
    rows = []
    for case in cases:
        reads = {side: spread(list(picked(runs, case, side, "reads").values())) for side in SIDES}
        last_ms = {side: picked(runs, case, side, "last_ms") for side in SIDES}
        ratio = spread(paired_ratios(last_ms["respite"], last_ms["direct"]))
        rows.append(
            {
                "case": case.label,
                "reads": {side: attrs.asdict(found) for side, found in reads.items()},
                "reads_text": [reads[side].text(0) for side in SIDES],
                "last_ms": {side: attrs.asdict(spread(list(found.values()))) for side, found in last_ms.items()},
                "ratio": attrs.asdict(ratio),
                "ratio_text": ratio.text(),
                "verdict": "goal" if reads["respite"].high <= MOST_READS else "MISSED",
            }
        )
    return rows


def print_table(rows: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    """Print a row a case."""
    headers = [f"{options.clients:,} clients at once", *(f"reads in Redis, {side}" for side in SIDES)]
    cells = [[row["case"], *row["reads_text"], str(MOST_READS), row["verdict"], row["ratio_text"]] for row in rows]
    print(markdown_table([*headers, "goal", "verdict", "time to the last, respite / direct"], cells))


def draw_chart(path: Path, runs: Sequence[Run], cases: Sequence[Case], options: argparse.Namespace) -> None:
    """Draw the time until the last is answered; one read and a thousand need no picture."""
    times = {side: [spread(list(picked(runs, case, side, "last_ms").values())) for case in cases] for side in SIDES}
    title = f"{options.clients:,} clients read one key at once, median and range of the rounds"
    draw(path, title, [Panel("Until the last is answered", "ms", [case.label for case in cases], times)])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, help="default 9, with --quick 2")
    parser.add_argument("--quick", action="store_true", help="to try it, not to quote")
    parser.add_argument("--value-bytes", type=int, default=600, help="of the string, and of all fields of the hash")
    parser.add_argument("--out", type=Path, help="the JSON file; the chart goes beside it (default bench/results/)")
    parser.add_argument("--no-chart", action="store_true", help="do without matplotlib")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 9)
    if not FIELDS * 8 <= options.value_bytes <= FIELDS * SMALL_FIELD_BYTES:
        raise BenchError(f"--value-bytes must be between {FIELDS * 8} and {FIELDS * SMALL_FIELD_BYTES}")
    need_programs(["redis-server"])
    if not options.no_chart:
        need_matplotlib()
    raise_descriptor_limit(2 * options.clients + SPARE_DESCRIPTORS)
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    cases = [Case(command, moment) for command in COMMANDS for moment in MOMENTS]
    with TunedRig() as rig:
        runs = measure(rig, cases, options)
    rows = summary(runs, cases)
    print_table(rows, options)
    result = {
        "script": "stampede",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "summary": rows,
        "runs": [attrs.asdict(run) for run in runs],
    }
    path = write_result("stampede", result, options.out)
    say(f"figures: {path}")
    if not options.no_chart:
        draw_chart(path.with_suffix(".png"), runs, cases, options)


if __name__ == "__main__":
    run_main(main)
