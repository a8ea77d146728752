"""Notices of alerts to the broker: JSON on the topic exchange `respite.alerts`, each confirmed.

    offer --> bounded queue, the oldest goes first --> connect, publish, stay for a while, leave

Owns a connection of its own, open only while there is something to say: a broker that is gone, or short of memory,
holds up nothing. Notices wait for it in their order.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import attrs
import trio
from pamqp.commands import Basic

from proxy.amqp.channel import Channel, Outgoing
from proxy.amqp.nodes import Nodes, pause_s
from proxy.amqp.retry import first_of
from proxy.config.model import Amqp
from proxy.errors import AmqpError
from proxy.log import get_logger

EXCHANGE: Final = "respite.alerts"
MOST: Final = 100
LINGER_S: Final = 30.0
PAUSES_S: Final = (0.5, 30.0)
_LASTING: Final = 2
log = get_logger("alert")


@attrs.frozen
class _Notice:
    routing_key: str
    body: bytes


class AlertSender:
    """Publishes notices at the broker of [amqp]. `name` is what the broker shows of us."""

    def __init__(self, amqp: Amqp, *, name: str) -> None:
        self.dropped = 0
        self._urls = amqp.urls
        self._nodes = Nodes(amqp.tls, name)
        self._notices: deque[_Notice] = deque()
        self._filled = trio.Event()

    def offer(self, body: Mapping[str, Any], target: str) -> None:
        """Have it published under the routing key `target`; of more than MOST that wait, the oldest is forgotten."""
        if len(self._notices) >= MOST:
            self._notices.popleft()
            self.dropped += 1
        self._notices.append(_Notice(target, json.dumps(body).encode()))
        self._filled.set()

    async def run(self) -> None:
        """Publish until cancelled. Raises nothing for what the broker does."""
        number = failures = 0
        while True:
            await self._wait()
            why: BaseException | None = None
            try:
                await self._serve(number)
                failures = 0
            except* AmqpError as group:
                why = first_of(group)
            except* Exception as group:
                if not failures:
                    log.exception("the sender of alerts broke")
                why = group
            if not self._notices:  # at most a connection that lingered has broken
                failures = 0
            elif why is not None:
                if not failures and isinstance(why, AmqpError):
                    log.warning("the broker does not take a notice, it is published again", why=str(why))
                failures += 1
                number += 1
                await trio.sleep(pause_s(failures, *PAUSES_S))

    async def _wait(self) -> None:
        if not self._notices:
            self._filled = trio.Event()
            await self._filled.wait()

    async def _serve(self, number: int) -> None:
        """Publish what is there, and what comes soon after, on one connection."""
        async with self._nodes.connected(self._urls[number % len(self._urls)], "alerts") as connection:
            channel = await connection.channel()
            await channel.declare_exchange(EXCHANGE)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.wait_closed)
                while True:
                    with trio.move_on_after(LINGER_S) as scope:
                        await self._wait()
                    if scope.cancelled_caught:
                        break
                    await self._publish(channel)
                nursery.cancel_scope.cancel()

    async def _publish(self, channel: Channel) -> None:
        notice = self._notices[0]
        properties = Basic.Properties(content_type="application/json", delivery_mode=_LASTING, app_id="respite")
        (refused,) = await channel.publish_all([Outgoing(EXCHANGE, notice.routing_key, notice.body, properties)])
        if refused is not None:
            raise refused
        if self._notices and self._notices[0] is notice:  # it may have been forgotten meanwhile
            self._notices.popleft()
