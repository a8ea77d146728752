"""How long the proxy itself thinks: nanoseconds of Python a request on every path, with no socket and no server.

    python -m bench.hotpath [--rounds N] [--only NAME]

Clients and the data link get scripted streams in place of sockets; a wake-up of 50 clients is played again and again.
What is missing here is what the kernel takes (about 2 us a recv and 7 us a send where this was written). The clock is
that of the processor time of this process: what others take of the machine does not count, but for its caches.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs

from bench._values import Writer, document
from proxy.cache.entry import Scope
from proxy.config.load import load_settings
from proxy.config.model import ClassSettings, Endpoint
from proxy.core.session import Session
from proxy.net.clients.client import ClientConnection
from proxy.net.links.link import Link
from proxy.net.worker import Worker
from proxy.wire.commands import CommandSpec, CommandTable, Kind
from proxy.wire.encode import bulk, command
from proxy.wire.reads import READS

CLIENTS = 50
KEYS = 1000
VALUE = b"x" * 100
HASH = b"*6\r\n" + b"".join(bulk(word) for word in (b"name", b"x" * 20, b"email", b"y" * 20, b"seen", b"1700000000"))
MISSES_IN = 16


def its_key(args: Sequence[bytes]) -> Sequence[bytes]:
    """Return the key of a command."""
    return args[1:2]


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

    def __init__(self, *, mode: str, max_bytes: str = "64MiB", classes: tuple[ClassSettings, ...] = ()) -> None:
        overrides: dict[str, Any] = {"rollout.mode": mode, "l1.max_bytes": max_bytes, "l1.max_value_bytes": "64KiB"}
        overrides["l1.admit"] = "always"  # the scripted replies to a miss are those of a read and its PTTL
        overrides["l1.verify"] = 0.0  # a comparison with Redis would get a reply that answers something else
        overrides |= {"listen.url": ["redis://127.0.0.1:0"], "listen.admin": "", "upstream.url": "redis://127.0.0.1:1"}
        settings = attrs.evolve(load_settings(None, env={}, overrides=overrides), classes=classes)
        self.worker = worker = Worker(settings, Endpoint("tcp", "127.0.0.1", 1))
        for listener in worker.listeners:
            listener.close()
        worker.reactor._poller = FakePoller()
        worker.control.table = CommandTable(
            [
                CommandSpec(b"GET", Kind.GET, every_key=its_key),
                CommandSpec(b"HGETALL", Kind.CACHED, keys=its_key, every_key=its_key, read=READS[b"HGETALL"]),
                CommandSpec(b"SET", Kind.WRITE, is_write=True, keys=its_key, every_key=its_key),
            ]
        )
        worker.rights.learn(worker.control.table)
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
            client = ClientConnection(worker, stream, session, worker.door.origins.find(""))
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


def keep(stage: Stage, key: bytes, *, reply: bytes, name: bytes = b"GET") -> None:
    """Let L1 hold the reply of a read for good."""
    l1, namespace = stage.worker.engine.l1, stage.group.namespace
    if name == b"GET":
        l1.put(namespace, bulk(key), reply, float("inf"), 0.0)
    else:
        l1.put_reply(namespace, bulk(key), reply, float("inf"), 0.0, request=command(name, key))


def other_reads(depth: int) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Return the cases of a read that is no GET."""
    total = CLIENTS * depth
    hit = Stage(mode="on")
    script(hit, b"HGETALL", depth)
    for key in keys(total):
        keep(hit, key, reply=HASH, name=b"HGETALL")
    yield f"hit HGETALL P={depth}", total, partial(hit.wake_up, b"")
    missing = Stage(mode="on", max_bytes="256KiB")
    script(missing, b"HGETALL", depth, spread=1_000_003)

    def miss() -> None:
        missing.worker.engine.flush()
        missing.wake_up((HASH + b":-1\r\n") * total)

    yield f"miss HGETALL P={depth}", total, miss


def mixed(depth: int) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Return the cases of pipelines that hold GET and HGETALL in turn: all hits, and one in 16 a miss."""
    value = b"$100\r\n" + VALUE + b"\r\n"
    total = CLIENTS * depth
    for misses in (0, total // MISSES_IN):
        stage = Stage(mode="on")
        words = keys(total, spread=1_000_003)
        for at, stream in enumerate(stage.streams):
            own = words[at * depth : (at + 1) * depth]
            stream.chunk = b"".join(command((b"GET", b"HGETALL")[n % 2], key) for n, key in enumerate(own))
        away = set(words[MISSES_IN // 2 :: MISSES_IN]) if misses else set()
        for at, key in enumerate(words):
            if key not in away:
                keep(stage, key, reply=(value, HASH)[at % 2], name=(b"GET", b"HGETALL")[at % 2])
        assert len(away) == misses

        def play(stage: Stage = stage, away: set[bytes] = away, raw: bytes = (value + b":-1\r\n") * misses) -> None:
            for key in away:
                stage.worker.engine.drop(bulk(key))
            stage.wake_up(raw)

        yield f"mixed {'1/16 miss' if misses else 'hits'} P={depth}", total, play


def classed(depth: int) -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Return the cases of a SET of 1 kB of a class that asks for nothing, may compress it, or has versions."""
    value = document(Writer(1), 1000)
    total = CLIENTS * depth
    for name, asked in (("class", {}), ("compress", {"compress": True}), ("version", {"version": True})):
        stage = Stage(mode="on", classes=(ClassSettings("c", ("key:*",), **asked),))
        commands = stage.worker.pipeline.value_commands
        if commands is not None:
            commands.values.sealer.clock.anchor(1_700_000_000_000_000, 0.0, 0.0)
        script(stage, b"SET", depth, value)
        yield f"{name} SET 1 kB P={depth}", total, partial(stage.wake_up, b"+OK\r\n" * total)


def cases() -> Iterator[tuple[str, int, Callable[[], None]]]:
    """Return (name, requests a wake-up, what to time)."""
    value = b"$100\r\n" + VALUE + b"\r\n"
    for depth in (1, 16):
        total = CLIENTS * depth
        hit = Stage(mode="on")
        script(hit, b"GET", depth)
        for key in keys(total):
            keep(hit, key, reply=value)
        yield f"hit GET P={depth}", total, partial(hit.wake_up, b"")
        through = Stage(mode="off")
        script(through, b"GET", depth)
        yield f"pass GET P={depth}", total, partial(through.wake_up, value * total)
        writing = Stage(mode="off")
        script(writing, b"SET", depth, VALUE)
        yield f"pass SET P={depth}", total, partial(writing.wake_up, b"+OK\r\n" * total)
        caching = Stage(mode="on")
        script(caching, b"SET", depth, VALUE)
        yield f"L1 SET P={depth}", total, partial(caching.wake_up, b"+OK\r\n" * total)
        missing = Stage(mode="on", max_bytes="256KiB")
        script(missing, b"GET", depth, spread=1_000_003)

        def miss(stage: Stage = missing, raw: bytes = (value + b":-1\r\n") * total) -> None:
            stage.worker.engine.flush()
            stage.wake_up(raw)

        yield f"miss GET P={depth}", total, miss
        yield from other_reads(depth)
        yield from classed(depth)
    yield from mixed(16)


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
            began = time.process_time()
            for _ in range(repeats):
                play()
            found[name].append((time.process_time() - began) / repeats / total * 1e9)
    print(f"{'path':<22}{'median':>9}{'min':>9}{'max':>9}   ns a request")
    for name, values in found.items():
        print(f"{name:<22}{statistics.median(values):>9.0f}{min(values):>9.0f}{max(values):>9.0f}")


if __name__ == "__main__":
    main()
