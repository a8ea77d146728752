"""What the commands about the broker have in common: which one they ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from proxy.config.load import load_settings
from proxy.config.model import Settings

amqp_option: Final = click.option("--amqp", "amqp_url", metavar="URL", help="The broker: amqp:// or amqps://.")


def settings_with_broker(config_path: Path | None, amqp_url: str | None) -> Settings:
    """Read the configuration; of flags, environment and file, the first that names a broker does.

    Raises ConfigError; UsageError when none does.
    """
    settings = load_settings(config_path, env=os.environ, overrides={"amqp.url": amqp_url})
    if not settings.amqp.urls:
        raise click.UsageError("no broker is configured; name it with --amqp URL, RESPITE_AMQP or -c FILE")
    return settings
