"""A client that notes what it is sent, for tests of slots and links."""

from __future__ import annotations

from collections import deque

from proxy.core.slots import FilledSlot, Slot
from proxy.wire.request import Raw


class ScriptedClient:
    """Owes slots in order and settles them as a client connection does; `received` is what it was sent so far."""

    def __init__(self) -> None:
        self.queue: deque[Slot] = deque()
        self.joins = 0
        self.received = b""
        self.streamed: list[bytes] = []
        self.asked: list[bytes] = []
        self.aborted = ""
        self.asks_again = False

    def owe(self, slot: Slot) -> None:
        """Add a slot to the queue."""
        self.queue.append(slot)

    def reply(self, raw: bytes) -> None:
        """Add a reply that is known already."""
        self.queue.append(FilledSlot(raw))
        self.settle()

    def settle(self) -> None:
        """Take the filled prefix of the queue."""
        while self.queue and (reply := self.queue[0].reply) is not None:
            self.queue.popleft()
            self.received += reply

    def stream(self, part: bytes) -> None:
        """Take a part of the reply of the slot at the head of the queue."""
        assert self.queue, "streamed to a client that is owed nothing"
        self.streamed.append(part)
        self.received += part

    def ask(self, raw: Raw, slot: Slot) -> None:
        """Note a read that is to be sent for a slot in the queue."""
        assert slot in self.queue
        self.asked.append(raw)

    def ask_again(self, raw: Raw, slot: Slot) -> bool:
        """Note it as any read that is to be sent; `asks_again` says whether it is."""
        if self.asks_again:
            self.asked.append(bytes(raw))
        return self.asks_again

    def abort(self, why: str) -> None:
        """Note that the connection is closed."""
        self.aborted = why
