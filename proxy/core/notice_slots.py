"""Notices of writes under way: what Redis answers to a write, to what announces it, and to the transaction around both.

Owns how a notice and its write are told apart again, and when a write is to be sent without one. What is announced, and
who may, is `core.notices`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

from proxy.core.plain import StepSlot
from proxy.core.slots import Failure, Slot
from proxy.events.notices import CLASS, MISSED_KEY, OUTBOX_KEY
from proxy.wire.encode import command
from proxy.wire.reply import elements, frames
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.core.notices import Notices
    from proxy.core.pinning import Pinning
    from proxy.core.slots import Client, Link
    from proxy.values.rules import ClassRules

MULTI: Final = command("MULTI")
EXEC: Final = command("EXEC")
ABORTED: Final = b"-EXECABORT Transaction discarded because of: "
"""What Redis puts before the error that it ends a transaction with, at EXEC."""
# None of these has an effect: an id that is always refused, nothing to delete, no transaction. Who may not, is told so.
PROBE: Final = b"".join(
    (
        EXEC,
        command("XADD", OUTBOX_KEY, "0-0", CLASS, ""),
        command("XDEL", OUTBOX_KEY, "0-0"),
        command("HLEN", MISSED_KEY),
    )
)
_PROBES: Final = 4

_NOTHING_IF_ZERO: Final = frozenset(
    [
        *(b"SETNX", b"MSETNX", b"MSETEX", b"RENAMENX", b"COPY", b"MOVE", b"HSETNX", b"LPUSHX", b"RPUSHX"),
        *(b"DEL", b"UNLINK", b"DELEX", b"HDEL", b"SREM", b"ZREM", b"LREM", b"XDEL", b"SADD", b"SMOVE", b"PFADD"),
        *(b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT", b"XTRIM", b"ZREMRANGEBYSCORE", b"ZREMRANGEBYRANK"),
        *(b"ZREMRANGEBYLEX", b"RESPITE|SETV"),
    ]
)
_NOTHING_IF_NIL: Final = frozenset(
    [b"SET", b"GETDEL", b"LPOP", b"RPOP", b"SPOP", b"RPOPLPUSH", b"LMOVE", b"LMPOP", b"ZMPOP", b"GETEX"]
)
_BLOCKED_NIL: Final = (b"$-1", b"*-1", b"_\r\n")

Who = tuple[bytes, int]
"""A user and a database."""


@attrs.frozen
class Notice:
    """What enters the outbox with one write: commands, and how to tell that the write did nothing."""

    raws: tuple[bytes, ...]
    name: bytes
    classes: tuple[ClassRules, ...]
    db: int
    """Of its keys."""
    gives_value: bool = False
    """Its reply is an old value: that there was none says nothing."""
    is_script: bool = False
    is_coarse: bool = False
    is_owed: bool = False
    """Nothing enters the outbox with it; once the write is done, its classes are owed a notice."""

    def is_void(self, reply: bytes) -> bool:
        """Return whether a reply says that nothing was changed."""
        if reply[:1] in (b"-", b"!"):
            return not self.is_script or reply.startswith(b"-NOSCRIPT")
        if self.name in _NOTHING_IF_ZERO:
            return reply == b":0\r\n"
        return self.name in _NOTHING_IF_NIL and not self.gives_value and reply[:3] in _BLOCKED_NIL


@attrs.frozen
class Bound:
    """The notice of a write that is under way, on its link."""

    notices: Notices
    link: Link
    who: Who
    notice: Notice

    def submit_loose(self, raw: Raw, slot: Slot) -> None:
        """Send the write and its notice behind each other, with no transaction around them."""
        self.link.submit(b"".join((raw, *self.notice.raws)), NoticeSlot(self, raw, slot, is_atomic=False))

    def executed(self, replies: Sequence[bytes]) -> bytes | None:
        """Take the replies to MULTI, the write, the notices, EXEC; return the write's own.

        None: nothing was done, because Redis takes no notices; the write is to be sent as `bare` has it.
        """
        notices, notice = self.notices, self.notice
        multi, queued, *ours, done = replies
        if multi[:1] in (b"-", b"!"):  # no transaction for this user: each was done by itself
            notices.refuse(self.who, multi)
            notices.settle(self.who, self.link, notice, queued, ours)
            return queued
        if queued[:1] in (b"-", b"!") and not queued.startswith(b"-OOM"):
            return queued  # Redis would have said so without a transaction, too
        if done[:1] != b"*" or done[:2] == b"*-":
            # Without memory to spare Redis queues nothing at all, and would do what frees some.
            refused = next((one for one in (queued, *ours) if one[:1] in (b"-", b"!")), done)
            return None if notices.refuse(self.who, refused) else refused.replace(ABORTED, b"-")
        reply, *ids = elements(done)
        notices.settle(self.who, self.link, notice, reply, ids)
        return reply

    def bare(self) -> Bound | None:
        """Return what becomes of the notice of a write that is sent again without it, None: nothing."""
        owed = self.notices.without(self.who, self.notice)
        return None if owed is None else attrs.evolve(self, notice=owed)

    def lost(self, failure: Failure) -> None:
        """Take note that the link has gone, perhaps between a write and its notice."""
        if failure is not Failure.UNAVAILABLE:
            self.notices.owe(self.who, self.notice.classes, self.notice.db)


class NoticeSlot(Slot):
    """The replies to a write and its notices: `slot` gets the write's own, as if it had been sent alone."""

    __slots__ = ("_bound", "_is_atomic", "_raw", "_slot")
    is_write = True
    needs_whole = True

    def __init__(self, bound: Bound, raw: Raw, slot: Slot, *, is_atomic: bool) -> None:
        super().__init__(None)
        self.left = len(bound.notice.raws) + (3 if is_atomic else 1)
        self._bound = bound
        self._raw = raw
        self._slot = slot
        self._is_atomic = is_atomic

    def fill(self, reply: bytes) -> None:
        """Hand on what is the client's."""
        super().fill(reply)
        bound = self._bound
        replies = frames(reply)
        if not self._is_atomic:
            bound.notices.settle(bound.who, bound.link, bound.notice, replies[0], replies[1:])
            self._slot.land(replies[0])
            return
        answer = bound.executed(replies)
        if answer is not None:
            self._slot.land(answer)
        elif (bare := bound.bare()) is not None:
            bare.submit_loose(self._raw, self._slot)
        else:
            bound.link.submit(self._raw, self._slot)

    def fail(self, failure: Failure) -> None:
        """Tell whoever waits."""
        self.reply = b""
        if not self._is_atomic:
            self._bound.lost(failure)
        self._slot.fail(failure)

    def refuse(self, error: bytes) -> None:
        """Tell whoever waits."""
        self.reply = b""
        self._slot.refuse(error)


class BlockedSlot(Slot):
    """The reply to a blocking command: what it changed is announced, then `slot` gets the reply."""

    __slots__ = ("_bound", "_slot")
    is_write = True
    needs_whole = True

    def __init__(self, bound: Bound, slot: Slot) -> None:
        super().__init__(None)
        self._bound = bound
        self._slot = slot

    def fill(self, reply: bytes) -> None:
        """Announce, unless nothing came."""
        super().fill(reply)
        bound, slot = self._bound, self._slot
        if reply[:3] in _BLOCKED_NIL or bound.notice.is_void(reply):
            slot.land(reply)
            return
        if bound.notice.is_owed:
            bound.notices.settle(bound.who, bound.link, bound.notice, reply, ())
            slot.land(reply)
            return

        def announced(ids: list[bytes]) -> None:
            bound.notices.settle(bound.who, bound.link, bound.notice, reply, ids)
            slot.land(reply)

        def failed(_error: object) -> None:
            bound.lost(Failure.LOST)
            slot.land(reply)

        raws = bound.notice.raws
        bound.link.submit(b"".join(raws), StepSlot(len(raws), announced, failed, failed))

    def fail(self, failure: Failure) -> None:
        """Tell whoever waits; what it would have popped may be gone."""
        self.reply = b""
        self._bound.lost(failure)
        self._slot.fail(failure)

    def refuse(self, error: bytes) -> None:
        """Tell whoever waits."""
        self.reply = b""
        self._slot.refuse(error)


class OursSlot(Slot):
    """The reply to a notice that a client's MULTI was given: an error ends the transaction."""

    __slots__ = ("_state",)

    def __init__(self, state: Pinning) -> None:
        super().__init__(None)
        self._state = state

    def fill(self, reply: bytes) -> None:
        """Note an error."""
        super().fill(reply)
        if reply[:1] in (b"-", b"!"):
            self._state.ours_refused = reply


class ProbeSlot(Slot):
    """The replies to a probe. The client that waits behind it gets nothing from it."""

    __slots__ = ("_notices", "_who")
    needs_whole = True

    def __init__(self, client: Client, notices: Notices, who: Who) -> None:
        super().__init__(client)
        self.left = _PROBES
        self._notices = notices
        self._who = who

    def may_stream(self, size: int) -> bool:
        """Never: it is ours."""
        return False

    def fill(self, reply: bytes) -> None:
        """Learn from it."""
        self._notices.judge(self._who, frames(reply) if reply else ())
        super().fill(b"")

    def fail(self, failure: Failure) -> None:
        """Learn nothing."""
        self.parts = None
        self.fill(b"")

    def refuse(self, error: bytes) -> None:
        """Learn nothing."""
        self.fill(b"")
