"""What is declared on the broker, and what is said when something else is there."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from proxy.amqp.topology import TopologyError, declare, delays_ms, explained, plan
from proxy.config.model import Retry
from proxy.errors import ChannelClosedError

from .broker import RabbitMq
from .conftest import Names
from .eventing import QueueType, nothing, publisher, settings


def test_delays_double_up_to_the_longest(rabbitmq: RabbitMq, names: Names) -> None:
    """Each retry waits twice as long as the one before, the last ones the longest time there is."""
    assert (1000, 2000, 4000, 5000, 5000) == delays_ms(settings(rabbitmq, names, retry=Retry(5, 1.0, 5.0)))


def test_delays_of_many_attempts_stay_finite(rabbitmq: RabbitMq, names: Names) -> None:
    """A retry that nobody will live to see has a delay, and no new queue."""
    amqp = settings(rabbitmq, names, retry=Retry(10_000, 0.001, 30.0))

    assert 10_000 == len(delays_ms(amqp))
    assert 16 == len(plan(amqp, "").retry_queues)


def test_plan_shared_has_a_retry_queue_a_delay(rabbitmq: RabbitMq, names: Names) -> None:
    """The names say what waits there, and for how long."""
    topology = plan(settings(rabbitmq, names, retry=Retry(5, 1.0, 2.0)), "token")

    assert (names.queue, False) == (topology.queue, topology.is_own)
    assert {1000: f"{names.queue}.retry.1000ms", 2000: f"{names.queue}.retry.2000ms"} == topology.retry_queues


def test_plan_broadcast_names_queues_of_the_connection(rabbitmq: RabbitMq, names: Names) -> None:
    """Every connection has a queue and retry queues that no other one has."""
    topology = plan(settings(rabbitmq, names, delivery="broadcast", retry=Retry(1, 1.0, 1.0)), "a1")

    assert (f"{names.queue}.a1", True) == (topology.queue, topology.is_own)
    assert {1000: f"{names.queue}.a1.retry.1000ms"} == topology.retry_queues


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_declare_says_that_it_makes_the_queue(rabbitmq: RabbitMq, names: Names, queue_type: QueueType) -> None:
    """Before it does, and only who makes it is told; declaring again changes nothing."""
    amqp = settings(rabbitmq, names, queue_type=queue_type)
    told: list[bool] = []
    async with publisher(rabbitmq, names) as broker, publisher(rabbitmq, names) as other:

        async def before_making() -> None:
            with pytest.raises(ChannelClosedError):
                await other.channel.declare_queue(names.queue, passive=True)
            told.append(True)

        await declare(broker.connection, amqp, plan(amqp, ""), before_making)
        await declare(broker.connection, amqp, plan(amqp, ""), before_making)

    assert told == [True]


async def test_declare_lets_messages_of_quorum_queues_come_back(rabbitmq: RabbitMq, names: Names) -> None:
    """A dead letter that is looked at every day is still there next month."""
    amqp = settings(rabbitmq, names, queue_type="quorum")
    async with publisher(rabbitmq, names) as broker:
        await declare(broker.connection, amqp, plan(amqp, ""), nothing)
    listed = await trio.to_thread.run_sync(rabbitmq.ctl, "list_queues", "--quiet", "name", "arguments")

    ours = [line for line in listed.splitlines() if line.startswith((names.queue, names.dead))]
    assert len(ours) >= 2
    assert all("x-delivery-limit" in line for line in ours), ours


async def test_declare_binds_the_queue(rabbitmq: RabbitMq, names: Names) -> None:
    """What is published to the exchange by a binding key lies in the queue; what is rejected there is a dead letter."""
    amqp = attrs.evolve(settings(rabbitmq, names), binding_keys=("a.#", "b.*"))
    async with publisher(rabbitmq, names) as broker:
        await declare(broker.connection, amqp, plan(amqp, ""), nothing)
        for key in ("a", "a.b.c", "b.x", "b.x.y", "c"):
            await broker.publish([key.encode()], routing_key=key)
        while (delivery := await broker.channel.get(names.queue)) is not None:
            broker.channel.nack(delivery.tag, requeue=False)
        dead = [delivery.body for delivery in await broker.drain(names.dead)]

    assert [b"a", b"a.b.c", b"b.x"] == sorted(dead)


@pytest.mark.parametrize(
    ("durable", "arguments", "named"),
    [
        (False, {}, "durable: 'false', wanted is 'true'"),
        (True, {"x-queue-type": "quorum"}, "x-queue-type: 'quorum', wanted is 'classic'"),
        (True, {"x-max-length": 10}, "x-max-length: '10', wanted is none"),
        (True, {"x-dead-letter-routing-key": "elsewhere"}, "x-dead-letter-routing-key: 'elsewhere', wanted is "),
    ],
)
async def test_declare_other_arguments_names_them(
    rabbitmq: RabbitMq, names: Names, durable: bool, arguments: dict[str, Any], named: str
) -> None:
    """A queue that is there with other arguments is named, with the argument and both of its values."""
    amqp = settings(rabbitmq, names)
    async with publisher(rabbitmq, names) as broker:
        ours = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": names.dead}
        await broker.channel.declare_queue(names.queue, durable=durable, arguments=ours | arguments)

        with pytest.raises(TopologyError, match=names.queue) as caught:
            await declare(broker.connection, amqp, plan(amqp, ""), nothing)

        await broker.channel.delete_queue(names.queue)
    assert named in str(caught.value)


async def test_declare_queue_without_type_is_taken_as_classic(rabbitmq: RabbitMq, names: Names) -> None:
    """Who declared the queue beforehand need not have named the type that is the default."""
    amqp = settings(rabbitmq, names)
    async with publisher(rabbitmq, names) as broker:
        ours = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": names.dead}
        await broker.channel.declare_queue(names.queue, arguments=ours)

        await declare(broker.connection, amqp, plan(amqp, ""), nothing)


async def test_declare_other_exchange_names_its_type(rabbitmq: RabbitMq, names: Names) -> None:
    """An exchange of another type is named, with both types."""
    amqp = settings(rabbitmq, names)
    async with publisher(rabbitmq, names) as broker:
        await broker.channel.declare_exchange(names.exchange, kind="fanout")

        with pytest.raises(TopologyError, match=f"exchange '{names.exchange}' .* type: 'fanout', wanted is 'topic'"):
            await declare(broker.connection, amqp, plan(amqp, ""), nothing)


async def test_declare_others_own_queue_is_a_topology_error(rabbitmq: RabbitMq, names: Names) -> None:
    """A queue that belongs to another connection is not waited for in vain without a word."""
    amqp = settings(rabbitmq, names)
    async with publisher(rabbitmq, names) as other, publisher(rabbitmq, names) as broker:
        await other.channel.declare_queue(names.queue, durable=True, exclusive=True)

        with pytest.raises(TopologyError, match=names.queue):
            await declare(broker.connection, amqp, plan(amqp, ""), nothing)


def test_explained_without_rights_says_which() -> None:
    """A user who may not declare is told what is missing."""
    error = explained(ChannelClosedError(403, "ACCESS_REFUSED - configure access to queue 'q' refused"))

    assert isinstance(error, TopologyError)
    assert "permissions to configure" in str(error)


def test_explained_node_down_is_no_topology_error() -> None:
    """A queue whose node is down is waited for as any broker is."""
    error = explained(ChannelClosedError(404, "NOT_FOUND - home node 'a@b' of durable queue 'q' is down"))

    assert not isinstance(error, TopologyError)
