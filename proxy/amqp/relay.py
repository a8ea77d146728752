"""The relay of changes: from the outbox in Redis to the exchange `respite.changes`, each at least once.

    connect to a node --> declare the exchange --> take the lease --> read --> publish, confirmed --> remove --.
          ^                                            ^  '-- another relay has it: ask again                  |
          '---- the connection is lost                 '-------------------------------------------------------'

Owns the life of its own connection: while the broker is short of memory it reads no further from those who publish.
One relay of all proxies works at a time; that keeps the order and saves work, and nothing more: where two overlap, what
both have read is published twice. Nothing is removed before the broker has confirmed it. While the broker is away the
outbox grows, up to its bound.
"""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Final

import trio
from pamqp.commands import Basic

from proxy.amqp.channel import Channel, Outgoing
from proxy.amqp.nodes import Nodes, pause_s
from proxy.amqp.retry import first_of
from proxy.amqp.topology import TopologyError, explained
from proxy.config.model import Amqp, AmqpEndpoint
from proxy.errors import AmqpError, BrokerRefusedError, ChannelClosedError, ConnectionLostError, RemoteError
from proxy.events.notices import EXCHANGE, Entry, NoticeStore, RelayFigures
from proxy.log import get_logger

LEASE_MS: Final = 6_000
RENEW_S: Final = 2.0
STANDBY_S: Final = 0.5
IDLE_S: Final = 0.05
MOST: Final = 200  # of a database, at once
_LASTING: Final = 2
_TOPIC_BYTES_MAX: Final = 255
_PAUSES_S: Final = (0.05, 1.0)
_SLOW_PAUSE_S: Final = 10.0  # what only people can mend
log = get_logger("relay")


class Relay:
    """Relays changes of one outbox to one broker."""

    def __init__(
        self, amqp: Amqp, store: NoticeStore, figures: RelayFigures, *, token: str, name: str = "respite"
    ) -> None:
        """`token` tells this relay from all others; `name` is what the broker shows."""
        self.figures = figures
        self._amqp = amqp
        self._store = store
        self._token = token
        self._nodes = Nodes(amqp.tls, name)
        self._said = ""
        self._leased_until = 0.0

    async def run(self) -> None:
        """Relay until cancelled. Raises nothing for what the broker or Redis does."""
        urls = self._amqp.urls
        number = failures = 0
        try:
            while urls:
                self.figures.state = "connecting"
                began = trio.current_time()
                why = await self._try(urls[number % len(urls)])
                failures = 1 if trio.current_time() - began > 2.0 else failures + 1
                number += 1
                self._show(why, failures)
                await trio.sleep(_pause_s(why, failures))
        finally:
            self.figures.state = "off"

    async def _try(self, endpoint: AmqpEndpoint) -> BaseException:
        """Serve one connection until it ends; return why it did."""
        why: BaseException = ConnectionLostError("the connection ended")
        try:
            await self._serve(endpoint)
        except* AmqpError as group:
            why = first_of(group)
        except* Exception as group:
            if not self._said.startswith("bug"):
                log.exception("the relay broke")
            why = RuntimeError(f"bug: {_first(group)!r}")
        return why

    def _show(self, why: BaseException, failures: int) -> None:
        figures = self.figures
        figures.why = str(why)
        is_sure = isinstance(why, TopologyError) or (isinstance(why, BrokerRefusedError) and failures > 3)
        figures.state = "misconfigured" if is_sure else "connecting"
        said = "bug" if isinstance(why, RuntimeError) else str(why) if is_sure else type(why).__name__
        if said != self._said and (is_sure or not isinstance(why, BrokerRefusedError)):
            self._said = said
            log.warning("changes are not published, they wait in Redis", why=str(why))

    async def _serve(self, endpoint: AmqpEndpoint) -> None:
        async with self._nodes.connected(endpoint, "changes") as connection:
            channel = await connection.channel()
            try:
                await channel.declare_exchange(EXCHANGE)
            except ChannelClosedError as exc:
                raise explained(exc) from exc
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.wait_closed)
                await self._relay(channel)

    async def _relay(self, channel: Channel) -> None:
        """Relay until the connection is gone, which raises; without the lease, or without Redis, wait for it."""
        self._leased_until = 0.0
        try:
            while True:
                try:
                    await self._turn(channel)
                except RemoteError as exc:
                    self._leased_until = 0.0
                    self._up("redis away", str(exc))
                    await trio.sleep(STANDBY_S * (0.5 + random.random()))
        finally:
            if self._leased_until:
                with trio.move_on_after(0.5, shield=True):
                    await self._give_back()

    async def _turn(self, channel: Channel) -> None:
        figures = self.figures
        now = trio.current_time()
        if now >= self._leased_until - (LEASE_MS / 1000 - RENEW_S):
            if not await self._store.lease(self._token, LEASE_MS):
                self._leased_until = 0.0
                figures.depth, figures.oldest_s = 0, 0.0  # who has the lease shows them
                self._up("standby")
                await trio.sleep(STANDBY_S * (0.5 + random.random()))
                return
            self._leased_until = now + LEASE_MS / 1000
        batch = await self._store.read(MOST)
        figures.depth, figures.oldest_s = batch.depth, batch.oldest_s
        self._up("relaying")
        if batch.entries:
            await self._publish(channel, batch.entries)
        else:
            await trio.sleep(IDLE_S)

    async def _publish(self, channel: Channel, entries: tuple[Entry, ...]) -> None:
        ours = [entry for entry in entries if entry.body]
        foreign = [entry for entry in entries if not entry.body]
        try:
            results = await channel.publish_all([_message(entry) for entry in ours])
        except AmqpError:
            self.figures.failed += len(ours)
            raise
        done = [entry for entry, refused in zip(ours, results, strict=True) if refused is None]
        await self._store.remove([*done, *foreign])
        self.figures.published += len(done)
        if foreign:
            self.figures.foreign += len(foreign)
            log.warning("removed from the outbox what is no notice", entries=len(foreign))
        refused = next((one for one in results if one is not None), None)
        if refused is not None:
            self.figures.failed += len(ours) - len(done)
            self.figures.why = str(refused)
            log.warning("the broker does not take a change; it is published again", why=str(refused))
            await trio.sleep(1.0)

    async def _give_back(self) -> None:
        with suppress(RemoteError):  # it ends by itself
            await self._store.release(self._token)

    def _up(self, state: str, why: str = "") -> None:
        if self.figures.state != state:
            self.figures.state, self.figures.why = state, why
            self._said = ""
            log.info("the relay of changes", state=state, why=why)


def _message(entry: Entry) -> Outgoing:
    """Return the message of a notice. The same notice has the same `message_id` each time."""
    at_ms = entry.at_ms
    properties = Basic.Properties(
        content_type="application/json",
        delivery_mode=_LASTING,
        message_id=_id_of(entry),
        app_id="respite",
        headers={"timestamp_in_ms": at_ms},
    )
    topic = entry.topic.encode()[:_TOPIC_BYTES_MAX].decode("utf-8", "ignore")
    return Outgoing(EXCHANGE, topic, entry.body, properties)


def _id_of(entry: Entry) -> str:
    try:
        event = json.loads(entry.body)
    except ValueError:
        event = None
    found = event.get("id") if isinstance(event, dict) else None
    return found if isinstance(found, str) else f"{entry.db}-{entry.id.decode('ascii', 'replace')}"


def _pause_s(why: BaseException, failures: int) -> float:
    if isinstance(why, TopologyError):
        return _SLOW_PAUSE_S
    return pause_s(failures, *_PAUSES_S)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
