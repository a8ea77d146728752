"""What the tests of the event service share: a sink that does as it is told, a service on a real broker."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import attrs
import trio
from pamqp.commands import Basic

from proxy.amqp.channel import Channel, Delivery, Outgoing
from proxy.amqp.connection import Connection, connect
from proxy.amqp.service import EventService
from proxy.config.endpoint import parse_amqp_url
from proxy.config.model import Amqp, Retry, TlsClient
from proxy.core.figures.stats import Histogram
from proxy.errors import AmqpError
from proxy.events.event import Event
from proxy.events.figures import EventFigures
from proxy.events.mapping import Mapper
from proxy.events.sink import Applied, Failed, Gap, Outcome

from .broker import RabbitMq
from .conftest import Names

DEADLINE_S = 30.0
QueueType = Literal["classic", "quorum"]


class FakeSink:
    """Applies what `decide` lets it. Away: every event fails so, until `come_back`."""

    def __init__(self) -> None:
        self.applied: Counter[bytes] = Counter()
        self.batches: list[int] = []
        self.noted: list[tuple[str, int | None]] = []
        self.holes: list[Gap] = []
        self.flushed: list[tuple[tuple[str, ...] | None, str]] = []
        self.known: set[str] = set()
        self.lost: set[str] = set()
        self.can_note = True
        self.can_flush = True
        self.delay_s = 0.0
        self.decide: Callable[[Event], Outcome] = lambda event: Applied(keys=len(event.keys))
        self._up = trio.Event()
        self._up.set()

    def leave(self) -> None:
        """Be away from now on."""
        self._up = trio.Event()

    def come_back(self) -> None:
        """Be there again."""
        self._up.set()

    async def apply(self, events: Sequence[Event]) -> list[Outcome]:
        """Decide on each."""
        await trio.sleep(self.delay_s)
        self.batches.append(len(events))
        outcomes = [self.decide(event) if self._up.is_set() else Failed("gone", is_away=True) for event in events]
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, Applied):
                self.applied.update(event.keys)
        return outcomes

    def breathe(self) -> None:
        """Have nobody to serve."""

    async def wait_up(self) -> None:
        """Wait for `come_back`."""
        await self._up.wait()

    async def note(self, events: Sequence[Event]) -> None:
        """Keep the numbers."""
        self.noted += [(event.publisher, event.seq) for event in events]

    async def take_holes(self) -> list[Gap]:
        """Give the holes away, once."""
        holes, self.holes = self.holes, []
        return holes

    async def flush(self, globs: Sequence[str] | None, reason: str) -> bool:
        """Keep what was asked, if it can be done."""
        if self.can_flush:
            self.flushed.append((None if globs is None else tuple(globs), reason))
        return self.can_flush

    async def queue_is_gone(self, queue: str) -> bool:
        """Note it, unless nobody can be told."""
        if self.can_note and queue in self.known:
            self.lost.add(queue)
        return self.can_note

    async def queue_owes(self, queue: str) -> bool | None:
        """Say whether it is noted, and remember the queue."""
        self.known.add(queue)
        return queue in self.lost

    async def queue_is_flushed(self, queue: str) -> None:
        """Forget the note."""
        self.lost.discard(queue)


async def nothing() -> None:
    """Do nothing."""


def settings(
    broker: RabbitMq,
    names: Names,
    *,
    prefetch: int = 100,
    retry: Retry = Retry(3, 0.05, 0.2),  # noqa: B008 - frozen
    delivery: Literal["shared", "broadcast"] = "shared",
    queue_type: QueueType = "classic",
    scopes: tuple[tuple[str, tuple[str, ...]], ...] = (),
    url: str = "",
) -> Amqp:
    """Return [amqp] for a broker."""
    return Amqp(
        urls=(parse_amqp_url(url or broker.url),),
        exchange=names.exchange,
        queue=names.queue,
        queue_type=queue_type,
        binding_keys=("#",),
        delivery=delivery,
        prefetch=prefetch,
        retry=retry,
        dead_letter_queue=names.dead,
        publish_changes=False,
        tls=TlsClient("", "", "", verify=True, min_version="1.2"),
        scopes=scopes,
    )


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def make_service(amqp: Amqp, sink: FakeSink) -> EventService:
    """Make a service that is not running yet."""
    return EventService(amqp, Mapper([]), sink, EventFigures(Histogram()), now_ms=now_ms)


@asynccontextmanager
async def running(service: EventService, *, is_up: bool = True) -> AsyncIterator[EventFigures]:
    """Run a service, with `is_up` from when its events come in; cancelled at the end, as a proxy does."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run)
        if is_up:
            await until(lambda: service.figures.state == "up", "the service is up")
        yield service.figures
        nursery.cancel_scope.cancel()


async def until(is_done: Callable[[], bool], what: str, *, timeout_s: float = DEADLINE_S) -> None:
    """Wait until something holds. Raises: AssertionError."""
    with trio.move_on_after(timeout_s):
        while not is_done():
            await trio.sleep(0.005)
        return
    raise AssertionError(f"not within {timeout_s} s: {what}")


@attrs.define
class Publisher:
    """A channel to the broker for the tests' own use, on its own connection."""

    connection: Connection
    channel: Channel
    names: Names

    async def publish(self, bodies: Iterable[bytes], *, routing_key: str = "t.x", **properties: Any) -> None:
        """Publish bodies, lasting, and wait until all are confirmed."""
        given = Basic.Properties(**({"delivery_mode": 2} | properties))
        refused = await self.channel.publish_all(
            [Outgoing(self.names.exchange, routing_key, body, given) for body in bodies]
        )
        assert not any(refused)

    async def drain(self, queue: str) -> list[Delivery]:
        """Take and acknowledge all that lies in a queue."""
        found = []
        while (delivery := await self.channel.get(queue)) is not None:
            self.channel.ack(delivery.tag)
            found.append(delivery)
        return found

    async def count(self, queue: str) -> int:
        """Return how many messages lie in a queue and are nobody's yet."""
        return (await self.channel.declare_queue(queue, passive=True)).messages

    async def until_empty(self, *queues: str) -> None:
        """Wait until queues have no message, taken or not."""
        with trio.fail_after(DEADLINE_S):
            while sum([await self.count(queue) for queue in queues]):
                await trio.sleep(0.02)


@asynccontextmanager
async def publisher(broker: RabbitMq, names: Names) -> AsyncIterator[Publisher]:
    """Connect to a broker as soon as it answers."""
    with trio.fail_after(DEADLINE_S):
        while True:
            try:
                async with _dialled(broker) as connection:
                    await (await connection.channel()).close()
                    break
            except AmqpError:
                await trio.sleep(0.05)
    async with _dialled(broker) as connection:
        yield Publisher(connection, await connection.channel(), names)


@asynccontextmanager
async def _dialled(broker: RabbitMq) -> AsyncIterator[Connection]:
    async with connect(parse_amqp_url(broker.url), context=None, name="tests", timeout_s=10.0) as connection:
        yield connection


def event(*keys: str, **more: Any) -> bytes:
    """Return the body of a native event."""
    return json.dumps({"keys": keys, **more}).encode()
