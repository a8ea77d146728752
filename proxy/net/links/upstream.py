"""Data links: one group for each (user, database, protocol) that clients use.

    Group   ---- link        all commands of its clients, in their order
            ---- link        a second one while a slow client's reply stalls the first

Owns when links are opened, kept and given up. While Redis is away a group fails commands at once and knocks again
with a growing, jittered delay; the first commands after a loss wait for the first new attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from proxy.cache.entry import Namespace, Scope
from proxy.core.figures.stats import Stats
from proxy.core.outage.stand_in import BRIEF
from proxy.core.session import Identity
from proxy.core.slots import CallSlot, Slot
from proxy.errors import UPSTREAM_OVERLOADED, UPSTREAM_UNAVAILABLE, HandshakeError, RemoteError
from proxy.log import get_logger
from proxy.net.links.backoff import Backoff
from proxy.net.links.dial import Stream, Upstream, open_stream
from proxy.net.links.gate import IS_BUSY, STEADY_S, Gate, check_ready
from proxy.net.links.link import Link
from proxy.net.reactor import Reactor
from proxy.wire.encode import command, count
from proxy.wire.greeting import INFO_SERVER, run_id_of

LINKS_MAX: Final = 4  # a group's links: one, and what slow readers of large replies hold up
CLIENT_ID: Final = command("CLIENT", "ID")
TRACKING_OFF: Final = command("CLIENT", "TRACKING", "OFF")
ELSEWHERE_MAX: Final = 5  # an address that goes on leading to several servers is passed through, and not cached
IDLE_S: Final = 60.0  # a group without clients is kept so long
RENEWAL_S: Final = 10.0  # links that were not renewed for so long lead to a master again
RETRACK_S: Final = 0.1  # Redis was busy when a link asked to be tracked: it asks again so soon
RENEWALS_APART: Final = 10  # times the usual delay: each drops what L1 holds, and a fail-over takes seconds
log = get_logger("upstream")


class Group:
    """The data links of one scope. `failures` above 0: Redis is away, commands fail at once."""

    def __init__(self, links: DataLinks, scope: Scope, identity: Identity, namespace: Namespace) -> None:
        self.scope = scope
        self.identity = identity  # the credentials seen last for this user
        self.namespace = namespace
        self.clients = 0
        self.idle_since = 0.0
        self.failures = 0
        self.closed = False  # given up: clients that still hold it join anew
        self.refusal = b""  # what Redis said when it refused the link itself
        self.lacks_db = False  # .. which was that it has no such database
        self.cancel: trio.CancelScope | None = None
        self.links: list[Link] = [links.make(self)]
        self.lost = trio.Event()
        self._owner = links

    @property
    def is_known_good(self) -> bool:
        """Return whether Redis has accepted this user, database and protocol."""
        return any(link.connected for link in self.links)

    @property
    def is_unauthenticated(self) -> bool:
        """Return whether Redis answers this link only with NOAUTH."""
        return self.refusal.startswith(b"-NOAUTH")

    def pick(self) -> Link | None:
        """Return the link new commands go to; None when they must fail now, for `why_not`."""
        may_wait = not self.failures and not self._owner.gate.is_shut
        for link in self.links:
            if link.open and not link.paused and (link.connected or may_wait):
                return link
        if len(self.links) < LINKS_MAX and any(link.paused for link in self.links):
            return self._owner.open_extra(self)
        return next((link for link in self.links if link.connected and link.open), None)

    def why_not(self) -> bytes:
        """Return the error for commands that cannot be sent."""
        if any(link.full for link in self.links):
            return UPSTREAM_OVERLOADED
        return self.refusal or self._owner.gate.refusal or UPSTREAM_UNAVAILABLE


class DataLinks:
    """All groups. Knows the upstream's address; `run` keeps their links open."""

    def __init__(self, reactor: Reactor, stats: Stats, upstream: Upstream, gate: Gate) -> None:
        self.groups: dict[Scope, Group] = {}
        self.upstream = upstream
        self.redirect_refused = trio.Event()
        self.run_id: Callable[[], bytes] = lambda: b""  # of the server the invalidation link leads to
        self.on_elsewhere: Callable[[], None] = lambda: None  # a data link leads to another
        self._elsewhere = 0  # how often in a row that was so
        self.let_in: set[bytes] = set()  # users whom Redis has let in, and has not refused since
        self.on_refused: Callable[[Group], None] = lambda _: None
        self.on_cut: Callable[[Scope, Link], None] = lambda *_: None  # a link is lost on which something was asked
        self.max_waiting = 0  # upstream.max_waiting
        self.gate = gate
        self._reactor = reactor
        self._engine = reactor.engine
        self._outage = reactor.engine.outage
        self._tracking = reactor.tracking
        self._stats = stats
        self._nursery: trio.Nursery | None = None
        self._renewal = Backoff()  # how long links to a replica are left alone
        self._renew_at = 0.0
        self._untracked: set[Link] = set()  # links whose tracking Redis was too busy to begin
        self._retrack_at = 0.0
        self._outage.on_back.append(self._back)

    def group(self, scope: Scope, identity: Identity) -> Group:
        """Return the group of a scope, opened on first need."""
        found = self.groups.get(scope)
        if found is not None:
            found.identity = identity
            return found
        assert self._nursery is not None, "groups are opened while running"
        found = self.groups[scope] = Group(self, scope, identity, self._engine.l1.namespace(scope))
        self._nursery.start_soon(self._keep, found)
        return found

    def make(self, group: Group) -> Link:
        """Return a link of a group that has no connection yet."""
        return Link(self._reactor, self._stats, "data", lambda link, why: self._on_lost(group, link, why))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep every group's links open until cancelled; on the way out they are ended and their waiters answered."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._reactor.enter()
            for group in self.groups.values():
                group.failures += 1  # nothing is asked once more
                for link in list(group.links):
                    link.lose("stopping")
            self._reactor.flush()

    def open_extra(self, group: Group) -> Link:
        """Add a link to a group whose others are held up."""
        assert self._nursery is not None
        link = self.make(group)
        group.links.append(link)
        self._nursery.start_soon(self._connect, group, link)
        return link

    def _back(self) -> None:
        """Let commands of every group wait for its link: Redis is there again."""
        for group in self.groups.values():
            if not group.refusal:
                group.failures = 0

    def renew(self) -> None:
        """Open every link anew, where the address leads to now: this one says that it is a replica.

        What is on its way is still answered; what comes goes on the new links. Not more often than after a growing
        delay: where the address goes on leading there, its clients read Redis' own words.
        """
        now = self._engine.now
        if now < self._renew_at:
            return
        if now > self._renew_at + RENEWAL_S:
            self._renewal.reset()
        self._renew_at = now + RENEWALS_APART * self._renewal.next_s()
        log.warning("the address of the upstream leads to a replica, links are opened anew")
        for group in self.groups.values():
            self._open_anew(group)
        self.on_elsewhere()

    def prove(self, user: bytes) -> None:
        """Have Redis let a user in anew: what comes goes on links that are opened now, or is refused with them."""
        for group in self.groups.values():
            if group.scope.user == user:
                self._open_anew(group)

    def _open_anew(self, group: Group) -> None:
        if not group.links[0].connected:
            return
        for link in group.links:
            link.open = link.full = False
        group.links.insert(0, self.make(group))
        group.lost.set()

    def tick(self, now: float) -> None:
        """Fail what has waited too long for a connection; bound what waits; end links that are renewed."""
        if self._untracked and now >= self._retrack_at:
            self._retrack_at = now + RETRACK_S
            untracked, self._untracked = self._untracked, set()
            for link in untracked:
                if link.connected and not link.tracked:
                    self._track(link)
        for group in self.groups.values():
            for link in list(group.links):
                if link.fifo and not link.connected and now - link.waiting_since > self.upstream.connect_timeout_s:
                    self._give_up(group, link)
                elif link.open or link.full:
                    link.full = sum(slot.left for slot in link.fifo) > self.max_waiting
                    link.open = not link.full
                elif not link.fifo:
                    link.lose("renewed")

    def _give_up(self, group: Group, link: Link) -> None:
        """Answer those who wait for a link that does not come; what comes fails at once until it does."""
        group.failures += 1
        if link is group.links[0]:
            group.links[0] = self.make(group)
        else:
            group.links.remove(link)
        link.lose("no connection in upstream.connect_timeout")

    def retrack(self) -> None:
        """Ask for tracking on every open link: the invalidation link is a new one."""
        for group in self.groups.values():
            for link in list(group.links):
                if link.connected and self._leads_elsewhere(link) and self._elsewhere <= ELSEWHERE_MAX:
                    link.lose("it leads to another server than the invalidation link")
                elif link.connected:
                    self._track(link)

    def _leads_elsewhere(self, link: Link) -> bool:
        """Return whether a link's server is known not to be the one whose pushes we get: after a fail-over."""
        return bool(link.run_id) and self.run_id() not in (b"", link.run_id)

    def sweep(self, now: float) -> None:
        """Give up groups that no client has used for a while."""
        for group in list(self.groups.values()):
            if group.clients or now - group.idle_since < IDLE_S or any(link.fifo for link in group.links):
                continue
            del self.groups[group.scope]
            self._outage.forget(group.scope)
            group.closed = True
            if group.cancel is not None:
                group.cancel.cancel()
            for link in list(group.links):
                link.lose("idle")
            self._engine.flush_namespace(group.namespace)
            self._engine.l1.forget_namespace(group.namespace)

    def _track(self, link: Link) -> None:
        link.tracked = False
        mode = self._tracking.mode
        if link.mode not in ("", mode):  # Redis lets a connection change its way of tracking only through OFF
            link.submit(TRACKING_OFF, Slot(None))
        link.mode = mode
        link.optin = mode == "optin"
        if self._leads_elsewhere(link):
            return
        if not self._tracking.redirects:
            link.tracked = self._tracking.may_cache
            if not self._engine.enabled:  # L1 was switched off: what the link was tracked for is over
                link.submit(TRACKING_OFF, Slot(None))
            return
        redirect_id = self._tracking.redirect_id
        if not redirect_id:
            return

        def then(reply: bytes) -> bytes:
            self._tracked(link, redirect_id, reply)
            return b""

        link.submit(self._tracking_on(redirect_id), CallSlot(None, then))

    def _tracking_on(self, redirect_id: int) -> bytes:
        optin = ("OPTIN",) if self._tracking.mode == "optin" else ()
        return command("CLIENT", "TRACKING", "ON", "REDIRECT", redirect_id, *optin)

    def _tracked(self, link: Link, redirect_id: int, reply: bytes) -> None:
        """Take the reply to CLIENT TRACKING: leases may be opened if it still is about the present link."""
        if reply[:1] == b"+":
            is_ours = link.open and redirect_id == self._tracking.redirect_id
            link.tracked = is_ours and not self._leads_elsewhere(link)
        elif reply.startswith(BRIEF):
            self._untracked.add(link)
        elif not reply.startswith((b"-NOPERM", b"-NOAUTH")):
            log.warning("tracking refused", reply=reply.decode("utf-8", "replace").strip())
            self.redirect_refused.set()

    async def _keep(self, group: Group) -> None:
        """Keep a group's first link connected."""
        backoff = Backoff()
        with trio.CancelScope() as group.cancel:
            while True:
                alone = await self.gate.turn()
                with self.gate.knocking(alone=alone):
                    group.lost = lost = trio.Event()
                    is_up = await self._connect(group)
                began = trio.current_time()
                if is_up:
                    await lost.wait()
                if trio.current_time() - began >= STEADY_S:
                    backoff.reset()
                elif not self.gate.is_shut:
                    await trio.sleep(backoff.next_s())

    async def _connect(self, group: Group, extra: Link | None = None) -> bool:
        """Connect a group's first link, or an extra one; on failure it is ended and its waiters answered."""
        scope = group.scope
        mode = self._tracking.mode
        redirect_id = self._tracking.redirect_id if self._tracking.redirects else 0
        more = [command("PING"), INFO_SERVER]
        if redirect_id:
            more.append(self._tracking_on(redirect_id))
        asks_id = self._outage.base_s > 0
        if asks_id:
            more.append(CLIENT_ID)
        try:
            stream, replies = await open_stream(
                self.upstream, group.identity, scope.db, scope.protocol, "respite-data", *more
            )
            check_ready(stream, replies[0])
        except RemoteError as exc:
            self._reactor.enter()
            self.gate.judge(exc)
            link = extra or group.links[0]
            refused = exc if isinstance(exc, HandshakeError) and not self.gate.is_shut else None
            group.refusal = refused.reply if refused is not None else b""
            group.lacks_db = refused is not None and refused.has_no_db
            if refused is not None and not refused.reply.startswith(BRIEF) and not refused.has_no_db:
                self.let_in.discard(scope.user)
            group.failures += 1
            if group.failures == 1:
                log.warning("link failed", db=scope.db, protocol=scope.protocol, why=str(exc))
            self._answer(link, group.refusal or self.gate.refusal)
            link.lose(str(exc))
            if group.refusal.startswith(b"-WRONGPASS"):
                self.on_refused(group)
            self._reactor.flush()
            return False
        link = extra or group.links[0]  # those that have waited too long are others now
        if link.ended:
            stream.close()
            return False
        link.run_id = run_id_of(replies[1])
        link.client_id = (count(replies[-1][1:-2]) or 0) if asks_id else 0
        self._attach(group, link, stream, is_ready=not replies[0].startswith(IS_BUSY))
        group.refusal = replies[0] if replies[0].startswith(b"-NOAUTH") else b""
        (self.let_in.discard if group.refusal else self.let_in.add)(scope.user)
        self._elsewhere = self._elsewhere + 1 if self._leads_elsewhere(link) else 0
        if 0 < self._elsewhere <= ELSEWHERE_MAX:
            log.warning("the address of the upstream leads to another server than before")
            self.on_elsewhere()
        if redirect_id:
            link.mode, link.optin = mode, mode == "optin"
        if redirect_id and redirect_id == self._tracking.redirect_id and mode == self._tracking.mode:
            self._tracked(link, redirect_id, replies[2])
        else:  # the invalidation link came, or changed, in the meantime
            self._track(link)
        self._reactor.flush()
        return True

    def _attach(self, group: Group, link: Link, stream: Stream, *, is_ready: bool) -> None:
        self._reactor.enter()
        group.failures = 0
        self.gate.passed(is_ready=is_ready)
        link.attach(stream)
        self._outage.linked(group.scope)

    @staticmethod
    def _answer(link: Link, refusal: bytes) -> None:
        """Give those who waited for the handshake Redis' own refusal."""
        while refusal and link.fifo:
            slot = link.fifo.popleft()
            slot.refuse(refusal)

    def _on_lost(self, group: Group, link: Link, why: str) -> None:
        """Drop what the link fed: in redirect mode Redis forgets with it what was to be pushed."""
        if link.fifo and link.client_id:
            self.on_cut(group.scope, link)
        if link not in group.links:
            return  # it has waited too long to be connected, and fed nothing
        if link is not group.links[0]:
            group.links.remove(link)
        else:
            self._outage.lost(group.scope)
            if not group.failures and why not in ("stopping", "idle"):
                log.warning("link lost", db=group.scope.db, user=group.scope.user.decode("utf-8", "replace"), why=why)
            group.links[0] = self.make(group)
            group.lost.set()
        # Last: those who waited for a push read again, on the link that comes next.
        if self._tracking.redirects or self._tracking.redirect_id == 0:
            self._engine.flush_namespace(group.namespace)
        else:
            self._engine.flights.revoke_link(link)
