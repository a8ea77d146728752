"""What the CLI draws: the figures of `respite stats`, the facts of `respite explain`.

Made for 80 columns by 24 lines and up: what matters most stands first, and more of it is shown where there is more
room. A figure that a proxy of another version does not send is shown as `-`: drawing never fails for what an answer
lacks. What stands where is `overview`'s, `tables`' and `panels`'; how a figure looks `forms`'.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final, Self

import attrs
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proxy.cli.forms import BAD, duration, get, in_a_row, plain, size, version
from proxy.cli.overview import View, draw_head, draw_overview, draw_status
from proxy.cli.panels import draw_clients, draw_commands, draw_events, draw_l1, draw_upstream, draw_values
from proxy.cli.tables import draw_counted, draw_links, draw_tuning
from proxy.cli.trouble import draw_doors, draw_outage, has_outage, is_leaving

_SHOWN_LINKS: Final = 12
_SHOWN_ROWS: Final = 10
_TALL: Final = 40  # lines from which the tables and the overview are shown in full
_SMALL_ROWS: Final = 5
_SMALL_FIGURES: Final = 8
_SMALL_LINES: Final = 3  # of a panel about trouble
_LINES: Final = 99
_LINKS_BESIDE: Final = 3  # lines of the table of links besides its rows: head, rule, and how many more there are


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

    def show(self, view: View) -> None:
        """Draw new figures."""
        self.has_shown = True
        height = self._console.height if self._console.is_terminal else None
        self._last = draw_stats(view, self.url, self._console, height)
        self._draw(self._last)

    def show_lost(self, reason: str) -> None:
        """Say that the proxy does not answer, above the figures it had."""
        self._draw(Group(Text(f" {reason}", style=BAD), self._last))

    def _draw(self, frame: RenderableType) -> None:
        if self._console.is_terminal:
            self._live.update(frame, refresh=True)
        else:
            self._console.print(frame)


def draw_stats(view: View, url: str, console: Console, height: int | None = None) -> RenderableType:
    """Draw all of a view, as wide as the console; of what does not fit into `height` lines, what matters most."""
    if height is None:
        return Group(*_blocks(view, url, console.width, is_small=False), draw_links(view.stats, _SHOWN_LINKS))
    left = height
    chosen: list[RenderableType] = []
    for block in _blocks(view, url, console.width, is_small=height < _TALL):
        lines = len(console.render_lines(block, pad=False))
        if lines <= left:
            chosen.append(block)
            left -= lines
    if left > _LINKS_BESIDE:
        chosen.append(draw_links(view.stats, left - _LINKS_BESIDE))
    return Group(*chosen)


def _blocks(view: View, url: str, width: int, *, is_small: bool) -> Iterator[RenderableType]:
    """Yield what can be drawn, in the order in which it is, which is that of its weight."""
    stats = view.stats
    yield draw_head(view, url)
    trouble = _trouble(stats, is_small=is_small)
    yield from (drawn for is_now, drawn in trouble if is_now)
    yield draw_overview(view, width, **({"most": _SMALL_FIGURES} if is_small else {}))
    yield draw_status(view)
    counted = draw_counted(stats, _SMALL_ROWS if is_small else _SHOWN_ROWS, width)
    if counted is not None:
        yield counted
    tuning = draw_tuning(stats)
    if tuning is not None:
        yield tuning
    yield from (drawn for is_now, drawn in trouble if not is_now)
    yield in_a_row([draw_l1(stats), draw_commands(stats)], width)
    if get(stats, "values", "enabled"):
        yield draw_values(stats)
    if get(stats, "events", "state") not in (None, "off"):
        yield draw_events(stats)
    yield draw_upstream(stats)
    yield draw_clients(stats)


def _trouble(stats: Mapping[str, Any], *, is_small: bool) -> list[tuple[bool, RenderableType]]:
    """Return what there is to tell of trouble, each with whether it is now: then it stands above the figures."""
    leaves = is_leaving(stats)
    most = _SMALL_LINES if is_small else _LINES
    drawn = (
        (has_outage(stats), draw_outage(stats, most)),
        (leaves, draw_doors(stats, 1 if is_small and leaves else most)),
    )
    return [(is_now, one) for is_now, one in drawn if one is not None]


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
