"""What people type: the commands, their flags, their exit codes; those about stored values are in `values.py`.

0 is fine, 1 failed at run time, 2 wrong usage or configuration. Only parses, asks and hands over: the proxy itself is
`proxy.app`, HTTP is `client.py`, what is drawn is `render.py`. What brings trio or rich along is imported by the
commands that need it, so that `respite check` in a script starts in a blink.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any, Final

import click

from proxy import __version__
from proxy.cli.client import AdminClient
from proxy.cli.completion import completion
from proxy.cli.dlq import dlq
from proxy.cli.doubts import dangers, doubts, unusable
from proxy.cli.drain import drain
from proxy.cli.events import events
from proxy.cli.hashing import hash_password
from proxy.cli.options import FAILED, WRONG, config_option, json_option, print_json, with_admin
from proxy.cli.stats import stats
from proxy.cli.values import invalidate, unwrap
from proxy.config.load import find_config, load_settings
from proxy.config.model import Settings
from proxy.errors import ConfigError, RespiteError

_UNWRITABLE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Of what a disk says: nothing that a command reads, or whom it asks, fails so."""


class _Respite(click.Group):
    """Turns our own errors, from any command, into words on stderr and the exit code they stand for."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as exc:
            click.echo(_problem_list(exc), err=True)
            ctx.exit(WRONG)
        except RespiteError as exc:
            click.echo(f"respite: {exc}", err=True)
            ctx.exit(FAILED)


@click.group(cls=_Respite, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="respite", message="%(prog)s %(version)s")
def cli() -> None:
    """Run and ask Respite, a sidecar cache proxy that speaks the Redis protocol.

    Point your app at redis://127.0.0.1:6380 instead of its Redis: hot reads are answered from memory that Redis itself
    keeps honest.
    """


@cli.command()
@config_option
@click.option("--listen", "listen", metavar="URL", multiple=True, help="Where clients connect; may be repeated.")
@click.option("--upstream", metavar="URL", help="The Redis behind: redis://, rediss:// or unix://.")
@click.option("--admin", metavar="URL", help='Where the admin port listens, http://HOST:PORT; "" for none.')
@click.option("--embedded", is_flag=True, help="Run a Redis of our own as the upstream; it keeps nothing on disk.")
@click.option("--workers", metavar="N", type=int, help="Worker processes behind one port; 1 needs no parent.")
@click.option("--replace", "replaces", is_flag=True, help="Take over from the proxy that serves these addresses.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="What is logged.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Lines for people or for machines.")
@click.pass_context
def run(
    ctx: click.Context,
    *,
    config_path: Path | None,
    listen: tuple[str, ...],
    upstream: str | None,
    admin: str | None,
    embedded: bool,
    workers: int | None,
    replaces: bool,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Run the proxy.

    Flags stand above RESPITE_LISTEN, RESPITE_UPSTREAM (else REDIS_URL), these above the file, the file above the
    defaults. SIGTERM and Ctrl-C finish what runs, then exit; a second one exits at once. SIGHUP reads the file again.

    With --replace a proxy of the same user that serves these addresses hands them over, once this one can serve:
    nobody is refused in between, and it finishes what it has begun. If this one cannot start, that one goes on. SIGUSR2
    has a running proxy do so with its own command. Where none runs, it is a start like any other.

    With --workers N, N processes share the addresses; one that dies is replaced. max_clients, pinned_connections and
    l1.max_bytes are for all of them together: each gets its share.
    """
    if embedded and upstream:
        raise click.UsageError("--embedded and --upstream name two upstreams; give one of them")
    overrides = {
        "listen.url": list(listen) or None,
        "listen.admin": admin,
        "listen.workers": workers,
        "upstream.url": "" if embedded else upstream,
        "log.level": log_level,
        "log.format": log_format,
    }

    def read() -> Settings:
        return load_settings(config_path, env=os.environ, overrides=overrides)

    settings = read()
    if replaces and settings.upstream.endpoint is None:
        raise click.UsageError("--replace needs an upstream: an embedded Redis ends with the proxy that runs it")
    for text in dangers(find_config(config_path, os.environ), settings, upstream or ""):
        click.echo(f"respite: warning: {text}", err=True)

    try:
        if settings.listen.workers > 1:
            from proxy.supervisor.parent import run as run_proxy  # noqa: PLC0415 - brings trio along
        else:
            from proxy.app import run as run_proxy  # noqa: PLC0415 - brings trio along

        code = run_proxy(settings, read, replaces=replaces)
    except KeyboardInterrupt:  # while all that was still coming along
        code = 0
    ctx.exit(code)


@cli.command(hidden=True)
@click.argument("fd", type=int)
@click.pass_context
def worker(ctx: click.Context, *, fd: int) -> None:
    """Be one of several workers, for the parent at the other end of the socket FD. `respite run` starts them."""
    from proxy.supervisor.child import run_worker  # noqa: PLC0415 - brings trio along

    ctx.exit(run_worker(fd))


@cli.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, *, config_path: Path | None, as_json: bool) -> None:
    """Show every problem of a configuration at once.

    Reads what `run` would read, the environment included, and starts nothing. Exit code 2 when there are problems.
    """
    found = find_config(config_path, os.environ)
    name = "the configuration (defaults and environment)" if found is None else str(found)
    try:
        settings = load_settings(config_path, env=os.environ, overrides={})
        if unfit := tuple(unusable(settings)):
            raise ConfigError(unfit)
    except ConfigError as exc:
        if not as_json:
            raise
        problems = [
            {"path": one.path, "value": one.value, "allowed": one.allowed, "nearest": one.nearest}
            for one in exc.problems
        ]
        print_json({"ok": False, "problems": problems})
        ctx.exit(WRONG)
    if as_json:
        print_json({"ok": True, "problems": [], "warnings": list(doubts(found, settings))})
    else:
        for text in doubts(found, settings):
            click.echo(f"respite: warning: {text}", err=True)
        click.echo(f"{name} is fine")


@cli.command()
@click.argument("key")
@json_option
@with_admin
def explain(client: AdminClient, *, key: str, as_json: bool) -> None:
    """Say why KEY is, or is not, served from memory."""
    answer = client.explain(os.fsencode(key))
    if as_json:
        print_json(answer)
    else:
        from proxy.cli import render  # noqa: PLC0415 - brings rich along

        render.make_console().print(render.draw_facts(answer))


@cli.command()
@json_option
@with_admin
@click.pass_context
def reload(ctx: click.Context, *, client: AdminClient, as_json: bool) -> None:
    """Have the proxy read its configuration file again.

    What can change while it runs applies at once; what cannot is named and waits for a restart. A file with problems
    changes nothing: they are shown, and the exit code is 2. It is 1 when a worker that hangs has not applied it yet.
    """
    answer = client.reload()
    is_partly = answer.get("partly", False)
    applied, waiting, problems = (answer.get(name) or [] for name in ("applied", "needs_restart", "problems"))
    if as_json:
        print_json(answer)
    elif problems:
        what = "the file is applied, but not everywhere" if is_partly else "the file has problems, nothing was changed"
        click.echo("\n".join([f"respite: {what}", *(f"  {_one_problem(one)}" for one in problems)]), err=True)
    else:
        click.echo(f"applied: {', '.join(applied) if applied else 'nothing has changed'}")
        if waiting:
            click.echo(f"needs a restart: {', '.join(waiting)}")
    ctx.exit(FAILED if is_partly else WRONG if problems else 0)


cli.add_command(hash_password)
cli.add_command(stats)
cli.add_command(invalidate)
cli.add_command(unwrap)
cli.add_command(events)
cli.add_command(dlq)
cli.add_command(drain)
cli.add_command(completion)


def main() -> None:
    """Run the command line and leave with its exit code; 1 with one line when what it says cannot be written."""
    try:
        cli(prog_name="respite")
    except OSError as exc:
        if exc.errno not in _UNWRITABLE:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python writes the rest when it ends
        click.echo(f"respite: the output cannot be written: {exc.strerror}", err=True)
        sys.exit(FAILED)


def _problem_list(error: ConfigError) -> str:
    count = len(error.problems)
    lines = [f"respite: the configuration has {count} problem{'s' if count > 1 else ''}"]
    for one in error.problems:
        hint = f"; did you mean {one.nearest}?" if one.nearest else ""
        lines += [f"  {one.path} = {one.value}", f"    {one.allowed}{hint}"]
    return "\n".join(lines)


def _one_problem(problem: object) -> str:
    if isinstance(problem, dict):
        hint = f"; did you mean {problem['nearest']}?" if problem.get("nearest") else ""
        return f"{problem.get('path')} = {problem.get('value')}: {problem.get('allowed')}{hint}"
    return str(problem)
