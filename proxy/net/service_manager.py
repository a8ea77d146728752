"""What systemd is told: that we are ready, reload, stop, and that we still turn.

    start line -> READY=1 ... RELOADING=1, READY=1 ... STOPPING=1    a reload before or after these is not told of
                     |                        ... or MAINPID=, and the next proxy says READY=1
                     '------ WATCHDOG=1, three times in the time it waits for one, as long as `proof` says so

Owns the datagram socket of sd_notify; everything is silent where nobody asked to be told (no NOTIFY_SOCKET). A word
that cannot be sent is dropped: it is the manager that draws conclusions from our silence, not we from its own.
Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import trio

from proxy.log import get_logger

_SHARE: Final = 3  # of the watchdog's time between two proofs: one may come late, and another late after it
log = get_logger("systemd")


class ServiceManager:
    """Whoever started us and waits to hear; by default nobody. `watchdog_s` is how long it waits, 0 for ever."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self.watchdog_s = watchdog_s if address else 0.0
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._status = ""
        self._is_ready = False
        self._failed = False

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """Return the one the environment names, and take that out of it: children of ours do not speak for us."""
        address = environment.pop("NOTIFY_SOCKET", "")
        wait_us = environment.pop("WATCHDOG_USEC", "")
        pid = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        if not address.startswith(("/", "@")):  # a vsock: of a virtual machine's whole system, not of a service
            return cls()
        is_ours = pid == str(os.getpid()) and wait_us.isascii() and wait_us.isdigit()
        return cls(address, int(wait_us) / 1e6 if is_ours else 0.0)

    def about(self) -> dict[str, Any]:
        """Return what the proxy that takes our place needs to `follow` us."""
        return {"notify": self._address, "watchdog_s": self.watchdog_s}

    def follow(self, about: Mapping[str, Any]) -> None:
        """Speak for the service of the proxy before us, where nobody else waits to hear of us."""
        if not self._address:
            self._address = str(about.get("notify", ""))
            self.watchdog_s = float(about.get("watchdog_s", 0.0))

    @property
    def patience_s(self) -> float:
        """How long a part of us may take to prove that it turns."""
        return self.watchdog_s / _SHARE

    def ready(self, status: str) -> None:
        """Say that clients are served; `status` is a line for people."""
        self._status = status
        self._is_ready = True
        self._tell("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Say that what runs is being finished."""
        self._is_ready = False
        self._tell("STOPPING=1", "STATUS=stopping: what runs is being finished")

    def replaced_by(self, pid: int) -> None:
        """Say that another process is the service from now on; that it stops is nobody's business then."""
        self._is_ready = False
        self._tell(f"MAINPID={pid}")

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Say that the configuration is read again within the block, and that it has been after it.

        Nothing is said before `ready` and after `stopping`: the READY at the end would say what is not so.
        """
        if not self._is_ready:
            yield
            return
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            if self._is_ready:
                self._tell("READY=1", f"STATUS={self._status}")

    async def watch(self, proof: Callable[[], Awaitable[None]]) -> None:
        """Feed the watchdog until cancelled, each time after `proof` has returned: where it never does, no more."""
        while self.watchdog_s:
            await proof()
            self._tell("WATCHDOG=1")
            await trio.sleep(self.watchdog_s / _SHARE)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.setblocking(False)
                to.sendto("\n".join(lines).encode(), self._address)
        except OSError as exc:
            if not self._failed:
                log.warning("systemd cannot be told", why=exc.strerror or str(exc))
            self._failed = True
        else:
            self._failed = False
