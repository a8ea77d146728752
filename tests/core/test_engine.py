"""The engine publishes what its lease still covers, and every change of a key takes back what was on its way.

Playbooks on a hand clock: what happens, in order, then what L1 holds.
"""

from __future__ import annotations

import pytest

from proxy.cache import l1 as l1_module
from proxy.cache.entry import Namespace, Scope
from proxy.cache.journal import FILL, REFUSED
from proxy.cache.l1 import L1
from proxy.core.engine import NO_EXPIRY, NO_KEY, Engine
from proxy.core.figures.stats import Stats
from proxy.wire.encode import command
from proxy.wire.reads import READS

KEY = b"$1\r\nk\r\n"
OTHER = b"$1\r\no\r\n"
VALUE = b"$1\r\nv\r\n"
NIL = b"$-1\r\n"
MAX_AGE_S = 300.0
MAX_VALUE_BYTES = 1000
START = 100.0


class Play:
    """An engine on a hand clock, and the moves of a playbook."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.stats = Stats()
        self.engine = Engine(
            L1(1_000_000), self.stats, enabled=enabled, max_age_s=MAX_AGE_S, max_value_bytes=MAX_VALUE_BYTES
        )
        self.engine.now = START
        self.engine.serve()
        self.zero = self.engine.l1.namespace(Scope(b"", 0, 2))
        self.one = self.engine.l1.namespace(Scope(b"", 1, 3))

    def publish(self, key: bytes = KEY, namespace: Namespace | None = None) -> None:
        """Bring a value into L1 the only way there is."""
        flight = self.engine.open(namespace or self.zero, key, None)
        flight.reply = VALUE
        self.engine.finish(flight, NO_EXPIRY)

    def held(self) -> list[bytes]:
        """Return the replies in L1, of both namespaces."""
        return [entry.reply for namespace in (self.zero, self.one) for entry in namespace.entries.values()]


@pytest.fixture
def play() -> Play:
    """Make an engine that is served."""
    return Play()


# -- what is published -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "pttl_ms"),
    [(VALUE, NO_EXPIRY), (VALUE, 5000), (NIL, NO_KEY), (b"_\r\n", NO_KEY), (b"$0\r\n\r\n", NO_EXPIRY)],
)
def test_finish_of_a_standing_flight_publishes(play: Play, reply: bytes, pttl_ms: int) -> None:
    """A value that lives, an empty one, and that a key is missing (in either protocol) are held."""
    flight = play.engine.open(play.zero, KEY, None)
    flight.reply = reply
    play.engine.finish(flight, pttl_ms)

    assert play.held() == [reply]
    assert (play.stats.published, play.stats.refused) == (1, 0)


@pytest.mark.parametrize(
    ("reply", "pttl_ms"),
    [
        (VALUE, NO_KEY),  # it expired between the two
        (NIL, NO_EXPIRY),  # it came between the two, or MGET hides that it is a list
        (NIL, 5000),
        (b"-WRONGTYPE no string\r\n", NO_EXPIRY),
        (b"-LOADING\r\n", NO_KEY),
        (b"|1\r\n+a\r\n+b\r\n$1\r\nv\r\n", NO_EXPIRY),  # an attribute
        (b"$1001\r\n" + b"v" * 1001 + b"\r\n", NO_EXPIRY),
        (VALUE, 0),  # expired by now
        (None, NO_EXPIRY),
    ],
)
def test_finish_of_what_is_no_value_refuses(play: Play, reply: bytes | None, pttl_ms: int) -> None:
    """Contradictions, errors, attributes, what is too large and what has expired are not held."""
    flight = play.engine.open(play.zero, KEY, None)
    flight.reply = reply
    play.engine.finish(flight, pttl_ms)

    assert play.held() == []
    assert (play.stats.published, play.stats.refused) == (0, 1)
    assert play.zero.flights == {}


@pytest.mark.parametrize("reply", [VALUE, NIL, None, b"-ERR\r\n"])
def test_finish_of_a_revoked_flight_refuses(play: Play, reply: bytes | None) -> None:
    """What was taken back is not held, whatever it brings."""
    flight = play.engine.open(play.zero, KEY, None)
    flight.reply = reply
    play.engine.drop(KEY)
    play.engine.finish(flight, NO_EXPIRY)

    assert play.held() == []
    assert play.stats.refused == 1


def test_finish_counts_the_deadline_from_when_the_pttl_was_sent(play: Play) -> None:
    """Two seconds to live, found half a second ago, are one and a half: PTTL's answer is as old as its question."""
    flight = play.engine.open(play.zero, KEY, None)
    flight.reply = VALUE
    play.engine.now = START + 0.5
    deadline = play.engine.finish(flight, 2000)

    assert deadline == START + 2.0
    assert play.zero.entries[KEY].deadline == START + 2.0


def test_finish_of_what_expired_on_its_way_publishes_nothing(play: Play) -> None:
    """A key that was to live for 100 ms and took 150 to arrive is not held; its deadline is told all the same."""
    flight = play.engine.open(play.zero, KEY, None)
    flight.reply = VALUE
    play.engine.now = START + 0.15

    assert play.engine.finish(flight, 100) == START + 0.1
    assert play.held() == []


@pytest.mark.parametrize("pttl_ms", [NO_EXPIRY, 3_600_000])
def test_finish_never_holds_longer_than_max_age(play: Play, pttl_ms: int) -> None:
    """Whatever Redis says, `max_age` caps it."""
    flight = play.engine.open(play.zero, KEY, None)
    flight.reply = VALUE
    play.engine.finish(flight, pttl_ms)

    assert play.zero.entries[KEY].deadline == START + MAX_AGE_S


@pytest.mark.parametrize(("reply", "pttl_ms"), [(VALUE, NO_KEY), (NIL, NO_EXPIRY), (NIL, 100)])
def test_finish_of_a_contradiction_sends_every_joiner_to_ask_again(play: Play, reply: bytes, pttl_ms: int) -> None:
    """When value and PTTL contradict each other, the deadline is before any reader came."""
    flight = play.engine.open(play.zero, KEY, None)
    flight.reply = reply

    assert play.engine.finish(flight, pttl_ms) == 0.0


# -- writes ----------------------------------------------------------------------------------------------------------


def test_begin_write_drops_and_revokes_in_every_namespace(play: Play) -> None:
    """A write that is submitted ends what is held and what is on its way, in all databases, of its keys only."""
    play.publish()
    play.publish(OTHER)
    play.publish(namespace=play.one)
    flight = play.engine.open(play.zero, KEY, None)
    play.engine.begin_write([KEY])

    assert not flight.standing
    assert [set(play.zero.entries), set(play.one.entries)] == [{OTHER}, set()]
    assert play.stats.dropped == 2


def test_end_write_drops_again(play: Play) -> None:
    """What was brought in while a write was in flight goes when it is answered."""
    play.engine.begin_write([KEY])
    play.publish()
    flight = play.engine.open(play.one, KEY, None)
    play.engine.end_write([KEY])

    assert play.held() == []
    assert not flight.standing


def test_can_lease_is_false_while_a_write_of_the_key_is_in_flight(play: Play) -> None:
    """No lease for a key that is being written, until the last of its writes is answered; any for another."""
    steps = [play.engine.can_lease(KEY)]
    play.engine.begin_write([KEY, KEY])
    play.engine.begin_write([KEY])
    play.engine.end_write([KEY])
    steps.append(play.engine.can_lease(KEY))
    steps.append(play.engine.can_lease(OTHER))
    play.engine.end_write([KEY, KEY])
    steps.append(play.engine.can_lease(KEY))

    assert steps == [True, False, True, True]
    assert play.engine.writing == {}


def test_begin_write_all_stops_everything(play: Play) -> None:
    """A write whose keys are unknown drops all, revokes all, and allows no lease until it is answered."""
    play.publish()
    flight = play.engine.open(play.one, OTHER, None)
    play.engine.begin_write_all()
    held, leases = play.held(), [play.engine.can_lease(KEY)]
    play.publish()
    play.engine.end_write_all()
    leases.append(play.engine.can_lease(KEY))

    assert (held, play.held()) == ([], [])
    assert not flight.standing
    assert leases == [False, True]


def test_can_lease_is_false_while_l1_is_off() -> None:
    """Without L1 nobody joins and nothing is kept."""
    assert not Play(enabled=False).engine.can_lease(KEY)


# -- pushes, flushes, losses -----------------------------------------------------------------------------------------


def test_drop_pushed_takes_plain_keys(play: Play) -> None:
    """A push names keys as they are; L1 knows them as bulk strings."""
    play.publish()
    play.publish(OTHER)
    flight = play.engine.open(play.one, KEY, None)
    play.engine.drop_pushed([b"k", b"unknown", b""])

    assert set(play.zero.entries) == {OTHER}
    assert not flight.standing
    assert (play.stats.invalidations, play.stats.dropped) == (3, 1)


def test_flush_drops_and_revokes_all(play: Play) -> None:
    """After FLUSHALL's push nothing is held and nothing on its way is published."""
    play.publish()
    flight = play.engine.open(play.one, OTHER, None)
    play.engine.flush()

    assert play.held() == []
    assert not flight.standing
    assert play.stats.flushes == 1


def test_flush_of_an_empty_l1_is_not_counted(play: Play) -> None:
    """Only a flush that dropped something is one in the figures."""
    play.engine.flush()

    assert play.stats.flushes == 0


def test_flush_namespace_drops_and_revokes_what_one_link_fed(play: Play) -> None:
    """The loss of one link costs its own namespace, not the others."""
    play.publish()
    play.publish(namespace=play.one)
    lost, kept = play.engine.open(play.zero, OTHER, None), play.engine.open(play.one, OTHER, None)
    play.engine.flush_namespace(play.zero)

    assert [set(play.zero.entries), set(play.one.entries)] == [set(), {KEY}]
    assert [lost.standing, kept.standing] == [False, True]


def test_suspend_hides_and_serve_shows_what_was_not_dropped_meanwhile(play: Play) -> None:
    """While L1 is not proven nothing is found; the pushes that come then still count."""
    play.publish()
    play.publish(OTHER)
    play.engine.suspend()
    hidden = play.held()
    play.engine.drop_pushed([b"k"])
    play.engine.serve()

    assert hidden == []
    assert set(play.zero.entries) == {OTHER}
    assert play.stats.suspensions == 1


def test_suspend_twice_counts_once(play: Play) -> None:
    """A suspension is an event, not a state that is counted at every wake-up."""
    play.engine.suspend()
    play.engine.suspend()

    assert play.stats.suspensions == 1


def test_serve_while_l1_is_off_serves_nothing() -> None:
    """Switched off means off, however well the invalidation link is."""
    play = Play(enabled=False)
    play.engine.serve()

    assert not play.engine.l1.serving


def test_reply_beyond_those_a_key_may_have_is_refused_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """What L1 has not kept was not filled: the figures and the journal say so."""
    monkeypatch.setattr(l1_module, "REPLIES_MAX", 1)
    play = Play()
    for number in range(3):
        flight = play.engine.open(play.zero, KEY, None, command("LINDEX", "k", number), READS[b"LINDEX"])
        flight.reply = VALUE
        play.engine.finish(flight, NO_EXPIRY)

    assert (play.stats.published, play.stats.refused) == (1, 2)
    assert [what for _, what in play.engine.journal.of(KEY)] == [FILL, REFUSED, REFUSED]


@pytest.mark.parametrize(("key", "reply", "needless"), [(KEY, VALUE, 1), (KEY, b"$1\r\nw\r\n", 0), (OTHER, VALUE, 0)])
def test_push_is_needless_when_its_key_comes_back_as_it_was(
    play: Play, key: bytes, reply: bytes, needless: int
) -> None:
    """Another value, or another key, was worth telling of."""
    play.publish(KEY)
    play.engine.drop_pushed([b"k"])
    flight = play.engine.open(play.zero, key, None)
    flight.reply = reply
    play.engine.finish(flight, NO_EXPIRY)

    assert (play.stats.published, play.stats.needless_pushes) == (2, needless)
