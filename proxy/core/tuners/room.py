"""The room of L1: more of it while ghosts say that it would bring hits, less where it stands empty.

The whole of L1 is tuned, and not a share for each class. What is evicted is what is worth least a byte, of all classes
(cache.l1): a class has the room that its hits pay for, and gets more of it with every step. What else two L1 would have
apart from each other, one learns by class: how much idle time says, and who went (cache.groups). `python -m
bench.tuning` plays two classes in one L1, and in every split of it: no share is worth more than a point of hits.
"""

from __future__ import annotations

from typing import Final

from proxy.config.model import Settings
from proxy.config.units import format_bytes
from proxy.core.tuners.spans import Span
from proxy.core.tuners.tuner import FACTOR, Knob, Step

GAIN_MIN: Final = 0.003
"""Less than 0.3 points of hits are not worth a quarter more memory."""
EMPTY: Final = 0.6
"""Below this part of the room, the last step but one would do, with some to spare."""
FILLED: Final = 0.9
FILL_S: Final = 300.0


class RoomTuner:
    """Tune l1.max_bytes, between what is configured and tuning.max_l1_bytes."""

    knob = Knob("l1.max_bytes", "l1.max_bytes", format_bytes)
    figure = "hit rate"
    group = "hits"

    def measure(self, span: Span) -> float | None:
        """Return the hit rate."""
        return span.hit_rate

    def propose(self, spans: list[Span], now: Settings, configured: Settings) -> Step | None:
        """Propose a quarter more, or to give it back."""
        room = now.l1.max_bytes
        if not now.l1.enabled or any(span.hit_rate is None for span in spans):
            return None
        if room > configured.l1.max_bytes and all(span.after.l1_bytes < EMPTY * room for span in spans):
            less = max(configured.l1.max_bytes, _whole(room / FACTOR))
            return Step(less, f"{format_bytes(room)} are filled to less than {EMPTY:.0%}", 0.0)
        most = max(configured.l1.max_bytes, configured.tuning.max_l1_bytes)
        more = min(most, _whole(room * FACTOR))
        gain = sum(span.more_hits[0] for span in spans) / sum(span.reads for span in spans)
        gain *= (more / room - 1) / (FACTOR - 1)
        if gain < GAIN_MIN or more <= room:
            return None
        why = f"with {format_bytes(more)}, {gain:.1%} of the reads would have been hits besides, as ghosts tell"
        return Step(more, why, gain)

    def has_settled(self, span: Span, waited_s: float, now: Settings) -> bool:
        """Return whether the room has filled."""
        return span.before.l1_bytes >= FILLED * now.l1.max_bytes or waited_s >= FILL_S


def _whole(size: float) -> int:
    """Return a size that can be read: whole MiB, or KiB below four."""
    unit = 1 << 20 if size >= 4 << 20 else 1 << 10
    return max(unit, round(size / unit) * unit)
