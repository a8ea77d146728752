"""One tuner at work: what it has seen, the step it has under way or suggests, what became of its steps.

Owns the words in which a step is told, in the log and in the report.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import attrs

from proxy.config.model import Settings
from proxy.core.tuners.spans import Span
from proxy.core.tuners.trial import SPANS, Trial
from proxy.core.tuners.tuner import Step, Tuner

REST_S: Final = 600.0
REST_MAX_S: Final = 6 * 3600.0


@attrs.define
class Desk:
    """What is known of one tuner. `why` is its last step or suggestion in words, and what came of it."""

    tuner: Tuner
    spans: deque[Span] = attrs.field(factory=lambda: deque(maxlen=SPANS))
    trial: Trial | None = None
    suggested: Step | None = None
    said: Any = None  # the value that was suggested last, in the log
    why: str = ""
    rests_until: float = 0.0
    rest_s: float = 0.0

    def begin_anew(self) -> None:
        """Forget what was seen, and what was under way: the setting is another."""
        self.trial = self.suggested = self.said = None
        self.why = ""
        self.rests_until = self.rest_s = 0.0
        self.spans.clear()

    def begin(self, step: Step, old: Any, now: float) -> bool:
        """Begin a step from a value; return False where there is nothing that it could be compared with."""
        figures = [figure for span in self.spans if (figure := self.tuner.measure(span)) is not None]
        if not figures:
            return False
        self.trial = Trial(step, old, figures, now)
        self.why = step.why
        return True

    def end(self, trial: Trial, now: float, *, is_kept: bool) -> None:
        """End a step. The tuner of one that was undone rests, each time for longer."""
        self.trial = None
        self.spans.clear()
        self.why = f"{'kept' if is_kept else 'undone'}: {self.measured(trial)}, expected {self.expected(trial.step)}"
        if is_kept:
            self.rest_s = 0.0
        else:
            self.rest_s = min(2 * self.rest_s, REST_MAX_S) if self.rest_s else REST_S
            self.rests_until = now + self.rest_s

    def state(self, now: float) -> str:
        """Return what it is doing: "trying", "suggested", "resting" after a step that was undone, or "steady"."""
        if self.trial is not None:
            return "trying"
        if self.suggested is not None:
            return "suggested"
        return "resting" if now < self.rests_until else "steady"

    def expected(self, step: Step) -> str:
        """Say what a step should bring."""
        return self._points(step.expected) if step.expected else f"{self.tuner.figure} as before"

    def measured(self, trial: Trial) -> str:
        """Say what it has brought."""
        return self._points(trial.gain) if trial.after else "nothing: too little traffic to tell"

    def _points(self, gain: float) -> str:
        return f"{self.tuner.figure} {100 * gain:+.2f} points"

    def row(self, configured: Settings, tuned: Settings, now: float) -> dict[str, str]:
        """Return what the report says of it. All texts: those of several workers are joined side by side."""
        knob = self.tuner.knob
        row = {
            "name": knob.name,
            "configured": knob.show(knob.of(configured)),
            "value": knob.show(knob.of(tuned)),
            "state": self.state(now),
            "why": self.why,
        }
        step = self.suggested if self.trial is None else self.trial.step
        if step is not None:
            row["expected"] = self.expected(step)
        if self.suggested is not None:
            row["suggested"] = knob.show(self.suggested.value)
        return row

    def explain(self, configured: Settings, tuned: Settings) -> str:
        """Say what is not as configured, or should not be; "" where all is."""
        knob = self.tuner.knob
        if knob.of(tuned) != knob.of(configured):
            return f"{knob.show(knob.of(tuned))}, configured {knob.show(knob.of(configured))}: {self.why}"
        if self.suggested is not None:
            return f"{knob.show(self.suggested.value)} is suggested: {self.suggested.why}"
        return ""
