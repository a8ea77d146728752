"""Who looks on: a page that is told of changes by WebSocket, a prober of each proxy, a measure of their size."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import attrs
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from ..raw import encode
from ..workers import children_of
from .clients import FailedError, NotConnectedError
from .traffic import AFTER_ERROR_S, Ask, Stage

TELL_EVERY_S = 0.2
PROBE_EVERY_S = 0.2
PROBE_LIMIT_S = 5.0
SIZE_EVERY_S = 1.0
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOSS_TOLD_S = 15.0  # a loss is told of so soon


@attrs.define(eq=False)
class Teller:
    """Writes keys that a page listens to, each once."""

    stage: Stage
    ask: Ask
    _serial: int = 0

    def run(self) -> None:
        """Write until the end of the run."""
        while not self.stage.stop.is_set():
            self._serial += 1
            key, began = f"told:{self._serial}", time.monotonic()
            try:
                self.ask("SET", key, "x", "PX", 600_000)
            except (FailedError, NotConnectedError):
                time.sleep(AFTER_ERROR_S)
            else:
                self.stage.claims.told[key] = began, time.monotonic()
            time.sleep(TELL_EVERY_S)
        self.ask.client.close()


@attrs.define(eq=False)
class Page:
    """A page on /ws that comes back with its cursor. Keeps what it was told, and when it was told of a loss."""

    stage: Stage
    url: str
    heard: dict[str, float] = attrs.field(factory=dict)
    losses: list[float] = attrs.field(factory=list)
    connections: int = 0
    _cursor: str = ""

    def run(self) -> None:
        """Listen until the end of the run."""
        while not self.stage.stop.is_set():
            try:
                self._listen()
            except (OSError, WebSocketException):
                time.sleep(AFTER_ERROR_S)

    def _listen(self) -> None:
        url = f"{self.url}/ws?channels=told%3A%2A&since={self._cursor}"
        with connect(url, open_timeout=5, close_timeout=1, ping_interval=None) as page:
            self.connections += 1
            while not self.stage.stop.is_set():
                try:
                    message = json.loads(page.recv(0.5))
                except TimeoutError:
                    continue
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        now = time.monotonic()
        self._cursor = message.get("cursor") or self._cursor
        if message["type"] == "lost" or message.get("complete") is False or message.get("cause") == "flush":
            self.losses.append(now)
        for key in message.get("keys") or ():
            self.heard.setdefault(key, now)

    def judge(self) -> list[str]:
        """Return the keys whose change was acknowledged and of which nothing was told, not even a loss."""
        silent = [
            key
            for key, (began, ended) in self.stage.claims.told.items()
            if key not in self.heard and not any(began <= at <= ended + LOSS_TOLD_S for at in self.losses)
        ]
        if not silent:
            return []
        told, began = self.stage.claims.told, self.stage.ledger.began
        times = [f"{told[key][0] - began:.2f}" for key in (silent[0], silent[-1])]
        losses = ", ".join(f"{at - began:.2f}" for at in self.losses)
        return [
            f"{len(silent)} of {len(told)} changes were not told, the first of {times[0]} s, the last of {times[1]} s;"
            f" losses were told of at {losses or 'no time'}"
        ]


@attrs.define(eq=False)
class Prober:
    """Connects to a proxy again and again: it must always let somebody in and say something."""

    stage: Stage
    proxy: int
    port: int

    def run(self) -> None:
        """Probe until the end of the run."""
        while not self.stage.stop.is_set():
            began = time.monotonic()
            self.stage.ledger.probes += 1
            if not self._is_answered():
                self.stage.ledger.down.append((began, time.monotonic(), self.proxy))
            time.sleep(PROBE_EVERY_S)

    def _is_answered(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PROBE_LIMIT_S) as opened:
                opened.sendall(encode("ECHO", "here"))
                return opened.recv(1) in (b"$", b"-")
        except OSError:
            return False


@attrs.frozen
class Size:
    """How big one process was at one moment."""

    at: float
    proxy: int
    pid: int
    rss_bytes: int
    fds: int


@attrs.define(eq=False)
class Scale:
    """Measures all processes of the proxies."""

    stage: Stage
    roots: Any  # () -> pids of the proxies, in order
    sizes: list[Size] = attrs.field(factory=list)

    def run(self) -> None:
        """Measure until the end of the run."""
        while not self.stage.stop.wait(SIZE_EVERY_S):
            for proxy, root in enumerate(self.roots()):
                self.sizes += _measure(proxy, root)


def _measure(proxy: int, root: int) -> list[Size]:
    found = []
    try:
        for pid in (root, *children_of(root)):
            fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            if pages:  # none of a process that has ended and is not reaped yet
                found.append(Size(time.monotonic(), proxy, pid, pages * PAGE_BYTES, fds))
    except (OSError, ValueError):
        return found
    return found
