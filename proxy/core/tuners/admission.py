"""Admission to L1: from a fixed rule to the one that adapts, where the fixed one is seen to do badly.

What "auto" does is tuning already, by the same figures and quicker (cache.admission). So there is one step here, and
the way back.
"""

from __future__ import annotations

from typing import Final

from proxy.config.model import Settings
from proxy.core.tuners.spans import Span
from proxy.core.tuners.tuner import Knob, Step

COUNTED_MIN: Final = 500
NEVER_HIT: Final = 0.95
RETURNED: Final = 0.05
SETTLE_S: Final = 30.0


class AdmissionTuner:
    """Tune l1.admit."""

    knob = Knob("l1.admit", "l1.admit", str)
    figure = "hit rate"
    group = "hits"

    def measure(self, span: Span) -> float | None:
        """Return the hit rate."""
        return span.hit_rate

    def propose(self, spans: list[Span], now: Settings, configured: Settings) -> Step | None:
        """Propose "auto" where what is let in is not used, or what is kept out is wanted."""
        evicted = sum(span.evictions for span in spans)
        unused = sum(span.evictions_unused for span in spans)
        refused = sum(span.refusals for span in spans)
        returned = sum(span.returns for span in spans)
        reads = sum(span.reads for span in spans)
        if now.l1.admit == "always" and evicted >= COUNTED_MIN and unused > NEVER_HIT * evicted:
            why = f"{unused / evicted:.0%} of what was evicted was never hit: each cost a lease and a PTTL"
            return Step("auto", why, 0.0)
        if now.l1.admit == "second_read" and refused >= COUNTED_MIN and returned > RETURNED * refused:
            why = f"{returned / refused:.0%} of the keys that were kept out came back: a hit lost each"
            return Step("auto", why, returned / reads)
        return None

    def has_settled(self, span: Span, waited_s: float, now: Settings) -> bool:
        """Return whether others have come in by now."""
        return waited_s >= SETTLE_S
