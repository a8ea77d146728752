"""Numbers of publishers, noted in real servers: what counts as a gap, when, and who is given it."""

from __future__ import annotations

import random
import time

import pytest

from proxy.values import sequences
from proxy.values.sequences import (
    NUMBER_MAX,
    SEQUENCES_KEYS,
    Missing,
    close_holes,
    note,
    parse_holes,
    ranges_of,
    take_holes,
)
from proxy.wire.reply import text

from ..e2e.raw import RawClient

P = b"api-1"
HOUR_MS = 3_600_000


def tell(client: RawClient, *numbers: int, publisher: bytes = P) -> None:
    """Note numbers."""
    client.send(note({publisher: numbers}))
    assert client.frame()[:1] == b":"


def take(client: RawClient, grace_ms: int = 0, lease_ms: int = HOUR_MS) -> list[Missing]:
    """Take what is due."""
    client.send(take_holes(grace_ms, lease_ms))
    return parse_holes(client.frame())


def close(client: RawClient, *gaps: Missing) -> None:
    """Close gaps."""
    client.send(close_holes(gaps))
    assert client.frame() == b"$2\r\nOK\r\n"


def state(client: RawClient, publisher: bytes = P) -> bytes:
    """Return what is kept of a publisher."""
    return text(client.command("HGET", SEQUENCES_KEYS[0], publisher))


def test_ranges_of_numbers_in_any_order() -> None:
    """Neighbours are one range, whatever came twice."""
    assert ranges_of([5, 1, 2, 9, 3, 5, 8]) == [(1, 3), (5, 5), (8, 9)]
    assert ranges_of([]) == []


def test_first_numbers_set_the_mark(client: RawClient) -> None:
    """What came before is not missed, from 0 on."""
    tell(client, 41, 42)
    tell(client, 0, publisher=b"new")

    assert take(client) == []
    assert (state(client), state(client, b"new")) == (b"43 0 ", b"1 0 ")


def test_hole_is_a_gap_after_the_grace(client: RawClient) -> None:
    """Not before: the number may be on its way."""
    tell(client, 1, 2, 5)

    assert take(client, grace_ms=60_000) == []
    assert take(client) == [Missing(P, 3, 4)]


def test_hole_that_is_filled_in_time_is_none(client: RawClient) -> None:
    """Late numbers count, in any order and number."""
    tell(client, 1, 4)
    tell(client, 3, 3, 1)
    tell(client, 2)

    assert take(client) == []
    assert state(client) == b"5 0 "
    assert client.command("ZCARD", SEQUENCES_KEYS[2]) == b":0\r\n"


def test_numbers_in_random_order_with_duplicates_leave_no_gap(client: RawClient) -> None:
    """Across batches of several publishers, up to the highest numbers there are."""
    rng = random.Random(5)
    for base in (0, 1000, NUMBER_MAX - 600):
        numbers = [*range(base + 1, base + 600)] * 2
        rng.shuffle(numbers)
        tell(client, base)
        for at in range(0, len(numbers), 50):
            tell(client, *numbers[at : at + 50])
        assert take(client) == []
        assert state(client) == b"%d 0 " % (base + 600)
        client.command("FLUSHALL")


def test_gap_is_given_to_one_until_the_lease_is_over(client: RawClient) -> None:
    """Of many sidecars one flushes; when it dies another does."""
    tell(client, 1, 3)

    assert take(client, lease_ms=300) == [Missing(P, 2, 2)]
    assert take(client) == []
    tell(client, 4)
    assert take(client) == []
    time.sleep(0.35)
    assert take(client) == [Missing(P, 2, 2)]


def test_gap_that_is_closed_is_missed_no_more(client: RawClient) -> None:
    """The number may still come, and means nothing; the next hole is another gap."""
    tell(client, 1, 3, 5)
    gaps = take(client)
    close(client, *gaps)

    assert gaps == [Missing(P, 2, 4)]
    assert state(client) == b"6 0 "
    tell(client, 2, 4)
    tell(client, 8)
    assert take(client) == [Missing(P, 6, 7)]


def test_only_holes_that_are_old_enough_are_in_a_gap(client: RawClient) -> None:
    """A younger one of the same publisher has its own grace."""
    tell(client, 1, 3)
    time.sleep(0.3)
    tell(client, 5)
    gaps = take(client, grace_ms=200)
    close(client, *gaps)

    assert gaps == [Missing(P, 2, 2)]
    assert state(client)[:4] == b"4 0 "
    assert take(client, grace_ms=200) == []
    time.sleep(0.25)
    assert take(client, grace_ms=200) == [Missing(P, 4, 4)]


def test_holes_that_were_seen_together_are_due_together(client: RawClient) -> None:
    """One that is filled does not give the others a new grace."""
    tell(client, 1, 3, 5)
    time.sleep(0.3)
    tell(client, 2)

    assert take(client, grace_ms=250) == [Missing(P, 4, 4)]


def test_hole_is_as_old_as_the_first_number_above_it(client: RawClient) -> None:
    """Numbers that come into it split it; what is left is not younger."""
    tell(client, 1, 9)
    time.sleep(0.3)
    tell(client, 5)

    assert take(client, grace_ms=250) == [Missing(P, 2, 8)]


def test_hole_grows_old_while_later_numbers_come(client: RawClient) -> None:
    """A publisher that goes on does not put the gap off."""
    tell(client, 1, 3)
    time.sleep(0.3)
    tell(client, 4, 5)

    assert take(client, grace_ms=250) == [Missing(P, 2, 2)]


def test_too_many_pending_ranges_are_a_gap_at_once(client: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a publisher is bounded."""
    monkeypatch.setattr(sequences, "PENDING_MAX", 10)
    tell(client, 0)
    tell(client, *range(2, 22, 2))
    assert take(client, grace_ms=60_000) == []
    tell(client, 22)

    assert take(client, grace_ms=60_000) == [Missing(P, 1, 21)]
    assert len(state(client)) < 60


def test_too_many_publishers_forget_the_longest_silent(client: RawClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all that is kept of it."""
    monkeypatch.setattr(sequences, "PUBLISHERS_MAX", 3)
    for name in (b"a", b"b", b"c"):
        tell(client, 1, 3, publisher=name)
        time.sleep(0.005)
    tell(client, 4, publisher=b"a")
    time.sleep(0.005)
    tell(client, 1, publisher=b"d")

    assert set(client.command("HKEYS", SEQUENCES_KEYS[0]).split(b"\r\n")[2::2]) == {b"a", b"c", b"d"}
    assert {gap.publisher for gap in take(client)} == {b"a", b"c"}


def test_what_is_kept_lives_for_a_day(client: RawClient) -> None:
    """After the last number that came; a publisher that was silent for longer goes with the next of another."""
    tell(client, 1, 3)
    for key in SEQUENCES_KEYS:
        assert 86_000_000 < int(text(client.command("PTTL", key))) <= 86_400_000
    client.command("ZADD", SEQUENCES_KEYS[1], "5", P)
    tell(client, 1, publisher=b"other")

    assert client.command("HLEN", SEQUENCES_KEYS[0]) == b":1\r\n"
    assert take(client) == []


def test_publishers_of_any_name_are_kept_apart(client: RawClient) -> None:
    """Names are bytes; what is kept in a form that is not ours counts as nothing."""
    odd = bytes(range(256))
    client.send(note({odd: [1, 3], b"": [7], b"x y": [1, 2, 4]}))
    assert client.frame()[:1] == b":"
    assert {(gap.publisher, gap.first) for gap in take(client)} == {(odd, 2), (b"x y", 3)}
    client.command("HSET", SEQUENCES_KEYS[0], odd, "what?")
    tell(client, 9, publisher=odd)

    assert state(client, odd) == b"10 0 "
