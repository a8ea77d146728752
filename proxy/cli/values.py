"""The commands about stored values: drop them from both tiers, take their envelopes off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.cli.client import AdminClient
from proxy.cli.options import DATABASE, FAILED, config_option, json_option, print_json, with_admin
from proxy.config.load import load_settings
from proxy.errors import RemoteError

if TYPE_CHECKING:
    from proxy.net.values.unwrapping import Progress


@click.command()
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--match", "patterns", metavar="GLOB", multiple=True, help="All keys that GLOB takes; may be repeated.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="All keys that carry TAG; may be repeated.")
@click.option("--db", metavar="N", type=DATABASE, help="Their database; without it that of upstream.url.")
@json_option
@with_admin
def invalidate(
    client: AdminClient,
    *,
    keys: tuple[str, ...],
    patterns: tuple[str, ...],
    tags: tuple[str, ...],
    db: int | None,
    as_json: bool,
) -> None:
    """Drop KEYs, globs and tags from both tiers: from Redis, and from the memory of every proxy.

    When it returns nobody is given the old values any more. Those of globs and tags are taken out of Redis in the
    background.
    """
    if not (keys or patterns or tags):
        raise click.UsageError("nothing to drop; name a KEY, --match GLOB or --tag TAG")
    if "" in patterns or "" in tags:
        raise click.UsageError("a --match or --tag of no characters takes nothing")
    event: dict[str, Any] = {"keys": list(keys), "patterns": list(patterns), "tags": list(tags)}
    if db is not None:
        event["db"] = db
    dropped = client.invalidate(event)
    if as_json:
        print_json(dropped)
        return
    if keys:
        click.echo(f"Redis:  {_figure(dropped, 'keys')} of {_many(len(set(keys)), 'key')} unlinked")
    if patterns or tags:
        fences = len(set(patterns)) + len(set(tags))
        click.echo(
            f"Redis:  {_figure(dropped, 'fences')} of {_many(fences, 'fence')} in force; "
            f"the bodies behind are swept in the background"
        )
    entries = "entry" if dropped.get("entries") == 1 else "entries"
    click.echo(f"memory: {_figure(dropped, 'entries')} {entries} dropped; other proxies hear of it through Redis")


@click.command()
@click.option("--match", "glob", metavar="GLOB", required=True, help="Which keys; '*' is all of them.")
@click.option("--dry-run", "is_dry", is_flag=True, help="Change nothing; only count.")
@click.option(
    "--rate",
    metavar="N",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="Keys looked at a second, at most.",
)
@click.option("--from-start", is_flag=True, help="Do not go on from where the last run stopped.")
@click.option("--upstream", metavar="URL", help="The Redis itself: redis://, rediss:// or unix://.")
@click.option("--db", metavar="N", type=DATABASE, help="The database; without it that of the URL.")
@config_option
@json_option
@click.pass_context
def unwrap(
    ctx: click.Context,
    *,
    glob: str,
    is_dry: bool,
    rate: int,
    from_start: bool,
    upstream: str | None,
    db: int | None,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Rewrite enveloped values in Redis to plain ones: the way back.

    Set rollout.write_envelopes = false first, or proxies go on wrapping what they write. Safe while clients write; TTLs
    stay. Ctrl-C stops after what runs; the same command then goes on from there. What cannot be opened is named and
    left as it is: exit code 1.
    """
    if not glob:
        raise click.UsageError("a --match of no characters takes nothing; '*' is all keys")
    settings = load_settings(config_path, env=os.environ, overrides={"upstream.url": upstream}).upstream
    if settings.endpoint is None:
        raise click.UsageError("no Redis is configured; name it with --upstream URL, RESPITE_UPSTREAM or -c FILE")

    from proxy.cli.progress import make_meter  # noqa: PLC0415 - brings rich along
    from proxy.net.values.unwrapping import Job, unwrap  # noqa: PLC0415 - brings trio along

    database = settings.endpoint.db if db is None else db
    job = Job(os.fsencode(glob), database, rate, is_dry, from_start)
    try:
        with make_meter(is_quiet=as_json) as meter:
            progress = unwrap(settings, job, meter.show)
    except RemoteError as exc:
        raise RemoteError(f"{settings.endpoint.display}: {exc}") from exc
    if as_json:
        print_json(_facts(progress))
    else:
        _tell(progress, is_dry=is_dry)
    ctx.exit(0 if progress.is_finished and not progress.left else FAILED)


def _tell(progress: Progress, *, is_dry: bool) -> None:
    saved = "would be " if is_dry else ""
    if progress.has_resumed:
        click.echo("respite: went on where the last run stopped; --from-start looks at what lies before, too", err=True)
    click.echo(
        f"{progress.unwrapped:,} of {_many(progress.keys, 'value')} {saved}unwrapped: "
        f"{progress.stored_bytes:,} bytes became {progress.raw_bytes:,}"
    )
    left = progress.damaged + progress.ambiguous + progress.contended
    if left:
        click.echo(f"respite: {_many(left, 'value')} left as they are", err=True)
        for key, why in progress.left:
            click.echo(f"  {key.decode('utf-8', 'backslashreplace')!r}: {why}", err=True)
        if left > len(progress.left):
            click.echo(f"  and {left - len(progress.left):,} more", err=True)
    if not progress.is_finished:
        go_on = "" if is_dry else "; the same command goes on from there"
        click.echo(f"respite: stopped at {progress.share:.0%}{go_on}", err=True)


def _facts(progress: Progress) -> dict[str, Any]:
    return {
        "finished": progress.is_finished,
        "resumed": progress.has_resumed,
        "share": round(progress.share, 6),
        "keys": progress.keys,
        "unwrapped": progress.unwrapped,
        "stored_bytes": progress.stored_bytes,
        "raw_bytes": progress.raw_bytes,
        "damaged": progress.damaged,
        "ambiguous": progress.ambiguous,
        "contended": progress.contended,
        "left": [{"key": key.decode("utf-8", "backslashreplace"), "why": why} for key, why in progress.left],
    }


def _figure(dropped: dict[str, Any], name: str) -> str:
    value = dropped.get(name)
    return f"{value:,}" if isinstance(value, int) else "?"


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"
