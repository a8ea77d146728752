"""`conf/commands.md`, which commands L1 answers: `python -m tests.wire.command_docs` writes it, test_reads checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hiredis

from proxy.wire.reads import verdict

from ..e2e.servers import Server, find_kind

PATH = Path(__file__).resolve().parents[2] / "conf" / "commands.md"
SERVERS = ("redis7", "valkey9")
HEAD = """\
# Which commands L1 answers

L1 keeps the replies of reads that depend on one key and on nothing else. Everything not marked as cached here, commands
of modules and of newer servers too, goes to Redis each time; `l1.cache_commands` adds reads of modules.

- All replies hang on their key: a change of the key, whoever makes it, drops all of them, in every protocol and
  database.
- A missing key is remembered as well. Errors never are, nor are values above `l1.max_value_bytes`: those are streamed
  past L1.
- Reads about hashes are kept as long as no field of any hash has an end of its own (HEXPIRE and its like): PTTL of the
  key would not tell it. Respite looks once a second; `hash_fields_expire` in `/stats.json` says what it found.
- Inside MULTI, and on a connection with WATCH, a subscription or tracking of its own, Redis alone answers.

The commands are those of Redis 7.0 and Valkey 9.

| command | L1 |
| --- | --- |
"""


def commands_of(server: Server) -> Mapping[str, Sequence[str]]:
    """Map each command of a server to its flags."""
    with server.connect() as client:
        rows = _decoded(client.command("COMMAND"))
    return {row[0].decode().upper(): [flag.decode() for flag in row[2]] for row in rows}


def _decoded(raw: bytes) -> Any:
    reader = hiredis.Reader()
    reader.feed(raw)
    return reader.gets()


def verdicts(servers: Iterable[str] = SERVERS) -> dict[str, str]:
    """Return the verdict on every command of these servers."""
    found: dict[str, str] = {}
    for name in servers:
        with Server(find_kind(name)) as server:
            for command, flags in commands_of(server).items():
                found[command] = verdict(command.encode(), flags)
    return dict(sorted(found.items()))


def text(found: Mapping[str, str]) -> str:
    """Write the page."""
    return HEAD + "".join(f"| {command} | {told} |\n" for command, told in found.items())


if __name__ == "__main__":
    PATH.write_text(text(verdicts()), encoding="utf-8")
