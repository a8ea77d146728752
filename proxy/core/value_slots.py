"""Slots of commands whose values are looked after: what a reply must wait for, and what must not be handed out.

Owns nothing but the order: a write ends, what depends on it is dropped, then its client is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from proxy.core.slots import WHOLE, Client, Failure, Slot, WriteSlot, retry
from proxy.errors import DEPENDENTS_LEFT, damaged_value
from proxy.values.envelope import MAGIC
from proxy.values.stream import is_sealed
from proxy.wire.encode import array, command, unbulk
from proxy.wire.reply import elements, frames

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.core.values import Values
    from proxy.values.dependencies import Dependents


What = Mapping[int, "Dependents"]
"""What a write drops besides its keys, by database; empty: nothing."""


class WholeSlot(Slot):
    """Replies of GETs and MGETs, perhaps among others: a value that is still sealed is damaged.

    `asked` are the words of the command of each reply.
    """

    __slots__ = ("_asked", "_values")

    def __init__(self, client: Client, asked: Sequence[Sequence[bytes]], values: Values) -> None:
        super().__init__(client)
        self.left = len(asked)
        self._asked = asked
        self._values = values

    def may_stream(self, size: int) -> bool:
        """Not what must be looked at more closely: of one value it is the beginning that tells."""
        is_single = len(self._asked) == 1 and len(self._asked[0]) == 2
        return is_single and (self.parts is None or not any(MAGIC in one for one in self.parts.chunks))

    def fill(self, reply: bytes) -> None:
        """Say so instead of handing it out."""
        if MAGIC in reply and self.mode is WHOLE:  # else it is a last part at most
            reply = b"".join(map(self._judged, self._asked, frames(reply)))
        super().fill(reply)

    def fail(self, failure: Failure) -> None:
        """Ask again, or answer with an error."""
        if not retry(self, b"".join([command(*words) for words in self._asked])):
            super().fail(failure)

    def _judged(self, words: Sequence[bytes], frame: bytes) -> bytes:
        name = bytes(words[0]).upper()
        if name == b"GET":
            return judged(self._values, bytes(words[1]), frame)
        if name == b"MGET" and frame[:1] == b"*":
            keys = map(bytes, words[1:])
            return array(list(map(partial(judged, self._values), keys, elements(frame))))
        return frame


class DependentSlot(WriteSlot):
    """The reply of a write that drops other keys: given when both tiers have dropped them."""

    __slots__ = ("_dependents", "_values")
    needs_whole = True  # whether it is an error, says its beginning
    is_undone = True  # what is refused with an error has changed nothing

    def __init__(
        self, client: Client | None, engine: Engine, keys: list[bytes], values: Values | None, what: What
    ) -> None:
        super().__init__(client, engine, keys)
        self._values = values
        self._dependents = what

    def may_stream(self, size: int) -> bool:
        """Not where who has read the reply must find what it drops dropped."""
        return not self._dependents

    def fill(self, reply: bytes) -> None:
        """End the write, drop what depends on it, then answer."""
        self._engine.end_write(self.keys)
        if not self._dependents or (self.is_undone and reply[:1] in (b"-", b"!")):
            self.answer(reply)
        else:
            drop_dependents(self._values, self._dependents, lambda error: self.answer(error or reply))

    def answer(self, reply: bytes) -> None:
        """Give the client its reply."""
        Slot.fill(self, reply)

    def fail(self, failure: Failure) -> None:
        """Drop them all the same, if the write may have been applied."""
        if self._dependents and failure is not Failure.UNAVAILABLE:
            drop_dependents(self._values, self._dependents, lambda _error: None)
        super().fail(failure)


class WholeWriteSlot(DependentSlot):
    """The reply of a write that may give the old value of its key: one that is still sealed is damaged."""

    __slots__ = ()

    def answer(self, reply: bytes) -> None:
        """Say so instead of handing it out; the write was applied, and what depends on it is dropped."""
        assert self._values is not None
        is_whole = self.keys and not self.streams
        super().answer(judged(self._values, unbulk(self.keys[0]), reply) if is_whole else reply)


class PurgeSlot(Slot):
    """How many values a purge has dropped. A user who may not run scripts is refused: the fence's sweep comes later."""

    __slots__ = ("_db", "_values", "_versions")

    def __init__(self, values: Values, versions: Sequence[tuple[bytes, int]], db: int) -> None:
        super().__init__(None)
        self._values = values
        self._versions = versions
        self._db = db

    def fill(self, reply: bytes) -> None:
        """Count, and remember that it was done."""
        if reply[:1] == b":":
            self._values.purged(self._versions, self._db, int(reply[1:]))
        super().fill(reply)


def drop_dependents(values: Values | None, what: What, then: Callable[[bytes], None]) -> None:
    """Drop what a write drops besides; `then` gets b"", or the error for a client whose write stands alone."""
    assert values is not None
    done = after(len(what), then)

    def settled(result: Any) -> None:
        done(DEPENDENTS_LEFT if result is not None and result.error else b"")

    for db, dependents in what.items():
        values.figures.dependents += 1
        values.invalidate(dependents, db, settled)


def after(count: int, then: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return what is to be called so often before `then` is, with the first error there was, or b""."""
    errors: list[bytes] = []

    def done(error: bytes) -> None:
        errors.append(error)
        if len(errors) == count:
            then(next(filter(None, errors), b""))

    return done


def judged(values: Values, key: bytes, frame: bytes) -> bytes:
    """Return a reply that is the value of a key; the error where it is damaged, and the class has envelopes."""
    if not is_sealed(frame) or not values.has_envelope(key) or values.lookalikes.has(frame):
        return frame
    values.figures.damaged += 1
    return damaged_value(key)
