"""Who takes a client's place in one command that has a fallback.

    client.queue [..][GuardSlot]        what the client is owed
                        ^
    StandIn.queue [slot]                what the pipeline owes for the command, as ever: it never knows

The pipeline, and every slot it makes, sees a client as any other. When the reply is an error of ours that says that
Redis did not answer, the fallbacks are asked before the client is told; a read that has none is asked once more, on
the next link. Owns nothing but this one command.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from proxy import errors
from proxy.core.fill_slots import JoinSlot, MgetSlot
from proxy.core.slots import WHOLE, EffectSlot, Failure, ReadSlot, Slot
from proxy.wire.commands import LANE_READ, READ_KINDS, CommandSpec, Kind
from proxy.wire.encode import bulk
from proxy.wire.request import Raw, RequestParser

if TYPE_CHECKING:
    from proxy.cache.entry import Namespace
    from proxy.core.downstream import Downstream, PinnedConnection
    from proxy.core.outage.fallbacks import Fallbacks
    from proxy.core.rights.rights import Rights
    from proxy.core.session import Session
    from proxy.core.slots import Link
    from proxy.wire.request import Request

FAILURES: Final = {
    errors.UPSTREAM_UNAVAILABLE: Failure.UNAVAILABLE,
    errors.UPSTREAM_OVERLOADED: Failure.OVERLOADED,
    errors.UPSTREAM_LOST: Failure.LOST,
    errors.UPSTREAM_TIMED_OUT: Failure.TIMED_OUT,
}
BRIEF: Final = (b"-LOADING ", b"-MASTERDOWN ", b"-BUSY ")
"""What Redis says while it cannot answer, and will again."""
REFUSALS: Final = (*BRIEF, b"-ERR max number of clients")
"""What is said to those for whom there is no link while Redis lets nobody in, and what a link that stands may hear."""


def failure_of(reply: bytes) -> Failure | None:
    """Return why Redis did not answer a command, if its reply is an error that says so."""
    return Failure.REFUSED if reply.startswith(REFUSALS) else FAILURES.get(reply)


class StandIn:
    """`core.downstream.Downstream` for one command.

    Its queue is the client's own until something is owed: only then the client owes it, too.
    """

    __slots__ = (
        "_cut",
        "_fallbacks",
        "_guard",
        "_is_again",
        "_is_counted",
        "_joins",
        "_raw",
        "_words",
        "classed",
        "client",
        "ended",
        "muting",
        "namespace",
        "parked",
        "queue",
        "rights",
        "session",
        "shadow",
        "since",
    )

    def __init__(
        self, fallbacks: Fallbacks, client: Downstream, raw: Raw, words: tuple[CommandSpec, list[bytes]] | None
    ) -> None:
        self.client = client
        self.session: Session = client.session
        self.rights: Rights = client.rights
        self.namespace: Namespace | None = client.namespace
        self.shadow: Namespace | None = client.shadow
        self.queue: deque[Slot] = client.queue
        self.parked = client.parked
        self.classed = client.classed
        self.ended = client.ended
        self.muting = False  # the client mutes its own slot
        self.since = fallbacks.engine.now
        self._fallbacks = fallbacks
        self._raw = raw
        self._words = words
        self._guard: Slot | None = None  # the client's place in its own queue
        self._joins = 0
        self._is_again = False
        self._is_counted = False  # as one that failed: there was no link for it
        self._cut = False  # a reply that was arriving will not go on

    @property
    def words(self) -> tuple[CommandSpec, list[bytes]]:
        """What the command is, and its words."""
        if self._words is None:
            requests: list[Request] = []
            RequestParser().parse(bytes(self._raw), requests)
            args = [bytes(word) for word in requests[0][0]]
            self._words = self.client.rights.table.find(args), args
        return self._words

    @property
    def is_answered(self) -> bool:
        """Return whether the client has its reply, or half of it."""
        guard = self._guard
        return guard is None or guard.reply is not None or guard.parts is not None or guard.streams

    @property
    def is_awaited(self) -> bool:
        """Return whether the client is still there, and has no reply yet."""
        return not self.is_answered and self._guard is not None and self._guard.mode is WHOLE

    def hurry(self) -> None:
        """Give the client what L1 held, if there is something; the read goes on, to fill L1."""
        spec, args = self.words
        reply = self._fallbacks.stale(self.client, spec, args)
        if reply is not None and not self.is_answered:
            self._fallbacks.ended(self)
            self._deliver(reply)

    # -- what slots and the pipeline ask of a client ------------------------------------------------------------------

    @property
    def joins(self) -> int:
        """How many JoinSlots of the command are not answered; while it waits for them the client does, too."""
        return self._joins

    @joins.setter
    def joins(self, joins: int) -> None:
        if self._guard is None or self._guard.reply is None:
            self.client.joins += joins - self._joins
        self._joins = joins

    def owe(self, slot: Slot) -> None:
        """Take the slot of the command; the client owes another in its place."""
        if self._guard is None:
            is_write = self._words is not None and self._words[0].is_write
            self._guard = EffectSlot(self.client) if is_write else Slot(self.client)
            self.client.owe(self._guard)
            self.queue = deque()
            self._fallbacks.begun(self)
            self._fallbacks.wait(self)
        self.queue.append(slot)

    def settle(self) -> None:
        """Take the reply."""
        reply = self.queue.popleft().reply
        assert reply is not None
        self._finish(reply)

    def reply(self, raw: bytes) -> None:
        """Take a reply that was known at once."""
        self._finish(raw)

    def stream(self, part: bytes) -> None:
        """Take a part of the reply."""
        guard = self._guard
        if guard is not None and guard.reply is None:
            guard.partial(part)

    def abort(self, why: str) -> None:
        """Take note that the reply that was arriving will not go on; a client that has some of it is cut off."""
        guard = self._guard
        if guard is not None and guard.reply is None:
            if guard.streams:
                self.client.abort(why)
            else:
                guard.parts = None
                self._cut = True

    def ask(self, raw: Raw, slot: Slot) -> None:
        """Submit a read for a slot of ours."""
        self.client.ask(raw, slot)

    def ask_again(self, raw: Raw, slot: Slot) -> bool:
        """Return False: whether the read is asked once more is decided here, when there is nothing else."""
        return False

    def _finish(self, reply: bytes) -> None:
        """Answer, if nothing better can be said."""
        self._fallbacks.ended(self)
        if self._guard is not None and self._guard.reply is not None:
            return  # it was answered when it took too long
        if self._cut:
            self._cut = False
            # Of a write it says that Redis has done it: that is not to be done again.
            reply = errors.UPSTREAM_LOST if self.words[0].is_write else errors.UPSTREAM_UNAVAILABLE
        if reply[:1] != b"-":
            self._fallbacks.refreshed(self)
            self._deliver(reply)
            return
        failure = failure_of(reply)
        if failure is None:
            self._deliver(reply)
            return
        spec, args = self.words
        found = self._fallbacks.answer(self.client, spec, args, failure)
        if found is not None:
            self._fallbacks.saved(Failure.UNAVAILABLE if self._is_counted else failure)
            self._deliver(found)
        elif not self._retry(spec, args, failure):
            self._deliver(reply)

    def _retry(self, spec: CommandSpec, args: list[bytes], failure: Failure) -> bool:
        """Read once more, on the link that comes next; only what was on its way when its link was lost."""
        guard = self._guard
        is_plain = spec.lane == LANE_READ and not (spec.blocks_if and spec.may_block(args))
        if guard is None or guard.streams or self._is_again or not (is_plain or spec.kind in READ_KINDS):
            return False
        if failure not in (Failure.LOST, Failure.UNAVAILABLE, Failure.TIMED_OUT):
            return False
        self._is_again = True
        engine = self._fallbacks.engine
        keys = [bulk(key) for key in args[1:]]
        slot: Slot
        if spec.kind is Kind.MGET:
            slot = fetching = MgetSlot(self, engine, [None] * len(keys), [None] * len(keys))
            fetching.keys = keys if engine.judge is not None else []
        elif is_plain:
            slot = ReadSlot(self, self._raw)
        else:
            slot = JoinSlot(self, bytes(self._raw), engine)
        slot.submitted_at = self.since
        self.queue.append(slot)
        if not self.client.ask_again(self._raw, slot):
            self.queue.clear()
            self.joins = 0
            return False
        if self.queue:  # it was not answered at once
            self._fallbacks.begun(self)
        return True

    def _deliver(self, reply: bytes) -> None:
        guard = self._guard
        if guard is None:
            self.client.reply(reply)
            return
        self.client.joins -= self._joins
        guard.land(reply)

    # -- the rest is the client's -------------------------------------------------------------------------------------

    @property
    def pin(self) -> PinnedConnection | None:
        """The connection the client has to itself."""
        return self.client.pin

    @property
    def leaving(self) -> bool:
        """Whether the client is about to leave."""
        return self.client.leaving

    @property
    def unproven(self) -> bool:
        """Whether Redis has not let the client in yet."""
        return self.client.unproven

    def route(self) -> Link | None:
        """Return the client's shared link."""
        return self.client.route()

    def why_not(self) -> bytes:
        """Return the error for a command that has no link."""
        self._is_counted = True
        return self.client.why_not()

    def park(self, why: str, requests: list[Request]) -> None:
        """Park the client."""
        self.client.park(why, requests)

    def pin_down(self, *, anywhere: bool = False) -> bool:
        """Get a connection for the client."""
        return self.client.pin_down(anywhere=anywhere)

    def unpin(self) -> None:
        """End the client's pinned link."""
        self.client.unpin()

    def rescope(self) -> None:
        """Have the client follow its session."""
        self.client.rescope()

    def quit(self) -> None:
        """Close the client after what it is owed."""
        self.client.quit()

    def give_up(self, args: list[bytes]) -> None:
        """Tell the client that a command has failed."""
        self.client.give_up(args)
