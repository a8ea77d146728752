"""Admission asks for a second read only where it was told to, or where that costs nothing."""

from __future__ import annotations

from proxy.cache.admission import Admission
from proxy.cache.entry import Scope
from proxy.cache.l1 import CELL_BYTES, L1, REFUSED_SHARE
from proxy.cache.memory import DROPPED, REFUSED, Memory
from proxy.wire.encode import bulk


def make() -> tuple[Admission, Memory]:
    """Return an admission with room for many keys."""
    memory = Memory()
    memory.fit(100_000)
    return Admission(), memory


def test_admits_by_default_lets_everything_in() -> None:
    """As long as nothing was evicted, nothing is refused, nor remembered."""
    admission, memory = make()

    assert all(admission.admits(b"%d" % number, memory) for number in range(1000))
    assert (admission.refusals, memory.knows(b"7")) == (0, None)


def test_admits_on_second_read_refuses_the_first() -> None:
    """A key enters when it is read again; asking more than once for the same flight changes nothing."""
    admission, memory = make()
    admission.mode = "second_read"

    assert [admission.admits(b"k", memory) for _ in range(3)] == [False, True, True]
    assert admission.refusals == 1


def test_admits_on_second_read_lets_in_what_was_held_before() -> None:
    """A key that was dropped because it changed has been read before."""
    admission, memory = make()
    admission.mode = "second_read"
    memory.remember(b"k", 1, DROPPED)

    assert admission.admits(b"k", memory)


def test_mode_switched_while_running_holds_at_once() -> None:
    """Back to always, the first read enters again."""
    admission, memory = make()
    admission.mode = "second_read"
    refused = not admission.admits(b"a", memory)
    admission.mode = "always"

    assert refused
    assert admission.admits(b"b", memory)


def test_auto_refuses_once_nearly_all_evicted_were_never_hit() -> None:
    """With one entry in fifty hit before it goes, first reads are kept out; with one in ten they are not."""
    strict, memory = make()
    easy, _ = make()
    for number in range(1024):
        strict.evicted(2 if number % 50 == 0 else 1)
        easy.evicted(2 if number % 10 == 0 else 1)

    assert (strict.is_strict, easy.is_strict) == (True, False)
    assert not strict.admits(b"k", memory)


def test_auto_lets_in_again_when_the_refused_come_back() -> None:
    """One refused key in ten that is read again is one hit lost in ten: refusing ends."""
    admission, memory = make()
    for _ in range(1024):
        admission.evicted(1)
    for number in range(256):
        if number % 10 == 9:
            assert admission.admits(b"%d" % (number - 1), memory)
            memory.recall(b"%d" % (number - 1))
        admission.admits(b"%d" % number, memory)

    assert not admission.is_strict


def test_auto_goes_on_refusing_while_the_refused_stay_away() -> None:
    """A scan that never comes back is kept out for as long as it lasts."""
    admission, memory = make()
    for _ in range(1024):
        admission.evicted(1)
    refused = sum(not admission.admits(b"%d" % number, memory) for number in range(2000))

    assert admission.is_strict
    assert refused == 2000
    assert memory.knows(b"1999") == REFUSED


def test_always_learns_for_a_later_auto_but_refuses_nothing() -> None:
    """What `auto` has measured does not bind `always`."""
    admission, memory = make()
    admission.mode = "always"
    for _ in range(1024):
        admission.evicted(1)

    assert admission.admits(b"k", memory)
    admission.mode = "auto"
    assert not admission.admits(b"j", memory)


def test_admission_counts_what_was_evicted_and_never_hit_over_all_rounds() -> None:
    """The figures that tuning looks at go on when `auto` begins to count anew, and do not depend on the mode."""
    admission = Admission()
    admission.mode = "always"
    for number in range(3000):
        admission.evicted(1 if number % 3 else 2)

    assert (admission.evictions, admission.evictions_unused) == (3000, 2000)


def test_admission_counts_keys_that_were_kept_out_and_came_back() -> None:
    """Each is a hit lost."""
    admission, memory = make()
    admission.mode = "second_read"
    for key in (b"a", b"b", b"a", b"c", b"c"):
        admission.admits(key, memory)

    assert (admission.refusals, admission.returns) == (3, 2)


def read_all(l1: L1, count: int) -> int:
    """Read so many keys one after the other, as L1 is filled by those that it admits; return how many it held."""
    namespace = l1.namespace(Scope(b"", 0, 2))
    hits = 0
    for number in range(count):
        key = bulk(b"key:%06d" % number)
        if key in namespace.resident:
            hits += 1
        elif l1.admits(key, key):
            l1.put(namespace, key, b"$1\r\nv\r\n", 1e9, 1.0)
    return hits


def test_second_read_lets_in_what_is_read_again_however_many_come_between() -> None:
    """The places to remember are as many as entries held; of an empty L1 a thousand: it would stay empty for ever."""
    l1 = L1(64 << 20)
    l1.admit = "second_read"
    for _ in range(3):
        read_all(l1, 20_000)

    assert read_all(l1, 20_000) > 17_000


def test_second_read_remembers_a_scan_in_bounded_memory() -> None:
    """Keys that are never read again take their part of the bound, and no more; all of it counts."""
    l1 = L1(4 << 20)
    l1.admit = "second_read"
    read_all(l1, 200_000)

    assert len(l1) == 0
    assert l1.groups.cells * CELL_BYTES * REFUSED_SHARE <= l1.max_bytes
    assert l1.bytes <= l1.max_bytes
