"""Keep what is hot here warm in Redis: hits never reach it, so its own LRU or LFU would evict the hottest keys first.

Owns which keys are touched. A roving slice of L1 is looked at, and the keys served since the last look are named in a
TOUCH, the most used first: TOUCH changes no value, sends no push, and counts as a use. The rate is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from proxy.cache.entry import Namespace
from proxy.core.engine import Engine

SLICE: Final = 256  # entries looked at a turn: some 20 us
BURST_S: Final = 1.0
AGAIN_S: Final = 5.0


class Warmer:
    """Name the keys to touch. `rate` is keys a second, 0 for none."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.rate = 0
        self._hand = engine.l1.walk(SLICE)
        self._round_at = 0.0  # when the present round through L1 began, and the one before
        self._last_round_at = 0.0
        self._allowed = 0.0
        self._at = 0.0
        self._touched: set[bytes] = set()  # in this period of AGAIN_S, and the one before: not named again
        self._touched_before: set[bytes] = set()
        self._period_at = 0.0

    def turn(self) -> Mapping[Namespace, list[bytes]]:
        """Return the keys (as bulk strings) to touch now, by namespace."""
        engine = self._engine
        now = engine.now
        self._round_at = self._round_at or now
        self._allowed = min(self.rate * BURST_S, self._allowed + self.rate * (now - self._at))
        self._at = now
        if self._allowed < 1 or not engine.l1.serving or not len(engine.l1):
            return {}
        looked_at = next(self._hand)
        if not looked_at:
            self._last_round_at, self._round_at = self._round_at, now
            looked_at = next(self._hand)
        if now - self._period_at >= AGAIN_S:
            self._touched_before, self._touched, self._period_at = self._touched, set(), now
        young, old = self._touched, self._touched_before
        hot = [entry for entry in looked_at if entry.used_at > self._last_round_at and entry.uses > 1]
        # Those named of late come last: naming the very hottest again and again would leave the next ones to Redis.
        hot.sort(key=lambda entry: (entry.key in young or entry.key in old, -entry.uses))
        chosen: dict[Namespace, list[bytes]] = {}
        for entry in hot[: int(self._allowed)]:
            chosen.setdefault(entry.namespace, []).append(entry.key)
            young.add(entry.key)
            self._allowed -= 1
        return {namespace: list(dict.fromkeys(keys)) for namespace, keys in chosen.items()}
