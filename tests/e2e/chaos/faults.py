"""How each thing falls, and how it gets up again: a context manager a kind of fault."""

from __future__ import annotations

import os
import random
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import attrs

from ..raw import encode
from ..servers import wait_for
from ..workers import pids_of
from . import namespace
from .world import Proxy, World

Fallen = AbstractContextManager[None]
LONG_S = 3600.0


@attrs.frozen
class Order:
    """One fault of a schedule: which, where the choice is a proxy, and for how long."""

    at_s: float
    name: str
    proxy: int
    seconds: float


@contextmanager
def redis_killed(world: World, order: Order) -> Iterator[None]:
    """Kill it as a crash would; it starts again with what it had written."""
    world.server.kill()
    try:
        yield
    finally:
        world.server.start()


@contextmanager
def redis_frozen(world: World, order: Order) -> Iterator[None]:
    """Stop the process where it stands: the kernel goes on taking bytes for it."""
    world.server.pause()
    try:
        yield
    finally:
        world.server.resume()


@contextmanager
def broker_frozen(world: World, order: Order) -> Iterator[None]:
    """Stop the broker where it stands."""
    assert world.broker is not None
    world.broker.freeze()
    try:
        yield
    finally:
        world.broker.thaw()


@contextmanager
def broker_restarted(world: World, order: Order) -> Iterator[None]:
    """Kill the broker; it starts again with what was durable."""
    assert world.broker is not None
    world.broker.kill()
    try:
        yield
    finally:
        world.broker.start()


@contextmanager
def worker_frozen(world: World, order: Order) -> Iterator[None]:
    """Stop a worker where it stands: its clients wait."""
    pid = world.proxies[order.proxy].workers[-1]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def worker_killed(world: World, order: Order) -> Iterator[None]:
    """Kill a worker; its supervisor starts another. A proxy of one worker is started again by its operator."""
    proxy = world.proxies[order.proxy]
    old = proxy.workers
    os.kill(old[-1], signal.SIGKILL)
    try:
        yield
    finally:
        if old == [proxy.process.pid]:
            proxy.process.wait()
            proxy.launch()
        else:
            wait_for(lambda: _serves_anew(proxy, old[-1]), what="the next worker", timeout_s=15.0)


def _serves_anew(proxy: Proxy, old: int) -> bool:
    rows = proxy.stats()["workers"]
    return old not in pids_of(proxy) and all(row["state"] == "serving" and row["pid"] for row in rows)


@contextmanager
def proxy_drained(world: World, order: Order) -> Iterator[None]:
    """End a proxy in an orderly way, and start it again."""
    proxy = world.proxies[order.proxy]
    proxy.signal(signal.SIGTERM)
    try:
        yield
    finally:
        code = proxy.wait_for_exit(30.0)
        assert code == 0, f"a drain ended with exit code {code}"
        proxy.launch()


@contextmanager
def reloaded(world: World, order: Order) -> Iterator[None]:
    """Apply changed settings, and in the end the old ones."""
    proxy = world.proxies[order.proxy]
    before = proxy.settings["l1"]
    proxy.settings["l1"] = before | {"max_value_bytes": "64KiB", "admit": "always"}
    _reload(proxy)
    try:
        yield
    finally:
        proxy.settings["l1"] = before
        _reload(proxy)


def _reload(proxy: Proxy) -> None:
    proxy.write_config()
    request = urllib.request.Request(f"http://127.0.0.1:{proxy.admin_port}/reload", method="POST")
    urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def links_silent(world: World, order: Order) -> Iterator[None]:
    """Let the relay carry nothing, in either direction, and close nothing: half-open connections."""
    world.relays[order.proxy].order("hold", 1)
    try:
        yield
    finally:
        world.relays[order.proxy].order("calm")


def packets_dropped(direction: str) -> Callable[[World, Order], Fallen]:
    """Return the fault that drops the packets of a proxy's links in a direction."""

    @contextmanager
    def act(world: World, order: Order) -> Iterator[None]:
        with namespace.dropped(world.relays[order.proxy].port, direction):
            yield

    return act


def links(*words: object) -> Callable[[World, Order], Fallen]:
    """Return the fault of one order to the relay of a proxy."""

    @contextmanager
    def act(world: World, order: Order) -> Iterator[None]:
        world.relays[order.proxy].order(*words)
        try:
            yield
        finally:
            world.relays[order.proxy].order("calm")

    return act


@contextmanager
def links_killed(world: World, order: Order) -> Iterator[None]:
    """Have Redis close every connection of the proxies, all at once."""
    with world.server.connect() as admin:
        admin.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        admin.command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
    yield


@contextmanager
def disk_full(world: World, order: Order) -> Iterator[None]:
    """Leave no byte on the disk of Redis: it cannot append and refuses writes with MISCONF."""
    with namespace.filled(world.server.directory):
        yield


@contextmanager
def snapshot_failed(world: World, order: Order) -> Iterator[None]:
    """Let a snapshot fail for want of a place to write it: from then on Redis refuses writes with MISCONF."""
    with world.server.connect() as admin:
        for words in (("dir", "/proc"), ("save", "86400 1000000000")):
            assert admin.command("CONFIG", "SET", *words) == b"+OK\r\n"
        admin.command("BGSAVE")
        wait_for(lambda: world.server.info("rdb_last_bgsave_status") == "err", what="the snapshot fails")
    try:
        yield
    finally:
        with world.server.connect() as admin:
            admin.command("CONFIG", "SET", "dir", str(world.server.directory))
            admin.command("CONFIG", "SET", "save", "")
            admin.command("BGSAVE")
            wait_for(lambda: world.server.info("rdb_last_bgsave_status") == "ok", what="the snapshot is written")


@contextmanager
def out_of_memory(world: World, order: Order) -> Iterator[None]:
    """Leave Redis no memory: what would take more of it is refused with OOM."""
    with world.server.connect() as admin:
        admin.command("CONFIG", "SET", "maxmemory", "1mb")
    try:
        yield
    finally:
        with world.server.connect() as admin:
            admin.command("CONFIG", "SET", "maxmemory", "0")


@contextmanager
def script_busy(world: World, order: Order) -> Iterator[None]:
    """Run a script that takes long: Redis answers BUSY, once it has noticed."""
    with world.server.connect() as admin, world.server.connect() as other:
        admin.command("CONFIG", "SET", "busy-reply-threshold", "100")
        admin.send(encode("EVAL", "while true do end", 0))
        try:
            yield
        finally:
            other.command("SCRIPT", "KILL")


def clock_jumped(offset_s: float) -> Callable[[World, Order], Fallen]:
    """Return the fault that sets the wall clock of the proxies' host off, and back."""

    @contextmanager
    def act(world: World, order: Order) -> Iterator[None]:
        world.set_clock(offset_s)
        try:
            yield
        finally:
            world.set_clock(0.0)

    return act


FAULTS: dict[str, Callable[[World, Order], Fallen]] = {
    "redis killed": redis_killed,
    "redis frozen": redis_frozen,
    "links silent": links_silent,
    "packets to redis dropped": packets_dropped("to"),
    "packets from redis dropped": packets_dropped("from"),
    "links a byte at a time": links("chop", 1),
    "links slow": links("lag", 1.0),
    "links killed": links_killed,
    "disk full": disk_full,
    "snapshot failed": snapshot_failed,
    "out of memory": out_of_memory,
    "script busy": script_busy,
    "broker frozen": broker_frozen,
    "broker restarted": broker_restarted,
    "worker frozen": worker_frozen,
    "worker killed": worker_killed,
    "proxy drained": proxy_drained,
    "reloaded": reloaded,
    "clock ahead": clock_jumped(LONG_S),
    "clock behind": clock_jumped(-LONG_S),
}
"""All kinds, by the name that a schedule and a report call them by."""

NEEDS_BROKER = frozenset({"broker frozen", "broker restarted"})
NEEDS_NAMESPACE = frozenset({"packets to redis dropped", "packets from redis dropped", "disk full"})

UNHEARD = frozenset({"links silent", "packets from redis dropped"})
"""Where Redis goes on and a proxy hears nothing of it: what is changed there meanwhile may be served as it was."""


def cut_off(order: Order) -> frozenset[int]:
    """Return the proxies whose own clients a fault cuts off or freezes; all else the proxies must bear."""
    return (
        frozenset({order.proxy}) if order.name in ("worker frozen", "worker killed", "proxy drained") else frozenset()
    )


def choose(rng: random.Random, names: list[str]) -> Iterator[str]:
    """Give the names again and again, each round in another order: none comes rarely."""
    while True:
        round_ = names[:]
        rng.shuffle(round_)
        yield from round_
