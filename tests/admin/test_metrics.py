"""The Prometheus text, read back by the library's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from proxy.admin.metrics import render_metrics
from proxy.core.figures.stats import MetricFamily, Sample, Stats


def _read_back(text: bytes) -> dict[str, tuple[str, str, list[tuple[str, dict[str, str], float]]]]:
    return {
        family.name: (
            family.type,
            family.documentation,
            [(sample.name, sample.labels, sample.value) for sample in family.samples],
        )
        for family in text_string_to_metric_families(text.decode())
    }


def test_render_metrics_counter_gauge_and_histogram_come_back_as_declared() -> None:
    """Kind, sentence, labels and values survive the text format."""
    buckets = tuple(Sample("_bucket", {"le": le}, value) for le, value in (("0.001", 1.0), ("+Inf", 2.0)))
    families = (
        MetricFamily("respite_commands", "counter", "Commands.", (Sample("_total", {"side": "client"}, 7.0),)),
        MetricFamily("respite_l1_bytes", "gauge", "Bytes in L1.", (Sample("", {}, 12.5),)),
        MetricFamily(
            "respite_latency_seconds",
            "histogram",
            "Latency.",
            (*buckets, Sample("_sum", {}, 0.25), Sample("_count", {}, 2.0)),
        ),
    )

    read = _read_back(render_metrics(families))

    assert read == {
        "respite_commands": ("counter", "Commands.", [("respite_commands_total", {"side": "client"}, 7.0)]),
        "respite_l1_bytes": ("gauge", "Bytes in L1.", [("respite_l1_bytes", {}, 12.5)]),
        "respite_latency_seconds": (
            "histogram",
            "Latency.",
            [
                ("respite_latency_seconds_bucket", {"le": "0.001"}, 1.0),
                ("respite_latency_seconds_bucket", {"le": "+Inf"}, 2.0),
                ("respite_latency_seconds_sum", {}, 0.25),
                ("respite_latency_seconds_count", {}, 2.0),
            ],
        ),
    }


def test_render_metrics_label_with_quotes_and_newlines_is_escaped() -> None:
    """A user name or URL cannot break out of its label."""
    value = 'a"b\\c\nd} 1\nfake_metric 2'

    text = render_metrics([MetricFamily("respite_x", "gauge", "X.", (Sample("", {"user": value}, 1.0),))])

    assert _read_back(text) == {"respite_x": ("gauge", "X.", [("respite_x", {"user": value}, 1.0)])}


def test_render_metrics_holds_nothing_but_what_is_given() -> None:
    """The library's global registry adds no figures of its own."""
    assert render_metrics([]) == b""


def test_render_metrics_takes_what_the_core_counts() -> None:
    """The families of a running proxy are all valid: names, suffixes, cumulative buckets."""
    stats = Stats()
    stats.hits = 3
    stats.latency.add(0.000_120)

    read = _read_back(render_metrics(stats.families()))

    assert read["respite_l1_hits"][2] == [("respite_l1_hits_total", {}, 3.0)]
    assert ("respite_upstream_latency_seconds_count", {}, 1.0) in read["respite_upstream_latency_seconds"][2]
    assert all(name.startswith("respite_") for name in read)
