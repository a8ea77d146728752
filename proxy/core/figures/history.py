"""The figures of the last hours: every second of the last minutes, every ten seconds as far back as wanted.

    add, once a second --> fine (5 min) --ten make one--> coarse (metrics.history)

Bounded: a row has one number for each figure there is, NaN where it was not known. Owns how rows are joined and read
again; knows no clock: times are seconds of the monotonic clock, handed in.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Final

import attrs

from proxy.core.figures.snapshot import FIGURES, Figure

FINE_S: Final = 300.0
COARSE_STEP_S: Final = 10.0
POINTS_MAX: Final = 2000  # of one series: more than a screen is wide
GROWTH_S: Final = 300.0  # what comes and goes within it is no growth
_GROWTH_LEAST_S: Final = 60.0
_ENDS: Final = 10  # rows at either end whose mean counts, so that one spike is no growth

QUEUE_GROWTH: Final = Figure(
    "queue_growth", "per_second", "by how many events a second the queue has grown", "down", lambda _: None
)
"""Read from the history, over five minutes: two looks a second apart would tell of every burst."""
WATCHED: Final[Mapping[str, Figure]] = {**FIGURES, QUEUE_GROWTH.name: QUEUE_GROWTH}
"""Every figure that is kept, and may have an alert and a trend."""
_INDEX: Final = {name: number for number, name in enumerate(WATCHED)}

Point = tuple[float, float | None]
"""A time, and what the figure was then; None: not known."""


@attrs.frozen(eq=False)
class _Row:
    at: float
    values: array[float]


class History:
    """Keeps figures; `span_s` is how far back, in coarse steps."""

    def __init__(self, span_s: float) -> None:
        self._fine: deque[_Row] = deque()
        self._coarse: deque[_Row] = deque()
        self._open: list[_Row] = []
        self._span_s = span_s
        self.latest: Mapping[str, float] = {}

    def keep(self, span_s: float) -> None:
        """Look back so far from now on; what is older goes with the next `add`."""
        self._span_s = span_s

    def add(self, at: float, figures: Mapping[str, float]) -> None:
        """Take the figures of one moment, later than all before. Those that nobody knows are not kept."""
        row = _Row(at, array("d", [figures.get(name, math.nan) for name in WATCHED]))
        self.latest = dict(figures)
        self._fine.append(row)
        _forget(self._fine, at - FINE_S)
        if self._open and at // COARSE_STEP_S > self._open[0].at // COARSE_STEP_S:
            self._coarse.append(_Row(self._open[-1].at, _mean(self._open)))
            self._open = []
            _forget(self._coarse, at - self._span_s)
        self._open.append(row)

    def series(self, name: str, seconds: float, step: float) -> list[Point]:
        """Return one figure over the last `seconds`, oldest first, a point each `step` seconds, at most POINTS_MAX.

        A point is the mean of what was measured within half a step of it. Raises KeyError for no figure of ours.
        """
        index = _INDEX[name]
        if not self._fine:
            return []
        end = self._fine[-1].at
        step = max(step, 1.0, seconds / POINTS_MAX)
        is_coarse = seconds > FINE_S or step >= 2 * COARSE_STEP_S
        count = max(int(seconds // step), 1)
        buckets: list[list[float]] = [[] for _ in range(count)]
        for row in self._backwards(is_coarse=is_coarse):
            back = int((end - row.at) / step + 0.5)  # a look that is a little late is still its second's
            if back >= count:
                break
            value = row.values[index]
            if value == value:  # noqa: PLR0124 - it is not NaN, and asked for every row
                buckets[count - 1 - back].append(value)
        return [
            (end - (count - 1 - number) * step, sum(found) / len(found) if found else None)
            for number, found in enumerate(buckets)
        ]

    def growth(self, name: str) -> float | None:
        """Return by how much a second a figure has grown in the last five minutes; None when too little is known."""
        index = _INDEX[name]
        known = [(row.at, row.values[index]) for row in self._fine if not math.isnan(row.values[index])]
        if len(known) < 2 * _ENDS or known[-1][0] - known[0][0] < _GROWTH_LEAST_S:
            return None
        (began, first), (ended, last) = _middle(known[:_ENDS]), _middle(known[-_ENDS:])
        return (last - first) / (ended - began)

    def _backwards(self, *, is_coarse: bool) -> Iterator[_Row]:
        """Yield the rows, the latest first; of the coarse ones, those that are not ten yet stand for themselves."""
        if not is_coarse:
            return reversed(self._fine)
        return chain(reversed(self._open), reversed(self._coarse))


def _middle(points: list[tuple[float, float]]) -> tuple[float, float]:
    return sum(at for at, _ in points) / len(points), sum(value for _, value in points) / len(points)


def _mean(rows: Iterable[_Row]) -> array[float]:
    """Return the mean of each figure over the rows in which it was known."""
    columns = zip(*(row.values for row in rows), strict=True)
    known = ([value for value in column if not math.isnan(value)] for column in columns)
    return array("d", [sum(found) / len(found) if found else math.nan for found in known])


def _forget(rows: deque[_Row], before: float) -> None:
    while rows and rows[0].at < before:
        rows.popleft()
