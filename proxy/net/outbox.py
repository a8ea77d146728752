"""What could not be sent yet: chunks in order, each held once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from proxy.wire.request import Raw

JOIN_BYTES: Final = 256 * 1024  # up to here one joined send is cheaper than several; above, a copy costs more


class Outbox:
    """Unsent bytes of one socket. `size` is how many there are."""

    __slots__ = ("_chunks", "size")

    def __init__(self) -> None:
        self._chunks: deque[Raw] = deque()
        self.size = 0

    def put(self, parts: list[Raw], size: int) -> None:
        """Add chunks of `size` bytes in all, joined when they are small."""
        if not size:
            return
        self.size += size
        if len(parts) > 1 and size <= JOIN_BYTES:
            self._chunks.append(b"".join(parts))
        else:
            self._chunks.extend(part for part in parts if len(part))

    def pump(self, send: Callable[[Raw], int]) -> bool:
        """Send as much as the socket takes; return whether nothing is left. Raises what `send` raises but EAGAIN."""
        chunks = self._chunks
        while chunks:
            chunk = chunks[0]
            try:
                sent = send(chunk)
            except (BlockingIOError, InterruptedError):
                return False
            self.size -= sent
            if sent < len(chunk):
                chunks[0] = memoryview(chunk)[sent:]
                return False
            chunks.popleft()
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._chunks.clear()
        self.size = 0


def rest(parts: Sequence[bytes], sent: int) -> list[Raw]:
    """Return what is left of parts when so many bytes of them were sent: the parts themselves, only the first cut."""
    for place, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:] if sent else part, *parts[place + 1 :]]
        sent -= len(part)
    return []
