"""How long values live: longer where keys that are still read are found to be gone, and a window that tells them apart.

Judged by reads of keys of adaptive classes that found nothing although the key had been read before, in the window: the
app had to make the value again. Which tier such a key is in says which bound would have kept it.
"""

from __future__ import annotations

from typing import Final, Literal

from proxy.config.model import ClassSettings, Settings
from proxy.config.units import format_seconds
from proxy.core.tuners.spans import Span
from proxy.core.tuners.tuner import FACTOR, Knob, Step

MISSING_MIN: Final = 100
GAIN_MIN: Final = 0.001
"""A read in a thousand: each is worth a query of the app's own, not one of Redis."""
DECIDED_MIN: Final = 300
ONE_TIER: Final = 0.95
MIXED_GAIN: Final = 0.01
SETTLE_MAX_S: Final = 3600.0


class BoundTuner:
    """Tune ttl.hot or ttl.cold: lengthen it up to tuning.max_ttl_factor times what is configured."""

    figure = "share of reads that found a value"
    group = "lifetimes"

    def __init__(self, tier: Literal["hot", "cold"]) -> None:
        self._tier = tier
        self.knob = Knob(f"ttl.{tier}", f"ttl.{tier}_s", format_seconds)

    def measure(self, span: Span) -> float | None:
        """Return the share of reads that did not come too late."""
        return span.found_share

    def propose(self, spans: list[Span], now: Settings, configured: Settings) -> Step | None:
        """Propose a quarter more, where it would reach any class."""
        life_s: float = self.knob.of(now)
        longer_s = min(_round(life_s * FACTOR), self.knob.of(configured) * configured.tuning.max_ttl_factor)
        missing = sum(getattr(span.missing, self._tier) for span in spans)
        reads = sum(span.reads for span in spans)
        if missing < MISSING_MIN or longer_s <= life_s or not any(self._holds(one, life_s) for one in now.classes):
            return None
        gain = missing / reads * (1 - life_s / longer_s)
        if gain < GAIN_MIN:
            return None
        why = f"{missing / reads:.2%} of the reads found nothing of a {self._tier} key that had been read before"
        return Step(longer_s, why, gain)

    def _holds(self, one: ClassSettings, life_s: float) -> bool:
        """Return whether this bound is what ends the keys of a class (see values.ttl)."""
        if one.adaptive_ttl != "on":
            return False
        if self._tier == "hot":
            return one.ttl_s is None or one.ttl_s / 2 > life_s
        return one.max_ttl_s is not None and one.max_ttl_s > life_s and (one.ttl_s is None or 2 * one.ttl_s <= life_s)

    def has_settled(self, span: Span, waited_s: float, now: Settings) -> bool:
        """Return whether values written before have ended."""
        life_s: float = self.knob.of(now)
        return waited_s >= min(SETTLE_MAX_S, life_s)


class WindowTuner:
    """Tune ttl.window: the tiers say nothing when nearly all keys are in one of them."""

    knob = Knob("ttl.window", "ttl.window_s", format_seconds)
    figure = "share of writes that are not of the one most frequent tier"
    group = "lifetimes"

    def measure(self, span: Span) -> float | None:
        """Return how mixed the tiers are."""
        return span.mixed_share

    def propose(self, spans: list[Span], now: Settings, configured: Settings) -> Step | None:
        """Propose a longer window where nearly all is cold, a shorter one where nearly all is hot."""
        decided = sum(span.decided.total for span in spans)
        if decided < DECIDED_MIN:
            return None
        window_s, factor = now.ttl.window_s, configured.tuning.max_ttl_factor
        cold = sum(span.decided.cold for span in spans) / decided
        hot = sum(span.decided.hot for span in spans) / decided
        if cold > ONE_TIER:
            other_s = min(_round(window_s * FACTOR), configured.ttl.window_s * factor)
            why = f"{cold:.0%} of the writes are of cold keys: so short a window finds few reads of any"
        elif hot > ONE_TIER:
            other_s = max(_round(window_s / FACTOR), configured.ttl.window_s / factor, 1.0)
            why = f"{hot:.0%} of the writes are of hot keys: so long a window finds many reads of all"
        else:
            return None
        return None if other_s == window_s else Step(other_s, why, MIXED_GAIN)

    def has_settled(self, span: Span, waited_s: float, now: Settings) -> bool:
        """Return whether the window has been counted anew."""
        return waited_s >= now.ttl.window_s


def _round(seconds: float) -> float:
    """Return a time that can be read: whole seconds, where that is near enough."""
    return float(round(seconds)) if seconds >= 8 else seconds
