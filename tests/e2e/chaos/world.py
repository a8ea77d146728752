"""What a run plays with: a server, a broker, two proxies, and a relay between each proxy and the server."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs

from ...amqp.broker import RabbitMq
from ..consistency.faults import Faults
from ..servers import Kind, Server, ServerOptions, wait_for
from ..targets import ROOT, Respite
from ..workers import children_of
from . import namespace

RESPONSE_S = 2.0
CONNECT_S = 1.0
STALENESS_S = 1.0
START_S = 60.0  # of a proxy that starts again, beside all else
STALE_IF_ERROR_S = 30.0
BOUND_S = RESPONSE_S + CONNECT_S + 1.0
"""Every request is answered within it: it waits for a link, then for a reply, on a machine that has other work."""

KEEPING = (
    'save ""',
    "appendonly yes",
    # Written before the reply, by every policy but this one's cousin that waits for the disk in the background; what
    # the kernel has outlives the process. "always" would end a server whose disk is full instead of refusing writes.
    "appendfsync no",
    "auto-aof-rewrite-percentage 0",
)
DISK_BYTES = 256 << 20
CLOCK = Path(__file__).parent / "clock"


class Store(Server):
    """A server whose disk is its own, where that is allowed."""

    def __init__(self, kind: Kind, options: ServerOptions) -> None:
        self._mounted = ExitStack()
        super().__init__(kind, options)

    def start(self) -> None:
        """Start it, the first time with a disk."""
        if namespace.is_inside() and not any(self.directory.iterdir()):
            self._mounted.enter_context(namespace.disk(self.directory, DISK_BYTES))
        super().start()

    def remove(self) -> None:
        """Kill it and delete its directory."""
        self.kill()
        self._mounted.close()
        super().remove()


class Proxy(Respite):
    """A Respite whose wall clock can be set, and whose words outlive its restarts."""

    def __init__(self, settings: dict[str, Any], clock: Path) -> None:
        self._clock = clock
        self.had_traceback = False
        super().__init__(settings)

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, (str(CLOCK), str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path, "CHAOS_CLOCK": str(self._clock)}
        with (self.directory / "stdout").open("wb") as out, (self.directory / "stderr").open("ab") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "proxy", "run", "-c", str(self.config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
            )

    def launch(self) -> None:
        """Start it again after it has ended."""
        self.process = self._start()
        wait_for(self._has_started, what="the start line of Respite", timeout_s=START_S)

    def stop(self) -> None:
        """Stop it as an operator would; whether it has ever said a traceback is known then."""
        self.had_traceback = "Traceback" in self.errors
        super().stop()

    @property
    def workers(self) -> list[int]:
        """The processes of its workers; its own where there is one only."""
        return children_of(self.process.pid) or [self.process.pid]


@attrs.define(eq=False)
class World:
    """Everything that runs."""

    server: Server
    broker: RabbitMq | None
    proxies: list[Proxy]
    relays: list[Faults]
    clock: Path
    ended_badly: list[str] = attrs.field(factory=list)

    def set_clock(self, offset_s: float) -> None:
        """Set the wall clock of both proxies so far off."""
        with self.clock.open("r+b") as file:
            file.write(struct.pack("d", offset_s))

    def pids(self) -> list[int]:
        """Return the main process of each proxy."""
        return [proxy.process.pid for proxy in self.proxies]


def settings_of(url: str, workers: int, broker: RabbitMq | None) -> dict[str, Any]:
    """Return the configuration of a proxy."""
    settings: dict[str, Any] = {
        "listen": {"workers": workers},
        "upstream": {"url": url, "connect_timeout": f"{CONNECT_S}s", "response_timeout": f"{RESPONSE_S}s"},
        "l1": {"max_staleness": f"{STALENESS_S}s"},
        "class": [{"name": "docs", "match": ["doc:*"], "version": True}],
    }
    if broker:
        retry = {"attempts": 5, "first": "200ms", "max": "2s"}
        settings["amqp"] = {"url": broker.url, "retry": retry}
    return settings


def classes_of(fallbacks: frozenset[str]) -> list[dict[str, Any]]:
    """Return the classes whose clients shall not notice that Redis is away."""
    found: list[dict[str, Any]] = []
    if "stale" in fallbacks:
        found.append({"name": "stale", "match": ["stale:*"], "stale_if_error": f"{STALE_IF_ERROR_S}s"})
    if "memory" in fallbacks:
        found.append({"name": "memory", "match": ["memory:*"], "offline": "memory", "version": True})
        found.append({"name": "bare", "match": ["bare:*"], "offline": "memory"})
    return found


@contextmanager
def running(
    kind: Kind, rng: random.Random, *, fallbacks: frozenset[str], has_broker: bool, workers: tuple[int, ...] = (1, 2)
) -> Iterator[World]:
    """Run all of it for the length of a `with` block; every proxy must stop well in the end (`ended_badly`)."""
    with ExitStack() as stack:
        server = stack.enter_context(Store(kind, ServerOptions(extra=_extra(kind))))
        broker = stack.enter_context(RabbitMq()) if has_broker else None
        clock = server.directory / "clock"
        clock.write_bytes(struct.pack("d", 0.0))
        relays = []
        for _ in workers:
            relays.append(Faults(server, rng, Counter()))
            stack.callback(relays[-1].close)
        proxies = []
        for count, relay in zip(workers, relays, strict=True):
            settings = settings_of(relay.url, count, broker)
            settings["class"] += classes_of(fallbacks)
            proxies.append(Proxy(settings, clock))
            stack.callback(proxies[-1].discard)
        for proxy in proxies:
            proxy.wait_until_started()
        if broker:
            wait_for(
                lambda: all(proxy.stats()["events"]["state"] == "up" for proxy in proxies),
                what="both proxies hear the broker",
                timeout_s=30.0,
            )
        world = World(server, broker, proxies, relays, clock)
        yield world
        for proxy in proxies:
            try:
                proxy.stop()
            except (AssertionError, subprocess.TimeoutExpired) as error:
                world.ended_badly.append(f"the proxy of port {proxy.port}: {error}")


def _extra(kind: Kind) -> tuple[str, ...]:
    return (*KEEPING, "enable-protected-configs yes") if kind.version >= (7, 0, 0) else KEEPING
