"""What a read may find: the history of every key, with the times between which each change certainly happened.

A change has a number that rises by one, and leaves a state. It is begun when its command is sent and done when its
reply has come; only then is it certain. One writer at a time changes a key, so the numbers are the order in Redis.

    own floor       the newest change that a client of the same Respite was told of: no read started since may be older
    settled floor   the newest change of anybody that was done `bound_s` before the read started: the same
    done floor      the newest change of anybody: the same, for those who read from Redis itself

A read may be answered as any state between its floor and now would answer it, and as none else. Nobody promises that
two reads of one connection never go back between those: one may come from Redis and the next from L1.

Owns what is a violation. Knows no socket and no clock of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import attrs

from .reads import Read
from .states import NOTHING, State

FOREVER = float("inf")
EXPIRY_SLACK_S = 0.05
"""Redis counts in whole milliseconds, and a process that is ready to run may have to wait for a core."""

DIRECT = -1
"""Who talks to Redis itself; who talks to a Respite has its number, from 0 on."""

RESPITES = 2
KEPT = 1000  # changes of a key: those of more than a bound


@attrs.frozen
class Start:
    """What is known when a read of a key starts."""

    at: float
    who: int
    floor: int
    is_own: bool = False  # the floor is one that this Respite knows of


@attrs.define(eq=False)
class Change:
    """One change and the state that it leaves. Between `gone_after` and `gone_by` the value expires.

    Who hears later than others that it is to expire has an end of his own in `gone_for`.
    """

    number: int
    state: State
    begun_at: float = 0.0
    done_at: float = FOREVER  # never: what has become of it is not known
    who: int | None = None  # who was told so
    gone_after: float = FOREVER
    gone_by: float = FOREVER
    gone_for: dict[int, float] = attrs.field(factory=dict)

    @property
    def exists(self) -> bool:
        """Tell whether it leaves a value."""
        return self.state is not NOTHING

    def states(self, start: Start, end: float) -> Iterator[State]:
        """Give what may be found of it until `end`: its value, and nothing when that may have expired."""
        if start.at <= self.gone_for.get(start.who, self.gone_by):
            yield self.state
        if self.exists and self.gone_after <= end:
            yield NOTHING

    def describe(self, now: float) -> str:
        """Say all that is known, the times in seconds from now."""
        known = f"done {self.done_at - now:.3f} by {self.who}" if self.who is not None else "of unknown outcome"
        life = f", gone {self.gone_after - now:.3f} to {self.gone_by - now:.3f}" if self.gone_after != FOREVER else ""
        return f"{self.number}: begun {self.begun_at - now:.3f}, {known}{life}: {str(self.state.value)[:400]}"


@attrs.define(eq=False)
class Register:
    """One key of one database."""

    db: int
    key: bytes
    families: tuple[str, ...]
    writers: str = "both"  # "own", "foreign" or "both"
    is_busy: bool = False  # somebody writes it
    changes: list[Change] = attrs.field(factory=lambda: [Change(0, NOTHING)])
    own_floors: list[int] = attrs.field(factory=lambda: [0] * RESPITES)
    settled_floor: int = 0
    done_floor: int = 0
    _settling: deque[tuple[float, int]] = attrs.field(factory=deque)

    @property
    def last(self) -> Change:
        """The change begun last."""
        return self.changes[-1]

    @property
    def lasts(self) -> bool:
        """Tell whether the last change has left a value that does not expire."""
        return self.last.exists and self.last.gone_after == FOREVER

    def begin(self, now: float, state: State, *, lifetime_s: float = FOREVER) -> Change:
        """Note that a change is sent."""
        gone_after = now + lifetime_s - EXPIRY_SLACK_S
        change = Change(self.last.number + 1, state, begun_at=now, gone_after=gone_after)
        self.changes.append(change)
        if len(self.changes) > 2 * KEPT:
            del self.changes[:KEPT]
        return change

    def done(self, change: Change, now: float, *, who: int, lifetime_s: float = FOREVER) -> None:
        """Note that a change, and those before it, have certainly happened."""
        change.done_at, change.who = now, who
        change.gone_by = now + lifetime_s + EXPIRY_SLACK_S
        self._settling.append((now, change.number))
        self.done_floor = max(self.done_floor, change.number)
        if who != DIRECT:
            self.own_floors[who] = max(self.own_floors[who], change.number)

    def begin_expiry(self, now: float, lifetime_s: float) -> None:
        """Note that the value there is is about to be given a shorter life."""
        self.last.gone_after = min(self.last.gone_after, now + lifetime_s - EXPIRY_SLACK_S)

    def done_expiry(self, now: float, lifetime_s: float, *, who: int, bound_s: float) -> None:
        """Note that it has been. What another Respite had of the value before is only old, as long as it may be."""
        self.last.gone_by = min(self.last.gone_by, now + lifetime_s + EXPIRY_SLACK_S)
        for other in range(RESPITES):
            if other != who:
                self.last.gone_for[other] = now + max(lifetime_s, bound_s) + EXPIRY_SLACK_S

    def start(self, now: float, bound_s: float, who: int) -> Start:
        """Return what a read that starts now must not fall behind."""
        settling = self._settling
        while settling and settling[0][0] <= now - bound_s:
            self.settled_floor = max(self.settled_floor, settling.popleft()[1])
        if who == DIRECT:
            return Start(now, who, self.done_floor, is_own=True)
        own_floor = self.own_floors[who]
        return Start(now, who, max(own_floor, self.settled_floor), is_own=own_floor >= self.settled_floor)

    def judge(self, start: Start, end: float, read: Read, reply: Any, *, before: int | None = None) -> str:
        """Return what is wrong with what a read has found, "" when nothing is.

        `before` is the number of a change that the reader itself asked for after this read, in the same pipeline.
        """
        try:
            got = read.see(reply)
        except (AttributeError, IndexError, LookupError, TypeError, ValueError) as error:
            return f"an odd reply ({error!r})"
        for change in reversed(self.changes):
            if change.number < start.floor:
                break
            if before is not None and change.number >= before:
                continue
            if any(read.expect(state) == got for state in change.states(start, end)):
                return ""
        return self._explain(start, read, got, before)

    def history(self, now: float, count: int) -> list[str]:
        """Describe the last changes."""
        return [change.describe(now) for change in self.changes[-count:]]

    def _explain(self, start: Start, read: Read, got: Any, before: int | None) -> str:
        for change in reversed(self.changes):
            if read.expect(change.state) != got:
                continue
            if before is not None and change.number >= before:
                return f"change {change.number}, which was asked for behind the read"
            if change.number < start.floor:
                kind = "own" if start.is_own else "foreign"
                return f"change {change.number}, although {kind} change {start.floor} was known"
            return f"change {change.number}, {start.at - change.gone_by:.3f} s after its expiry"
        if read.expect(NOTHING) == got:
            return f"nothing, although change {start.floor} was known and nothing has deleted it since"
        return "what never was"
