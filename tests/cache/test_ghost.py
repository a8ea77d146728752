"""Ghosts say what more room would bring, and count nothing that it would not."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from proxy.cache.entry import ENTRY_OVERHEAD_BYTES, Entry, Namespace, ReplyEntry, Scope, held_bytes
from proxy.cache.ghost import GHOSTS_MAX, ROOMS, Ghosts
from proxy.cache.l1 import L1
from proxy.wire.encode import bulk

SCOPE = Scope(b"", 0, 2)
REPLY = bulk(b"v" * 100)
NEVER = float("inf")
NAMESPACE = Namespace(SCOPE)
SIZE = Entry(NAMESPACE, b"k", b"+v\r\n", NEVER, 0.0).size_bytes


def made() -> Ghosts:
    """Return ghosts of a room for ten entries, so few that every key has one."""
    ghosts = Ghosts()
    ghosts.fit(10 * SIZE, 10)
    return ghosts


def evict(ghosts: Ghosts, *keys: bytes, now: float = 1.0, ends_at: float = NEVER) -> None:
    """Have entries go, in this order."""
    for key in keys:
        ghosts.went(Entry(NAMESPACE, key, b"+v\r\n", ends_at, now), now)


@pytest.mark.parametrize(
    ("later", "hits"), [(0, (1, 1, 1)), (1, (1, 1, 1)), (2, (0, 1, 1)), (5, (0, 0, 1)), (10, (0, 0, 0))]
)
def test_came_counts_for_the_rooms_that_would_have_held_the_key(later: int, hits: tuple[int, ...]) -> None:
    """A larger room holds a key until what went after it fills what it has besides: 2.5, 5 and 10 entries."""
    ghosts = made()
    evict(ghosts, b"k", *(b"later%d" % number for number in range(later)))

    ghosts.came(b"k", b"k", 2.0)

    assert hits == ghosts.hits()


def test_came_a_second_time_counts_once() -> None:
    """The ghost of a key that is in L1 again is gone."""
    ghosts = made()
    evict(ghosts, b"k")

    ghosts.came(b"k", b"k", 2.0)
    ghosts.came(b"k", b"k", 2.0)

    assert ghosts.hits() == (1, 1, 1)
    assert len(ghosts) == 0


def test_came_back_after_a_change_counts_not() -> None:
    """What has changed since it went would have been dropped from any L1; what changed before it went, not."""
    ghosts = made()
    ghosts.changed(b"k", 0.5)
    evict(ghosts, b"k", b"other", now=1.0)
    ghosts.changed(b"other", 1.5)

    ghosts.came(b"other", b"other", 2.0)
    assert ghosts.hits() == (0, 0, 0)

    ghosts.came(b"k", b"k", 2.0)
    assert ghosts.hits() == (1, 1, 1)


def test_came_of_a_request_is_undone_by_a_change_of_its_key() -> None:
    """Replies of other reads hang on a key, as they do in L1."""
    ghosts = made()
    ghosts.went(ReplyEntry(NAMESPACE, b"k", b"+v\r\n", NEVER, 1.0, request=b"request"), 1.0)
    ghosts.changed(b"k", 1.5)

    ghosts.came(b"k", b"request", 2.0)

    assert ghosts.hits() == (0, 0, 0)


def test_came_back_after_its_end_counts_not() -> None:
    """What has ended would be a miss in any L1; what had ended when it went gets no ghost."""
    ghosts = made()
    evict(ghosts, b"ends", ends_at=1.5)
    evict(ghosts, b"dead", ends_at=0.5)
    assert len(ghosts) == 1

    ghosts.came(b"ends", b"ends", 2.0)

    assert ghosts.hits() == (0, 0, 0)


def test_room_for_names_the_smallest_room_that_holds_a_key() -> None:
    """Whoever asks why a key was a miss is told how much room would have held it."""
    ghosts = made()
    evict(ghosts, b"k", b"1", b"2", b"3")

    assert ghosts.room_for(b"k", b"k") == 1.5
    assert ghosts.room_for(b"unknown", b"unknown") is None


def test_ghosts_are_bounded_in_number_and_memory() -> None:
    """However many keys come and change, there are at most twice `GHOSTS_MAX`, of 300 bytes each."""
    ghosts = Ghosts()
    tracemalloc.start()
    try:
        ghosts.fit(1 << 30, 10)
        for number in range(3 * GHOSTS_MAX):
            key = b"%d" % number
            evict(ghosts, key)
            ghosts.changed(key, 2.0)
        held, most = len(ghosts), tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert held == 2 * GHOSTS_MAX
    assert len(ghosts._changed) == 2 * GHOSTS_MAX
    assert most < 2 * GHOSTS_MAX * 450


def test_fit_samples_more_sparsely_the_more_entries_there_are() -> None:
    """About as many ghosts for a million entries as for a hundred thousand; a few more or less change nothing."""
    ghosts = Ghosts()
    ghosts.fit(100, 100)
    assert ghosts.one_in == 1

    ghosts.fit(100, 1_000_000)
    sparse = ghosts.one_in
    assert GHOSTS_MAX // 2 <= 1_000_000 // sparse <= GHOSTS_MAX

    for entries in (900_000, 1_040_000, 500_000):
        ghosts.fit(100, entries)
        assert ghosts.one_in == sparse


def test_fit_to_another_room_keeps_what_was_counted() -> None:
    """A step of tuning is no reason to forget."""
    ghosts = made()
    evict(ghosts, b"k", b"other")
    ghosts.came(b"k", b"k", 2.0)

    ghosts.fit(13 * SIZE, 10)

    assert ghosts.hits() == (1, 1, 1)
    assert len(ghosts) == 1


def play(reads: list[bytes], max_bytes: int) -> tuple[float, tuple[float, ...]]:
    """Return the hit rate of the second half of the reads, and what the ghosts say would have been hit besides."""
    l1 = L1(max_bytes)
    l1.serve()
    l1.ghosts = Ghosts()
    namespace = l1.namespace(SCOPE)
    hits, before, half = 0, l1.ghosts.hits(), len(reads) // 2
    for at, key in enumerate(reads):
        if at == half:
            hits, before = 0, l1.ghosts.hits()
        entry = namespace.entries.get(key)
        if entry is None:
            l1.put(namespace, key, REPLY, NEVER, at * 1e-3)
        else:
            entry.uses += 1
            entry.used_at = at * 1e-3
            hits += 1
    return hits / half, tuple((new - old) / half for new, old in zip(l1.ghosts.hits(), before, strict=True))


def test_ghosts_of_l1_foretell_what_more_room_brings() -> None:
    """On popularity as Zipf has it, what ghosts promise is what the larger room then has, or less, and not by far."""
    chance = random.Random(7)
    keys = [bulk(b"key:%d" % number) for number in range(4000)]
    weights = [1 / (number + 1) ** 0.8 for number in range(4000)]
    reads = chance.choices(keys, weights, k=24_000)
    room = 500 * (held_bytes(keys[0]) + held_bytes(REPLY) + ENTRY_OVERHEAD_BYTES)

    rate, promised = play(reads, room)

    for times, promise in zip(ROOMS, promised, strict=True):
        gained = play(reads, int(room * times))[0] - rate
        assert 0.3 * gained < promise < 1.5 * gained, times


def test_ghosts_of_l1_say_nothing_where_no_room_would_help() -> None:
    """Keys that are read once come back to no room."""
    reads = [bulk(b"key:%d" % number) for number in range(5_000)]

    assert play(reads, 300_000) == (0.0, (0.0, 0.0, 0.0))


def test_ghosts_of_l1_are_gone_when_it_is_emptied() -> None:
    """After a flush a larger L1 would be empty, too."""
    l1 = L1(100_000)
    l1.serve()
    l1.ghosts = Ghosts()
    for number in range(1000):
        l1.put(l1.namespace(SCOPE), bulk(b"%d" % number), REPLY, NEVER, 0.0)
    assert len(l1.ghosts) > 0

    l1.clear()

    assert len(l1.ghosts) == 0
