"""From deliveries to outcomes: a batch is mapped, applied, and each delivery settled by what became of it.

    delivery --mapper--> event --sink.apply--> Applied ----------------> ack
        |                        ^    |------> away: wait_up, again; nothing is burnt
        |                        |    '------> failed: a copy in a retry queue ------> ack
        '-- not understood       '-- due --'   failed for good: a copy in the dead letters --> ack

Owns the order of these steps, and which tags are outstanding. A delivery is acknowledged when its event is applied in
both tiers, or when the copy is confirmed, never before. Keeps no order among events: the sink goes by versions.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

import attrs
import trio

from proxy.amqp.channel import Channel
from proxy.amqp.deliveries import Consumer, Delivery
from proxy.amqp.retry import Outbox, dead_copy, due_at_ms, origin_of, published, retry_copy
from proxy.amqp.topology import Topology
from proxy.errors import AmqpError, RemoteError
from proxy.events.event import Event, EventError
from proxy.events.figures import EventFigures
from proxy.events.message import Message
from proxy.events.sink import Applied, Failed, Outcome, Sink
from proxy.log import get_logger

MOST: Final = 50
"""Events in one batch: few enough that none of them waits long for the others."""
_BREATHE_EVERY: Final = 8  # messages mapped before clients that wait are served
_PAUSE_EVERY_BYTES: Final = 64 << 10  # .. and before all others on this loop get their turn; or every 32 messages
_PAUSE_EVERY: Final = 32
_FIRST_HOLD_S: Final = 0.02
_LONGEST_HOLD_S: Final = 0.5
log = get_logger("events")


class Maps(Protocol):
    """Says what a message means; `events.mapping.Mapper` does."""

    def map(self, message: Message) -> Event:
        """Return the event. Raises EventError."""
        ...


@attrs.define
class Shared:
    """What all consumers of a service share. `mapper` may be replaced while they run."""

    mapper: Maps
    sink: Sink
    figures: EventFigures
    delays_ms: Sequence[int]
    """The nominal delay before each retry."""
    now_ms: Callable[[], int]
    """Milliseconds since 1970."""
    clock: Callable[[], float]
    """Seconds that only rise."""
    random: random.Random = attrs.field(factory=random.Random)
    last_note: float = -1e9
    """When something about single events was logged last, by `clock`: a flood of them is one line in ten seconds."""
    has_transient: bool = False
    """A message came that does not outlive the broker."""


class Acks:
    """The deliveries of a channel that are not acknowledged, by tag, with when each was published, in ms since 1970.

    All that came has to be in `pending`, in the order in which it came: an acknowledgement of a run takes in whatever
    came before its last tag, and what is missing here would be lost with it.
    """

    def __init__(self, channel: Channel) -> None:
        self.pending: dict[int, int] = {}
        self._channel = channel

    def done(self, tags: Iterable[int]) -> None:
        """Acknowledge, with one frame what is a whole run from the oldest outstanding on. Unknown tags are let be."""
        wanted = sorted(tag for tag in tags if tag in self.pending)
        left = set(wanted)
        run = 0
        for tag in self.pending:  # in the order of delivery
            if tag not in left:
                break
            run = tag
        # On a connection that is lost there is nobody to tell: they will come again.
        with contextlib.suppress(AmqpError):
            if run:
                self._channel.ack(run, multiple=True)
            for tag in wanted:
                del self.pending[tag]
                if tag > run:
                    self._channel.ack(tag)

    def reject(self, tag: int) -> None:
        """Leave one to the broker, which moves it to where its queue has dead letters."""
        with contextlib.suppress(AmqpError):
            self._channel.nack(tag, requeue=False)
            self.pending.pop(tag, None)


@attrs.define
class _Mapped:
    delivery: Delivery
    event: Event
    at_ms: int | None


class Intake:
    """Takes in what comes from one queue, on a channel of its own."""

    def __init__(self, shared: Shared, channel: Channel, topology: Topology, outbox: Outbox) -> None:
        self.acks = Acks(channel)
        self._shared = shared
        self._topology = topology
        self._outbox = outbox

    async def run(self, consumer: Consumer, most: int) -> None:
        """Settle what comes, `most` at a time, until the consumer ends: raises AmqpError."""
        with self._watched():
            refused = 0
            while True:
                deliveries = await self._receive(consumer, most)
                if consumer.refused > refused:
                    self._count_refused(consumer.refused - refused, consumer.refusal)
                    refused = consumer.refused
                await self.handle(deliveries)

    async def run_when_due(self, consumer: Consumer, most: int, longest_ms: int) -> None:
        """Settle what comes once it is due; none waits longer than `longest_ms`, whatever its header says."""
        now_ms = self._shared.now_ms
        with self._watched():
            while True:
                deliveries = await self._receive(consumer, most)
                last = now_ms() + longest_ms  # the clock of who put it there may be another
                waiting = sorted(((min(due_at_ms(one), last), one) for one in deliveries), key=lambda one: one[0])
                while waiting:
                    if (wait_ms := min(waiting[0][0] - now_ms(), longest_ms)) > 0:  # our own clock may be set back
                        await trio.sleep(wait_ms / 1000)
                    now = max(now_ms(), waiting[0][0])
                    due = [one for at, one in waiting if at <= now]
                    del waiting[: len(due)]
                    await self.handle(due)

    async def _receive(self, consumer: Consumer, most: int) -> list[Delivery]:
        """Receive, and take note of all before any is settled."""
        deliveries = await consumer.receive(most)
        now_ms = self._shared.now_ms()
        for delivery in deliveries:
            self.acks.pending[delivery.tag] = now_ms
        return deliveries

    async def handle(self, deliveries: Sequence[Delivery]) -> None:
        """Settle deliveries that are pending; where a copy is under way, later. Cancelled, it leaves them unsettled."""
        todo = await self._mapped(deliveries)
        pause_s = _FIRST_HOLD_S
        while todo:
            outcomes = await self._applied([one.event for one in todo])
            away: list[_Mapped] = []
            settled: list[tuple[_Mapped, Applied | Failed]] = []
            why = ""
            for one, outcome in zip(todo, outcomes, strict=True):
                if isinstance(outcome, Failed) and outcome.is_away:
                    away.append(one)
                    why = outcome.reason
                else:
                    settled.append((one, outcome))
            await self._settle(settled)
            todo = away
            if away:
                await self._hold(why, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_HOLD_S)

    async def _mapped(self, deliveries: Sequence[Delivery]) -> list[_Mapped]:
        shared, figures = self._shared, self._shared.figures
        mapped = []
        size = 0
        for number, delivery in enumerate(deliveries, 1):
            message = published(delivery)
            if message.published_at_ms is not None:
                self.acks.pending[delivery.tag] = message.published_at_ms
            if delivery.redelivered:
                figures.redelivered += 1
            elif delivery.exchange or not origin_of(delivery).attempt:
                figures.received += 1
            shared.has_transient |= delivery.properties.delivery_mode != 2
            try:
                event = shared.mapper.map(message)
            except EventError as exc:
                self._bury(delivery, str(exc), is_garbage=True)
            except Exception as exc:
                log.exception("a message broke the mapping", routing_key=message.routing_key[:100])
                self._bury(delivery, f"the mapping failed: {type(exc).__name__}: {exc}", is_garbage=True)
            else:
                at_ms = message.published_at_ms if event.at_ms is None else event.at_ms
                mapped.append(_Mapped(delivery, event, at_ms))
            size += len(delivery.body)
            if number % _BREATHE_EVERY == 0:
                shared.sink.breathe()
            if number % _PAUSE_EVERY == 0 or size >= _PAUSE_EVERY_BYTES:
                size = 0
                await trio.lowlevel.checkpoint()
        return mapped

    async def _applied(self, events: Sequence[Event]) -> list[Outcome]:
        """Return one outcome an event, also of a sink that breaks its word: then of each by itself."""
        try:
            outcomes = await self._shared.sink.apply(events)
            if len(outcomes) != len(events):
                raise RuntimeError(f"{len(outcomes)} outcomes of {len(events)} events")
            return outcomes
        except RemoteError as exc:
            return [Failed(str(exc), is_away=True) for _ in events]
        except Exception as exc:
            if len(events) > 1:
                return [outcome for event in events for outcome in await self._applied([event])]
            log.exception("an event broke the sink")
            return [Failed(f"{type(exc).__name__}: {exc}")]

    async def _settle(self, settled: Sequence[tuple[_Mapped, Applied | Failed]]) -> None:
        now_ms = self._shared.now_ms()
        for one, outcome in settled:
            if isinstance(outcome, Applied):
                self._count(one, outcome, now_ms)
        numbered = [one.event for one, _ in settled if one.event.publisher and one.event.seq is not None]
        if numbered:
            try:
                await self._shared.sink.note(numbered)
            except RemoteError as exc:  # what is not noted looks like a hole, and more is dropped than need be
                log.debug("numbers are not noted", why=str(exc))
            except Exception:
                log.exception("numbers are not noted")
        self.acks.done(one.delivery.tag for one, outcome in settled if isinstance(outcome, Applied))
        for one, outcome in settled:
            if isinstance(outcome, Failed):
                self._put_aside(one.delivery, outcome)

    def _count(self, one: _Mapped, outcome: Applied, now_ms: int) -> None:
        figures = self._shared.figures
        figures.applied += 1
        figures.ignored_old += outcome.is_old
        figures.keys += outcome.keys
        figures.entries += outcome.entries
        figures.fences += outcome.fences
        if one.at_ms is not None:
            figures.lag.add(max(now_ms - one.at_ms, 0) / 1000)

    def _put_aside(self, delivery: Delivery, failed: Failed) -> None:
        shared = self._shared
        attempt = origin_of(delivery).attempt
        delays_ms = shared.delays_ms if attempt < len(shared.delays_ms) or failed.is_short else ()
        if failed.is_final or not delays_ms:
            self._bury(delivery, failed.reason, is_garbage=False)
            return
        nominal_ms = delays_ms[min(attempt, len(delays_ms) - 1)]
        delay_ms = round(nominal_ms * (0.75 + shared.random.random() / 4))
        queue = self._topology.retry_queue(nominal_ms)
        copied = retry_copy(delivery, queue, reason=failed.reason, delay_ms=delay_ms, now_ms=shared.now_ms())

        def done() -> None:
            shared.figures.retried += 1
            self.acks.done((delivery.tag,))

        self._note("an event failed and is tried again", reason=failed.reason, attempt=attempt + 1)
        self._outbox.put(copied, done, lambda why: self._reject(delivery, why))

    def _bury(self, delivery: Delivery, reason: str, *, is_garbage: bool) -> None:
        def done() -> None:
            self._count_dead(is_garbage=is_garbage)
            self.acks.done((delivery.tag,))

        self._note("an event goes to the dead letters", reason=reason, routing_key=origin_of(delivery).routing_key)
        copied = dead_copy(delivery, self._topology.dead_letter_queue, reason=reason)
        self._outbox.put(copied, done, lambda why: self._reject(delivery, why, is_garbage=is_garbage))

    def _reject(self, delivery: Delivery, why: str, *, is_garbage: bool = False) -> None:
        log.warning("the broker takes no copy of an event; it is to move it to the dead letters itself", why=why)
        self._count_dead(is_garbage=is_garbage)
        self.acks.reject(delivery.tag)

    def _count_dead(self, *, is_garbage: bool) -> None:
        figures = self._shared.figures
        figures.dead += 1
        figures.garbage += is_garbage
        figures.failed += not is_garbage

    def _count_refused(self, count: int, why: str) -> None:
        figures = self._shared.figures
        figures.received += count
        figures.dead += count
        figures.garbage += count
        self._note("the broker moves messages to the dead letters", reason=why, count=count)

    def _note(self, what: str, *, reason: str, **facts: object) -> None:
        now = self._shared.clock()
        if now - self._shared.last_note >= 10:
            self._shared.last_note = now
            log.warning(what, reason=reason[:200], **facts)

    async def _hold(self, why: str, pause_s: float) -> None:
        """Wait until Redis is there; the pause is for one that says so and is not."""
        figures, clock = self._shared.figures, self._shared.clock
        if figures.hold(clock()):
            log.warning("events wait: Redis is away", why=why)
        try:
            await trio.sleep(pause_s)
            await self._shared.sink.wait_up()
        finally:
            if figures.release(clock()):
                log.info("events go on")

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self._shared.figures.watch(self.acks.pending)
        try:
            yield
        finally:
            self._shared.figures.unwatch(self.acks.pending)
