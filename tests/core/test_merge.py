"""Figures of several workers as those of one proxy."""

from __future__ import annotations

import random
from typing import Any

import pytest

from proxy.core.figures.merge import Figures, join_facts, join_families, join_histograms, join_reports, retire
from proxy.core.figures.report import build_report
from proxy.core.figures.stats import Histogram, MetricFamily, Sample, Stats

from .test_report import Reported


def _figures(index: int, report: dict[str, Any], **histograms: Histogram) -> Figures:
    return Figures(index, report, (), histograms)


def _reports(*reports: dict[str, Any], uptime_s: float = 10.0) -> dict[str, Any]:
    return join_reports([_figures(index, report) for index, report in enumerate(reports)], uptime_s=uptime_s)


def _histogram(*seconds: float) -> Histogram:
    histogram = Histogram()
    for value in seconds:
        histogram.add(value)
    return histogram


def _counter(value: float, **labels: str) -> MetricFamily:
    return MetricFamily("respite_x", "counter", "X.", (Sample("_total", labels, value),))


def _gauge(name: str, value: float) -> MetricFamily:
    return MetricFamily(name, "gauge", "X.", (Sample("", {}, value),))


def _values(families: list[MetricFamily]) -> dict[str, list[tuple[str, dict[str, str], float]]]:
    return {family.name: [(one.suffix, dict(one.labels), one.value) for one in family.samples] for family in families}


# -- reports -----------------------------------------------------------------------------------------------------------


def test_join_reports_adds_amounts_and_counters() -> None:
    """What is so many here and so many there is so many together, nested as deep as it is."""
    joined = _reports(
        {"clients": {"connected": 3, "accepted_total": 10}, "l1": {"max_bytes": 100}},
        {"clients": {"connected": 4, "accepted_total": 1}, "l1": {"max_bytes": 101}},
    )

    assert {"connected": 7, "accepted_total": 11} == joined["clients"]
    assert joined["l1"] == {"max_bytes": 201}


def test_join_reports_computes_the_hit_rate_from_all_reads() -> None:
    """A mean of rates would let an idle worker count as much as a busy one."""
    joined = _reports(
        {"l1": {"hits_total": 0, "misses_total": 1, "hit_rate": 0.0}},
        {"l1": {"hits_total": 999, "misses_total": 0, "hit_rate": 1.0}},
    )

    assert joined["l1"]["hit_rate"] == 0.999


def test_join_reports_hit_rate_before_the_first_read_is_zero() -> None:
    """Nothing is divided by nothing."""
    assert _reports({"l1": {"hits_total": 0, "misses_total": 0, "hit_rate": 0.0}})["l1"]["hit_rate"] == 0.0


def test_join_reports_says_once_what_workers_share_of_values() -> None:
    """Fences and dictionaries are Redis', one worker sweeps for all; what was saved is a share of all bytes."""
    joined = _reports(
        {
            "values": {
                "enabled": True,
                "sealed_total": 3,
                "raw_bytes_total": 100,
                "stored_bytes_total": 50,
                "saved": 0.5,
                "fences": 2,
                "dictionaries": 1,
                "sweep": {"running": False, "share": 1.0, "scanned_total": 10},
                "ttl": {"decided_total": {"hot": 1}},
            }
        },
        {
            "values": {
                "enabled": True,
                "sealed_total": 1,
                "raw_bytes_total": 900,
                "stored_bytes_total": 90,
                "saved": 0.9,
                "fences": 3,
                "dictionaries": 1,
                "sweep": {"running": True, "share": 0.2, "scanned_total": 5},
                "ttl": {"decided_total": {"hot": 2}},
            }
        },
    )

    assert joined["values"] == {
        "enabled": True,
        "sealed_total": 4,
        "raw_bytes_total": 1000,
        "stored_bytes_total": 140,
        "saved": 0.86,
        "fences": 3,
        "dictionaries": 1,
        "sweep": {"running": True, "share": 1.0, "scanned_total": 15},
        "ttl": {"decided_total": {"hot": 3}},
    }
    untouched = {"values": {"raw_bytes_total": 0, "stored_bytes_total": 0, "saved": 0.0}}
    assert _reports(untouched, untouched) == untouched | {"uptime_s": 10.0}


def test_join_reports_counts_per_second_over_the_life_of_the_host() -> None:
    """Workers started at different times: their rates are no amounts."""
    joined = _reports(
        {"uptime_s": 10.0, "commands": {"total": 100, "per_second": 10.0}},
        {"uptime_s": 1.0, "commands": {"total": 50, "per_second": 50.0}},
    )

    assert joined["commands"]["per_second"] == 15.0
    assert joined["uptime_s"] == 10.0


@pytest.mark.parametrize(
    ("states", "expected"), [(("up", "up"), "up"), (("up", "down"), "down"), (("connecting", "up"), "connecting")]
)
def test_join_reports_shows_the_worst_state(states: tuple[str, ...], expected: str) -> None:
    """The upstream is up when every worker reaches it."""
    assert _reports(*({"upstream": {"state": state}} for state in states))["upstream"]["state"] == expected


def test_join_reports_is_true_when_all_say_so() -> None:
    """L1 is served when every worker serves it; but one that has seen hash fields expire has seen it for all."""
    joined = _reports(
        {"l1": {"serving": True, "enabled": True, "hash_fields_expire": False}},
        {"l1": {"serving": False, "enabled": True, "hash_fields_expire": True}},
    )

    assert joined["l1"] == {"serving": False, "enabled": True, "hash_fields_expire": True}


def test_join_reports_says_once_what_all_read_from_the_server() -> None:
    """The tracking table is the server's: two workers that look at it do not make it larger."""
    seen = {"tracked_keys": 70, "tracked_max_keys": 100, "tracking_narrowed": False}
    joined = _reports({"upstream": seen}, {"upstream": {**seen, "tracked_keys": 71, "tracking_narrowed": True}})
    names = ("respite_tracked_keys", "respite_tracked_max_keys", "respite_fences", "respite_dictionaries")
    families = join_families([[_gauge(name, 7) for name in names], [_gauge(name, 7) for name in names]])

    assert joined["upstream"] == {"tracked_keys": 71, "tracked_max_keys": 100, "tracking_narrowed": True}
    rollout = {"rollout": {"mode": "shadow", "percent": 25.0}}
    assert _reports(rollout, rollout)["rollout"] == rollout["rollout"]
    assert [samples[0][2] for samples in _values(families).values()] == [7] * 4


def test_join_reports_says_words_once_or_all_of_them() -> None:
    """What workers agree on is said once; where they differ, each is heard; silence is no word."""
    joined = _reports(
        {"version": "1", "upstream": {"why": "", "tracking": "redirect"}},
        {"version": "1", "upstream": {"why": "refused", "tracking": "broadcast"}},
    )

    assert joined["version"] == "1"
    assert joined["upstream"] == {"why": "refused", "tracking": "redirect, broadcast"}
    assert _reports({"why": ""}, {"why": ""})["why"] == ""


def test_join_reports_lists_links_with_their_worker_and_joins_what_has_a_name() -> None:
    """A link is one worker's; a class is the same class in all."""
    joined = _reports(
        {"links": [{"id": "data-0"}], "classes": [{"name": "t", "hits": 1}, {"name": "u", "hits": 5}]},
        {"links": [{"id": "data-0"}, {"id": "data-1"}], "classes": [{"name": "t", "hits": 2}]},
    )

    assert joined["links"] == [
        {"id": "data-0", "worker": 0},
        {"id": "data-0", "worker": 1},
        {"id": "data-1", "worker": 1},
    ]
    assert joined["classes"] == [{"name": "t", "hits": 3}, {"name": "u", "hits": 5}]


def test_join_reports_takes_quantiles_from_joined_buckets() -> None:
    """99 fast ones here and 99 slow ones there: the median is between them, and no mean of medians."""
    rng = random.Random(7)
    fast = [rng.uniform(0.0001, 0.0002) for _ in range(990)]
    slow = [rng.uniform(0.1, 0.2) for _ in range(10)]
    section = {"count": 0, "p50_us": 0.0, "p99_us": 0.0, "p999_us": 0.0}
    other = {"staleness_p50_us": 0.0, "else_p50_us": 7.0}
    figures = [
        _figures(0, {"latency": section, "consistency": other}, latency=_histogram(*fast), staleness=_histogram()),
        _figures(1, {"latency": section, "consistency": other}, latency=_histogram(*slow), staleness=_histogram(0.01)),
    ]
    whole = _histogram(*fast, *slow)

    joined = join_reports(figures, uptime_s=1.0)

    assert joined["latency"] == {
        "count": 1000,
        "p50_us": whole.quantile_us(0.50),
        "p99_us": whole.quantile_us(0.99),
        "p999_us": whole.quantile_us(0.999),
    }
    assert joined["latency"]["p50_us"] < 250
    assert joined["latency"]["p999_us"] > 80_000
    assert joined["consistency"]["staleness_p50_us"] == _histogram(0.01).quantile_us(0.5) > 0


def test_join_reports_of_one_worker_is_its_own_report() -> None:
    """Joining invents nothing and loses nothing: a real report comes out as it went in."""
    reported = Reported()
    reported.stats.hits, reported.stats.misses, reported.stats.commands = 3, 1, 100
    for seconds in (0.001, 0.002, 0.5):
        reported.stats.latency.add(seconds)
        reported.stats.staleness.add(seconds / 7)
    report = build_report(reported)
    histograms = {"latency": reported.stats.latency, "staleness": reported.stats.staleness}

    joined = join_reports([Figures(0, report, (), histograms)], uptime_s=reported.uptime_s())

    assert joined == report
    assert list(joined) == list(report)


def test_join_reports_of_nobody_is_empty() -> None:
    """No worker, no figures."""
    assert join_reports([], uptime_s=1.0) == {}


def test_join_reports_leaves_the_workers_figures_alone() -> None:
    """What was handed in may be joined again at the next question."""
    first = {"l1": {"hits_total": 1, "misses_total": 0, "hit_rate": 1.0}, "links": [{"id": 1}]}
    figures = [_figures(0, first, latency=_histogram(0.1)), _figures(1, first, latency=_histogram(0.1))]

    once = join_reports(figures, uptime_s=1.0)

    assert join_reports(figures, uptime_s=1.0) == once
    assert first == {"l1": {"hits_total": 1, "misses_total": 0, "hit_rate": 1.0}, "links": [{"id": 1}]}


# -- facts about a key -------------------------------------------------------------------------------------------------


def test_join_facts_says_which_worker_knows_what() -> None:
    """Each worker's entry is a row of its own; a write in flight anywhere is one; events stand in order of time."""
    joined = join_facts(
        [
            (0, {"key": "k", "l1": [{"uses": 2}], "l1_serving": True, "write_in_flight": False, "events": []}),
            (
                1,
                {
                    "key": "k",
                    "l1": [{"uses": 1}],
                    "l1_serving": True,
                    "write_in_flight": True,
                    "events": [{"ago_s": 2.0, "event": "fill"}],
                },
            ),
            (2, {"key": "k", "l1": [], "events": [{"ago_s": 3.0, "event": "push"}, {"ago_s": 1.0, "event": "fill"}]}),
        ]
    )

    assert joined == {
        "key": "k",
        "l1": [{"uses": 2, "worker": 0}, {"uses": 1, "worker": 1}],
        "l1_serving": True,
        "write_in_flight": True,
        "events": [
            {"ago_s": 3.0, "event": "push", "worker": 2},
            {"ago_s": 2.0, "event": "fill", "worker": 1},
            {"ago_s": 1.0, "event": "fill", "worker": 2},
        ],
    }


def test_join_facts_adds_the_reads_of_a_key_and_says_the_rest_of_its_class_once() -> None:
    """A fence, a TTL and the thresholds are the same in all workers, and no amounts."""
    about = {"window_s": 60.0, "warm_above": 5, "jitter": 0.05, "base_s": None, "min_s": 1.0, "would_be_ms": 2000}
    row = {"fence": 7 << 16, "class": {"name": "c", "version": True}, "ttl": {**about, "reads": 3.0, "tier": "cold"}}
    other = {**row, "fence": None, "ttl": {**about, "reads": 9.0, "tier": "warm", "would_be_ms": 9000}}

    assert join_facts([(0, row), (1, other)]) == {
        "fence": 7 << 16,
        "class": {"name": "c", "version": True},
        "ttl": {**about, "would_be_ms": 9000, "reads": 12.0, "tier": "cold, warm"},
    }


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_join_families_adds_samples_of_equal_labels() -> None:
    """A series is its labels, in whatever order they were written."""
    joined = join_families(
        [
            [_counter(1, a="1", b="2")],
            [_counter(2, b="2", a="1"), _gauge("respite_clients", 4)],
            [_counter(5, a="other"), _gauge("respite_clients", 5)],
        ]
    )

    assert _values(joined) == {
        "respite_x": [("_total", {"a": "1", "b": "2"}, 3), ("_total", {"a": "other"}, 5)],
        "respite_clients": [("", {}, 9)],
    }
    assert [(family.kind, family.help) for family in joined] == [("counter", "X."), ("gauge", "X.")]


def test_join_families_of_states_is_one_only_if_all_are() -> None:
    """An alert on `respite_upstream_up == 0` sees one worker of many that is cut off; an age is that of the oldest."""
    joined = join_families(
        [
            [_gauge("respite_upstream_up", 1), _gauge("respite_l1_serving", 1), _gauge("respite_uptime_seconds", 5)],
            [_gauge("respite_upstream_up", 0), _gauge("respite_l1_serving", 1), _gauge("respite_uptime_seconds", 9)],
        ]
    )

    assert {name: samples[0][2] for name, samples in _values(joined).items()} == {
        "respite_upstream_up": 0,
        "respite_l1_serving": 1,
        "respite_uptime_seconds": 9,
    }


def test_join_families_of_histograms_is_the_family_of_the_joined_histogram() -> None:
    """Bucket by bucket, sum and count."""
    one, other = _histogram(0.001, 0.01), _histogram(0.002, 5.0)
    whole = join_histograms([one, other]).family("h", "H.")

    (joined,) = join_families([[one.family("h", "H.")], [other.family("h", "H.")]])

    assert joined == whole
    assert joined != one.family("h", "H.")


def test_join_histograms_equals_one_that_counted_all() -> None:
    """Nothing is lost and nothing counted twice; the parts stay as they were."""
    one, other = _histogram(0.001, 0.01), _histogram(0.002, 5.0)

    joined = join_histograms([one, other])

    whole = _histogram(0.001, 0.01, 0.002, 5.0)
    assert (joined.count, joined.sum_s, joined.counts) == (4, pytest.approx(whole.sum_s), whole.counts)
    assert (one.count, other.count) == (2, 2)


# -- who has died ------------------------------------------------------------------------------------------------------


def _life(commands: int, connected: int, *seconds: float) -> Figures:
    stats = Stats()
    stats.commands = commands
    for value in seconds:
        stats.latency.add(value)
    report = {
        "version": "1",
        "clients": {"connected": connected, "accepted_total": connected * 2},
        "commands": {"total": commands, "per_second": 3.0},
        "latency": {"count": len(seconds), "p50_us": 1.0},
        "links": [{"id": 1}],
        "l1": {"serving": False},
    }
    families = (*stats.families(), _gauge("respite_clients", connected))
    return Figures(1, report, families, {"latency": stats.latency})


def test_retire_keeps_what_was_counted_and_nothing_that_was_measured() -> None:
    """A dead worker has no clients, no links and no state, but what it did has been done."""
    alive = _life(10, 2, 0.001)
    joined = join_reports([alive, retire(_life(100, 7, 1.0, 1.0))], uptime_s=11.0)
    families = _values(join_families([alive.families, retire(_life(100, 7)).families]))

    assert joined["commands"] == {"total": 110, "per_second": 10.0}
    assert joined["clients"] == {"connected": 2, "accepted_total": 18}
    assert joined["latency"] == {"count": 3, "p50_us": _histogram(1.0).quantile_us(0.5)}
    assert len(joined["links"]) == 1
    assert joined["l1"] == {"serving": False}
    assert families["respite_commands"] == [("_total", {}, 110)]
    assert families["respite_clients"] == [("", {}, 2)]


def test_retire_adds_up_over_many_lives() -> None:
    """However often a seat was emptied, its counters only grow."""
    retired = retire(_life(3, 1, 0.1), retire(_life(2, 1, 0.1, 0.1), retire(_life(1, 1))))

    joined = join_reports([_life(0, 0), retired], uptime_s=1.0)

    assert joined["commands"]["total"] == 6
    assert joined["latency"]["count"] == 3
    assert _values(list(retired.families))["respite_commands"] == [("_total", {}, 6)]
