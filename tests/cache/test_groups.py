"""What L1 learns, it learns by class: how much idle time says, and who went. The room is shared by all."""

from __future__ import annotations

import pytest

from proxy.cache.entry import Entry, Scope
from proxy.cache.groups import GROUPS_MAX, IDLE_STEP, REGRETS, Groups
from proxy.cache.l1 import BATCH, L1, SAMPLE
from proxy.cache.memory import FLAT, STEEP
from proxy.wire.encode import bulk

ZERO = Scope(b"", 0, 2)
LATER = 1e9
REPLY = bulk(bytes(100))
SIZE_BYTES = 400  # more than an entry of `put` takes


def class_of(key: bytes) -> str | None:
    """Return what stands before the colon; a key without one is of no class."""
    name, colon, _ = key.partition(b"\r\n")[2].partition(b":")
    return name.decode() if colon else None


def make(entries: int = 10_000) -> L1:
    """Return an L1 that is served and learns by class."""
    l1 = L1(entries * SIZE_BYTES)
    l1.serve()
    l1.group_by(class_of)
    return l1


def put(l1: L1, name: str, *, now: float = 0.0) -> Entry:
    """Hold a key."""
    return l1.put(l1.namespace(ZERO), bulk(name.encode()), REPLY, LATER, now)


def power(l1: L1, name: str) -> float:
    """Return how much idle time is found to say of the class of a key."""
    return l1.groups.of(bulk(name.encode())).idle_power


def test_of_keys_of_one_class_are_one_group_and_keys_of_none_another() -> None:
    """Each class is its own; without classes all keys are one."""
    groups = Groups(class_of)
    a, again, b, none = (groups.of(bulk(key)) for key in (b"a:1", b"a:2", b"b:1", b"x"))

    assert a is again
    assert [a.number, b.number, none.number] == [1, 2, 0]
    assert {Groups().of(bulk(key)).number for key in (b"a:1", b"b:1", b"x")} == {0}


def test_of_more_classes_than_groups_is_the_group_of_none() -> None:
    """However many classes there are, groups are few, and numbers fit into the byte that an entry keeps."""
    groups = Groups(class_of)
    numbers = [groups.of(bulk(b"c%d:1" % number)).number for number in range(300)]

    assert numbers == [*range(1, GROUPS_MAX), *[0] * (301 - GROUPS_MAX)]
    assert len(groups.all) == GROUPS_MAX <= 256
    assert groups.of(bulk(b"c0:2")).number == 1


@pytest.mark.parametrize(("lost_to", "moves"), [(STEEP, -1), (FLAT, 1)])
def test_put_of_keys_that_one_rule_evicted_moves_their_class_only(lost_to: int, moves: int) -> None:
    """What comes back of one class says nothing of another."""
    l1 = make()
    put(l1, "b:1")
    before = power(l1, "a:1")
    for number in range(REGRETS):
        l1.groups.of(bulk(b"a:1")).memory.remember(bulk(b"a:%d" % number), 1, lost_to)
        put(l1, f"a:{number}")

    assert power(l1, "a:1") == pytest.approx(before + moves * IDLE_STEP)
    assert power(l1, "b:1") == power(l1, "x") == before


@pytest.mark.parametrize(("idle_s", "goes"), [(100.0, "steep"), (1.0, "flat")])
def test_eviction_weighs_idle_time_by_class_from_the_age_at_which_entries_go(idle_s: float, goes: str) -> None:
    """Idle for longer than that, those go of whom idle time says much; idle for less, they stay for the others."""
    l1 = make()
    for number in range(SAMPLE):
        put(l1, f"{'steep' if number % 2 else 'flat'}:{number}")
    l1.groups.of(bulk(b"steep:0")).idle_power, l1.groups.of(bulk(b"flat:0")).idle_power = 2.0, 0.4
    l1.groups.age_s = 10.0
    before = set(l1.namespace(ZERO).resident)
    l1._evict(idle_s)
    gone = before - set(l1.namespace(ZERO).resident)

    assert len(gone) == BATCH
    assert {class_of(key) for key in gone} == {goes}


def test_eviction_finds_the_age_at_which_entries_go() -> None:
    """It is that of the entry that was just not worth keeping, over many evictions."""
    l1 = make(200)
    put(l1, "b:1")
    for number in range(5000):
        put(l1, f"a:{number}", now=number * 0.01)

    assert l1.groups.age_s == pytest.approx(len(l1) * 0.01, rel=0.3)


def test_eviction_is_remembered_by_the_class() -> None:
    """Who comes back speaks against the rule by which the group was judged then, so it is remembered there."""
    l1 = make()
    put(l1, "x")
    for number in range(SAMPLE - 1):
        put(l1, f"a:{number}").uses = 3
    hows = {FLAT: 0, STEEP: 0}
    for _ in range(10):
        before = set(l1.namespace(ZERO).resident)
        l1._evict(1.0)
        for key in before - set(l1.namespace(ZERO).resident) - {bulk(b"x")}:
            assert l1.groups.all[0].memory.knows(key) is None
            if known := l1.groups.of(key).memory.recall(key):  # else one of the same turn has taken its place
                assert known[0] == 3
                hows[known[1]] += 1

    assert all(hows.values())
    assert sum(hows.values()) > SAMPLE / 2


def test_memory_of_one_class_is_not_pushed_out_by_another() -> None:
    """A scan of a hundred thousand keys leaves alone what is remembered of a class that it is not of."""
    l1 = make(500)
    for number in range(50):
        put(l1, f"a:{number}").uses = 5
    for number in range(50):
        l1.drop(bulk(b"a:%d" % number))
    for number in range(100_000):
        put(l1, f"scan:{number}", now=1.0)
    inherited = sum(put(l1, f"a:{number}", now=2.0).uses == 6 for number in range(50))

    assert l1.evictions > 90_000
    assert inherited >= 45  # a few of them shared a cell


def test_admits_asks_what_is_remembered_of_the_class() -> None:
    """Waiting for the second read, a reply is known by its request, in the group of its key."""
    l1 = make()
    l1.admit = "second_read"
    key, request = bulk(b"a:1"), b"*2\r\n$7\r\nHGETALL\r\n$3\r\na:1\r\n"

    assert [l1.admits(key, request) for _ in range(2)] == [False, True]
    assert l1.groups.of(key).memory.knows(request) is not None
    assert l1.groups.all[0].memory.knows(request) is None


def test_group_by_drops_everything_and_learns_anew() -> None:
    """An entry keeps the number of its group, which means nothing where classes have changed."""
    l1 = make()
    for number in range(10):
        put(l1, f"a:{number}")
    l1.groups.of(bulk(b"a:1")).idle_power = 2.0
    l1.group_by(None)

    assert (len(l1), l1.bytes, len(l1.groups.all)) == (0, 0, 1)
    assert power(l1, "a:1") == 0.8


def test_memories_of_all_classes_are_counted() -> None:
    """What is remembered takes room of L1's, of whichever class it is."""
    l1 = make(1 << 20)
    l1.group_by(class_of)
    before = l1.bytes
    for name in (b"a:1", b"b:1"):
        l1.groups.of(bulk(name)).memory.fit(1 << 20)
    l1._count_tables()

    assert l1.bytes - before == pytest.approx(2 * 4 * (1 << 20), rel=0.02)
