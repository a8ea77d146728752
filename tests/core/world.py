"""A whole worker with nothing real around it: a model Redis, scripted clients, a hand clock, no sockets, no event loop.

    ScriptedClient --bytes--> Worker (reactor, clients, links, engine) --bytes--> ModelRedis
                  <--bytes--                                          <--bytes--

Owns time and the order of events. Bytes move only when the test says so: `send` wakes the worker with a client's
command, `execute` lets Redis work, `deliver` wakes the worker with what Redis answered, `settle` does all of it until
nothing moves. Whatever the worker decides in between is the real code.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import attrs
import hiredis
import pytest

from proxy.config.load import default_settings
from proxy.config.model import Endpoint, Settings
from proxy.core.session import Identity
from proxy.errors import RemoteError
from proxy.net.links.dial import Stream, opening
from proxy.net.links.upstream import Group
from proxy.net.reactor import READ
from proxy.net.worker import Worker
from proxy.wire.encode import command

from .model_commands import COMMANDS
from .model_redis import Connection, ModelRedis

STALENESS_S = 1.0


class ScriptedStream:
    """A connected socket as the worker sees it."""

    def __init__(self, fd: int, sink: Callable[[bytes], None]) -> None:
        self.incoming = bytearray()
        self.closed = False
        self.is_at_end = False  # the peer has closed: reads give b"" once all is read
        self._fd = fd
        self._sink = sink

    def recv(self, size: int, /) -> bytes:
        """Read what was delivered."""
        if not self.incoming and not self.is_at_end:
            raise BlockingIOError
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def send(self, data: bytes | memoryview, /) -> int:
        """Hand bytes to the peer."""
        self._sink(bytes(data))
        return len(data)

    def fileno(self) -> int:
        """Return a number no real descriptor has."""
        return self._fd

    def close(self) -> None:
        """Close."""
        self.closed = True

    def getpeername(self) -> tuple[str, int]:
        """Return an address for CLIENT LIST."""
        return ("192.0.2.1", self._fd)

    getsockname = getpeername


class ScriptedPoller:
    """A poller that never finds anything: the test does the waking."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Do nothing."""

    def modify(self, fd: int, eventmask: int, /) -> None:
        """Do nothing."""

    def unregister(self, fd: int, /) -> None:
        """Do nothing."""

    def poll(self, timeout: float, maxevents: int, /) -> list[tuple[int, int]]:
        """Find nothing."""
        return []

    def fileno(self) -> int:
        """Return a number no real descriptor has."""
        return -1

    def close(self) -> None:
        """Do nothing."""


class ScriptedNursery:
    """Keeps what is to be run until the world runs it."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Callable[..., Coroutine[Any, Any, Any]], tuple[Any, ...]]] = []

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Keep a task."""
        self.tasks.append((function, args))


class ScriptedClient:
    """A client of the worker: sends commands, collects replies as frames."""

    def __init__(self, world: World, stream: ScriptedStream, received: bytearray) -> None:
        self.world = world
        self.stream = stream
        self.received = received
        self.connection = next(c for c in world.worker.clients if c.session.address.endswith(f":{stream.fileno()}"))

    def send(self, *words: str | bytes | int) -> None:
        """Send one command."""
        self.send_raw(command(*words))

    def send_raw(self, data: bytes) -> None:
        """Send bytes, in one piece."""
        self.stream.incoming += data
        self.world.wake(self.stream)

    def replies(self) -> list[Any]:
        """Return the replies received since the last time, decoded. Half a reply stays."""
        reader = hiredis.Reader()
        found: list[Any] = []
        taken = 0
        for end in range(1, len(self.received) + 1):
            reader.feed(bytes(self.received[end - 1 : end]))
            if (reply := reader.gets()) is not False:
                found.append(reply)
                taken = end
        del self.received[:taken]
        return found

    def ask(self, *words: str | bytes | int) -> Any:
        """Send one command, let everything happen, return its reply."""
        self.send(*words)
        self.world.settle()
        (reply,) = self.replies()
        return reply

    def close(self) -> None:
        """Close the connection, as a client that goes away."""
        self.stream.is_at_end = True
        self.connection.close()


class World:
    """The worker and everything around it. `now` is the only clock there is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
        self.now = 1000.0
        self.redis = ModelRedis(lambda: self.now, COMMANDS)
        self.worker = Worker(settings, Endpoint("tcp", "192.0.2.2", 6379))
        self.held: set[int] = set()  # connections whose answers `settle` does not deliver
        self.streams: dict[int, ScriptedStream] = {}  # by connection id
        self.unreachable = False
        self.during_handshake: Callable[[], None] = lambda: None
        self.nursery = ScriptedNursery()
        self._fd = 1_000_000
        self._groups: list[Group] = []
        reactor = self.worker.reactor
        reactor._poller.close()
        reactor._poller = ScriptedPoller()
        reactor.clock = lambda: self.now
        reactor.enter()
        monkeypatch.setattr(self.worker.links, "_nursery", self.nursery)
        monkeypatch.setattr(self.worker.pool, "_nursery", self.nursery)
        for module in ("links.upstream", "links.pinned", "invalidation.greet"):
            monkeypatch.setattr(f"proxy.net.{module}.open_stream", self._open_stream)
        self.connect_control()

    # -- connections -------------------------------------------------------------------------------------------------

    def client(self, *, db: int = 0, protocol: int = 2, user: str = "") -> ScriptedClient:
        """Connect a client and bring it to its place."""
        received = bytearray()
        stream = ScriptedStream(self._next_fd(), received.extend)
        self.worker.reactor.enter()
        self.worker.door.accept(stream)
        client = ScriptedClient(self, stream, received)
        if user:
            assert client.ask("AUTH", user, "secret") == b"OK"
        if protocol == 3:
            client.ask("HELLO", 3)
        if db:
            assert client.ask("SELECT", db) == b"OK"
        client.ask("STRLEN", "nothing")  # its data link is up and tracked
        return client

    def connect_control(self) -> None:
        """Open the invalidation link."""
        _drive(self.worker.control._open())

    @property
    def control(self) -> Connection:
        """Redis' side of the invalidation link that was opened last."""
        return self._named("respite-control")[-1]

    def data_link(self, *, db: int = 0, protocol: int = 2) -> Connection:
        """Return Redis' side of the data link of a database and protocol."""
        return next(c for c in self._named("respite-data")[::-1] if (c.db, c.protocol) == (db, protocol))

    def _named(self, name: str) -> list[Connection]:
        return [connection for connection in self.redis.connections.values() if connection.name == name]

    async def _open_stream(
        self, upstream: object, identity: Identity, db: int, protocol: int, name: str, *more: bytes
    ) -> tuple[Stream, list[bytes]]:
        if self.unreachable:
            raise RemoteError("connection refused")
        connection = self.redis.connect()
        commands, _ = opening(identity, db, protocol, name)
        replies = []
        for raw in [*commands, *more]:
            connection.receive(raw)
            connection.execute()
            replies.append(bytes(connection.answers))
            connection.answers.clear()
        connection.name = name
        self.during_handshake()
        stream = ScriptedStream(self._next_fd(), connection.receive)
        self.streams[connection.id] = stream
        return stream, replies[len(commands) :]

    def _next_fd(self) -> int:
        self._fd += 1
        return self._fd

    # -- what happens ------------------------------------------------------------------------------------------------

    def wake(self, *streams: ScriptedStream) -> None:
        """Wake the worker once, with these streams ready."""
        reactor = self.worker.reactor
        reactor.enter()
        for stream in streams:
            while stream.incoming or stream.is_at_end:
                owner = reactor._owners.get(stream.fileno())
                before = len(stream.incoming)
                if owner is not None:
                    owner.on_event(READ)
                if owner is None or len(stream.incoming) == before:
                    break
        reactor.flush()

    def execute(self, connection: Connection | None = None, count: int = 1_000_000) -> bool:
        """Let Redis execute what waits, on one connection or on all; return whether there was any."""
        chosen = [connection] if connection is not None else list(self.redis.connections.values())
        return bool(sum(each.execute(count) for each in chosen))

    def deliver(self, connection: Connection, size: int = 1_000_000_000) -> bool:
        """Deliver up to `size` bytes of what Redis has answered; return whether there was any."""
        data = bytes(connection.answers[:size])
        del connection.answers[:size]
        stream = self.streams[connection.id]
        if data and not stream.closed:
            stream.incoming += data
            self.wake(stream)
        return bool(data)

    def kill(self, connection: Connection) -> None:
        """Let Redis drop a connection. The worker learns of it by `notice`."""
        self.redis.drop_connection(connection)

    def notice(self, connection: Connection) -> None:
        """Let the worker learn that a connection has gone; what was answered before arrives before."""
        self.deliver(connection)
        stream = self.streams[connection.id]
        stream.is_at_end = True
        self.wake(stream)

    def run_tasks(self) -> bool:
        """Open the links that are wanted; return whether there was anything to do."""
        tasks, self.nursery.tasks = self.nursery.tasks, []
        for function, args in tasks:
            if function.__name__ == "_keep":
                self._groups.append(args[0])
            else:
                _drive(function(*args))
        moved = bool(tasks)
        for group in self._groups:
            if not group.closed and not group.links[0].connected and not self.unreachable:
                moved = True
                _drive(self.worker.links._connect(group, group.links[0]))
        for connection in list(self.redis.connections.values()):
            if connection.id in self.streams and self.streams[connection.id].closed and not connection.unread:
                self.redis.drop_connection(connection)
        return moved

    def settle(self) -> None:
        """Let everything happen that can, but for the answers of connections that are held."""
        moved = True
        while moved:
            moved = self.run_tasks()
            moved = self.execute() or moved
            for connection in list(self.redis.connections.values()):
                if connection.id in self.streams and connection.id not in self.held:
                    moved = self.deliver(connection) or moved

    def hold(self, connection: Connection) -> None:
        """Keep back the answers of a connection until it is `released`."""
        self.held.add(connection.id)

    def release(self, connection: Connection) -> None:
        """Deliver what was kept back, and let everything happen."""
        self.held.discard(connection.id)
        self.settle()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with the worker's timers and everything that follows."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + 0.05, end)
            self.tick()
            self.settle()

    def tick(self) -> None:
        """Let the worker's timers run at the time it is."""
        self.worker.timers.tick(self.worker.reactor.enter())
        self.worker.reactor.flush()


def _drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits for something")


def make_settings(
    *, tracking: Literal["redirect", "broadcast"] = "redirect", max_age_s: float = 300.0, max_value_bytes: int = 1 << 20
) -> Settings:
    """Return settings for a worker that listens nowhere."""
    settings = default_settings()
    return attrs.evolve(
        settings,
        listen=attrs.evolve(settings.listen, urls=()),
        l1=attrs.evolve(
            settings.l1,
            tracking=tracking,
            max_staleness_s=STALENESS_S,
            max_age_s=max_age_s,
            max_value_bytes=max_value_bytes,
        ),
    )


@contextmanager
def running_world(settings: Settings | None = None) -> Iterator[World]:
    """Make a world and undo what it patched."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch, settings or make_settings())
        yield world
