"""The clock of versions: never ahead of the server on its own, always past what it has seen."""

from __future__ import annotations

import random

import pytest

from proxy.values.clock import AHEAD_MAX_MS, HybridClock, version_at

US = 1_795_000_000_000_000  # what the server's clock shows in the beginning
MS = US // 1000


class Hand:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Say what it shows."""
        return self.now


@pytest.fixture
def hand() -> Hand:
    """Return the monotonic clock under the clock."""
    return Hand()


@pytest.fixture
def clock(hand: Hand) -> HybridClock:
    """Return a clock that has just been told the server's time, by a reply that took no time."""
    clock = HybridClock(hand)
    clock.anchor(US, hand.now, hand.now)
    return clock


def test_version_at_is_milliseconds_and_their_fraction() -> None:
    """The milliseconds stand in the upper 48 bits; half a millisecond is half of the lower 16."""
    assert MS << 16 == version_at(US)
    assert MS << 16 | 0x8000 == version_at(US + 500)
    assert version_at(US + 999) < (MS + 1) << 16 == version_at(US + 1000)


def test_next_not_anchored_is_no_version(hand: Hand) -> None:
    """Nothing is known of the server's time, and this machine's clock does not stand for it."""
    clock = HybridClock(hand)
    clock.observe(MS << 16)

    assert (0, 0, False) == (clock.next(), clock.now_ms(), clock.is_anchored)


def test_next_is_the_servers_time(clock: HybridClock, hand: Hand) -> None:
    """A second later it is the server's time a second later, within what its clock may be slowed down by."""
    hand.now += 1

    version = clock.next()

    assert version_at(US + 999_500) <= version <= version_at(US + 1_000_000)
    assert clock.now_ms() in (MS + 999, MS + 1000)


def test_next_rises_while_time_stands(clock: HybridClock) -> None:
    """Each version is above the last one, also within one tick of the clock below."""
    versions = [clock.next() for _ in range(1000)]

    assert sorted(set(versions)) == versions


def test_next_is_above_what_was_observed(clock: HybridClock) -> None:
    """A version ahead of the server is moved past, by as little as can be."""
    ahead = (MS + AHEAD_MAX_MS) << 16 | 0xFFFF
    clock.observe(ahead)
    clock.observe(5)

    assert ahead + 1 == clock.next()
    assert ahead + 2 == clock.next()


@pytest.mark.parametrize("version", [(MS + AHEAD_MAX_MS + 61_000) << 16, 1 << 63, (1 << 64) - 1])
def test_observe_too_far_ahead_is_not_followed(clock: HybridClock, version: int) -> None:
    """One damaged value must not take the clock of all proxies into the future."""
    clock.observe(version)

    assert version_at(US) == clock.next()


def test_observe_at_the_most_that_setv_takes_is_followed_by_a_clock_behind(clock: HybridClock) -> None:
    """What the server let pass is followed, though this clock is behind the server's."""
    ahead = (MS + 30_000 + AHEAD_MAX_MS) << 16
    clock.observe(ahead)

    assert ahead + 1 == clock.next()


def test_observe_before_anchor_counts_once_anchored(hand: Hand) -> None:
    """What was read before the first TIME was answered is moved past all the same, if it is not too far ahead."""
    clock, doubting = HybridClock(hand), HybridClock(hand)
    ahead = (MS + 5_000) << 16
    for seen in (ahead, 3):
        clock.observe(seen)
    doubting.observe(1 << 63)
    for one in (clock, doubting):
        one.anchor(US, hand.now, hand.now)

    assert ahead + 1 == clock.next()
    assert version_at(US) == doubting.next()


def test_anchor_counts_from_when_the_reply_was_received(hand: Hand) -> None:
    """The server's clock showed the time before its reply was here: from then on it is surely past it."""
    clock = HybridClock(hand)
    clock.anchor(US, hand.now - 0.5, hand.now)

    assert version_at(US) == clock.next()


def test_anchor_late_reply_does_not_set_the_clock_back(clock: HybridClock, hand: Hand) -> None:
    """A reply that was held up for 0.9 s says that it is at least so late; that it is later was known."""
    hand.now += 1
    clock.anchor(US + 100_000, hand.now - 0.95, hand.now)

    assert clock.now_ms() >= MS + 999
    assert clock.next() >= version_at(US + 999_000)


def test_anchor_better_reply_moves_the_clock_on(hand: Hand) -> None:
    """A first reply that was late is made up for by the next that is not."""
    clock = HybridClock(hand)
    clock.anchor(US, hand.now - 2.0, hand.now)
    clock.anchor(US + 1_900_000, hand.now, hand.now)

    assert version_at(US + 1_900_000) == clock.next()


def test_anchor_server_clock_set_back_is_believed(clock: HybridClock, hand: Hand) -> None:
    """What was known cannot be true: the time goes back with the server, versions do not."""
    last = clock.next()
    clock.anchor(US - 7_200_000_000, hand.now - 0.001, hand.now)

    assert MS - 7_200_000 == clock.now_ms()
    assert last + 1 == clock.next()


@pytest.mark.parametrize("speed", [0.99951, 1.0, 1.0004])
def test_next_is_never_ahead_of_the_server(hand: Hand, speed: float) -> None:
    """Whatever time requests and replies take, and though the server's clock runs slow, no version is ahead of it."""
    rng = random.Random(int(speed * 1e6))
    clock = HybridClock(hand)
    began_at = hand.now
    behind_us = []

    for _ in range(2000):
        sent_at = hand.now
        hand.now += rng.choice((0.00002, 0.0002, 0.3)) * rng.random()
        executed_us = US + int((hand.now - began_at) * speed * 1e6)
        hand.now += rng.choice((0.00002, 0.0002, 0.3)) * rng.random()
        clock.anchor(executed_us, sent_at, hand.now)
        hand.now += rng.random()

        server_us = US + (hand.now - began_at) * speed * 1e6 + 2  # for what was rounded away
        version = clock.next()

        assert version <= version_at(int(server_us))
        behind_us.append(server_us - (version >> 16) * 1000)
    # Nor is it far behind: within a good reply, and how slow it takes the server's clock to be.
    assert sorted(behind_us)[1000] < 4_000
