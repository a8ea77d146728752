"""What subscribers cost, and how soon they hear. Run as `python -m bench.push`.

In each case an app writes through the proxy, `--changes` a second, each key in turn, while another one reads from L1 at
an even pace and has its GETs timed. What differs is who listens:

    nobody   no link to hear changes with is even open: what the others are compared with
    each     `--subscribers` WebSockets, each of which listens to one of the keys
    stalled  the same, and one more that listens to all keys and never reads
    all      `--subscribers` WebSockets, all of which listen to all keys

Where somebody listens, one more does, to keys of its own: it writes one through the proxy and waits until it is told,
`--probes` times a second. Redis, the proxy, all clients and the subscribers share the machine.
"""

import argparse
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from bench._lib import (
    BenchError,
    Disturbance,
    machine,
    markdown_table,
    need_programs,
    paired_ratios,
    quantile,
    rotated,
    run_main,
    say,
    spread,
    write_result,
)
from bench._servers import Rig, Server, versions
from bench.connections import open_connection, raise_descriptor_limit
from bench.events import get, read_evenly, request

CASES: Final = ("nobody", "each", "stalled", "all")
GOAL_P99_MS: Final = 10.0  # from sending a write to having been told of it
GOAL_P99: Final = 2.0  # GETs beside those with nobody listening
SETTLE_S: Final = 1.0
WAIT_S: Final = 20.0
HEAD: Final = (
    "GET /ws?channels={} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def ask(port: int, channel: str) -> socket.socket:
    """Ask for a WebSocket."""
    client = socket.create_connection(("127.0.0.1", port), timeout=WAIT_S)
    client.sendall(HEAD.format(channel).encode())
    return client


def await_greeting(client: socket.socket) -> None:
    """Wait until changes are told."""
    said = b""
    while b'"hello"' not in said:
        more = client.recv(4096)
        if not more:
            raise BenchError(f"nobody is told: {said!r}")
        said += more


def subscribe(port: int, channel: str) -> socket.socket:
    """Open a WebSocket, and wait until changes are told."""
    client = ask(port, channel)
    await_greeting(client)
    return client


def listen(port: int, count: int, case: str) -> None:
    """Hold subscribers until stdin ends; print how many messages came, and how many they were told to have lost."""
    raise_descriptor_limit(count + 100)
    poller = select.epoll()
    clients = {}
    for number in range(count):
        client = ask(port, "push%3A%2A" if case == "all" else f"push%3A{number}")
        clients[client.fileno()] = client
        poller.register(client.fileno(), select.EPOLLIN)
    for client in clients.values():
        await_greeting(client)
    poller.register(sys.stdin.fileno(), select.EPOLLIN)
    print("listening", flush=True)
    messages = lost = 0
    while True:
        for fd, _ in poller.poll():
            if fd == sys.stdin.fileno():
                print(json.dumps({"messages": messages, "lost": lost}), flush=True)
                return
            said = clients[fd].recv(1 << 16)
            if not said:
                raise BenchError("a subscriber was closed")
            messages += said.count(b'"type":"update"')
            lost += said.count(b'"type":"lost"')


def write(port: int, rate: float, seconds: float, keys: int) -> None:
    """Write the keys in turn, so many times a second."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            get(client, request("SET", f"push:{number % keys}", f"{number}"))
            ahead = number / rate - (time.monotonic() - began)
            if ahead > 0.001:
                time.sleep(ahead)


def probe(port: int, admin_port: int, rate: float, seconds: float) -> None:
    """Write a key of our own and wait to be told, so many times a second; print the seconds that each took."""
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as client, subscribe(admin_port, "probe%3A%2A") as told:
        print("listening", flush=True)
        began = time.monotonic()
        for number in range(int(rate * seconds)):
            sent_at = time.monotonic()
            client.sendall(request("SET", f"probe:{number}", "x"))
            said = b""
            while f'"probe:{number}"'.encode() not in said:
                said += told.recv(4096)
            times.append(time.monotonic() - sent_at)
            client.recv(64)
            ahead = number / rate - (time.monotonic() - began)
            if ahead > 0:
                time.sleep(ahead)
    print(json.dumps(times), flush=True)


class Child:
    """One of the above, as a process of its own."""

    def __init__(self, what: str, *words: object, greets: bool = True) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.push", f"--{what}", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if greets and self._line() != "listening":
            raise BenchError(f"{what} has not begun")

    def result(self) -> Any:
        """End it, and return what it found."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        found = json.loads(self._line() or "null")
        if self.process.wait(WAIT_S):
            raise BenchError(f"a helper ended with {self.process.returncode}")
        return found

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@attrs.frozen
class Run:
    """One case in one round: GETs' p50 and p99, how soon a subscriber heard, what was delivered and what it cost."""

    case: str
    round: int
    get_p50_ms: float
    get_p99_ms: float
    heard_p50_ms: float | None
    heard_p99_ms: float | None
    messages_per_s: float
    lost_messages: int
    cpu_share: float


def measure(proxy: Server, case: str, number: int, options: argparse.Namespace) -> Run:
    """Run one case."""
    raws = [request("GET", f"hot:{key}") for key in range(100)]
    seconds = options.seconds
    found: dict[str, Any] = {"messages": 0, "lost": 0}
    times: list[float] = []
    stalled = subscribe(proxy.admin_port, "push%3A%2A") if case == "stalled" else None
    with open_connection(proxy) as reader:
        listeners = None if case == "nobody" else Child("listen", proxy.admin_port, options.subscribers, case)
        for raw in raws:
            get(reader, raw)
        writer = Child("write", proxy.port, options.changes, seconds + 2 * SETTLE_S, options.subscribers, greets=False)
        time.sleep(SETTLE_S)
        prober = listeners and Child("probe", proxy.port, proxy.admin_port, options.probes, seconds)
        began, cpu_s = time.monotonic(), proxy.cpu_s()
        gets = read_evenly(reader, raws, options.reads, lambda: time.monotonic() - began > seconds)
        took_s, used_s = time.monotonic() - began, proxy.cpu_s() - cpu_s
        if prober is not None:
            times = prober.result()
        writer.result()
        if listeners is not None:
            time.sleep(SETTLE_S)
            found = listeners.result()
    if stalled is not None:
        stalled.close()
    return Run(
        case,
        number,
        1000 * quantile(gets, 0.5),
        1000 * quantile(gets, 0.99),
        1000 * quantile(times, 0.5) if times else None,
        1000 * quantile(times, 0.99) if times else None,
        found["messages"] / (seconds + 2 * SETTLE_S),
        found["lost"],
        used_s / took_s,
    )


def figures(runs: Sequence[Run], case: str, name: str) -> Mapping[int, float]:
    """Return one figure of a case by round."""
    return {run.round: getattr(run, name) for run in runs if run.case == case and getattr(run, name) is not None}


def table(runs: Sequence[Run]) -> str:
    """Sum up the rounds."""
    rows = []
    for case in CASES:
        heard = list(figures(runs, case, "heard_p99_ms").values())
        half = list(figures(runs, case, "heard_p50_ms").values())
        ratios = paired_ratios(figures(runs, case, "get_p99_ms"), figures(runs, "nobody", "get_p99_ms"))
        rows.append(
            [
                case,
                spread(list(figures(runs, case, "get_p99_ms").values())).text(),
                spread(ratios).text(),
                spread(half).text() if half else "",
                spread(heard).text() if heard else "",
                spread(list(figures(runs, case, "messages_per_s").values())).text(0),
                str(sum(run.lost_messages for run in runs if run.case == case)),
                spread(list(figures(runs, case, "cpu_share").values())).text(),
            ]
        )
    head = (
        "who listens",
        "GET p99, ms",
        "beside nobody",
        "heard p50, ms",
        "heard p99, ms",
        "messages/s",
        "lost",
        "CPU",
    )
    return markdown_table(head, rows)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="how long each case of a round is measured")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--changes", type=float, default=1000, help="writes a second")
    parser.add_argument("--reads", type=float, default=500, help="GETs a second that are timed")
    parser.add_argument("--probes", type=float, default=50, help="writes a second that are waited for")
    parser.add_argument("--out", type=Path, help="where to write the figures (default: bench/results)")
    parser.add_argument("--listen", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--probe", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.listen:
        port, count, case = options.listen
        listen(int(port), int(count), case)
    elif options.write:
        port, rate, seconds, keys = options.write
        write(int(port), float(rate), float(seconds), int(keys))
    elif options.probe:
        port, admin_port, rate, seconds = options.probe
        probe(int(port), int(admin_port), float(rate), float(seconds))
    else:
        run(options)


def run(options: argparse.Namespace) -> None:
    """Run all cases in turn, round after round."""
    need_programs(["redis-server"])
    disturbance = Disturbance()
    about = {**machine(), "versions": versions(["redis-server"])}
    runs: list[Run] = []
    with Rig() as rig:
        redis = rig.redis("redis")
        # Nobody here answers pings.
        more = f'[push]\nmax_subscribers = {options.subscribers + 10}\nheartbeat = "1h"\n'
        proxy = rig.respite("respite", redis, l1={"admit": "always"}, more=more)
        with open_connection(redis) as direct:
            for key in range(100):
                get(direct, request("SET", f"hot:{key}", "x" * 100))
        for number in range(1, options.rounds + 1):
            for case in rotated(CASES, number):
                runs.append(measure(proxy, case, number, options))
                say(f"round {number}/{options.rounds}  {runs[-1]}")
    print(table(runs))
    print(f"\ngoals: heard p99 below {GOAL_P99_MS:.0f} ms, GET p99 at most {GOAL_P99:.0f} times nobody's")
    result = {
        "script": "push",
        "machine": about,
        "disturbance": disturbance.report(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "runs": [attrs.asdict(one) for one in runs],
    }
    say(f"figures: {write_result('push', result, options.out)}")


if __name__ == "__main__":
    run_main(main)
