"""The outbox as the relay sees it, and how full it is as those see it who write.

    relay --read, remove, lease--> NoticeStore --EVAL on database 0--> the outboxes of all databases
    every second, every worker: XLEN of the outboxes it writes to --> Notices.full

Owns which databases are looked into: those that have keys at all (INFO keyspace), and those that this worker writes to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from proxy.errors import RemoteError
from proxy.events.notices import BODY, CLASS, FULL_AT, LEASE_KEY, MISSED_KEY, OUTBOX_KEY, Batch, Entry
from proxy.log import get_logger
from proxy.net.reactor import Reactor
from proxy.net.values.invalidator import Invalidator, ask
from proxy.values import outbox
from proxy.wire.encode import command
from proxy.wire.reply import elements, text

if TYPE_CHECKING:
    from proxy.core.notices import Notices

DATABASES_S: Final = 1.0
LOOK_S: Final = 1.0
ROOM_AT: Final = 0.9  # of FULL_AT: below it, writes are announced by key again
_KEYSPACE: Final = re.compile(rb"^db(\d+):", re.MULTILINE)
log = get_logger("notices")


class RedisNoticeStore:
    """The `NoticeStore` of one worker. `db` is one that is looked into whatever INFO says."""

    def __init__(
        self, reactor: Reactor, invalidator: Invalidator, notices: Notices, *, db: int, full_at: int = FULL_AT
    ) -> None:
        self._reactor = reactor
        self._invalidator = invalidator
        self._notices = notices
        self._full_at = full_at
        self._databases: set[int] = {db}
        self._databases_at = float("-inf")

    async def lease(self, token: str, ttl_ms: int) -> bool:
        """Take the lease, or keep it."""
        return await self._ask(0, outbox.lease(LEASE_KEY, token, ttl_ms)) == b":1\r\n"

    async def release(self, token: str) -> None:
        """Give the lease back."""
        await self._ask(0, outbox.release(LEASE_KEY, token))

    async def read(self, most: int) -> Batch:
        """Return the oldest entries."""
        dbs = sorted(await self._look_for_databases())
        reply = await self._ask(0, outbox.read(OUTBOX_KEY, MISSED_KEY, dbs, most=most, full_at=self._full_at))
        entries: list[Entry] = []
        depth, oldest_ms = 0, 0
        for row in elements(reply):
            db, length, age, found = elements(row)
            depth += int(text(length))
            oldest_ms = max(oldest_ms, int(text(age)))
            entries += [_entry(int(text(db)), one) for one in elements(found)]
        return Batch(tuple(sorted(entries, key=lambda entry: entry.at_ms)), depth, oldest_ms / 1000)

    async def remove(self, entries: Sequence[Entry]) -> None:
        """Remove entries."""
        by_db: dict[int, list[bytes]] = {}
        for entry in entries:
            by_db.setdefault(entry.db, []).append(entry.id)
        for db, ids in by_db.items():
            await self._ask(0, outbox.remove(OUTBOX_KEY, db, ids))

    async def watch(self) -> None:
        """Look how full the outboxes are that this worker writes to, and pay what is owed to them, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            await self.pay()
            for db in sorted(self._notices.databases):
                try:
                    length = int(text(await self._ask(db, command("XLEN", OUTBOX_KEY))))
                except (RemoteError, ValueError):
                    continue  # away: the next time
                self._judge(db, length)

    async def pay(self) -> None:
        """Put into the outboxes what is owed to them; what cannot be, stays owed."""
        for place, raw in list(self._notices.owed.items()):
            with suppress(RemoteError):  # away, or still without memory: the next time
                await self._ask(place[0], raw)
                self._notices.paid(place, raw)

    def _judge(self, db: int, length: int) -> None:
        full = self._notices.full
        if db not in full and length >= self._full_at:
            full.add(db)
            log.warning("the outbox is full: writes are announced by class", db=db, entries=length)
        elif db in full and length < self._full_at * ROOM_AT:
            full.discard(db)
            log.info("the outbox has room again: writes are announced by key", db=db, entries=length)

    async def _look_for_databases(self) -> set[int]:
        now = trio.current_time()
        if now - self._databases_at >= DATABASES_S:
            try:
                found = _KEYSPACE.findall(await self._ask(0, command("INFO", "keyspace")))
            except RemoteError as exc:
                if not str(exc).startswith("NOPERM"):
                    raise
                found = []  # it is not for us to know: those that this worker writes to, then
            self._databases |= set(map(int, found))
            self._databases_at = now
        return self._databases | self._notices.databases

    async def _ask(self, db: int, raw: bytes) -> bytes:
        return await ask(self._reactor, self._invalidator, db, raw)


def _entry(db: int, frame: bytes) -> Entry:
    id_, fields = elements(frame)
    if fields[:1] != b"*" or fields[:2] == b"*-":
        return Entry(db, text(id_), "", b"")
    words = [text(one) for one in elements(fields)]
    named = dict(zip(words[::2], words[1::2], strict=False))
    return Entry(db, text(id_), named.get(CLASS, b"").decode("utf-8", "replace"), named.get(BODY, b""))
