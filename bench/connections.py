"""What does a client connection cost, and do many idle ones slow the few busy? Run as `python -m bench.connections`.

Opens 10,000 connections, lets each say PING once and then stay silent: resident memory of the process, divided. Then
100 of them (1 %) read keys, each at its own steady pace, while the rest stay connected. Redis itself is measured the
same way, as the measure of this machine.

    one process:  100 busy sockets --- a poller, a schedule, one outstanding GET each
                  9,900 idle sockets, held open
"""

import argparse
import resource
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
    Spread,
    machine,
    markdown_table,
    need_programs,
    quantile,
    run_main,
    say,
    spread,
    verdict,
    write_result,
)
from bench._paced import KEYS, VALUE, Generator
from bench._servers import Rig, Server, versions
from bench.relay import sharpen_timers

PING = b"*1\r\n$4\r\nPING\r\n"
PONG = b"+PONG\r\n"
# Connections opened, used and closed before the first look at memory: buffers and pools grown once are no cost of one.
PRIMING_CONNECTIONS = 500
SETTLE_S = 1.0
WARM_S = 1.0
# Later than this at its 99th percentile, and the generator's own delay is a visible part of what it measured.
LATE_MS = 0.5
# Descriptors besides those of the connections, on either side.
SPARE_DESCRIPTORS = 200
FLOOR_KIB, GOAL_KIB = 16.0, 6.0
FLOOR_P99_MS = 5.0


@attrs.frozen
class Memory:
    """Resident memory of one server, before and with the connections."""

    target: str
    connections: int
    before_bytes: int
    with_bytes: int

    @property
    def kib_each(self) -> float:
        """Return the KiB one connection adds."""
        return (self.with_bytes - self.before_bytes) / self.connections / 1024


@attrs.frozen
class Busy:
    """What the busy connections saw in one round; latency counts from when a request was due."""

    round: int
    target: str
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    late_p99_ms: float
    """How much later than due, or than the reply before, the generator itself sent."""


def raise_descriptor_limit(needed: int) -> None:
    """Let this process, and the servers it starts, open that many files. Raises BenchError if it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(hard, needed) if hard >= 0 else hard))
    except (ValueError, OSError):
        raise BenchError(f"needs {needed} open files, allowed are {hard}: ulimit -Hn, or fewer --connections") from None


def open_connection(server: Server) -> socket.socket:
    """Connect, and PING once so that the server has read and written on the connection."""
    try:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(PING)
        answer = connection.recv(64)
    except OSError as error:
        raise BenchError(f"{server.name} takes no further connection: {error}") from error
    if answer != PONG:
        raise BenchError(f"{server.name} answers {answer!r} to PING")
    return connection


def measure_memory(server: Server, count: int, stack: ExitStack) -> tuple[Memory, list[socket.socket]]:
    """Open `count` connections, which the stack closes, and see what they add."""
    primed = [open_connection(server) for _ in range(min(count, PRIMING_CONNECTIONS))]
    for connection in primed:
        connection.close()
    time.sleep(SETTLE_S)
    before_bytes = server.rss_bytes()
    start = time.monotonic()
    connections = [stack.enter_context(open_connection(server)) for _ in range(count)]
    opened_s = time.monotonic() - start
    time.sleep(SETTLE_S)
    memory = Memory(server.name, count, before_bytes, server.rss_bytes())
    say(f"{server.name}: {count} connections in {opened_s:.1f} s, {memory.kib_each:.2f} KiB each")
    return memory, connections


def measure_busy(
    server: Server, connections: Sequence[socket.socket], number: int, options: argparse.Namespace
) -> Busy:
    """Let some of the connections be busy for a while."""
    generator = Generator(connections[: options.busy], options.rate)
    generator.run(time.monotonic() + WARM_S)
    generator.latency_s.clear()
    generator.late_s.clear()
    generator.run(time.monotonic() + options.seconds)
    generator.close()
    seen = generator.latency_s
    return Busy(
        round=number,
        target=server.name,
        requests=len(seen),
        per_second=len(seen) / options.seconds,
        p50_ms=quantile(seen, 0.5) * 1000,
        p99_ms=quantile(seen, 0.99) * 1000,
        max_ms=max(seen) * 1000,
        late_p99_ms=quantile(generator.late_s, 0.99) * 1000,
    )


def measure(rig: Rig, options: argparse.Namespace) -> tuple[list[Memory], list[Busy]]:
    """Measure one server after the other; both at once would take twice the descriptors of this process."""
    max_clients = options.connections + 2 * PRIMING_CONNECTIONS
    redis, behind = (rig.redis(name, max_clients=max_clients) for name in ("redis", "redis-behind"))
    for server in (redis, behind):
        with server.client() as client:
            client.mset({f"key:{number}": VALUE for number in range(KEYS)})
    memories, busy = [], []
    for server in (redis, rig.respite("respite", behind, max_clients=max_clients)):
        with ExitStack() as stack:
            memory, connections = measure_memory(server, options.connections, stack)
            memories.append(memory)
            for number in range(1, options.rounds + 1):
                busy.append(measure_busy(server, connections, number, options))
                say(
                    f"round {number}/{options.rounds}  {server.name:8} {busy[-1].per_second:,.0f}/s  "
                    f"p50 {busy[-1].p50_ms:.2f} ms  p99 {busy[-1].p99_ms:.2f} ms  max {busy[-1].max_ms:.2f} ms"
                )
    return memories, busy


def summary(memories: Sequence[Memory], busy: Sequence[Busy]) -> list[dict[str, Any]]:
    """Sum up each server; Respite's figures are judged."""
    rows = []
    for memory in memories:
        rounds = [each for each in busy if each.target == memory.target]
        p99 = spread([each.p99_ms for each in rounds])
        row: dict[str, Any] = {
            "target": memory.target,
            "kib_each": round(memory.kib_each, 2),
            "p50_ms": attrs.asdict(spread([each.p50_ms for each in rounds])),
            "p99_ms": attrs.asdict(p99),
            "max_ms": max(each.max_ms for each in rounds),
            "late_p99_ms": max(each.late_p99_ms for each in rounds),
        }
        if memory.target == "respite":
            row["memory_verdict"] = verdict(memory.kib_each, FLOOR_KIB, GOAL_KIB)
            row["latency_verdict"] = verdict(p99.median, FLOOR_P99_MS, None, less_is_better=True)
        rows.append(row)
    return rows


def print_tables(rows: Sequence[dict[str, Any]], busy: Sequence[Busy], options: argparse.Namespace) -> None:
    """Print memory, then latency, then whether the generator was late."""
    headers = ["server", f"KiB each of {options.connections}", "floor", "goal", "verdict"]
    print(
        markdown_table(
            headers,
            [
                [row["target"], f"{row['kib_each']:.2f}", f"{FLOOR_KIB:g}", f"{GOAL_KIB:g}", row["memory_verdict"]]
                if "memory_verdict" in row
                else [row["target"], f"{row['kib_each']:.2f}", "", "", ""]
                for row in rows
            ],
        )
    )
    print()
    lines = []
    for row in rows:
        rounds = [each for each in busy if each.target == row["target"]]
        spreads = [spread([getattr(each, name) for each in rounds]) for name in ("per_second", "p50_ms", "p99_ms")]
        lines.append(
            [
                row["target"],
                spreads[0].text(0),
                spreads[1].text(),
                spreads[2].text(),
                f"{row['max_ms']:.2f}",
                f"{row['late_p99_ms']:.2f}",
                f"{FLOOR_P99_MS:g}" if "latency_verdict" in row else "",
                row.get("latency_verdict", ""),
            ]
        )
    headers = ["server", f"requests/s of {options.busy} busy", "p50 ms", "p99 ms", "max ms", "generator late, p99 ms"]
    print(markdown_table([*headers, "floor p99", "verdict"], lines))
    late_ms = max(row["late_p99_ms"] for row in rows)
    if late_ms > LATE_MS:
        print(f"\nThe load generator was itself late by {late_ms:.2f} ms (p99): read the latencies as upper bounds.")
    else:
        print(f"\nThe load generator kept its schedule: late by {late_ms:.2f} ms at its 99th percentile.")


def draw_chart(path: Path, rows: Sequence[dict[str, Any]], busy: Sequence[Busy], options: argparse.Namespace) -> None:
    """Draw memory and latency."""
    latency: dict[str, list[Spread | None]] = {
        row["target"]: [
            spread([getattr(each, name) for each in busy if each.target == row["target"]])
            for name in ("p50_ms", "p99_ms")
        ]
        for row in rows
    }
    memory: dict[str, list[Spread | None]] = {row["target"]: [spread([row["kib_each"]])] for row in rows}
    title = f"{options.connections:,} connected clients"
    panels = [
        Panel("Resident memory of the server, an idle connection", "KiB", ["memory"], memory),
        Panel(f"Latency of {options.busy} busy clients", "ms", ["p50", "p99"], latency),
    ]
    draw(path, title, panels)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--busy", type=int, default=100, help="of them")
    parser.add_argument("--rate", type=float, default=2000, help="requests/s of all busy ones together")
    parser.add_argument("--rounds", type=int, help="default 5, with --quick 2")
    parser.add_argument("--seconds", type=float, help="of a round (default 5, with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="to try it, not to quote")
    parser.add_argument("--out", type=Path, help="the JSON file; the chart goes beside it (default bench/results/)")
    parser.add_argument("--no-chart", action="store_true", help="do without matplotlib")
    options = parser.parse_args()
    options.rounds = options.rounds or (2 if options.quick else 5)
    options.seconds = options.seconds or (1.0 if options.quick else 5.0)
    if not 0 < options.busy <= options.connections:
        raise BenchError("--busy must be at least 1, and no more than --connections")
    need_programs(["redis-server"])
    if not options.no_chart:
        need_matplotlib()
    raise_descriptor_limit(options.connections + 2 * PRIMING_CONNECTIONS + SPARE_DESCRIPTORS)
    sharpen_timers()
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    with Rig() as rig:
        memories, busy = measure(rig, options)
    rows = summary(memories, busy)
    print_tables(rows, busy, options)
    result = {
        "script": "connections",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "summary": rows,
        "memory": [attrs.asdict(each) for each in memories],
        "busy": [attrs.asdict(each) for each in busy],
    }
    path = write_result("connections", result, options.out)
    say(f"figures: {path}")
    if not options.no_chart:
        draw_chart(path.with_suffix(".png"), rows, busy, options)


if __name__ == "__main__":
    run_main(main)
