"""`respite hash-password`: from a password to what `listen.users` keeps of it."""

from __future__ import annotations

import os
import secrets
import sys

import click

from proxy.cli.options import WRONG
from proxy.config.passwords import SALT_BYTES, PasswordHash


@click.command("hash-password")
@click.pass_context
def hash_password(ctx: click.Context) -> None:
    """Print what listen.users may keep instead of a password.

    Asks for it twice, or reads one line of standard input where that is no terminal: a password on the command line
    could be read by every user of the machine.
    """
    if sys.stdin.isatty():
        password = os.fsencode(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        password = sys.stdin.buffer.readline().rstrip(b"\r\n")  # bytes: of whatever alphabet they are
    if not password:
        click.echo("respite: an empty password lets everybody in", err=True)
        ctx.exit(WRONG)
    click.echo(str(PasswordHash.make(password, secrets.token_bytes(SALT_BYTES))))
