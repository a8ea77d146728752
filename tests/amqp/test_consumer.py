"""What becomes of deliveries: when they are acknowledged, tried again, buried or held."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import cast

import pytest
import trio

from proxy.amqp.channel import Channel
from proxy.amqp.consumer import Acks
from proxy.config.model import Retry
from proxy.errors import ConnectionLostError, RemoteError
from proxy.events.event import Event
from proxy.events.message import Message
from proxy.events.sink import Applied, Failed, Outcome

from .broker import RabbitMq
from .conftest import Names
from .eventing import FakeSink, event, make_service, now_ms, publisher, running, settings, until


class FakeChannel:
    """Keeps the acknowledgements, and judges them as a broker does: a tag that is not outstanding is an error."""

    def __init__(self, tags: Sequence[int]) -> None:
        self.outstanding = list(tags)
        self.frames: list[tuple[int, bool]] = []

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Take one."""
        assert tag in self.outstanding
        self.frames.append((tag, multiple))
        self.outstanding = [one for one in self.outstanding if (one > tag if multiple else one != tag)]


def acks_of(*tags: int) -> tuple[Acks, FakeChannel]:
    """Make acknowledgements for deliveries that came in this order."""
    channel = FakeChannel(tags)
    acks = Acks(cast("Channel", channel))
    acks.pending.update(dict.fromkeys(tags, 0))
    return acks, channel


def test_acks_whole_run_is_one_frame() -> None:
    """All that came first is acknowledged at once."""
    acks, channel = acks_of(1, 2, 3, 4)

    acks.done([3, 1, 2])

    assert [(3, True)] == channel.frames


def test_acks_behind_one_outstanding_go_singly() -> None:
    """What came after one that is not done is not acknowledged together with it."""
    acks, channel = acks_of(1, 2, 3, 4)

    acks.done([1, 3, 4])
    acks.done([2])

    assert [(1, True), (3, False), (4, False), (2, True)] == channel.frames


@pytest.mark.parametrize("seed", range(30))
def test_acks_random_order_acknowledges_exactly_what_is_done(seed: int) -> None:
    """In whatever order and groups deliveries are done, no other one is acknowledged and none twice."""
    chance = random.Random(seed)
    tags = list(range(1, 60))
    acks, channel = acks_of(*tags)
    left = set(tags)
    chance.shuffle(tags)
    while tags:
        group = [tags.pop() for _ in range(min(chance.randint(1, 9), len(tags)))]
        left -= set(group)
        acks.done([*group, 1000])

        assert left == set(channel.outstanding) == set(acks.pending)


def test_acks_lost_connection_forgets_them() -> None:
    """On a connection that is lost nobody is told, and nothing is raised."""

    class Lost(FakeChannel):
        def ack(self, tag: int, *, multiple: bool = False) -> None:
            raise ConnectionLostError("gone")

    Acks(cast("Channel", Lost([]))).done([1])
    acks = Acks(cast("Channel", Lost([1])))
    acks.pending[1] = 0

    acks.done([1])


async def test_event_applied_is_acknowledged_and_counted(rabbitmq: RabbitMq, names: Names) -> None:
    """What is applied is gone from the broker for good, and shows in the figures."""
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        at_ms = now_ms() - 2000
        await broker.publish([event(f"k{n}") for n in range(500)], headers={"timestamp_in_ms": at_ms})
        await until(lambda: len(sink.applied) == 500, "all are applied")
        await until(lambda: figures.waiting() == 0, "all are acknowledged")
    async with publisher(rabbitmq, names) as broker:
        assert await broker.count(names.queue) == 0

    assert (500, 500, 0, 0) == (figures.received, figures.applied, figures.retried, figures.dead)
    assert figures.keys == 500
    assert figures.lag.count == 500
    assert figures.lag.quantile_us(0.5) > 1.7e6


async def test_event_not_applied_yet_is_not_acknowledged(rabbitmq: RabbitMq, names: Names) -> None:
    """A proxy that ends while the sink is at work leaves the events to the next one."""
    slow = FakeSink()
    slow.delay_s = 60.0
    async with running(make_service(settings(rabbitmq, names), slow)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event(f"k{n}") for n in range(20)])
        await until(lambda: figures.waiting() > 0, "they have come")
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names), sink)):
        await until(lambda: len(sink.applied) == 20, "the next one applies them")


async def test_event_too_old_counts_as_ignored(rabbitmq: RabbitMq, names: Names) -> None:
    """An event that is older than all it names is done, and counted as such."""
    sink = FakeSink()
    sink.decide = lambda _: Applied(is_old=True)
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("k")])
        await until(lambda: figures.applied == 1, "it is done")

        assert figures.ignored_old == 1


async def test_garbage_goes_to_the_dead_letters_with_the_reason(rabbitmq: RabbitMq, names: Names) -> None:
    """What cannot be understood is kept for people, with why and where it was published, and no event waits for it."""
    sink = FakeSink()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([b"\xff{", event("k"), b"[]"], routing_key="t.a", message_id="m", headers={"own": 7})
        await until(lambda: figures.dead == 2, "both are buried")
        dead = await broker.drain(names.dead)

    assert 1 == sink.applied[b"k"]
    assert [b"[]", b"\xff{"] == sorted(delivery.body for delivery in dead)
    for delivery in dead:
        headers = dict(delivery.properties.headers or {})
        assert headers.pop("respite-reason")
        assert {"own": 7, "respite-routing-key": "t.a", "respite-exchange": names.exchange} == headers
        assert ("m", 2) == (delivery.properties.message_id, delivery.properties.delivery_mode)
    assert (2, 0, 0.0) == (figures.garbage, figures.failed, figures.sync_errors)


async def test_mapping_that_breaks_costs_its_message_only(rabbitmq: RabbitMq, names: Names) -> None:
    """A mistake of ours in the mapping buries the message that found it; the others are applied."""
    sink = FakeSink()
    service = make_service(settings(rabbitmq, names), sink)
    good = service.mapper

    class Breaking:
        def map(self, message: Message) -> Event:
            if b"bad" in message.body:
                raise ZeroDivisionError("no")
            return good.map(message)

    service.mapper = Breaking()
    async with running(service) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("bad"), event("k")])
        await until(lambda: figures.dead == 1 and figures.applied == 1, "both are settled")
        (dead,) = await broker.drain(names.dead)

    assert "ZeroDivisionError" in str((dead.properties.headers or {})["respite-reason"])


async def test_failed_is_tried_again_and_then_done(rabbitmq: RabbitMq, names: Names) -> None:
    """An event that fails twice waits in retry queues, longer each time, and is applied the third time."""
    sink = FakeSink()
    seen: list[float] = []

    def decide(one: Event) -> Outcome:
        seen.append(trio.current_time())
        return Applied() if len(seen) == 3 else Failed("not now")

    sink.decide = decide
    amqp = settings(rabbitmq, names, retry=Retry(3, 0.1, 10.0))
    async with running(make_service(amqp, sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("k", publisher="p", seq=4)], routing_key="t.y")
        await until(lambda: figures.applied == 1, "it is applied")
        await until(lambda: figures.waiting() == 0, "nothing is left")

    assert (2, 0) == (figures.retried, figures.dead)
    assert 0.07 < seen[1] - seen[0] < 0.6
    assert 0.145 < seen[2] - seen[1] < 0.8
    assert [("p", 4)] * 3 == sink.noted
    assert figures.received == 1


async def test_failed_too_often_is_a_dead_letter(rabbitmq: RabbitMq, names: Names) -> None:
    """After the last retry an event is kept for people, with how often it was tried and why; a sync error."""
    sink = FakeSink()
    tries: list[Event] = []

    def decide(one: Event) -> Outcome:
        tries.append(one)
        return Failed("no luck")

    sink.decide = decide
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("k")], routing_key="t.z")
        await until(lambda: figures.dead == 1, "it is buried")
        (dead,) = await broker.drain(names.dead)

    headers = dead.properties.headers or {}
    assert len(tries) == 4
    assert ("no luck", 3, "t.z") == tuple(headers[f"respite-{name}"] for name in ("reason", "attempt", "routing-key"))
    assert dead.properties.expiration is None
    assert (3, 1, 0, 1.0) == (figures.retried, figures.failed, figures.garbage, figures.sync_errors)


async def test_failed_for_lack_of_memory_is_tried_until_there_is_some(rabbitmq: RabbitMq, names: Names) -> None:
    """More often than others, behind nobody's back: what frees memory comes meanwhile."""
    sink = FakeSink()
    tries: list[bytes] = []

    def decide(event: Event) -> Outcome:
        tries.extend(event.patterns)
        return Failed("OOM", is_short=True) if event.patterns and len(tries) < 6 else Applied()

    sink.decide = decide
    service = make_service(settings(rabbitmq, names, retry=Retry(2, 0.02, 0.1)), sink)
    async with running(service) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([b'{"patterns": ["p:*"]}', event("k")])
        await until(lambda: sink.applied[b"k"] == 1, "the other one is applied")
        await until(lambda: figures.applied == 2, "it is applied, too")

    assert (6, 5, 0) == (len(tries), figures.retried, figures.dead)


async def test_failed_finally_is_a_dead_letter_at_once(rabbitmq: RabbitMq, names: Names) -> None:
    """What trying again cannot help is not tried again."""
    sink = FakeSink()
    sink.decide = lambda _: Failed("never", is_final=True)
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("k")])
        await until(lambda: figures.dead == 1, "it is buried")

    assert (0, 1) == (figures.retried, figures.failed)


async def test_retries_zero_buries_at_once(rabbitmq: RabbitMq, names: Names) -> None:
    """With no attempts a failed event is a dead letter."""
    sink = FakeSink()
    sink.decide = lambda _: Failed("no")
    amqp = settings(rabbitmq, names, retry=Retry(0, 1.0, 1.0))
    async with running(make_service(amqp, sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("k")])
        await until(lambda: figures.dead == 1, "it is buried")


async def test_away_holds_without_burning_attempts(rabbitmq: RabbitMq, names: Names) -> None:
    """While Redis is away events wait; none is put aside, and all are applied when it is back."""
    sink = FakeSink()
    sink.leave()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event(f"k{n}") for n in range(300)])
        await until(lambda: figures.waiting() > 0, "some have come")
        await trio.sleep(0.5)
        assert not sink.applied
        sink.come_back()
        await until(lambda: len(sink.applied) == 300, "all are applied", timeout_s=2.0)

    assert (0, 0) == (figures.retried, figures.dead)
    assert figures.held_s(trio.current_time()) > 0.4


async def test_away_in_the_middle_of_a_batch_repeats_only_the_rest(rabbitmq: RabbitMq, names: Names) -> None:
    """Of a batch that was half applied when Redis went, the other half waits."""
    sink = FakeSink()
    tries: list[bytes] = []

    def decide(one: Event) -> Outcome:
        tries.append(one.keys[0])
        first_time = tries.count(one.keys[0]) == 1
        return Failed("gone", is_away=True) if one.keys[0].endswith(b"1") and first_time else Applied()

    sink.decide = decide
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event(f"k{n}") for n in range(20)])
        await until(lambda: figures.applied == 20, "all are applied")

    assert len(tries) == 22


@pytest.mark.parametrize("error", [RemoteError("lost"), ValueError("odd")])
async def test_sink_that_raises_loses_nothing(rabbitmq: RabbitMq, names: Names, error: Exception) -> None:
    """A sink that breaks its word on one event is asked for each by itself, and that one is tried again."""
    sink = FakeSink()
    broken: list[Event] = []

    def decide(one: Event) -> Outcome:
        if one.keys == (b"bad",) and len(broken) < 3:
            broken.append(one)
            raise error
        return Applied()

    sink.decide = decide
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("a"), event("bad"), event("c")])
        await until(lambda: figures.applied == 3, "all are applied")

    assert figures.dead == 0


async def test_numbers_are_noted_of_events_that_have_them(rabbitmq: RabbitMq, names: Names) -> None:
    """The sink is told the numbers of publishers, of failed events too."""
    sink = FakeSink()
    sink.decide = lambda one: Failed("no", is_final=True) if one.seq == 2 else Applied()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("a", publisher="p", seq=1), event("b"), event("c", publisher="p", seq=2)])
        await until(lambda: figures.applied + figures.dead == 3, "all are settled")

    assert [("p", 1), ("p", 2)] == sorted(sink.noted, key=str)


@pytest.mark.parametrize("prefetch", [1, 2, 1000])
async def test_prefetch_bounds_what_is_under_way(rabbitmq: RabbitMq, names: Names, prefetch: int) -> None:
    """Batches are no larger than half the prefetch, nor than 200, and everything gets through."""
    sink = FakeSink()
    amqp = settings(rabbitmq, names, prefetch=prefetch)
    async with publisher(rabbitmq, names) as broker:
        async with running(make_service(amqp, sink)):
            pass
        await broker.publish([event(f"k{n}") for n in range(600)])
        async with running(make_service(amqp, sink)):
            await until(lambda: len(sink.applied) == 600, "all are applied")

    assert max(sink.batches) <= max(min(prefetch // 2, 200), 1)


async def test_oldest_is_the_age_of_what_waits(rabbitmq: RabbitMq, names: Names) -> None:
    """The age of the oldest event under way counts from its publishing, and is nothing when all are done."""
    sink = FakeSink()
    sink.leave()
    async with running(make_service(settings(rabbitmq, names), sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("k")], headers={"timestamp_in_ms": now_ms() - 5000})
        await until(lambda: figures.waiting() == 1, "it has come")
        assert 5.0 <= figures.oldest_s(now_ms()) < 10.0
        sink.come_back()
        await until(lambda: figures.waiting() == 0, "it is done")
        assert figures.oldest_s(now_ms()) == 0.0
