"""What the CLI draws: the figures of `respite stats`, the facts of `respite explain`.

Owns every number's form and every colour. Made for 80 columns and up. A figure that a proxy of another version does not
send is shown as `-`: drawing never fails for what an answer lacks.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self

import attrs
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_GOOD: Final = "green"
_WARN: Final = "yellow"
_BAD: Final = "red"
_DIM: Final = "dim"
_STATE_STYLES: Final = {"up": _GOOD, "connecting": _WARN, "refused": _WARN}  # anything else is bad news
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_SHOWN_LINKS: Final = 12
# Of the terminal's lines: what stands above the links, their head, the note below them, and one for an error.
_LINES_BESIDE_LINKS: Final = 23
_LINES_OF_VALUES: Final = 8


def make_console() -> Console:
    """Make a console on stdout that draws what it can where the terminal's alphabet is a small one."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False)


@attrs.define
class Screen:
    """A screen of its own in the terminal, redrawn in place; plain frames, one below the other, where there is none."""

    url: str
    has_shown: bool = False
    _console: Console = attrs.field(factory=make_console)
    _live: Live = attrs.field(init=False)
    _rates: deque[float] = attrs.field(factory=lambda: deque(maxlen=33))
    _last: RenderableType = ""

    def __attrs_post_init__(self) -> None:
        self._live = Live(console=self._console, screen=self._console.is_terminal, auto_refresh=False)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._console.is_terminal:
            self._live.stop()
            self._console.print(self._last)  # the other screen is gone: leave the last figures to be read

    def show(self, stats: Mapping[str, Any]) -> None:
        """Draw new figures."""
        self._rates.append(float(_get(stats, "commands", "per_second") or 0.0))
        self.has_shown = True
        beside = _LINES_BESIDE_LINKS + (_LINES_OF_VALUES if _get(stats, "values", "enabled") else 0)
        links = max(1, self._console.height - beside) if self._console.is_terminal else _SHOWN_LINKS
        self._last = draw_stats(stats, self.url, rates=self._rates, max_links=links)
        self._draw(self._last)

    def show_lost(self, reason: str) -> None:
        """Say that the proxy does not answer, above the figures it had."""
        self._draw(Group(Text(f" {reason}", style=_BAD), self._last))

    def _draw(self, frame: RenderableType) -> None:
        if self._console.is_terminal:
            self._live.update(frame, refresh=True)
        else:
            self._console.print(frame)


def draw_stats(
    stats: Mapping[str, Any], url: str, *, rates: Iterable[float] = (), max_links: int = _SHOWN_LINKS
) -> RenderableType:
    """Draw /stats.json; `rates` are the commands a second of the last redraws, oldest first."""
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column()
    head.add_column(justify="right", no_wrap=True)
    title = Text.assemble(("Respite", "bold"), f" {_plain(_get(stats, 'version'))}")
    head.add_row(title, Text(f"{url}  up {duration(_get(stats, 'uptime_s'))}", style=_DIM))

    body = Table.grid(expand=True)
    body.add_column(ratio=1)
    body.add_column(ratio=1)
    body.add_row(_draw_l1(stats), _draw_commands(stats, list(rates)))
    values = [_draw_values(stats)] if _get(stats, "values", "enabled") else []
    return Group(head, body, *values, _draw_upstream(stats), _draw_clients(stats), _draw_links(stats, max_links))


def draw_facts(facts: Mapping[str, Any]) -> RenderableType:
    """Draw any JSON object: names on the left, values on the right, objects within objects indented."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    _add_facts(grid, facts, "")
    return grid


def count(value: object) -> str:
    """Show a whole number: in full up to six digits, then shortened."""
    if not isinstance(value, int | float):
        return "-"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.2f} {unit}"
    return f"{value:,.0f}"


def rate(value: object) -> str:
    """Show a number a second: a trickle with its tenths."""
    return f"{value:.1f}" if isinstance(value, int | float) and 0 < value < 10 else count(value)


def size(value: object) -> str:
    """Show bytes, in the binary units of the configuration."""
    if not isinstance(value, int | float):
        return "-"
    for limit, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f} B"


def micros(value: object) -> str:
    """Show microseconds in the unit a person would say them in."""
    if not isinstance(value, int | float):
        return "-"
    if value < 1_000:
        return f"{value:.0f} µs"
    return f"{value / 1_000:.1f} ms" if value < 1_000_000 else f"{value / 1_000_000:.1f} s"


def duration(value: object) -> str:
    """Show seconds by their two largest units."""
    if not isinstance(value, int | float):
        return "-"
    seconds = int(value)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {seconds % 60}s" if minutes else f"{seconds}s"


def share(value: object) -> str:
    """Show a share of 1 as a percentage."""
    return f"{value * 100:.1f} %" if isinstance(value, int | float) else "-"


def version(value: object) -> str:
    """Show a version of a value with the moment it stands for: 48 bits of milliseconds, 16 of a counter."""
    if not isinstance(value, int) or not 0 < value < 1 << 63:
        return _plain(value)
    try:
        moment = datetime.fromtimestamp((value >> 16) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(value)
    return f"{value}, of {moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} UTC"


def bar(value: object, width: int) -> Text:
    """Draw a share of 1 as a line of `width` cells."""
    filled = round(min(1.0, max(0.0, value)) * width) if isinstance(value, int | float) else 0
    return Text.assemble(("━" * filled, "cyan"), ("━" * (width - filled), _DIM))


def spark(values: list[float]) -> Text:
    """Draw a course: each value against the largest."""
    top = max(values, default=0.0)
    return Text("".join(_SPARKS[round(value / top * 7) if top else 0] for value in values), style="cyan")


def _draw_l1(stats: Mapping[str, Any]) -> Panel:
    l1 = _get(stats, "l1") or {}
    used, limit = _get(l1, "bytes"), _get(l1, "max_bytes")
    if not _get(l1, "enabled"):
        state = Text("off", style=_WARN)
    else:
        state = Text("serving", style=_GOOD) if _get(l1, "serving") else Text("not serving", style=_BAD)
    grid = _grid()
    grid.add_row("hit rate", _beside(share(_get(l1, "hit_rate")), bar(_get(l1, "hit_rate"), 12), style="bold"))
    grid.add_row("hits", count(_get(l1, "hits_total")))
    grid.add_row("misses", count(_get(l1, "misses_total")))
    filled = used / limit if isinstance(used, int | float) and limit else None
    grid.add_row("memory", _beside(size(used), bar(filled, 12)))
    grid.add_row("limit", size(limit))
    grid.add_row("entries", count(_get(l1, "entries")))
    grid.add_row("evicted", count(_get(l1, "evictions_total")))
    grid.add_row("invalidated", count(_get(l1, "invalidations_total")))
    grid.add_row("flushed", count(_get(l1, "flushes_total")))
    return _panel(Text.assemble("L1 · ", state), grid)


def _draw_commands(stats: Mapping[str, Any], rates: list[float]) -> Panel:
    commands, latency = _get(stats, "commands") or {}, _get(stats, "latency") or {}
    grid = _grid()
    grid.add_row("now", Text(f"{rate(_get(commands, 'per_second'))} /s", style="bold"))
    grid.add_row("total", count(_get(commands, "total")))
    grid.add_row("errors", _alarm(_get(commands, "errors_total")))
    for name in ("p50", "p90", "p99"):
        grid.add_row(f"upstream {name}", micros(_get(latency, f"{name}_us")))
    grid.add_row("resident", size(_get(stats, "memory", "rss_bytes")))
    consistency = _get(stats, "consistency") or {}
    grid.add_row("hits verified", count(_get(consistency, "verified_total")))
    grid.add_row("of them stale", _alarm(_get(consistency, "stale_total")))
    return _panel(Text("Commands"), Group(grid, spark(rates)))


def _draw_values(stats: Mapping[str, Any]) -> Panel:
    values = _get(stats, "values") or {}
    sweep, dictionaries = _get(values, "sweep") or {}, _get(values, "dictionaries")
    left, right = _grid(), _grid()
    saved = _get(values, "saved")
    left.add_row("memory saved", _beside(share(saved), bar(saved, 12), style="bold"))
    left.add_row("their bytes", size(_get(values, "raw_bytes_total")))
    left.add_row("as stored", size(_get(values, "stored_bytes_total")))
    left.add_row("sealed", count(_get(values, "sealed_total")))
    left.add_row("opened", count(_get(values, "opened_total")))
    left.add_row("damaged", _alarm(_get(values, "damaged_total")))
    right.add_row("fences", count(_get(values, "fences")))
    swept = share(_get(sweep, "share")) if _get(sweep, "running") else "at rest"
    right.add_row("sweep", swept)
    right.add_row("swept", f"{count(_get(sweep, 'unlinked_total'))} of {count(_get(sweep, 'scanned_total'))}")
    right.add_row("unwrapped", count(_get(values, "unwrapped_total")))
    known = len(dictionaries) if isinstance(dictionaries, Mapping | list) else dictionaries
    right.add_row("dictionaries", count(known))
    both = Table.grid(expand=True)
    both.add_column(ratio=1)
    both.add_column(ratio=1)
    both.add_row(left, right)
    return _panel(Text("Values"), both)


def _draw_upstream(stats: Mapping[str, Any]) -> Panel:
    upstream = _get(stats, "upstream") or {}
    state, tracking = _plain(_get(upstream, "state")), _plain(_get(upstream, "tracking"))
    server = " ".join(_plain(part) for part in (_get(upstream, "server"), _get(upstream, "version")) if part)
    grid = _grid()
    grid.add_row("server", Text.assemble(_plain(_get(upstream, "url")), (f"  {server}", "bold"), overflow="fold"))
    reason = _plain(_get(upstream, "tracking_reason"))
    grid.add_row("tracking", Text.assemble((tracking, _WARN if tracking == "off" else ""), (f"  {reason}", _DIM)))
    keys, bound = _get(upstream, "tracked_keys"), _get(upstream, "tracked_max_keys")
    if keys and bound:
        filled = Text(f"{count(keys)} keys of {count(bound)}", style=_WARN if keys >= 0.8 * bound else "")
        grid.add_row("its table", filled)
    if why := _get(upstream, "why"):
        grid.add_row("reason", Text(_plain(why), style=_BAD))
    return _panel(Text.assemble("Upstream · ", (state, _STATE_STYLES.get(state, _BAD))), grid)


def _draw_clients(stats: Mapping[str, Any]) -> Panel:
    clients = _get(stats, "clients") or {}
    grid = Table.grid(expand=True)
    parts = [
        Text.assemble((f"{name} ", _DIM), figure)
        for name, figure in (
            ("connected", Text(count(_get(clients, "connected")), style="bold")),
            ("pinned", Text(count(_get(clients, "pinned")))),
            ("accepted", Text(count(_get(clients, "accepted_total")))),
            ("rejected", _alarm(_get(clients, "rejected_total"))),
            ("killed", _alarm(_get(clients, "killed_total"))),
        )
    ]
    grid.add_row(*parts)
    workers = [worker for worker in _get(stats, "workers") or [] if isinstance(worker, Mapping)]
    if not workers:
        return _panel(Text("Clients"), grid)
    serving = sum(_get(worker, "state") == "serving" for worker in workers)
    restarts = sum(_get(worker, "restarts") or 0 for worker in workers)
    style = _GOOD if serving == len(workers) else _BAD
    about = (f"{serving} of {len(workers)} workers serve", style)
    return _panel(Text.assemble("Clients · ", about, f", {restarts} restarts"), grid)


def _draw_links(stats: Mapping[str, Any], max_links: int) -> RenderableType:
    links = [link for link in _get(stats, "links") or [] if isinstance(link, Mapping)]
    # The fullest first: what is stuck is seen without scrolling.
    links.sort(key=lambda link: -(_get(link, "outstanding") or 0))
    table = Table(box=box.SIMPLE_HEAD, expand=True, show_edge=False, header_style=_DIM, border_style=_DIM)
    for name in ("link", "kind", "state", "user"):
        table.add_column(name)
    for name in ("db", "resp", "owed", "to send"):
        table.add_column(name, justify="right", no_wrap=True)
    for link in links[:max_links]:
        state = _plain(_get(link, "state"))
        table.add_row(
            *(Text(_plain(_get(link, name))) for name in ("id", "kind")),
            Text(state, style=_STATE_STYLES.get(state, _BAD)),
            *(Text(_plain(_get(link, name))) for name in ("user", "db", "protocol")),
            count(_get(link, "outstanding")),
            size(_get(link, "outbox_bytes")),
        )
    if not links:
        return Text(" no links to the upstream", style=_DIM)
    if (more := len(links) - max_links) <= 0:
        return table
    return Group(table, Text(f" and {more} more; `respite stats --json` lists all", style=_DIM))


def _add_facts(grid: Table, facts: Mapping[str, Any], indent: str) -> None:
    for name, value in facts.items():
        label = indent + _plain(name).replace("_", " ")
        if isinstance(value, Mapping) and value:
            grid.add_row(Text(label), "")
            _add_facts(grid, value, indent.replace("- ", "  ") + "  ")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            grid.add_row(Text(label), "")
            for item in value:
                _add_facts(grid, item if isinstance(item, Mapping) else {"": item}, indent.replace("- ", "  ") + "- ")
        else:
            lines = value if isinstance(value, list) and value else [_fact(name, value)]
            for number, line in enumerate(lines):
                grid.add_row(Text(label if number == 0 else ""), Text(_plain(line)))
        indent = indent.replace("- ", "  ")


def _fact(name: str, value: object) -> object:
    """Show what a fact's name says the unit of; anything else, and a number too small to need it, as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if name.endswith("_bytes") and value >= 1024:
        return f"{_plain(value)} ({size(value)})"
    if name.endswith("_ms") and value >= 1000:
        return f"{_plain(value)} ({duration(value / 1000)})"
    return version(value) if name in ("version", "fence") else value


def _plain(value: object) -> str:
    """Show one JSON value; control bytes of a key never reach the terminal."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))


def _get(value: Any, *path: str) -> Any:
    """Walk into nested objects; None where the path ends early."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style=_DIM, no_wrap=True)
    grid.add_column()
    return grid


def _beside(text: str, drawing: Text, *, style: str = "") -> Text:
    return Text.assemble((f"{text:<10}", style), " ", drawing)


def _alarm(value: object) -> Text:
    return Text(count(value), style=_BAD if value else "")


def _panel(title: Text, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, border_style=_DIM)
