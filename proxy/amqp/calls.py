"""The questions of a channel that have no answer yet, oldest first: answers come in that order and carry no number."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import trio

from proxy.amqp.frames import FrameFaultError
from proxy.errors import AmqpError, ConnectionLostError


@attrs.define(eq=False)
class Call:
    """A question. `unwanted` is told a reply that nobody waits for any more."""

    accepts: tuple[type, ...]
    unwanted: Callable[[Any], None] | None
    _done: trio.Event = attrs.field(factory=trio.Event)
    _reply: Any = None
    _is_abandoned: bool = False

    def settle(self, reply: object) -> None:
        """Give it its reply; an AmqpError is raised there."""
        self._reply = reply
        self._done.set()
        if self._is_abandoned:
            self._tell_unwanted()

    async def wait(self, limit_s: float) -> Any:
        """Return the reply, or raise it; ConnectionLostError when it takes too long: who is alive has an answer.

        Cancelled or late, it stays where it is, and the late reply goes to `unwanted`.
        """
        try:
            with trio.move_on_after(limit_s):
                await self._done.wait()
        except trio.Cancelled:
            self._is_abandoned = True
            if self._done.is_set():  # it came in the same turn
                self._tell_unwanted()
            raise
        if not self._done.is_set():
            self._is_abandoned = True
            raise ConnectionLostError(f"the broker lives, and has not answered within {limit_s:g} s")
        if isinstance(self._reply, AmqpError):
            raise copy.copy(self._reply)
        return self._reply

    def _tell_unwanted(self) -> None:
        if self.unwanted is not None and not isinstance(self._reply, AmqpError):
            self.unwanted(self._reply)


class Calls:
    """The open questions of one channel."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque()

    def add(self, accepts: tuple[type, ...], unwanted: Callable[[Any], None] | None) -> Call:
        """Take note of a question that is being written."""
        call = Call(accepts, unwanted)
        self._calls.append(call)
        return call

    def take(self, kind: type, name: str) -> Call:
        """Return the question that a method of this kind answers. Raises FrameFaultError when nobody asked for it."""
        if not self._calls or kind not in self._calls[0].accepts:
            raise FrameFaultError(503, f"the broker sent {name}, which nobody asked for")
        return self._calls.popleft()

    def fail(self, error: AmqpError) -> None:
        """Answer all with an error."""
        for call in self._calls:
            call.settle(error)
        self._calls.clear()
