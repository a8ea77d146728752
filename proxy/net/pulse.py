"""Proof that a reactor turns: a byte that it has to find ready, as it finds those of clients.

    beat: send --> | socket pair | --> poller --> wake-up --> on_event --> beat returns

A task of the same loop would say little: the loop can go round while the reactor waits for something that never comes.
"""

from __future__ import annotations

import contextlib
import socket

import trio

from proxy.net.reactor import Reactor


class Pulse:
    """Feel whether a reactor turns. To be closed after it, or as long as it runs."""

    def __init__(self, reactor: Reactor) -> None:
        self._felt = trio.Event()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        reactor.add(self._theirs.fileno(), self)

    async def beat(self) -> None:
        """Return once the reactor has woken up for us. Waits for ever where it does not; may be cancelled."""
        if self._felt.is_set():
            self._felt = trio.Event()
        felt = self._felt
        with contextlib.suppress(BlockingIOError):  # thousands of bytes lie there, and nobody fetches them
            self._ours.send(b"\0")
        await felt.wait()

    def on_event(self, mask: int) -> None:
        """Take what lies there: the reactor has turned."""
        with contextlib.suppress(BlockingIOError):
            self._theirs.recv(4096)
        self._felt.set()

    def on_crash(self) -> None:
        """Go on: who waits is felt at the next turn."""

    def close(self) -> None:
        """Give the sockets back; the kernel takes ours out of the poller."""
        self._ours.close()
        self._theirs.close()
