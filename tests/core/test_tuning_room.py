"""The room of L1, tuned under traffic: it grows while that pays, and is taken back when it hurts."""

from __future__ import annotations

import random

from proxy.cache.entry import ENTRY_OVERHEAD_BYTES, Scope, held_bytes
from proxy.config.model import Settings
from proxy.core.tuners.room import RoomTuner
from proxy.core.tuning import SPAN_S, Tuning
from proxy.wire.encode import bulk

from .tuning_parts import MIB, make_engine, make_settings, make_values

NEVER = float("inf")


class Traffic:
    """Reads by popularity as Zipf has it, of a real L1 that is tuned; `is_scan` turns them into keys read once."""

    READS: int = 1200  # a span

    def __init__(self) -> None:
        self.entry_bytes = held_bytes(bulk(b"key:1234")) + held_bytes(bulk(b"v" * 100)) + ENTRY_OVERHEAD_BYTES
        self.settings = make_settings(
            l1__max_bytes=200 * self.entry_bytes,
            l1__max_value_bytes=1000,
            tuning__max_l1_bytes=100_000 * self.entry_bytes,
        )
        self.engine = make_engine(self.settings.l1.max_bytes)
        self.tuning = Tuning(self.engine, make_values(self.engine), [RoomTuner()], self.apply)
        self.apply(self.settings)
        self.sizes: list[int] = []
        self.rates: list[float] = []
        self.is_scan = False
        self._chance = random.Random(11)
        self._keys = [bulk(b"key:%04d" % number) for number in range(1500)]
        self._weights = [1 / (number + 1) ** 0.7 for number in range(1500)]
        self._scanned = 0

    def apply(self, configured: Settings) -> None:
        """Take settings, as a worker does."""
        self.engine.l1.resize(self.tuning.take(configured).l1.max_bytes, self.engine.now)

    def span(self) -> None:
        """Play the reads of one span."""
        engine, l1 = self.engine, self.engine.l1
        namespace = l1.namespace(Scope(b"", 0, 2))
        before = engine.stats.hits
        for key in self._chance.choices(self._keys, self._weights, k=self.READS):
            if self.is_scan:
                self._scanned += 1
                key = bulk(b"scan:%d" % self._scanned)  # noqa: PLW2901
            engine.now += SPAN_S / self.READS
            entry = namespace.entries.get(key)
            if entry is not None:
                entry.uses += 1
                entry.used_at = engine.now
                engine.stats.hits += 1
            else:
                engine.stats.misses += 1
                l1.put(namespace, key, bulk(b"v" * 100), NEVER, engine.now)
        self.rates.append((engine.stats.hits - before) / self.READS)
        self.tuning.tick()
        self.sizes.append(l1.max_bytes)


def test_l1_that_is_too_small_grows_until_that_brings_no_more() -> None:
    """Of 1,500 keys it holds 200; in steps of a quarter it grows to hold nearly all, and no further."""
    traffic = Traffic()
    for _ in range(150):
        traffic.span()

    report = traffic.tuning.report()
    whole = 1500 * traffic.entry_bytes
    assert traffic.sizes[0] == 200 * traffic.entry_bytes
    assert all(new <= old * 1.26 for old, new in zip(traffic.sizes, traffic.sizes[1:], strict=False))
    assert report["kept_total"] >= 4
    assert 0.4 * whole < traffic.sizes[-1] < 1.5 * whole
    assert sum(traffic.rates[-10:]) / 10 > sum(traffic.rates[:10]) / 10 + 0.2


def test_l1_is_taken_back_to_where_it_was_when_hits_get_fewer_after_a_step() -> None:
    """A step that was right when it was taken, for traffic that then turned into a scan: no memory is kept for it."""
    traffic = Traffic()
    for _ in range(30):
        traffic.span()
        if traffic.sizes[-1] > traffic.sizes[0]:
            break
    assert traffic.sizes[-1] > traffic.sizes[0]

    traffic.is_scan = True
    for _ in range(12):
        traffic.span()

    assert traffic.sizes[-1] == traffic.settings.l1.max_bytes
    assert traffic.tuning.report()["undone_total"] == 1


def test_l1_that_is_large_enough_is_left_alone() -> None:
    """Where everything fits, nothing is tried."""
    traffic = Traffic()
    traffic.settings = make_settings(l1__max_bytes=3000 * traffic.entry_bytes, l1__max_value_bytes=1000)
    traffic.apply(traffic.settings)
    for _ in range(20):
        traffic.span()

    assert set(traffic.sizes) == {3000 * traffic.entry_bytes}
    assert traffic.tuning.report()["steps_total"] == 0
    assert traffic.settings.tuning.max_l1_bytes == 128 * MIB
