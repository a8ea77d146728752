"""The relay of changes, in front of a real broker, with an outbox that is scripted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from proxy.amqp import relay as relaying
from proxy.amqp.channel import Channel, Delivery
from proxy.amqp.connection import connect
from proxy.amqp.relay import Relay
from proxy.config.endpoint import parse_amqp_url
from proxy.errors import RemoteError
from proxy.events.notices import EXCHANGE, Batch, Entry, RelayFigures

from .broker import RabbitMq
from .conftest import Names
from .eventing import settings, until

DEADLINE_S = 15.0


@attrs.define
class ScriptedStore:
    """An outbox in memory."""

    entries: list[Entry] = attrs.field(factory=list)
    holder: str = ""
    removed: list[Entry] = attrs.field(factory=list)
    is_away: bool = False

    async def lease(self, token: str, ttl_ms: int) -> bool:
        """Give the lease to whoever asks first."""
        await self._wait()
        self.holder = self.holder or token
        return self.holder == token

    async def release(self, token: str) -> None:
        """Take the lease back."""
        await self._wait()
        if self.holder == token:
            self.holder = ""

    async def read(self, most: int) -> Batch:
        """Return the oldest entries."""
        await self._wait()
        return Batch(tuple(self.entries[:most]), len(self.entries), 1.5 if self.entries else 0.0)

    async def remove(self, entries: Sequence[Entry]) -> None:
        """Remove entries."""
        await self._wait()
        self.removed += entries
        self.entries = [entry for entry in self.entries if entry not in entries]

    async def _wait(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_away:
            raise RemoteError("Redis is away")


def entry(number: int, topic: str) -> Entry:
    """Make a notice."""
    return Entry(0, b"17000000000%02d-0" % number, topic, json.dumps({"id": f"w-{number}", "keys": ["k"]}).encode())


def made(broker: RabbitMq, names: Names, store: ScriptedStore, token: str = "one") -> Relay:
    """Make a relay."""
    return Relay(settings(broker, names), store, RelayFigures(), token=token)


@asynccontextmanager
async def listening(broker: RabbitMq, names: Names, topic: str) -> AsyncIterator[Channel]:
    """Bind a queue to the exchange of changes."""
    async with connect(parse_amqp_url(broker.url), context=None, name="test", timeout_s=5.0) as connection:
        channel = await connection.channel()
        await channel.declare_exchange(EXCHANGE)
        await channel.declare_queue(names.queue, durable=True)
        await channel.bind(names.queue, EXCHANGE, topic)
        yield channel
        await channel.delete_queue(names.queue)


async def take(channel: Channel, names: Names, count: int) -> list[Delivery]:
    """Take so many messages."""
    found: list[Delivery] = []
    with trio.fail_after(DEADLINE_S):
        while len(found) < count:
            delivery = await channel.get(names.queue)
            if delivery is None:
                await trio.sleep(0.02)
            else:
                found.append(delivery)
    return found


async def test_notices_are_published_in_order_and_removed(
    rabbitmq: RabbitMq, names: Names, nursery: trio.Nursery
) -> None:
    """To the exchange, under the class's name, so that they last; each has the id of its event."""
    store = ScriptedStore([entry(number, names.queue) for number in range(5)])
    relay = made(rabbitmq, names, store)
    async with listening(rabbitmq, names, names.queue) as channel:
        nursery.start_soon(relay.run)
        found = await take(channel, names, 5)
        await until(lambda: not store.entries, "the relay goes on")

    assert [one.properties.message_id for one in found] == [f"w-{number}" for number in range(5)]
    assert {(one.exchange, one.routing_key, one.properties.delivery_mode) for one in found} == {
        (EXCHANGE, names.queue, 2)
    }
    assert (relay.figures.published, relay.figures.state) == (5, "relaying")


async def test_second_relay_waits_until_the_first_is_gone(
    rabbitmq: RabbitMq, names: Names, nursery: trio.Nursery
) -> None:
    """Which gives its lease back."""
    store = ScriptedStore()
    one, other = made(rabbitmq, names, store), made(rabbitmq, names, store, "other")
    scope = trio.CancelScope()

    async def first() -> None:
        with scope:
            await one.run()

    nursery.start_soon(first)
    await until(lambda: one.figures.state == "relaying", "the relay goes on")
    nursery.start_soon(other.run)
    await until(lambda: other.figures.state == "standby", "the relay goes on")
    scope.cancel()
    await until(lambda: other.figures.state == "relaying", "the relay goes on")

    assert one.figures.state == "off"


async def test_redis_away_is_waited_for(rabbitmq: RabbitMq, names: Names, nursery: trio.Nursery) -> None:
    """The connection to the broker stays."""
    store = ScriptedStore([entry(1, names.queue)], is_away=True)
    relay = made(rabbitmq, names, store)
    nursery.start_soon(relay.run)
    await until(lambda: relay.figures.state == "redis away", "the relay goes on")
    store.is_away = False
    await until(lambda: relay.figures.published == 1, "the relay goes on")

    assert relay.figures.state == "relaying"


async def test_what_is_no_notice_is_removed_and_not_published(
    rabbitmq: RabbitMq, names: Names, nursery: trio.Nursery
) -> None:
    """Somebody else wrote into our stream: it must not stop what is behind it."""
    store = ScriptedStore([Entry(0, b"1-0", "", b""), entry(1, names.queue)])
    relay = made(rabbitmq, names, store)
    nursery.start_soon(relay.run)
    await until(lambda: not store.entries, "the relay goes on")

    assert (relay.figures.foreign, relay.figures.published) == (1, 1)


async def test_nothing_is_removed_while_the_broker_is_away(
    rabbitmq_own: RabbitMq, names: Names, nursery: trio.Nursery
) -> None:
    """What was under way is published again."""
    store = ScriptedStore()
    relay = made(rabbitmq_own, names, store)
    nursery.start_soon(relay.run)
    await until(lambda: relay.figures.state == "relaying", "the relay goes on")
    await trio.to_thread.run_sync(rabbitmq_own.kill)
    store.entries = [entry(number, names.queue) for number in range(3)]
    await until(lambda: relay.figures.state == "connecting" and relay.figures.why != "", "the relay goes on")
    assert (store.removed, relay.figures.published) == ([], 0)
    await trio.to_thread.run_sync(rabbitmq_own.start)
    await until(lambda: not store.entries, "the relay goes on")

    assert relay.figures.published == 3


async def test_broker_that_is_short_of_memory_is_waited_for(
    rabbitmq_own: RabbitMq, names: Names, nursery: trio.Nursery
) -> None:
    """It takes nothing, so nothing is removed."""
    store = ScriptedStore()
    relay = made(rabbitmq_own, names, store)
    nursery.start_soon(relay.run)
    await until(lambda: relay.figures.state == "relaying", "the relay goes on")
    await trio.to_thread.run_sync(rabbitmq_own.block)
    store.entries = [entry(1, names.queue)]
    await trio.sleep(0.5)
    assert store.removed == []
    await trio.to_thread.run_sync(rabbitmq_own.unblock)

    await until(lambda: not store.entries, "the relay goes on")


async def test_exchange_of_another_kind_is_named(
    rabbitmq: RabbitMq, names: Names, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what is there and what is wanted."""
    monkeypatch.setattr(relaying, "EXCHANGE", names.exchange)
    async with connect(parse_amqp_url(rabbitmq.url), context=None, name="test", timeout_s=5.0) as connection:
        channel = await connection.channel()
        await channel.declare_exchange(names.exchange, kind="fanout")
    relay = made(rabbitmq, names, ScriptedStore())
    nursery.start_soon(relay.run)
    await until(lambda: relay.figures.state == "misconfigured", "the relay goes on")

    assert names.exchange in relay.figures.why
    assert "fanout" in relay.figures.why
