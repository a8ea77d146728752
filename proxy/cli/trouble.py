"""The panels of `respite stats` that are there only when there is something to tell: outages, and who is turned away.

Owns when that is, and the order in which it is told. A line whose figures are all 0 is left out, and so is a panel
without lines: what nobody has asked for and what has never happened takes no room.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.panel import Panel
from rich.text import Text

from proxy.cli.forms import BAD, DIM, GOOD, WARN, Parts, bar, count, duration, get, grid, panel, plain, size

_NAMES_SHOWN: Final = 4
_NEARLY_FULL: Final = 0.8  # where the alert "offline memory filling" begins
_STATES: Final = {"away": BAD, "slow": WARN}
_DOORS: Final = {"draining": WARN, "handing over": WARN}
_DOOR_LINES: Final[Mapping[str, Mapping[str, str]]] = {
    "refused": {
        "by max_clients": "rejected_total",
        "by max_clients_per_address": "crowded_total",
        "by max_pinned_per_address": "pins_refused_total",
    },
    "logins": {
        "failed": "logins_failed_total",
        "too many at once": "logins_refused_total",
        "not in time": "killed_unproven_total",
    },
    "TLS": {"handshakes failed": "handshakes_failed_total"},
    "closed": {"for unread replies": "killed_unread_total", "for what is no RESP": "protocol_errors_total"},
    "held back": {"by rate_limit": "throttled_total"},
}
"""Of each line its figures of the section clients."""

Line = tuple[str, Sequence[Text]]
"""What stands on the left, and what beside it; a line without parts is none."""


def has_outage(stats: Mapping[str, Any]) -> bool:
    """Return whether Redis is away or slow right now."""
    return get(stats, "outage", "state") in _STATES


def is_leaving(stats: Mapping[str, Any]) -> bool:
    """Return whether the doors are closing right now."""
    return get(stats, "doors", "state") in _DOORS


def draw_outage(stats: Mapping[str, Any], max_lines: int) -> Panel | None:
    """Draw the sections outage and offline, and what upstream says of it; None where there is nothing to tell."""
    state, lasts = plain(get(stats, "outage", "state")), duration(get(stats, "outage", "since_s"))
    lines = [line for line in (*_outage(stats), *_memory(stats), *_links(stats)) if line[1]]
    if state in _STATES:
        said = (f"Redis is {state} for {lasts}", _STATES[state])
    elif get(stats, "upstream", "breaker_opened_total"):
        said = (f"Redis is back for {lasts}", GOOD)
    else:
        said = ("none so far", GOOD)
    return _drawn(Text.assemble("Outages · ", said), lines[:max_lines])


def draw_doors(stats: Mapping[str, Any], max_lines: int) -> Panel | None:
    """Draw who was not let in, held back or closed, by reason, and whether the doors are closing; None: nobody."""
    lines = [line for line in _doors(stats) if line[1]]
    state = plain(get(stats, "doors", "state"))
    title = Text("Doors")
    if state in _DOORS:
        title = Text.assemble(title, " · ", (state, _DOORS[state]))
        left = _counts({"clients still here": get(stats, "clients", "connected")})
        lines.insert(0, ("now", left or [Text("no client is left")]))
    return _drawn(title, lines[:max_lines])


def _drawn(title: Text, lines: Sequence[Line]) -> Panel | None:
    if not lines:
        return None
    table = grid()
    for name, parts in lines:
        table.add_row(name, Parts(parts))
    return panel(title, table)


def _outage(stats: Mapping[str, Any]) -> Iterator[Line]:
    """Yield why Redis is not up, and what is served meanwhile."""
    outage, offline = get(stats, "outage") or {}, get(stats, "offline") or {}
    why = get(outage, "why")
    yield "why", [Text(plain(why), style=_STATES.get(plain(get(outage, "state")), ""))] if why else ()
    yield "held writes", _held(offline)
    yield "served stale", _total(get(outage, "stale_served_total"), get(outage, "stale_served"))
    yield "fallbacks", _first(list(_fallbacks(outage)))


def _memory(stats: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what was taken in memory, what became of it, and what of L1 is kept."""
    outage, offline = get(stats, "outage") or {}, get(stats, "offline") or {}
    taken, told = get(offline, "taken_total"), get(offline, "reconciled_total")
    no_room = _counts({"no room for": get(offline, "refused_total")}, BAD)
    yield "in memory", [*_counts({"reads": get(taken, "read"), "writes": get(taken, "write")}), *no_room]
    kept = {"written": get(told, "written"), "newer there": get(told, "older"), "deleted": get(told, "deleted")}
    yield "Redis told", [*_counts(kept), *_counts({"lost": get(told, "lost")}, BAD)]
    left = _counts({"entries": get(outage, "stale_entries")})
    room = Text(f"{size(get(outage, 'stale_bytes'))} of {size(get(outage, 'stale_max_bytes'))}")
    yield "left of L1", [*left, room] if left else ()


def _links(stats: Mapping[str, Any]) -> Iterator[Line]:
    """Yield what the links to Redis went through."""
    outage, upstream = get(stats, "outage") or {}, get(stats, "upstream") or {}
    lasted, why = duration(get(outage, "last_lasted_s")), get(outage, "last_why")
    yield "the last one", [Text(f"lasted {lasted}: {plain(why)}")] if why else ()
    breaker, opened = get(upstream, "breaker"), _counts({"opened": get(upstream, "breaker_opened_total")})
    yield "breaker", [Text(plain(breaker)), *opened] if opened or breaker not in (None, "closed") else ()
    yield "asked again", _counts({"reads": get(upstream, "retried_total")})
    yield "Redis said", _counts(get(upstream, "refusals"), WARN)


def _held(offline: Mapping[str, Any]) -> Sequence[Text]:
    """Say how much Redis has still to be told of."""
    keys = _counts({"keys": get(offline, "keys")})
    used, limit = get(offline, "bytes"), get(offline, "max_bytes")
    filled = used / limit if isinstance(used, int | float) and isinstance(limit, int | float) and limit else 0.0
    style = BAD if filled >= _NEARLY_FULL else ""
    room = Text.assemble((f"{size(used)} of {size(limit)} ", style), bar(filled, 12))
    return [*keys, room, *_counts({"clients wait": get(offline, "waiting")}, WARN)] if keys else ()


def _fallbacks(outage: Mapping[str, Any]) -> Iterator[Text]:
    """Yield for each class what it has for an outage."""
    rows = get(outage, "fallbacks")
    for row in rows if isinstance(rows, list) else ():
        stale_s = get(row, "stale_if_error_s")
        kinds = [f"stale {duration(stale_s)}"] if stale_s else []
        kinds += ["in memory"] if get(row, "offline") == "memory" else []
        yield Text.assemble((f"{plain(get(row, 'name'))} ", DIM), " and ".join(kinds) or "-")


def _doors(stats: Mapping[str, Any]) -> Iterator[Line]:
    """Yield who was turned away; a limit is called as its key in the configuration is."""
    clients, commands = get(stats, "clients") or {}, get(stats, "commands") or {}
    for name, fields in _DOOR_LINES.items():
        yield name, _counts({label: get(clients, field) for label, field in fields.items()})
    yield "denied", _total(get(commands, "denied_total"), get(commands, "denied_by_user_total"))


def _counts(counts: object, style: str = "bold") -> list[Text]:
    """Show what is counted by name, in their order; what is 0 is left out."""
    known = counts.items() if isinstance(counts, Mapping) else ()
    return [Text.assemble((f"{plain(name)} ", DIM), (count(value), style)) for name, value in known if _is_some(value)]


def _total(value: object, by_name: object) -> list[Text]:
    """Show a count, and behind it the names that have most of it."""
    if not _is_some(value):
        return []
    known = by_name if isinstance(by_name, Mapping) else {}
    most = sorted(((n, c) for n, c in known.items() if _is_some(c)), key=lambda item: -item[1])
    return [Text(count(value), style="bold"), *_first(_counts(dict(most), ""))]


def _first(parts: list[Text]) -> list[Text]:
    """Leave out what would go on and on."""
    more = len(parts) - _NAMES_SHOWN
    return [*parts[:_NAMES_SHOWN], Text(f"and {more} more", style=DIM)] if more > 0 else parts


def _is_some(value: object) -> bool:
    return isinstance(value, int | float) and value > 0
