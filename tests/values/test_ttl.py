"""The TTL of one write: tiers by reads, the class's bounds, jitter, and what is left to the app."""

from __future__ import annotations

import itertools
import random

import pytest

from proxy.values.ttl import Decision, Thresholds, TtlRules, decide

EXACT = Thresholds(jitter=0.0)  # INTERFACE.md's numbers: 60 s, above 5, above 10, hot 5 min, cold 1 h
MIDDLE = 0.5  # a random number that makes no jitter


def ttl_of(rules: TtlRules, reads: float, asked_ms: int | None = 60_000, thresholds: Thresholds = EXACT) -> int | None:
    """Decide without jitter."""
    return decide(rules, thresholds, asked_ms=asked_ms, reads=reads, random=MIDDLE).ttl_ms


@pytest.mark.parametrize(
    ("base_s", "max_s", "hot_ms", "warm_ms", "cold_ms"),
    [
        (1800, 7200, 300_000, 1_800_000, 3_600_000),  # messages: hot is at most 5 min
        (600, 7200, 300_000, 600_000, 3_600_000),  # tickets: cold is at least 1 h
        (7200, 36000, 300_000, 7_200_000, 14_400_000),
        (60, None, 30_000, 60_000, 120_000),  # counters: without a max_ttl at most twice the base
        (30, None, 15_000, 30_000, 60_000),  # metrics
        (30, 3600, 15_000, 30_000, 3_600_000),  # .. whose owner says that an hour is fine
    ],
)
def test_tier_decides_by_reads_in_the_window(
    base_s: float, max_s: float | None, hot_ms: int, warm_ms: int, cold_ms: int
) -> None:
    """More than 10 is hot, more than 5 is warm, everything else is cold."""
    rules = TtlRules(base_s, "on", max_s=max_s)

    assert [cold_ms, cold_ms, warm_ms, warm_ms, hot_ms] == [ttl_of(rules, reads, 1) for reads in (0, 5, 5.1, 10, 10.1)]
    tiers = [decide(rules, EXACT, asked_ms=1, reads=reads, random=MIDDLE).tier for reads in (0, 5, 6, 10, 11)]
    assert ["cold", "cold", "warm", "warm", "hot"] == tiers


def test_cold_data_of_a_30_s_class_does_not_live_an_hour() -> None:
    """Whatever the app asks for and whatever the jitter; an hour it lives where its owner says so by name."""
    for asked_ms, chance in itertools.product((1, 30_000, 86_400_000), (0.0, 0.3, 0.999)):
        found = decide(TtlRules(30, "on"), Thresholds(), asked_ms=asked_ms, reads=0, random=chance)
        assert found.ttl_ms is not None
        assert found.ttl_ms <= 60_000
        assert found.bounded == "max"
    assert ttl_of(TtlRules(30, "on", max_s=3600), 0) == 3_600_000
    assert ttl_of(TtlRules(30, "on", max_s=45), 0) == 45_000


def test_bounds_always_win() -> None:
    """Over every tier, base, jitter and TTL that an app asks for, and where adaptive TTLs are off."""
    rng = random.Random(7)
    for _ in range(20_000):
        low, high = sorted(round(10 ** rng.uniform(-1, 5), 3) for _ in range(2))
        min_s, max_s = rng.choice((low, None)), rng.choice((high, None))
        rules = TtlRules(
            rng.choice((None, 10 ** rng.uniform(-1, 5))),
            rng.choice(("off", "on", "report")),
            rng.choice(("leave", "set")),
            min_s,
            max_s,
        )
        asked_ms = rng.choice((None, int(10 ** rng.uniform(0, 9))))
        thresholds = Thresholds(jitter=rng.choice((0.0, 0.05, 0.5, 1.0)))
        found = decide(rules, thresholds, asked_ms=asked_ms, reads=rng.uniform(0, 15), random=rng.random())
        lives_ms = found.ttl_ms if found.ttl_ms is not None else asked_ms
        for ttl_ms in (lives_ms, found.would_be_ms):
            if ttl_ms is None:
                continue  # a value that the app gives no TTL, in a class that leaves those alone
            assert ttl_ms >= 1
            assert min_s is None or ttl_ms >= round(min_s * 1000), (rules, found)
            assert max_s is None or ttl_ms <= round(max_s * 1000), (rules, found)


@pytest.mark.parametrize("asked_ms", [None, 1, 5_000, 600_000, 100_000_000])
@pytest.mark.parametrize("when_missing", ["leave", "set"])
@pytest.mark.parametrize(("min_s", "max_s"), [(None, None), (5, None), (None, 7200), (5, 7200)])
def test_report_changes_nothing(
    asked_ms: int | None, when_missing: str, min_s: float | None, max_s: float | None
) -> None:
    """A write lives as it does with adaptive TTLs off; what is told besides is what it would with them on."""
    for reads, chance in itertools.product((0, 7, 20), (0.0, 0.7)):
        off, on, report = (
            decide(
                TtlRules(600, adaptive, when_missing, min_s, max_s),  # type: ignore[arg-type]
                Thresholds(),
                asked_ms=asked_ms,
                reads=reads,
                random=chance,
            )
            for adaptive in ("off", "on", "report")
        )
        assert off.ttl_ms == report.ttl_ms
        assert (on.would_be_ms, on.tier, on.bounded) == (report.would_be_ms, report.tier, report.bounded)
        is_within = asked_ms is not None and (min_s or 0) * 1000 <= asked_ms <= (max_s or 1e9) * 1000
        if is_within or (asked_ms is None and when_missing == "leave"):
            assert report.ttl_ms is None


@pytest.mark.parametrize("adaptive", ["off", "on", "report"])
def test_value_without_a_ttl_is_left_alone(adaptive: str) -> None:
    """Unless the class says `set` and has a base to set; bounds alone do not give it one."""
    for rules in (
        TtlRules(600, adaptive, "leave", 5, 7200),  # type: ignore[arg-type]
        TtlRules(None, adaptive, "set", 5, 7200),  # type: ignore[arg-type]
    ):
        assert decide(rules, EXACT, asked_ms=None, reads=3, random=MIDDLE) == Decision(reads=3)


@pytest.mark.parametrize(
    ("adaptive", "reads", "expected"), [("off", 20, 600_000), ("on", 20, 300_000), ("on", 0, 1_200_000)]
)
def test_value_without_a_ttl_gets_one_where_the_class_says_so(adaptive: str, reads: float, expected: int) -> None:
    """The base, or what its tier makes of it."""
    assert ttl_of(TtlRules(600, adaptive, "set"), reads, None) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("asked_ms", [0, -1, -10_000_000])
@pytest.mark.parametrize("adaptive", ["off", "on"])
def test_ttl_that_has_run_out_is_left_alone(asked_ms: int, adaptive: str) -> None:
    """The app deletes its key that way: no bound brings it back."""
    rules = TtlRules(600, adaptive, "set", 60, 7200)  # type: ignore[arg-type]

    assert ttl_of(rules, 20, asked_ms) is None


@pytest.mark.parametrize(
    ("reads", "expected"), [(0, 120_000), (7, None), (20, 30_000)], ids=["doubled", "as asked", "halved"]
)
def test_class_without_a_base_takes_the_apps_ttl_for_it(reads: float, expected: int | None) -> None:
    """The app asks for a minute."""
    assert ttl_of(TtlRules(None, "on"), reads) == expected


def test_off_changes_nothing_but_what_is_out_of_bounds() -> None:
    """The base is none of the app's business then."""
    assert ttl_of(TtlRules(600, "off"), 20) is None
    assert ttl_of(TtlRules(600, "off", min_s=5, max_s=7200), 20, 5_000) is None
    assert ttl_of(TtlRules(600, "off", min_s=5, max_s=7200), 20, 4_999) == 5_000
    assert ttl_of(TtlRules(600, "off", min_s=5, max_s=7200), 20, 7_200_001) == 7_200_000


def test_jitter_spreads_without_passing_a_bound() -> None:
    """Up to its share to both sides; at a bound only inwards, so that not all end in the same moment."""
    rng = random.Random(1)
    free, at_max, at_min = (
        [
            decide(rules, Thresholds(jitter=0.05), asked_ms=1, reads=reads, random=rng.random()).ttl_ms or 0
            for _ in range(2000)
        ]
        for rules, reads in (
            (TtlRules(600, "on", max_s=1e6), 7),
            (TtlRules(600, "on", max_s=1000), 0),
            (TtlRules(600, "on", min_s=400), 20),
        )
    )

    assert (570_000, 630_000) == pytest.approx((min(free), max(free)), rel=0.001)
    assert (950_000, 1_000_000) == pytest.approx((min(at_max), max(at_max)), rel=0.001)
    assert (400_000, 420_000) == pytest.approx((min(at_min), max(at_min)), rel=0.001)
    for found in (free, at_max, at_min):
        assert len(set(found)) > 1500


def test_short_bases_do_not_become_shorter_than_a_second() -> None:
    """Half of 1.5 s would be; a base of half a second is the owner's wish, and stays."""
    assert ttl_of(TtlRules(1.5, "on"), 20) == 1_000
    assert ttl_of(TtlRules(0.5, "on"), 20) == 500
    assert ttl_of(TtlRules(1.5, "on", min_s=0.25), 20) == 750


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (TtlRules(), False),
        (TtlRules(600), False),
        (TtlRules(None, "off", "set"), False),
        (TtlRules(600, "off", "set"), True),
        (TtlRules(None, "on"), True),
        (TtlRules(600, "report"), True),
        (TtlRules(min_s=5), True),
        (TtlRules(max_s=5), True),
    ],
)
def test_has_effect_tells_whether_a_write_could_be_changed_or_counted(rules: TtlRules, expected: bool) -> None:
    """Where it could not, no write of the class is looked at."""
    assert rules.has_effect is expected


def test_decision_tells_its_inputs() -> None:
    """For `respite explain`."""
    rules = TtlRules(600, "on", max_s=1000)

    assert Decision(1_000_000, "cold", 2.5, 600_000, "max", 1_000_000) == decide(
        rules, EXACT, asked_ms=60_000, reads=2.5, random=MIDDLE
    )
