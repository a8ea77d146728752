"""Events as they go by: a queue of our own, bound to the exchange beside those of the proxies, which notice nothing.

    exchange --binding keys--> queue of ours (exclusive, bounded, gone with the connection) --> show, one by one

A synchronous function around a trio run of its own. A connection that is lost is opened again for as long as it takes;
what is published in between is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from proxy.amqp.channel import Channel
from proxy.amqp.connection import Connection
from proxy.amqp.errand import DeskError, connected, launch, unwrapped
from proxy.amqp.letters import message_of
from proxy.config.model import Amqp
from proxy.errors import AmqpError, ChannelClosedError
from proxy.events.message import Message

_FIRST_RETRY_S: Final = 0.1
_LONGEST_RETRY_S: Final = 2.0
_PREFETCH: Final = 200
# A watcher that is stopped (Ctrl-Z) must not fill the broker: beyond this its queue forgets the oldest.
_BOUNDS: Final = {"x-max-length": 10_000, "x-max-length-bytes": 64 << 20}
_NOT_FOUND: Final = 404


def tail(amqp: Amqp, binding_keys: Sequence[str], show: Callable[[Message], None], tell: Callable[[str], None]) -> None:
    """Show every message that the exchange routes by one of `binding_keys`, until SIGINT or SIGTERM.

    `tell` gets a line when the watch begins, when it is interrupted and when it goes on. Raises DeskError if it cannot
    begin; later on whatever the broker does is waited for.
    """
    watching = _Watching(amqp, binding_keys, show, tell)
    launch(lambda _stop: watching.run())


@attrs.define
class _Watching:
    _amqp: Amqp
    _binding_keys: Sequence[str]
    _show: Callable[[Message], None]
    _tell: Callable[[str], None]
    _has_begun: bool = False
    _is_lost: bool = False
    _pause_s: float = _FIRST_RETRY_S

    async def run(self) -> None:
        while True:
            try:
                with unwrapped():
                    await self._watch()
            except (AmqpError, DeskError) as exc:
                if not self._has_begun:
                    raise
                if not self._is_lost:
                    self._tell(f"the watch is interrupted, and goes on when the broker answers: {exc}")
                self._is_lost = True
            await trio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, _LONGEST_RETRY_S)

    async def _watch(self) -> None:
        """Watch until the connection is lost. Raises AmqpError, DeskError."""
        async with connected(self._amqp) as connection:
            try:
                channel, queue = await self._bound(connection)
                consumer = await channel.consume(queue, exclusive=True)
            except ChannelClosedError as exc:
                raise DeskError(f"the broker does not let us watch {self._amqp.exchange}: {exc}") from exc
            self._begin(connection.endpoint.display)
            while True:
                deliveries = await consumer.receive(_PREFETCH)
                for delivery in deliveries:
                    self._show(message_of(delivery))
                channel.ack(deliveries[-1].tag, multiple=True)

    async def _bound(self, connection: Connection) -> tuple[Channel, str]:
        """Make the queue and bind it. Raises ChannelClosedError, with the broker's reason."""
        exchange = self._amqp.exchange
        channel = await connection.channel()
        try:
            # Whoever may only read must be able to watch, too: the exchange is declared where it is missing alone.
            await channel.declare_exchange(exchange, passive=True)
        except ChannelClosedError as exc:
            if exc.code != _NOT_FOUND:
                raise
            channel = await connection.channel()
            await channel.declare_exchange(exchange)
        await channel.qos(_PREFETCH)
        queue = await channel.declare_queue("", durable=False, exclusive=True, auto_delete=True, arguments=_BOUNDS)
        for binding_key in self._binding_keys:
            await channel.bind(queue.name, exchange, binding_key)
        return channel, queue.name

    def _begin(self, address: str) -> None:
        if self._is_lost:
            self._tell("the broker answers again; what was published meanwhile was not seen")
        else:
            keys = ", ".join(self._binding_keys)
            self._tell(f"watching {self._amqp.exchange} at {address} ({keys}); Ctrl-C ends")
        self._has_begun, self._is_lost, self._pause_s = True, False, _FIRST_RETRY_S
