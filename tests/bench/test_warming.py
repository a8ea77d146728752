"""The figures of bench.warming: ratios to the side without TOUCH, popularity as it was drawn, a run of its own."""

import argparse

import pytest

from bench._lib import BenchError, ZipfKeys
from bench._load import key_name
from bench.warming import BASE, DIRECT, Load, Run, Side, TunedRig, popularity, ratio_rows, side_names, sum_up

LRU = "allkeys-lru"


def options(**changed: float) -> argparse.Namespace:
    """Make the options of a small run."""
    small = {"keys": 300, "hot": 20, "theta": 0.99, "rate": 1000.0, "other_rate": 1000.0, "seconds": 0.5}
    return argparse.Namespace(**{**small, "value_bytes": 1024, "memory_share": 0.5, **changed})


def run(number: int, side: str, recomputed_per_s: float) -> Run:
    """Make a run that differs in what is made anew."""
    return Run(number, LRU, side, recomputed_per_s, 0.5, 0.5, 0.5, 100.0, 100.0, 0.01)


def test_ratio_rows_divide_by_the_side_without_touch_of_the_same_round() -> None:
    """A round with twice the misses changes no ratio; the side without TOUCH itself is no row."""
    runs = [run(n, side, rate * n) for n in (1, 2) for side, rate in ((DIRECT, 40.0), (BASE, 100.0), ("touch 9", 50.0))]

    rows = ratio_rows(runs, side_names([0, 9]))

    assert [(DIRECT, 0.4), ("touch 9", 0.5)] == [(row["side"], row["recomputed_per_s"]["median"]) for row in rows]
    assert all(row["recomputed_per_s"]["low"] == row["recomputed_per_s"]["high"] for row in rows)


def test_popularity_is_that_of_the_keys_that_are_drawn() -> None:
    """The shares add up to all reads, and are those with which keys are drawn."""
    shares = popularity(100, 0.99)
    drawn = ZipfKeys(100, 0.99, seed=1).take(50_000)

    assert 1.0 == pytest.approx(sum(shares))
    assert shares[0] == pytest.approx(drawn.count(0) / 50_000, abs=0.01)


def test_side_counts_what_the_app_makes_anew_once_a_key() -> None:
    """Two reads of a missing key in one batch are one value made anew; then Redis holds it."""
    with TunedRig() as rig:
        side = Side(rig, DIRECT, None, "noeviction", options(memory_share=4.0))
        with side.redis.client() as client:
            client.delete(key_name(3), key_name(5))
        side.read([key_name(number) for number in (3, 4, 3, 5)])
        side.read([key_name(number) for number in (3, 4, 5)])
        figures = side.figures()
        held = side.held(300)
        side.close()

    assert 2 == figures["recomputed"]
    assert all(held)


def test_run_without_eviction_is_an_error() -> None:
    """A Redis that has room for everything says nothing about TOUCH."""
    small = options(memory_share=4.0)
    with TunedRig() as rig:
        side = Side(rig, DIRECT, None, LRU, small)

        with pytest.raises(BenchError, match="under no pressure"):
            sum_up(side, side.figures(), 1.0, (1, LRU), small)
        side.close()


def test_load_under_pressure_evicts_and_touches() -> None:
    """Through Respite hot keys are named in a TOUCH; with the rate 0 none is, and both get the same reads."""
    small = options(keys=4000)  # fewer, and Redis' own buffers are all it has room for
    with TunedRig() as rig:
        sides = [Side(rig, f"touch {rate}", rate, LRU, small) for rate in (0, 1000)]
        before = [side.figures() for side in sides]
        load = Load(sides, 1, small, late_share=100.0)  # how fast the machine is, is no matter here
        took_s = load.run(2.0)
        runs = [sum_up(side, first, took_s, (1, LRU), small) for side, first in zip(sides, before, strict=True)]
        after = [side.figures() for side in sides]
        for side in sides:
            side.close()

    assert after[0]["hits"] + after[0]["misses"] == after[1]["hits"] + after[1]["misses"] == 2000
    assert [True, False] == [each.touched_per_s == 0 for each in runs]
    assert runs[0].touch_cpu_share == 0 < runs[1].touch_cpu_share
    assert all(each.evicted_per_s > 0 and 0 < each.hot_share <= 1 for each in runs)
