"""Tuning: small steps of a few settings, tried one at a time, kept when they pay and undone when they do not.

    every 10 s: counters -> a span -> for each tuner
        a step is under way      measure it: wait, keep it, or undo it and let the tuner rest, each time for longer
        else                     ask for a step: "suggest" says it, "apply" takes it

Owns the values that stand in place of configured ones. It changes nothing itself: `take` lays them over the settings,
and at a step the worker is told to apply its settings again, as at a reload. A setting that is changed in the file is
the operator's again, and tuned from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs

from proxy.cache.ghost import ROOMS, Ghosts
from proxy.config.model import Settings
from proxy.core.engine import Engine
from proxy.core.figures.stats import MetricFamily, Sample
from proxy.core.tuners.admission import AdmissionTuner
from proxy.core.tuners.desk import Desk
from proxy.core.tuners.lifetimes import BoundTuner, WindowTuner
from proxy.core.tuners.room import RoomTuner
from proxy.core.tuners.spans import Moment, Span, Tiers, take_moment
from proxy.core.tuners.threshold import SmallValues, ThresholdTuner
from proxy.core.tuners.trial import SPANS, Trial
from proxy.core.tuners.tuner import Step, Tuner
from proxy.core.values import Values
from proxy.log import get_logger
from proxy.wire.encode import bulk, unbulk

SPAN_S: Final = 10.0
STEPS_SHOWN: Final = 20
log = get_logger("tuning")


def make_tuners() -> tuple[Tuner, ...]:
    """Return all tuners there are."""
    return RoomTuner(), AdmissionTuner(), ThresholdTuner(), BoundTuner("hot"), BoundTuner("cold"), WindowTuner()


class Tuning:
    """Tune one worker. `on_step` is handed the configured settings when they are to be applied again."""

    def __init__(
        self, engine: Engine, values: Values, tuners: Iterable[Tuner], on_step: Callable[[Settings], None]
    ) -> None:
        self._engine = engine
        self._values = values
        self._on_step = on_step
        self._configured: Settings | None = None
        self._tuned: dict[str, Any] = {}  # names of knobs -> what they stand at in place of what is configured
        self._desks = [Desk(tuner) for tuner in tuners]
        self._small = SmallValues(values.sealer)
        self._missing = Tiers()
        self._last: Moment | None = None
        self._reads_before = 0
        self._ended: deque[tuple[float, dict[str, str]]] = deque(maxlen=STEPS_SHOWN)
        self._steps = self._kept = self._undone = 0

    @property
    def mode(self) -> str:
        """What it does: "off", "suggest" or "apply"."""
        return self._configured.tuning.mode if self._configured is not None else "off"

    def take(self, settings: Settings) -> Settings:
        """Take configured settings, new or as they were; return them with what is tuned in its place."""
        before, self._configured = self._configured, settings
        if before is None or before.tuning != settings.tuning:
            self._begin_anew()
        for desk in self._desks:
            knob = desk.tuner.knob
            if before is not None and knob.of(before) != knob.of(settings):
                self._tuned.pop(knob.name, None)
                desk.begin_anew()
        return self._lay_over(settings)

    def _lay_over(self, settings: Settings) -> Settings:
        for desk in self._desks:
            knob = desk.tuner.knob
            if knob.name in self._tuned:
                settings = knob.set(settings, self._tuned[knob.name])
        return settings

    def _begin_anew(self) -> None:
        """Begin to look, or end it: other bounds, or none at all. Nothing that was tuned stays."""
        is_on = self.mode != "off"
        self._tuned.clear()
        self._engine.l1.ghosts = Ghosts() if is_on else None
        self._engine.on_missing = self._note_missing if is_on else None
        self._values.sealer.on_small = self._note_small if is_on else None
        self._last = None
        self._reads_before = self._reads
        for desk in self._desks:
            desk.begin_anew()

    @property
    def _reads(self) -> int:
        return self._engine.stats.hits + self._engine.stats.misses

    def _note_missing(self, key: bytes) -> None:
        """Count a read that found nothing, if its key has adaptive TTLs and had been read before."""
        plain = unbulk(key)
        rules = self._values.rules.find(plain)
        if rules is None or rules.ttl.adaptive != "on":
            return
        lifetimes = self._values.lifetimes
        reads = lifetimes.reads(plain, self._engine.now)
        if reads <= 1:  # this one
            return
        found, thresholds = self._missing, lifetimes.thresholds
        if reads > thresholds.hot_above:
            self._missing = attrs.evolve(found, hot=found.hot + 1)
        elif reads > thresholds.warm_above:
            self._missing = attrs.evolve(found, warm=found.warm + 1)
        else:
            self._missing = attrs.evolve(found, cold=found.cold + 1)

    def _note_small(self, value: bytes) -> None:
        self._small.see(value, self._engine.now)

    def tick(self) -> None:
        """Look at what happened since the last span ended, once one has passed. Call it often."""
        configured, last, now = self._configured, self._last, self._engine.now
        if configured is None or configured.tuning.mode == "off" or (last is not None and now - last.at < SPAN_S):
            return
        self._last = take_moment(self._engine, self._values, self._small.counted, self._missing)
        if last is None:
            return
        span = Span(last, self._last)
        for desk in self._desks:
            if desk.trial is not None:
                self._measure(desk, desk.trial, span, configured)
            else:
                self._look(desk, span, configured)

    def _look(self, desk: Desk, span: Span, configured: Settings) -> None:
        desk.spans.append(span)
        is_alone = all(other.trial is None or other.tuner.group != desk.tuner.group for other in self._desks)
        if len(desk.spans) < SPANS or span.after.at < desk.rests_until or not is_alone:
            return
        step = desk.tuner.propose(list(desk.spans), self._lay_over(configured), configured)
        if configured.tuning.mode == "suggest":
            self._suggest(desk, step, configured)
        elif step is not None:
            self._begin(desk, step, span.after.at, configured)

    def _suggest(self, desk: Desk, step: Step | None, configured: Settings) -> None:
        """Say what would be done; once, as long as it stays the same, however often it is not worth it in between."""
        desk.suggested = step
        if step is not None and step.value != desk.said:
            desk.said = step.value
            desk.why = step.why
            knob = desk.tuner.knob
            turn = {"setting": knob.name, "from": knob.show(knob.of(configured)), "to": knob.show(step.value)}
            log.info("suggested", **turn, why=step.why, expected=desk.expected(step))

    def _begin(self, desk: Desk, step: Step, now: float, configured: Settings) -> None:
        knob = desk.tuner.knob
        old = knob.of(self._lay_over(configured))
        if desk.begin(step, old, now):
            self._steps += 1
            turn = {"setting": knob.name, "from": knob.show(old), "to": knob.show(step.value)}
            log.info("step", **turn, why=step.why, expected=desk.expected(step))
            self._turn(desk, step.value, configured)

    def _measure(self, desk: Desk, trial: Trial, span: Span, configured: Settings) -> None:
        """Take one more span into the account of a step; end it when it is clear what it has come to."""
        tuned = self._lay_over(configured)
        trial.has_settled |= desk.tuner.has_settled(span, span.before.at - trial.began_at, tuned)
        trial.add(desk.tuner.measure(span))
        verdict = trial.verdict()
        if verdict == "wait":
            return
        knob, is_kept = desk.tuner.knob, verdict == "keep"
        turn = {"setting": knob.name, "from": knob.show(trial.old), "to": knob.show(trial.step.value)}
        came_to = {"expected": desk.expected(trial.step), "measured": desk.measured(trial)}
        log.info("step kept" if is_kept else "step undone", **turn, **came_to)
        row = {**turn, "why": trial.step.why, **came_to, "outcome": "kept" if is_kept else "undone"}
        self._ended.append((span.after.at, row))
        desk.end(trial, span.after.at, is_kept=is_kept)
        if is_kept:
            self._kept += 1
        else:
            self._undone += 1
            self._turn(desk, trial.old, configured)

    def _turn(self, desk: Desk, value: object, configured: Settings) -> None:
        """Have a value stand, in place of the configured one where it is another."""
        knob = desk.tuner.knob
        if value == knob.of(configured):
            self._tuned.pop(knob.name, None)
        else:
            self._tuned[knob.name] = value
        self._on_step(configured)

    # -- what is told -------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return the section `tuning` of the report."""
        totals = {"steps_total": self._steps, "kept_total": self._kept, "undone_total": self._undone}
        found: dict[str, Any] = {"mode": self.mode, **totals}
        configured, ghosts, now = self._configured, self._engine.l1.ghosts, self._engine.now
        if configured is None or ghosts is None:
            return found
        tuned = self._lay_over(configured)
        more = {f"{room:g}": hits for room, hits in zip(ROOMS, ghosts.hits(), strict=True)}
        reads = self._reads - self._reads_before
        return {
            **found,
            "ghosts": {"held": len(ghosts), "reads_total": reads, "more_hits_total": more},
            "settings": [desk.row(configured, tuned, now) for desk in self._desks],
            "steps": [{"ago_s": round(now - at, 1), **row} for at, row in self._ended],
        }

    def explain(self, key: bytes) -> dict[str, Any]:
        """Return what tuning means for a key: whether more room would still hold it, what is not as configured."""
        found: dict[str, Any] = {"mode": self.mode}
        configured, ghosts = self._configured, self._engine.l1.ghosts
        if configured is None or ghosts is None:
            return found
        room = ghosts.room_for(bulk(key), bulk(key))
        if room is not None:
            found["evicted"] = f"with {room:g} times l1.max_bytes it would still be held"
        tuned = self._lay_over(configured)
        told = {desk.tuner.knob.name: desk.explain(configured, tuned) for desk in self._desks}
        return found | {name: text for name, text in told.items() if text}

    def families(self) -> Sequence[MetricFamily]:
        """Return the metrics."""
        outcomes = (("kept", self._kept), ("undone", self._undone))
        ended = tuple(Sample("_total", {"outcome": name}, float(count)) for name, count in outcomes)
        return [MetricFamily("respite_tuning_steps", "counter", "Steps of tuning that have ended, by outcome.", ended)]
