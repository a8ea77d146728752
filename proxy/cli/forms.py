"""The forms of figures in a terminal: numbers, sizes, durations, bars, panels. Knows no figure by name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

GOOD: Final = "green"
WARN: Final = "yellow"
BAD: Final = "red"
DIM: Final = "dim"
STATE_STYLES: Final = {"up": GOOD, "connecting": WARN, "refused": WARN}  # anything else is bad news
_BESIDE: Final = 72  # columns from which two panels stand side by side
_SPARKS: Final = "▁▂▃▄▅▆▇█"


def count(value: object) -> str:
    """Show a whole number: in full up to six digits, then shortened."""
    if not isinstance(value, int | float):
        return "-"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.2f} {unit}"
    return f"{value:,.0f}"


def brief(value: object) -> str:
    """Show a whole number in five cells at most, where there is little room."""
    if not isinstance(value, int | float) or abs(value) < 10_000:
        return count(value) if not isinstance(value, int | float) else f"{value:.0f}"
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= limit * 0.9995:
            return f"{value / limit:.1f}{unit}" if abs(value) < 99.5 * limit else f"{value / limit:.0f}{unit}"
    return f"{value / 1e3:.0f}k"


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
        return plain(value)
    try:
        moment = datetime.fromtimestamp((value >> 16) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(value)
    return f"{value}, of {moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03} UTC"


def bar(value: object, width: int) -> Text:
    """Draw a share of 1 as a line of `width` cells."""
    filled = round(min(1.0, max(0.0, value)) * width) if isinstance(value, int | float) else 0
    return Text.assemble(("━" * filled, "cyan"), ("━" * (width - filled), DIM))


def spark(values: Sequence[float | None], width: int) -> Text:
    """Draw a course in at most `width` cells, each against the largest; what is not known is a gap.

    Where there are more values than cells, a cell is the mean of those that fall into it.
    """
    if len(values) > width:
        edges = [at * len(values) // width for at in range(width + 1)]
        values = [_mean(values[begin:end]) for begin, end in itertools.pairwise(edges)]
    top = max((value for value in values if value is not None), default=0.0)
    cells = (" " if value is None else _SPARKS[round(value / top * 7) if top > 0 else 0] for value in values)
    return Text("".join(cells), style="cyan")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def plain(value: object) -> str:
    """Show one JSON value; control bytes of a key never reach the terminal."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))


def get(value: Any, *path: str) -> Any:
    """Walk into nested objects; None where the path ends early."""
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def grid() -> Table:
    """Make a table of names and figures."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style=DIM, no_wrap=True)
    table.add_column()
    return table


def beside(text: str, drawing: Text, *, style: str = "") -> Text:
    """Put a drawing beside a figure."""
    return Text.assemble((f"{text:<10}", style), " ", drawing)


def alarm(value: object) -> Text:
    """Show a count that should be 0."""
    return Text(count(value), style=BAD if value else "")


@attrs.frozen
class Parts:
    """Texts beside each other, on as many lines as it takes: none is broken that fits on one."""

    texts: Sequence[Text]
    between: str = " · "
    indent: str = ""

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for text in self.texts:
            if line and line.cell_len + len(self.between) + text.cell_len > options.max_width:
                yield line
                line = Text()
            line.append(self.between if line else self.indent).append_text(text)
        yield line

    def __rich_measure__(self, _console: Console, options: ConsoleOptions) -> Measurement:
        cells = [text.cell_len for text in self.texts] or [0]
        whole = len(self.indent) + sum(cells) + len(self.between) * (len(cells) - 1)
        return Measurement(len(self.indent) + max(cells), whole).with_maximum(options.max_width)


def panel(title: Text, content: RenderableType) -> Panel:
    """Put a frame around it."""
    return Panel(content, title=title, title_align="left", box=box.ROUNDED, border_style=DIM)


def in_a_row(drawn: Sequence[RenderableType], width: int) -> RenderableType:
    """Put panels side by side; one below the other where that would cut off their names and figures."""
    if width < _BESIDE:
        return Group(*drawn)
    grid = Table.grid(expand=True)
    for _ in drawn:
        grid.add_column(ratio=1)
    grid.add_row(*drawn)
    return grid
