"""What is to be written to the broker, and the one task that writes it.

    callers --append (whole frames)--> parts --join, once a turn--> stream

Callers only append, so that nobody's cancellation leaves half a frame. Whoever publishes waits for `room` before:
while the broker takes no messages (connection.blocked) and while more than MAX_UNSENT_BYTES wait.
"""

from __future__ import annotations

import copy
from typing import Final

import trio

from proxy.errors import AmqpError, ConnectionLostError

MAX_UNSENT_BYTES: Final = 1 << 20  # publishers wait beyond; a message that is larger still goes, alone


class Writer:
    """The unsent frames of one connection. `error` is what the connection ended with."""

    def __init__(self) -> None:
        self.error: AmqpError | None = None
        self.blocked_reason: str | None = None
        self.has_written = False
        """Since somebody last set it to False."""
        self._parts: list[bytes] = []
        self._unsent = 0
        self._wake = trio.Event()
        self._changed = trio.lowlevel.ParkingLot()

    def check(self) -> None:
        """Raise what the connection ended with, if it did."""
        if self.error is not None:
            raise copy.copy(self.error)

    def append(self, frames: bytes) -> None:
        """Send whole frames, soon. Raises what the connection ended with."""
        self.check()
        self._append(frames)

    def append_last(self, frames: bytes) -> None:
        """Send a farewell although the connection has ended."""
        self._append(frames)

    def _append(self, frames: bytes) -> None:
        self._parts.append(frames)
        self._unsent += len(frames)
        self._wake.set()

    async def room(self) -> None:
        """Return when a message may be appended, at once if that is now. Raises what the connection ended with."""
        self.check()
        while self.blocked_reason is not None or self._unsent > MAX_UNSENT_BYTES:
            await self._changed.park()
            self.check()

    def block(self, reason: str | None) -> None:
        """Let publishers wait, None: let them go on."""
        self.blocked_reason = reason
        self._changed.unpark_all()

    def fail(self, error: AmqpError) -> None:
        """Take no more frames, and tell who waits why. What is there can still be sent."""
        self.error = error
        self._changed.unpark_all()

    async def flush(self) -> None:
        """Return when everything is sent."""
        while self._unsent:
            await self._changed.park()

    async def run(self, stream: trio.abc.SendStream) -> None:
        """Send until cancelled. Raises ConnectionLostError when the stream breaks."""
        while True:
            if not self._parts:
                self._wake = trio.Event()
                await self._wake.wait()
            data = b"".join(self._parts)
            self._parts.clear()
            try:
                await stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
                raise ConnectionLostError(f"the connection to the broker broke: {exc.__cause__ or exc}") from exc
            self.has_written = True
            self._unsent -= len(data)
            self._changed.unpark_all()
