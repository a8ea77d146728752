"""A step is kept when it pays, undone when it does not, and neither by chance."""

from __future__ import annotations

import random

import pytest

from proxy.core.tuners.trial import LONGEST, PATIENCE, SPANS, Trial, Verdict
from proxy.core.tuners.tuner import Step

BEFORE = [0.50, 0.51, 0.49, 0.50, 0.51, 0.49]


def judged(expected: float, after: list[float]) -> tuple[Verdict, int]:
    """Return how a step ends, and after how many spans."""
    trial = Trial(Step(1, "", expected), 0, BEFORE, 0.0, has_settled=True)
    for count, figure in enumerate(after, start=1):
        trial.add(figure)
        if (verdict := trial.verdict()) != "wait":
            return verdict, count
    return "wait", len(after)


@pytest.mark.parametrize(
    ("expected", "after", "verdict", "spans"),
    [
        (0.04, [0.54] * 30, "keep", SPANS),  # as expected
        (0.04, [0.53, 0.52] * 15, "keep", SPANS),  # less, and still a fair part of it
        (0.04, [0.46] * 30, "undo", SPANS),  # worse
        (0.08, [0.50] * 30, "undo", SPANS),  # no better, where much was expected
        (0.0, [0.50] * 40, "keep", PATIENCE),  # nothing was expected, and nothing is worse
        (0.0, [0.48] * 40, "undo", SPANS),
        (0.04, [0.504, 0.514] * 20, "undo", PATIENCE),  # after patience, what is less than a fair part is not worth it
        (0.02, [0.500, 0.520] * 20, "keep", PATIENCE),
    ],
)
def test_verdict_follows_from_what_was_expected_and_what_came(
    expected: float, after: list[float], verdict: Verdict, spans: int
) -> None:
    """What is clear is decided at once, what lies within the noise after a while."""
    assert judged(expected, after) == (verdict, spans)


def test_verdict_is_seldom_undo_for_noise_alone() -> None:
    """A step that changes nothing, and of which nothing was expected, is undone once in some, not each time."""
    chance = random.Random(3)
    undone = 0
    for _ in range(60):
        trial = Trial(Step(1, "", 0.0), 0, [chance.gauss(0.5, 0.02) for _ in range(SPANS)], 0.0, has_settled=True)
        while trial.verdict() == "wait":
            trial.add(chance.gauss(0.5, 0.02))
        undone += trial.verdict() == "undo"

    assert undone < 15


def test_verdict_waits_until_the_step_has_settled() -> None:
    """While L1 fills, its hit rate says nothing of the step."""
    trial = Trial(Step(1, "", 0.04), 0, BEFORE, 0.0)
    for _ in range(20):
        trial.add(0.3)
    assert trial.verdict() == "wait"

    trial.has_settled = True
    for _ in range(SPANS):
        trial.add(0.54)

    assert trial.verdict() == "keep"


def test_verdict_without_traffic_is_undo_in_the_end() -> None:
    """What nobody can judge does not stay."""
    trial = Trial(Step(1, "", 0.04), 0, BEFORE, 0.0, has_settled=True)
    for _ in range(LONGEST - 1):
        trial.add(None)
    assert trial.verdict() == "wait"

    trial.add(None)

    assert trial.verdict() == "undo"
    assert trial.gain == 0.0
