"""Steps are taken one at a time, told in one line each, measured, and undone when they hurt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from proxy.cache.entry import Scope
from proxy.config.model import ClassSettings, Settings
from proxy.core.tuners.desk import REST_S
from proxy.core.tuners.spans import Span
from proxy.core.tuners.trial import SPANS
from proxy.core.tuners.tuner import Knob, Step
from proxy.core.tuning import SPAN_S, Tuning, make_tuners
from proxy.wire.encode import bulk

from .tuning_parts import make_engine, make_settings, make_values

NEVER = float("inf")


class ScriptedTuner:
    """Proposes one second more of a setting as long as it is told to; its figure is what the test says."""

    figure = "goodness"

    def __init__(self, field: str = "ttl.hot_s", group: str = "scripted") -> None:
        self.knob = Knob(field.removesuffix("_s"), field, lambda value: f"{value:g}s")
        self.group = group
        self.wants = True
        self.level: float | None = 0.5
        self.settles = True

    def measure(self, span: Span) -> float | None:
        """Return the level."""
        return self.level

    def propose(self, spans: list[Span], now: Settings, configured: Settings) -> Step | None:
        """Return one second more."""
        return Step(self.knob.of(now) + 1, "the test wants it", 0.1) if self.wants else None

    def has_settled(self, span: Span, waited_s: float, now: Settings) -> bool:
        """Return what the test says."""
        return self.settles


@attrs.define
class Bench:
    """A tuning of scripted tuners, and a clock."""

    tuners: list[Any]
    settings: Settings = attrs.field(factory=make_settings)
    applied: list[Settings] = attrs.field(factory=list)
    tuning: Tuning = attrs.field(init=False)
    engine: Any = attrs.field(factory=make_engine)

    def __attrs_post_init__(self) -> None:
        self.tuning = Tuning(self.engine, make_values(self.engine), self.tuners, self.apply)
        self.apply(self.settings)

    def apply(self, configured: Settings) -> None:
        """Take settings, as a worker does."""
        self.applied.append(self.tuning.take(configured))

    def pass_spans(self, count: int) -> None:
        """Let so many spans end."""
        for _ in range(count):
            self.engine.now += SPAN_S
            self.tuning.tick()

    @property
    def hot_s(self) -> float:
        """The setting that is turned, as it was applied last."""
        return self.applied[-1].ttl.hot_s

    def row(self, at: int = 0) -> dict[str, Any]:
        """Return what the report says of a tuner."""
        found: dict[str, Any] = self.tuning.report()["settings"][at]
        return found


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Give what is logged, one object a line."""
    found: list[dict[str, Any]] = []

    class Log:
        def info(self, event: str, **pairs: Any) -> None:
            """Keep a line."""
            found.append({"event": event, **pairs})

    monkeypatch.setattr("proxy.core.tuning.log", Log())
    return found


STEP = {"setting": "ttl.hot", "from": "300s", "to": "301s"}
FIRST = 1 + SPANS  # a moment to begin with, and as many spans as a step is proposed from


def test_step_that_pays_is_kept_and_the_next_is_tried_from_there(lines: list[dict[str, Any]]) -> None:
    """A line says what, why and what for; a later one what came of it."""
    tuner = ScriptedTuner()
    bench = Bench([tuner])
    bench.pass_spans(FIRST - 1)
    assert (bench.hot_s, lines) == (300.0, [])

    bench.pass_spans(1)
    assert bench.hot_s == 301.0
    assert bench.row()["state"] == "trying"

    tuner.level = 0.58
    bench.pass_spans(SPANS)
    assert (bench.hot_s, bench.row()["state"]) == (301.0, "steady")
    assert lines == [
        {"event": "step", **STEP, "why": "the test wants it", "expected": "goodness +10.00 points"},
        {"event": "step kept", **STEP, "expected": "goodness +10.00 points", "measured": "goodness +8.00 points"},
    ]

    bench.pass_spans(SPANS - 1)
    assert bench.hot_s == 301.0  # what was seen before the step says nothing of the next one
    bench.pass_spans(1)
    assert bench.hot_s == 302.0


def test_tick_comes_often_and_a_span_lasts_ten_seconds() -> None:
    """The clockwork ticks twenty times a second; figures of so short a time would be noise."""
    bench = Bench([ScriptedTuner()])
    for _ in range(int(SPAN_S) * SPANS):
        bench.engine.now += 1
        bench.tuning.tick()
    assert bench.hot_s == 300.0

    bench.engine.now += 1
    bench.tuning.tick()

    assert bench.hot_s == 301.0


def test_step_that_hurts_is_undone_and_rests_each_time_longer(lines: list[dict[str, Any]]) -> None:
    """What has gone wrong is not tried again at once."""
    tuner = ScriptedTuner()
    bench = Bench([tuner])
    bench.pass_spans(FIRST)

    tuner.level = 0.4
    bench.pass_spans(SPANS)
    assert (bench.hot_s, bench.row()["state"]) == (300.0, "resting")
    assert bench.applied[-1] == bench.settings
    assert lines[-1]["event"] == "step undone"
    assert lines[-1]["measured"] == "goodness -10.00 points"

    bench.pass_spans(int(REST_S / SPAN_S) - 1)
    assert bench.hot_s == 300.0
    bench.pass_spans(1)
    assert bench.hot_s == 301.0

    tuner.level = 0.3
    bench.pass_spans(SPANS + int(REST_S / SPAN_S))
    assert bench.hot_s == 300.0
    bench.pass_spans(int(REST_S / SPAN_S))
    assert bench.hot_s == 301.0
    assert bench.tuning.report()["undone_total"] == 2


def test_step_waits_while_nobody_can_tell() -> None:
    """Neither what has not settled, nor spans without traffic, say anything."""
    tuner = ScriptedTuner()
    bench = Bench([tuner])
    bench.pass_spans(FIRST)

    tuner.settles, tuner.level = False, 0.1
    bench.pass_spans(5)
    tuner.settles, tuner.level = True, None
    bench.pass_spans(5)
    assert bench.row()["state"] == "trying"

    tuner.level = 0.6
    bench.pass_spans(SPANS)
    assert bench.row()["state"] == "steady"


def test_step_without_anything_to_compare_it_with_is_not_taken() -> None:
    """Where the figure has not been measured, no step could be judged."""
    tuner = ScriptedTuner()
    bench = Bench([tuner])
    tuner.level = None

    bench.pass_spans(3 * SPANS)

    assert bench.hot_s == 300.0


def test_tuners_of_one_group_take_turns_others_do_not_wait() -> None:
    """What two steps at once have done, no figure could tell apart."""
    bench = Bench([ScriptedTuner(), ScriptedTuner("ttl.cold_s"), ScriptedTuner("ttl.window_s", "another")])

    bench.pass_spans(FIRST)

    ttl = bench.applied[-1].ttl
    assert (ttl.hot_s, ttl.cold_s, ttl.window_s) == (301.0, 3600.0, 61.0)


def test_suggest_says_it_once_and_changes_nothing(lines: list[dict[str, Any]]) -> None:
    """The log has one line a suggestion; the report has it as long as it holds."""
    tuner = ScriptedTuner()
    bench = Bench([tuner], make_settings("suggest"))
    bench.pass_spans(FIRST + 10)

    row = bench.row()
    assert len(bench.applied) == 1
    assert lines == [{"event": "suggested", **STEP, "why": "the test wants it", "expected": "goodness +10.00 points"}]
    assert (row["state"], row["suggested"], row["expected"]) == ("suggested", "301s", "goodness +10.00 points")
    assert bench.tuning.explain(b"k")["ttl.hot"] == "301s is suggested: the test wants it"

    tuner.wants = False
    bench.pass_spans(1)
    assert bench.row()["state"] == "steady"
    assert "suggested" not in bench.row()


def test_suggestion_that_comes_and_goes_is_said_once(lines: list[dict[str, Any]]) -> None:
    """A gain at the edge of what is worth a step would write a line every other span, for ever."""
    tuner = ScriptedTuner()
    bench = Bench([tuner], make_settings("suggest"))
    bench.pass_spans(FIRST)
    for _ in range(10):
        tuner.wants = not tuner.wants
        bench.pass_spans(1)

    assert [line["event"] for line in lines] == ["suggested"]


def test_off_looks_at_nothing() -> None:
    """Without tuning nothing is counted for it, and the report says so in a word."""
    bench = Bench([ScriptedTuner()], make_settings("off"))
    bench.pass_spans(3 * SPANS)

    assert bench.applied == [bench.settings]
    assert bench.engine.l1.ghosts is None
    assert bench.engine.on_missing is None
    assert bench.tuning.report() == {"mode": "off", "steps_total": 0, "kept_total": 0, "undone_total": 0}
    assert bench.tuning.explain(b"k") == {"mode": "off"}


def _lower_bound(settings: Settings) -> Settings:
    return attrs.evolve(settings, tuning=attrs.evolve(settings.tuning, max_ttl_factor=1.0))


@pytest.mark.parametrize(
    ("change", "hot_s"),
    [
        (lambda settings: settings, 301.0),  # the file as it was
        (lambda settings: attrs.evolve(settings, ttl=attrs.evolve(settings.ttl, cold_s=5.0)), 301.0),
        (lambda settings: attrs.evolve(settings, ttl=attrs.evolve(settings.ttl, hot_s=100.0)), 100.0),
        (_lower_bound, 300.0),
        (lambda settings: attrs.evolve(settings, tuning=attrs.evolve(settings.tuning, mode="off")), 300.0),
        (lambda settings: attrs.evolve(settings, tuning=attrs.evolve(settings.tuning, mode="suggest")), 300.0),
    ],
)
def test_reload_keeps_what_is_tuned_but_not_against_the_operator(
    change: Callable[[Settings], Settings], hot_s: float
) -> None:
    """A setting that is changed, other bounds, or another mode: then what is configured stands."""
    bench = Bench([ScriptedTuner()])
    bench.pass_spans(FIRST)
    assert bench.hot_s == 301.0

    bench.apply(change(bench.settings))

    assert bench.hot_s == hot_s


def test_report_has_the_last_steps_and_what_ghosts_say() -> None:
    """All that a person wants to know of a step, in texts; what can be added up, in numbers."""
    tuner = ScriptedTuner()
    bench = Bench([tuner])
    bench.pass_spans(FIRST)
    tuner.level = 0.58
    bench.pass_spans(SPANS)
    bench.engine.now += 5
    bench.engine.stats.hits += 7

    report = bench.tuning.report()

    assert report["mode"] == "apply"
    assert (report["steps_total"], report["kept_total"], report["undone_total"]) == (1, 1, 0)
    assert report["ghosts"] == {"held": 0, "reads_total": 7, "more_hits_total": {"1.25": 0, "1.5": 0, "2": 0}}
    assert report["settings"] == [
        {
            "name": "ttl.hot",
            "configured": "300s",
            "value": "301s",
            "state": "steady",
            "why": "kept: goodness +8.00 points, expected goodness +10.00 points",
        }
    ]
    assert report["steps"] == [
        {
            "ago_s": 5.0,
            **STEP,
            "why": "the test wants it",
            "expected": "goodness +10.00 points",
            "measured": "goodness +8.00 points",
            "outcome": "kept",
        }
    ]


def test_families_count_steps_by_outcome() -> None:
    """What ended how is a counter each."""
    tuner = ScriptedTuner()
    bench = Bench([tuner])
    bench.pass_spans(FIRST)
    tuner.level = 0.4
    bench.pass_spans(SPANS)

    (family,) = bench.tuning.families()

    assert family.name == "respite_tuning_steps"
    assert [(sample.labels["outcome"], sample.value) for sample in family.samples] == [("kept", 0.0), ("undone", 1.0)]


def test_explain_says_with_how_much_room_a_key_would_be_held() -> None:
    """Who asks why a key was a miss learns that it was evicted, and what would have kept it."""
    bench = Bench([ScriptedTuner()])
    l1 = bench.engine.l1
    l1.resize(20_000, 1000.0)
    for number in range(100):
        l1.put(l1.namespace(Scope(b"", 0, 2)), bulk(b"%d" % number), b"$1\r\nv\r\n", NEVER, 1000.0)
    evicted = next(b"%d" % n for n in range(100) if bulk(b"%d" % n) not in l1.namespace(Scope(b"", 0, 2)).resident)
    bench.pass_spans(FIRST)

    facts = bench.tuning.explain(evicted)

    assert facts["evicted"] in {
        f"with {room} times l1.max_bytes it would still be held" for room in ("1.25", "1.5", "2")
    }
    assert facts["ttl.hot"] == "301s, configured 300s: the test wants it"


def test_reads_that_found_nothing_are_counted_by_how_often_their_key_was_read() -> None:
    """Only of classes with adaptive TTLs, and of keys that had been read before: others no TTL would have kept."""
    engine = make_engine()
    values = make_values(
        engine, ClassSettings("a", ("a:*",), adaptive_ttl="on"), ClassSettings("b", ("b:*",), adaptive_ttl="report")
    )
    tuning = Tuning(engine, values, make_tuners(), lambda settings: None)
    tuning.take(make_settings())
    for key, reads in ((b"a:once", 1), (b"a:cold", 2), (b"a:warm", 8), (b"a:hot", 20), (b"b:hot", 20), (b"c", 20)):
        for _ in range(reads):
            values.lifetimes.count(key, engine.now)
        assert engine.on_missing is not None
        engine.on_missing(bulk(key))

    assert (tuning._missing.cold, tuning._missing.warm, tuning._missing.hot) == (1, 1, 1)
