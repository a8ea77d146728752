"""From which size on values are compressed: lower while smaller ones shrink well and there is time, else higher.

A few of the values that are too small are compressed for nothing, to see: one in `TRY_EVERY`, and in no more than a
small share of the time.
"""

from __future__ import annotations

from typing import Final

from proxy.config.model import Settings
from proxy.config.units import format_bytes
from proxy.core.tuners.spans import Small, Span
from proxy.core.tuners.tuner import Knob, Step
from proxy.values.compression import Allowance
from proxy.values.sealing import Sealer

HALF: Final = 2  # sizes spread over powers of ten: a quarter less would find next to none
GAIN_MIN: Final = 0.01
"""Less than a hundredth of what is written is not worth the time."""
TRY_EVERY: Final = 32
TRY_SHARE: Final = 0.002
TRIED_MIN: Final = 20
FULL: Final = 0.5
"""The part of compression.time_share that smaller values may take: the larger ones need the rest."""
LATE: Final = 0.05
"""The share of values left as they are for want of time from which it is too many."""
COUNTED_MIN: Final = 100


class SmallValues:
    """Count values that are too small to be compressed, but of half that size at least; try some of them out."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._allowance = Allowance(TRY_SHARE)
        self._seen = self._seen_bytes = self._tried = self._tried_bytes = self._saved_bytes = 0
        self._seconds = 0.0

    def see(self, value: bytes, now: float) -> None:
        """Take note of one."""
        size = len(value)
        if size < self._sealer.min_bytes // HALF:
            return
        self._seen += 1
        self._seen_bytes += size
        if self._seen % TRY_EVERY == 1 and self._allowance.has_some(now):
            saved, seconds = self._sealer.try_out(value)
            self._allowance.spend(seconds)
            self._tried += 1
            self._tried_bytes += size
            self._saved_bytes += saved
            self._seconds += seconds

    @property
    def counted(self) -> Small:
        """What it came to since the start."""
        return Small(self._seen_bytes, self._tried, self._tried_bytes, self._saved_bytes, self._seconds)


class ThresholdTuner:
    """Tune compression.min_bytes, between tuning.min_compress_bytes and tuning.max_compress_bytes."""

    knob = Knob("compression.min_bytes", "compression.min_bytes", format_bytes)
    figure = "share of written bytes that compressing saves"
    group = "compression"

    def measure(self, span: Span) -> float | None:
        """Return the share saved."""
        return span.saved_share

    def propose(self, spans: list[Span], now: Settings, configured: Settings) -> Step | None:
        """Propose half the size, or twice."""
        written = sum(span.written_bytes for span in spans)
        if any(span.saved_share is None for span in spans):
            return None
        return self._higher(spans, now, configured) or self._lower(spans, now, configured, written)

    def _higher(self, spans: list[Span], now: Settings, configured: Settings) -> Step | None:
        size = now.compression.min_bytes
        more = min(HALF * size, max(configured.compression.min_bytes, configured.tuning.max_compress_bytes))
        late = sum(span.out_of_time for span in spans)
        wanted = late + sum(span.compress_tried for span in spans)
        if more <= size or wanted < COUNTED_MIN or late <= LATE * wanted:
            return None
        why = f"{late / wanted:.0%} of the values were stored as they are for want of time: larger ones pay better"
        return Step(more, why, 0.0)

    def _lower(self, spans: list[Span], now: Settings, configured: Settings, written: int) -> Step | None:
        size = now.compression.min_bytes
        less = max(size // HALF, min(configured.compression.min_bytes, configured.tuning.min_compress_bytes))
        smalls = [span.small for span in spans]
        tried, tried_bytes = (sum(getattr(one, name) for one in smalls) for name in ("tried", "tried_bytes"))
        if less >= size or tried < TRIED_MIN:
            return None
        times = sum(one.seen_bytes for one in smalls) / tried_bytes  # what is seen, in multiples of what is tried
        gain = times * sum(one.saved_bytes for one in smalls) / written
        taken = times * sum(one.seconds for one in smalls) / sum(span.seconds for span in spans)
        if gain < GAIN_MIN or taken > FULL * now.compression.time_share:
            return None
        shrunk = sum(one.saved_bytes for one in smalls) / tried_bytes
        why = (
            f"values of {format_bytes(less)} to {format_bytes(size)} shrink by {shrunk:.0%}, in {taken:.2%} of the time"
        )
        return Step(less, why, gain)

    def has_settled(self, span: Span, waited_s: float, now: Settings) -> bool:
        """Return True: the next write is under the new rule."""
        return True
