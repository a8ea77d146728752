r"""The way out of one stream: bytes to a socket that nobody waits for.

    write --> [all taken]                                    most of the time: one system call
          \-> [some left] pending --> flush, when writable   stalled: nothing more is taken on until it is empty

Owns the socket's sending side: whatever a stream says goes through here, in order. Reading, and closing the socket, is
the connection's task's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

# What the kernel keeps for a stream that is not read; the default grows to megabytes, times a thousand subscribers.
_SEND_BUFFER_BYTES: Final = 64 * 1024
# Pongs and the like of a peer that asks and does not read are dropped where this waits already.
_PENDING_BYTES: Final = 4 * 1024


class Outlet:
    """Writes to a socket what it takes at once, and keeps the rest until it takes more."""

    __slots__ = ("_fd", "_on_broken", "_on_stalled", "_pending", "_socket", "_taken")

    def __init__(
        self, stream: trio.SocketStream, on_stalled: Callable[[], None], on_broken: Callable[[], None]
    ) -> None:
        """`on_stalled` is called when the socket takes no more, `on_broken` when it is no use any more."""
        self._socket = stream.socket
        self._fd = stream.socket.fileno()
        self._pending = memoryview(b"")
        self._taken = trio.Event()
        self._on_stalled = on_stalled
        self._on_broken = on_broken

    @property
    def is_stalled(self) -> bool:
        """Whether the peer has not taken all that was written."""
        return len(self._pending) > 0

    def tune(self, silent_s: float) -> None:
        """Set the socket up for a stream; a peer that acknowledges nothing for `silent_s` is gone."""
        with suppress(OSError):  # of a socket that is broken already, which the first write finds out
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silent_s * 1000))

    def write(self, data: bytes) -> None:
        """Send what the socket takes now, and the rest when it takes more."""
        if self._pending:
            self._pending = memoryview(bytes(self._pending) + data)
            return
        sent = self._send(data)
        if sent < len(data):
            self._pending = memoryview(data)[sent:]
            self._taken = trio.Event()
            self._on_stalled()

    def write_aside(self, data: bytes) -> None:
        """Send what answers the peer itself, or its turn to show life: not at all, when it does not read."""
        if not self._pending or len(self._pending) + len(data) <= _PENDING_BYTES:
            self.write(data)

    def flush(self) -> None:
        """Send more of what is pending."""
        self._pending = self._pending[self._send(self._pending) :]
        if not self._pending:
            self._taken.set()

    async def wait_taken(self) -> None:
        """Return when nothing is pending: for answers that must not be dropped. Somebody else flushes."""
        while self._pending:
            await self._taken.wait()

    async def wait_writable(self) -> None:
        """Return when the socket takes more."""
        await trio.lowlevel.wait_writable(self._fd)

    def close(self) -> None:
        """Write no more, and forget what is pending."""
        self._fd = -1
        self._pending = memoryview(b"")
        self._taken.set()

    def _send(self, data: bytes | memoryview) -> int:
        """Return how much of it is done with: all of it, where nobody will read it."""
        if self._fd < 0:
            return len(data)
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except OSError:
            self.close()
            self._on_broken()
            return len(data)
