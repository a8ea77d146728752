"""What is looked at stands for all of it, however many there are, at a bounded rate."""

from __future__ import annotations

import random

import pytest

from proxy.core.figures.sampling import LOOKS_PER_S, NEVER, Pace


def play(pace: Pace, *, per_second: int, seconds: float, from_count: int = 0, from_s: float = 0.0) -> list[int]:
    """Count up at a rate, with the ticks of a worker's timers; return the weights of the looks."""
    weights: list[int] = []
    total = int(per_second * seconds)
    ticked_at = from_s
    for number in range(1, total + 1):
        now = from_s + number / per_second
        while now - ticked_at >= 0.05:
            ticked_at += 0.05
            pace.tick(from_count + number - 1, ticked_at)
        if from_count + number >= pace.next_at:
            weights.append(pace.take(from_count + number, now))
    return weights


def test_pace_looks_at_every_one_while_they_are_few() -> None:
    """Below the rate nothing is estimated."""
    assert play(Pace(), per_second=LOOKS_PER_S // 2, seconds=3) == [1] * (LOOKS_PER_S // 2 * 3)


@pytest.mark.parametrize("per_second", [1_000, 50_000, 400_000])
def test_pace_of_many_is_bounded_and_its_weights_add_up(per_second: int) -> None:
    """What is not looked at yet is less than two looks' worth; no second has more than its looks, but the first."""
    pace = Pace()
    first = play(pace, per_second=per_second, seconds=1.0)

    weights = play(pace, per_second=per_second, seconds=2.0, from_count=per_second, from_s=1.0)

    assert len(first) < 4 * LOOKS_PER_S
    assert LOOKS_PER_S < len(weights) < 3 * LOOKS_PER_S
    assert 0.97 * per_second * 3 < sum(first) + sum(weights) <= per_second * 3


def test_pace_after_a_burst_looks_at_every_one_again_within_a_second() -> None:
    """What is seldom asked for after a rush is not hidden behind the rush's N."""
    pace = Pace()
    play(pace, per_second=100_000, seconds=1.0)
    play(pace, per_second=50, seconds=1.0, from_count=100_000, from_s=1.0)

    assert play(pace, per_second=50, seconds=1.0, from_count=100_050, from_s=2.0) == [1] * 50


def test_pace_does_not_lock_on_to_a_pattern() -> None:
    """Every tenth of what goes by is of another sort: it is a tenth of what is looked at, too."""
    pace = Pace()
    seen = [0, 0]
    for number in range(1, 200_001):
        if number >= pace.next_at:
            seen[number % 10 == 0] += pace.take(number, number / 100_000)

    assert seen[1] / sum(seen) == pytest.approx(0.1, abs=0.05)


def test_pace_stopped_looks_at_nothing_and_forgets_what_went_by() -> None:
    """Switched off it costs a comparison; switched on again it does not count what it has not seen."""
    pace = Pace()
    pace.take(1, 0.0)
    pace.stop()
    assert pace.next_at == NEVER

    pace.go(1_000)

    assert pace.next_at == 1_001
    assert pace.take(1_001, 1.0) == 1


def test_pace_counts_batches_that_jump_over_its_number() -> None:
    """A pipeline adds many at once: all of them are in the next weight."""
    pace = Pace()
    count = total = 0
    draw = random.Random(3)
    for step in range(1_000):
        count += draw.randrange(1, 64)
        if count >= pace.next_at:
            total += pace.take(count, step / 10_000)

    assert count - total < 64 * 40
