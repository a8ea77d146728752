"""L1 keeps its bound, drops what is worth least, and never loses count of what it holds."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cache.entry import BLOCK_SIZE, ENTRY_OVERHEAD_BYTES, Namespace, Scope, held_bytes
from proxy.cache.groups import IDLE_STEP, REGRETS
from proxy.cache.l1 import BATCH, L1, SAMPLE, SHRUNK_AT_ONCE
from proxy.cache.memory import DROPPED, FLAT, REFUSED, STEEP
from proxy.wire.encode import bulk

ZERO = Scope(b"", 0, 2)
ONE = Scope(b"", 1, 2)
LATER = 1e9
SIZE = ENTRY_OVERHEAD_BYTES + 64 + 160
"""What `fill` puts: with 64 for the key, and 160 for the reply."""


def make(max_entries: int = 1_000_000, *, size_bytes: int = SIZE) -> L1:
    """Return an L1 that is served and holds so many entries of `fill`'s default size."""
    l1 = L1(max_entries * size_bytes)
    l1.serve()
    return l1


def fill(
    l1: L1, count: int, *, now: float = 0.0, deadline: float = LATER, size_bytes: int = SIZE, first: int = 0
) -> None:
    """Put entries of exactly `size_bytes` each into database 0."""
    namespace = l1.namespace(ZERO)
    for number in range(first, first + count):
        key = bulk(b"k%06d" % number)
        held = size_bytes - ENTRY_OVERHEAD_BYTES - held_bytes(key)
        entry = l1.put(namespace, key, b"v" * (held - (33 if held <= 512 else 41)), LATER, now)
        assert entry.size_bytes == size_bytes


def held(l1: L1, scope: Scope = ZERO) -> set[int]:
    """Return the numbers of the keys that are resident."""
    return {int(key[5:11]) for key in l1.namespace(scope).resident}


def test_put_counts_key_reply_and_overhead() -> None:
    """An entry counts with its key and its reply as Python holds them, and what it costs besides."""
    l1 = make()
    l1.put(l1.namespace(ZERO), b"$1\r\nk\r\n", b"$1\r\nv\r\n", LATER, 0.0)

    assert l1.bytes == 2 * 48 + ENTRY_OVERHEAD_BYTES
    assert len(l1) == 1


@pytest.mark.parametrize(("length", "held"), [(0, 48), (15, 48), (16, 64), (479, 512), (480, 528), (1000, 1056)])
def test_held_bytes_is_what_an_object_takes(length: int, held: int) -> None:
    """A header, in steps of 16; malloc's own header from where Python leaves it to malloc."""
    assert held_bytes(bytes(length)) == held
    assert held_bytes(bytes(length)) >= sys.getsizeof(bytes(length))


def test_put_over_the_bound_evicts_until_it_is_kept() -> None:
    """However much is put, the bound in bytes holds after each."""
    l1 = make(100)
    for number in range(1000):
        fill(l1, 1, first=number, now=float(number))
        assert l1.bytes <= l1.max_bytes

    assert l1.evictions >= 900
    assert len(l1) + l1.evictions == 1000


def test_put_of_more_than_the_bound_holds_nothing_and_drops_nothing() -> None:
    """A reply larger than all of L1 is not held, and nobody is evicted for it."""
    l1 = make(10)
    fill(l1, 10)
    l1.put(l1.namespace(ZERO), b"large", b"v" * l1.max_bytes, LATER, 0.0)

    assert len(l1) == 10
    assert l1.evictions == 0


def test_put_of_a_held_key_replaces_it() -> None:
    """A key is held once, and counted once."""
    l1 = make()
    fill(l1, 1)
    fill(l1, 1, size_bytes=SIZE + 96)

    assert (len(l1), l1.bytes) == (1, SIZE + 96)
    assert len(next(iter(l1.namespace(ZERO).resident.values())).reply) > 150


def test_eviction_drops_the_dead_before_all_others() -> None:
    """An entry past its deadline goes first, however often it was read."""
    l1 = make(SAMPLE)
    fill(l1, SAMPLE)
    resident = l1.namespace(ZERO).resident
    dead = {3, 9, 17, 30}
    for key, entry in resident.items():
        entry.used_at = 9.0
        if int(key[5:11]) in dead:
            entry.ends_at = 5.0
            entry.uses = 1_000_000
    fill(l1, 1, first=SAMPLE, now=10.0)

    assert len(dead) == BATCH
    assert held(l1) == set(range(SAMPLE + 1)) - dead


def test_eviction_prefers_what_is_used_least() -> None:
    """Of entries of one size, read last at the same time, those with the fewest reads go."""
    l1 = make(SAMPLE)
    fill(l1, SAMPLE)
    for key, entry in l1.namespace(ZERO).resident.items():
        entry.uses = 100 if int(key[5:11]) % 12 else 1
    fill(l1, 1, first=SAMPLE, now=10.0)

    assert held(l1) == {number for number in range(SAMPLE + 1) if number % 12 or number == SAMPLE}


def test_eviction_prefers_what_is_idle_longest() -> None:
    """Of entries of one size, read equally often, those not read for the longest time go."""
    l1 = make(SAMPLE)
    fill(l1, SAMPLE)
    for key, entry in l1.namespace(ZERO).resident.items():
        entry.used_at = 9.0 if int(key[5:11]) % 12 else 1.0
    fill(l1, 1, first=SAMPLE, now=10.0)

    assert held(l1) == {number for number in range(SAMPLE + 1) if number % 12 or number == SAMPLE}


def test_eviction_prefers_what_is_large() -> None:
    """Of entries read equally often and lately, the large go: many small ones are held in their place."""
    l1 = L1(SAMPLE * SIZE + 4 * 4000)
    fill(l1, SAMPLE - 4)
    fill(l1, 4, first=SAMPLE - 4, size_bytes=SIZE + 4000)
    fill(l1, 1, first=SAMPLE, size_bytes=SIZE + 4000, now=10.0)

    assert held(l1) == {*range(SAMPLE - 4), SAMPLE}


def test_eviction_looks_at_all_entries_in_turn() -> None:
    """The sample roves: entries that are never read are all found, wherever they stand."""
    l1 = make(1000)
    fill(l1, 1000)
    for number in range(1000, 3000):
        fill(l1, 1, first=number, now=float(number))
        for entry in l1.namespace(ZERO).resident.values():
            if entry.key[5:11] >= b"001000":
                entry.uses = 50
                entry.used_at = float(number)
        if number > 2250:
            break

    assert not {number for number in held(l1) if number < 1000}


def test_eviction_takes_what_was_never_hit_before_what_was_hit_once() -> None:
    """One hit is worth more than being idle ten times as long."""
    l1 = make(SAMPLE)
    fill(l1, SAMPLE)
    for key, entry in l1.namespace(ZERO).resident.items():
        is_hit = int(key[5:11]) % 12 != 0
        entry.uses, entry.used_at = (2, 0.0) if is_hit else (1, 9.0)
    fill(l1, 1, first=SAMPLE, now=10.0)

    assert held(l1) == {number for number in range(SAMPLE + 1) if number % 12 or number == SAMPLE}


@pytest.mark.parametrize("how", ["evicted", "dropped", "replaced"])
def test_put_of_a_key_that_was_held_brings_its_uses_back(how: str) -> None:
    """A key that went and comes back is not a stranger."""
    l1 = make(SAMPLE)
    fill(l1, SAMPLE)
    entry = l1.namespace(ZERO).resident[bulk(b"k000005")]
    entry.uses = 5
    if how == "evicted":
        entry.ends_at = 1.0
        fill(l1, 1, first=1000, now=10.0)
    elif how == "dropped":
        l1.drop(entry.key)
    gone = entry.key not in l1.namespace(ZERO).resident
    fill(l1, 1, first=5, now=11.0)

    assert gone is (how != "replaced")
    assert l1.namespace(ZERO).resident[entry.key].uses == (5 if how == "replaced" else 6)


@pytest.mark.parametrize(("lost_to", "moves"), [(STEEP, -1), (FLAT, 1)])
def test_put_of_keys_that_one_rule_evicted_moves_away_from_it(lost_to: int, moves: int) -> None:
    """Keys that come back to one rule make idle time say more, or less; those that changed or were refused do not."""
    l1 = make(1000)
    before = l1.groups.all[0].idle_power
    for how, number in ((how, number) for how in (DROPPED, REFUSED, lost_to) for number in range(REGRETS)):
        if how == lost_to and number == REGRETS - 1:
            assert l1.groups.all[0].idle_power == before
        l1.drop(bulk(b"k%06d" % number))
        l1.groups.all[0].memory.remember(bulk(b"k%06d" % number), 1, how)
        fill(l1, 1, first=number)

    assert l1.groups.all[0].idle_power == pytest.approx(before + moves * IDLE_STEP)


def test_admits_follows_the_mode_and_put_of_the_second_read() -> None:
    """Told to wait for the second read, L1 lets a key in then."""
    l1 = make()
    l1.admit = "second_read"

    assert [l1.admits(b"$1\r\nk\r\n", b"$1\r\nk\r\n") for _ in range(2)] == [False, True]


def test_drop_takes_a_key_out_of_every_namespace() -> None:
    """A push names no database: the key goes in all of them, and is counted."""
    l1 = make()
    for scope in (ZERO, ONE):
        l1.put(l1.namespace(scope), b"$1\r\nk\r\n", b"+v\r\n", LATER, 0.0)
        l1.put(l1.namespace(scope), b"$1\r\nx\r\n", b"+v\r\n", LATER, 0.0)

    assert l1.drop(b"$1\r\nk\r\n") == 2
    assert [set(l1.namespace(scope).resident) for scope in (ZERO, ONE)] == [{b"$1\r\nx\r\n"}] * 2
    assert l1.drop(b"$1\r\nk\r\n") == 0


def test_clear_drops_everything() -> None:
    """After a flush nothing is held and nothing is counted."""
    l1 = make()
    fill(l1, 100)

    assert l1.clear() == 100
    assert (len(l1), l1.bytes, held(l1)) == (0, 0, set())
    fill(l1, 3)
    assert held(l1) == {0, 1, 2}


def test_clear_namespace_drops_one_scope_only() -> None:
    """What one link fed goes; what others fed stays."""
    l1 = make()
    fill(l1, 10)
    l1.put(l1.namespace(ONE), bulk(b"k000007"), b"+v\r\n", LATER, 0.0)

    assert l1.clear_namespace(l1.namespace(ZERO)) == 10
    assert (held(l1), held(l1, ONE)) == (set(), {7})
    assert len(l1) == 1


def test_forget_namespace_makes_room_for_a_new_one() -> None:
    """A scope that comes back after its namespace was forgotten starts empty."""
    l1 = make()
    fill(l1, 10)
    old = l1.namespace(ZERO)
    l1.forget_namespace(old)

    assert l1.namespace(ZERO) is not old
    assert (len(l1), l1.bytes) == (0, 0)


def test_suspend_hides_everything_and_serve_shows_it_again() -> None:
    """What is not proven is not found; nothing of it is lost."""
    l1 = make()
    fill(l1, 10)
    namespace = l1.namespace(ZERO)
    l1.suspend()
    hidden = len(namespace.entries)
    made_meanwhile = l1.namespace(ONE)
    l1.put(made_meanwhile, b"k", b"+v\r\n", LATER, 0.0)
    hidden += len(made_meanwhile.entries)
    l1.serve()

    assert hidden == 0
    assert (len(namespace.entries), len(made_meanwhile.entries)) == (10, 1)


def test_namespace_of_a_scope_is_one() -> None:
    """The same user, database and protocol share a namespace, any other has its own."""
    l1 = make()
    scopes = [Scope(user, db, protocol) for user in (b"", b"u") for db in (0, 1) for protocol in (2, 3)]

    assert len({id(l1.namespace(scope)) for scope in scopes}) == len(scopes)
    assert l1.namespace(ZERO) is l1.namespace(Scope(b"", 0, 2))
    assert l1.namespace(ZERO).entries is l1.namespace(ZERO).resident


def test_resize_to_less_evicts_at_once() -> None:
    """A smaller bound holds as soon as it is set."""
    l1 = make(100)
    fill(l1, 100)
    l1.resize(40 * SIZE, 1.0)

    assert l1.bytes <= 40 * SIZE
    assert len(l1) > 40 - BATCH
    fill(l1, 100, first=1000, now=2.0)
    assert l1.bytes <= 40 * SIZE


def test_resize_of_many_entries_evicts_some_at_a_time() -> None:
    """All at once would hold up every client for seconds; what comes meanwhile takes no more room than there was."""
    most = SHRUNK_AT_ONCE * BATCH
    l1 = make(5 * most)
    fill(l1, 5 * most)
    gone = -l1.evictions
    l1.resize(most * SIZE, 1.0)
    gone += l1.evictions
    before = l1.bytes
    fill(l1, 10, first=1_000_000, now=2.0)
    while_shrinking = l1.bytes
    calls = 0
    while l1.shrinks:
        calls += 1
        so_far = l1.evictions
        l1.shrink(3.0)
        assert l1.evictions - so_far <= most + BATCH

    assert gone == most
    assert while_shrinking <= before
    assert calls > 1
    assert l1.bytes <= most * SIZE


def check(l1: L1) -> None:
    """Check that every entry stands where it says, once, and that the bytes are those of the entries."""
    residents = [entry for namespace in l1.namespaces.values() for entry in namespace.resident.values()]
    for namespace in l1.namespaces.values():
        assert namespace.blocks
        assert all(len(block.entries) == BLOCK_SIZE for block in namespace.blocks[:-1])
        assert all(block.namespace is namespace for block in namespace.blocks)
        assert all(key == entry.key and entry.namespace is namespace for key, entry in namespace.resident.items())
    assert all(entry.block.entries[entry.place] is entry for entry in residents)
    assert sum(len(block.entries) for each in l1.namespaces.values() for block in each.blocks) == len(residents)
    assert len(l1) == len(residents)
    groups = [entry.block.groups[entry.place] for entry in residents]
    assert groups == [l1.groups.of(entry.key).number for entry in residents]
    assert [group.count for group in l1.groups.all] == [groups.count(number) for number in range(len(l1.groups.all))]
    assert all(len(block.groups) == len(block.entries) for each in l1.namespaces.values() for block in each.blocks)
    assert l1.bytes == sum(entry.size_bytes for entry in residents) <= l1.max_bytes


KEYS = st.integers(0, 12).map(lambda number: bulk(b"k%d" % number))
SCOPES = st.sampled_from((ZERO, ONE, Scope(b"u", 0, 3)))
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), SCOPES, KEYS, st.integers(0, 900), st.integers(0, 30)),
    st.tuples(st.just("use"), SCOPES, KEYS),
    st.tuples(st.just("drop"), KEYS),
    st.tuples(st.just("clear")),
    st.tuples(st.just("clear_namespace"), SCOPES),
    st.tuples(st.just("forget_namespace"), SCOPES),
    st.tuples(st.just("resize"), st.integers(0, 6000)),
    st.tuples(st.just("serve")),
    st.tuples(st.just("suspend")),
)


@given(st.lists(OPERATIONS, max_size=120))
def test_any_operations_keep_ring_and_dicts_in_step(operations: list[tuple]) -> None:  # type: ignore[type-arg]
    """Whatever is done in whatever order: one place in the ring for each entry, the bytes its sum, within the bound.

    And each is known to be of its class.
    """
    l1 = L1(6000)
    l1.group_by(lambda key: ("even", None, "third")[key[-3] % 3])
    for now, (name, *args) in enumerate(operations):
        if name == "put":
            scope, key, size, lifetime = args
            l1.put(l1.namespace(scope), key, b"v" * size, float(now + lifetime), float(now))
        elif name == "use":
            entry = l1.namespace(args[0]).entries.get(args[1])
            if entry is not None:
                entry.uses += 1
                entry.used_at = float(now)
        elif name in ("clear_namespace", "forget_namespace"):
            namespace: Namespace = l1.namespace(args[0])
            getattr(l1, name)(namespace)
        elif name == "resize":
            l1.resize(args[0], float(now))
        else:
            getattr(l1, name)(*args)
        check(l1)
