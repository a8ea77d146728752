"""What L1 knew of a key when Redis went away: what is made from it is more than a guess.

Owns how sure that is, in versions: up to which one the value was the last, and from which on it may be another's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.cache.entry import Entry, Scope
from proxy.core.outage.offline.store import Known
from proxy.values.clock import HybridClock, version_at
from proxy.wire.encode import NIL, bulk, command, unbulk
from proxy.wire.reply import elements

if TYPE_CHECKING:
    from proxy.core.engine import Engine

MARGIN_US: Final = 1_000_000
"""What Redis holds may bear a version so much later than the last moment at which L1 is known to have been right: the
clock that versions come from is behind the server's. Or so much earlier, and be another's all the same."""


class Where(NamedTuple):
    """Whose keys, in which database."""

    user: bytes
    db: int


class Knowledge:
    """Ask for it. `now_ms` gives the server's time, as far as it is known."""

    def __init__(self, engine: Engine, clock: HybridClock, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._now_ms = now_ms

    def of(self, where: Where, key: bytes) -> Known | None:
        """Return what L1 knew of a key when Redis went away, if it is known whole and has not ended since."""
        raw = bulk(key)
        for protocol in (2, 3):
            scope = Scope(where.user, where.db, protocol)
            value = self._last(scope, raw, None)
            if value is not None:
                reply, *versions = value
                return Known(None if reply == NIL[protocol] else unbulk(reply), *versions)
            value = self._last(scope, raw, command("HGETALL", key))
            if value is not None:
                reply, *versions = value
                parts = [unbulk(part) for part in elements(reply)]
                return Known(dict(zip(parts[::2], parts[1::2], strict=True)) or None, *versions)
        return None

    def _last(self, scope: Scope, key: bytes, request: bytes | None) -> tuple[bytes, int, int] | None:
        engine, outage = self._engine, self._engine.outage
        left = outage.remains.find(scope, key, request)
        if left is None:
            return None
        entry, true_until = left
        if entry.ends_at <= engine.now or _is_watched(engine, entry):
            return None
        if not self._clock.is_anchored:
            return entry.reply, 0, 0
        until_us = self._now_ms() * 1000 - int((engine.now - true_until) * 1e6)
        sure_us = until_us - MARGIN_US - int(outage.max_staleness_s * 1e6)  # no push may have come for so long
        return entry.reply, version_at(until_us + MARGIN_US), version_at(sure_us)


def _is_watched(engine: Engine, entry: Entry) -> bool:
    """Return whether a fence may have taken an entry that is looked at on each hit."""
    return entry.deadline < 0 and (engine.fenced is None or engine.fenced.has_gone(entry))
