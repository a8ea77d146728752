"""Counters are declared once, and the histogram's quantiles are as exact as it says."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.figures.stats import COUNTERS, Histogram, Stats

HOUR_US = 3600 * 1_000_000


def filled(microseconds: list[int]) -> Histogram:
    """Count durations."""
    histogram = Histogram()
    for value in microseconds:
        histogram.add(value / 1e6)
    return histogram


def test_stats_every_counter_starts_at_zero_and_has_a_family() -> None:
    """What is counted is exported under its name, with a sentence, and nothing else is."""
    stats = Stats()
    for number, name in enumerate(COUNTERS):
        assert getattr(stats, name) == 0
        setattr(stats, name, number)

    families = {family.name: family for family in stats.families()}

    assert len(families) == len(COUNTERS) + 3
    for number, (metric, text) in enumerate(COUNTERS.values()):
        family = families[metric]
        assert (family.kind, family.help, family.samples[0].suffix) == ("counter", text, "_total")
        assert [number] == [sample.value for sample in family.samples]
    assert families["respite_upstream_latency_seconds"].kind == "histogram"
    assert families["respite_staleness_seconds"].kind == "histogram"


@pytest.mark.parametrize(("metric", "text"), COUNTERS.values())
def test_stats_names_and_sentences_are_fit_for_prometheus(metric: str, text: str) -> None:
    """A name is respite_ and small letters, without the suffix that its kind adds; its help is a sentence."""
    assert re.fullmatch(r"respite_[a-z0-9_]*[a-z0-9]", metric)
    assert not metric.endswith("_total")
    assert re.fullmatch(r"[A-Z].*\.", text)


def test_stats_a_misspelt_counter_is_an_error() -> None:
    """Counting under a name that was never declared fails at once."""
    with pytest.raises(AttributeError):
        Stats().hitz = 1  # type: ignore[attr-defined]


def test_stats_hit_rate_is_the_share_of_reads() -> None:
    """Nothing read yet is a rate of 0, not a division by it."""
    stats = Stats()
    assert stats.hit_rate == 0.0

    stats.hits, stats.misses = 3, 1

    assert stats.hit_rate == 0.75


@given(st.integers(min_value=0, max_value=HOUR_US))
def test_histogram_every_duration_lies_in_its_bucket(microseconds: int) -> None:
    """A bucket begins where the one before it ends, and holds what lies between."""
    bucket = Histogram.bucket(microseconds)

    assert (Histogram.upper_us(bucket - 1) if bucket else 0) <= microseconds < Histogram.upper_us(bucket)


def test_histogram_buckets_follow_each_other_without_gaps() -> None:
    """The first microsecond above a bucket is the first of the next, through all of them."""
    assert Histogram.bucket(0) == 0
    for bucket in range(Histogram.BUCKETS - 1):
        edge = Histogram.upper_us(bucket)
        assert Histogram.bucket(edge - 1) == bucket
        assert Histogram.bucket(edge) == bucket + 1


@pytest.mark.parametrize("seconds", [-1.0, -0.000001, 0.0, 0.9e-6])
def test_histogram_no_time_at_all_is_the_first_bucket(seconds: float) -> None:
    """A clock that went back, or a reply in less than a microsecond, counts as nothing."""
    histogram = Histogram()
    histogram.add(seconds)

    assert histogram.counts[0] == 1


@pytest.mark.parametrize("seconds", [8589.0, 8590.0, 1e6, 1e12])
def test_histogram_days_are_the_last_bucket(seconds: float) -> None:
    """What takes longer than the buckets reach is counted in the last of them."""
    histogram = Histogram()
    histogram.add(seconds)

    assert histogram.counts[-1] == 1
    assert histogram.quantile_us(0.5) > HOUR_US


@given(st.integers(min_value=0, max_value=HOUR_US))
def test_histogram_quantile_is_off_by_an_eighth_at_most(microseconds: int) -> None:
    """Whatever a duration is, the quantile that names it is within 12.5 %, or the microsecond that it is counted in."""
    histogram = filled([microseconds] * 5)

    for share in (0.01, 0.5, 0.99, 1.0):
        assert abs(histogram.quantile_us(share) - microseconds) <= max(0.125 * microseconds, 1.0)


def test_histogram_quantiles_of_many_are_those_of_the_sorted() -> None:
    """Of ten thousand durations of all magnitudes, each quantile is within 12.5 % of the one that sorting finds."""
    rng = random.Random(8)
    values = sorted(int(10 ** rng.uniform(0, 7)) for _ in range(10_000))
    histogram = filled(values)

    for share in (0.001, 0.1, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = values[max(int(share * len(values)) - 1, 0)]
        assert abs(histogram.quantile_us(share) - exact) <= max(0.125 * exact, 1.0), share


def test_histogram_quantile_of_nothing_is_zero() -> None:
    """Before the first duration there is nothing to say."""
    assert Histogram().quantile_us(0.99) == 0.0


def test_histogram_quantile_is_never_an_empty_bucket() -> None:
    """The smallest quantile is the smallest duration, not the first bucket."""
    histogram = filled([1000] * 3 + [100_000])

    assert histogram.quantile_us(0.0) == pytest.approx(1000, rel=0.125)
    assert histogram.quantile_us(0.75) == pytest.approx(1000, rel=0.125)
    assert histogram.quantile_us(0.76) == pytest.approx(100_000, rel=0.125)


def test_histogram_family_is_cumulative_and_complete() -> None:
    """Buckets grow to the count, their edges ascend, and every duration below an edge is counted at it."""
    values = [0, 3, 4, 7, 8, 900, 1023, 1024, 5_000_000, 10**11]
    family = filled(values).family("x", "X.")
    buckets = [(sample.labels["le"], sample.value) for sample in family.samples if sample.suffix == "_bucket"]
    finite = [(float(edge), count) for edge, count in buckets if edge != "+Inf"]

    assert buckets[-1] == ("+Inf", len(values))
    assert finite == sorted(finite)
    assert len(finite) == 32
    for edge, count in finite[:-1]:
        assert count == sum(value < round(edge * 1e6) for value in values), edge
    others = {sample.suffix: sample.value for sample in family.samples if sample.suffix != "_bucket"}
    assert others["_count"] == len(values)
    assert others["_sum"] == pytest.approx(sum(values) / 1e6)
