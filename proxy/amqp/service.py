"""The events of the broker, from the first connection to the last: connects, consumes, mends, for as long as it runs.

    run ── nodes in turn ── connection ── topology ── a consumer of the queue, one of each retry queue
     |                          |                          outbox (its own connection), depths once a second
     |                          '-- lost: again at once, then with growing pauses
     '── debts: what may have been missed (a queue made anew, a hole in numbers) is flushed, until that has worked

Owns the life of a connection, the state that is shown, and what is owed. Raises nothing for what a broker, a message
or Redis does; says once what changed, not what was tried. What is found with other arguments than wanted is said, and
looked at again now and then; the cache goes on without events.
"""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Final

import attrs
import trio

from proxy.amqp.connection import Connection
from proxy.amqp.consumer import MOST, Intake, Maps, Shared
from proxy.amqp.nodes import Nodes, pause_s
from proxy.amqp.retry import Outbox, first_of
from proxy.amqp.topology import (
    ACCESS_REFUSED,
    NOT_FOUND,
    Topology,
    TopologyError,
    bind,
    declare,
    declare_asides,
    delays_ms,
    plan,
)
from proxy.config.model import Amqp, AmqpEndpoint
from proxy.errors import AmqpError, BrokerRefusedError, ChannelClosedError, ConnectionLostError
from proxy.events.figures import EventFigures
from proxy.events.sink import Sink
from proxy.log import get_logger
from proxy.values.globs import compile_glob

FLAP_S: Final = 2.0  # a connection that ends sooner does not count as mended
LOOK_EVERY_S: Final = 1.0
MIND_EVERY_S: Final = 0.5
OTHERS_FLUSH_S: Final = 5.0  # a flush that another sidecar owes for so long is ours: it may have been killed
log = get_logger("events")


class Trouble(Enum):
    """Why a connection ended, by how it is waited for."""

    AWAY = "away"
    REFUSED = "refused"
    TOPOLOGY = "topology"
    BROKEN = "broken"


# First and longest pause in seconds. A broker that is back is found within the longest one; a broker that has just
# started refuses for a moment, and one with another password until somebody mends it.
_PAUSES_S: Final = {
    Trouble.AWAY: (0.05, 0.6),
    Trouble.REFUSED: (0.05, 5.0),
    Trouble.TOPOLOGY: (1.0, 30.0),
    Trouble.BROKEN: (0.05, 5.0),
}


def _pause_s(trouble: Trouble, times: int) -> float:
    return pause_s(times, *_PAUSES_S[trouble])


@attrs.frozen
class _Debt:
    """What is to be flushed: None is everything."""

    globs: tuple[str, ...] | None
    reason: str
    is_queue: bool
    """For what was lost with the queue."""


class EventService:
    """Receives the events of one broker. `mapper` may be replaced at any time, for new [[event]] rules."""

    def __init__(
        self,
        amqp: Amqp,
        mapper: Maps,
        sink: Sink,
        figures: EventFigures,
        *,
        now_ms: Callable[[], int],
        clock: Callable[[], float] = trio.current_time,
        name: str = "respite",
    ) -> None:
        """`now_ms` tells milliseconds since 1970, `clock` seconds that only rise; `name` is what the broker shows."""
        self.figures = figures
        self._amqp = amqp
        self._sink = sink
        self._nodes = Nodes(amqp.tls, name)
        self._shared = Shared(mapper, sink, figures, delays_ms(amqp), now_ms, clock)
        self._scopes = [(compile_glob(publisher.encode()), globs) for publisher, globs in amqp.scopes]
        self._debts: list[_Debt] = []
        self._has_new_queue = False
        """The queue was made by us, and it is not known yet whether one of that name had been there before."""
        self._is_noted = False
        """.. and that it was gone has been noted for all sidecars."""
        self._queue_at = math.inf
        """When to look what the queue owes."""
        self._owing_since = math.inf
        """Since when it is known that some sidecar owes a flush for the queue."""
        self._has_lost_exchange = False
        """It was gone, and what was published at that time with it."""
        self._wake = trio.Event()
        self._ups = 0
        self._troubles: Counter[Trouble] = Counter()
        self._said: set[str] = set()

    @property
    def mapper(self) -> Maps:
        """What says what a message means."""
        return self._shared.mapper

    @mapper.setter
    def mapper(self, mapper: Maps) -> None:
        self._shared.mapper = mapper

    async def run(self) -> None:
        """Serve until cancelled; returns at once where no broker is configured."""
        if not self._amqp.urls:
            return
        self.figures.state = "connecting"
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._mind)
                await self._stay_connected(self._amqp.urls)
        finally:
            self.figures.state = "off"
            self._unlook()

    # Connections

    async def _stay_connected(self, urls: tuple[AmqpEndpoint, ...]) -> None:
        tried = 0  # since the last pause
        number = 0
        while True:
            endpoint = urls[number % len(urls)]
            ups, began = self._ups, self._shared.clock()
            trouble, why = await self._try(endpoint)
            self._unlook()
            self._forget_queue()
            if self._ups > ups and self._shared.clock() - began > FLAP_S:
                self._troubles.clear()
            self._troubles[trouble] += 1
            self._show(trouble, str(why), endpoint)
            # After a loss the same node first, it may be there; one that refuses what it finds speaks for all.
            tried += 1
            if self._ups == ups and trouble is not Trouble.TOPOLOGY:
                number += 1
            if self._ups > ups or trouble is Trouble.TOPOLOGY or tried >= len(urls):
                tried = 0
                await trio.sleep(_pause_s(trouble, self._troubles[trouble]))

    async def _try(self, endpoint: AmqpEndpoint) -> tuple[Trouble, BaseException]:
        """Serve one connection until it ends; return why it did."""
        trouble = Trouble.AWAY
        why: BaseException = ConnectionLostError("the connection ended")
        try:
            await self._serve(endpoint)
        except* AmqpError as group:
            why = first_of(group)
        except* Exception as group:
            # A mistake of ours: it is seen in the log, and events go on.
            if not self._troubles[Trouble.BROKEN]:
                log.exception("the event service broke")
            trouble, why = Trouble.BROKEN, group
        if isinstance(why, TopologyError):
            trouble = Trouble.TOPOLOGY
        elif isinstance(why, BrokerRefusedError):
            trouble = Trouble.REFUSED
        return trouble, why

    def _show(self, trouble: Trouble, why: str, endpoint: AmqpEndpoint) -> None:
        """Show the trouble; log it the first time since events came in."""
        # A broker that starts refuses for a moment; nobody should be sent to look at the password for that.
        is_sure = trouble is Trouble.TOPOLOGY or (trouble is Trouble.REFUSED and self._troubles[trouble] > 3)
        self.figures.state = "misconfigured" if is_sure else "connecting"
        self.figures.why = why
        said = why if is_sure else trouble.value
        if said in self._said or (trouble is Trouble.REFUSED and not is_sure):
            return
        self._said.add(said)
        if is_sure:
            log.error("no events: the broker is not as [amqp] says", url=endpoint.display, why=why)
        else:
            log.warning("no events: the broker is away", url=endpoint.display, why=why)

    async def _serve(self, endpoint: AmqpEndpoint) -> None:
        amqp = self._amqp
        topology = plan(amqp, secrets.token_hex(6))

        async def mend(connection: Connection) -> None:
            await declare_asides(connection, amqp, topology)

        outbox = Outbox(lambda: self._nodes.connected(endpoint, "failed events"), mend)
        async with self._nodes.connected(endpoint, "events") as connection, trio.open_nursery() as nursery:
            nursery.start_soon(connection.wait_closed)
            await declare(connection, amqp, topology, self._before_making)
            nursery.start_soon(outbox.run)
            for delay_ms, queue in topology.retry_queues.items():
                await self._consume(nursery, connection, topology, outbox, queue=queue, delay_ms=delay_ms)
            await self._consume(nursery, connection, topology, outbox, queue=topology.queue, delay_ms=0)
            self._up(endpoint, topology)
            await self._look(connection, topology, outbox)

    async def _consume(
        self,
        nursery: trio.Nursery,
        connection: Connection,
        topology: Topology,
        outbox: Outbox,
        *,
        queue: str,
        delay_ms: int,
    ) -> None:
        prefetch = self._amqp.prefetch
        channel = await connection.channel()
        await channel.qos(prefetch)
        intake = Intake(self._shared, channel, topology, outbox)
        consumer = await channel.consume(queue)
        # Half of what may be outstanding: the other half is on its way meanwhile.
        most = max(min(MOST, prefetch // 2), 1)
        if delay_ms:
            nursery.start_soon(intake.run_when_due, consumer, most, delay_ms)
        else:
            nursery.start_soon(intake.run, consumer, most)

    async def _before_making(self) -> None:
        self._forget_queue()
        self._has_new_queue = True
        self._is_noted = await self._sink.queue_is_gone(self._amqp.queue)

    def _forget_queue(self) -> None:
        """Look at nothing that the queue owes until it is there: what comes before is lost, too."""
        self._queue_at = self._owing_since = math.inf

    def _up(self, endpoint: AmqpEndpoint, topology: Topology) -> None:
        figures = self.figures
        if topology.is_own:
            # The first time as well: nobody may have been there before, and L1 is in use since the start.
            self._owe(None, "this proxy had no queue until now")
        else:
            self._queue_at = self._shared.clock()
            if self._ups and self._shared.has_transient and self._amqp.queue_type == "classic":
                log.warning(
                    "publishers send events that do not outlive the broker: after each loss of the connection all is "
                    "flushed; have them publish with delivery mode 2"
                )
                self._owe(None, "events may have gone with the broker")
            self._shared.has_transient = False
        if self._has_lost_exchange:  # not before it is there again: what comes until then is lost, too
            self._has_lost_exchange = False
            self._owe(None, f"the exchange {self._amqp.exchange} was gone, and events with it")
        self._ups += 1
        figures.reconnects = self._ups - 1
        figures.state, figures.why, figures.url = "up", "", endpoint.display
        self._said.clear()
        self._wake.set()
        log.info("events come in", url=endpoint.display, queue=topology.queue)

    # Depths

    async def _look(self, connection: Connection, topology: Topology, outbox: Outbox) -> None:
        """Look at the queues, the exchange, and whether the broker takes messages, until the connection is lost."""
        figures, amqp = self.figures, self._amqp
        may_bind = True
        while True:
            at = "queue"
            try:
                channel = await connection.channel()
                while True:
                    at = "queue"
                    state = await channel.declare_queue(topology.queue, passive=True)
                    figures.depth, figures.consumers = state.messages, state.consumers
                    if may_bind:
                        at = "exchange"
                        # One that somebody has deleted and made anew has no bindings, and nobody is told of that.
                        await bind(channel, amqp, topology)
                        await channel.declare_exchange(amqp.exchange)
                    at = "dead letters"
                    state = await channel.declare_queue(topology.dead_letter_queue, passive=True)
                    figures.dead_depth = state.messages
                    await self._look_blocked(outbox)
            except ChannelClosedError as exc:
                if at == "dead letters":
                    figures.dead_depth = None  # the first dead letter mends it
                    await self._look_blocked(outbox)
                elif at == "exchange" and exc.code == ACCESS_REFUSED:
                    may_bind = False  # events come all the same
                else:
                    # Of the queue we should have been told: nothing comes from one that is gone.
                    self._has_lost_exchange |= at == "exchange" and exc.code == NOT_FOUND
                    raise

    async def _look_blocked(self, outbox: Outbox) -> None:
        self.figures.why = outbox.trouble
        why = outbox.blocked_reason
        if bool(why) != self.figures.is_blocked:
            self.figures.is_blocked = bool(why)
            if why:
                log.warning("the broker takes no messages; failed events wait", why=why)
            else:
                log.info("the broker takes messages again")
        await trio.sleep(LOOK_EVERY_S)

    def _unlook(self) -> None:
        self.figures.depth = self.figures.consumers = self.figures.dead_depth = None
        self.figures.is_blocked = False

    # What may have been missed

    def _owe(self, globs: tuple[str, ...] | None, reason: str, *, is_queue: bool = False) -> None:
        debt = _Debt(globs, reason, is_queue)
        if debt not in self._debts:
            self._debts.append(debt)
            self.figures.owed = len(self._debts)
        self._wake.set()

    async def _mind(self) -> None:
        """Find out what may have been missed, and flush it, until cancelled."""
        is_broken = False
        while True:
            with trio.move_on_after(MIND_EVERY_S):
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                await self._ask_queue()
                await self._find_holes()
                await self._pay()
                is_broken = False
            except Exception as exc:
                if not is_broken:
                    log.warning("gaps cannot be looked for", why=f"{type(exc).__name__}: {exc}")
                is_broken = True
                await trio.sleep(MIND_EVERY_S)

    async def _ask_queue(self) -> None:
        """Flush what was lost with the queue: at once where we have made it, else when who has made it does not."""
        queue, now, due_at = self._amqp.queue, self._shared.clock(), self._queue_at
        if now < due_at:
            return
        if self._has_new_queue:
            await self._sink.wait_up()
            self._is_noted = self._is_noted or await self._sink.queue_is_gone(queue)
            if not self._is_noted:
                return  # and again in half a second
        owes = await self._sink.queue_owes(queue)
        if self._queue_at != due_at:
            return  # the connection has gone meanwhile, and the queue perhaps with it
        if owes is None:  # Redis refuses to tell
            owes = self._has_new_queue
        self._owing_since = min(self._owing_since, now) if owes else math.inf
        if owes and (self._has_new_queue or now - self._owing_since >= OTHERS_FLUSH_S):
            self._owe(None, f"the queue {queue} was gone, and its events with it", is_queue=True)
        self._has_new_queue = False
        self._queue_at = now + OTHERS_FLUSH_S / 2

    async def _find_holes(self) -> None:
        for gap in await self._sink.take_holes():
            self.figures.gaps += 1
            publisher = gap.publisher.encode("utf-8", "surrogateescape")
            globs = next((globs for glob, globs in self._scopes if glob.matches(publisher)), None)
            log.warning("events are missing", publisher=gap.publisher[:100], first=gap.first, last=gap.last)
            self._owe(globs, f"events of {gap.publisher[:100]} are missing")

    async def _pay(self) -> None:
        while self._debts:
            # Everything is more than any part of it.
            debt = next((one for one in self._debts if one.globs is None), self._debts[0])
            covered = list(self._debts) if debt.globs is None else [debt]
            ups = self._ups
            if not await self._sink.flush(debt.globs, debt.reason):
                return  # and again in half a second
            self.figures.flushes += 1
            if any(one.is_queue for one in covered) and ups == self._ups and self._queue_at < math.inf:
                await self._sink.queue_is_flushed(self._amqp.queue)
            self._debts = [one for one in self._debts if all(one is not other for other in covered)]
            self.figures.owed = len(self._debts)
            log.warning("what may have been missed is flushed", why=debt.reason)
