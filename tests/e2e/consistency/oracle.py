"""What a read may find: the history of every key, with the times between which each change certainly happened.

A change has a number that rises by one. It is begun when its command is sent and done when its reply has come; only
then is it certain. One writer at a time changes a key, so the numbers are the order in Redis.

    own floor       the newest change that a client of Respite was told of: no read started since may find an older one
    settled floor   the newest change of anybody that was done `bound_s` before the read started: the same

Owns what is a violation. Knows no socket and no clock of its own.
"""

from __future__ import annotations

from collections import deque

import attrs

FOREVER = float("inf")
EXPIRY_SLACK_S = 0.05
"""Redis counts in whole milliseconds, and a process that is ready to run may have to wait for a core."""


@attrs.define
class Change:
    """One change: `exists` says what it leaves. Between `gone_after` and `gone_by` the value expires."""

    number: int
    exists: bool
    begun_at: float
    gone_after: float = FOREVER
    gone_by: float = FOREVER


@attrs.frozen
class Start:
    """What is known when a read of a key starts."""

    at: float
    floor: int


@attrs.define(eq=False)
class Register:
    """One key of one database."""

    db: int
    key: bytes
    index: int  # unique over all registers: what a counter's value starts with
    is_counter: bool = False
    pad_bytes: tuple[int, ...] = (0,)
    writers: str = "both"  # "own", "foreign" or "both"
    is_busy: bool = False  # somebody writes it
    changes: list[Change] = attrs.field(factory=lambda: [Change(0, exists=False, begun_at=0.0)])
    own_floor: int = 0
    settled_floor: int = 0
    _settling: deque[tuple[float, int]] = attrs.field(factory=deque)

    @property
    def last(self) -> Change:
        """The change begun last."""
        return self.changes[-1]

    def value(self, number: int) -> bytes:
        """Return the value that tells which change it is from."""
        if self.is_counter:
            return b"%d" % (self.index * 1_000_000_000 + number)
        head = b"%d|%b|%d|" % (self.db, self.key, number)
        return head.ljust(self.pad_bytes[number % len(self.pad_bytes)], b".")

    def number(self, value: bytes) -> int | None:
        """Return the change a value is from; None when it is not this key's."""
        if self.is_counter:
            index, number = divmod(int(value), 1_000_000_000) if value.isdigit() else (-1, 0)
            return number if index == self.index else None
        db, _, rest = value.partition(b"|")
        key, _, rest = rest.partition(b"|")
        number_text, _, _ = rest.partition(b"|")
        if db != b"%d" % self.db or key != self.key or not number_text.isdigit():
            return None
        return int(number_text) if value == self.value(int(number_text)) else None

    def begin(self, now: float, *, exists: bool, lifetime_s: float = FOREVER) -> Change:
        """Note that a change is sent."""
        change = Change(self.last.number + 1, exists, now, gone_after=now + lifetime_s - EXPIRY_SLACK_S)
        self.changes.append(change)
        return change

    def done(self, change: Change, now: float, *, own: bool, lifetime_s: float = FOREVER) -> None:
        """Note that a change has certainly happened."""
        change.gone_by = now + lifetime_s + EXPIRY_SLACK_S
        self._settling.append((now, change.number))
        if own:
            self.own_floor = max(self.own_floor, change.number)

    def begin_expiry(self, now: float, lifetime_s: float) -> None:
        """Note that the value there is is about to be given a shorter life."""
        self.last.gone_after = min(self.last.gone_after, now + lifetime_s - EXPIRY_SLACK_S)

    def done_expiry(self, now: float, lifetime_s: float, *, own: bool, bound_s: float) -> None:
        """Note that it has been. What L1 had of a stranger's value before is only old, as long as it may be."""
        known_by = now if own else now + bound_s
        self.last.gone_by = min(self.last.gone_by, max(now + lifetime_s, known_by) + EXPIRY_SLACK_S)

    def start(self, now: float, bound_s: float) -> Start:
        """Return what a read that starts now must not fall behind."""
        settling = self._settling
        while settling and settling[0][0] <= now - bound_s:
            self.settled_floor = max(self.settled_floor, settling.popleft()[1])
        return Start(now, max(self.own_floor, self.settled_floor))

    def judge(self, start: Start, end: float, value: bytes | None, *, before: int | None = None) -> str:
        """Return what is wrong with what a read has found, "" when nothing is.

        `before` is the number of a change that the reader itself asked for after this read, in the same pipeline.
        """
        if value is None:
            return self._judge_nil(start, end)
        number = self.number(value)
        if number is None:
            return f"belongs to another key: {value[:40]!r}"
        if number > self.last.number or not self.changes[number].exists:
            return f"change {number} never was"
        if number < start.floor:
            kind = "own" if self.own_floor >= start.floor else "foreign"
            return f"change {number}, although {kind} change {start.floor} was known"
        if before is not None and number >= before:
            return f"change {number}, which was asked for behind the read"
        if start.at > self.changes[number].gone_by:
            return f"change {number}, {start.at - self.changes[number].gone_by:.3f} s after its expiry"
        return ""

    def _judge_nil(self, start: Start, end: float) -> str:
        for change in reversed(self.changes):
            if change.number < start.floor:
                break
            if not change.exists or change.gone_after <= end:
                return ""
        return f"nothing, although change {start.floor} was known and nothing has deleted it since"
