"""Who waits for a PING of ours to come back on the invalidation link: the pushes before it are then applied.

    ask --> asked in this wake-up --send--> one PING for all of them --come--> called

Owns the waiting, and nothing of the link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Then = Callable[[], None]


class FenceLine:
    """Batches of those who wait, one a PING."""

    def __init__(self) -> None:
        self.asked: list[Then] = []
        self.sent: deque[list[Then]] = deque()

    def ask(self, then: Then) -> bool:
        """Wait for the next PING; return whether nobody did before in this wake-up."""
        self.asked.append(then)
        return len(self.asked) == 1

    def send(self) -> bool:
        """Note that a PING goes out; return False, and do nothing, when nobody waits for one."""
        if not self.asked:
            return False
        self.sent.append(self.asked)
        self.asked = []
        return True

    def come(self) -> None:
        """Call those whose PING has come back."""
        for then in self.sent.popleft():
            then()

    def empty(self) -> list[Then]:
        """Return all who wait, who do so no longer; the PONGs that are still to come are nobody's."""
        waiting = [then for batch in (*self.sent, self.asked) for then in batch]
        for batch in self.sent:
            batch.clear()  # its PONG is not that of a later batch
        self.asked = []
        return waiting
