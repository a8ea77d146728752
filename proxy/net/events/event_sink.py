"""Events made true: Redis first, then this worker's L1; the other proxies hear of it by push.

    apply --> absurd ones refused --> keys: marked as being written --> EVAL --> unmarked -----. --> outcomes
                                 '--> globs, tags: fences, set and announced --> in force here -'
    note, take_holes, flush: what a publisher counted and nobody got, and what it may have been about (event_gaps)
    queue_is_gone, queue_owes, queue_is_flushed: what went with a queue of the broker (queue_marks)

Owns the order, and that everybody who waits is answered. Once a key's event is applied, no reader here is given what L1
held of it, or what a read that was under way finds: it was marked until Redis had answered. A fence is set at the
server's present time, also for an event with a version: more than is needed may go, nothing that is older stays. It is
in force when `apply` returns; values that bear no version are judged by the sweeper, who removes them in its own time.
Exact keys wait for no sweep, which asks for a few keys a call, on a link where commands follow each other.

The clock of versions is not moved by an event's version: a publisher whose clock is ahead would take all values that
are written here along, and events of others would count as older than they are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import trio

from proxy.core.coordinator import (
    DB_MAX,
    Batch,
    FencePart,
    KeyPart,
    Part,
    error_of,
    failure_of,
    is_away,
    is_no_database,
)
from proxy.events.event import Event
from proxy.events.sink import Applied, Gap, Outcome
from proxy.log import get_logger
from proxy.net.events.event_gaps import EventGaps
from proxy.net.events.queue_marks import QueueMarks
from proxy.net.reactor import Reactor
from proxy.net.values.invalidator import Invalidator
from proxy.values.changes import announce_keys
from proxy.values.clock import AHEAD_MAX_MS, VERSION_BITS, HybridClock
from proxy.values.scripts import drop_older
from proxy.values.sequences import GRACE_MS
from proxy.values.telling import ChannelsTold, tell_channels
from proxy.wire.encode import bulk, command
from proxy.wire.reply import elements, text

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.net.worker import Worker

NAMES_AT_ONCE: Final = 1_000  # planned, and marked in L1, in one go: 1 to 2 ms in which nobody else is served
PARTS_AT_ONCE: Final = 8
HURRY_S: Final = 0.02  # more events are likely to come by then, and wait for nothing but their turn
PROBE: Final = command("UNLINK", "respite:up")  # what a server refuses that takes no writes just now
DATABASES_S: Final = 10.0
PROBE_FIRST_S: Final = 0.05
PROBE_MAX_S: Final = 0.25
TIME: Final = command("TIME")

OnApplied = Callable[[Event, Applied], None]
log = get_logger("events")


class EventSink:
    """The `Sink` of one worker. `on_applied` are told of each event once it is true, before its outcome is returned."""

    def __init__(
        self,
        reactor: Reactor,
        invalidator: Invalidator,
        *,
        engine: Engine,
        clock: HybridClock,
        db: int,
        globs: Callable[[], Sequence[bytes]],
        grace_ms: int = GRACE_MS,
    ) -> None:
        self.on_applied: list[OnApplied] = []
        self._reactor = reactor
        self._invalidator = invalidator
        self._engine = engine
        self._clock = clock
        self._db = db
        self._away: set[int] = set()  # databases that could not be asked
        self._channels_refused = False  # and that has been said
        self._databases = DB_MAX  # there are at most so many ..
        self._databases_until = 0.0  # .. as was heard a while ago
        self._queues = QueueMarks(self._ask)
        self._gaps = EventGaps(self._ask, self._set_fences, engine, reactor, db=db, globs=globs, grace_ms=grace_ms)

    async def apply(self, events: Sequence[Event]) -> list[Outcome]:
        """Make events true; one outcome an event, in their order. Never raises for what Redis does.

        A cancellation leaves open how much is done; what is marked in L1 is unmarked when Redis has answered all the
        same, or its link has ended.
        """
        self._reactor.hurry(HURRY_S)
        latest = await self._latest(events)
        outcomes: list[Outcome] = []
        for some in _slices(events):
            if self._engine.now >= self._databases_until:
                self._databases = DB_MAX
            batch = Batch(some, db=self._db, latest=latest, databases=self._databases)
            self.breathe()
            await self._run(batch.parts)
            if singles := batch.split():
                await self._run(singles)
            for part in batch.parts:
                if error := error_of(part):
                    self._learn(part.db if isinstance(part, KeyPart) else 0, error)
            outcomes += batch.outcomes()
            self.breathe()
        await self._tell_channels(events, outcomes)
        self._tell(events, outcomes)
        return outcomes

    def breathe(self) -> None:
        """Serve clients that wait for the loop that the caller holds."""
        self._reactor.turn()

    async def wait_up(self) -> None:
        """Return once Redis takes writes to the databases that it could not be asked about."""
        while True:
            for db in sorted(self._away | {self._db}):
                wait_s = PROBE_FIRST_S
                while True:
                    await trio.sleep(wait_s * (0.5 + random.random() / 2))
                    if not is_away(await self._ask(db, PROBE)):
                        break
                    wait_s = min(wait_s * 2, PROBE_MAX_S)
                self._away.discard(db)
            if not self._away:
                return

    async def note(self, events: Sequence[Event]) -> None:
        """Take note of the numbers of events. Those that Redis could not be told are told later."""
        await self._gaps.note(events)

    async def take_holes(self) -> list[Gap]:
        """Return the gaps that have stood for longer than the grace.

        Each is given to one sidecar, which is to flush it before it calls this again: that closes those of the last
        time, unless a `flush` has said False since. One that is never closed is given to the next after 10 s.
        """
        return await self._gaps.take()

    async def flush(self, globs: Sequence[str] | None, reason: str) -> bool:
        """Drop what may be out of date, in every database: what the globs take; None: every key of every class.

        By fences, as `apply` does it. With None all of L1 is dropped, too; keys of no class stay in Redis whatever was
        missed, for nothing says that they are a cache. False: Redis could not be asked, nothing is sure.
        """
        return await self._gaps.flush(globs, reason)

    async def queue_is_gone(self, queue: str) -> bool:
        """Note, before it is made, that a queue is not there; False: Redis could not be told."""
        return await self._queues.gone(queue)

    async def queue_owes(self, queue: str) -> bool | None:
        """Remember a queue that is there; return whether one of that name was lost, and nothing flushed for it yet."""
        return await self._queues.owes(queue)

    async def queue_is_flushed(self, queue: str) -> None:
        """Take note that what may have been lost with a queue is flushed."""
        await self._queues.flushed(queue)

    async def _latest(self, events: Sequence[Event]) -> int | None:
        """Return the highest version that is believed; None where it matters for none of these events.

        The clock here is never ahead of the server's. So only for what seems absurd the server itself is asked; if it
        does not tell, nothing is refused: such a version drops too much, never too little, and leaves nothing behind.
        """
        highest = max((event.version for event in events if event.version is not None), default=0)
        if not highest or highest >> VERSION_BITS <= self._clock.now_ms() + AHEAD_MAX_MS:  # 0 while it knows no time
            return None
        reply = await self._ask(0, TIME)
        if reply[:1] != b"*":
            return None
        seconds, us = (int(text(word)) for word in elements(reply))
        return (seconds * 1000 + us // 1000 + AHEAD_MAX_MS + 1 << VERSION_BITS) - 1

    async def _tell_channels(self, events: Sequence[Event], outcomes: list[Outcome]) -> None:
        """Tell the push channels that rules name besides, on all proxies; an event fails where Redis went away."""
        for at, (event, outcome) in enumerate(zip(events, outcomes, strict=True)):
            if event.then_publish and isinstance(outcome, Applied) and not outcome.is_old:
                channels = tuple(name.encode() for name in event.then_publish)
                db = self._db if event.db is None else event.db
                told = ChannelsTold(channels, event.keys, event.patterns, event.tags, event.version or 0, db)
                reply = await self._ask(0, tell_channels(told))
                if reply[:1] in (b"-", b"!"):
                    self._learn(0, reply)
                    failed = failure_of(reply)
                    if failed.is_away:
                        outcomes[at] = failed  # it comes again
                    elif not self._channels_refused:
                        self._channels_refused = True
                        log.warning("channels of then_publish could not be told", why=failed.reason)
                else:
                    self._channels_refused = False

    def _learn(self, db: int, error: bytes) -> None:
        """Remember what an error says of a database: each that is asked for takes a link that is tried for a minute."""
        if is_away(error):
            self._away.add(db)
        elif is_no_database(error):
            self._databases = min(self._databases, db)
            self._databases_until = self._engine.now + DATABASES_S

    async def _run(self, parts: Sequence[Part]) -> None:
        """Send parts, keys first, and wait until all are answered."""
        for at in range(0, len(parts), PARTS_AT_ONCE):
            replies = Replies()
            for part in parts[at : at + PARTS_AT_ONCE]:
                self._reactor.enter()
                if isinstance(part, KeyPart):
                    self._drop(part, replies)
                else:
                    self._fence(part, replies)
                self._reactor.flush()
                if len(parts) > 2:
                    await trio.lowlevel.checkpoint()
            await replies.wait()

    def _drop(self, part: KeyPart, replies: Replies) -> None:
        engine, l1 = self._engine, self._engine.l1
        names = [bulk(key) for key in part.keys]
        for name in names:
            before = len(l1)
            engine.begin_write((name,))
            part.entries.append(before - len(l1))
        engine.outage.invalidated(part.db, zip(part.keys, part.versions, strict=True))

        def then(reply: bytes) -> None:
            engine.end_write(names)
            part.reply = reply
            if self._invalidator.announces_keys and not error_of(part):  # the other proxies get no pushes
                self._invalidator.send(part.db, announce_keys(part.db, part.keys), replies.expect(announced))

        def announced(reply: bytes) -> None:
            if reply[:1] != b":":
                part.reply = reply

        raw = drop_older(part.db, list(zip(part.keys, part.versions, strict=True)))
        self._invalidator.send(part.db, raw, replies.expect(then))

    def _fence(self, part: FencePart, replies: Replies) -> None:
        def then(reply: bytes) -> None:
            part.reply = reply
            if reply[:1] == b"$":
                part.entries = self._invalidator.put_fences(part.db, part.globs, part.tags, reply)

        raw = self._invalidator.fence_command(part.db, part.globs, part.tags)
        self._invalidator.send(0, raw, replies.expect(then))

    async def _set_fences(self, db: int, globs: Sequence[bytes]) -> bytes:
        """Set fences for globs; return the error that kept one from being set, b"" for none."""
        part = FencePart(db, list(globs))
        await self._run([part])
        return error_of(part)

    async def _ask(self, db: int, raw: bytes) -> bytes:
        """Return the reply to a command of ours, or the error that says why there is none."""
        found: list[bytes] = []
        replies = Replies()
        self._reactor.enter()
        self._invalidator.send(db, raw, replies.expect(found.append))
        self._reactor.flush()
        await replies.wait()
        return found[0]

    def _tell(self, events: Sequence[Event], outcomes: Sequence[Outcome]) -> None:
        if not self.on_applied:
            return
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, Applied):
                for on_applied in self.on_applied:
                    try:
                        on_applied(event, outcome)
                    except Exception:
                        log.exception("bug", owner="on_applied")


class Replies:
    """Replies that somebody waits for, all of them."""

    def __init__(self) -> None:
        self._left = 0
        self._all_came = trio.Event()

    def expect(self, then: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Wait for one more: what takes it."""
        self._left += 1

        def take(reply: bytes) -> None:
            try:
                then(reply)
            finally:
                self._left -= 1
                if not self._left:
                    self._all_came.set()

        return take

    async def wait(self) -> None:
        """Return once all have come; all that will be expected are."""
        while self._left:
            self._all_came = trio.Event()
            await self._all_came.wait()


def make_event_sink(worker: Worker) -> EventSink:
    """Return the sink of a worker."""
    layer = worker.value_layer

    def globs() -> list[bytes]:
        return [glob.raw for rules in layer.values.rules.classes for glob in rules.globs]

    return EventSink(
        worker.reactor,
        layer.invalidator,
        engine=worker.engine,
        clock=layer.clock,
        db=worker.initial_db,
        globs=globs,
    )


def _slices(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Yield events in their order, in portions of not many more names than may be planned in one go."""
    start, names = 0, 0
    for at, event in enumerate(events):
        size = len(event.keys) + len(event.patterns) + len(event.tags)
        if names and names + size > NAMES_AT_ONCE:
            yield events[start:at]
            start, names = at, 0
        names += size
    if events:
        yield events[start:]
