"""Reads in a sliding window: held to counting them one by one, and bounded in memory."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from proxy.cache.frequency import KEYS_MAX, SLICES, Frequency, Mark, Marks

WINDOW_S = 60.0
SLICE_S = WINDOW_S / SLICES


def test_reads_are_those_of_the_window() -> None:
    """None before the first, all while they are young, none when the window is over."""
    frequency = Frequency(WINDOW_S)
    assert frequency.reads(b"k", 0.0) == 0
    for _ in range(7):
        frequency.count(b"k", 100.0)

    assert [7, 7, 0, 0] == [frequency.reads(b"k", at) for at in (100.0, 149.9, 170.1, 1e6)]
    assert frequency.reads(b"other", 100.0) == 0


@pytest.mark.parametrize("rate", [0.1, 1.0, 20.0])
def test_reads_are_about_those_counted_one_by_one(rate: float) -> None:
    """Never off by more than what came in one slice, which is what its docstring says."""
    rng = random.Random(int(rate * 10))
    frequency = Frequency(WINDOW_S)
    now = 50.0
    counted: list[float] = []
    for _ in range(700):
        now += rng.expovariate(rate) * rng.choice((0.1, 0.1, 3.0))
        frequency.count(b"k", now)
        counted.append(now)
        asked_at = now + rng.choice((0.0, 0.0, rng.uniform(0, 2 * WINDOW_S)))
        exact = sum(at > asked_at - WINDOW_S for at in counted)
        at_the_edge = sum(abs(at - (asked_at - WINDOW_S)) <= SLICE_S for at in counted)
        assert abs(frequency.reads(b"k", asked_at) - exact) <= at_the_edge
        now = asked_at


def test_steady_reads_are_met_closely() -> None:
    """Two a second are 120 a minute, at any moment."""
    frequency = Frequency(WINDOW_S)
    for number in range(1000):
        frequency.count(b"k", number / 2)
        if number > 200:
            assert frequency.reads(b"k", number / 2) == pytest.approx(120, abs=1.5)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (90.0, 100.0, 30),  # all of them
        (40.0, 100.0, 30),
        (10.0, 70.0, 15),  # half of them before the window
        (0.0, 40.0, 0),
        (-200.0, 100.0, 6),
        (95.0, 95.0, 30),  # all in one moment
        (100.0, 100.0, 30),
        (30.0, 30.0, 0),
        (98.0, 95.0, 30),  # ended before it is known to have begun: that one moment counts
    ],
)
@pytest.mark.parametrize("is_new", [True, False], ids=["nothing counted before", "others counted before"])
def test_added_reads_count_as_if_they_had_come_evenly(
    since: float, until: float, expected: float, *, is_new: bool
) -> None:
    """The part of them that is in the window, whether or not anything was counted when they came.

    Where slices have begun at another moment than the window does, one of them is judged by its part in it.
    """
    frequency = Frequency(WINDOW_S)
    if not is_new:
        frequency.count(b"other", 3.0)
        frequency.count(b"other", 61.0)

    frequency.add(b"k", 30, since, until, 100.0)

    assert frequency.reads(b"k", 100.0) == pytest.approx(expected, abs=1e-6 if is_new else 2)


def test_added_reads_grow_old_by_when_they_came() -> None:
    """And not by when they were added."""
    frequency = Frequency(WINDOW_S)
    frequency.add(b"k", 30, 40.0, 100.0, 100.0)

    found = [frequency.reads(b"k", at) for at in (100.0, 115.0, 130.0, 145.0, 160.0)]

    assert [30, 22.5, 15, 7.5, 0] == pytest.approx(found, abs=1e-6)


def test_memory_is_bounded_whatever_is_read() -> None:
    """Keys of any size and number: no more places than said, no more bytes than said."""
    tracemalloc.start()
    frequency = Frequency(WINDOW_S)
    for number in range(2 * KEYS_MAX):
        frequency.count(b"key:%d:" % number + b"x" * 200, number / 1500)
        assert number % 1000 or len(frequency) <= KEYS_MAX
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert KEYS_MAX / 2 < len(frequency) <= KEYS_MAX
    assert taken < 7_500_000


def test_key_that_is_read_often_outlives_a_scan() -> None:
    """A hundred thousand keys are read once each while one is read on and on; its count stays."""
    frequency = Frequency(WINDOW_S)
    now = 100.0
    for number in range(100_000):
        now += 0.0004
        frequency.count(b"scan:%d" % number, now)
        if number % 1000 == 0:
            frequency.count(b"k", now)
            frequency.count(b"k", now)

    assert frequency.reads(b"k", now) == pytest.approx(200, abs=10)


def test_window_may_be_set_anew() -> None:
    """What was counted stays as far as it is in the new window, and nothing grows with how often it is set."""
    frequency = Frequency(WINDOW_S)
    for number in range(60):
        frequency.count(b"k", 100.0 + number)

    frequency.window_s = 30.0
    assert frequency.reads(b"k", 160.0) == pytest.approx(30, abs=2)
    for number in range(60):
        frequency.count(b"k", 160.0 + number)
    assert frequency.reads(b"k", 220.0) == pytest.approx(30, abs=2)

    frequency.window_s = 600.0
    frequency.count(b"k", 221.0)
    assert frequency.reads(b"k", 221.0) >= 31
    for number in range(10_000):
        frequency.window_s = (0.5, 50.0)[number % 2]
        frequency.count(b"%d" % number, 222.0 + number)
    assert len(frequency) <= 200


def test_memory_is_bounded_when_the_window_is_set_anew() -> None:
    """Narrow slices and wide ones together are no more than those of one window."""
    frequency = Frequency(WINDOW_S / 10)
    for number in range(2 * KEYS_MAX):
        if number == KEYS_MAX:
            frequency.window_s = WINDOW_S
        frequency.count(b"%d" % number, number / 10_000)
        assert number % 1000 or len(frequency) <= KEYS_MAX


def test_slices_have_no_gaps_and_no_end_of_them() -> None:
    """A long silence leaves nothing behind, and costs nothing to get over."""
    frequency = Frequency(0.01)
    frequency.count(b"k", 0.0)
    frequency.count(b"k", 1e9)

    assert frequency.reads(b"k", 1e9) == 1
    assert len(frequency) == 1


def test_marks_are_found_by_their_key() -> None:
    """The last one that was put; none for a key that never had one, nor for one whose place another took."""
    marks = Marks()
    assert marks.find(b"k") is None
    assert marks.lost_at(b"k") == 0.0

    marks.put(b"k", Mark(5.0, 3, 1))
    marks.put(b"k", Mark(6.5, 2**40, 1000))

    assert marks.find(b"k") == Mark(6.5, 2**32 - 1, 255)
    for number in range(2_000_000):
        if marks.find(b"k") is None:
            break
        marks.put(b"other:%d" % number, Mark(7.0 + number, 1, 0))
    assert marks.find(b"k") is None
    assert marks.lost_at(b"k") >= 7.0
