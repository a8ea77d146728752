"""The reactor: one trio task, one poller, every client and upstream socket.

    trio epoll -> our poller readable -> for each ready socket: owner.on_event(mask)
                                      -> flush links   (one send each: what this wake-up collected)
                                      -> flush clients (one send each)

Owns the poller and the lists of who has something to send. A wake-up is synchronous from end to end, so whatever it
decides needs no lock. Code outside a wake-up (timers, connects, the admin port) calls `enter` first and `flush` last.
"""

from __future__ import annotations

import select
import selectors
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import trio

from proxy.core.engine import Engine
from proxy.core.tracking import Tracking
from proxy.log import get_logger

if TYPE_CHECKING:
    from proxy.net.links.openers import Openers

READ: Final = 0x001  # EPOLLIN, under the same numbers with every poller
WRITE: Final = 0x004
ERROR: Final = 0x008
HANGUP: Final = 0x010
PEER_CLOSED: Final = 0x2000  # EPOLLRDHUP: the peer will send no more, seen even while we do not read

TURN_S: Final = 0.002  # how long ready sockets may keep other trio tasks waiting
# So long the reactor waits in its own poller for more, before it goes to sleep in trio's: a round through trio's loop
# costs more than a request. At most that much later does another task run; the shortest wait epoll knows.
LINGER_S: Final = 0.001
EVENTS_MAX: Final = 512

log = get_logger("reactor")


class Owner(Protocol):
    """Whoever a socket belongs to."""

    def on_event(self, mask: int) -> None:
        """Handle readiness; must not block and must not raise for what the peer did."""

    def on_crash(self) -> None:
        """Close: `on_event` raised, which is a bug of ours, and the others must live."""


class Flushable(Protocol):
    """Whoever collects bytes during a wake-up."""

    def flush(self) -> None:
        """Send them."""

    def on_crash(self) -> None:
        """Close: `flush` raised, which is a bug of ours."""


class Poller(Protocol):
    """The part of `select.epoll` the reactor needs."""

    def register(self, fd: int, eventmask: int, /) -> None: ...  # noqa: D102
    def modify(self, fd: int, eventmask: int, /) -> None: ...  # noqa: D102
    def unregister(self, fd: int, /) -> None: ...  # noqa: D102
    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]: ...  # noqa: D102
    def fileno(self) -> int: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class SelectorPoller:
    """`selectors.DefaultSelector` with epoll's face, for systems without epoll."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, eventmask: int, /) -> None:
        """Watch a descriptor. With no event of interest it is not even known to the selector, which cannot do that."""
        if events := self._events(eventmask):
            self._selector.register(fd, events)

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Change what is watched."""
        self.unregister(fd)
        self.register(fd, eventmask)

    def unregister(self, fd: int, /) -> None:
        """Watch no more."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Return (descriptor, mask) of what is ready."""
        ready = self._selector.select(timeout)[:maxevents]
        return [
            (key.fd, READ * bool(events & selectors.EVENT_READ) | WRITE * bool(events & selectors.EVENT_WRITE))
            for key, events in ready
        ]

    def fileno(self) -> int:
        """Return the descriptor trio waits on."""
        return self._selector.fileno()  # epoll's and kqueue's have one

    def close(self) -> None:
        """Give the descriptor back."""
        self._selector.close()

    @staticmethod
    def _events(mask: int) -> int:
        return selectors.EVENT_READ * bool(mask & READ) | selectors.EVENT_WRITE * bool(mask & WRITE)


def make_poller() -> Poller:
    """Return the best poller of this system."""
    return select.epoll() if hasattr(select, "epoll") else SelectorPoller()


class Reactor:
    """Wake owners of ready sockets, then flush what they collected."""

    def __init__(
        self,
        engine: Engine,
        tracking: Tracking,
        *,
        poller: Poller | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.tracking = tracking
        self.clock = clock
        self.dirty_links: list[Flushable] = []
        self.dirty_clients: list[Flushable] = []
        self.openers: Openers | None = None  # None: values are stored as they were written
        self._hurry_until = 0.0
        self._owners: dict[int, Owner] = {}
        self._poller = poller or make_poller()
        engine.now = clock()
        engine.tally.clock = self.time

    def add(self, fd: int, owner: Owner, mask: int = READ) -> None:
        """Watch a socket for its owner."""
        self._owners[fd] = owner
        self._poller.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        """Change what a socket is watched for."""
        self._poller.modify(fd, mask)

    def remove(self, fd: int) -> None:
        """Watch a socket no more; must be called before it is closed."""
        if self._owners.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def enter(self) -> float:
        """Begin a decision outside a wake-up: read the clock, stop serving L1 if it is no longer proven."""
        now = self.clock()
        self.engine.now = now
        if now >= self.tracking.serve_until:
            self.engine.suspend()
        return now

    def time(self) -> float:
        """Return the time now, not that of this wake-up."""
        return self.clock()

    def hurry(self, seconds: float) -> None:
        """Let other trio tasks run without a pause for so long: they have as much to do as the sockets here."""
        self._hurry_until = self.engine.now + seconds

    def flush(self) -> None:
        """Send what was collected: links first, so that Redis works while clients are served."""
        while self.dirty_links or self.dirty_clients:
            links, self.dirty_links = self.dirty_links, []
            for link in links:
                self.guard(link, link.flush)
            clients, self.dirty_clients = self.dirty_clients, []
            for client in clients:
                try:
                    client.flush()
                except Exception:
                    self._crashed(client)

    def guard(self, owner: Owner | Flushable, act: Callable[[], None]) -> None:
        """Do something for an owner; a mistake of ours in it ends that owner, and nobody else."""
        try:
            act()
        except Exception:
            self._crashed(owner)

    @staticmethod
    def _crashed(owner: Owner | Flushable) -> None:
        log.exception("bug", owner=type(owner).__name__)
        owner.on_crash()

    def turn(self) -> None:
        """Serve what is ready at this moment: for who keeps the loop from others, and is between two decisions."""
        if events := self._poller.poll(0, EVENTS_MAX):
            self.enter()
            self._wake(events)

    def _wake(self, events: list[tuple[int, int]]) -> None:
        owners = self._owners
        for ready, mask in events:
            owner = owners.get(ready)
            if owner is not None:
                try:
                    owner.on_event(mask)
                except Exception:
                    self._crashed(owner)
        if self.dirty_links or self.dirty_clients:
            self.flush()

    async def run(self) -> None:
        """Serve until cancelled. A cancellation lands only between wake-ups: nothing is half decided."""
        poll = self._poller.poll
        fd = self._poller.fileno()
        while True:
            await trio.lowlevel.wait_readable(fd)
            events = poll(0, EVENTS_MAX)
            began = self.enter()
            while events:
                self._wake(events)
                if self.engine.now - began > TURN_S:
                    await trio.lowlevel.checkpoint()
                    events = poll(0, EVENTS_MAX)
                    began = self.enter()
                else:
                    events = poll(LINGER_S if self.engine.now > self._hurry_until else 0, EVENTS_MAX)
                    self.enter()

    def close(self) -> None:
        """Give the poller back, when no socket is left."""
        self._poller.close()
