"""The commands about events: what one would do, and which go by."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Final

import click

from proxy.cli.broker import amqp_option, settings_with_broker
from proxy.cli.meaning import explain, meaning_in_a_line, meaning_lines
from proxy.cli.options import FAILED, config_option, json_option, print_json
from proxy.cli.plain import be_lenient, printable
from proxy.config.load import load_settings
from proxy.config.topics import check_topic
from proxy.events.mapping import Mapper
from proxy.events.message import Message
from proxy.events.payload import BODY_MAX_BYTES

_KEY_WIDTH: Final = 24


@click.group()
def events() -> None:
    """Try out and watch the events that tell of changes."""


@events.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--routing-key", metavar="KEY", default="", help="The routing key it comes with, which [[event]] rules go by."
)
@click.option("--header", "headers", metavar="NAME=VALUE", multiple=True, help="A header; may be repeated.")
@click.option("--content-type", metavar="TYPE", default="", help="Its content type, as application/cloudevents+json.")
@click.option("--content-encoding", metavar="ENCODING", default="", help="How its body is packed: gzip, or not.")
@config_option
@json_option
@click.pass_context
def test(
    ctx: click.Context,
    *,
    file: IO[bytes],
    routing_key: str,
    headers: tuple[str, ...],
    content_type: str,
    content_encoding: str,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Say what the event in FILE would drop; - is stdin.

    Asks neither broker nor Redis, and drops nothing. Exit code 1, and the reason, if it would be a dead letter.
    """
    pairs = [one.partition("=") for one in headers]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise click.UsageError(f"--header {wrong[0]}: it is written NAME=VALUE")
    settings = load_settings(config_path, env=os.environ, overrides={})
    message = Message(
        body=file.read(BODY_MAX_BYTES + 1),
        routing_key=routing_key,
        headers={name: value for name, _, value in pairs},
        content_type=content_type,
        content_encoding=content_encoding,
    )
    facts = explain(settings, message)
    if as_json:
        print_json(facts)
    elif facts["reason"]:
        click.echo(f"respite: it would be a dead letter: {printable(facts['reason'])}", err=True)
    else:
        be_lenient()
        for line in meaning_lines(settings, message):
            click.echo(line)
    ctx.exit(FAILED if facts["reason"] else 0)


@events.command()
@click.option(
    "--routing-key",
    "binding_keys",
    metavar="PATTERN",
    multiple=True,
    default=("#",),
    show_default=True,
    help="Only what comes by such a key: * is a word, # any number of them; may be repeated.",
)
@amqp_option
@config_option
@json_option
def tail(*, binding_keys: tuple[str, ...], amqp_url: str | None, config_path: Path | None, as_json: bool) -> None:
    """Show events as they are published, a line each, until Ctrl-C.

    Listens beside the proxies, with a queue of its own that goes when it ends: they get every event all the same. What
    is published while the broker cannot be reached is not seen.
    """
    for binding_key in binding_keys:
        try:
            check_topic(binding_key)
        except ValueError as exc:
            raise click.UsageError(f"--routing-key: {exc}") from None
    settings = settings_with_broker(config_path, amqp_url)
    from proxy.amqp.watch import tail as watch  # noqa: PLC0415 - brings trio along

    mapper = Mapper(settings.events)
    be_lenient()

    def show(message: Message) -> None:
        click.echo(_json_line(mapper, message) if as_json else _line(mapper, message))

    def tell(text: str) -> None:
        click.echo(f"respite: {printable(text)}", err=True)

    watch(settings.amqp, binding_keys, show, tell)


def _line(mapper: Mapper, message: Message) -> str:
    now = datetime.now()
    meaning = meaning_in_a_line(mapper.explain(message))
    return f"{now:%H:%M:%S}.{now.microsecond // 1000:03}  {printable(message.routing_key):{_KEY_WIDTH}}  {meaning}"


def _json_line(mapper: Mapper, message: Message) -> str:
    seen: dict[str, Any] = {"routing_key": message.routing_key, "size_bytes": len(message.body)}
    return json.dumps(seen | mapper.explain(message))
