"""What several commands have in common: flags, exit codes, the form of JSON."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from proxy.cli.client import AdminClient

FAILED: Final = 1
WRONG: Final = 2
DATABASE: Final = click.IntRange(0, 2**31 - 1)
"""The number of a database; Redis takes no larger one, however many it has."""

config_option: Final = click.option(
    "-c",
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Configuration file, TOML. Without one the defaults hold.  [env var: RESPITE_CONFIG]",
)
json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


def with_admin(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags `--admin` and `--token`, and as its first argument the client they describe."""

    @click.option(
        "--admin",
        "admin_url",
        metavar="URL",
        envvar="RESPITE_ADMIN",
        default="http://127.0.0.1:6390",
        show_default=True,
        show_envvar=True,
        help="Admin port of the running proxy.",
    )
    @click.option(
        "--token",
        metavar="TOKEN",
        envvar="RESPITE_ADMIN_TOKEN",
        default="",
        show_envvar=True,
        help="Its listen.admin_token, where it has one.",
    )
    @functools.wraps(command)
    def asking(*args: Any, admin_url: str, token: str, **options: Any) -> None:
        try:
            client = AdminClient.at(admin_url, token)
        except ValueError as exc:
            raise click.UsageError(f"--admin {admin_url}: {exc}") from exc
        command(*args, client=client, **options)

    return asking


def print_json(value: object) -> None:
    """Print a whole answer."""
    click.echo(json.dumps(value, indent=2))
