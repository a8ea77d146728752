"""The sums by class, by command and by kind of link, as stats.json and Prometheus show them.

Owns the rows `classes`, `commands_by_name` and `link_kinds`, and the names and sentences of their metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from proxy.core.figures.links import LinkFigures
from proxy.core.figures.stats import Histogram, MetricFamily, Sample
from proxy.core.figures.tally import Counted, Tally

_TALLIES: Final = {
    "class": {
        "commands": ("respite_class_commands", "Commands by the class of their first key; sampled above 200 a second."),
        "hits": ("respite_class_hits", "Reads answered from L1, by class; sampled."),
        "misses": ("respite_class_misses", "Reads that L1 could have answered and did not, by class; sampled."),
        "errors": ("respite_class_errors", "Replies that were errors, those of Redis included, by class; sampled."),
    },
    "command": {
        "commands": ("respite_command_calls", "Commands by name; sampled above 200 a second."),
        "hits": ("respite_command_hits", "Reads answered from L1, by command; sampled."),
        "misses": ("respite_command_misses", "Reads that L1 could have answered and did not, by command; sampled."),
        "errors": ("respite_command_errors", "Replies that were errors, those of Redis included, by command; sampled."),
    },
}
_WAITED: Final = {
    "class": ("respite_class_latency_seconds", "Seconds clients waited, hits included, by class; sampled."),
    "command": ("respite_command_latency_seconds", "Seconds clients waited, hits included, by command; sampled."),
}
_LINK_COUNTERS: Final = {
    "commands": ("respite_link_commands", "Commands sent to Redis, our own included, by kind of link."),
    "failed": ("respite_link_failed", "Of these, those whose link was lost before the reply."),
    "sent_bytes": ("respite_link_sent_bytes", "Bytes sent to Redis, by kind of link."),
    "received_bytes": ("respite_link_received_bytes", "Bytes received from Redis, by kind of link."),
}
_LINK_GAUGES: Final = {
    "up": ("respite_links", "Connections to Redis that stand, by kind."),
    "outstanding": ("respite_link_outstanding", "Replies that Redis owes, by kind of link."),
    "outbox_bytes": ("respite_link_outbox_bytes", "Bytes that Redis has not taken yet, by kind of link."),
}


@attrs.define(eq=False)
class LinkKind:
    """All links of a kind: how they stand now, and what was counted since the start, those that ended included."""

    up: int = 0
    outstanding: int = 0
    outbox_bytes: int = 0
    figures: LinkFigures = attrs.field(factory=LinkFigures)


def counted_rows(counted: Mapping[str, Counted]) -> list[dict[str, Any]]:
    """Return one row a class, or a command, those with the most commands first."""
    ordered = sorted(counted.items(), key=lambda item: -max(item[1].commands, item[1].hits + item[1].misses))
    return [
        {
            "name": name,
            "commands_total": one.commands,
            "hits_total": one.hits,
            "misses_total": one.misses,
            "hit_rate": hit_rate(one.hits, one.misses),
            "errors_total": one.errors,
            **latency_fields(one.waited),
        }
        for name, one in ordered
    ]


def link_rows(kinds: Mapping[str, LinkKind]) -> list[dict[str, Any]]:
    """Return one row a kind of link."""
    return [
        {
            "name": name,
            "up": kind.up,
            "outstanding": kind.outstanding,
            "outbox_bytes": kind.outbox_bytes,
            **link_fields(kind.figures),
        }
        for name, kind in kinds.items()
    ]


def link_fields(figures: LinkFigures) -> dict[str, Any]:
    """Return what is counted of a link, or of several, as a part of a row."""
    return {
        "commands_total": figures.commands,
        "errors_total": figures.failed,
        "sent_bytes_total": figures.sent_bytes,
        "received_bytes_total": figures.received_bytes,
        **latency_fields(figures.latency),
    }


def latency_fields(histogram: Histogram) -> dict[str, float]:
    """Return a latency as a part of a row, in microseconds; 0.0 where nothing was measured."""
    p50_us, p90_us, p99_us = histogram.quantiles_us(0.50, 0.90, 0.99)
    return {"mean_us": round(histogram.mean_us, 1), "p50_us": p50_us, "p90_us": p90_us, "p99_us": p99_us}


def hit_rate(hits: float, misses: float) -> float:
    """Return the share of hits, 0.0 before the first read."""
    return round(hits / (hits + misses), 6) if hits + misses else 0.0


def histograms(tally: Tally, kinds: Mapping[str, LinkKind]) -> dict[str, Histogram]:
    """Return the present state of the histograms behind the rows, by "SECTION/NAME"."""
    return {
        **{f"classes/{name}": one.waited.copy() for name, one in tally.classes.items()},
        **{f"commands_by_name/{name}": one.waited.copy() for name, one in tally.commands.items()},
        **{f"link_kinds/{name}": kind.figures.latency.copy() for name, kind in kinds.items()},
    }


def tally_families(tally: Tally, kinds: Mapping[str, LinkKind]) -> Iterable[MetricFamily]:
    """Return all of it as metrics, labelled class, command and kind; names are bounded (core.figures.tally)."""
    for label, counted in (("class", tally.classes), ("command", tally.commands)):
        for field, (metric, text) in _TALLIES[label].items():
            counts = (Sample("_total", {label: name}, getattr(one, field)) for name, one in counted.items())
            yield MetricFamily(metric, "counter", text, tuple(counts))
        yield _latency(*_WAITED[label], label, {name: one.waited for name, one in counted.items()})
    for field, (metric, text) in _LINK_COUNTERS.items():
        sums = (Sample("_total", {"kind": name}, getattr(kind.figures, field)) for name, kind in kinds.items())
        yield MetricFamily(metric, "counter", text, tuple(sums))
    for field, (metric, text) in _LINK_GAUGES.items():
        states = (Sample("", {"kind": name}, float(getattr(kind, field))) for name, kind in kinds.items())
        yield MetricFamily(metric, "gauge", text, tuple(states))
    waited = "Seconds a command waited for Redis, sampled once a read of a link, by kind of link."
    found = {name: kind.figures.latency for name, kind in kinds.items()}
    yield _latency("respite_link_latency_seconds", waited, "kind", found)


def _latency(metric: str, text: str, label: str, found: Mapping[str, Histogram]) -> MetricFamily:
    samples = (sample for name, one in found.items() for sample in one.samples({label: name}, is_coarse=True))
    return MetricFamily(metric, "histogram", text, tuple(samples))
