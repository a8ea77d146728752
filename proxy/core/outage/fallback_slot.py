"""Writes that may be taken in memory, sent together as others are: one slot in the client's queue, and one submit.

    core.pipeline --> [SET][SET][INCR]   --no error among the replies--> passed on in one piece
                                         --an error--------------------> taken apart, each judged by itself, in order

What a `StandIn` is to one command this is to several, but only to writes whose replies are short: none of them streams.
The words of each are kept until all are answered. Owns nothing but these commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.core.outage.stand_in import failure_of
from proxy.core.slots import Failure, Slot, WriteSlot
from proxy.wire.reply import frames

if TYPE_CHECKING:
    from proxy.core.downstream import Downstream
    from proxy.core.outage.fallbacks import Fallbacks
    from proxy.wire.commands import CommandSpec

Words = tuple["CommandSpec", list[bytes]]
"""What a command is, and its words."""


class FallbackSlot(WriteSlot):
    """Replies of writes with a fallback: those of them that are no answer of Redis are replaced, where it has one."""

    __slots__ = ("_commands", "_downstream", "_fallbacks")
    needs_whole = True  # also of a client that is muted, or has gone: what Redis has not done is taken all the same

    def __init__(self, client: Downstream, fallbacks: Fallbacks, keys: list[bytes], commands: list[Words]) -> None:
        super().__init__(client, fallbacks.engine, keys)
        self._downstream = client
        self._fallbacks = fallbacks
        self._commands = commands

    @property
    def since(self) -> float:
        """When they were asked for."""
        return self.submitted_at

    @property
    def is_answered(self) -> bool:
        """Whether all replies are there."""
        return self.reply is not None

    def hurry(self) -> None:
        """Do nothing: to a write L1 has no answer."""

    def may_stream(self, size: int) -> bool:
        """Never: a reply is looked at before its client gets it."""
        return False

    def fill(self, reply: bytes) -> None:
        """End the writes, find what is answered otherwise, in their order, then answer."""
        self._engine.end_write(self.keys)
        if reply[:1] == b"-" or b"\n-" in reply:
            reply = b"".join(map(self._judged, self._commands, frames(reply)))
        Slot.fill(self, reply)

    def fail(self, failure: Failure) -> None:
        """Count each of those that are not answered: the link has counted one. Then ask the fallbacks."""
        self._engine.stats.failed += self.left - 1
        super().fail(failure)

    def _judged(self, words: Words, reply: bytes) -> bytes:
        if reply[:1] != b"-":
            return reply
        self._engine.outage.refused(reply)
        failure = failure_of(reply)
        if failure is None:
            return reply
        spec, args = words
        found = self._fallbacks.answer(self._downstream, spec, args, failure)
        if found is None:
            return reply
        self._fallbacks.saved(failure)
        return found
