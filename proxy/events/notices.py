"""The outbox: notices of writes, in Redis, on their way to the broker. What both ends of it agree on.

    a write and its notice --MULTI .. EXEC--> stream respite:outbox, in the write's database --relay--> broker, XDEL
    outbox full            --MULTI .. EXEC--> hash respite:outbox:missed: of a class and database, one notice for all
                                              of its keys; it moves into the stream when there is room again

Owns names, limits, figures and the contract of the relay with the Redis side; nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import attrs

OUTBOX_KEY: Final = b"respite:outbox"
MISSED_KEY: Final = b"respite:outbox:missed"
LEASE_KEY: Final = b"respite:outbox:lease"
CLASS: Final = b"c"
BODY: Final = b"e"
"""The fields of an entry: the name of the class, and the event as JSON."""

EXCHANGE: Final = "respite.changes"
"""Where changes are announced: a durable topic exchange; the routing key is the name of the class."""

FULL_AT: Final = 1_000_000
"""Entries of one database, 200 to 300 MB, at which writes begin to be announced by class instead of by key."""


@attrs.frozen
class Entry:
    """One notice in the outbox of a database. `body` b"" and `topic` "" where it is none of ours."""

    db: int
    id: bytes
    topic: str
    body: bytes

    @property
    def at_ms(self) -> int:
        """When it entered the outbox, by the server's clock, in milliseconds since 1970."""
        head = self.id.partition(b"-")[0]
        return int(head) if head.isdigit() else 0


@attrs.frozen
class Batch:
    """The oldest entries of every database, by their time; how many there are in all, and the age of the oldest."""

    entries: tuple[Entry, ...]
    depth: int
    oldest_s: float


class NoticeStore(Protocol):
    """The Redis side of the relay. Everything raises RemoteError while Redis cannot be asked, or refuses."""

    async def lease(self, token: str, ttl_ms: int) -> bool:
        """Take the lease, or keep it; False while another relay has it."""
        ...

    async def release(self, token: str) -> None:
        """Give the lease back, if it is still this one's."""
        ...

    async def read(self, most: int) -> Batch:
        """Return up to `most` entries a database; of one that is full, what was missed is moved in once there is room.

        None that are so young that the write which they belong to may just be being withdrawn.
        """
        ...

    async def remove(self, entries: Sequence[Entry]) -> None:
        """Remove entries that have been published."""
        ...


@attrs.define
class RelayFigures:
    """What the relay of this process has done since it started."""

    state: str = "off"
    """off, connecting, standby (another one has the lease), relaying, redis away, misconfigured."""
    why: str = ""
    depth: int = 0
    oldest_s: float = 0.0
    published: int = 0
    failed: int = 0
    """Times that the broker refused a notice, or was lost with it under way: each is published again."""
    foreign: int = 0
    """Entries removed that were none of ours."""

    def report(self) -> dict[str, Any]:
        """Return them as stats.json has them."""
        return {
            "state": self.state,
            "why": self.why,
            "depth": self.depth,
            "oldest_s": round(self.oldest_s, 3),
            "published_total": self.published,
            "failed_total": self.failed,
            "foreign_total": self.foreign,
        }
