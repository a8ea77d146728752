"""`respite stats`: the figures once, or redrawn until Ctrl-C.

Owns what is asked of the admin port for one drawing, and the pace of redraws.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

import click

from proxy.cli.client import AdminClient, AdminError
from proxy.cli.options import json_option, print_json, with_admin
from proxy.errors import RespiteError

if TYPE_CHECKING:
    from proxy.cli.overview import View

_REDRAW_S: Final = 1.0  # fast enough to watch a change happen, slow enough to read
_COURSE_S: Final = 300
_STEP_S: Final = 3


@click.command()
@click.option("--watch", is_flag=True, help="Redraw every second until Ctrl-C; with --json, print a line a second.")
@json_option
@with_admin
def stats(client: AdminClient, *, watch: bool, as_json: bool) -> None:
    """Show how the proxy is doing.

    Health, hit rate, latency, errors, their course and their trends; alerts, classes, commands, tuning, the upstream
    and the links to it. A larger terminal shows more.
    """
    if watch:
        try:
            _watch_json(client) if as_json else _watch(client)
        except KeyboardInterrupt:  # how a watch ends
            return
    elif as_json:
        print_json(client.stats())
    else:
        from proxy.cli import render  # noqa: PLC0415 - brings rich along

        console = render.make_console()
        console.print(render.draw_stats(look(client), client.url, console))


def look(client: AdminClient) -> View:
    """Ask for everything that is drawn. Raises AdminError where there are no figures at all."""
    from proxy.cli.overview import FIGURES, View  # noqa: PLC0415 - brings rich along

    figures = client.stats()
    try:
        report = client.report()
        names = _known(report, FIGURES)
        found = client.history(names, seconds=_COURSE_S, step=_STEP_S) if names else {}
    except AdminError:  # one of another version, or one that has just begun to watch itself
        return View(figures)
    rows = found.get("series")
    series = {
        row["figure"]: [value for _, value in row["points"]]
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict) and "figure" in row and isinstance(row.get("points"), list)
    }
    return View(figures, report, series)


def _known(report: dict[str, Any], wanted: tuple[str, ...]) -> list[str]:
    parts = [part.get("figures") for part in report.values() if isinstance(part, dict)]
    known = {name for part in parts if isinstance(part, dict) for name in part}
    return [name for name in wanted if name in known]


# A restart is the very moment somebody watches, and ends no watch; the first failure of all is a wrong address.


def _watch_json(client: AdminClient) -> None:
    has_shown = False
    while True:
        try:
            click.echo(json.dumps(client.stats()))
            has_shown = True
        except RespiteError as exc:
            if not has_shown:
                raise
            click.echo(f"respite: {exc}", err=True)
        time.sleep(_REDRAW_S)


def _watch(client: AdminClient) -> None:
    from proxy.cli import render  # noqa: PLC0415 - brings rich along

    with render.Screen(client.url) as screen:
        while True:
            try:
                screen.show(look(client))
            except RespiteError as exc:
                if not screen.has_shown:
                    raise
                screen.show_lost(str(exc))
            time.sleep(_REDRAW_S)
