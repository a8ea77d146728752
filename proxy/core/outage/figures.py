"""What outages come to: the figures of them, and what RESPITE EXPLAIN says of a key while one lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from proxy.core.figures.stats import MetricFamily, Sample
from proxy.wire.encode import unbulk

if TYPE_CHECKING:
    from proxy.core.outage.outage import Outage


def upstream_fields(outage: Outage) -> dict[str, Any]:
    """Return what the section `upstream` of the report says of it."""
    return {
        "breaker": outage.breaker.state,
        "breaker_opened_total": outage.breaker.opened_total,
        "retried_total": outage.retried,
        "refusals": dict(outage.refusals),
    }


def report(outage: Outage, now: float) -> dict[str, Any]:
    """Return the section `outage` of the report.

    `since_s` is how long the state has lasted; `last_why` and `last_lasted_s` are about the last time that Redis was
    away and came back, "" and 0.0 before that. `fallbacks` has a row for each class that has one.
    """
    breaker = outage.breaker
    has_ended = breaker.opened_total > 0 and not breaker.is_open
    return {
        "state": outage.state,
        "since_s": _lasts_s(outage, now),
        "why": outage.why,
        "last_why": breaker.why if has_ended else "",
        "last_lasted_s": round(breaker.lasted_s, 3),
        "fallbacks": [
            {"name": one.name, "stale_if_error_s": one.stale_if_error_s, "offline": one.offline}
            for one in outage.fallback_classes
        ],
        "stale_entries": len(outage.remains),
        "stale_bytes": outage.remains.bytes,
        "stale_max_bytes": outage.remains.max_bytes,
        "stale_served_total": sum(outage.fallbacks.stale_served.values()),
        "stale_served": dict(outage.fallbacks.stale_served),
    }


def explain(outage: Outage, key: bytes, now: float) -> dict[str, Any] | None:
    """Return what an outage means for a key (as a bulk string); None while there is none.

    `stale_for_s`: for how long it may still be served stale, None if it may not.
    """
    if outage.state == "up" and outage.remains.is_empty:
        return None
    rules = outage.find_class(unbulk(key))
    until = outage.remains.until(key)
    stale_s = 0.0 if rules is None else rules.stale_if_error_s
    left_s = None if until is None or not stale_s else round(until + stale_s - now, 3)
    return {
        "state": outage.state,
        "since_s": _lasts_s(outage, now),
        "stale_for_s": left_s if left_s is not None and left_s > 0 else None,
    }


def families(outage: Outage) -> Iterator[MetricFamily]:
    """Yield its metrics."""
    yield MetricFamily(
        "respite_upstream_breaker_open",
        "gauge",
        "1 while Redis counts as away: what has no link fails at once.",
        (Sample("", {}, float(outage.breaker.is_open)),),
    )
    opened = outage.breaker.opened_total
    yield _counter("respite_upstream_breaker_opened", "Times that Redis came to count as away.", opened)
    yield _counter("respite_upstream_reads_retried", "Reads asked once more, their link was lost.", outage.retried)
    yield _by("respite_upstream_refusals", "Refusals that are Redis' own state.", "kind", outage.refusals)
    yield _by(
        "respite_outage_stale_served",
        "Reads answered with what L1 held last, while Redis was away or late, by class.",
        "class",
        outage.fallbacks.stale_served,
    )
    yield MetricFamily(
        "respite_outage_stale_bytes",
        "gauge",
        "Bytes kept of L1 for the time that Redis is away.",
        (Sample("", {}, float(outage.remains.bytes)),),
    )


def _lasts_s(outage: Outage, now: float) -> float:
    return round(now - outage.since, 3) if outage.since else 0.0


def _counter(name: str, text: str, value: int) -> MetricFamily:
    return MetricFamily(name, "counter", text, (Sample("_total", {}, float(value)),))


def _by(name: str, text: str, label: str, counts: Mapping[str, int]) -> MetricFamily:
    samples = tuple(Sample("_total", {label: what}, float(count)) for what, count in counts.items())
    return MetricFamily(name, "counter", text, samples)
