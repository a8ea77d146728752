"""Respite with a lease rule taken out, to see that the checker notices: python -m ...sabotage RULE run -c FILE."""

from __future__ import annotations

import sys

from proxy.cache.flights import Flights
from proxy.cache.l1 import L1
from proxy.cli.main import main
from proxy.core.engine import Engine
from proxy.core.tracking import FOREVER, Tracking
from proxy.net.invalidation.control import ControlLink


def _mark_only(self: Engine, keys: list[bytes]) -> None:
    for key in keys:
        self.writing[key] = self.writing.get(key, 0) + 1


def _find_no_expiry() -> None:
    finish = Engine.finish
    Engine.finish = lambda self, flight, pttl_ms: finish(self, flight, -1 if pttl_ms >= 0 else pttl_ms)  # type: ignore[method-assign]


def _drop_value_only(self: L1, key: bytes) -> int:
    """Drop what GET was answered, and no other reply about the key."""
    entries = [entry for namespace in self.namespaces.values() if (entry := namespace.resident.pop(key, None))]
    for entry in entries:
        self._unlink(entry)
    return len(entries)


def _trust_silence() -> None:
    pong = Tracking.pong

    def trust(self: Tracking) -> None:
        pong(self)
        self.serve_until = FOREVER

    Tracking.pong = trust  # type: ignore[method-assign]


def take_out(rule: str) -> None:
    """Replace the method that makes a rule."""
    if rule == "pushes":
        Engine.drop_pushed = lambda self, keys: None  # type: ignore[method-assign]
    elif rule == "own-writes":
        Engine.begin_write = _mark_only  # type: ignore[assignment,method-assign]
        Engine.end_write = lambda self, keys: self.writing.clear()  # type: ignore[method-assign]
    elif rule == "expiry":
        _find_no_expiry()
    elif rule == "leases":
        Flights.revoke_key = lambda self, key: None  # type: ignore[method-assign]
    elif rule == "replies":
        L1.drop = _drop_value_only  # type: ignore[method-assign]
    elif rule == "fences":
        ControlLink.fence = lambda self, then: then()  # type: ignore[method-assign]
    elif rule == "silence":
        _trust_silence()
    else:
        assert rule == "losses"
        Engine.flush_namespace = lambda self, namespace: None  # type: ignore[method-assign]
        Tracking.lose = lambda self: None  # type: ignore[method-assign]


if __name__ == "__main__":
    take_out(sys.argv.pop(1))
    main()
