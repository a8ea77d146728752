"""proxy/amqp/connection.py and handshake.py with a real broker: getting in, being kept out, losing it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from pamqp import commands

from proxy.amqp.channel import Channel
from proxy.amqp.connection import Connection, connect
from proxy.config.model import AmqpEndpoint
from proxy.errors import AmqpError, BrokerRefusedError, ConnectionLostError

from ..e2e.servers import TlsFiles, free_port
from .broker import RabbitMq
from .conftest import Names
from .scripted_broker import endpoint_at

NOTHING = commands.Basic.Properties()


@asynccontextmanager
async def channel_of(broker: RabbitMq, *, heartbeat_s: float = 2) -> AsyncIterator[tuple[Connection, Channel]]:
    """Connect and open a channel."""
    async with connect(
        endpoint_at(broker.port), context=None, name="test", timeout_s=10, heartbeat_s=heartbeat_s
    ) as connection:
        yield connection, await connection.channel()


async def refusal_of(endpoint: AmqpEndpoint, context: ssl.SSLContext | None = None) -> AmqpError:
    """Return what connecting raises."""
    with pytest.raises(AmqpError) as caught:
        async with connect(endpoint, context=context, name="test", timeout_s=10):
            pass
    return caught.value


def tls_endpoint(broker: RabbitMq, username: str = "guest") -> AmqpEndpoint:
    """Return the TLS listener of a broker."""
    return attrs.evolve(endpoint_at(broker.tls_port, username=username), is_tls=True)


async def test_connection_says_what_broker_it_is(rabbitmq: RabbitMq) -> None:
    """A connection that is logged in knows product and version."""
    async with connect(endpoint_at(rabbitmq.port), context=None, name="test", timeout_s=10) as connection:
        product = connection.server["product"]

    assert product == "RabbitMQ"


async def test_wrong_password_is_refused_with_brokers_words(rabbitmq: RabbitMq) -> None:
    """Bad credentials are told from a broker that is away, and the password is not repeated."""
    error = await refusal_of(attrs.evolve(endpoint_at(rabbitmq.port), password="t0p"))

    assert isinstance(error, BrokerRefusedError)
    assert "ACCESS_REFUSED" in str(error)
    assert "t0p" not in str(error)


async def test_unknown_vhost_is_refused(rabbitmq: RabbitMq) -> None:
    """A vhost that does not exist is named."""
    error = await refusal_of(endpoint_at(rabbitmq.port, vhost="nowhere"))

    assert isinstance(error, BrokerRefusedError)
    assert "vhost nowhere not found" in str(error)


async def test_port_without_broker_is_lost_at_once() -> None:
    """Nobody listening is no matter of waiting."""
    with trio.fail_after(2):
        error = await refusal_of(endpoint_at(free_port()))

    assert isinstance(error, ConnectionLostError)
    assert "refused" in str(error)


async def test_external_where_it_is_not_offered_says_what_is(rabbitmq: RabbitMq) -> None:
    """Without a user and without TLS there is no way in, and the text says why."""
    error = await refusal_of(endpoint_at(rabbitmq.port, username=""))

    assert isinstance(error, BrokerRefusedError)
    assert "EXTERNAL" in str(error)
    assert "PLAIN" in str(error)


async def test_tls_with_password_gets_in(rabbitmq: RabbitMq, broker_tls: TlsFiles) -> None:
    """A client certificate and a user is PLAIN inside TLS."""
    context = ssl.create_default_context(cafile=broker_tls.ca)
    context.load_cert_chain(broker_tls.client_cert, broker_tls.client_key)
    async with connect(tls_endpoint(rabbitmq), context=context, name="test", timeout_s=10) as connection:
        channel = await connection.channel()
        state = await channel.declare_queue("", exclusive=True)

    assert state.messages == 0


async def test_external_gets_in_by_certificate(rabbitmq: RabbitMq, broker_tls: TlsFiles) -> None:
    """Without a user the certificate says who it is."""
    rabbitmq.allow_external()
    context = ssl.create_default_context(cafile=broker_tls.ca)
    context.load_cert_chain(broker_tls.client_cert, broker_tls.client_key)

    async with connect(tls_endpoint(rabbitmq, ""), context=context, name="test", timeout_s=10) as connection:
        await (await connection.channel()).close()


async def test_broker_of_unknown_authority_is_not_spoken_to(rabbitmq: RabbitMq) -> None:
    """Without a context the system's authorities decide, and the throw-away one is none of them."""
    error = await refusal_of(tls_endpoint(rabbitmq))

    assert isinstance(error, ConnectionLostError)
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)


async def test_exception_of_body_passes_as_it_is(rabbitmq: RabbitMq) -> None:
    """What the caller raises is not wrapped in a group."""
    with pytest.raises(KeyError):
        async with channel_of(rabbitmq):
            raise KeyError


async def test_cancellation_ends_it_soon(rabbitmq: RabbitMq) -> None:
    """A cancelled user is out in a moment, with a farewell."""
    began = trio.current_time()
    with trio.move_on_after(0.2) as scope:
        async with channel_of(rabbitmq) as (connection, _):
            await connection.wait_closed()

    assert scope.cancelled_caught
    assert trio.current_time() - began < 2


async def test_end_of_context_lets_waiters_know(rabbitmq: RabbitMq) -> None:
    """Whoever still uses a connection that was closed gets an error."""
    async with channel_of(rabbitmq) as (connection, channel):
        pass

    with pytest.raises(ConnectionLostError):
        await connection.wait_closed()
    with pytest.raises(ConnectionLostError):
        channel.ack(1)


async def test_connection_closed_by_operator_tells_reason(rabbitmq_own: RabbitMq) -> None:
    """The words of whoever closed it arrive."""
    async with channel_of(rabbitmq_own) as (connection, _):
        await trio.to_thread.run_sync(rabbitmq_own.close_connections, "upgrade tonight")
        with trio.fail_after(5), pytest.raises(ConnectionLostError, match="upgrade tonight"):
            await connection.wait_closed()


async def test_killed_broker_is_seen_at_once(rabbitmq_own: RabbitMq) -> None:
    """A consumer that waits raises as soon as the socket is closed."""
    async with channel_of(rabbitmq_own) as (_, channel):
        queue = await channel.declare_queue("", exclusive=True)
        consumer = await channel.consume(queue.name)
        rabbitmq_own.kill()
        with trio.fail_after(1), pytest.raises(ConnectionLostError):
            await consumer.receive(1)


async def test_frozen_broker_is_seen_after_two_heartbeats(rabbitmq_own: RabbitMq) -> None:
    """Silence ends a connection, whatever TCP says."""
    async with channel_of(rabbitmq_own, heartbeat_s=1) as (connection, channel):
        rabbitmq_own.freeze()
        began = trio.current_time()
        try:
            with trio.fail_after(10), pytest.raises(ConnectionLostError, match="silent"):
                await channel.declare_queue("", exclusive=True)
            took = trio.current_time() - began
            with pytest.raises(ConnectionLostError):
                await connection.wait_closed()
        finally:
            rabbitmq_own.thaw()

    assert 1.4 < took < 5


async def test_idle_connection_lives_on_heartbeats(rabbitmq: RabbitMq) -> None:
    """Nobody saying anything for three heartbeats is no silence: both sides beat."""
    async with channel_of(rabbitmq, heartbeat_s=1) as (_, channel):
        await trio.sleep(3.5)
        state = await channel.declare_queue("", exclusive=True)

    assert state.consumers == 0


async def test_blocked_broker_makes_publishers_wait_and_not_consumers(rabbitmq_own: RabbitMq, names: Names) -> None:
    """While the broker lacks memory, publishing waits, another connection consumes, and then it goes on."""
    async with channel_of(rabbitmq_own) as (blocked, publisher), channel_of(rabbitmq_own) as (_, channel):
        await channel.declare_queue(names.queue)
        await publisher.publish("", names.queue, b"before", NOTHING)
        await trio.to_thread.run_sync(rabbitmq_own.block)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.publish, "", names.queue, b"meanwhile", NOTHING)
            with trio.fail_after(10):
                while not blocked.is_blocked:
                    await trio.sleep(0.01)
            consumer = await channel.consume(names.queue)
            (first,) = await consumer.receive(10)
            channel.ack(first.tag)
            reason = blocked.blocked_reason
            await trio.to_thread.run_sync(rabbitmq_own.unblock)
        (second,) = await consumer.receive(10)

    assert (first.body, second.body) == (b"before", b"meanwhile")
    assert "memory" in reason
    assert not blocked.is_blocked
