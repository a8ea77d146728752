"""Copies of events that failed, and the outbox that publishes them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from proxy.amqp import retry
from proxy.amqp.channel import Delivery
from proxy.amqp.consumer import Intake, Shared
from proxy.amqp.fields import read_properties, write_properties
from proxy.amqp.letters import read_letter
from proxy.amqp.retry import DUE, Origin, dead_copy, due_at_ms, origin_of, published, retry_copy
from proxy.config.model import Retry
from proxy.core.figures.stats import Histogram
from proxy.errors import ConnectionLostError
from proxy.events.event import Event
from proxy.events.figures import EventFigures
from proxy.events.mapping import Mapper
from proxy.events.sink import Applied, Failed, Outcome

from .broker import RabbitMq
from .conftest import Names
from .eventing import FakeSink, Publisher, event, make_service, now_ms, publisher, running, settings, until

# Older versions look at the one, newer ones at the other.
_LARGEST = "application:set_env(rabbit, max_message_size, {0}), persistent_term:put(max_message_size, {0})"


def delivered(exchange: str = "x", routing_key: str = "a.b", **properties: Any) -> Delivery:
    """Make a delivery."""
    return Delivery(1, False, exchange, routing_key, b"body", Basic.Properties(**properties))


def redelivered(copied: Any) -> Delivery:
    """Turn a copy into what the broker hands out for it."""
    properties = read_properties(write_properties(copied.properties), 0)
    return Delivery(2, False, copied.exchange, copied.routing_key, copied.body, properties)


def test_retry_copy_counts_and_says_when_it_is_due() -> None:
    """A copy says how often it was tried again, when it is due, why, and where it was published."""
    copied = retry_copy(delivered(), "q.retry", reason="why", delay_ms=500, now_ms=1_000_000)
    again = retry_copy(redelivered(copied), "q.retry2", reason="why", delay_ms=900, now_ms=2_000_000)

    assert ("", "q.retry", b"body", True) == (copied.exchange, copied.routing_key, copied.body, copied.mandatory)
    assert Origin("x", "a.b", 1) == origin_of(redelivered(copied))
    assert 1_000_500 == due_at_ms(redelivered(copied))
    assert Origin("x", "a.b", 2) == origin_of(redelivered(again))
    assert 2_000_900 == due_at_ms(redelivered(again))
    assert "a.b" == published(redelivered(again)).routing_key


def test_copy_of_names_that_are_no_utf8_knows_them_and_its_attempts() -> None:
    """The broker takes any bytes for a routing key: a rule finds it in a retry, and a letter is sent again by it."""
    copied = retry_copy(delivered("x\udcfe", "a.\udcff"), "q.retry", reason="why", delay_ms=500, now_ms=1)
    letter = read_letter(1, redelivered(copied))

    assert Origin("x\udcfe", "a.\udcff", 1) == origin_of(redelivered(copied))
    assert "a.\udcff" == published(redelivered(copied)).routing_key
    assert ("x\udcfe", "a.\udcff") == (letter.exchange, letter.message.routing_key)


def test_copy_keeps_properties_of_the_original() -> None:
    """Whoever looks at a dead letter finds what the publisher said of it."""
    when = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    given_: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "gzip",
        "correlation_id": "c",
        "reply_to": "r",
        "message_id": "m",
        "timestamp": when,
        "message_type": "t",
        "app_id": "a",
        "priority": 3,
    }
    headers: dict[str, Any] = {"n": 1, "list": [1, "a", None], "table": {"x": True}, "raw": b"\xff", "double": 0.1}

    found = redelivered(dead_copy(delivered(headers=headers, **given_), "dead", reason="why")).properties

    assert given_ == {name: getattr(found, name) for name in given_}
    assert headers == {name: (found.headers or {})[name] for name in headers}


def test_copy_drops_what_would_do_harm() -> None:
    """A copy does not expire, is no user's, lasts, goes to no further queues and has no history of the broker's."""
    headers = {"CC": ["other"], "BCC": ["other"], "x-death": [{}], "x-first-death-queue": "q", "x-delivery-count": 3}
    original = delivered(headers=headers, expiration="10", user_id="guest", delivery_mode=1)

    copied = dead_copy(original, "dead", reason="why").properties

    assert (None, None, 2) == (copied.expiration, copied.user_id, copied.delivery_mode)
    assert {"respite-reason", "respite-routing-key", "respite-exchange"} == set(copied.headers or {})
    assert original.properties.delivery_mode == 1


@pytest.mark.parametrize("headers", [{"big": "x" * 200_000}, {"odd": 1 << 70}, {"name" * 100: 1}])
def test_copy_of_headers_that_cannot_be_sent_has_ours_only(headers: dict[str, Any]) -> None:
    """Headers that no frame holds are left behind; the event is not."""
    copied = retry_copy(delivered(headers=headers, content_type="t"), "q", reason="w" * 10_000, delay_ms=1, now_ms=2)

    assert "t" == copied.properties.content_type
    assert {"attempt", "due-at-ms", "reason", "routing-key", "exchange"} == {
        name.removeprefix("respite-") for name in copied.properties.headers or {}
    }
    assert len(write_properties(copied.properties)) < 4000


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*retry._OURS, "CC", "a"]) | st.text(max_size=300), _VALUES, max_size=6))
def test_copy_of_any_headers_can_be_written(headers: dict[str, Any]) -> None:
    """Whatever a publisher put into the headers, also under our names: a copy can be sent, and read again."""
    for exchange in ("", "x"):
        delivery = delivered(exchange, headers=headers)
        due_at_ms(delivery)
        for copied in (
            retry_copy(delivery, "q", reason="r", delay_ms=1, now_ms=2),
            dead_copy(delivery, "q", reason="r"),
        ):
            assert origin_of(redelivered(copied)).routing_key == origin_of(delivery).routing_key


def test_origin_of_a_message_with_our_headers_through_an_exchange_is_where_it_came() -> None:
    """Only what comes through the default exchange can be a copy; an exchange's routing key is its own."""
    headers = {"respite-attempt": 9, "respite-routing-key": "other", "respite-exchange": "y"}

    assert Origin("x", "a.b", 0) == origin_of(delivered(headers=headers))


async def test_retry_waits_no_longer_than_its_delay_where_the_clock_is_set_back(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour back while some wait: none of them waits for that hour."""
    wall = [1_000_000]
    handled: list[tuple[float, int]] = []

    class Queue:
        async def receive(self, most: int) -> list[Delivery]:
            if handled:
                raise ConnectionLostError("it ends")
            due = [wall[0] + 500, wall[0] + 900]
            return [
                Delivery(tag, False, "", "q", b"", Basic.Properties(headers={DUE: at})) for tag, at in enumerate(due)
            ]

    async def handle(_: Intake, deliveries: Sequence[Delivery]) -> None:
        handled.extend((trio.current_time(), one.tag) for one in deliveries)
        wall[0] -= 3_600_000

    monkeypatch.setattr(Intake, "handle", handle)
    shared = Shared(Mapper(), FakeSink(), EventFigures(Histogram()), (1000,), lambda: wall[0], trio.current_time)
    intake = Intake(shared, cast("Any", None), cast("Any", None), cast("Any", None))
    began = trio.current_time()
    with pytest.raises(ConnectionLostError):
        await intake.run_when_due(cast("Any", Queue()), 10, 1000)

    assert [(0.5, 0), (1.5, 1)] == [(round(at - began, 3), tag) for at, tag in handled]


async def test_dead_letter_queue_deleted_is_made_again(rabbitmq: RabbitMq, names: Names) -> None:
    """A dead letter that finds no queue is kept until there is one, and the queue is declared anew."""
    async with (
        running(make_service(settings(rabbitmq, names), FakeSink())) as figures,
        publisher(rabbitmq, names) as broker,
    ):
        await broker.channel.delete_queue(names.dead)
        await broker.publish([b"garbage"])
        await until(lambda: figures.dead == 1, "it is buried")

        assert [b"garbage"] == [delivery.body for delivery in await broker.drain(names.dead)]


async def test_dead_letter_queue_full_keeps_the_original(rabbitmq: RabbitMq, names: Names) -> None:
    """A dead letter that the broker refuses stays in its queue, unacknowledged, and other events go on."""
    sink = FakeSink()
    service = make_service(settings(rabbitmq, names), sink)
    async with running(service) as figures, publisher(rabbitmq, names) as broker:
        rabbitmq.ctl(
            "set_policy", f"full-{names.dead}", f"^{names.dead}$", '{"max-length":0,"overflow":"reject-publish"}'
        )
        try:
            await broker.publish([b"garbage", event("k")])
            await until(lambda: figures.applied == 1, "the other one is applied")
            await trio.sleep(0.5)
            assert (0, 1) == (figures.dead, figures.waiting())
        finally:
            rabbitmq.ctl("clear_policy", f"full-{names.dead}")
        await until(lambda: figures.dead == 1, "it is buried")


async def test_right_to_the_default_exchange_that_is_lost_is_said(rabbitmq: RabbitMq, names: Names) -> None:
    """Copies go through it: without it events come in until as many have failed as may be under way."""
    rabbitmq.add_user("narrow", "secret")
    amqp = settings(rabbitmq, names, url=rabbitmq.url.replace("guest:guest", "narrow:secret"))
    async with running(make_service(amqp, FakeSink())) as figures, publisher(rabbitmq, names) as broker:
        rabbitmq.add_user("narrow", "secret", write=f"^({names.exchange}|{names.queue}).*$")
        await broker.publish([b"garbage"])
        await until(lambda: "cannot be put aside" in figures.why, "it is said")
        assert "write to the default exchange, amq.default" in figures.why
        rabbitmq.add_user("narrow", "secret")
        await until(lambda: figures.dead == 1, "it is a dead letter once it may be")
        await until(lambda: not figures.why, "that is seen")


async def test_copy_over_which_the_broker_closes_the_channel_is_left_to_the_broker(
    rabbitmq_own: RabbitMq, names: Names
) -> None:
    """A broker that takes only smaller messages than those in its queue has them moved; others go on meanwhile."""
    amqp = settings(rabbitmq_own, names, prefetch=10)
    async with running(make_service(amqp, FakeSink())):
        pass
    async with publisher(rabbitmq_own, names) as out:
        await out.publish([*(b"garbage" * 300 for _ in range(10)), b"small garbage", event("k")])
    before = rabbitmq_own.evaluate("{ok, Size} = application:get_env(rabbit, max_message_size), Size")
    try:
        rabbitmq_own.evaluate(_LARGEST.format(1000))
        sink = FakeSink()
        async with running(make_service(amqp, sink)) as figures, publisher(rabbitmq_own, names) as out:
            await until(lambda: sink.applied[b"k"] == 1, "the event is applied")
            await until(lambda: figures.dead == 11, "all garbage is a dead letter")
            await out.until_empty(names.queue)
            dead = await out.drain(names.dead)
    finally:
        rabbitmq_own.evaluate(_LARGEST.format(before))

    assert [b"garbage" * 300] * 10 + [b"small garbage"] == sorted((letter.body for letter in dead), key=len)[::-1]


async def test_broker_without_memory_delays_copies_and_nothing_else(rabbitmq_own: RabbitMq, names: Names) -> None:
    """While the broker takes no messages, events are applied and acknowledged; copies follow when it does again."""
    sink = FakeSink()
    service = make_service(settings(rabbitmq_own, names, prefetch=20), sink)
    async with publisher(rabbitmq_own, names) as broker:
        async with running(service):
            await broker.publish([b"opens the connection of the outbox"])
            await until(lambda: service.figures.dead == 1, "it is buried")
        await broker.publish([b"garbage", *(event(f"k{n}") for n in range(200))])
        await trio.to_thread.run_sync(rabbitmq_own.block)
        async with running(service) as figures:
            await until(lambda: figures.applied == 200, "all are applied")
            await until(lambda: figures.waiting() == 1, "and acknowledged")
            await until(lambda: figures.is_blocked, "and it shows")
            assert figures.dead == 1
            await trio.to_thread.run_sync(rabbitmq_own.unblock)
            await until(lambda: figures.dead == 2, "the copy is confirmed")
            await until(lambda: not figures.is_blocked, "and that shows too")


async def test_retry_queue_of_other_delays_drains_back(
    rabbitmq: RabbitMq, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a proxy of other delays has left behind goes back to the queue, and is not lost in one that nobody reads."""
    monkeypatch.setattr(retry, "_UNCLAIMED_MS", 300)
    sink = FakeSink()
    sink.decide = lambda _: Failed("no")
    before = settings(rabbitmq, names, retry=Retry(3, 5.0, 5.0))
    async with running(make_service(before, sink)) as figures, publisher(rabbitmq, names) as broker:
        await broker.publish([event("k")])
        await until(lambda: figures.retried == 1, "it is put aside")
    after = FakeSink()
    seen: list[Event] = []

    def decide(one: Event) -> Outcome:
        seen.append(one)
        return Applied()

    after.decide = decide
    async with running(make_service(attrs.evolve(before, retry=Retry(3, 0.1, 0.1)), after)) as figures:
        await until(lambda: figures.applied == 1, "it comes back")

    assert [(b"k",)] == [one.keys for one in seen]


async def test_retry_not_due_is_not_acknowledged_with_a_later_one(rabbitmq: RabbitMq, names: Names) -> None:
    """Of two that wait in a retry queue the second is due first: the first one is still there when that is done."""
    sink = FakeSink()
    amqp = settings(rabbitmq, names, retry=Retry(3, 60.0, 60.0))
    queue = f"{names.queue}.retry.60000ms"
    async with publisher(rabbitmq, names) as broker:
        async with running(make_service(amqp, sink)):
            pass
        for key, delay_ms in (("first", 60_000), ("second", 300), ("third", 0)):
            original = attrs.evolve(delivered(), body=event(key))
            copied = retry_copy(original, queue, reason="r", delay_ms=delay_ms, now_ms=now_ms())
            await broker.channel.publish("", queue, copied.body, copied.properties)
        async with running(make_service(amqp, sink)) as figures:
            await until(lambda: figures.applied == 2, "the others are done")
            await until(lambda: figures.waiting() == 1, "and acknowledged")
        await until_count(broker, queue, 1)

    assert not sink.applied[b"first"]


async def until_count(broker: Publisher, queue: str, count: int) -> None:
    """Wait until a queue has got back so many messages, and check that it has no more."""
    with trio.move_on_after(5.0):
        while await broker.count(queue) < count:
            await trio.sleep(0.05)
    assert count == await broker.count(queue)
