"""Where figures are going, in sentences: "hit rate falls 3 points an hour", "queue grows, full in 12 minutes".

    history --what is usual at these hours taken out--> slope, and is it more than noise? --> a sentence, or nothing
    days    --the same hour of the days before--------> is now beyond what was ever usual? --> a sentence, or nothing

Owns which figures have a trend, when one is worth a word, and the words. A slope is the median of those between all
pairs of points (Theil-Sen), so that a spike does not make one; it counts when it is far beyond what the scatter around
it could do, with allowance for scatter that lasts. One figure is looked at a time: each takes a fraction of a
millisecond, and the loop that this runs in serves clients.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from proxy.config.alert_conditions import format_figure
from proxy.core.figures.days import Days
from proxy.core.figures.history import WATCHED, History

LONG_S: Final = 1800.0
SHORT_S: Final = 300.0
NOW_S: Final = 600.0  # what is meant by now, where it is compared with other days
POINTS: Final = 30  # 435 pairs
_LEAST_POINTS: Final = 15
_LEAST_S: Final[Mapping[float, float]] = {SHORT_S: 240.0, LONG_S: 900.0}  # of less, nothing is told
# Standard errors; each figure is looked at 80 times an hour, for years. What is judged in minutes must be plain.
_CERTAIN: Final[Mapping[float, float]] = {SHORT_S: 12.0, LONG_S: 8.0}
_MOST_LASTING: Final = 0.9
_SOON_S: Final = 86400.0  # what is further away is no prediction
_UNUSUAL: Final = 4.0  # standard deviations of the days


@attrs.frozen
class _Kind:
    """How a figure is spoken of. `least` is the change that is worth a word: while looked at, and within an hour.

    `relative`: as a share of its level. `full`: its sentence is about when it is full or reaches a bound.
    """

    noun: str
    least: float
    relative: bool = False
    fills: bool = False


_KINDS: Final[Mapping[str, _Kind]] = {
    "hit_rate": _Kind("hit rate", 0.005),
    "saved_rate": _Kind("share of reads saved", 0.005),
    "latency_p50": _Kind("median latency", 0.15, relative=True),
    "latency_p99": _Kind("latency (p99)", 0.15, relative=True),
    "upstream_p99": _Kind("latency of Redis (p99)", 0.15, relative=True),
    "commands_per_second": _Kind("traffic", 0.05, relative=True),
    "error_rate": _Kind("error rate", 0.001),
    "sync_error_rate": _Kind("rate of sync errors", 0.0005),
    "memory_ratio": _Kind("share of memory left by compression", 0.01),
    "evictions_per_second": _Kind("rate of evictions", 0.2, relative=True),
    "clients": _Kind("number of clients", 0.1, relative=True),
    "queue_depth": _Kind("queue", 0.1, relative=True, fills=True),
    "outbox_depth": _Kind("outbox of changes", 0.1, relative=True, fills=True),
    "l1_fill": _Kind("L1", 0.01, fills=True),
    "offline_fill": _Kind("memory for writes", 0.01, fills=True),
    "tracking_pressure": _Kind("tracking table of Redis", 0.01, fills=True),
}
_LEAST_LEVEL: Final[Mapping[str, float]] = {
    "seconds": 0.0002,
    "per_second": 5.0,
    "count": 20.0,
}
"""A level below which a relative change is nothing to speak of, by unit."""


@attrs.frozen
class Trend:
    """What is said of one figure. `per_hour` is in its own unit; `is_good` None: neither way is better."""

    figure: str
    direction: Literal["up", "down"]
    per_hour: float
    is_good: bool | None
    text: str

    def row(self) -> dict[str, Any]:
        """Return it as reports show it."""
        return {
            "figure": self.figure,
            "direction": self.direction,
            "per_hour": self.per_hour,
            "good": self.is_good,
            "text": self.text,
        }


@attrs.frozen
class Slope:
    """A line through points: units a second, and how many standard errors that is away from no slope at all."""

    per_s: float
    errors: float
    level: float


class Trends:
    """Looks at one figure after the other."""

    def __init__(self, history: History, days: Days) -> None:
        self._history = history
        self._days = days
        self._names = list(_KINDS)
        self._next = 0
        self._found: dict[str, tuple[Trend, ...]] = {}

    def step(self, now_s: float, bounds: Mapping[str, float], alerts: Mapping[str, tuple[float, str]]) -> None:
        """Look at the next figure. `now_s` is since 1970; `bounds` says where figures are full, `alerts` when told."""
        name = self._names[self._next]
        self._next = (self._next + 1) % len(self._names)
        self._found[name] = self.look(name, now_s, bounds, alerts)

    @property
    def found(self) -> list[Trend]:
        """Everything there is to say now."""
        return [trend for trends in self._found.values() for trend in trends]

    def look(
        self, name: str, now_s: float, bounds: Mapping[str, float], alerts: Mapping[str, tuple[float, str]]
    ) -> tuple[Trend, ...]:
        """Look at one figure."""
        kind = _KINDS[name]
        spans = (SHORT_S, LONG_S) if kind.fills else (LONG_S,)
        for span_s in spans:
            slope = self._slope(name, span_s, now_s)
            if slope is not None and _is_worth_a_word(name, slope, span_s):
                return (_trend(name, slope, self._history.latest.get(name), bounds.get(name), alerts.get(name)),)
        unusual = self._unusual(name, now_s)
        return () if unusual is None else (unusual,)

    def _slope(self, name: str, span_s: float, now_s: float) -> Slope | None:
        points = self._history.series(name, span_s, span_s / POINTS)
        known = [(at, value) for at, value in points if value is not None]
        if len(known) < _LEAST_POINTS or known[-1][0] - known[0][0] < _LEAST_S[span_s]:
            return None
        end = points[-1][0]
        values = [value for _, value in known]
        usual = [found for at, _ in known if (found := self._days.usual(name, now_s - (end - at))) is not None]
        if len(usual) == len(values):
            plain = [value - daily for value, daily in zip(values, usual, strict=True)]
        else:
            plain = values
        return slope_of([at for at, _ in known], plain, level=statistics.median(values))

    def _unusual(self, name: str, now_s: float) -> Trend | None:
        recent = [value for _, value in self._history.series(name, NOW_S, NOW_S / 10) if value is not None]
        usual, scatter = self._days.usual(name, now_s), self._days.scatter(name, now_s)
        if len(recent) < 5 or usual is None or scatter is None:
            return None
        away = statistics.median(recent) - usual
        least = _least(name, abs(usual)) * 2
        if abs(away) < max(least, _UNUSUAL * scatter):
            return None
        direction: Literal["up", "down"] = "up" if away > 0 else "down"
        side = "above" if away > 0 else "below"
        text = f"{_KINDS[name].noun} is {_amount(name, abs(away), abs(usual))} {side} what is usual at this hour"
        return Trend(name, direction, 0.0, _is_good(name, direction), text)


def slope_of(times: Sequence[float], values: Sequence[float], *, level: float) -> Slope:
    """Fit a line to points, at least two of them at different times."""
    pairs = [
        (later - value) / (end - begin)
        for number, (begin, value) in enumerate(zip(times, values, strict=True))
        for end, later in zip(times[number + 1 :], values[number + 1 :], strict=True)
    ]
    per_s = statistics.median(pairs)
    middle = statistics.median(value - per_s * at for at, value in zip(times, values, strict=True))
    rests = [value - per_s * at - middle for at, value in zip(times, values, strict=True)]
    # A scatter of nothing at all would make a slope of nothing at all certain: what floats round off is scatter.
    scatter = max(1.4826 * statistics.median(map(abs, rests)), statistics.pstdev(rests) / 2, 1e-9 * abs(level), 1e-12)
    lasting = _lasting(rests)
    error = scatter * (12 / len(rests) * (1 + lasting) / (1 - lasting)) ** 0.5 / (times[-1] - times[0])
    return Slope(per_s, abs(per_s) / error, level)


def _lasting(rests: Sequence[float]) -> float:
    """Return how much of one point's deviation is left in the next, 0 to 0.9: scatter that lasts looks like a slope."""
    total = sum(rest * rest for rest in rests)
    if not total:
        return 0.0
    found = sum(one * other for one, other in itertools.pairwise(rests)) / total
    # The estimate from a few points is too low by about (1 + 4r) / n.
    found += (1 + 4 * max(found, 0.0)) / len(rests)
    return min(max(found, 0.0), _MOST_LASTING)


def _is_worth_a_word(name: str, slope: Slope, span_s: float) -> bool:
    least = _least(name, abs(slope.level))
    is_seen = abs(slope.per_s) * span_s >= least or abs(slope.per_s) * 3600 >= 4 * least
    return slope.errors >= _CERTAIN[span_s] and is_seen


def _least(name: str, level: float) -> float:
    kind = _KINDS[name]
    return kind.least * max(level, _LEAST_LEVEL.get(WATCHED[name].unit, 0.0)) if kind.relative else kind.least


def _trend(
    name: str, slope: Slope, latest: float | None, bound: float | None, alert: tuple[float, str] | None
) -> Trend:
    direction: Literal["up", "down"] = "up" if slope.per_s > 0 else "down"
    per_hour = slope.per_s * 3600
    kind = _KINDS[name]
    level = slope.level if latest is None else latest
    if kind.fills:
        text = f"{kind.noun} {'grows' if direction == 'up' else 'shrinks'}"
    else:
        text = f"{kind.noun} {'rises' if direction == 'up' else 'falls'} {_amount(name, abs(per_hour), level)} an hour"
    ahead = [(bound, "full")] if bound is not None else []
    if alert is not None:
        ahead.append((alert[0], f"at {format_figure(name, alert[0])}"))
    if kind.fills:
        ahead.append((2 * level, "doubled"))
    text += next((said for goal, what in ahead if (said := _until(slope.per_s, goal - level, what))), "")
    return Trend(name, direction, per_hour, _is_good(name, direction), text)


def _until(per_s: float, away: float, what: str) -> str:
    """Say when a figure that is so far away from something gets there; "" when it never does, or in days."""
    seconds = away / per_s
    return f", {what} in {_span(seconds)}" if 0 < seconds < _SOON_S else ""


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds), 1)} seconds"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{round(seconds / 3600)} hours"


def _amount(name: str, amount: float, level: float) -> str:
    match WATCHED[name].unit:
        case "ratio":
            return f"{100 * amount:.2g} points"
        case "seconds":
            return format_figure(name, amount)
        case _:
            return f"{100 * amount / level:.0f} %" if level else f"{amount:.3g}"


def _is_good(name: str, direction: Literal["up", "down"]) -> bool | None:
    good = WATCHED[name].good
    return None if not good else good == direction
