"""The tables of `respite stats`: by class, by command, by link, and what tuning does. One row a thing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from proxy.cli.forms import (
    BAD,
    DIM,
    GOOD,
    STATE_STYLES,
    WARN,
    brief,
    count,
    duration,
    get,
    in_a_row,
    micros,
    panel,
    plain,
    share,
    size,
)

_STATES: Final = {"trying": WARN, "suggested": GOOD, "resting": DIM, "steady": ""}
_OUTCOMES: Final = {"kept": GOOD, "undone": WARN}


def draw_counted(stats: Mapping[str, Any], max_rows: int, width: int) -> RenderableType | None:
    """Draw the sections classes and commands_by_name, the busiest first; None where there is neither.

    Side by side, where there is room for that.
    """
    drawn = [
        _counted(title, rows, max_rows)
        for title, section in (("Classes", "classes"), ("Commands", "commands_by_name"))
        if (rows := _rows(stats, section))
    ]
    if not drawn:
        return None
    return in_a_row(drawn, width)


def _counted(title: str, rows: list[Mapping[str, Any]], max_rows: int) -> Panel:
    table = Table(box=None, expand=True, header_style=DIM, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("name", no_wrap=True, overflow="ellipsis", ratio=1)
    for name in ("count", "hits", "p99", "err"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:max_rows]:
        reads = (get(row, "hits_total") or 0) + (get(row, "misses_total") or 0)
        table.add_row(
            Text(plain(get(row, "name"))),
            brief(get(row, "commands_total")),
            share(get(row, "hit_rate")) if reads else "-",
            micros(get(row, "p99_us")) if get(row, "p99_us") else "-",
            Text(brief(get(row, "errors_total")), style=BAD if get(row, "errors_total") else ""),
        )
    more = len(rows) - max_rows
    note = f" · {max_rows} of {len(rows)}" if more > 0 else ""
    return panel(Text(title + note), table)


def draw_tuning(stats: Mapping[str, Any], max_steps: int = 3) -> Panel | None:
    """Draw the section tuning: the settings that are not as configured or should not be, and the last steps."""
    tuning = get(stats, "tuning") or {}
    mode = get(tuning, "mode")
    if mode in (None, "off"):
        return None
    lines: list[RenderableType] = []
    for row in _rows(tuning, "settings"):
        if get(row, "state") != "steady" or get(row, "value") != get(row, "configured"):
            lines.append(_setting(row))
    steps = sorted(_rows(tuning, "steps"), key=_age)  # of several workers, each has its own
    lines += map(_step, steps[:max_steps])
    if (room := _more_room(tuning)) is not None:
        lines.append(room)
    total, kept, undone = (count(get(tuning, f"{name}_total")) for name in ("steps", "kept", "undone"))
    title = Text.assemble("Tuning · ", (plain(mode), GOOD), f" · {total} steps, {kept} kept, {undone} undone")
    return panel(title, Group(*lines) if lines else Text("nothing to change so far", style=DIM))


def _age(step: Mapping[str, Any]) -> float:
    ago_s = get(step, "ago_s")
    return ago_s if isinstance(ago_s, int | float) else float("inf")


def _setting(row: Mapping[str, Any]) -> Text:
    state = plain(get(row, "state"))
    text = Text.assemble((f"{plain(get(row, 'name'))} ", "bold"), (state, _STATES.get(state, "")), ": ")
    configured, value, suggested = (plain(get(row, name)) for name in ("configured", "value", "suggested"))
    text.append(f"{configured} → {suggested if value == configured and suggested != '-' else value}")
    if why := get(row, "why"):
        text.append(f"  {plain(why)}", style=DIM)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _step(step: Mapping[str, Any]) -> Text:
    outcome = plain(get(step, "outcome"))
    turn = f"{plain(get(step, 'setting'))} {plain(get(step, 'from'))} → {plain(get(step, 'to'))}"
    text = Text.assemble(
        (f"{duration(get(step, 'ago_s'))} ago ", DIM),
        (outcome, _OUTCOMES.get(outcome, "")),
        f" {turn}",
        (f"  {plain(get(step, 'measured'))}, expected {plain(get(step, 'expected'))}", DIM),
    )
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _more_room(tuning: Mapping[str, Any]) -> Text | None:
    """Say what ghosts promise of more room, where that is a tenth of a point or more."""
    reads, more = get(tuning, "ghosts", "reads_total"), get(tuning, "ghosts", "more_hits_total")
    if not isinstance(more, Mapping) or not isinstance(reads, int | float) or not reads:
        return None
    gains = {plain(room): hits / reads for room, hits in more.items() if isinstance(hits, int | float)}
    if not any(gain >= 0.001 for gain in gains.values()):
        return None
    said = ", ".join(f"{room}x {gain:+.1%}" for room, gain in gains.items())
    return Text(f"hits that more room for L1 would bring: {said}", style=DIM, no_wrap=True, overflow="ellipsis")


def draw_links(stats: Mapping[str, Any], max_links: int) -> RenderableType:
    """Draw the section links, the fullest first."""
    links = _rows(stats, "links")
    # The fullest first: what is stuck is seen without scrolling.
    links.sort(key=lambda link: -(get(link, "outstanding") or 0))
    table = Table(box=box.SIMPLE_HEAD, expand=True, show_edge=False, header_style=DIM, border_style=DIM)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    for name in ("link", "kind", "state", "user"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for name in ("db", "resp", "owed", "to send", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    for link in links[:max_links]:
        state = plain(get(link, "state"))
        table.add_row(
            *(Text(plain(get(link, name))) for name in ("id", "kind")),
            Text(state, style=STATE_STYLES.get(state, BAD)),
            *(Text(plain(get(link, name))) for name in ("user", "db", "protocol")),
            count(get(link, "outstanding")),
            size(get(link, "outbox_bytes")),
            micros(get(link, "p99_us")) if get(link, "p99_us") else "-",
        )
    if not links:
        return Text(" no links to the upstream", style=DIM)
    if (more := len(links) - max_links) <= 0:
        return table
    return Group(table, Text(f" and {more} more; `respite stats --json` lists all", style=DIM))


def _rows(answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = get(answer, name)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
