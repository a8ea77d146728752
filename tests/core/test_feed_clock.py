"""The latest that the server's clock can show: never too early, whatever the way takes."""

from __future__ import annotations

import random

from proxy.core.feed.clock import LatestClock

SECOND = 1_000_000


class Hand:
    """Clocks in the test's hand: this machine's, and a server's that runs beside it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.server_us = 1_800_000_000 * SECOND
        self.clock = LatestClock(lambda: self.now, lambda: 7)

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.server_us += round(seconds * SECOND)

    def ask(self, there_s: float, back_s: float) -> None:
        """Ask for the time, which takes some on the way."""
        sent_at = self.now
        self.pass_s(there_s)
        said_us = self.server_us
        self.pass_s(back_s)
        self.clock.anchor(said_us, sent_at)


def test_before_anything_was_heard_the_local_time_is_taken() -> None:
    """There is nothing better."""
    assert 7 == Hand().clock.now_us()


def test_bound_is_never_below_the_server_and_soon_close_to_it() -> None:
    """A slow answer says little; what a quick one said is kept."""
    rng = random.Random(1)
    hand = Hand()
    for _ in range(200):
        hand.ask(rng.random() ** 4, rng.random() ** 4)
        assert hand.clock.now_us() >= hand.server_us
    hand.ask(0.0, 0.001)
    hand.ask(0.5, 0.5)

    assert 0 <= hand.clock.now_us() - hand.server_us < 3_000


def test_server_clock_that_was_set_is_followed_both_ways() -> None:
    """What was known cannot be true any more."""
    hand = Hand()
    hand.ask(0.0, 0.001)
    hand.server_us += 3600 * SECOND
    hand.ask(0.0, 0.001)
    ahead = hand.clock.now_us() - hand.server_us
    hand.server_us -= 7200 * SECOND
    hand.ask(0.0, 0.001)

    assert 0 <= ahead < 3_000
    assert 0 <= hand.clock.now_us() - hand.server_us < 3_000
