"""A worker with no loop, its clients and its link to Redis: every byte, and when it comes, is the test's decision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from proxy.cache.entry import Scope
from proxy.config.model import ClassSettings, parse_endpoint
from proxy.core.outage.fallback_slot import FallbackSlot
from proxy.core.outage.offline.store import Item
from proxy.core.session import Session
from proxy.core.slots import Failure
from proxy.net.clients.client import ClientConnection
from proxy.net.links.link import Link
from proxy.net.reactor import READ
from proxy.net.worker import Worker
from proxy.wire.commands import CommandSpec, CommandTable, Kind
from proxy.wire.reads import READS
from proxy.wire.request import Request, RequestParser

from .driver import make_settings
from .scripted import ScriptedPoller, ScriptedStream

MEMORY = ClassSettings("kept", ("m:*",), offline="memory")
OTHER = ClassSettings("other", ("o:*",))
OK = b"+OK\r\n"


def _first(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:2]


def _all(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:]


def _pairs(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1::2]


def _specs() -> Iterator[CommandSpec]:
    yield CommandSpec(b"GET", Kind.GET, every_key=_first)
    yield CommandSpec(b"STRLEN", Kind.CACHED, every_key=_first, read=READS[b"STRLEN"])
    yield CommandSpec(b"PUBLISH", Kind.READ, is_write=True)
    names = (b"SET", b"INCR", b"APPEND", b"HSET", b"GETSET", b"PEXPIRE", b"RPUSH")
    finders = {b"MSET": _pairs, b"DEL": _all, b"COPY": _all, **dict.fromkeys(names, _first)}
    for name, finder in finders.items():
        yield CommandSpec(name, Kind.WRITE, is_write=True, keys=finder, every_key=finder)


class NumberedStream(ScriptedStream):
    """A scripted socket with a number of its own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def fileno(self) -> int:
        """Give it."""
        return self._number


class Stand:
    """A worker, some clients, and the link that all of them share."""

    def __init__(self, *classes: ClassSettings, clients: int = 1, **sections: dict[str, Any]) -> None:
        settings = attrs.evolve(make_settings(**sections), classes=classes or (MEMORY, OTHER))
        self.worker = worker = Worker(settings, parse_endpoint("redis://127.0.0.1:1"))
        for listener in worker.listeners:
            listener.close()
        worker.reactor._poller.close()
        worker.reactor._poller = ScriptedPoller()
        worker.reactor.clock = lambda: 100.0
        worker.engine.now = 100.0
        versions = worker.value_layer.clock
        versions._monotonic = worker.reactor.clock
        versions.anchor(1_700_000_000_000_000, 100.0, 100.0)
        worker.rights.learn(CommandTable(_specs()))
        worker.tracking.serve_until = float("inf")
        worker.engine.serve()
        nursery: Any = type("Nursery", (), {"start_soon": staticmethod(lambda *_: None)})
        worker.links._nursery = nursery
        worker.links.let_in.add(b"")
        self.group = worker.links.group(Scope(b"", 0, 2), worker.initial_identity)
        self.redis = NumberedStream(1000)
        self.link: Link = self.group.links[0]
        self.link.attach(self.redis)
        self.link.tracked = True
        self.streams = [NumberedStream(2000 + number) for number in range(clients)]
        self.clients = [self._client(number) for number in range(clients)]

    def _client(self, number: int) -> ClientConnection:
        session = Session(number, "", "", 0.0, self.worker.initial_identity)
        client = ClientConnection(self.worker, self.streams[number], session, self.worker.door.origins.find(""))
        client.regroup()
        return client

    @property
    def items(self) -> dict[bytes, Item]:
        """What is held in memory, by key."""
        return {
            key: item
            for place in self.worker.reconciler.memory.places.values()
            for key, item in place.store.items.items()
        }

    @property
    def memory(self) -> dict[bytes, object]:
        """The values that are held in memory, by key."""
        return {key: item.value for key, item in self.items.items()}

    def ask(self, raw: bytes, number: int = 0) -> None:
        """Have a client send bytes; they are dealt with in a wake-up of their own."""
        self.streams[number].incoming.append(raw)
        self._turn(lambda: self.clients[number].on_event(READ))

    def answer(self, *chunks: bytes) -> None:
        """Have Redis send bytes, each chunk in a wake-up of its own."""
        for chunk in chunks:
            self.redis.incoming.append(chunk)
            while self.redis.incoming:
                self._turn(lambda: self.link.on_event(READ))

    def lose(self, failure: Failure = Failure.LOST) -> None:
        """Have the link die."""
        self._turn(lambda: self.link.lose("gone", failure))

    def _turn(self, does: Callable[[], None]) -> None:
        self.worker.reactor.enter()
        does()
        self.worker.reactor.flush()

    def seen(self, number: int = 0) -> bytes:
        """Return what a client was sent."""
        return self.streams[number].sent

    def slots(self, number: int = 0) -> list[tuple[str, int]]:
        """Return what a client is owed: of which kind, how many replies."""
        return [(type(slot).__name__, slot.left) for slot in self.clients[number].queue]

    def batch(self) -> FallbackSlot:
        """Return the one slot that the link owes."""
        (slot,) = self.link.fifo
        assert isinstance(slot, FallbackSlot)
        return slot


def parsed(raw: bytes) -> list[Request]:
    """Split what was sent to Redis."""
    requests: list[Request] = []
    RequestParser().parse(raw, requests)
    return requests
