"""What stands at the top of `respite stats`: the figures of now with their course and trend, alerts, who is there.

Owns the order in which a person looks: is it well, how is it doing, where is it going. Figures are those of
/report.json; a proxy without one is shown by its figures since the start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
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
    Parts,
    count,
    duration,
    get,
    micros,
    panel,
    plain,
    rate,
    share,
    size,
    spark,
)

_HEALTH: Final = {"healthy": GOOD, "degraded": WARN, "unhealthy": BAD}
_ARROWS: Final = {"up": "↗", "down": "↘"}
_VERB: Final = re.compile(r" (?:falls|rises|grows|shrinks|is)\b")
_REASONS_SHOWN: Final = 3
_ALERTS_SHOWN: Final = 4
_LABEL, _VALUE, _TREND = 18, 9, 31  # cells of the columns; a course has the rest, as far as it goes
_COURSE_MIN: Final = 8
_FRAME: Final = 4 + 3 * 2  # cells that frame and gaps take


def _seconds(value: object) -> str:
    return micros(value * 1e6) if isinstance(value, int | float) else "-"


def _parts_in_100(value: object) -> str:
    """Show a share with the digits that a small one needs."""
    return f"{value * 100:.2f} %" if isinstance(value, int | float) and 0 < value < 0.01 else share(value)


@attrs.frozen
class _Row:
    figure: str
    label: str
    show: Callable[[object], str]


_ROWS: Final = (
    _Row("hit_rate", "hit rate", share),
    _Row("latency_p50", "latency p50", _seconds),
    _Row("latency_p99", "latency p99", _seconds),
    _Row("commands_per_second", "commands a second", rate),
    _Row("error_rate", "errors", _parts_in_100),
    _Row("saved_rate", "reads Redis saves", share),
    _Row("l1_fill", "L1 filled", share),
    _Row("queue_depth", "events waiting", count),
    _Row("queue_lag", "oldest of them", duration),
    _Row("staleness", "staleness p99", _seconds),
    _Row("upstream_p99", "Redis p99", _seconds),
    _Row("memory_ratio", "stored of raw", share),
    _Row("sync_error_rate", "sync errors", _parts_in_100),
    _Row("evictions_per_second", "evictions a second", rate),
    _Row("changes_per_second", "pushed a second", rate),
    _Row("outbox_depth", "changes waiting", count),
)
"""The figures in the order of their weight: a small terminal has the first of those that are known."""
FIGURES: Final = tuple(row.figure for row in _ROWS)


@attrs.frozen
class View:
    """What is drawn: /stats.json; /report.json and the course of each figure, the oldest first, where there are any."""

    stats: Mapping[str, Any]
    report: Mapping[str, Any] = attrs.field(factory=dict)
    series: Mapping[str, Sequence[float | None]] = attrs.field(factory=dict)

    @property
    def figures(self) -> Mapping[str, Any]:
        """The figures of now by name; those since the start where there is no report."""
        found: dict[str, Any] = {}
        for part in ("cache", "queue", "polling", "overall"):
            found |= get(self.report, part, "figures") or {}
        return found or _since_the_start(self.stats)

    @property
    def trends(self) -> Mapping[str, Mapping[str, Any]]:
        """What is said of the course of a figure, by its name."""
        rows = _rows(self.report, "overall", "trends")
        return {str(get(row, "figure")): row for row in rows}


def _since_the_start(stats: Mapping[str, Any]) -> dict[str, Any]:
    used, limit = get(stats, "l1", "bytes"), get(stats, "l1", "max_bytes")
    p99_us = get(stats, "latency", "p99_us")
    found = {
        "hit_rate": get(stats, "l1", "hit_rate"),
        "commands_per_second": get(stats, "commands", "per_second"),
        "l1_fill": used / limit if isinstance(used, int | float) and limit else None,
        "upstream_p99": p99_us / 1e6 if isinstance(p99_us, int | float) else None,
        "queue_depth": get(stats, "events", "depth"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _rows(answer: Mapping[str, Any], *path: str) -> list[Mapping[str, Any]]:
    rows = get(answer, *path)
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def draw_head(view: View, url: str) -> RenderableType:
    """Draw the first line, and below it why all is not well."""
    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column()
    head.add_column(justify="right", no_wrap=True)
    title = Text.assemble(("Respite", "bold"), f" {plain(get(view.stats, 'version'))}")
    health = get(view.report, "overall", "health")
    if health is not None:
        title.append(f"  ● {plain(health)}", style=_HEALTH.get(health, BAD))
    head.add_row(title, Text(f"{url}  up {duration(get(view.stats, 'uptime_s'))}", style=DIM))
    return Group(head, *_reasons(view))


def _reasons(view: View) -> Iterator[Text]:
    reasons = get(view.report, "overall", "reasons")
    texts = [plain(reason) for reason in reasons] if isinstance(reasons, list) else []
    on = [row for row in _rows(view.report, "overall", "alerts") if get(row, "state") == "on"]
    said = " ".join(texts)
    texts += [plain(get(row, "text") or get(row, "name")) for row in on if str(get(row, "name")) not in said]
    style = _HEALTH.get(str(get(view.report, "overall", "health")), WARN)
    for text in texts[:_REASONS_SHOWN]:
        yield Text(f"  ! {text}", style=style, overflow="ellipsis", no_wrap=True)
    if (more := len(texts) - _REASONS_SHOWN) > 0:
        yield Text(f"    and {more} more: /report.json has all", style=DIM)


def draw_overview(view: View, width: int, *, most: int = len(_ROWS)) -> Panel:
    """Draw the first `most` figures that are known, each with its course over the last minutes and its trend."""
    figures, trends = view.figures, view.trends
    shown = [row for row in _ROWS if row.figure in figures][:most]
    has_trends = any(row.figure in trends for row in shown)
    room = width - _FRAME - _LABEL - _VALUE - (_TREND if has_trends else -2)
    table = Table.grid(padding=(0, 2, 0, 0), expand=has_trends)
    table.add_column(style=DIM, no_wrap=True, width=_LABEL)
    table.add_column(justify="right", no_wrap=True, width=_VALUE)
    table.add_column(no_wrap=True, width=max(_COURSE_MIN, room))
    if has_trends:
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for row in shown:
        course = spark(view.series.get(row.figure, ()), max(_COURSE_MIN, room))
        cells = [Text(row.label), Text(row.show(figures[row.figure]), style="bold"), course]
        table.add_row(*cells, *([_trend(trends.get(row.figure), is_named=True)] if has_trends else []))
    others = [trend for name, trend in trends.items() if name not in {row.figure for row in shown}]
    title = Text("Now · the last 5 minutes" if view.series else "Now")
    return panel(title, Group(table, *map(_trend, others)))


def _trend(trend: Mapping[str, Any] | None, *, is_named: bool = False) -> Text:
    """Draw what is said of a course; where it `is_named` already, without the name."""
    if trend is None:
        return Text()
    text = plain(get(trend, "text"))
    if is_named and (verb := _VERB.search(text)):
        text = text[verb.start() + 1 :]
    style = {True: GOOD, False: WARN}.get(get(trend, "good"), DIM)
    arrow = _ARROWS.get(str(get(trend, "direction")), "·")
    return Text(f"{arrow} {text}", style=style, overflow="ellipsis", no_wrap=True)


def draw_status(view: View) -> RenderableType:
    """Draw in a line or two who is there: Redis, the broker, clients, subscribers, memory."""
    stats = view.stats
    state = plain(get(stats, "upstream", "state"))
    server = " ".join(plain(part) for part in _known(stats, "upstream", "server", "version"))
    parts = [
        Text.assemble(("Redis ", DIM), (state, STATE_STYLES.get(state, BAD)), f" {server}"),
        _fact("tracking", plain(get(stats, "upstream", "tracking"))),
        _fact("clients", count(get(stats, "clients", "connected"))),
        _fact("L1", f"{size(get(stats, 'l1', 'bytes'))} of {size(get(stats, 'l1', 'max_bytes'))}"),
        _fact("resident", size(get(stats, "memory", "rss_bytes"))),
    ]
    broker = get(stats, "events", "state")
    if broker not in (None, "off"):
        parts.insert(1, Text.assemble(("broker ", DIM), (plain(broker), STATE_STYLES.get(str(broker), BAD))))
    if get(stats, "push", "subscribers") is not None:
        parts.append(_fact("subscribers", count(get(stats, "push", "subscribers"))))
    mode = get(stats, "tuning", "mode")
    if mode not in (None, "off"):
        parts.append(_fact("tuning", plain(mode)))
    return Parts(parts, between="  ", indent="  ")


def _known(stats: Mapping[str, Any], section: str, *names: str) -> list[Any]:
    return [value for name in names if (value := get(stats, section, name))]


def _fact(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", DIM), value)
