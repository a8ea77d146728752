"""One view of several workers: their figures joined into what one proxy would say.

Counters and amounts are added up. What is neither has a rule here: a share is computed again from its parts, a quantile
from the joined buckets, a state is the worst one. A worker that has died leaves its counters behind (`retire`), so that
no sum goes back: to Prometheus a counter that falls is one that began again, and the whole sum would count as new.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from proxy.core.figures.stats import Histogram, MetricFamily, Sample
from proxy.core.figures.tally_report import hit_rate


@attrs.frozen
class Figures:
    """What one worker says about itself: the report, its metrics, and the histograms behind the report's quantiles.

    Behind `p99_us` is the histogram with the section's name, behind `NAME_p99_us` that of NAME.
    """

    index: int
    report: Mapping[str, Any]
    families: tuple[MetricFamily, ...] = ()
    histograms: Mapping[str, Histogram] = attrs.field(factory=dict)


Rule = Callable[[Sequence[Any]], Any]

_THRESHOLDS: Final = ("window_s", "warm_above", "hot_above", "jitter", "base_s", "min_s", "max_s", "would_be_ms")
_OF_VALUE: Final = ("stored_bytes", "raw_bytes", "ttl_ms", "version", "dictionary")
_QUANTILE: Final = re.compile(r"(?:(\w+)_)?p(\d+)_us")
_TALLIED: Final = ("classes", "commands_by_name", "link_kinds")
"""Lists of which each row is a sum: they stay when their worker has died, and have a histogram each, LIST/NAME."""
_COUNTED: Final = ("refusals", "stale_served")  # by name, and nothing in their own name says that they only grow
_CUMULATIVE: Final = ("counter", "histogram")


def join_reports(workers: Sequence[Figures], *, uptime_s: float) -> dict[str, Any]:
    """Return the report of the whole host, up for `uptime_s`; {} of no workers. Rows of lists say whose they are."""
    joined = _join("", [(worker.index, worker.report) for worker in workers])
    if not joined:
        return {}
    joined["uptime_s"] = round(uptime_s, 3)
    commands = joined.get("commands", {})
    if "per_second" in commands:
        commands["per_second"] = round(commands.get("total", 0) / uptime_s, 1) if uptime_s > 0 else 0.0
    if "saved" in (values := joined.get("values", {})):
        raw_bytes, stored_bytes = values.get("raw_bytes_total", 0), values.get("stored_bytes_total", 0)
        values["saved"] = round(1 - stored_bytes / raw_bytes, 6) if raw_bytes else 0.0
    for name, (order, most) in _SHOWN.items():
        if name in joined:
            joined[name] = sorted(joined[name], key=order)[:most]
    histograms = join_named([worker.histograms for worker in workers])
    for name, section in joined.items():
        if isinstance(section, dict):
            _requantile(name, section, histograms)
        elif name in _TALLIED:
            for row in section:
                _requantile(f"{name}/{row['name']}", row, histograms)
    return joined


def join_facts(rows: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return what workers know about one thing, as (index, facts), in one object."""
    joined = _join("", rows)
    if events := joined.get("events"):
        joined["events"] = sorted(
            events, key=lambda event: -event.get("ago_s", 0.0)
        )  # oldest first, as each worker has them
    return joined


def join_families(workers: Iterable[Iterable[MetricFamily]]) -> list[MetricFamily]:
    """Return one family a name, in the order they first come: samples of equal labels added up, states the lowest."""
    first: dict[str, MetricFamily] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for families in workers:
        for family in families:
            first.setdefault(family.name, family)
            samples = values.setdefault(family.name, {})
            for sample in family.samples:
                samples.setdefault((sample.suffix, tuple(sorted(sample.labels.items()))), []).append(sample.value)
    return [
        attrs.evolve(
            family,
            samples=tuple(
                Sample(suffix, dict(labels), _GAUGES.get(name, sum)(found))
                for (suffix, labels), found in values[name].items()
            ),
        )
        for name, family in first.items()
    ]


def join_histograms(histograms: Iterable[Histogram]) -> Histogram:
    """Return one histogram with everything that was counted in any."""
    joined = Histogram()
    for histogram in histograms:
        joined.merge(histogram)
    return joined


def known_by(latest: Figures, before: Figures | None) -> Figures:
    """Return what is known of a worker that was asked again: its metrics from before, when it was not asked for them.

    No later than they were shown last, so that no counter of Prometheus goes back when the worker has died.
    """
    return attrs.evolve(latest, families=before.families) if not latest.families and before is not None else latest


def retire(worker: Figures, before: Figures | None = None) -> Figures:
    """Return what stays of a worker that has died: what it counted, added to what its predecessors did."""
    both = [before] if before is not None else []
    both.append(worker)
    return Figures(
        worker.index,
        _join("", [(worker.index, _totals(one.report)) for one in both]),
        tuple(join_families([family for family in one.families if family.kind in _CUMULATIVE] for one in both)),
        join_named([one.histograms for one in both]),
    )


def _totals(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a report that only grows."""
    kept: dict[str, Any] = {}
    for name, value in report.items():
        is_total = name == "total" or name.endswith("_total")
        if isinstance(value, Mapping):
            kept[name] = _numbers(value) if is_total or name in _COUNTED else _totals(value)
        elif name in _TALLIED:
            kept[name] = [{"name": row["name"], **_totals(row)} for row in value]
        elif is_total and _is_number(value):
            kept[name] = value
    return {name: value for name, value in kept.items() if value != {}}


def _numbers(totals: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that is counted under one name, such as decided_total: hot, warm, cold."""
    found = {name: _numbers(value) if isinstance(value, Mapping) else value for name, value in totals.items()}
    return {name: value for name, value in found.items() if isinstance(value, dict) or _is_number(value)}


def _join(path: str, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """Join objects: every name that any of them has, in the order of the first that has it."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    return {
        name: _join_values(
            f"{path}.{name}" if path else name, [(index, row[name]) for index, row in rows if name in row]
        )
        for name in names
    }


def _join_values(path: str, found: Sequence[tuple[int, Any]]) -> Any:
    known = [(index, value) for index, value in found if value is not None]
    if not known:
        return None
    values = [value for _, value in known]
    if (rule := _RULES.get(path)) is not None:
        return rule(values)
    match values[0]:
        case Mapping():
            return _join(path, [(index, value) for index, value in known if isinstance(value, Mapping)])
        case list() | tuple():
            return _join_rows(path, known)
        case bool():
            return all(values)
        case int() | float():
            return sum(value for value in values if _is_number(value))
        case _:
            return _distinct(values)


def _join_rows(path: str, lists: Sequence[tuple[int, Sequence[Any]]]) -> list[Any]:
    """Join lists of objects: those with a name are the same thing in every worker, others are each worker's own."""
    rows = [(index, row) for index, items in lists for row in items]
    if not all(isinstance(row, Mapping) for _, row in rows):
        return list(dict.fromkeys(row for _, row in rows))
    if not all("name" in row for _, row in rows):
        return [{**row, "worker": index} for index, row in rows]
    named: dict[object, list[tuple[int, Mapping[str, Any]]]] = {}
    for index, row in rows:
        named.setdefault(row["name"], []).append((index, row))
    return [_join(path, same) for same in named.values()]


def join_named(workers: Sequence[Mapping[str, Histogram]]) -> dict[str, Histogram]:
    """Return the histograms that any worker has, by name, joined."""
    names = dict.fromkeys(name for histograms in workers for name in histograms)
    return {name: join_histograms(one[name] for one in workers if name in one) for name in names}


def _requantile(name: str, section: dict[str, Any], histograms: Mapping[str, Histogram]) -> None:
    if "hit_rate" in section and "hits_total" in section:
        section["hit_rate"] = hit_rate(section["hits_total"], section["misses_total"])
    for field in section:
        if field == "mean_us" and name in histograms:
            section[field] = round(histograms[name].mean_us, 1)
        elif (found := _QUANTILE.fullmatch(field)) and (histogram := histograms.get(found[1] or name)) is not None:
            section[field] = histogram.quantile_us(int(found[2]) / 10 ** len(found[2]))
    if "count" in section and name in histograms:
        section["count"] = histograms[name].count


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _distinct(values: Sequence[Any]) -> Any:
    """Return what they agree on, else every word that was said."""
    said = dict.fromkeys(value for value in values if value not in ("", None))
    return next(iter(said), values[0]) if len(said) < 2 else ", ".join(str(value) for value in said)


def _worst_state(values: Sequence[Any]) -> Any:
    return next((value for value in values if value != "up"), "up")


def _first_of(*order: str) -> Rule:
    """Make a rule for words of which the one that matters most stands first."""
    return lambda values: next((word for word in order if word in values), _distinct(values))


def _join_outage(values: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join what workers say of Redis: since when and why is said by those who see it worst."""
    joined = _join("outage", list(enumerate(values)))
    worst = [one for one in values if one.get("state") == joined.get("state")]
    for name, rule in (("since_s", max), ("why", _distinct)):
        if found := [one[name] for one in worst if name in one]:
            joined[name] = rule(found)
    return joined


_RULES: Final[Mapping[str, Rule]] = {
    "upstream.state": _worst_state,
    "upstream.breaker": _first_of("open", "half-open", "closed"),
    "outage": _join_outage,
    "outage.state": _first_of("away", "slow", "up"),
    "outage.last_lasted_s": max,
    "outage.fallbacks.stale_if_error_s": max,
    "outage.stale_for_s": max,
    "upstream.tracked_keys": max,  # the server's own figures: each worker has read the same
    "upstream.tracked_max_keys": max,
    "upstream.tracking_narrowed": any,
    "l1.hash_fields_expire": any,
    "rollout.percent": max,
    "values.dictionaries": max,  # what all workers share, through Redis
    "values.fences": max,
    "values.sweep.running": any,  # one of them sweeps
    "values.sweep.share": max,
    "hot.db": max,  # the key of one name may be in several: shown is one
    "hot.reply_bytes": max,
    "hot.idle_s": min,
    "write_in_flight": any,
    "tls.certificates.ends_in_s": min,
    "fence": max,
    **{f"value.{name}": max for name in _OF_VALUE},  # what Redis holds, whoever asks
    **{f"ttl.{name}": max for name in _THRESHOLDS},  # each worker has the same; decides by the reads it has seen
}
"""How the fields are joined that are neither amounts, nor true only if all say so, nor words; by their dotted path."""

_SHOWN: Final[Mapping[str, tuple[Callable[[Mapping[str, Any]], float], int]]] = {
    "hot": (lambda row: -row["per_second"], 20),
    "recent": (lambda row: row["ago_s"], 50),
}
"""The lists that show the first few of all workers' rows: in which order, and how many."""

_GAUGES: Final[Mapping[str, Rule]] = {
    "respite_dictionaries": max,
    "respite_fences": max,
    "respite_l1_serving": min,
    "respite_tls_certificate_expires_seconds": min,
    "respite_tls_files_unusable": max,
    "respite_tracked_keys": max,
    "respite_tracked_max_keys": max,
    "respite_upstream_up": min,
    "respite_upstream_breaker_open": max,
    "respite_uptime_seconds": max,
}
"""How the gauges are joined that are no amounts: a state is 1 only if every worker says 1."""
