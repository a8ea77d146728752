"""The figures of the last hours, added by a hand clock."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest

from proxy.core.figures.history import FINE_S, GROWTH_S, POINTS_MAX, WATCHED, History


def _filled(seconds: int, span_s: float = 3600.0) -> History:
    history = History(span_s)
    for at in range(seconds):
        history.add(1000.0 + at, {"clients": float(at), **({"queue_depth": 5.0} if at % 2 else {})})
    return history


def test_series_of_the_last_minutes_has_every_second() -> None:
    """Oldest first, the last one being now."""
    points = _filled(400).series("clients", 5, 1)

    assert points == [(1395.0, 395.0), (1396.0, 396.0), (1397.0, 397.0), (1398.0, 398.0), (1399.0, 399.0)]


def test_series_of_a_look_that_is_late_leaves_no_hole() -> None:
    """A loop that has much to do looks a little late now and then: each look is still its own second's."""
    history = History(3600)
    for at in range(19):
        history.add(at + (0.3 if at % 3 else 0.0), {"clients": float(at)})

    assert [value for _, value in history.series("clients", 10, 1)] == [float(at) for at in range(9, 19)]


def test_series_of_hours_is_in_steps_of_ten_seconds() -> None:
    """What is older than minutes is the mean of ten seconds."""
    points = _filled(3000).series("clients", 2000, 10)

    assert len(points) == 200
    steps = [late - early for (_, early), (_, late) in pairwise(points[:-2]) if early and late]
    assert steps == [10.0] * 197


def test_series_of_a_figure_that_was_not_known_has_holes() -> None:
    """Not known is not zero."""
    history = _filled(100)

    assert [value for _, value in history.series("queue_depth", 4, 1)] == [None, 5.0, None, 5.0]
    assert [value for _, value in history.series("amqp_up", 2, 1)] == [None, None]


def test_series_joins_what_falls_into_a_step() -> None:
    """A wider step has the mean of what it covers."""
    points = _filled(100).series("queue_depth", 40, 8)

    assert [value for _, value in points] == [5.0] * 5
    assert points[-1][0] == 1099.0


def test_series_is_bounded_however_fine_it_is_asked() -> None:
    """A question for a day in seconds is answered with as many points as a screen has."""
    assert len(_filled(300).series("clients", 86400, 1)) <= POINTS_MAX
    assert len(_filled(300).series("clients", 1, 100)) == 1
    assert History(3600).series("clients", 10, 1) == []


def test_series_of_no_figure_raises() -> None:
    """Whoever asks has made a slip."""
    with pytest.raises(KeyError):
        _filled(1).series("colour", 10, 1)


def test_series_forgets_what_is_older_than_the_span() -> None:
    """The memory of a proxy that runs for months is that of its first hour."""
    history = _filled(7300, span_s=3600)

    known = [at for at, value in history.series("clients", 20_000, 10) if value is not None]
    assert 8299 - 3600 - 20 <= known[0]
    assert len(known) >= 355


def test_keep_for_longer_and_shorter_holds_from_the_next_row_on() -> None:
    """A reload changes how far back it goes."""
    history = _filled(3000)
    history.keep(600)
    for at in range(3000, 3020):
        history.add(1000.0 + at, {"clients": 0.0})

    known = [at for at, value in history.series("clients", 5000, 10) if value is not None]
    assert 3390 <= known[0] <= 3430


def test_history_of_an_hour_takes_little_memory() -> None:
    """660 rows of 29 numbers: 300 KB."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        history = _filled(4000)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert history.latest["clients"] == 3999.0
    assert taken < 400_000
    assert FINE_S / 1 + 3600 / 10 == 660
    assert len(WATCHED) < 40


def test_growth_is_that_of_five_minutes_not_of_a_burst() -> None:
    """A queue that fills and empties each minute does not grow; one that gains five a second does."""
    bursts, steady = History(3600), History(3600)
    for at in range(int(GROWTH_S) + 5):
        bursts.add(float(at), {"queue_depth": 600.0 - 10 * (at % 60) + (3000.0 if at == GROWTH_S + 4 else 0.0)})
        steady.add(float(at), {"queue_depth": 5.0 * at})

    assert abs(bursts.growth("queue_depth") or 0) < 2.0
    assert steady.growth("queue_depth") == pytest.approx(5.0)


def test_growth_of_too_little_is_not_known() -> None:
    """After ten seconds nobody can say, nor of what was not measured."""
    history = History(3600)
    for at in range(30):
        history.add(float(at), {"queue_depth": 1.0 * at})

    assert history.growth("queue_depth") is None
    assert history.growth("clients") is None
