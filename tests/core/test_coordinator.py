"""A batch of events: what is asked of Redis for it, and what is said of each event."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.coordinator import (
    FENCES_A_CALL,
    KEYS_A_CALL,
    TEXT_MAX_BYTES,
    Batch,
    FencePart,
    KeyPart,
    error_of,
    failure_of,
    is_away,
)
from proxy.errors import UPSTREAM_LOST, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE
from proxy.events.event import Event
from proxy.events.sink import Applied, Failed
from proxy.net.values.invalidator import TEXT_MAX_BYTES as TEXT_OF_INVALIDATIONS
from proxy.wire.encode import bulk

DENIED = b"-NOPERM No permissions to access a key\r\n"


def event(*keys: bytes, version: int | None = None, db: int | None = None) -> Event:
    """Make an event of keys."""
    return Event(keys=keys, version=version, db=db)


def key_parts(batch: Batch) -> list[KeyPart]:
    """Return the parts that are about keys."""
    return [part for part in batch.parts if isinstance(part, KeyPart)]


def fence_parts(batch: Batch) -> list[FencePart]:
    """Return the parts that are about fences."""
    return [part for part in batch.parts if isinstance(part, FencePart)]


def wanted(batch: Batch) -> dict[tuple[int, bytes], int | None]:
    """Return what is asked for: the version of each key."""
    return {
        (part.db, key): version
        for part in key_parts(batch)
        for key, version in zip(part.keys, part.versions, strict=True)
    }


def test_batch_of_nothing_asks_nothing() -> None:
    """There is nothing to be waited for."""
    batch = Batch([], db=0)

    assert (batch.parts, batch.outcomes()) == ([], [])


def test_batch_is_one_part_a_database() -> None:
    """However many events; those that name no database mean the one clients begin in."""
    batch = Batch([event(b"a"), event(b"b", db=3), event(b"c"), event(b"d", db=2)], db=2)

    assert [(part.db, part.keys) for part in key_parts(batch)] == [(2, [b"a", b"c", b"d"]), (3, [b"b"])]


@pytest.mark.parametrize("versions", [(5, 9, 7), (9, 7, 5), (5, 7, 9)])
def test_batch_asks_for_the_newest_version_of_a_key(versions: tuple[int, ...]) -> None:
    """Whatever the order of arrival."""
    assert wanted(Batch([event(b"a", version=one) for one in versions], db=0)) == {(0, b"a"): 9}


@pytest.mark.parametrize("versions", [(None, 9), (9, None), (None, None)])
def test_event_without_a_version_wins_over_any(versions: tuple[int | None, ...]) -> None:
    """Whatever is stored goes."""
    assert wanted(Batch([event(b"a", version=one) for one in versions], db=0)) == {(0, b"a"): None}


def test_batch_keeps_databases_apart() -> None:
    """The same key in another one is another key."""
    batch = Batch([event(b"a", version=1), event(b"a", version=2, db=1)], db=0)

    assert wanted(batch) == {(0, b"a"): 1, (1, b"a"): 2}


def test_batch_of_many_keys_is_cut() -> None:
    """Redis does nothing else while it runs one part."""
    batch = Batch([event(*(b"%d" % number for number in range(KEYS_A_CALL + 1)))], db=0)

    assert [len(part.keys) for part in key_parts(batch)] == [KEYS_A_CALL, 1]


def test_fences_come_after_keys_and_are_cut() -> None:
    """Globs and tags of all events of a database together, each once."""
    globs = tuple(b"%d:*" % number for number in range(FENCES_A_CALL - 1))
    batch = Batch([Event(patterns=globs, tags=(b"t",)), Event(keys=(b"a",), patterns=(b"0:*",), tags=(b"u",))], db=0)
    first, second = fence_parts(batch)

    assert isinstance(batch.parts[0], KeyPart)
    assert (first.globs, first.tags, second.tags) == (list(globs), [b"t"], [b"u"])
    assert (first.events, second.events) == ({0, 1}, {1})


def test_outcome_counts_what_is_gone_for_the_event_that_asked() -> None:
    """A key of several events counts for the one whose version it was; one that was not there for none."""
    batch = Batch([event(b"a", b"b", version=5), event(b"a", b"c", version=6)], db=0)
    (part,) = key_parts(batch)
    part.entries = [1, 0, 2]
    part.reply = bulk(b"g-g")

    assert part.keys == [b"a", b"b", b"c"]
    assert batch.outcomes() == [Applied(), Applied(keys=2, entries=3)]


@pytest.mark.parametrize(("found", "is_old"), [(b"nn", True), (b"n-", False), (b"gn", False), (b"--", False)])
def test_event_is_old_if_all_it_names_is_newer(found: bytes, is_old: bool) -> None:
    """One key that was dropped, or was not there, is no newer."""
    batch = Batch([event(b"a", b"b", version=5)], db=0)
    key_parts(batch)[0].reply = bulk(found)

    assert batch.outcomes() == [Applied(keys=found.count(b"g"), is_old=is_old)]


def test_event_older_than_another_of_its_batch_is_old_with_it() -> None:
    """What is newer than the newer one is newer than both."""
    batch = Batch([event(b"a", version=5), event(b"a", version=6)], db=0)
    key_parts(batch)[0].reply = bulk(b"n")

    assert batch.outcomes() == [Applied(is_old=True)] * 2


def test_event_with_a_glob_is_never_old() -> None:
    """Its fence is set at the present time."""
    batch = Batch([Event(keys=(b"a",), patterns=(b"b:*",), version=5)], db=0)
    key_parts(batch)[0].reply = bulk(b"n")
    fence_parts(batch)[0].reply = bulk(b"77")

    assert batch.outcomes() == [Applied(fences=1)]


@pytest.mark.parametrize(
    ("absurd", "why"),
    [
        (event(b"a", version=101), "more than an hour ahead"),
        (event(b"a", db=7), "out of range"),
        (Event(patterns=(b"x" * (TEXT_MAX_BYTES + 1),)), "at most 4096 bytes"),
        (Event(tags=(b"x" * (TEXT_MAX_BYTES + 1),)), "at most 4096 bytes"),
        (event(b"a", b"respite:fences"), "Respite's own"),
    ],
)
def test_event_that_is_absurd_fails_for_good_and_alone(absurd: Event, why: str) -> None:
    """Nothing of it is asked for, and its version counts for nothing."""
    batch = Batch([absurd, event(b"a", version=100)], db=0, latest=100, databases=7)
    assert wanted(batch) == {(0, b"a"): 100}
    key_parts(batch)[0].reply = bulk(b"g")
    failed, applied = batch.outcomes()

    assert isinstance(failed, Failed)
    assert (why in failed.reason, failed.is_final, failed.is_away) == (True, True, False)
    assert applied == Applied(keys=1)


def test_text_is_bounded_as_invalidations_bound_it() -> None:
    """Two layers have the same bound."""
    assert TEXT_MAX_BYTES == TEXT_OF_INVALIDATIONS


@pytest.mark.parametrize(
    ("reply", "away", "final"),
    [
        *((reply, True, False) for reply in (UPSTREAM_LOST, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE)),
        *(
            (b"-%b something\r\n" % code, True, False)
            for code in (b"LOADING", b"READONLY", b"MASTERDOWN", b"BUSY", b"MISCONF", b"NOAUTH", b"WRONGPASS")
        ),
        (b"-ERR max number of clients reached\r\n", True, False),
        (b"-ERR Error running script (call to f_1): @user_script:4: -READONLY You can't write\r\n", True, False),
        (b"-ERR DB index is out of range\r\n", False, True),
        (DENIED, False, False),
        (b"-OOM command not allowed\r\n", False, False),
        (b"-BUSYKEY Target key name already exists.\r\n", False, False),
        (b"-ERR respite: too many fences are in force, try again when some are swept\r\n", False, False),
    ],
)
def test_error_says_whether_to_wait_to_retry_or_to_give_up(reply: bytes, away: bool, final: bool) -> None:
    """Only what no event is to blame for holds the batch; only what cannot change ends it."""
    failed = failure_of(reply)

    assert (failed.is_away, failed.is_final, is_away(reply)) == (away, final, away)
    assert failed.reason == reply[1:-2].decode()


@pytest.mark.parametrize("reply", [b"", b":1\r\n", b"$-1\r\n", bulk(b"g"), bulk(b"ggg")])
def test_reply_that_is_not_understood_is_a_failure(reply: bytes) -> None:
    """What is not known to be done is done again."""
    batch = Batch([event(b"a", b"b")], db=0)
    key_parts(batch)[0].reply = reply
    (outcome,) = batch.outcomes()

    assert isinstance(outcome, Failed)
    assert not outcome.is_final


def test_refused_part_is_taken_apart() -> None:
    """An event whose key the user may not touch takes no other along."""
    batch = Batch([event(b"a", version=5), event(b"secret", b"a", version=6), event(b"b")], db=0)
    batch.parts[0].reply = DENIED
    singles = batch.split()
    assert [part.events for part in singles] == [{0}, {1}, {2}]
    assert [error_of(part) for part in singles] == [error_of(singles[0])] * 3
    for part, reply in zip(singles, (bulk(b"g"), DENIED, bulk(b"-")), strict=True):
        part.reply = reply

    assert batch.outcomes() == [Applied(keys=1), Failed("NOPERM No permissions to access a key"), Applied()]
    assert batch.split() == []


def test_part_that_redis_was_away_for_is_not_taken_apart() -> None:
    """Nothing about the events is wrong."""
    batch = Batch([event(b"a"), event(b"b")], db=0)
    batch.parts[0].reply = UPSTREAM_LOST

    assert batch.split() == []
    assert [outcome.is_away for outcome in batch.outcomes() if isinstance(outcome, Failed)] == [True, True]


def test_event_of_several_parts_fails_with_the_worst() -> None:
    """Holding comes before burning an attempt."""
    batch = Batch([Event(keys=(b"a",), patterns=(b"b:*",))], db=0)
    batch.parts[0].reply, batch.parts[1].reply = DENIED, UPSTREAM_LOST
    (outcome,) = batch.outcomes()

    assert isinstance(outcome, Failed)
    assert outcome.is_away


EVENTS = st.lists(
    st.builds(
        Event,
        keys=st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), min_size=1, max_size=5).map(tuple),
        version=st.none() | st.integers(0, 9),
        db=st.none() | st.integers(0, 1),
    ),
    max_size=12,
)
STORED = st.dictionaries(st.tuples(st.integers(0, 1), st.sampled_from([b"a", b"b", b"c", b"d"])), st.integers(0, 9))


@given(EVENTS, STORED)
def test_batch_leaves_what_its_events_one_by_one_would(
    events: list[Event], stored: dict[tuple[int, bytes], int]
) -> None:
    """Merging changes nothing about what is left, nor how many keys went; what is called old was old."""
    alone = dict(stored)
    for one in events:
        for key in one.keys:
            at = (one.db or 0, key)
            if at in alone and (one.version is None or alone[at] <= one.version):
                del alone[at]
    batch = Batch(events, db=0)
    together = dict(stored)
    for part in key_parts(batch):
        found = b""
        for key, version in zip(part.keys, part.versions, strict=True):
            known = together.get((part.db, key))
            if known is not None and version is not None and known > version:
                found += b"n"
            else:
                found += b"-" if known is None else b"g"
                together.pop((part.db, key), None)
        part.reply = bulk(found)
    outcomes = batch.outcomes()

    assert together == alone
    assert sum(one.keys for one in outcomes if isinstance(one, Applied)) == len(stored) - len(alone)
    for one, outcome in zip(events, outcomes, strict=True):
        if attrs.asdict(outcome)["is_old"]:
            assert all(one.version is not None and alone[one.db or 0, key] > one.version for key in one.keys)
