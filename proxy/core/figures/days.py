"""What is usual at an hour of the day: the mean of every figure in every hour of the last seven days.

Bounded: 168 rows, a number and a count for each figure. Times are seconds since 1970: what comes back every day
follows the clock of people. Owns nothing but these means.
"""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Mapping
from typing import Final

import attrs

from proxy.core.figures.history import WATCHED

HOURS: Final = 7 * 24
DAYS_LEAST: Final = 3  # of fewer, nobody can say what is usual
_HOUR_S: Final = 3600.0
_SAMPLES_LEAST: Final = 300  # seconds of an hour that must be known for it to count
_INDEX: Final = {name: number for number, name in enumerate(WATCHED)}


@attrs.frozen(eq=False)
class _Hour:
    sums: array[float]
    counts: array[int]

    def mean(self, index: int) -> float | None:
        return self.sums[index] / self.counts[index] if self.counts[index] >= _SAMPLES_LEAST else None


class Days:
    """The hours of the last seven days."""

    def __init__(self) -> None:
        self._hours: dict[int, _Hour] = {}  # by number, hours since 1970, in the order they came

    def add(self, now_s: float, figures: Mapping[str, float], *, samples: int = 1) -> None:
        """Take the figures of one moment; `samples` is for how many seconds they stand."""
        number = int(now_s // _HOUR_S)
        hour = self._hours.get(number)
        if hour is None:
            hour = _Hour(array("d", [0.0] * len(WATCHED)), array("l", [0] * len(WATCHED)))
            self._hours[number] = hour
            if len(self._hours) > HOURS:
                del self._hours[next(iter(self._hours))]
        for name, value in figures.items():
            index = _INDEX.get(name)
            if index is not None:
                hour.sums[index] += value * samples
                hour.counts[index] += samples

    def usual(self, name: str, at_s: float) -> float | None:
        """Return what a figure usually is at this time of the day, in between the middles of two hours.

        None when fewer than three of the days before say something.
        """
        if len(self._hours) < DAYS_LEAST * 2:  # it is asked often, and for the first days for nothing
            return None
        number, share = divmod(at_s / _HOUR_S - 0.5, 1.0)
        early, late = self._like(name, int(number)), self._like(name, int(number) + 1)
        if len(early) < DAYS_LEAST or len(late) < DAYS_LEAST:
            return None
        return statistics.fmean(early) * (1 - share) + statistics.fmean(late) * share

    def scatter(self, name: str, at_s: float) -> float | None:
        """Return how far apart the days are at this hour, as a standard deviation; None as for `usual`."""
        found = self._like(name, int(at_s // _HOUR_S))
        return statistics.stdev(found) if len(found) >= DAYS_LEAST else None

    def _like(self, name: str, number: int) -> list[float]:
        """Return the means of the same hour on the seven days before."""
        index = _INDEX[name]
        hours = (self._hours.get(before) for before in range(number - 24, number - HOURS - 1, -24))
        means = (hour.mean(index) for hour in hours if hour is not None)
        return [mean for mean in means if mean is not None]
