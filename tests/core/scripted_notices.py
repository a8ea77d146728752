"""Worlds whose writes are announced, and what Redis answers to that."""

from __future__ import annotations

import json
from typing import Any

from proxy.core.figures.stats import Stats
from proxy.core.notices import NoticeCounts, Notices
from proxy.core.pipeline import Pipeline
from proxy.wire.commands import CommandSpec
from proxy.wire.encode import bulk, command
from proxy.wire.request import Request

from .scripted import ScriptedServices
from .scripted_values import TABLE, Pinned, ScriptedLink, Shared, ValueClient, spec_of, words

OK, QUEUED, NIL = b"+OK\r\n", b"+QUEUED\r\n", b"$-1\r\n"
ID = bulk(b"1700000000000-0")
NOPERM = b"-NOPERM No permissions to access a key\r\n"
OOM = b"-OOM command not allowed\r\n"
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
ABORT = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
ALLOWED = (
    b"-ERR EXEC without MULTI\r\n",
    b"-ERR The ID specified in XADD must be greater than 0-0\r\n",
    b":0\r\n",
    b":0\r\n",
)


def unproven(world: Shared) -> Any:
    """Return who announces for a world, and knows nothing of its user yet."""
    return Notices(world.engine, world.values, NoticeCounts(), token="t")


def announcing(world: Shared) -> Any:
    """Have a world announce its writes; its user is known to be allowed to."""
    world.values.notices = notices = unproven(world)
    notices.judge((b"u", 0), ALLOWED)
    if isinstance(world, Pinned):
        world.pinned_commands.notices = notices
    return notices


class Parkable(ValueClient):
    """A client whose commands may have to wait."""

    def __init__(self, link: ScriptedLink) -> None:
        super().__init__(link)
        self.muting = self.ended = False
        self.parked = ""
        self.waiting: list[list[bytes]] = []

    def park(self, why: str, requests: list[Request]) -> None:
        """Keep commands."""
        self.parked = why
        self.waiting += [args for args, _ in requests]


class Whole(Shared):
    """A client of a shared link, and all of the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        services = ScriptedServices()
        services.table = TABLE
        self.pipeline = Pipeline(self.engine, Stats(), services)
        self.pipeline.take_values(self.values)
        self.client: Any = Parkable(self.link)

    def run(self, *lines: str) -> None:
        """Route commands."""
        requests: list[Request] = [(words(line), command(*words(line))) for line in lines]
        self.pipeline.run(self.client, requests)


def spoken(line: str) -> tuple[CommandSpec, list[bytes], int]:
    """Return what a notice is made of."""
    args = words(line)
    return spec_of(args), args, 0


def bodies(asked: list[list[bytes]]) -> list[tuple[str, dict[str, Any]]]:
    """Return (class, event) of each notice in commands."""
    return [(one[4].decode(), json.loads(one[6])) for one in asked if one[0] == b"XADD"]
