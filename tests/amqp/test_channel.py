"""proxy/amqp/channel.py with a real broker: queues, messages in and out, what the broker refuses."""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator

import pytest
import trio
from pamqp import commands

from proxy.amqp import deliveries
from proxy.amqp.channel import Channel, Delivery, Outgoing
from proxy.amqp.connection import Connection, connect
from proxy.errors import AmqpError, ChannelClosedError, ConsumerCancelledError, PublishRefusedError

from .broker import RabbitMq
from .conftest import Names
from .scripted_broker import endpoint_at

NOTHING = commands.Basic.Properties()


@pytest.fixture
async def connection(rabbitmq: RabbitMq) -> AsyncIterator[Connection]:
    """Connect to the broker of the run."""
    async with connect(endpoint_at(rabbitmq.port), context=None, name="test", timeout_s=10) as connection:
        yield connection


@pytest.fixture
async def channel(connection: Connection) -> Channel:
    """Open a channel."""
    return await connection.channel()


@pytest.fixture
async def queue(channel: Channel) -> str:
    """Declare a queue that goes with the connection."""
    return (await channel.declare_queue("", exclusive=True)).name


async def publish(channel: Channel, queue: str, *bodies: bytes) -> None:
    """Put messages into a queue."""
    outcomes = await channel.publish_all([Outgoing("", queue, body, NOTHING, mandatory=True) for body in bodies])
    assert not any(outcomes)


async def bodies_of(channel: Channel, queue: str) -> list[bytes]:
    """Take all messages out of a queue."""
    bodies = []
    while delivery := await channel.get(queue):
        bodies.append(delivery.body)
        channel.ack(delivery.tag)
    return bodies


async def test_message_arrives_as_it_was_sent(channel: Channel, queue: str, names: Names) -> None:
    """Body, routing key and every property come through."""
    properties = commands.Basic.Properties(
        content_type="application/json",
        headers={
            "text": "ü",
            "bytes": b"\xff\x00",
            "double": 0.1,
            "large": 1 << 40,
            "none": None,
            "yes": True,
            "list": [1, "two", {"three": 3.0}],
            "at": datetime.datetime(2026, 5, 6, tzinfo=datetime.UTC),
        },
        delivery_mode=2,
        priority=3,
        correlation_id="c",
        expiration="60000",
        message_id="m",
        timestamp=datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        app_id="a",
    )
    await channel.declare_exchange(names.exchange, durable=False)
    await channel.bind(queue, names.exchange, "user.*.changed")

    await channel.publish(names.exchange, "user.7.changed", b'{"keys": []}', properties, mandatory=True)
    found = await channel.get(queue)

    assert found is not None
    assert (found.body, found.exchange, found.routing_key) == (b'{"keys": []}', names.exchange, "user.7.changed")
    assert (found.redelivered, found.left, found.fault) == (False, 0, "")
    assert found.properties == properties


@pytest.mark.parametrize("size", [0, 1, 131063, 131064, 131065, 1_000_000])
async def test_body_of_any_size_arrives_whole(channel: Channel, queue: str, size: int) -> None:
    """Bodies are cut into frames and put together again, to the byte."""
    body = bytes(range(256)) * (size // 256 + 1)
    await publish(channel, queue, body[:size])

    assert await bodies_of(channel, queue) == [body[:size]]


async def test_get_of_empty_queue_is_none(channel: Channel, queue: str) -> None:
    """No message is no wait."""
    assert await channel.get(queue) is None


async def test_get_says_how_many_are_left(channel: Channel, queue: str) -> None:
    """What is left in the queue comes with each."""
    await publish(channel, queue, b"1", b"2", b"3")
    found = await channel.get(queue)

    assert found is not None
    assert found.left == 2


async def test_receive_returns_what_is_there_up_to_most(channel: Channel, queue: str) -> None:
    """Batches are what has come, in order, and never wait to be full."""
    await publish(channel, queue, *(b"%d" % number for number in range(5)))
    consumer = await channel.consume(queue)
    with trio.fail_after(5):
        while consumer.ready < 5:
            await trio.sleep(0.01)
    first, second = await consumer.receive(3), await consumer.receive(100)

    assert [one.body for one in first] == [b"0", b"1", b"2"]
    assert [one.body for one in second] == [b"3", b"4"]


async def test_qos_bounds_what_is_not_acknowledged(channel: Channel, queue: str) -> None:
    """No more come than are allowed, and each that is acknowledged makes room."""
    await publish(channel, queue, *(b"%d" % number for number in range(5)))
    await channel.qos(2)
    consumer = await channel.consume(queue)
    with trio.fail_after(5):
        while consumer.ready < 2:
            await trio.sleep(0.01)
    await channel.declare_queue(queue, passive=True)  # what could come has come
    held = consumer.ready
    found = await consumer.receive(100)
    channel.ack(found[-1].tag, multiple=True)
    more = await consumer.receive(100)

    assert (held, len(found)) == (2, 2)
    assert more[0].body == b"2"


async def test_acknowledged_messages_do_not_come_again(connection: Connection, channel: Channel, queue: str) -> None:
    """What is acknowledged with all before it is gone; the rest goes back, in order, when the channel closes."""
    await publish(channel, queue, b"1", b"2", b"3")
    other = await connection.channel()
    consumer = await other.consume(queue)
    found: list[Delivery] = []
    while len(found) < 3:
        found += await consumer.receive(10)
    other.ack(found[1].tag, multiple=True)
    await other.close()

    again = await channel.get(queue)
    assert again is not None
    assert (again.body, again.redelivered) == (b"3", True)


async def test_rejected_message_goes_to_dead_letters(channel: Channel, names: Names, queue: str) -> None:
    """Without requeue the broker moves it to where the queue says."""
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
    await channel.declare_queue(names.queue, exclusive=True, arguments=arguments)
    await publish(channel, names.queue, b"bad")
    found = await channel.get(names.queue)
    assert found is not None

    channel.nack(found.tag, requeue=False)

    with trio.fail_after(5):
        while not (bodies := await bodies_of(channel, queue)):
            await trio.sleep(0.01)
    assert bodies == [b"bad"]


async def test_cancelled_consumer_gives_back_what_nobody_received(channel: Channel, queue: str) -> None:
    """What waited at a consumer is in the queue again."""
    await publish(channel, queue, b"1", b"2", b"3")
    consumer = await channel.consume(queue)
    (first,) = await consumer.receive(1)
    channel.ack(first.tag)
    await consumer.cancel()
    await consumer.cancel()

    with pytest.raises(ConsumerCancelledError):
        await consumer.receive(1)
    with trio.fail_after(5):  # the broker counts before it takes back
        while (state := await channel.declare_queue(queue, passive=True)).messages < 2:
            await trio.sleep(0.01)
    assert (state.messages, state.consumers) == (2, 0)


async def test_deleted_queue_ends_consumer_after_its_last_message(
    connection: Connection, channel: Channel, queue: str
) -> None:
    """What had come is received first; then the consumer says that it was ended, and the channel goes on."""
    await publish(channel, queue, b"last")
    consumer = await channel.consume(queue)
    with trio.fail_after(5):
        while not consumer.ready:
            await trio.sleep(0.01)
    await (await connection.channel()).delete_queue(queue)
    (last,) = await consumer.receive(10)
    with trio.fail_after(5), pytest.raises(ConsumerCancelledError):
        await consumer.receive(10)

    assert last.body == b"last"
    assert (await channel.declare_queue("", exclusive=True)).messages == 0


async def test_missing_queue_closes_its_channel_only(connection: Connection, channel: Channel) -> None:
    """A 404 ends one channel; others go on, and its number can be used again."""
    other = await connection.channel()
    with pytest.raises(ChannelClosedError) as caught:
        await channel.declare_queue("no-such-queue", passive=True)
    with pytest.raises(ChannelClosedError):
        channel.ack(1)
    await channel.close()
    third = await connection.channel()

    assert caught.value.code == 404
    assert "no-such-queue" in str(caught.value)
    assert third.number == channel.number
    assert (await other.declare_queue("", exclusive=True)).messages == 0
    assert (await third.declare_queue("", exclusive=True)).messages == 0


async def test_queue_with_other_arguments_is_406(channel: Channel, names: Names) -> None:
    """The broker's words name the argument."""
    await channel.declare_queue(names.queue, exclusive=True)
    with pytest.raises(ChannelClosedError) as caught:
        await channel.declare_queue(names.queue, exclusive=True, arguments={"x-message-ttl": 5})

    assert caught.value.code == 406
    assert "x-message-ttl" in str(caught.value)


async def test_soft_error_reaches_consumers_and_publishers(channel: Channel, queue: str) -> None:
    """Everybody who waits on the channel gets its reason."""
    consumer = await channel.consume(queue)
    errors = []

    async def receive() -> None:
        try:
            await consumer.receive(1)
        except AmqpError as exc:
            errors.append(exc)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        with pytest.raises(ChannelClosedError):
            await channel.publish("no-such-exchange", "k", b"", NOTHING)

    assert [getattr(error, "code", None) for error in errors] == [404]


async def test_second_exclusive_consumer_is_refused(connection: Connection, channel: Channel, queue: str) -> None:
    """A queue with an exclusive consumer takes no other."""
    await channel.consume(queue, exclusive=True)
    with pytest.raises(ChannelClosedError) as caught:
        await (await connection.channel()).consume(queue)

    assert caught.value.code == 403


async def test_message_for_no_queue_is_refused(channel: Channel) -> None:
    """A mandatory message that would be lost raises, and the channel goes on."""
    with pytest.raises(PublishRefusedError, match="no queue takes the message"):
        await channel.publish("", "no-such-queue", b"x", NOTHING, mandatory=True)

    await channel.publish("", "no-such-queue", b"x", NOTHING)


async def test_publish_all_tells_each_outcome(channel: Channel, queue: str) -> None:
    """Of many, each has its own outcome: stored, without a queue, impossible to write."""
    unwritable = commands.Basic.Properties(headers={"a": object()})  # type: ignore[dict-item]
    outcomes = await channel.publish_all(
        [
            Outgoing("", queue, b"1", NOTHING, mandatory=True),
            Outgoing("", "no-such-queue", b"2", NOTHING, mandatory=True),
            Outgoing("", queue, b"3", unwritable, mandatory=True),
            Outgoing("", "k" * 256, b"4", NOTHING),
            Outgoing("", queue, b"5", commands.Basic.Properties(headers={"a": "x" * 140000})),
            Outgoing("", queue, b"6", NOTHING, mandatory=True),
        ]
    )

    assert [outcome is None for outcome in outcomes] == [True, False, False, False, False, True]
    assert "`headers` cannot be written" in str(outcomes[2])
    assert await bodies_of(channel, queue) == [b"1", b"6"]


async def test_many_messages_are_published_in_one_go(channel: Channel, queue: str) -> None:
    """More messages than may be unconfirmed at once all arrive, in order."""
    bodies = [b"%d" % number for number in range(3000)]
    await publish(channel, queue, *bodies)
    consumer = await channel.consume(queue)
    found: list[bytes] = []
    with trio.fail_after(30):
        while len(found) < len(bodies):
            found += [one.body for one in await consumer.receive(1000)]

    assert found == bodies


async def test_too_large_message_is_refused_here(channel: Channel, queue: str) -> None:
    """What nobody would take is not sent."""
    with pytest.raises(PublishRefusedError, match="is the most"):
        await channel.publish("", queue, bytes(deliveries.MAX_BODY_BYTES + 1), NOTHING)


async def test_too_large_delivery_goes_to_dead_letters(
    channel: Channel, names: Names, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer never hands out what is too large: it is rejected and counted, and what follows comes."""
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
    await channel.declare_queue(names.queue, exclusive=True, arguments=arguments)
    await publish(channel, names.queue, bytes(300_000), b"small")
    monkeypatch.setattr(deliveries, "MAX_BODY_BYTES", 1000)
    consumer = await channel.consume(names.queue)
    (small,) = await consumer.receive(10)
    with trio.fail_after(5):
        while not (dead := await channel.get(queue)):
            await trio.sleep(0.01)

    assert small.body == b"small"
    assert consumer.refused == 1
    assert "300000 bytes" in consumer.refusal
    assert (dead.body, "300000 bytes" in dead.fault) == (b"", True)


async def test_purge_says_how_many_went(channel: Channel, queue: str) -> None:
    """A purged queue is empty."""
    await publish(channel, queue, b"1", b"2")

    assert await channel.purge(queue) == 2
    assert await channel.get(queue) is None


@pytest.mark.parametrize("suffix", ["|{}~", "é", "x" * 200])
async def test_any_name_that_broker_allows_can_be_used(channel: Channel, names: Names, suffix: str) -> None:
    """Names are the broker's matter."""
    name = names.queue + suffix
    await channel.declare_exchange(name, durable=False)
    state = await channel.declare_queue(name, durable=False)
    await channel.bind(name, name, "k")
    await channel.publish(name, "k", b"x", NOTHING, mandatory=True)
    await channel.purge(name)
    await channel.delete_queue(name)

    assert state.name == name


async def test_name_that_is_too_long_is_our_error(channel: Channel, queue: str) -> None:
    """What AMQP cannot hold raises and leaves the channel as it was."""
    with pytest.raises(AmqpError, match=r"Queue\.Declare cannot be written"):
        await channel.declare_queue("x" * 256)

    assert (await channel.declare_queue(queue, passive=True)).name == queue


async def test_routing_key_that_is_no_text_comes_through(channel: Channel, names: Names, queue: str) -> None:
    """Bytes that are no UTF-8 neither end the connection nor change."""
    await channel.declare_exchange(names.exchange, durable=False)
    await channel.bind(queue, names.exchange, "#")
    await channel.publish(names.exchange, "a.\udcff", b"x", NOTHING, mandatory=True)
    found = await channel.get(queue)

    assert found is not None
    assert found.routing_key.encode("utf-8", "surrogateescape") == b"a.\xff"


async def test_channel_closes_and_gives_back(connection: Connection, queue: str) -> None:
    """After a close every call says so; closing twice does nothing."""
    other = await connection.channel()
    consumer = await other.consume(queue)
    await other.close()
    await other.close()

    with pytest.raises(ChannelClosedError, match="the channel was closed"):
        await other.declare_queue(queue, passive=True)
    with pytest.raises(ChannelClosedError):
        await consumer.receive(1)
