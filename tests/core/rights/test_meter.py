"""How many commands somebody may ask for."""

from __future__ import annotations

import pytest

from proxy.core.rights.meter import Bucket


def test_bucket_gives_its_burst_at_once_and_its_rate_after() -> None:
    """What is taken beyond is owed, and made up for at the rate."""
    bucket = Bucket.full(100, 50, 10.0)

    assert bucket.take(50, 10.0)
    assert not bucket.take(20, 10.0)
    assert bucket.is_dry(10.19)
    assert not bucket.is_dry(10.21)
    assert bucket.take(1, 10.22)


def test_bucket_holds_no_more_than_its_burst() -> None:
    """An hour of silence is worth no more than a moment of it."""
    bucket = Bucket.full(100, 50, 10.0)

    assert bucket.take(50, 3610.0)
    assert not bucket.take(1, 3610.0)


def test_bucket_without_a_burst_holds_a_second() -> None:
    """So that a rate alone can be reached by who comes now and then."""
    assert Bucket.full(100, 0, 0.0).burst == 100


@pytest.mark.parametrize("batch", [1, 7, 300])
def test_bucket_over_a_long_time_gives_its_rate_whatever_comes_at_once(batch: int) -> None:
    """A client that always asks for a batch more as soon as it may gets 100 a second, its burst not counted."""
    bucket = Bucket.full(100, 50, 0.0)
    taken = 0
    for tick in range(20_000):
        now = tick * 0.01
        if not bucket.is_dry(now):
            bucket.take(batch, now)
            taken += batch

    assert 200 * 100 - batch <= taken <= 200 * 100 + 50 + batch
