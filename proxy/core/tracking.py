"""Whether L1 may be served: the state of the invalidation link, and how the server was asked to track.

Owns `serve_until`, the moment up to which L1 is proven: a PING sent at T whose PONG came proves that every push up to T
has been applied, so L1 may be served until T + max_staleness. Silence past that stops it, before anything is flushed;
the next PONG of the same connection proves the pushes of the silence, and it is served again. A lost connection takes
its pushes along: everything is flushed.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal

from proxy.core.engine import Engine

Mode = Literal["off", "redirect", "optin", "broadcast"]
FOREVER: Final = float("inf")
OLDEST_TRACKED: Final = (6, 2)  # before, a push could come inside another reply


class Tracking:
    """Decide when L1 is served, and in which mode data links are to be tracked."""

    def __init__(
        self, engine: Engine, *, wanted: Literal["auto", "redirect", "broadcast", "off"], max_staleness_s: float
    ) -> None:
        self._engine = engine
        self.wanted = wanted
        self.max_staleness_s = max_staleness_s
        self.mode: Mode = "off"
        self.reason = "the upstream has not been reached yet"
        self.redirect_id = 0  # the invalidation link's client id, 0 while there is none
        self.narrowed = False  # by the governor, until the process ends
        self.serve_until = 0.0
        self._distrusted_at = 0.0
        self._pings: deque[float] = deque()  # when the PINGs not yet answered were sent

    @property
    def ping_every_s(self) -> float:
        """How often the invalidation link is pinged: four times in the tightest bound."""
        policy = self._engine.policy
        tightest_s = policy.tightest_s if policy is not None else None
        return min(self.max_staleness_s, tightest_s or self.max_staleness_s) / 4

    @property
    def redirects(self) -> bool:
        """Return whether data links are tracked, and their pushes sent to the invalidation link."""
        return self.mode in ("redirect", "optin")

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """Return what the keys begin with that are announced in broadcast mode; () for all."""
        policy = self._engine.policy
        return policy.prefixes if policy is not None else ()

    def choose(self, *, resp3: bool, version: tuple[int, ...], redirect_refused: bool = False) -> Mode:
        """Choose how to track on the server just reached; `reason` says why."""
        if not self._engine.enabled:
            self.mode, self.reason = "off", "L1 is switched off"
        elif self.wanted == "off":
            self.mode, self.reason = "off", "l1.tracking is off: entries are bounded by l1.max_age alone"
        elif not resp3 or version < OLDEST_TRACKED:
            self.mode, self.reason = "off", f"server {'.'.join(map(str, version))} cannot track: 6.2 or newer can"
        elif self.wanted == "broadcast":
            about = f" for {len(self.prefixes)} prefixes of the classes" if self.prefixes else ""
            self.mode, self.reason = "broadcast", f"l1.tracking asks for it{about}"
        elif redirect_refused and self.wanted == "auto":
            self.mode, self.reason = "broadcast", "the server refuses CLIENT TRACKING REDIRECT"
        elif self.narrowed:
            self.mode, self.reason = "optin", "the server's tracking table is full: only what L1 is to hold is tracked"
        elif self._engine.policy is not None and self._engine.policy.scope == "classes":
            self.mode, self.reason = "optin", "only keys of classes are held, so only those are tracked"
        else:
            self.mode, self.reason = "redirect", "the server tracks only what is read here"
        return self.mode

    @property
    def may_cache(self) -> bool:
        """Return whether L1 is used at all: tracked, or untracked because the operator said so."""
        return self._engine.enabled and (self.mode != "off" or self.wanted == "off")

    def begin(self, redirect_id: int, now: float) -> None:
        """Start on a new invalidation link, at the moment its tracking is known to stand."""
        self.redirect_id = redirect_id
        self._pings.clear()
        if self.may_cache:
            self.serve_until = FOREVER if self.mode == "off" else now + self.max_staleness_s
            self._engine.proven_at = FOREVER if self.mode == "off" else now
            self._engine.serve()

    def refuse(self, reply: str) -> None:
        """Do without L1: the server does not track for us."""
        self.mode, self.reason = "off", f"the server refuses CLIENT TRACKING: {reply}"
        self.lose()

    def is_silent(self) -> bool:
        """Return whether a PING has been out for longer than L1 may be served without its PONG."""
        return bool(self._pings) and self._engine.now - self._pings[0] > self.max_staleness_s

    def waited_s(self) -> float:
        """Return for how long the oldest PING that has not been answered is out; 0.0 when there is none."""
        return self._engine.now - self._pings[0] if self._pings else 0.0

    def distrust(self) -> None:
        """Serve again only once a PING that is sent later has come back: a push that matters is on its way."""
        self._distrusted_at = self._engine.now

    def ping(self, now: float) -> None:
        """Note that a PING goes out."""
        self._pings.append(now)

    def pong(self) -> None:
        """Note that the oldest PING has been answered: pushes up to then have been applied."""
        if not self._pings:
            return
        sent = self._pings.popleft()
        if sent <= self._distrusted_at:
            return
        if self.may_cache and self.mode != "off":
            self.serve_until = sent + self.max_staleness_s
            self._engine.proven_at = sent
            if self.serve_until > self._engine.now:
                self._engine.serve()

    def lose(self) -> None:
        """Stop and flush: the invalidation link is gone, and the pushes it had not delivered."""
        self.redirect_id = 0
        self._pings.clear()
        self.serve_until = 0.0
        self._engine.suspend()
        self._engine.lose()
