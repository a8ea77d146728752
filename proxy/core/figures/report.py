"""What the worker says about itself: the figures of `/stats.json`, RESPITE STATS and the gauges of `/metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from proxy import __version__
from proxy.cache.entry import ReplyEntry
from proxy.core.engine import Engine
from proxy.core.figures.hottest import Hottest
from proxy.core.figures.stats import Histogram, MetricFamily, Sample, Stats
from proxy.core.figures.tally_report import LinkKind, counted_rows, histograms, latency_fields, link_rows
from proxy.core.outage.figures import explain as explain_outage
from proxy.core.outage.figures import report as outage_report
from proxy.core.tracking import Tracking
from proxy.log import short
from proxy.wire.encode import bulk, unbulk

_GAUGES: Final[Mapping[str, tuple[str, str, str]]] = {
    "respite_clients": ("clients", "connected", "Connected clients."),
    "respite_pinned_links": ("clients", "pinned", "Pinned links, held or idle."),
    "respite_l1_entries": ("l1", "entries", "Entries in L1."),
    "respite_l1_bytes": ("l1", "bytes", "Bytes L1 holds, its own overhead included."),
    "respite_l1_max_bytes": ("l1", "max_bytes", "Bound of L1 in bytes."),
    "respite_l1_serving": (
        "l1",
        "serving",
        "1 while L1 is proven, to be served or (shadow mode) compared; else 0, or off.",
    ),
    "respite_upstream_up": ("upstream", "up", "1 while the invalidation link to Redis stands."),
    "respite_tracked_keys": ("upstream", "tracked_keys", "Keys in the server's tracking table, all clients together."),
    "respite_tracked_max_keys": ("upstream", "tracked_max_keys", "Bound of that table; 0 is none."),
    "respite_fences": ("values", "fences", "Fences in force."),
    "respite_dictionaries": ("values", "dictionaries", "Dictionaries known, of all classes."),
    "respite_resident_memory_bytes": ("memory", "rss_bytes", "Resident memory of this process."),
    "respite_uptime_seconds": ("", "uptime_s", "Seconds since this worker started."),
}
_COUNTERS: Final[Mapping[str, tuple[str, str, str]]] = {
    "respite_l1_evictions": ("l1", "evictions_total", "Entries evicted to keep the bound of L1."),
    "respite_l1_revoked": ("l1", "revoked_total", "Leases taken back by a push, a write or a flush."),
    "respite_values_sealed": ("values", "sealed_total", "Values put into an envelope."),
    "respite_values_opened": ("values", "opened_total", "Envelopes opened in replies of Redis."),
    "respite_values_damaged": ("values", "damaged_total", "Values whose envelope did not check out."),
    "respite_values_unwrapped": ("values", "unwrapped_total", "Values made plain for a command that looks at bytes."),
    "respite_values_purged": ("values", "purged_total", "Values dropped on being read, because of a fence."),
    "respite_values_raw_bytes": ("values", "raw_bytes_total", "Bytes of the values opened, as clients have them."),
    "respite_values_stored_bytes": ("values", "stored_bytes_total", "Bytes of the values opened, as Redis has them."),
    "respite_dependents": ("values", "dependents_total", "Writes that dropped other keys before they were answered."),
}

REPLIES_SHOWN: Final = 20
RECENT_SHOWN: Final = 50


class Reported(Protocol):
    """What a report is made from."""

    stats: Stats
    engine: Engine
    tracking: Tracking
    hottest: Hottest

    def upstream_facts(self) -> dict[str, Any]:
        """Return url, state, server and why."""

    def link_facts(self) -> list[dict[str, Any]]:
        """Return one row a link to Redis."""

    def link_kinds(self) -> Mapping[str, LinkKind]:
        """Return how the links of each kind stand, and what was counted of them."""

    def value_facts(self) -> dict[str, Any]:
        """Return what was done to values."""

    def event_facts(self) -> dict[str, Any]:
        """Return what became of the broker's events."""

    def uptime_s(self) -> float:
        """Return seconds since the start."""

    def resident_bytes(self) -> int:
        """Return the resident memory of this process."""

    def client_count(self) -> int:
        """Return how many clients are connected."""


def build_report(worker: Reported) -> dict[str, Any]:
    """Return every figure, as `/stats.json` shows them."""
    stats, engine, tracking = worker.stats, worker.engine, worker.tracking
    l1 = engine.l1
    links = worker.link_facts()
    uptime_s = worker.uptime_s()
    return {
        "version": __version__,
        "uptime_s": round(uptime_s, 3),
        "upstream": {
            **worker.upstream_facts(),
            "tracking": tracking.mode,
            "tracking_reason": tracking.reason,
            "tracking_narrowed": tracking.narrowed,
        },
        "outage": outage_report(engine.outage, engine.now),
        "clients": {
            "connected": worker.client_count(),
            "pinned": sum(link["kind"] == "pinned" for link in links),
            "accepted_total": stats.accepted,
            "rejected_total": stats.rejected,
            "killed_total": stats.killed,
            "killed_unread_total": stats.killed_unread,
            "killed_unproven_total": stats.killed_unproven,
            "crowded_total": stats.crowded,
            "throttled_total": stats.throttled,
            "pins_refused_total": stats.pins_refused,
            "logins_failed_total": stats.logins_failed,
            "logins_refused_total": stats.logins_refused,
            "handshakes_failed_total": stats.handshakes_failed,
            "protocol_errors_total": stats.protocol_errors,
        },
        "l1": {
            "enabled": engine.enabled,
            "serving": l1.serving,
            "hash_fields_expire": engine.fields_expire,
            "entries": len(l1),
            "bytes": l1.bytes,
            "max_bytes": l1.max_bytes,
            "hits_total": stats.hits,
            "misses_total": stats.misses,
            "joined_total": stats.joined,
            "hit_rate": round(stats.hit_rate, 6),
            "evictions_total": l1.evictions,
            "invalidations_total": stats.invalidations,
            "flushes_total": stats.flushes,
            "published_total": stats.published,
            "refused_total": stats.refused,
            "revoked_total": engine.flights.revoked,
            "touched_total": stats.touched,
            "refreshed_total": stats.refreshed,
            "needless_pushes_total": stats.needless_pushes,
        },
        "consistency": {
            "verified_total": stats.verified,
            "stale_total": stats.stale,
            "healed_total": stats.healed,
            "staleness_p50_us": stats.staleness.quantile_us(0.50),
            "staleness_p99_us": stats.staleness.quantile_us(0.99),
        },
        "commands": {
            "total": stats.commands,
            "per_second": round(stats.commands / uptime_s, 1) if uptime_s > 0 else 0.0,
            "errors_total": stats.failed,
            "denied_total": stats.denied,
            "denied_by_user_total": dict(stats.denied_by_user),
        },
        "waited": {"count": stats.waited.count, **latency_fields(stats.waited)},
        "latency": {
            "count": stats.latency.count,
            "mean_us": round(stats.latency.mean_us, 1),
            "p50_us": stats.latency.quantile_us(0.50),
            "p90_us": stats.latency.quantile_us(0.90),
            "p99_us": stats.latency.quantile_us(0.99),
        },
        "values": worker.value_facts(),
        "events": worker.event_facts(),
        "classes": counted_rows(engine.tally.classes),
        "commands_by_name": counted_rows(engine.tally.commands),
        "link_kinds": link_rows(worker.link_kinds()),
        "links": links,
        "hot": worker.hottest.rows(),
        "recent": _recent(engine),
        "memory": {"rss_bytes": worker.resident_bytes()},
    }


def named_histograms(worker: Reported) -> dict[str, Histogram]:
    """Return the present state of every histogram: "waited", "latency", "staleness", and those of rows by name."""
    return {**worker.stats.histograms(), **histograms(worker.engine.tally, worker.link_kinds())}


def _recent(engine: Engine) -> list[dict[str, Any]]:
    """Return what of late ended entries of L1, the newest first; `key` is cut short, "" for all of them."""
    return [
        {"key": short(unbulk(key)) if key else "", "cause": what, "ago_s": round(max(engine.now - at, 0.0), 3)}
        for at, what, key in engine.journal.ends(RECENT_SHOWN)
    ]


def explain_key(engine: Engine, key: bytes) -> dict[str, Any]:
    """Return what L1 knows about a key, in every namespace that knows something."""
    raw = bulk(key)
    found: list[dict[str, Any]] = []
    for scope, namespace in engine.l1.namespaces.items():
        entry = namespace.resident.get(raw)
        in_flight = raw in namespace.flights or raw in namespace.pending
        replies = list(namespace.replies_of(raw))
        if entry is None and not in_flight and not replies:
            continue
        row: dict[str, Any] = {
            "user": scope.user.decode("utf-8", "replace"),
            "db": scope.db,
            "protocol": scope.protocol,
            "in_flight": in_flight,
        }
        if entry is not None:
            row["reply_bytes"] = len(entry.reply)
            row["uses"] = entry.uses
            row["idle_s"] = round(engine.now - entry.used_at, 3)
            row["ends_in_s"] = round(entry.ends_at - engine.now, 3)
        if replies:
            row["replies"] = [_shown_reply(reply, engine.now) for reply in replies[:REPLIES_SHOWN]]
            row["replies_total"] = len(replies)
        found.append(row)
    outage = explain_outage(engine.outage, raw, engine.now)
    return {
        "key": key.decode("utf-8", "replace"),
        **({} if outage is None else {"outage": outage}),
        "l1": found,
        "l1_serving": engine.l1.serving,
        "write_in_flight": raw in engine.writing or engine.writing_all > 0,
        "events": [{"ago_s": round(engine.now - at, 3), "event": what} for at, what in engine.journal.of(raw)],
    }


def _shown_reply(reply: ReplyEntry, now: float) -> dict[str, Any]:
    command = reply.request.split(b"\r\n", 3)[2]
    return {
        "command": command.decode("utf-8", "replace").upper(),
        "reply_bytes": len(reply.reply),
        "uses": reply.uses,
        "idle_s": round(now - reply.used_at, 3),
        "ends_in_s": round(reply.ends_at - now, 3),
    }


def gauges(report: Mapping[str, Any]) -> Iterable[MetricFamily]:
    """Return what is measured at the moment of a scrape."""
    upstream = {**report["upstream"], "up": report["upstream"]["state"] == "up"}
    sections = {**report, "upstream": upstream}
    for name, (section, field, text) in _GAUGES.items():
        value = sections[section][field] if section else report[field]
        yield MetricFamily(name, "gauge", text, (Sample("", {}, float(value)),))
    for name, (section, field, text) in _COUNTERS.items():
        yield MetricFamily(name, "counter", text, (Sample("_total", {}, float(report[section][field])),))
    values = report["values"]
    sweep, ttl = values["sweep"], values["ttl"]
    swept = (Sample("_total", {"what": what}, float(sweep[f"{what}_total"])) for what in ("scanned", "unlinked"))
    yield MetricFamily("respite_sweep_keys", "counter", "Keys that sweeps have looked at, and removed.", tuple(swept))
    tiers = (Sample("_total", {"tier": tier}, float(count)) for tier, count in ttl["decided_total"].items())
    yield MetricFamily("respite_ttl_decisions", "counter", "Writes of adaptive classes, by tier.", tuple(tiers))
    for name, field, text in (
        ("respite_ttl_changed", "changed_total", "Writes that got another TTL than the app asked for."),
        ("respite_ttl_would_change", "would_change_total", "Writes that would have, by classes that only report."),
    ):
        yield MetricFamily(name, "counter", text, (Sample("_total", {}, float(ttl[field])),))
