"""What is usual at an hour, from days that a test makes up."""

from __future__ import annotations

import pytest

from proxy.core.figures.days import HOURS, Days

HOUR = 3600.0
DAY = 24 * HOUR
NOON = 20_000 * DAY + 12 * HOUR


def _days(count: int, *, until: float = NOON) -> Days:
    """Return days on each of which there are 10 clients more an hour, beginning with none at midnight."""
    days = Days()
    at = until - count * DAY
    while at < until:
        days.add(at, {"clients": 10.0 * (at % DAY // HOUR)}, samples=600)
        at += 600.0
    return days


def test_usual_is_that_of_the_same_hour_of_the_days_before() -> None:
    """In the middle of an hour its own mean, in between two hours something in between."""
    days = _days(5)

    assert days.usual("clients", NOON + HOUR / 2) == pytest.approx(120.0)
    assert days.usual("clients", NOON + HOUR) == pytest.approx(125.0)
    assert days.scatter("clients", NOON) == pytest.approx(0.0)


def test_usual_leaves_out_today() -> None:
    """What is going on now does not count as usual."""
    days = _days(5)
    for minute in range(60):
        days.add(NOON + 60 * minute, {"clients": 9999.0}, samples=60)

    assert days.usual("clients", NOON + HOUR / 2) == pytest.approx(120.0)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_usual_of_few_days_is_not_known(count: int) -> None:
    """Two days do not make a habit."""
    assert _days(count).usual("clients", NOON) is None
    assert _days(count).scatter("clients", NOON) is None


def test_usual_of_a_figure_that_was_hardly_known_is_not_known() -> None:
    """An hour in which it was measured for a minute says nothing."""
    days = _days(5)
    for day in range(1, 6):
        for hour in (-1, 0, 1):
            days.add(NOON - day * DAY + hour * HOUR, {"hit_rate": 0.5}, samples=60)

    assert days.usual("hit_rate", NOON) is None


def test_days_keep_a_week_and_no_more() -> None:
    """Months later it takes the same memory."""
    days = _days(30)

    assert len(days._hours) == HOURS
    assert days.usual("clients", NOON + HOUR / 2) == pytest.approx(120.0)
    assert Days().usual("clients", NOON) is None
