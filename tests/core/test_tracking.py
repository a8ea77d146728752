"""L1 is served exactly while the invalidation link proves it. Playbooks on a hand clock."""

from __future__ import annotations

from typing import Literal

import pytest

from proxy.cache.entry import Scope
from proxy.cache.l1 import L1
from proxy.core.engine import NO_EXPIRY, Engine
from proxy.core.figures.stats import Stats
from proxy.core.tracking import FOREVER, Tracking

STALENESS_S = 2.0
START = 100.0
MODERN = (7, 0, 15)
Wanted = Literal["auto", "redirect", "broadcast", "off"]


class Play:
    """A tracking on a hand clock."""

    def __init__(self, wanted: Wanted = "auto", *, enabled: bool = True) -> None:
        self.engine = Engine(L1(100_000), Stats(), enabled=enabled, max_age_s=300.0, max_value_bytes=1000)
        self.tracking = Tracking(self.engine, wanted=wanted, max_staleness_s=STALENESS_S)
        self.engine.now = START
        self.namespace = self.engine.l1.namespace(Scope(b"", 0, 2))

    def begin(self) -> None:
        """Bring the invalidation link up on a modern server."""
        self.tracking.choose(resp3=True, version=MODERN)
        self.tracking.begin(7, self.engine.now)

    def publish(self) -> None:
        """Bring one entry into L1."""
        flight = self.engine.open(self.namespace, b"$1\r\nk\r\n", None)
        flight.reply = b"$1\r\nv\r\n"
        self.engine.finish(flight, NO_EXPIRY)

    def at(self, seconds: float) -> bool:
        """Wake up so long after the start, as the reactor does; return whether L1 is served."""
        self.engine.now = START + seconds
        if self.engine.now >= self.tracking.serve_until:
            self.engine.suspend()
        return self.engine.l1.serving


@pytest.mark.parametrize(
    ("wanted", "server", "refused", "mode", "reason"),
    [
        ("auto", (True, (7, 0, 15)), False, "redirect", "the server tracks only what is read here"),
        ("auto", (True, (6, 2)), False, "redirect", "the server tracks only what is read here"),
        ("auto", (True, (7, 0, 15)), True, "broadcast", "the server refuses CLIENT TRACKING REDIRECT"),
        ("redirect", (True, (7, 0, 15)), True, "redirect", "the server tracks only what is read here"),
        ("broadcast", (True, (9, 1, 0)), False, "broadcast", "l1.tracking asks for it"),
        ("auto", (True, (6, 0, 16)), False, "off", "server 6.0.16 cannot track: 6.2 or newer can"),
        ("broadcast", (False, (7, 0, 15)), False, "off", "server 7.0.15 cannot track: 6.2 or newer can"),
        ("off", (True, (7, 0, 15)), False, "off", "l1.tracking is off: entries are bounded by l1.max_age alone"),
    ],
)
def test_choose_takes_what_is_wanted_and_possible(
    wanted: Wanted, server: tuple[bool, tuple[int, ...]], refused: bool, mode: str, reason: str
) -> None:
    """Redirect where it can be, broadcast where it must be, nothing where the server cannot; and it says why."""
    tracking = Play(wanted).tracking
    resp3, version = server

    assert tracking.choose(resp3=resp3, version=version, redirect_refused=refused) == mode
    assert (tracking.mode, tracking.reason) == (mode, reason)


@pytest.mark.parametrize("wanted", ["auto", "off"])
def test_choose_without_l1_is_off(wanted: Wanted) -> None:
    """Nothing is tracked for an L1 that is switched off."""
    play = Play(wanted, enabled=False)
    play.begin()

    assert (play.tracking.mode, play.tracking.may_cache) == ("off", False)
    assert not play.engine.l1.serving


def test_l1_before_the_link_is_up_is_not_served() -> None:
    """Nothing is served that nobody would take back."""
    assert not Play().at(0.0)


def test_begin_serves_for_max_staleness() -> None:
    """A link that is new proves nothing for longer than the bound."""
    play = Play()
    play.begin()

    assert [play.at(0.0), play.at(STALENESS_S - 0.001), play.at(STALENESS_S)] == [True, True, False]


def test_pong_serves_from_when_its_ping_was_sent() -> None:
    """A PONG that took 1.5 s proves the pushes of 1.5 s ago: the bound counts from there."""
    play = Play()
    play.begin()
    play.at(1.0)
    play.tracking.ping(play.engine.now)
    play.at(2.5)
    play.tracking.pong()

    assert [play.at(2.5), play.at(2.999), play.at(3.0)] == [True, True, False]


def test_pong_of_an_old_ping_does_not_serve_again() -> None:
    """A PONG older than the bound proves nothing: what was suspended stays so."""
    play = Play()
    play.begin()
    play.at(1.0)
    play.tracking.ping(play.engine.now)
    play.at(3.5)
    play.tracking.pong()

    assert not play.engine.l1.serving


def test_pongs_answer_pings_in_their_order() -> None:
    """Three PINGs are out; each PONG stands for the oldest."""
    play = Play()
    play.begin()
    for second in (0.5, 1.0, 1.5):
        play.at(second)
        play.tracking.ping(play.engine.now)
    ends = []
    for _ in range(3):
        play.tracking.pong()
        ends.append(play.tracking.serve_until - START)

    assert ends == [2.5, 3.0, 3.5]


def test_pong_to_nothing_changes_nothing() -> None:
    """A PONG without a PING is ignored."""
    play = Play()
    play.begin()
    play.tracking.pong()

    assert play.tracking.serve_until == START + STALENESS_S


def test_silence_suspends_and_the_next_pong_serves_what_was_kept() -> None:
    """Silence hides L1 without flushing it: the next PONG of the same link has brought the pushes of the silence."""
    play = Play()
    play.begin()
    play.publish()
    play.at(1.9)
    play.tracking.ping(play.engine.now)
    silent = play.at(2.5)
    kept = len(play.engine.l1)
    play.tracking.pong()

    assert (silent, kept) == (False, 1)
    assert play.at(2.6)
    assert len(play.namespace.entries) == 1


def test_lose_suspends_flushes_and_forgets_the_pings() -> None:
    """A lost link takes its pushes along: nothing that it covered is kept, no PONG of it counts later."""
    play = Play()
    play.begin()
    play.publish()
    flight = play.engine.open(play.namespace, b"$1\r\nx\r\n", None)
    play.tracking.ping(play.engine.now)
    play.tracking.lose()
    play.tracking.pong()

    assert (play.engine.l1.serving, len(play.engine.l1), flight.standing) == (False, 0, False)
    assert (play.tracking.redirect_id, play.tracking.serve_until) == (0, 0.0)


def test_begin_after_a_loss_serves_under_the_new_id() -> None:
    """A new link serves again, and is what data links are to be redirected to."""
    play = Play()
    play.begin()
    play.tracking.lose()
    play.tracking.begin(8, play.engine.now)

    assert play.at(0.5)
    assert play.tracking.redirect_id == 8


def test_refuse_ends_l1_and_says_why() -> None:
    """A server that refuses to track gets no L1."""
    play = Play("broadcast")
    play.begin()
    play.publish()
    play.tracking.refuse("ERR no")

    assert (play.tracking.mode, play.tracking.may_cache) == ("off", False)
    assert "ERR no" in play.tracking.reason
    assert (play.engine.l1.serving, len(play.engine.l1)) == (False, 0)


def test_tracking_off_by_wish_serves_for_ever() -> None:
    """Who switches tracking off has chosen `max_age` as the only bound: L1 is served, silence means nothing."""
    play = Play("off")
    play.begin()
    play.tracking.ping(play.engine.now)
    play.tracking.pong()

    assert play.tracking.may_cache
    assert play.tracking.serve_until == FOREVER
    assert play.at(10_000.0)


def test_tracking_that_a_server_cannot_do_serves_nothing() -> None:
    """A server too old to track gets no L1: nobody chose to go without invalidations."""
    play = Play("auto")
    play.tracking.choose(resp3=True, version=(5, 0, 7))
    play.tracking.begin(7, START)

    assert not play.tracking.may_cache
    assert not play.at(0.0)


@pytest.mark.parametrize("max_staleness_s", [0.1, 2.0])
def test_ping_every_leaves_room_for_a_late_answer(max_staleness_s: float) -> None:
    """PINGs are frequent enough that one lost in the crowd does not suspend L1."""
    play = Play()
    play.tracking.max_staleness_s = max_staleness_s

    assert play.tracking.ping_every_s <= max_staleness_s / 2


def test_distrust_waits_for_a_ping_that_is_sent_later() -> None:
    """A PONG to a PING of before proves nothing about a push that was on its way when a fence was given up."""
    play = Play()
    play.begin()
    play.tracking.ping(play.engine.now)
    assert not play.at(STALENESS_S + 0.1)
    assert play.tracking.is_silent()

    play.tracking.distrust()
    play.engine.now = START + 0.5  # as if the PONG had come in time: even then
    play.tracking.pong()
    assert not play.engine.l1.serving

    play.engine.now = START + STALENESS_S + 0.2
    play.tracking.ping(play.engine.now)
    play.tracking.pong()
    assert play.engine.l1.serving
    assert not play.tracking.is_silent()
