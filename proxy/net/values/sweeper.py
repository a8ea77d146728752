"""The sweeper: removes from Redis what fences say is gone, at a bounded rate, and lifts the fences behind which all is.

    fences in force --> who gets the lease sweeps: SCAN, for each key that is covered UNLINK (older, or of no version)
                    --> all keys seen since a fence was set: it is lifted, everywhere

Owns the pace and the lease; several proxies may run, one of them sweeps. A fence needs no sweep to be in force: what
carries a version is judged whenever it is read. Values without one, and those of other types, are gone when the sweep
has passed them - also those that were written behind the fence, for nothing in them tells.
"""

from __future__ import annotations

import os
from typing import Final

import attrs
import trio

from proxy.core.coordinator import is_no_database
from proxy.core.fencing import Fencing
from proxy.errors import RemoteError
from proxy.log import get_logger
from proxy.net.reactor import Reactor
from proxy.net.values.invalidator import Invalidator, ask
from proxy.values.changes import end_fences
from proxy.values.fences import Fence
from proxy.values.rules import OWN_KEYS
from proxy.values.scripts import sweep
from proxy.wire.encode import command
from proxy.wire.reply import elements, text

LEASE_KEY: Final = b"respite:sweeping"
LEASE_MS: Final = 15_000
SCAN_COUNT: Final = 500
KEYS_A_SECOND: Final = 50_000  # looked at; what a SCAN and its UNLINKs leave of Redis for the others
KEYS_A_CALL: Final = 25  # Redis does nothing else meanwhile
ENDED_A_CALL: Final = 1_000
LOOK_EVERY_S: Final = 0.5
log = get_logger("sweeper")


@attrs.define
class SweepFigures:
    """Counted by one worker since it started; `running` and `share` are of the sweep under way."""

    running: bool = False
    share: float = 0.0  # of the keys of its database that it has looked at
    scanned: int = 0
    unlinked: int = 0
    passes: int = 0


class Sweeper:
    """Sweep while there are fences. One a worker."""

    def __init__(self, invalidator: Invalidator, fencing: Fencing, reactor: Reactor) -> None:
        self.figures = SweepFigures()
        self._invalidator = invalidator
        self._fencing = fencing
        self._reactor = reactor
        self._token = os.urandom(8).hex().encode()

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            if not len(self._fencing.fences):
                continue
            try:
                if await self._lease("NX"):
                    await self._sweep()
                    await self._ask(0, command("DEL", LEASE_KEY))
            except RemoteError as exc:
                log.debug("sweep broken off", why=str(exc))
            finally:
                self.figures.running = False

    async def _sweep(self) -> None:
        fences = list(self._fencing.fences)
        self.figures.running = True
        broken: RemoteError | None = None
        for db in sorted({fence.db for fence in fences}):
            try:
                await self._pass(db)
            except RemoteError as exc:
                if not is_no_database(f"-{exc}".encode()):  # else there is nothing behind its fences
                    broken = exc  # fences of others must not stay in force for it
                    continue
            swept = [fence for fence in fences if fence.db == db]
            for at in range(0, len(swept), ENDED_A_CALL):
                await self._end(swept[at : at + ENDED_A_CALL])
        if broken is not None:
            raise broken
        self.figures.passes += 1
        log.debug("swept", fences=len(fences), unlinked_total=self.figures.unlinked)

    async def _pass(self, db: int) -> None:
        """Look at every key of a database."""
        size = int((await self._ask(db, command("DBSIZE")))[1:])
        cursor, seen = b"0", 0
        began = leased_at = trio.current_time()
        while True:
            reply = elements(await self._ask(db, command("SCAN", cursor, "COUNT", SCAN_COUNT)))
            cursor, keys = text(reply[0]), [text(key) for key in elements(reply[1])]
            await self._remove(db, keys)
            seen += max(len(keys), 1)
            self.figures.scanned += len(keys)
            self.figures.share = min(seen / size, 1.0) if size else 1.0
            if cursor == b"0":
                return
            await trio.sleep(max(0.0, began + seen / KEYS_A_SECOND - trio.current_time()))
            if trio.current_time() - leased_at > LEASE_MS / 3000:
                leased_at = trio.current_time()
                await self._lease("XX")

    async def _remove(self, db: int, keys: list[bytes]) -> None:
        """Unlink those of some keys that are covered."""
        fencing = self._fencing
        due = [
            (key, version)
            for key in keys
            if not key.startswith(OWN_KEYS) and (version := fencing.fences.version_over(db, key, fencing.find(key)))
        ]
        for at in range(0, len(due), KEYS_A_CALL):
            reply = await self._ask(db, sweep(due[at : at + KEYS_A_CALL]))
            self.figures.unlinked += int(reply[1:])

    async def _end(self, fences: list[Fence]) -> None:
        await self._ask(0, end_fences(fences))
        for fence in fences:  # the announcement comes, too; but only where it can be heard
            self._fencing.fences.remove(fence.db, fence.kind, fence.text, fence.version)

    async def _lease(self, only: str) -> bool:
        raw = command("SET", LEASE_KEY, self._token, only, "PX", LEASE_MS)
        if (await self._ask(0, raw))[:1] == b"+":
            return True
        return text(await self._ask(0, command("GET", LEASE_KEY))) == self._token  # left by a sweep that broke off

    async def _ask(self, db: int, raw: bytes) -> bytes:
        return await ask(self._reactor, self._invalidator, db, raw)
