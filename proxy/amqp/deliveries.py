"""Messages that come: their content as it arrives in pieces, and the consumers that they wait at.

A size that a frame claims takes no memory; bytes do, as they come. What is too large is counted and let go.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio
from pamqp import commands

from proxy.amqp.fields import read_properties
from proxy.amqp.frames import Deliver, FrameFaultError, GetOk, Returned, read_content_header
from proxy.errors import AmqpError

MAX_BODY_BYTES: Final = 16 << 20
MAX_WAITING_BYTES: Final = 64 << 20  # over all consumers of a connection; what comes beyond goes back to its queue
DELIVERY_BYTES: Final = 1024  # what a delivery costs besides its body, about


@attrs.frozen
class Delivery:
    """A message that the broker waits to have acknowledged.

    `left` is how many are still in the queue, after a `get` only. `fault` is why its content could not be taken (also
    only after a `get`; a consumer never hands out such a message): `body` and `properties` are empty then.
    """

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    body: bytes
    properties: commands.Basic.Properties
    left: int = 0
    fault: str = ""


@attrs.define
class Waiting:
    """How many bytes wait at all consumers of a connection. `is_over` since somebody last set it to False."""

    size: int = 0
    is_over: bool = False

    def admit(self, size: int) -> bool:
        """Return whether a body of that size may come in."""
        if self.size and self.size + size > MAX_WAITING_BYTES:
            self.is_over = True
            return False
        return True


@attrs.define(eq=False)
class Content:
    """The content of a message under way.

    `fault` is why it is never handed out, `is_put_back` that there is no room for it now.
    """

    method: Deliver | GetOk | Returned
    properties: commands.Basic.Properties | None = None
    fault: str = ""
    is_put_back: bool = False
    _missing: int = -1
    _parts: list[bytes] = attrs.field(factory=list)

    def take_header(self, payload: bytes, waiting: Waiting) -> bool:
        """Take the header; return whether the message is whole (it has no body). Raises FrameFaultError."""
        if self._missing >= 0:
            raise FrameFaultError(505, "the broker sent a second header for a message")
        self._missing, start = read_content_header(payload)
        try:
            self.properties = read_properties(payload, start)
        except ValueError as exc:
            self.fault = f"it cannot be read: {exc}"
        if self._missing > MAX_BODY_BYTES:
            self.fault = f"it has {self._missing} bytes, and {MAX_BODY_BYTES} is the most"
        elif isinstance(self.method, Deliver) and not waiting.admit(self._missing + DELIVERY_BYTES):
            self.is_put_back = True
        return not self._missing

    def take_body(self, payload: bytes) -> bool:
        """Take a piece of the body; return whether the message is whole. Raises FrameFaultError."""
        if self._missing < 0:
            raise FrameFaultError(505, "the broker sent a body before its header")
        self._missing -= len(payload)
        if self._missing < 0:
            raise FrameFaultError(501, "the broker sent more of a body than it said")
        if not self.fault and not self.is_put_back:
            self._parts.append(payload)
        return not self._missing

    def body(self) -> bytes:
        """Return the body."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def delivery(self, method: Deliver | GetOk) -> Delivery:
        """Return it as what a caller gets."""
        left = method.left if isinstance(method, GetOk) else 0
        properties = commands.Basic.Properties() if self.fault or self.properties is None else self.properties
        return Delivery(
            *(method.tag, method.redelivered, method.exchange, method.routing_key),
            *(self.body(), properties, left, self.fault),
        )


class Consumer:
    """What comes from one queue. `refused` messages had a fault, the last one `refusal`, and were never handed out.

    They were rejected: the broker moves them to the queue's dead letter exchange if it has one, else they are gone.
    """

    def __init__(self, tag: str, waiting: Waiting, cancel: Callable[[Consumer], Awaitable[None]]) -> None:
        self.tag = tag
        self.refused = 0
        self.refusal = ""
        self._waiting = waiting
        self._cancel = cancel
        self._deliveries: deque[Delivery] = deque()
        self._arrived = trio.Event()
        self._error: AmqpError | None = None

    @property
    def ready(self) -> int:
        """How many deliveries are there to be received."""
        return len(self._deliveries)

    async def receive(self, most: int) -> list[Delivery]:
        """Wait for a delivery and return those that are there, in order, up to `most`. One caller at a time.

        Raises ConsumerCancelledError (after the last delivery, which can still be acknowledged), ChannelClosedError
        and ConnectionLostError (at once: what is not received yet comes again). A cancelled call takes nothing.
        """
        await trio.lowlevel.checkpoint()
        while not self._deliveries:
            if self._error is not None:
                raise copy.copy(self._error)
            self._arrived = trio.Event()
            await self._arrived.wait()
        return [self._pop() for _ in range(min(most, len(self._deliveries)))]

    async def cancel(self) -> None:
        """Take no more: what is not received yet goes back to the queue. Does nothing when it has ended already."""
        await self._cancel(self)

    def put(self, delivery: Delivery) -> None:
        """Hand in a delivery."""
        self._waiting.size += len(delivery.body) + DELIVERY_BYTES
        self._deliveries.append(delivery)
        self._arrived.set()

    def refuse(self, why: str) -> None:
        """Count a message that is not handed out."""
        self.refused += 1
        self.refusal = why

    def end(self, error: AmqpError, *, and_drop: bool) -> list[Delivery]:
        """Let `receive` raise; with `and_drop` return what nobody has received, else that is received first."""
        dropped = [self._pop() for _ in range(len(self._deliveries))] if and_drop else []
        if self._error is None:
            self._error = error
        self._arrived.set()
        return dropped

    def _pop(self) -> Delivery:
        delivery = self._deliveries.popleft()
        self._waiting.size -= len(delivery.body) + DELIVERY_BYTES
        return delivery
