"""A fifth of what a proxy can do, for long: its processor is busy for a fifth of the time.

Its memory and its descriptors stay what they are.

RESPITE_SOAK_SECONDS sets how long (half an hour without it). What is compared is the median of the first tenth after
the warm-up, in which L1 fills and every buffer finds its size, with that of the last tenth. The warm-up is half of it:
what is bounded by keys or by time grows ever slower towards its bound, some minutes long at this load.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import attrs

from ..e2e.raw import RawClient, encode_all
from ..e2e.servers import Server, find_kind
from ..e2e.targets import Respite, running_respite

SECONDS = float(os.environ.get("RESPITE_SOAK_SECONDS", "1800"))
SHARE = 0.2
LIMIT = 0.02
FDS_LIMIT = 2  # of a handful, two are more than 2 %: a connection that comes while one goes
CONNECTIONS = 20
BATCH = 25
KEYS = 2_000  # few enough that all that is kept by key has met each of them
VALUE = b"v" * 200
CALIBRATION_S = 3.0
WARM_UP_SHARE = 0.5
SETTINGS = {
    # Small enough to be full, and to be evicted from, long before the end of the warm-up.
    "l1": {"max_bytes": "4MiB"},
    # What fills for an hour would look like a leak in a run that ends before.
    "metrics": {"history": "1m"},
    "class": [
        {"name": "packed", "match": ["packed:*"], "compress": True, "version": True},
        {"name": "tickets", "match": ["ticket:*"], "tags": ["queue-{1}"], "version": True, "adaptive_ttl": True},
    ],
    "compression": {"min_bytes": 64},
}


@attrs.define
class Load:
    """Many connections that do the everyday, a batch at a time; one of them is new each second."""

    respite: Respite
    stack: ExitStack
    rng: random.Random = attrs.field(factory=lambda: random.Random(1))
    clients: list[RawClient] = attrs.field(factory=list)
    done: int = 0
    _renewed_at: float = 0.0

    def batch(self) -> None:
        """Send one batch on one connection and read all of its replies."""
        now = time.monotonic()
        if len(self.clients) < CONNECTIONS:
            self.clients.append(self.respite.connect())
        elif now - self._renewed_at > 1.0:
            self._renewed_at = now
            self.clients.pop(0).close()
            return
        client = self.rng.choice(self.clients)
        commands = [self.rng.choices(MOVES, WEIGHTS)[0](self.rng) for _ in range(BATCH)]
        client.send(encode_all(commands))
        client.frames(BATCH)
        self.done += BATCH

    def close(self) -> None:
        """Close all connections."""
        while self.clients:
            self.clients.pop().close()


def _key(rng: random.Random, name: str) -> str:
    return f"{name}:{int(rng.paretovariate(0.9)) % KEYS}"


MOVES: list[Callable[[random.Random], tuple[str | bytes | int, ...]]] = [
    lambda rng: ("GET", _key(rng, "plain")),
    lambda rng: ("SET", _key(rng, "plain"), VALUE, "PX", rng.randint(1000, 60_000)),
    lambda rng: ("GET", _key(rng, "packed")),
    lambda rng: ("SET", _key(rng, "packed"), VALUE * rng.randint(1, 8), "EX", 60),
    lambda rng: ("GET", _key(rng, "ticket")),
    lambda rng: ("SET", _key(rng, "ticket"), VALUE, "EX", 60),
    lambda rng: ("MGET", _key(rng, "plain"), _key(rng, "packed")),
    lambda rng: ("HSET", _key(rng, "hash"), "f", rng.random().hex()),
    lambda rng: ("HGETALL", _key(rng, "hash")),
    lambda rng: ("INCR", _key(rng, "count")),
    lambda rng: ("EVAL", "return redis.call('GET', KEYS[1])", 1, _key(rng, "plain")),
    lambda rng: ("BLPOP", "none", "0.001"),
    lambda rng: ("RESPITE", "INVALIDATE", "TAG", f"queue-{rng.randrange(50)}"),
    lambda rng: ("NOSUCH", "command"),
]
WEIGHTS = [400, 60, 100, 20, 100, 20, 40, 20, 40, 20, 5, 1, 1, 2]


def test_fifth_of_the_load_leaves_memory_and_descriptors_flat() -> None:
    """Median of the first tenth after the warm-up against the last: within 2 %."""
    with (
        Server(find_kind("redis7")) as server,
        running_respite({"upstream": {"url": server.url}} | SETTINGS) as respite,
        ExitStack() as stack,
    ):
        load = Load(respite, stack)
        stack.callback(load.close)
        began, spent_s = time.monotonic(), _processor_s(respite.process.pid)
        while time.monotonic() - began < CALIBRATION_S:
            load.batch()
        # What a batch costs the proxy is what a fifth of its processor is shared out by, however fast this client is.
        cost_s = (_processor_s(respite.process.pid) - spent_s) / (load.done / BATCH)
        sizes, spent_s = _endure(load, cost_s / SHARE)

    first, last = _parts(sizes)
    rss, fds = ([statistics.median(size[at] for size in part) for part in (first, last)] for at in (0, 1))
    report = (
        f"{load.done} requests in {SECONDS:g} s, processor {spent_s / SECONDS:.1%}; RSS {rss[0] / 1e6:.2f} to"
        f" {rss[1] / 1e6:.2f} MB ({rss[1] / rss[0] - 1:+.2%}), descriptors {fds[0]:g} to {fds[1]:g}"
    )
    print(report)
    assert rss[1] <= rss[0] * (1 + LIMIT), report
    assert fds[1] <= fds[0] + FDS_LIMIT, report


def _endure(load: Load, pace_s: float) -> tuple[list[tuple[int, int]], float]:
    """Keep up the pace to the end; return RSS and descriptors of every second, and the processor time of the proxy."""
    sizes: list[tuple[int, int]] = []
    pid = load.respite.process.pid
    began, spent_s = time.monotonic(), _processor_s(pid)
    due, measured_at = began, began
    while (now := time.monotonic()) < began + SECONDS:
        if now < due:
            time.sleep(due - now)
        due = max(due + pace_s, now - 1.0)
        load.batch()
        if now - measured_at >= 1.0:
            measured_at = now
            sizes.append((load.respite.rss_bytes, len(list(Path(f"/proc/{pid}/fd").iterdir()))))
    return sizes, _processor_s(pid) - spent_s


def _processor_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _parts(sizes: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    warm = sizes[int(len(sizes) * WARM_UP_SHARE) :]
    tenth = max(len(warm) // 10, 1)
    return warm[:tenth], warm[-tenth:]
