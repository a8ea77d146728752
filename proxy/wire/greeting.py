"""What a server says of itself when the invalidation link is opened: INFO, COMMAND, CLIENT ID and CLIENT INFO."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs
import hiredis

from proxy.errors import HandshakeError, RemoteError
from proxy.wire.commands import CommandTable
from proxy.wire.encode import command

INFO_SERVER: Final = command("INFO", "server")
QUESTIONS: Final = (INFO_SERVER, command("COMMAND"), command("CLIENT", "ID"), command("CLIENT", "INFO"))
CLIENT_FIELDS: Final = ("id", "addr", "laddr", "fd", "name", "age", "idle", "flags", "db", "sub", "psub", "cmd", "user")
"""What a line of CLIENT LIST shows where the server does not show its own."""
_RUN_ID: Final = re.compile(rb"\nrun_id:(\w+)")
_VERSION: Final = re.compile(rb"(redis|valkey)_version:([0-9]+(?:\.[0-9]+)*)")


@attrs.frozen
class Greeting:
    """A server's answers, understood.

    `version` is the Redis version it claims to be, `run_id` names the running process, `client_id` is 0 if unknown.
    """

    server: str
    run_id: bytes
    version: tuple[int, ...]
    table: CommandTable
    client_id: int
    client_fields: tuple[str, ...]


def read_greeting(raw: list[bytes], also_cached: Sequence[str] = ()) -> Greeting:
    """Read the raw replies to `QUESTIONS`.

    Raises HandshakeError when the server refuses to say what it is, RemoteError when it answers as no Redis does.
    """
    try:
        reader = hiredis.Reader()
        reader.feed(b"".join(raw))
        info, rows, client_id, client_info = [reader.gets() for _ in raw]
        for refused, words in ((info, raw[0]), (rows, raw[1])):
            if isinstance(refused, hiredis.ReplyError):
                raise HandshakeError(words)
        found = {name: text.decode() for name, text in _VERSION.findall(info)}
        version = found.get(b"redis", "0")
        return Greeting(
            server=f"valkey {found[b'valkey']}" if b"valkey" in found else f"redis {version}",
            run_id=run_id_of(info),
            version=tuple(int(part) for part in version.split(".")),
            table=CommandTable.from_reply(rows, also_cached),
            client_id=client_id if isinstance(client_id, int) else 0,
            client_fields=_fields(client_info),
        )
    except RemoteError:
        raise
    except Exception as exc:  # whatever shape the answers had
        raise RemoteError(f"the upstream does not answer as a Redis: {exc}") from exc


def run_id_of(info: bytes) -> bytes:
    """Return what a reply to INFO, raw or decoded, calls this run of the server; b"" where it says nothing."""
    found = _RUN_ID.search(info)
    return found[1] if found else b""


def _fields(line: object) -> tuple[str, ...]:
    """Return the names in a line of CLIENT INFO."""
    if not isinstance(line, bytes):
        return CLIENT_FIELDS
    return tuple(field.partition("=")[0] for field in line.decode("utf-8", "replace").split()) or CLIENT_FIELDS
