"""Who walks through all of L1 meets every entry, whatever comes and goes meanwhile."""

from __future__ import annotations

import pytest

from proxy.cache.entry import BLOCK_SIZE, Scope
from proxy.cache.l1 import L1
from tests.cache.test_l1 import check, fill, held, make


def rounds(l1: L1, count: int, number: int) -> list[list[int]]:
    """Walk through all of database 0 so many times; return the keys of each round."""
    found: list[list[int]] = [[]]
    for slice_ in l1.walk(count):
        assert len(slice_) <= count
        if slice_:
            found[-1] += [int(entry.key[5:11]) for entry in slice_]
        elif len(found) == number:
            break
        else:
            found.append([])
    return found


@pytest.mark.parametrize("held_count", [0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, 3 * BLOCK_SIZE + 7])
@pytest.mark.parametrize("count", [1, 48, 256, 1000])
def test_walk_yields_each_entry_once_a_round(held_count: int, count: int) -> None:
    """Full slices but for the last; a round that ends says so, and the next begins."""
    l1 = make()
    fill(l1, held_count)
    for number in range(5):
        l1.namespace(Scope(b"u%d" % number, 0, 2))

    assert rounds(l1, count, 2) == [list(range(held_count))] * 2


def test_walk_goes_on_while_entries_come_and_go() -> None:
    """Whatever is dropped and put meanwhile, the entries just seen too: the next round meets what is held, once."""
    l1 = make()
    fill(l1, 5 * BLOCK_SIZE)
    walk = l1.walk(100)
    number = 100_000
    while looked_at := next(walk):
        for entry in looked_at[::2]:
            l1.drop(entry.key)
        fill(l1, 3, first=number)
        number += 3
        check(l1)
    calm = []
    while looked_at := next(walk):
        calm += [int(entry.key[5:11]) for entry in looked_at]

    assert number > 100_015
    assert sorted(calm) == sorted(held(l1))


def test_walk_goes_on_after_clear() -> None:
    """A hand that stood in what has gone begins anew."""
    l1 = make()
    fill(l1, 2 * BLOCK_SIZE)
    walk = l1.walk(100)
    next(walk)
    l1.clear()
    fill(l1, 3)
    found = [len(next(walk)) for _ in range(4)]

    assert 3 in found
