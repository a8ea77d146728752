"""The TLS handshakes of a listener: so many at once, each for a while, and none that waits holds up who comes after it.

    accepted --begin--> [at most TLS_HANDSHAKES, the longest first] --> done
                              | the longest makes room for a new one, when all places are taken
                              v
                           closed

An honest client is through in a few round trips; who has been at it the longest is the likeliest to be none.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

import trio

from proxy.log import get_logger
from proxy.net.links.dial import Stream
from proxy.net.tls import handshake
from proxy.tls.renewal import Renewable

TLS_HANDSHAKE_S: Final = 10.0
TLS_HANDSHAKES: Final = 256
log = get_logger("listener")


class Handshakes:
    """Shake hands with whom a listener has accepted; `done` gets those it went well with, `failed` hears of others."""

    def __init__(self, context: Renewable, done: Callable[[Stream], None], failed: Callable[[], None]) -> None:
        self.context = context
        self._done = done
        self._failed = failed
        self._scopes: dict[trio.CancelScope, None] = {}

    @property
    def is_busy(self) -> bool:
        """Whether any is under way."""
        return bool(self._scopes)

    @property
    def under_way(self) -> int:
        """How many shake hands at the moment."""
        return len(self._scopes)

    def begin(self, nursery: trio.Nursery, sock: socket.socket) -> None:
        """Take a socket that was just accepted, non-blocking; it is closed unless `done` gets it."""
        if len(self._scopes) >= TLS_HANDSHAKES:
            oldest = next(iter(self._scopes))
            del self._scopes[oldest]
            oldest.cancel()
        scope = trio.CancelScope(deadline=trio.current_time() + TLS_HANDSHAKE_S)
        self._scopes[scope] = None
        nursery.start_soon(self._shake, sock, scope)

    async def _shake(self, sock: socket.socket, scope: trio.CancelScope) -> None:
        stream: Stream | None = None
        why = "too slow"
        try:
            with scope:
                stream = await handshake(sock, self.context.current(), server_side=True)
        except OSError as exc:
            why = str(exc) or type(exc).__name__
        finally:
            self._scopes.pop(scope, None)
        if stream is None:
            self._failed()
            log.info("TLS handshake failed", why=why)
        else:
            self._done(stream)
