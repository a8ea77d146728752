"""Which of the messages that a channel published the broker has confirmed.

Numbers rise by one for each message of the channel; a confirmation names one, or all up to one. A message that no
queue takes comes back before its confirmation, without its number: the oldest that looks the same is it.
Source: RabbitMQ documentation, Publisher Confirms.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Final

import attrs
import trio

from proxy.amqp.frames import Outgoing, Returned
from proxy.errors import AmqpError, PublishRefusedError

MOST_UNCONFIRMED: Final = 1024  # of a channel; publishers wait beyond


class Batch:
    """The outcomes of messages that are published together; `done` when there is one for each, or the channel ended."""

    def __init__(self, size: int) -> None:
        self.results: list[PublishRefusedError | None] = [None] * size
        self.error: AmqpError | None = None
        self.done = trio.Event()
        self._left = size
        if not size:
            self.done.set()

    def settle(self, index: int, result: PublishRefusedError | None) -> None:
        """Take the outcome of one, None: it is stored."""
        self.results[index] = result
        self._left -= 1
        if not self._left:
            self.done.set()

    def fail(self, error: AmqpError) -> None:
        """End with an error: what has no outcome will get none."""
        self.error = error
        self.done.set()


@attrs.define(eq=False)
class _Unconfirmed:
    batch: Batch
    index: int
    message: Outgoing
    returned: PublishRefusedError | None = None


class Confirms:
    """The messages of one channel that have no confirmation yet."""

    def __init__(self) -> None:
        self._last = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._unconfirmed: dict[int, _Unconfirmed] = {}

    def __len__(self) -> int:
        return len(self._unconfirmed)

    async def room(self) -> None:
        """Return when one more may be published, and when the channel has ended."""
        while len(self._unconfirmed) >= MOST_UNCONFIRMED:
            await self._changed.park()

    def add(self, batch: Batch, index: int, message: Outgoing) -> None:
        """Take note of a message that is being written."""
        self._last += 1
        self._unconfirmed[self._last] = _Unconfirmed(batch, index, message)

    def confirm(self, number: int, *, multiple: bool, is_taken: bool) -> None:
        """Take a confirmation. One that names nothing known is let be. Number 0 with `multiple`: all."""
        if multiple:
            numbers = list(takewhile(lambda one: one <= number or not number, self._unconfirmed))
        else:
            numbers = [number] if number in self._unconfirmed else []
        for one in numbers:
            message = self._unconfirmed.pop(one)
            refusal = message.returned
            if refusal is None and not is_taken:
                refusal = PublishRefusedError("the broker could not store the message")
            message.batch.settle(message.index, refusal)
        self._changed.unpark_all()

    def give_back(self, returned: Returned, body: bytes) -> None:
        """Take a message that came back."""
        for one in self._unconfirmed.values():
            message = one.message
            if (
                one.returned is None
                and message.mandatory
                and (message.exchange, message.routing_key) == (returned.exchange, returned.routing_key)
                and message.body == body
            ):
                one.returned = PublishRefusedError(f"no queue takes the message ({returned.text})")
                return

    def fail(self, error: AmqpError) -> None:
        """Tell everybody who waits that no confirmation will come."""
        for one in self._unconfirmed.values():
            one.batch.fail(error)
        self._unconfirmed.clear()
        self._changed.unpark_all()
