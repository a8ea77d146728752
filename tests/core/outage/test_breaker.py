"""The breaker: what opens it, what closes it, and what it counts."""

from __future__ import annotations

from proxy.core.outage.breaker import Breaker


def test_breaker_opens_at_the_first_failure_and_counts_the_others() -> None:
    """Who tries and fails while it is open says nothing new: since when, and why, stay."""
    breaker = Breaker()

    assert breaker.fail(10.0, "refused")
    assert not breaker.fail(11.0, "late")

    assert (breaker.state, breaker.since, breaker.why) == ("open", 10.0, "refused")
    assert (breaker.failures, breaker.opened_total) == (2, 1)


def test_breaker_that_is_half_open_is_open_for_commands() -> None:
    """Somebody knocks; nobody has been let in."""
    breaker = Breaker()
    seen: list[str] = []
    breaker.probe()
    seen.append(breaker.state)
    breaker.fail(1.0, "refused")
    breaker.probe()
    seen.append(breaker.state)
    assert breaker.is_open
    breaker.give_up()
    seen.append(breaker.state)
    breaker.probe()
    breaker.fail(2.0, "refused")
    seen.append(breaker.state)

    assert seen == ["closed", "half-open", "open", "open"]
    assert breaker.opened_total == 1


def test_breaker_knows_how_long_it_was_open() -> None:
    """Closed since the first answer, then since the last outage; that one's length and reason are kept."""
    breaker = Breaker()
    breaker.succeed(5.0)
    breaker.succeed(6.0)
    assert (breaker.since, breaker.lasted_s) == (5.0, 0.0)

    breaker.fail(10.0, "refused")
    breaker.succeed(12.5)

    assert (breaker.since, breaker.lasted_s, breaker.why) == (12.5, 2.5, "refused")


def test_breaker_closes_once() -> None:
    """The first who is let in closes it; the others find it so."""
    breaker = Breaker()
    breaker.fail(1.0, "refused")
    breaker.probe()

    assert breaker.succeed(3.0)
    assert not breaker.succeed(4.0)
    assert (breaker.state, breaker.since, breaker.failures) == ("closed", 3.0, 0)
    breaker.give_up()
    assert breaker.state == "closed"
