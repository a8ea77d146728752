"""How long the proxy itself thinks: nanoseconds of Python a request on every path, with no socket and no server.

    python -m bench.hotpath [--rounds N] [--only NAME]

Clients and the data link get scripted streams in place of sockets; a wake-up of 50 clients is played again and again.
What is missing here is what the kernel takes (about 2 us a recv and 7 us a send where this was written).
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from proxy.cache.entry import Scope
from proxy.config.load import load_settings
from proxy.config.model import Endpoint
from proxy.core.session import Session
from proxy.net.client import ClientConnection
from proxy.net.link import Link
from proxy.net.worker import Worker
from proxy.wire.commands import CommandSpec, CommandTable, Kind
from proxy.wire.encode import command

CLIENTS = 50
KEYS = 1000
VALUE = b"x" * 100


class FakePoller:
    """A poller nobody asks."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Do nothing."""

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Do nothing."""

    def unregister(self, fd: int, /) -> None:
        """Do nothing."""

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Return nothing."""
        return []

    def fileno(self) -> int:
        """Return no descriptor."""
        return -1

    def close(self) -> None:
        """Do nothing."""


class FakeStream:
    """A socket that takes everything and gives what it is told to."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.chunk = b""

    def recv(self, size: int, /) -> bytes:
        """Return the scripted chunk."""
        return self.chunk

    def send(self, data: bytes | memoryview, /) -> int:
        """Take everything."""
        return len(data)

    def fileno(self) -> int:
        """Return the number it was given."""
        return self.fd

    def getpeername(self) -> str:
        """Return nothing."""
        return ""

    def getsockname(self) -> str:
        """Return nothing."""
        return ""

    def close(self) -> None:
        """Do nothing."""


class Stage:
    """A worker without sockets: 50 clients, one data link."""

    def __init__(self, *, mode: str, max_bytes: str = "64MiB") -> None:
        overrides = {"rollout.mode": mode, "l1.max_bytes": max_bytes, "l1.max_value_bytes": "64KiB"}
        overrides |= {"listen.url": ["redis://127.0.0.1:0"], "listen.admin": "", "upstream.url": "redis://127.0.0.1:1"}
        settings = load_settings(None, env={}, overrides=overrides)
        self.worker = worker = Worker(settings, Endpoint("tcp", "127.0.0.1", 1))
        for listener in worker.listeners:
            listener.close()
        worker.reactor._poller = FakePoller()
        worker.control.table = CommandTable(
            [
                CommandSpec(b"GET", Kind.GET),
                CommandSpec(b"SET", Kind.WRITE, is_write=True, keys=lambda args: args[1:2]),
            ]
        )
        worker.tracking.mode = "redirect"
        worker.tracking.serve_until = float("inf")
        worker.engine.serve()
        nursery: Any = type("Nursery", (), {"start_soon": staticmethod(lambda *_: None)})
        worker.links._nursery = nursery
        self.group = worker.links.group(Scope(b"", 0, 2), worker.initial_identity)
        self.link: Link = self.group.links[0]
        self.upstream = FakeStream(1000)
        self.link.attach(self.upstream)
        self.link.tracked = True
        self.streams = [FakeStream(fd) for fd in range(2000, 2000 + CLIENTS)]
        self.clients = []
        for number, stream in enumerate(self.streams):
            session = Session(number, "", "", 0.0, worker.initial_identity)
            client = ClientConnection(worker, stream, session)
            client.regroup()
            self.clients.append(client)

    def wake_up(self, replies: bytes) -> None:
        """Play one wake-up of all clients, and one of the link that answers them."""
        reactor = self.worker.reactor
        reactor.enter()
        for client in self.clients:
            client.on_event(1)
        reactor.flush()
        if replies:
            reactor.enter()
            self.upstream.chunk = replies
            self.link.on_event(1)
            reactor.flush()


def keys(number: int, *, spread: int = KEYS) -> list[bytes]:
    """Return `number` keys of `spread` in all, as redis-benchmark writes them."""
    return [b"key:%012d" % (at * 7919 % spread) for at in range(number)]


def script(stage: Stage, name: bytes, depth: int, *rest: bytes, spread: int = KEYS) -> None:
    """Give every client `depth` commands of its own keys."""
    words = iter(keys(CLIENTS * depth, spread=spread))
    for stream in stage.streams:
        stream.chunk = b"".join(command(name, next(words), *rest) for _ in range(depth))


def cases() -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Return (name, requests a wake-up, what to time)."""
    value = b"$100\r\n" + VALUE + b"\r\n"
    for depth in (1, 16):
        total = CLIENTS * depth
        hit = Stage(mode="on")
        script(hit, b"GET", depth)
        for key in keys(total):
            hit.worker.engine.l1.put(hit.group.namespace, b"$16\r\n%b\r\n" % key, value, float("inf"), 0.0)
        yield f"hit GET P={depth}", total, lambda stage=hit: stage.wake_up(b"")
        through = Stage(mode="off")
        script(through, b"GET", depth)
        yield f"pass GET P={depth}", total, lambda stage=through, raw=value * total: stage.wake_up(raw)
        writing = Stage(mode="off")
        script(writing, b"SET", depth, VALUE)
        yield f"pass SET P={depth}", total, lambda stage=writing, raw=b"+OK\r\n" * total: stage.wake_up(raw)
        caching = Stage(mode="on")
        script(caching, b"SET", depth, VALUE)
        yield f"L1 SET P={depth}", total, lambda stage=caching, raw=b"+OK\r\n" * total: stage.wake_up(raw)
        missing = Stage(mode="on", max_bytes="256KiB")
        script(missing, b"GET", depth, spread=1_000_003)

        def miss(stage: Stage = missing, raw: bytes = (value + b":-1\r\n") * total) -> None:
            stage.worker.engine.flush()
            stage.wake_up(raw)

        yield f"miss GET P={depth}", total, miss


def main() -> None:
    """Print a row a path: the median and the spread over rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    chosen = [case for case in cases() if options.only in case[0]]
    gc.collect()
    gc.freeze()
    found: dict[str, list[float]] = {name: [] for name, _, _ in chosen}
    for _ in range(options.rounds):
        for name, total, play in chosen:
            repeats = max(20_000 // total, 1)
            began = time.perf_counter()
            for _ in range(repeats):
                play()
            found[name].append((time.perf_counter() - began) / repeats / total * 1e9)
    print(f"{'path':<16}{'median':>9}{'min':>9}{'max':>9}   ns a request")
    for name, values in found.items():
        print(f"{name:<16}{statistics.median(values):>9.0f}{min(values):>9.0f}{max(values):>9.0f}")


if __name__ == "__main__":
    main()
