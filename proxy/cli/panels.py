"""The panels of `respite stats`, one a section of /stats.json.

Owns which figures a person is shown, and which of them alarm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from proxy.cli.forms import (
    BAD,
    DIM,
    GOOD,
    STATE_STYLES,
    WARN,
    alarm,
    bar,
    beside,
    count,
    duration,
    get,
    grid,
    micros,
    panel,
    plain,
    rate,
    share,
    size,
)


def draw_l1(stats: Mapping[str, Any]) -> Panel:
    """Draw the section l1."""
    l1, rollout = get(stats, "l1") or {}, get(stats, "rollout") or {}
    used, limit = get(l1, "bytes"), get(l1, "max_bytes")
    if not get(l1, "enabled"):
        state = Text("off", style=WARN)
    elif not get(l1, "serving"):
        state = Text("not serving", style=BAD)
    elif get(rollout, "mode") == "shadow":
        state = Text("compared, not served", style=WARN)
    else:
        state = Text("serving", style=GOOD)
    table = grid()
    percent = get(rollout, "percent")
    if isinstance(percent, int | float) and percent < 100:
        table.add_row("for", f"{percent:g} % of the clients")
    table.add_row("hit rate", beside(share(get(l1, "hit_rate")), bar(get(l1, "hit_rate"), 12), style="bold"))
    table.add_row("hits", count(get(l1, "hits_total")))
    table.add_row("misses", count(get(l1, "misses_total")))
    filled = used / limit if isinstance(used, int | float) and limit else None
    table.add_row("memory", beside(size(used), bar(filled, 12)))
    table.add_row("limit", size(limit))
    table.add_row("entries", count(get(l1, "entries")))
    table.add_row("evicted", count(get(l1, "evictions_total")))
    table.add_row("invalidated", count(get(l1, "invalidations_total")))
    table.add_row("flushed", count(get(l1, "flushes_total")))
    return panel(Text.assemble("L1 · ", state), table)


def draw_commands(stats: Mapping[str, Any]) -> Panel:
    """Draw the sections commands, waited, latency and consistency."""
    commands, latency = get(stats, "commands") or {}, get(stats, "latency") or {}
    table = grid()
    table.add_row("on average", f"{rate(get(commands, 'per_second'))} /s")
    table.add_row("total", count(get(commands, "total")))
    table.add_row("errors", alarm(get(commands, "errors_total")))
    for name in ("p50", "p99"):
        table.add_row(f"clients {name}", micros(get(stats, "waited", f"{name}_us")))
        table.add_row(f"upstream {name}", micros(get(latency, f"{name}_us")))
    table.add_row("resident", size(get(stats, "memory", "rss_bytes")))
    consistency = get(stats, "consistency") or {}
    table.add_row("hits verified", count(get(consistency, "verified_total")))
    table.add_row("of them stale", alarm(get(consistency, "stale_total")))
    return panel(Text("Since the start"), table)


def draw_values(stats: Mapping[str, Any]) -> Panel:
    """Draw the section values."""
    values = get(stats, "values") or {}
    sweep, dictionaries = get(values, "sweep") or {}, get(values, "dictionaries")
    left, right = grid(), grid()
    saved = get(values, "saved")
    left.add_row("memory saved", beside(share(saved), bar(saved, 12), style="bold"))
    left.add_row("their bytes", size(get(values, "raw_bytes_total")))
    left.add_row("as stored", size(get(values, "stored_bytes_total")))
    left.add_row("sealed", count(get(values, "sealed_total")))
    left.add_row("opened", count(get(values, "opened_total")))
    left.add_row("damaged", alarm(get(values, "damaged_total")))
    right.add_row("fences", count(get(values, "fences")))
    swept = share(get(sweep, "share")) if get(sweep, "running") else "at rest"
    right.add_row("sweep", swept)
    right.add_row("swept", f"{count(get(sweep, 'unlinked_total'))} of {count(get(sweep, 'scanned_total'))}")
    right.add_row("unwrapped", count(get(values, "unwrapped_total")))
    known = len(dictionaries) if isinstance(dictionaries, Mapping | list) else dictionaries
    right.add_row("dictionaries", count(known))
    both = Table.grid(expand=True)
    both.add_column(ratio=1)
    both.add_column(ratio=1)
    both.add_row(left, right)
    return panel(Text("Values"), both)


def draw_events(stats: Mapping[str, Any]) -> Panel:
    """Draw the section events."""
    events = get(stats, "events") or {}
    state = plain(get(events, "state"))
    left, right = grid(), grid()
    left.add_row("received", count(get(events, "received_total")))
    left.add_row("applied", count(get(events, "applied_total")))
    left.add_row("of them old", count(get(events, "ignored_old_total")))
    left.add_row("retried", count(get(events, "retried_total")))
    left.add_row("dead", alarm(get(events, "dead_total")))
    left.add_row("sync errors", share(get(events, "sync_errors")))
    right.add_row("waiting", _depth(events))
    right.add_row("oldest", duration(get(events, "oldest_s")))
    for name in ("p50", "p99"):
        right.add_row(f"lag {name}", micros(get(events, f"lag_{name}_us")))
    right.add_row("gaps", alarm(get(events, "gaps_total")))
    right.add_row("dead letters", alarm(get(events, "dead_depth") or 0))
    both = Table.grid(expand=True)
    both.add_column(ratio=1)
    both.add_column(ratio=1)
    both.add_row(left, right)
    why = [Text(plain(why), style=BAD)] if (why := get(events, "why")) else []
    about = Text(f" {plain(get(events, 'url'))}", style=DIM)
    return panel(Text.assemble("Events · ", (state, STATE_STYLES.get(state, BAD)), about), Group(both, *why))


def _depth(events: Mapping[str, Any]) -> str:
    return f"{count(get(events, 'depth'))} in the queue, {count(get(events, 'under_way'))} here"


def draw_upstream(stats: Mapping[str, Any]) -> Panel:
    """Draw the section upstream."""
    upstream = get(stats, "upstream") or {}
    state, tracking = plain(get(upstream, "state")), plain(get(upstream, "tracking"))
    server = " ".join(plain(part) for part in (get(upstream, "server"), get(upstream, "version")) if part)
    table = grid()
    table.add_row("server", Text.assemble(plain(get(upstream, "url")), (f"  {server}", "bold"), overflow="fold"))
    reason = plain(get(upstream, "tracking_reason"))
    table.add_row("tracking", Text.assemble((tracking, WARN if tracking == "off" else ""), (f"  {reason}", DIM)))
    keys, bound = get(upstream, "tracked_keys"), get(upstream, "tracked_max_keys")
    if keys and bound:
        filled = Text(f"{count(keys)} keys of {count(bound)}", style=WARN if keys >= 0.8 * bound else "")
        table.add_row("its table", filled)
    if why := get(upstream, "why"):
        table.add_row("reason", Text(plain(why), style=BAD))
    return panel(Text.assemble("Upstream · ", (state, STATE_STYLES.get(state, BAD))), table)


def draw_clients(stats: Mapping[str, Any]) -> Panel:
    """Draw the sections clients and workers."""
    clients = get(stats, "clients") or {}
    table = Table.grid(expand=True)
    parts = [
        Text.assemble((f"{name} ", DIM), figure)
        for name, figure in (
            ("connected", Text(count(get(clients, "connected")), style="bold")),
            ("pinned", Text(count(get(clients, "pinned")))),
            ("accepted", Text(count(get(clients, "accepted_total")))),
            ("rejected", alarm(get(clients, "rejected_total"))),
            ("killed", alarm(get(clients, "killed_total"))),
        )
    ]
    table.add_row(*parts)
    workers = [worker for worker in get(stats, "workers") or [] if isinstance(worker, Mapping)]
    if not workers:
        return panel(Text("Clients"), table)
    serving = sum(get(worker, "state") == "serving" for worker in workers)
    restarts = sum(get(worker, "restarts") or 0 for worker in workers)
    style = GOOD if serving == len(workers) else BAD
    about = (f"{serving} of {len(workers)} workers serve", style)
    return panel(Text.assemble("Clients · ", about, f", {restarts} restarts"), table)
