"""A step under way: the figure before it, the figure since, and what follows from the two.

    before  .. .. .. .. .. ..|step|  settling  |.. .. .. .. .. ..  after
                    mean a         not counted          mean b

Kept when b is not below a and the gain is a fair part of what was expected; undone when b is below a, or so little came
of it that the step is not worth its price. What lies within the noise of both waits for more, up to a patience.
"""

from __future__ import annotations

import statistics
from typing import Any, Final, Literal

import attrs

from proxy.core.tuners.tuner import Step

SPANS: Final = 6
"""As many spans before a step, and at least as many after it: with spans of 10 s, a minute."""
PATIENCE: Final = 24
FAIR: Final = 0.25
"""The part of the expected gain below which a step was not worth it: what is expected is an estimate."""
NOISE_MIN: Final = 0.001
LONGEST: Final = 720
"""Spans without enough traffic count for nothing; after so many of any kind nobody could tell, and it is undone."""

Verdict = Literal["wait", "keep", "undo"]


@attrs.define
class Trial:
    """One step. `old` is what the knob stood at, `before` the figure over the spans before."""

    step: Step
    old: Any
    before: list[float]
    began_at: float
    has_settled: bool = False
    spans: int = 0
    after: list[float] = attrs.field(factory=list)

    def add(self, figure: float | None) -> None:
        """Take the figure of the next span; None where it does not tell."""
        self.spans += 1
        if self.has_settled and figure is not None:
            self.after.append(figure)

    @property
    def gain(self) -> float:
        """By how much the figure has risen; 0.0 before anything was measured."""
        return statistics.fmean(self.after) - statistics.fmean(self.before) if self.after else 0.0

    @property
    def noise(self) -> float:
        """How far apart the means may be by chance: twice the standard error of their difference."""
        parts = (statistics.variance(some) / len(some) for some in (self.before, self.after) if len(some) > 1)
        return max(NOISE_MIN, float(2 * sum(parts) ** 0.5))

    def verdict(self) -> Verdict:
        """Return what is to become of the step."""
        if len(self.after) < SPANS:
            return "undo" if self.spans >= LONGEST else "wait"
        gain, noise, wanted = self.gain, self.noise, self.step.expected * FAIR
        if gain + noise < wanted:  # or below 0, where nothing is wanted: worse than before, and not by chance
            return "undo"
        if gain - noise >= wanted:
            return "keep"
        if len(self.after) < PATIENCE:
            return "wait"
        return "keep" if gain >= wanted or not wanted else "undo"
