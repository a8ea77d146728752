"""Run a command that looks at bytes on values that have been unwrapped: atomically, on a pinned link.

    WATCH keys, peek, MULTI --> swap what is wrapped for its plain value, the command, EXEC --> the client's reply
         ^                                                                  |             (a whole queue: ExecRun)
         '---------------- EXEC says nil: somebody has written meanwhile <--'

    of a session that watches keys itself, and must keep its WATCH (WatchedRun):
    peek, swap (compare-and-set) until none is wrapped --> one script: opens what is wrapped again, runs the command

Owns the rounds of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from proxy.core.slots import CallSlot, Failure, Link, Slot, failure_line
from proxy.errors import CROWDED, damaged_value
from proxy.values.scripts import peek, swap
from proxy.values.stream import is_sealed
from proxy.wire.encode import array, command
from proxy.wire.reply import ReplyError, elements, frames
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.core.notice_slots import Bound
    from proxy.core.values import Values

ROUNDS_MAX: Final = 100  # two clients that write as fast as they can win four of five
MULTI: Final = command("MULTI")
EXEC: Final = command("EXEC")
DISCARD: Final = command("DISCARD")
UNWATCH: Final = command("UNWATCH")

Keys = tuple[Sequence[bytes], int]
"""Keys, and the database they are in."""


class StepSlot(Slot):
    """Replies to a step of ours: `then` gets them, `ended` the error when they will not come."""

    __slots__ = ("_ended", "_failed", "_then")
    needs_whole = True
    is_write = True

    def __init__(
        self,
        left: int,
        then: Callable[[list[bytes]], None],
        ended: Callable[[bytes], None],
        failed: Callable[[Failure], None] | None = None,
    ) -> None:
        super().__init__(None)
        self.left = left
        self._then = then
        self._ended = ended
        self._failed = failed  # is told why, where that matters, instead of `ended`

    def fill(self, reply: bytes) -> None:
        """Go on."""
        super().fill(reply)
        try:
            self._then(frames(reply))
        except (ReplyError, ValueError, IndexError):
            # No answer to what was asked: the link will end, and is rid of this slot already.
            self.fail(Failure.LOST)
            raise

    def fail(self, failure: Failure) -> None:
        """End what the step was one of."""
        self.reply = b""
        if self._failed is not None:
            self._failed(failure)
        else:
            self._ended(failure_line(failure, is_write=True))

    def refuse(self, error: bytes) -> None:
        """End what the step was one of."""
        self.reply = b""
        self._ended(error)


class Unwrapping:
    """Make keys hold plain values: `then` is called with b"", or with the error that keeps it from being done."""

    def __init__(self, values: Values, link: Link, keys: Keys, then: Callable[[bytes], None]) -> None:
        self._values = values
        self._link = link
        self._keys, self._db = list(keys[0]), keys[1]
        self._then = then
        self._rounds = 0

    def begin(self) -> None:
        """Look at the keys, as they are now."""
        self._values.purge(self._link, self._keys, self._db)
        self._link.submit(peek(self._keys), StepSlot(1, self._peeked, self._then))

    def _peeked(self, replies: list[bytes]) -> None:
        found = sealed(self._values, replies[0], self._keys)
        if isinstance(found, bytes):
            self._then(found)
        elif not found:
            self._then(b"")
        else:
            self.swap(found, self.begin)

    def swap(self, found: list[tuple[bytes, bytes, bytes]], then: Callable[[], None]) -> None:
        """Put the plain values in place where nobody has written meanwhile."""
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            self._then(CROWDED)
            return
        self._values.figures.unwrapped += len(found)
        raw = b"".join([swap(key, digest, value) for key, value, digest in found])

        def swapped(replies: list[bytes]) -> None:
            refused = next((reply for reply in replies if reply[:1] in b"-!"), b"")
            if refused:
                self._then(refused)
            else:
                then()

        self._link.submit(raw, StepSlot(len(found), swapped, self._then))


class PlainRun(Unwrapping):
    """One command, on plain values. `slot` waits for its reply, or its error."""

    commands = 1  # how many `raw` has

    def __init__(
        self, values: Values, link: Link, keys: Keys, bare_command: tuple[Raw, Slot], bound: Bound | None = None
    ) -> None:
        """`bound`: what announces the command, in the same transaction."""
        raw, slot = bare_command
        super().__init__(values, link, keys, slot.fill)
        self._bare = self._raw = raw
        self._slot = slot
        self._bound = bound
        if bound is not None:
            self._raw = b"".join((raw, *bound.notice.raws))
            self.commands += len(bound.notice.raws)

    def begin(self) -> None:
        """Watch the keys, look at them, and begin: whoever may not MULTI must not have the command done without it."""
        self._values.purge(self._link, self._keys, self._db)
        raw = b"".join((command("WATCH", *self._keys), peek(self._keys), MULTI))
        self._link.submit(raw, StepSlot(3, self._watched, self._then))

    def _watched(self, replies: list[bytes]) -> None:
        watched, peeked, begun = replies
        refused = next((reply for reply in (watched, begun) if reply[:1] in b"-!"), b"")
        found = refused or sealed(self._values, peeked, self._keys)
        if isinstance(found, bytes):
            self._link.submit(EXEC if begun[:1] == b"+" else UNWATCH, Slot(None))
            self._then(found)
            return
        swaps = [swap(key, digest, value) for key, value, digest in found]
        step = StepSlot(
            len(swaps) + self.commands + 1, partial(self._swapped, begun, len(swaps)), self._then, self._fail
        )
        self._link.submit(b"".join((*swaps, self._raw, EXEC)), step)

    def _swapped(self, begun: bytes, count: int, replies: list[bytes]) -> None:
        """Take the replies to so many swaps out of the others."""
        refused = next((reply for reply in replies[:count] if reply[:1] in b"-!"), b"")
        if refused:
            self._then(refused)
            return
        if count:
            done = replies[-1]
            if done[:1] == b"*" and done[:2] != b"*-":
                self._values.figures.unwrapped += count
                done = array(elements(done)[count:])
            replies = [*replies[count:-1], done]
        self._executed([begun, *replies])

    def _fail(self, failure: Failure) -> None:
        if self._bound is not None and self._bound.notice.is_owed:
            self._bound.lost(failure)
        self._slot.fail(failure)

    def _executed(self, replies: list[bytes]) -> None:
        if replies[-1][:2] in (b"*-", b"_\r"):
            self._rounds += 1
            if self._rounds > ROUNDS_MAX:
                self._then(CROWDED)
            else:
                self.begin()
        elif self._bound is None:
            self._then(self._reply(replies))
        else:
            reply = self._bound.executed(replies)
            if reply is None:  # its notice cannot be taken
                self._raw, self.commands, self._bound = self._bare, 1, self._bound.bare()
                self.begin()
            else:
                self._then(reply)

    def _reply(self, replies: list[bytes]) -> bytes:
        queued, reply = replies[1], replies[2]
        if queued[:1] in b"-!":
            return queued  # Redis would have said so without a transaction, too
        return elements(reply)[0] if reply[:1] == b"*" else reply


def discard(link: Link, refused: Callable[[bytes], None] = lambda _: None) -> None:
    """Have Redis forget what MULTI has queued, for its connection is somebody else's next; `refused` hears of an error.

    Who may EXEC may not DISCARD, perhaps: being refused that has EXEC refused as well, and then it is forgotten, too.
    """

    def answered(reply: bytes) -> bytes:
        if reply[:1] in b"-!":
            link.submit(EXEC, Slot(None))
            refused(reply)
        return b""

    link.submit(DISCARD, CallSlot(None, answered))


class ExecRun(PlainRun):
    """What a client's MULTI has queued, on plain values: queued anew, as Redis takes no WATCH once MULTI was said."""

    def __init__(self, values: Values, link: Link, keys: Keys, queue: tuple[Sequence[bytes], Slot]) -> None:
        raws, slot = queue
        super().__init__(values, link, keys, (b"".join(raws), slot))
        self.commands = len(raws)
        self._refusal = b""

    def refuse(self, refusal: bytes) -> None:
        """End: what MULTI has queued may not be discarded, so no WATCH is taken."""
        self._refusal = refusal

    def _watched(self, replies: list[bytes]) -> None:
        if self._refusal:
            self._then(self._refusal)
        else:
            super()._watched(replies)

    def _reply(self, replies: list[bytes]) -> bytes:
        return replies[-1]


class WatchedRun(Unwrapping):
    """One command, on plain values, in a session that watches keys: those may be any, and no EXEC may end that."""

    def __init__(
        self, values: Values, link: Link, keys: Keys, bare_command: tuple[Raw, Slot], bound: Bound | None
    ) -> None:
        """Take the command as `opening.run_plain` writes it, or a script of the client; `bound` announces it."""
        self._raw, self._slot = bare_command
        self._bound = bound
        super().__init__(values, link, keys, self._unwrapped)

    def _unwrapped(self, error: bytes) -> None:
        if error:
            self._slot.fill(error)
        elif self._bound is not None:
            self._bound.submit_loose(self._raw, self._slot)
        else:
            self._link.submit(self._raw, StepSlot(1, self._ran, self._slot.fill, self._slot.fail))

    def _ran(self, replies: list[bytes]) -> None:
        self._rounds += 1
        if replies[0] == CROWDED and self._rounds < ROUNDS_MAX:
            self.begin()
        else:
            self._slot.fill(replies[0])


def sealed(values: Values, reply: bytes, keys: Sequence[bytes]) -> list[tuple[bytes, bytes, bytes]] | bytes:
    """Read the reply to a peek: (key, plain value, digest of what is stored) of the keys that hold an envelope.

    Returns an error instead when Redis gave one, or when a value is damaged: it stays as it is.
    """
    if reply[:1] != b"*":
        return reply
    found: list[tuple[bytes, bytes, bytes]] = []
    for key, frame in zip(keys, elements(reply), strict=True):
        if frame[:1] == b"*" and frame[:2] != b"*-":
            value, digest = elements(frame)
            if is_sealed(value):
                if values.lookalikes.has(value):
                    return damaged_value(key, "it begins as an envelope does, and cannot be without one")
                values.figures.damaged += 1
                return damaged_value(key)
            found.append((key, value[value.index(b"\n") + 1 : -2], digest[digest.index(b"\n") + 1 : -2]))
    return found
