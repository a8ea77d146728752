"""What the CLI draws: the figures of `respite stats`, the facts of `respite explain`.

Made for 80 columns and up. A figure that a proxy of another version does not send is shown as `-`: drawing never fails
for what an answer lacks. What stands in each panel is `panels`', how a figure looks `forms`'.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, Self

import attrs
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proxy.cli.forms import BAD, DIM, duration, get, plain, size, version
from proxy.cli.panels import draw_clients, draw_commands, draw_events, draw_l1, draw_links, draw_upstream, draw_values

_SHOWN_LINKS: Final = 12
# Of the terminal's lines: what stands above the links, their head, the note below them, and one for an error.
_LINES_BESIDE_LINKS: Final = 23
_LINES_OF_VALUES: Final = 8
_LINES_OF_EVENTS: Final = 8


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
        self._rates.append(float(get(stats, "commands", "per_second") or 0.0))
        self.has_shown = True
        beside = _LINES_BESIDE_LINKS + (_LINES_OF_VALUES if get(stats, "values", "enabled") else 0)
        beside += _LINES_OF_EVENTS if _has_events(stats) else 0
        links = max(1, self._console.height - beside) if self._console.is_terminal else _SHOWN_LINKS
        self._last = draw_stats(stats, self.url, rates=self._rates, max_links=links)
        self._draw(self._last)

    def show_lost(self, reason: str) -> None:
        """Say that the proxy does not answer, above the figures it had."""
        self._draw(Group(Text(f" {reason}", style=BAD), self._last))

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
    title = Text.assemble(("Respite", "bold"), f" {plain(get(stats, 'version'))}")
    head.add_row(title, Text(f"{url}  up {duration(get(stats, 'uptime_s'))}", style=DIM))

    body = Table.grid(expand=True)
    body.add_column(ratio=1)
    body.add_column(ratio=1)
    body.add_row(draw_l1(stats), draw_commands(stats, list(rates)))
    values = [draw_values(stats)] if get(stats, "values", "enabled") else []
    events = [draw_events(stats)] if _has_events(stats) else []
    return Group(head, body, *values, *events, draw_upstream(stats), draw_clients(stats), draw_links(stats, max_links))


def _has_events(stats: Mapping[str, Any]) -> bool:
    return get(stats, "events", "state") not in (None, "off")


def draw_facts(facts: Mapping[str, Any]) -> RenderableType:
    """Draw any JSON object: names on the left, values on the right, objects within objects indented."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    _add_facts(grid, facts, "")
    return grid


def _add_facts(grid: Table, facts: Mapping[str, Any], indent: str) -> None:
    for name, value in facts.items():
        label = indent + plain(name).replace("_", " ")
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
                grid.add_row(Text(label if number == 0 else ""), Text(plain(line)))
        indent = indent.replace("- ", "  ")


def _fact(name: str, value: object) -> object:
    """Show what a fact's name says the unit of; anything else, and a number too small to need it, as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if name.endswith("_bytes") and value >= 1024:
        return f"{plain(value)} ({size(value)})"
    if name.endswith("_ms") and value >= 1000:
        return f"{plain(value)} ({duration(value / 1000)})"
    return version(value) if name in ("version", "fence") else value
