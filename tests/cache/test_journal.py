"""The journal remembers what befell keys lately, in order, and never more than its bound."""

from __future__ import annotations

from proxy.cache.journal import EVENTS_MAX, EVERY_KEY, EVICTED, FILL, FLUSH, PUSH, SHOWN_MAX, Journal
from proxy.cache.l1 import L1
from proxy.wire.encode import bulk, unbulk

from .test_l1 import LATER, ZERO

KEY, OTHER = bulk(b"k"), bulk(b"o")


def test_events_of_a_key_come_oldest_first() -> None:
    """What happened to a key, and when; not what happened to others."""
    journal = Journal()
    journal.note((1.0, FILL, KEY))
    journal.note((2.0, FILL, OTHER))
    journal.note((3.0, PUSH, KEY))

    assert journal.of(KEY) == [(1.0, FILL), (3.0, PUSH)]
    assert journal.of(bulk(b"unknown")) == []


def test_events_of_all_keys_are_among_those_of_each() -> None:
    """A flush befalls every key, those too that nothing else is known of."""
    journal = Journal()
    journal.note((1.0, FILL, KEY))
    journal.note((2.0, FLUSH, EVERY_KEY))
    journal.note((3.0, FILL, KEY))

    assert journal.of(KEY) == [(1.0, FILL), (2.0, FLUSH), (3.0, FILL)]
    assert journal.of(OTHER) == [(2.0, FLUSH)]


def test_empty_key_has_events_of_its_own() -> None:
    """The key b"" is a key like any other: as a bulk string it is not the mark for all of them."""
    journal = Journal()
    journal.note((1.0, PUSH, bulk(b"")))

    assert journal.of(bulk(b"")) == [(1.0, PUSH)]
    assert journal.of(KEY) == []


def test_journal_shows_the_last_events_only() -> None:
    """Of many the newest are shown."""
    journal = Journal()
    for at in range(3 * SHOWN_MAX):
        journal.note((float(at), FILL, KEY))

    assert [at for at, _ in journal.of(KEY)] == [float(at) for at in range(2 * SHOWN_MAX, 3 * SHOWN_MAX)]


def test_journal_forgets_the_oldest() -> None:
    """It is bounded over all keys together: busy keys push out what happened to the others."""
    journal = Journal()
    journal.note((0.0, FILL, KEY))
    for at in range(1, EVENTS_MAX):
        journal.note((float(at), FILL, OTHER))
    assert journal.of(KEY) == [(0.0, FILL)]

    journal.note((1e6, FILL, OTHER))

    assert journal.of(KEY) == []
    assert len(journal._events) == EVENTS_MAX


def test_evictions_are_noted() -> None:
    """Why a key is missing that nobody changed."""
    l1 = L1(1 << 20)
    for key in (KEY, OTHER):
        l1.put(l1.namespace(ZERO), key, b"+v\r\n", LATER, 1.0)
    l1.put_reply(l1.namespace(ZERO), KEY, b":1\r\n", LATER, 1.0, request=b"r")
    l1.resize(0, 5.0)

    assert l1.journal.of(KEY) == [(5.0, EVICTED)] * 2
    assert l1.journal.of(OTHER) == [(5.0, EVICTED)]


def test_long_keys_are_told_apart_and_take_little_memory() -> None:
    """Twenty thousand writes of keys of a megabyte would hold as many megabytes."""
    journal = Journal()
    one, other = (bulk(b"k" * 1_000_000 + end) for end in (b"1", b"2"))
    journal.note((1.0, FILL, one))
    journal.note((2.0, PUSH, other))

    assert journal.of(one) == [(1.0, FILL)]
    assert journal.of(other) == [(2.0, PUSH)]
    assert [unbulk(key)[:64] for _, _, key in journal.ends(1)] == [b"k" * 64]
    assert sum(len(key) for _, _, key in journal._events) < 300
