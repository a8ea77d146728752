"""What is said of figures that go somewhere, and that nothing is said of those that only waver."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import pytest

from proxy.core.figures.days import Days
from proxy.core.figures.history import History
from proxy.core.figures.trends import Trend, Trends, slope_of

NOW = 1_700_000_000.0
Values = Callable[[int, random.Random], Mapping[str, float]]


def _watched(values: Values, seconds: int = 2000, seed: int = 1) -> Trends:
    history = History(3600)
    rand = random.Random(seed)
    for at in range(seconds):
        history.add(float(at), values(at, rand))
    return Trends(history, Days())


def _said(trends: Trends, name: str, *, bound: float | None = None, alert: float | None = None) -> list[str]:
    bounds = {} if bound is None else {name: bound}
    alerts = {} if alert is None else {name: (alert, "an alert")}
    return [trend.text for trend in trends.look(name, NOW, bounds, alerts)]


def test_look_falling_hit_rate_says_how_many_points_an_hour() -> None:
    """Three points an hour in a figure that wavers by three: it is seen within half an hour."""
    trends = _watched(lambda at, rand: {"hit_rate": 0.9 - 0.03 * at / 3600 + rand.gauss(0, 0.01)})

    (trend,) = trends.look("hit_rate", NOW, {}, {})

    assert trend.per_hour == pytest.approx(-0.03, rel=0.15)
    assert trend.text == f"hit rate falls {-100 * trend.per_hour:.2g} points an hour"
    assert (trend.direction, trend.is_good) == ("down", False)


def test_look_growing_queue_says_when_it_is_full() -> None:
    """Ten a second, and 7,200 to go."""
    trends = _watched(lambda at, _: {"queue_depth": 10.0 * at}, seconds=400)

    assert _said(trends, "queue_depth", bound=3990 + 7200) == ["queue grows, full in 12 minutes"]


def test_look_growing_queue_without_a_bound_says_when_it_is_where_an_alert_is_or_twice_as_long() -> None:
    """Of a queue that nobody bounds the next mark is told."""
    trends = _watched(lambda at, _: {"queue_depth": 10.0 * at}, seconds=400)

    assert _said(trends, "queue_depth", alert=3990 + 1200) == ["queue grows, at 5190 in 2 minutes"]
    assert _said(trends, "queue_depth") == ["queue grows, doubled in 7 minutes"]
    assert _said(trends, "queue_depth", bound=1e9) == ["queue grows, doubled in 7 minutes"]


def test_look_shrinking_queue_is_good_and_has_no_end() -> None:
    """It is said that it shrinks, not when it is full."""
    trends = _watched(lambda at, _: {"queue_depth": 9000.0 - 10 * at}, seconds=400)

    (trend,) = trends.look("queue_depth", NOW, {"queue_depth": 1e5}, {})

    assert (trend.text, trend.direction, trend.is_good) == ("queue shrinks", "down", True)


def test_look_rate_says_when_it_gets_where_its_alert_is() -> None:
    """What will be told is known before."""
    trends = _watched(lambda at, _: {"hit_rate": 0.95 - 0.06 * at / 3600})

    assert _said(trends, "hit_rate", alert=0.85) == ["hit rate falls 6 points an hour, at 85% in 67 minutes"]


def test_look_relative_figures_are_in_percent_and_times_in_their_unit() -> None:
    """Traffic in percent of itself, latency in milliseconds."""
    trends = _watched(
        lambda at, _: {"commands_per_second": 1000.0 + 500 * at / 3600, "latency_p99": 0.001 + 0.002 * at / 3600}
    )

    assert _said(trends, "commands_per_second") == ["traffic rises 39 % an hour"]
    assert _said(trends, "latency_p99") == ["latency (p99) rises 2ms an hour"]


def test_look_at_little_says_nothing() -> None:
    """Five minutes of a rising rate are no trend of an hour; a queue shows in four."""
    trends = _watched(lambda at, _: {"hit_rate": 0.9 - 0.3 * at / 3600, "queue_depth": 10.0 * at}, seconds=290)

    assert _said(trends, "hit_rate") == []
    assert _said(trends, "queue_depth") != []
    assert _said(_watched(lambda at, _: {"queue_depth": 10.0 * at}, seconds=200), "queue_depth") == []
    for seconds, is_said in ((820, False), (1000, True)):
        trends = _watched(lambda at, _: {"hit_rate": 0.9 - 0.3 * at / 3600}, seconds=seconds)
        assert bool(_said(trends, "hit_rate")) is is_said
    assert _said(_watched(lambda *_: {}), "hit_rate") == []


def test_look_at_a_change_too_small_to_matter_says_nothing() -> None:
    """A tenth of a point an hour is certain, and nobody wants to know."""
    trends = _watched(
        lambda at, _: {"hit_rate": 0.9 - 0.001 * at / 3600, "latency_p99": 0.001 + 0.00005 * at / 3600, "clients": 5.0}
    )

    assert [_said(trends, name) for name in ("hit_rate", "latency_p99", "clients")] == [[], [], []]


def test_look_at_a_step_or_a_spike_says_nothing() -> None:
    """What was different once is going nowhere."""
    step = _watched(lambda at, rand: {"hit_rate": (0.9 if at < 1000 else 0.8) + rand.gauss(0, 0.001)})
    spike = _watched(lambda at, rand: {"hit_rate": (0.2 if 1700 < at < 1800 else 0.9) + rand.gauss(0, 0.001)})

    assert _said(step, "hit_rate") == []
    assert _said(spike, "hit_rate") == []


def _noise(kind: str) -> Values:
    state = [0.0] * 4

    def draw(_: int, rand: random.Random) -> Mapping[str, float]:
        lasting = {"white": 0.0, "lasting": 0.9, "wandering": 0.99}.get(kind, 0.0)
        for number in range(4):
            state[number] = lasting * state[number] + rand.gauss(0, math.sqrt(1 - lasting**2))
        if kind == "spikes":
            state[:] = [rand.paretovariate(1.2) if rand.random() < 0.05 else 0.0 for _ in state]
        return {
            "hit_rate": 0.9 + 0.03 * state[0],
            "latency_p99": max(0.002 + 0.0008 * state[1], 0.0001),
            "queue_depth": max(0.0, 100 + 60 * state[2]),
            "l1_fill": 0.7 + 0.02 * state[3],
        }

    return draw


def _said_of(kind: str, seed: int) -> list[tuple[int, Trend]]:
    """Watch an hour and a half of each figure wavering; return what is said of it, looked at every minute."""
    history = History(3600)
    trends = Trends(history, Days())
    rand = random.Random(seed)
    draw = _noise(kind)
    said: list[tuple[int, Trend]] = []
    names = ("hit_rate", "latency_p99", "queue_depth", "l1_fill")
    for at in range(5400):
        history.add(float(at), draw(at, rand))
        if at % 60 == 0:
            said += [(at, one) for name in names for one in trends.look(name, NOW, {"l1_fill": 1.0}, {})]
    return said


@pytest.mark.parametrize("kind", ["white", "lasting", "spikes"])
def test_look_at_noise_alone_says_nothing(kind: str) -> None:
    """Of what wavers, not one word."""
    assert _said_of(kind, 2) == []


def test_look_at_what_wanders_says_hardly_anything() -> None:
    """What is gone its own way for minutes at a time does go somewhere; of 360 looks, one in a hundred says so."""
    assert len(_said_of("wandering", 1)) <= 4


NINE: float = 19_675 * 86400.0 + 9 * 3600  # in the morning


def _traffic(now_s: float) -> float:
    """Return what comes at a time of every day: a thousand a second more with each hour."""
    return 1000 * (now_s % 86400) / 3600


def _week() -> Days:
    days = Days()
    for number in range(6 * 24 * 6):
        at = NINE - 6 * 86400 + 600 * number
        days.add(at, {"commands_per_second": _traffic(at)}, samples=600)
    return days


def _morning(values: Callable[[float], float]) -> History:
    history = History(3600)
    for at in range(2000):
        history.add(float(at), {"commands_per_second": values(NINE - 2000 + at)})
    return history


def test_look_at_what_comes_back_every_day_says_nothing() -> None:
    """Traffic that rises now because it rises at this hour on every day is no trend; without those days it is one."""
    history = _morning(_traffic)

    assert Trends(history, Days()).look("commands_per_second", NINE, {}, {}) != ()
    assert Trends(history, _week()).look("commands_per_second", NINE, {}, {}) == ()


def test_look_at_what_does_not_rise_as_on_every_day_is_a_trend() -> None:
    """What stands still while it should rise falls behind."""
    history = _morning(lambda _: 8500.0)

    (trend,) = Trends(history, _week()).look("commands_per_second", NINE, {}, {})

    assert trend.direction == "down"
    assert trend.per_hour == pytest.approx(-1000, rel=0.1)


def test_look_at_what_was_never_so_at_this_hour_says_so() -> None:
    """A figure that goes where it should go, but is where it has never been at this time of the day."""
    history = _morning(lambda now: _traffic(now) - 4500)

    (trend,) = Trends(history, _week()).look("commands_per_second", NINE, {}, {})

    assert trend.text == "traffic is 50 % below what is usual at this hour"
    assert (trend.direction, trend.is_good) == ("down", None)


def test_step_looks_at_one_figure_after_the_other_and_forgets_what_is_over() -> None:
    """Each look costs little; what is found stands until the figure's next turn."""
    history = History(3600)
    trends = Trends(history, Days())
    for at in range(400):
        history.add(float(at), {"queue_depth": 10.0 * at})
    texts = []
    for _ in range(15):
        trends.step(NOW, {}, {})
        texts.append([trend.text for trend in trends.found])
    for at in range(400, 1200):
        history.add(float(at), {"queue_depth": 4000.0})
    for _ in range(15):
        trends.step(NOW, {}, {})

    assert texts[0] == []
    assert texts[-1] == ["queue grows, doubled in 7 minutes"]
    assert trends.found == []


def test_slope_of_a_line_is_certain_and_of_nothing_is_none() -> None:
    """What lies on a line has no error to speak of; a constant has no slope."""
    times = [float(at) for at in range(30)]

    line = slope_of(times, [2.0 * at for at in times], level=30.0)
    flat = slope_of(times, [5.0] * 30, level=5.0)

    assert line.per_s == pytest.approx(2.0)
    assert line.errors > 1000
    assert (flat.per_s, flat.errors) == (0.0, 0.0)
