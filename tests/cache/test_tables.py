"""A dict in which keys come and go stays as large as its keys need, and what it takes is known."""

from __future__ import annotations

import subprocess
import sys

import pytest

from proxy.cache import tables
from proxy.cache.entry import ENTRY_OVERHEAD_BYTES, Scope, held_bytes
from proxy.cache.l1 import L1, TABLES_FREE_BYTES
from proxy.cache.tables import FULL, KEYS_MIN, Table
from proxy.wire.encode import bulk

SPARE = 1 << 40
MOST_A_KEY = 20 * 1.5 * 2 / FULL
"""20 bytes a slot, three slots to two keys at the fullest; made larger when `FULL`, it is half as full."""


class Churn:
    """A dict that gets new keys while old ones go, and its table."""

    def __init__(self) -> None:
        self.keys: dict[bytes, int] = {}
        self.table = Table(self.keys)
        self.number = 0

    def put(self, count: int, spare_bytes: int = SPARE) -> None:
        """Add keys."""
        for _ in range(count):
            self.number += 1
            self.keys[b"$%d" % self.number] = self.number
            self.table.room -= 1
            if not self.table.room:
                self.table.look(spare_bytes)

    def turn_over(self, count: int, spare_bytes: int = SPARE) -> None:
        """Take away the oldest key, and add one, so many times."""
        for _ in range(count):
            del self.keys[b"$%d" % (self.number - len(self.keys) + 1)]
            self.put(1, spare_bytes)


@pytest.mark.parametrize("count", [20_000, 22_000, 30_000, 36_500, 37_500, 43_000])
def test_table_in_which_keys_come_and_go_stays_small(count: int) -> None:
    """Whatever the number of keys, never above 71 bytes a key; left alone it may be 120."""
    churn = Churn()
    churn.put(count)
    worst = 0.0
    for _ in range(200):
        churn.turn_over(count // 40)
        worst = max(worst, churn.keys.__sizeof__() / len(churn.keys))

    assert worst <= MOST_A_KEY
    assert churn.table.bytes == churn.keys.__sizeof__()
    assert list(churn.keys.values()) == list(range(churn.number - count + 1, churn.number + 1))


def test_table_without_room_in_l1_is_not_made_larger() -> None:
    """Rather than evict for it, the same size is used to the last place."""
    churn = Churn()
    churn.put(20_000)
    size = churn.keys.__sizeof__()
    churn.turn_over(40_000)
    assert churn.keys.__sizeof__() == size
    churn.put(int(43_690 * 0.93) - 20_000, 0)
    size = churn.keys.__sizeof__()
    churn.turn_over(100_000, 0)

    assert churn.keys.__sizeof__() == size == churn.table.bytes


def test_table_of_fewer_keys_is_made_smaller() -> None:
    """Large replies that take the place of many small ones do not leave their dict behind."""
    churn = Churn()
    churn.put(40_000)
    size = churn.keys.__sizeof__()
    for key in list(churn.keys)[:30_000]:
        del churn.keys[key]
    churn.turn_over(100_000)

    assert churn.table.bytes == churn.keys.__sizeof__() <= size / 2


def test_table_is_made_anew_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who holds the dict still holds it; too large a one is left to CPython."""
    churn = Churn()
    held = churn.keys
    find = churn.keys.get
    churn.put(30_000)
    churn.turn_over(200_000)
    assert held is churn.keys
    assert find(b"$%d" % churn.number) == churn.number

    monkeypatch.setattr(tables, "SLOTS_MAX", 1 << 12)
    left = Churn()
    left.put(30_000)
    left.turn_over(200_000)
    assert left.table.bytes == left.keys.__sizeof__() > churn.keys.__sizeof__()


def test_table_of_few_keys_is_not_looked_at() -> None:
    """A cleared dict, as a new one, has some hundred keys before anything is measured."""
    churn = Churn()
    churn.put(10_000)
    churn.keys.clear()
    churn.table.reset()
    churn.put(KEYS_MIN - 1)

    assert churn.table.bytes == 0
    churn.put(1)
    assert churn.table.bytes == churn.keys.__sizeof__()


@pytest.mark.parametrize("reads", ["get", "others"])
def test_l1_counts_its_tables(reads: str) -> None:
    """What the dicts take is part of the bound: of GET one, of other reads two; and goes when they are cleared."""
    l1 = L1(1 << 30)
    namespace = l1.namespace(Scope(b"", 0, 2))
    for number in range(20_000):
        key = bulk(b"%08d" % number)
        if reads == "get":
            l1.put(namespace, key, b"+v\r\n", 1e9, 0.0)
        else:
            l1.put_reply(namespace, key, b"+v\r\n", 1e9, 0.0, request=b"*" + key)
    entries = sum(entry.size_bytes for block in namespace.blocks for entry in block.entries)
    dicts = sum(each.__sizeof__() for each in (namespace.resident, namespace.replies, namespace.heads) if each)

    assert l1.bytes == entries + dicts + 4 * l1.groups.cells - TABLES_FREE_BYTES
    if reads == "get":
        assert entries == 20_000 * (ENTRY_OVERHEAD_BYTES + held_bytes(bulk(b"00000000")) + held_bytes(b"+v\r\n"))
    assert l1.clear_namespace(namespace) == 20_000
    assert l1.bytes == 0


def test_l1_at_its_bound_never_leaves_it_for_its_tables() -> None:
    """However sizes change: the bound holds again some puts after a table grew, and is never passed by more."""
    l1 = L1(4 << 20)
    namespace = l1.namespace(Scope(b"", 0, 2))
    over = 0
    for number in range(60_000):
        size = (10, 2000, 10, 300)[number // 15_000]
        l1.put(namespace, bulk(b"%08d" % number), bytes(size), 1e9, float(number))
        assert l1.bytes <= l1.max_bytes * 1.08
        if number % 15_000 > 1_000:
            over += l1.bytes > l1.max_bytes

    assert over < 200
    assert l1.evictions > 30_000


def test_l1_that_gets_a_smaller_bound_gives_its_tables_up() -> None:
    """Tables that were made for many entries do not take the room of the few that may stay."""
    l1 = L1(200 << 20)
    namespace = l1.namespace(Scope(b"", 0, 2))
    for number in range(70_000):
        l1.put(namespace, bulk(b"%08d" % number), b"+v\r\n", 1e9, float(number))
    l1.groups.all[0].memory.fit(70_000)
    l1.resize(1 << 20, 1e6)
    few = len(l1)
    for number in range(20_000):
        l1.put(namespace, bulk(b"%08d" % number), b"+v\r\n", 1e9, 1e6 + number)

    assert few > 2_000
    assert len(l1) > 2_000
    assert l1.bytes <= l1.max_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
def test_block_of_its_own_is_given_back_when_it_is_freed() -> None:
    """A freed block of 3 MiB is no longer resident, though larger ones were freed before it."""
    script = """
import os
from proxy.cache.tables import in_block_of_its_own
def resident():
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
for _ in range(3):
    bytearray(b"x" * (8 << 20))
before = resident()
blocks = []
in_block_of_its_own(lambda: blocks.extend([bytearray(b"x" * (3 << 20)) for _ in range(4)]))
kept = bytearray(b"x" * 4096)
blocks.clear()
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert int(done.stdout) < 1 << 20
