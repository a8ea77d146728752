"""What a command gets that Redis does not answer: what a memory says, what L1 held, or the usual error.

    a command of a class with a fallback --begin--> StandIn: it is routed as ever, in the client's place
    writes of a short reply, Redis is up -----------> FallbackSlot: those that follow each other in one (core.pipeline)
        no link, its slot failed, LOADING or BUSY --> answer: memory, else what L1 held   else the error
        upstream.soft_timeout is over             --> what L1 held, while the fetch goes on

Owns which commands have a fallback, and the choice. `engine.guards` is this, or None while no class has one: commands
of other classes then pay a test of that, and nothing else.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Entry, Scope
from proxy.core.gather import is_joined, joined, split
from proxy.core.outage.stand_in import StandIn
from proxy.core.slots import Failure
from proxy.wire.commands import READ_KINDS, CommandSpec, Kind
from proxy.wire.encode import array, bulk, command, unbulk

if TYPE_CHECKING:
    from proxy.core.downstream import Downstream
    from proxy.core.engine import Engine
    from proxy.core.outage.fallback_slot import FallbackSlot
    from proxy.core.outage.outage import Outage
    from proxy.wire.request import Raw

STALE: Final = "served stale"
"""In the journal, for RESPITE EXPLAIN."""
LATE: Final = "a reply took longer than upstream.soft_timeout"
_NOT_DONE: Final = (Failure.REFUSED, Failure.OVERLOADED)
"""Redis is there and has not done it: what it holds is not to be guessed, unless it counts as away by now."""
_WITHOUT: Final = (Kind.DENIED, Kind.SCRIPT, Kind.BLOCKING, Kind.ONCE, Kind.STICKY, Kind.UNKNOWN)


class Fallbacks:
    """Answer instead of Redis. One a worker."""

    def __init__(self, engine: Engine, outage: Outage) -> None:
        self.soft_timeout_s = 0.0  # upstream.soft_timeout; 0 = off
        self.late_s = 0.0  # who has waited for longer when Redis is back is on a link that stays silent
        self.stale_served: Counter[str] = Counter()  # by class
        self.engine = engine
        self.outage = outage
        self._waiting: deque[StandIn | FallbackSlot] = deque()  # for the soft timeout, in the order they were asked
        self._pending: set[StandIn] = set()  # those that are not answered

    def wants(self, spec: CommandSpec, args: Sequence[bytes]) -> bool:
        """Return whether a command may be answered otherwise if Redis does not."""
        finder = spec.every_key
        if finder is None or len(args) < 2 or spec.kind in _WITHOUT:
            return False
        is_read = spec.kind in READ_KINDS
        if not is_read and not self.outage.takes_commands:
            return False
        find = self.outage.find_class
        for key in finder(args):
            rules = find(bytes(key))
            if rules is not None and (rules.offline == "memory" or (is_read and rules.stale_if_error_s > 0)):
                return True
        return False

    def has_key(self, key: bytes) -> bool:
        """Return whether a read of a key (as a bulk string) may be answered otherwise."""
        rules = self.outage.find_class(unbulk(key))
        if rules is not None and rules.has_fallback:
            return True
        memory = self.outage.memory
        return memory is not None and memory.is_holding and memory.has(unbulk(key))

    def begin(
        self, client: Downstream, raw: Raw, words: tuple[CommandSpec, list[bytes]] | None = None
    ) -> StandIn | None:
        """Let a command be answered otherwise: who is to take the client's place in it; None: it is answered.

        `words` spare reading `raw` again, where they are known. In a connection for which classes have no effect there
        is no fallback: who stands in does nothing but pass on.
        """
        stand_in = StandIn(self, client, raw, words)
        memory = self.outage.memory
        if memory is not None and memory.is_holding and client.classed:
            spec, args = stand_in.words
            reply = memory.first(client, spec, args)
            if reply is not None:
                client.reply(reply)
                return None
        return stand_in

    def wait(self, waits: StandIn | FallbackSlot) -> None:
        """Give a read what L1 held when Redis takes longer than the soft timeout."""
        if self.soft_timeout_s:
            self._waiting.append(waits)

    def begun(self, stand_in: StandIn) -> None:
        """Note that a command waits for Redis, until `ended`."""
        self._pending.add(stand_in)

    def ended(self, stand_in: StandIn) -> None:
        """Note that a command has its reply."""
        self._pending.discard(stand_in)

    def end_outage(self) -> None:
        """Let go of what L1 held: Redis is back. Who waits on a link that stays silent, though, gets it before."""
        if self.outage.remains.is_empty:
            return
        asked_until = self.engine.now - self.late_s
        for stand_in in list(self._pending):
            if not stand_in.is_answered and stand_in.since <= asked_until:
                stand_in.hurry()
        self.outage.remains.clear()

    def saved(self, failure: Failure) -> None:
        """Count one failure less: its command is answered after all, or asked again."""
        if failure is not Failure.REFUSED:
            self.engine.stats.failed -= 1

    def refreshed(self, stand_in: StandIn) -> None:
        """Note that Redis has answered a read: nobody reads anything older of it any more."""
        if not self.outage.remains.is_empty:
            spec, args = stand_in.words
            for key in spec.every_key(args) if spec.every_key is not None else ():
                self.outage.remains.drop(bulk(key))

    def tick(self, now: float) -> None:
        """Answer the reads whose soft timeout is over."""
        waiting = self._waiting
        while waiting and (waiting[0].is_answered or now - waiting[0].since >= self.soft_timeout_s):
            waits = waiting.popleft()
            if not waits.is_answered:
                self.outage.slow(LATE)
                waits.hurry()

    def answer(self, client: Downstream, spec: CommandSpec, args: list[bytes], failure: Failure) -> bytes | None:
        """Return the reply of a command that has no link, or whose slot failed; None: the usual error."""
        if not client.classed:
            return None
        memory = self.outage.memory
        if self.outage.breaker.is_open and (failure in _NOT_DONE or not spec.is_write):
            failure = Failure.UNAVAILABLE  # a read leaves nothing behind, and what Redis refuses was not done
        if memory is not None and failure not in _NOT_DONE:
            reply = memory.take(client, spec, args, failure)
            if reply is not None:
                return reply
        return self.stale(client, spec, args)

    def stale(self, client: Downstream, spec: CommandSpec, args: list[bytes]) -> bytes | None:
        """Return the reply to a read from what L1 held; None when it holds none, or not all of it."""
        if not self.outage.longest_s or spec.kind not in READ_KINDS or len(args) < 2 or not client.classed:
            return None
        session = client.session
        scope = Scope(session.identity.user, session.db, session.protocol)
        read = spec.read
        if spec.kind is Kind.GET:
            parts = [self.last(scope, bulk(bytes(args[1])), None)] if len(args) == 2 else [None]
        elif is_joined(spec, args) and scope.user in self.engine.selective:
            return None  # as while Redis is there
        elif spec.kind is Kind.MGET:
            if not self._is_shared(scope):
                return None
            parts = [self.last(scope, bulk(bytes(key)), None) for key in args[1:]]
        elif read is not None and read.join and len(args) - read.tail > 2:
            parts = [self.last(scope, key, request) for key, request in split(read, args)]
        else:
            parts = [self.last(scope, bulk(bytes(args[1])), command(*args))]
        found = [entry for entry in parts if entry is not None]
        if len(found) < len(parts):
            return None
        self._count(found)
        replies = [entry.reply for entry in found]
        if spec.kind is Kind.MGET:
            return array(replies)
        return replies[0] if len(replies) == 1 or read is None else joined(read, replies)

    def _is_shared(self, scope: Scope) -> bool:
        """Return whether Redis lets who reads by GET read by MGET, too."""
        was_shared = self.outage.remains.is_shared(scope)
        namespace = self.engine.l1.namespaces.get(scope)
        return was_shared if was_shared is not None else namespace is not None and namespace.is_shared is True

    def last(self, scope: Scope, key: bytes, request: bytes | None) -> Entry | None:
        """Return what L1 held last, if it may still be served."""
        engine, outage = self.engine, self.outage
        rules = outage.find_class(unbulk(key))
        if rules is None or not rules.stale_if_error_s or not engine.enabled:
            return None
        left = outage.remains.find(scope, key, request)
        if left is not None:
            entry, true_until = left
        else:
            namespace = engine.l1.namespaces.get(scope)
            if namespace is None or engine.l1.hidden:
                return None
            held: Entry | None = namespace.resident.get(key) if request is None else namespace.replies.get(request)
            if held is None:
                return None
            entry, true_until = held, outage.proven_until(rules)
        if entry.deadline < 0 and (engine.fenced is None or engine.fenced.has_gone(entry)):
            return None
        ends_at = min(entry.ends_at, true_until)
        return entry if engine.now < ends_at + rules.stale_if_error_s else None

    def _count(self, entries: Sequence[Entry]) -> None:
        engine = self.engine
        for entry in entries:
            rules = self.outage.find_class(unbulk(entry.key))
            if rules is not None:
                self.stale_served[rules.name] += 1
            engine.journal.note((engine.now, STALE, entry.key))
