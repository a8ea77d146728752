"""Waits between attempts grow to a bound, and differ from one proxy to the next."""

from __future__ import annotations

from itertools import pairwise

from proxy.net.links.backoff import FIRST_S, MAX_S, Backoff


def waits(seed: int | None, count: int) -> list[float]:
    """Take so many waits."""
    backoff = Backoff(seed)
    return [backoff.next_s() for _ in range(count)]


def test_backoff_bound_doubles_up_to_a_second() -> None:
    """The n-th wait lies under a bound that doubles each time and never exceeds the largest; never at nothing."""
    for seed in range(200):
        for number, wait in enumerate(waits(seed, 14)):
            bound = min(FIRST_S * 2**number, MAX_S)
            assert bound / 2 <= wait <= bound


def test_backoff_after_years_of_failures_still_answers() -> None:
    """A hundred thousand failures overflow nothing."""
    backoff = Backoff(1)
    backoff.failures = 100_000

    assert MAX_S / 2 <= backoff.next_s() <= MAX_S


def test_backoff_two_proxies_are_not_in_step() -> None:
    """Waits are spread over their whole range: a server that is back is not met by everybody at once."""
    last = [waits(None, 8)[-1] for _ in range(300)]

    assert len(set(last)) > 290
    assert min(last) < MAX_S * 0.6
    assert max(last) > MAX_S * 0.9


def test_backoff_same_seed_gives_the_same_waits() -> None:
    """Tests can foresee it."""
    assert waits(5, 10) == waits(5, 10)


def test_backoff_reset_starts_again() -> None:
    """After a success the next failure waits as briefly as the first."""
    backoff = Backoff(1)
    early = [backoff.next_s() for _ in range(8)]
    assert all(one < other * 1.01 for one, other in pairwise([early[0], early[-1]]))

    backoff.reset()

    assert backoff.failures == 0
    assert backoff.next_s() <= FIRST_S
