"""Who may knock at Redis, and when: all who need to while it is up, one at a time while it is away.

    a link to be opened --turn--> up: at once
                              --> away: waits; the first when its time comes knocks for all, the others wait for it
    let in --passed--> all are woken, none waits out a delay of its own        failed --> a longer, jittered delay

Owns the delay and the turn; what it means for commands is `core.outage`'s. Every link of a worker is opened through
here, so that a Redis that comes back is not met by all of them at once, and is found within one delay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from proxy.core.outage.outage import Outage
from proxy.errors import HandshakeError, RemoteError
from proxy.log import get_logger
from proxy.net.links.backoff import Backoff
from proxy.net.links.dial import Stream
from proxy.net.reactor import Reactor

IS_DOWN: Final = (b"-LOADING ", b"-MASTERDOWN ", b"-ERR max number of clients")
"""Refusals of a server that lets nobody in for now, whoever it is."""
IS_BUSY: Final = b"-BUSY "
"""A script runs: whoever can say HELLO is let in (to end it, perhaps), and next to nothing is answered."""
STEADY_S: Final = 1.0
"""A link that stood for less counts as one more attempt that failed: the next waits longer."""
log = get_logger("upstream")


class Gate:
    """One a worker, for links of every kind."""

    def __init__(self, reactor: Reactor, outage: Outage) -> None:
        self.refusal = b""  # what Redis says to all while it is up and lets nobody in
        self._reactor = reactor
        self._outage = outage
        self._backoff = Backoff()
        self._due = 0.0  # when the next one may knock
        self._knocks = False  # somebody does
        self._changed = trio.Event()

    @property
    def is_shut(self) -> bool:
        """Return whether Redis is away: what has no link fails at once."""
        return self._outage.breaker.is_open

    async def turn(self) -> bool:
        """Return when the caller may connect: False where all may, True if it is the only one (see `knocking`)."""
        breaker = self._outage.breaker
        while breaker.is_open:
            wait_s = self._due - self._reactor.time()
            if not self._knocks and wait_s <= 0:
                self._knocks = True
                breaker.probe()
                return True
            with trio.move_on_after(max(wait_s, 0.0) if not self._knocks else float("inf")):
                await self._changed.wait()
        return False

    @contextmanager
    def knocking(self, *, alone: bool) -> Iterator[None]:
        """Give the turn on when the attempt is over, however it ends."""
        try:
            yield
        finally:
            if alone:
                self._knocks = False
                self._outage.breaker.give_up()
                self._wake()

    def passed(self, *, is_ready: bool = True) -> None:
        """Note, inside the reactor, that Redis has let somebody in, or has said that it does not know him.

        `is_ready`: it answers commands; what L1 held is not needed any more.
        """
        self.refusal = b""
        self._backoff.reset()
        was_shut = self.is_shut
        away_s = self._reactor.engine.now - self._outage.breaker.since
        self._outage.answered(is_ready=is_ready)
        if was_shut:
            log.info("upstream is back", after_s=round(away_s, 3))
            self._wake()

    def failed(self, why: str, refusal: bytes = b"") -> None:
        """Note, inside the reactor, that Redis cannot be reached, does not answer, or lets nobody in."""
        now = self._reactor.engine.now
        self.refusal = refusal
        was_shut = self.is_shut
        self._outage.failed(why)
        if now >= self._due:
            self._due = now + self._backoff.next_s()
        if not was_shut:
            log.warning("upstream is away", why=why)

    def judge(self, exc: RemoteError) -> None:
        """Note why a link could not be opened."""
        if isinstance(exc, HandshakeError) and not exc.reply.startswith(IS_DOWN):
            self.passed(is_ready=not exc.reply.startswith(IS_BUSY))
        else:
            self.failed(str(exc), exc.reply if isinstance(exc, HandshakeError) else b"")

    def is_told(self, error: bytes) -> bool:
        """Take note of an error that a link which stands is answered; return whether Redis serves nobody now."""
        if not error.startswith(IS_DOWN):
            return False
        self.failed(error.decode("utf-8", "replace").strip(), error)
        return True

    def _wake(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def check_ready(stream: Stream, pong: bytes) -> None:
    """Raise HandshakeError, the connection closed, when the reply to PING says that Redis is not ready for anybody."""
    if pong.startswith(IS_DOWN):
        stream.close()
        raise HandshakeError(pong)
