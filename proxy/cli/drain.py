"""`respite drain`: the end of a proxy, at once or when its clients have gone."""

from __future__ import annotations

import time
from typing import Final

import click

from proxy.cli.client import AdminClient
from proxy.cli.options import json_option, print_json, with_admin
from proxy.config.units import parse_seconds

_LOOK_S: Final = 0.2  # between two looks at how many clients there are


def _read_time(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """Read a time as the configuration writes it."""
    try:
        return None if value is None else parse_seconds(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


@click.command()
@click.option(
    "--when-idle",
    "patience_s",
    metavar="TIME",
    callback=_read_time,
    help="First wait until no client is connected, at most so long: 20s.",
)
@json_option
@with_admin
def drain(client: AdminClient, *, patience_s: float | None, as_json: bool) -> None:
    """Have the proxy finish what runs, then exit.

    It takes no more clients from now on. Returns at once; a SIGTERM that follows changes nothing, the next one ends it.

    With --when-idle it goes on serving until its clients have left by themselves: what a pod wants whose app stops at
    the same moment and may need its Redis to the last.
    """
    if patience_s:
        _wait_until_idle(client, patience_s)
    answer = client.drain()
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{client.url} is draining; it exits when its clients are done")


def _wait_until_idle(client: AdminClient, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    is_said = False
    while (count := _connected(client)) != 0 and (left_s := deadline - time.monotonic()) > 0:
        if not is_said:
            known = "nobody says how many clients" if count is None else f"{count} clients"
            click.echo(f"{known} are connected: waiting until they have left", err=True)
            is_said = True
        time.sleep(min(_LOOK_S, left_s))


def _connected(client: AdminClient) -> int | None:
    """Return how many clients there are; None when nobody says, as while no worker answers."""
    clients = client.stats().get("clients")
    count = clients.get("connected") if isinstance(clients, dict) else None
    return count if isinstance(count, int) else None
