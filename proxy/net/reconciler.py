"""The memory of a worker and the links: who was let in, on which link Redis is told, and the end of a worker.

Owns the groups that are kept open because something is held for their user and database: nobody else may use them any
more, and yet Redis has to be told. What is taken is `core.outage.offline.memory`'s, what Redis is told `.settling`'s.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import trio
from cachetools import LRUCache

from proxy.cache.entry import Scope
from proxy.core.figures.stats import MetricFamily
from proxy.core.outage.offline.figures import families
from proxy.core.outage.offline.knowledge import Where
from proxy.core.outage.offline.memory import Memory
from proxy.core.outage.offline.settling import Settling
from proxy.log import get_logger
from proxy.net.clients.placement import PlacedClient
from proxy.wire.encode import command

if TYPE_CHECKING:
    from proxy.config.model import Settings
    from proxy.core.downstream import Downstream
    from proxy.core.session import Identity
    from proxy.net.links.link import Link
    from proxy.net.links.upstream import Group
    from proxy.net.values.value_layer import ValueLayer
    from proxy.net.worker import Worker

_PROTOCOLS: Final = (2, 3)
_NOT_LET_IN: Final = (b"-WRONGPASS", b"-NOAUTH", b"-NOPERM")
SCOPES_MAX: Final = 1024
CUT_MAX: Final = 16  # links of one user and database, lost within one outage
_LOOK_S: Final = 0.01
log = get_logger("offline")


class Reconciler:
    """`core.outage.offline.memory.Ways` of a worker, and the memory itself."""

    def __init__(self, worker: Worker, layer: ValueLayer) -> None:
        self._worker = worker
        self._groups: dict[Where, Group] = {}
        self._cut: LRUCache[Where, tuple[tuple[int, bytes], ...]] = LRUCache(SCOPES_MAX)
        outage = worker.engine.outage
        self.memory = Memory(worker.engine, layer.clock, self, worker.settings.outage.memory_bytes)
        self.settling = Settling(self.memory, layer.values)
        self.memory.on_holding = self._holding
        outage.memory = self.memory
        outage.on_linked.append(self.settling.linked)
        worker.links.on_cut = worker.pool.on_cut = self._cut_off

    def apply(self, settings: Settings) -> None:
        """Take the settings that may change while running; what is held stays held."""
        self.memory.room.max_bytes = settings.outage.memory_bytes

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self.memory.places:
            self.settling.tick(now)

    async def settle(self, timeout_s: float) -> None:
        """Wait until Redis has been told of everything, or so long; say what is lost then."""
        with trio.move_on_after(timeout_s):
            while self.memory.places:
                await trio.sleep(_LOOK_S)
        self._worker.reactor.enter()
        self.settling.end()
        self._worker.reactor.flush()

    def report(self) -> dict[str, Any]:
        """Return the section `offline` of the report."""
        return self.memory.report()

    def families(self) -> list[MetricFamily]:
        """Return its metrics."""
        return families(self.memory)

    def _holding(self) -> None:
        """Let the pipeline ask the memory about each command while it holds anything."""
        self._worker.pipeline.memory = self.memory if self.memory.places else None

    def _cut_off(self, scope: Scope, link: Link) -> None:
        """Remember a link that is no more and may yet do what it was asked: what Redis calls it, and which Redis."""
        where = Where(scope.user, scope.db)
        self._cut[where] = (*self._cut.get(where, ()), (link.client_id, link.run_id))[-CUT_MAX:]

    # -- core.outage.offline.memory.Ways ------------------------------------------------------------------------------

    def is_proven(self, user: bytes) -> bool:
        """Return whether Redis has let a user in, and has not refused it since."""
        return user in self._worker.links.let_in

    def hold(self, where: Where, identity: Identity) -> None:
        """Keep a link of this user and database open, or being opened."""
        scopes = [Scope(where.user, where.db, protocol) for protocol in _PROTOCOLS]
        used = next((scope for scope in scopes if scope in self._worker.links.groups), scopes[0])
        self._groups[where] = self._worker.join(used, identity)

    def leave(self, where: Where) -> None:
        """Need that link no more."""
        self._cut.pop(where, None)
        self._worker.leave(self._groups.pop(where))

    def link(self, where: Where) -> Link | None:
        """Return a link of this user and database that stands."""
        groups = self._worker.links.groups
        for protocol in _PROTOCOLS:
            group = groups.get(Scope(where.user, where.db, protocol))
            link = None if group is None else group.pick()
            if link is not None and link.connected:
                return link
        return None

    def is_half_back(self, where: Where) -> bool:
        """Return whether clients of one protocol have a link, and those of the other are still to get theirs."""
        scopes = [Scope(where.user, where.db, protocol) for protocol in _PROTOCOLS]
        groups = [self._worker.links.groups.get(scope) for scope in scopes]
        return any(
            group is not None and group.clients and not (group.is_known_good or group.refusal) for group in groups
        )

    def kills(self, where: Where) -> list[bytes]:
        """Return what ends the links that are no more on the side of Redis as well, if it is the same."""
        known, link = self._cut.get(where, ()), self.link(where)
        if link is None:
            return []
        return [command("CLIENT", "KILL", "ID", number) for number, run_id in known if run_id == link.run_id]

    def is_informed(self) -> bool:
        """Return whether Redis has told which fences are in force, or never will."""
        worker = self._worker
        return worker.value_layer.announcements.has_fences or worker.control.state == "refused"

    def refusal(self, where: Where) -> bytes:
        """Return the words with which Redis does not let this user into this database; b"" where it only cannot now."""
        group = self._groups[where]
        return group.refusal if group.refusal.startswith(_NOT_LET_IN) or group.lacks_db else b""

    def resume(self, client: Downstream) -> None:
        """Run what a client that was parked waits with; a mistake of ours in that ends this client only."""
        assert isinstance(client, PlacedClient)
        if not client.closed and client.parked == "link":
            self._worker.reactor.guard(client, client.unpark)

    def wall_ms(self) -> int:
        """Return the time of this machine."""
        return time.time_ns() // 1_000_000
