"""A socket, a poller and a clock in memory: every byte and every readiness is the test's decision."""

from __future__ import annotations

from collections.abc import Callable

from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.slots import Slot
from proxy.core.tracking import Tracking
from proxy.net.links.link import Link
from proxy.net.reactor import READ, Reactor
from proxy.wire.request import Raw

from ..core.scripted_slots import ScriptedClient


class ScriptedStream:
    """A connected socket. `incoming` is what recv gives, one item a call; `room` is how much each send takes."""

    def __init__(self) -> None:
        self.incoming: list[bytes | OSError] = []
        self.room: list[int | OSError] = []  # empty = everything is taken
        self.sends: list[bytes] = []
        self.sizes: list[int] = []  # how much each recv asked for
        self.closed = False

    @property
    def sent(self) -> bytes:
        """Everything that was taken."""
        return b"".join(self.sends)

    def recv(self, size: int, /) -> bytes:
        """Give the next piece, or as much of it as is asked for; EAGAIN when there is none."""
        self.sizes.append(size)
        if not self.incoming:
            raise BlockingIOError
        piece = self.incoming.pop(0)
        if isinstance(piece, OSError):
            raise piece
        if len(piece) > size:
            self.incoming.insert(0, piece[size:])
        return piece[:size]

    def send(self, data: Raw, /) -> int:
        """Take as much as the script says."""
        assert not self.closed
        room: int | OSError = self.room.pop(0) if self.room else len(data)
        if isinstance(room, OSError):
            raise room
        if not room and len(data):
            raise BlockingIOError
        self.sends.append(bytes(data[:room]))
        return min(room, len(data))

    def fileno(self) -> int:
        """Give the one number there is."""
        return 7

    def getpeername(self) -> object:
        """Give an address."""
        return ("127.0.0.1", 6379)

    def getsockname(self) -> object:
        """Give an address."""
        return ("127.0.0.1", 50000)

    def close(self) -> None:
        """Close; nothing may be sent after it."""
        self.closed = True


class ScriptedPoller:
    """Remembers what each descriptor is watched for."""

    def __init__(self) -> None:
        self.masks: dict[int, int] = {}

    def register(self, fd: int, eventmask: int, /) -> None:
        """Watch a descriptor that is not watched."""
        assert fd not in self.masks
        self.masks[fd] = eventmask

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Change what is watched."""
        assert fd in self.masks
        self.masks[fd] = eventmask

    def unregister(self, fd: int, /) -> None:
        """Watch no more."""
        del self.masks[fd]

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Give nothing: tests call the owners themselves."""
        return []

    def fileno(self) -> int:
        """Give a number."""
        return 8

    def close(self) -> None:
        """Do nothing."""


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


class NotingLink(Link):
    """A link that notes its pushes."""

    def __init__(self, reactor: Reactor, stats: Stats, on_lost: Callable[[Link, str], None]) -> None:
        super().__init__(reactor, stats, "data", on_lost)
        self.pushes: list[bytes] = []

    def on_push(self, frame: bytes) -> None:
        """Note it."""
        self.pushes.append(frame)
        super().on_push(frame)


class Harness:
    """One link with its reactor, stream and client; `lost` is what its owner was told."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.stats = Stats()
        self.engine = Engine(L1(1 << 20), self.stats, enabled=True, max_age_s=60.0, max_value_bytes=1 << 16)
        tracking = Tracking(self.engine, wanted="auto", max_staleness_s=1.0)
        self.poller = ScriptedPoller()
        self.reactor = Reactor(self.engine, tracking, poller=self.poller, clock=self.clock)
        self.stream = ScriptedStream()
        self.client = ScriptedClient()
        self.lost: list[str] = []
        self.link = self.make(lambda _, why: self.lost.append(why))

    def make(self, on_lost: Callable[[Link, str], None]) -> NotingLink:
        """Make a link that tells its owner when it is lost."""
        return NotingLink(self.reactor, self.stats, on_lost)

    @property
    def pushes(self) -> list[bytes]:
        """What the link took for pushes."""
        return self.link.pushes

    def attached(self) -> Harness:
        """Connect the link."""
        self.link.attach(self.stream)
        return self

    def ask(self, raw: bytes, slot: Slot | None = None, *, replies: int = 1) -> Slot:
        """Submit a command for the client, in a slot that is owed so many replies."""
        slot = slot or Slot(self.client)
        slot.left = replies
        if slot.client is not None:
            self.client.owe(slot)
        self.link.submit(raw, slot)
        return slot

    def turn(self, *pieces: bytes | OSError) -> None:
        """Let the link read each piece in a wake-up of its own; what was collected is flushed after each."""
        for piece in pieces:
            self.stream.incoming.append(piece)
            while self.stream.incoming and self.link.open:
                self.link.on_event(READ)
                self.reactor.flush()
