"""What has to be there on the broker: exchange, queues, bindings; declared on every connection, the same each time.

    exchange --binding keys--> QUEUE --failed, n-th time--> QUEUE.retry.1000ms, .2000ms, ..   (a copy, confirmed)
                                 |                             '-- taken from there when due, by one of all proxies
                                 '-- not understood, or failed for good --> DEAD LETTER QUEUE (a copy, confirmed)

Owns names and arguments, and what is said when something else of that name is there. A retry queue gives back to QUEUE
by itself only what nobody has taken for a minute beyond its time: what a proxy with other delays left behind. In
operation nothing goes by the broker's own dead-lettering, which is not confirmed on a classic queue and loses messages
when the broker is killed at that moment.
With `delivery` "broadcast", QUEUE and its retry queues belong to this connection and go with it.
Source: RabbitMQ, "Dead Letter Exchanges", "Quorum Queues"; AMQP 0-9-1 1.6.2 and 1.7.2.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import attrs

from proxy.amqp.channel import Channel
from proxy.amqp.connection import Connection
from proxy.config.model import Amqp
from proxy.errors import AmqpError, ChannelClosedError

ACCESS_REFUSED: Final = 403
NOT_FOUND: Final = 404
DELIVERY_LIMIT: Final = 1_000_000_000
RESOURCE_LOCKED: Final = 405
PRECONDITION_FAILED: Final = 406

_MOST_STEPS: Final = 64  # doublings; no delay is that long
_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<name>[^']*)' for (?P<kind>queue|exchange) '(?P<of>.*)' in vhost '.*': "
    r"received (?P<wanted>.*) but current is (?P<there>.*)",
    re.DOTALL,
)


class TopologyError(AmqpError):
    """What is there on the broker is not what is wanted, and stays so until somebody changes one of them."""


@attrs.frozen
class Topology:
    """The names that are in use. `retry_queues` by the nominal delay in ms, shortest first."""

    queue: str
    is_own: bool
    """The queue goes with the connection."""
    retry_queues: Mapping[int, str]
    dead_letter_queue: str

    def retry_queue(self, delay_ms: int) -> str:
        """Return where a message waits that is to be tried again after a nominal delay."""
        return self.retry_queues[delay_ms]


def delays_ms(amqp: Amqp) -> tuple[int, ...]:
    """Return the nominal delay before each retry, in order; none if nothing is ever tried again."""
    retry = amqp.retry
    return tuple(
        max(round(min(retry.first_s * 2.0 ** min(number, _MOST_STEPS), retry.max_s) * 1000), 1)
        for number in range(retry.attempts)
    )


def plan(amqp: Amqp, token: str) -> Topology:
    """Name everything. `token` sets the queue of this connection apart where each has its own."""
    is_own = amqp.delivery == "broadcast"
    queue = f"{amqp.queue}.{token}" if is_own else amqp.queue
    retry_queues = {delay: f"{queue}.retry.{delay}ms" for delay in sorted(set(delays_ms(amqp)))}
    return Topology(queue, is_own, retry_queues, amqp.dead_letter_queue)


async def declare(
    connection: Connection, amqp: Amqp, topology: Topology, before_making: Callable[[], Awaitable[None]]
) -> None:
    """Declare everything. `before_making` is awaited where the queue, that should have been there, is not.

    Raises TopologyError for what only people can mend, another AmqpError for what may mend itself.
    """
    try:
        await declare_asides(connection, amqp, topology)
        channel = await connection.channel()
        await channel.declare_exchange(amqp.exchange)
        if topology.is_own:
            await _declare_own(channel, topology.queue, dead_letters_to=topology.dead_letter_queue)
            for name in topology.retry_queues.values():
                await _declare_own(channel, name, dead_letters_to=topology.queue)
        else:
            if not await _is_there(connection, topology.queue):
                await before_making()
            await _declare_durable(channel, topology.queue, amqp, dead_letters_to=topology.dead_letter_queue)
        await bind(channel, amqp, topology)
        await channel.close()
    except ChannelClosedError as exc:
        raise explained(exc) from exc


async def bind(channel: Channel, amqp: Amqp, topology: Topology) -> None:
    """Bind the queue, again as often as one likes. ChannelClosedError 404 where the exchange is gone."""
    for key in amqp.binding_keys:
        await channel.bind(topology.queue, amqp.exchange, key)


async def declare_asides(connection: Connection, amqp: Amqp, topology: Topology) -> None:
    """Declare where failed events go, as far as any connection may. Raises as `declare` does."""
    try:
        channel = await connection.channel()
        await _declare_durable(channel, topology.dead_letter_queue, amqp, dead_letters_to="")
        if not topology.is_own:
            for name in topology.retry_queues.values():
                await _declare_durable(channel, name, amqp, dead_letters_to=topology.queue)
        await channel.close()
    except ChannelClosedError as exc:
        raise explained(exc) from exc


def explained(closed: ChannelClosedError) -> AmqpError:
    """Return what a refused declaration means to a person; the error itself where waiting may mend it."""
    if found := _INEQUIVALENT.search(closed.text):
        kind, of, name = found["kind"], found["of"], found["name"]
        wanted, there = _value(found["wanted"]), _value(found["there"])
        return TopologyError(
            f"the {kind} {of!r} is there with another {name}: {there}, wanted is {wanted}; "
            f"delete it, change the configuration to what is there, or name another {kind} in [amqp]"
        )
    if closed.code == ACCESS_REFUSED:
        return TopologyError(
            f"the broker refuses: {closed.text}; the user needs the permissions to configure, write and read "
            "the exchange and the queues named in [amqp], and the retry queues QUEUE.retry.*, and to write to the "
            "default exchange, amq.default"
        )
    if closed.code in {RESOURCE_LOCKED, PRECONDITION_FAILED}:
        return TopologyError(f"the broker refuses: {closed.text}; name another queue in [amqp], or delete this one")
    return closed


async def _is_there(connection: Connection, queue: str) -> bool:
    """Ask on a channel of its own, for a "no" closes it."""
    channel = await connection.channel()
    try:
        await channel.declare_queue(queue, passive=True)
    except ChannelClosedError as exc:
        # The node that has the queue may be down: then the text says so, and the queue is not gone.
        if exc.code == NOT_FOUND and "no queue" in exc.text:
            return False
        raise
    await channel.close()
    return True


async def _declare_durable(channel: Channel, name: str, amqp: Amqp, *, dead_letters_to: str) -> None:
    arguments: dict[str, Any] = {"x-queue-type": amqp.queue_type}
    if amqp.queue_type == "quorum":
        # RabbitMQ 4 drops what came back 20 times, and to be looked at, or held, is to come back.
        arguments["x-delivery-limit"] = DELIVERY_LIMIT
    if dead_letters_to:
        arguments |= _dead_lettering(dead_letters_to)
        if amqp.queue_type == "quorum":
            # The only one that confirms before it removes, and only a queue that never drops its head may have it.
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    await channel.declare_queue(name, durable=True, arguments=arguments)


async def _declare_own(channel: Channel, name: str, *, dead_letters_to: str) -> None:
    await channel.declare_queue(
        name, durable=False, exclusive=True, auto_delete=True, arguments=_dead_lettering(dead_letters_to)
    )


def _dead_lettering(queue: str) -> dict[str, Any]:
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}


def _value(shown: str) -> str:
    """Show a value as the broker does: in quotes, or as Erlang tells of its absence."""
    return "none" if shown.startswith("none") else shown.removeprefix("the value ").split(" of type ")[0]
