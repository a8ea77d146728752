"""A worker: everything one process needs to serve clients, wired together.

Owns the clients, and the timers that no socket wakes: pings, late replies, stalled and idle clients, idle links.
What the core asks of its surroundings (`core.downstream.Services`) is answered here.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import trio
from cachetools import LRUCache

from proxy.cache.entry import Namespace, Scope
from proxy.cache.l1 import L1
from proxy.config.model import Endpoint, Settings
from proxy.core.downstream import Host
from proxy.core.engine import Engine
from proxy.core.figures.report import build_report, explain_key
from proxy.core.figures.stats import MetricFamily, Stats
from proxy.core.pipeline import Pipeline
from proxy.core.policy import Policy
from proxy.core.rights.logins import Logins
from proxy.core.rights.rights import RightsBook
from proxy.core.session import Identity, Session, Sessions
from proxy.core.slots import Slot
from proxy.core.tracking import Tracking
from proxy.core.tuning import Tuning, make_tuners
from proxy.core.warming import Warmer
from proxy.net.clients.client import ClientConnection
from proxy.net.clients.sender import Sender
from proxy.net.door.certificates import Certificates
from proxy.net.door.doorkeeper import Doorkeeper
from proxy.net.door.draining import drain
from proxy.net.door.listener import Listener
from proxy.net.door.logins import LoginDesk
from proxy.net.facts import Facts
from proxy.net.invalidation.control import ControlLink
from proxy.net.links.dial import Upstream
from proxy.net.links.gate import Gate
from proxy.net.links.link import Link
from proxy.net.links.pinned import PinnedPool
from proxy.net.links.upstream import DataLinks, Group
from proxy.net.reactor import Reactor
from proxy.net.reconciler import Reconciler
from proxy.net.timers import Timers
from proxy.net.tls import client_context, server_context
from proxy.net.values.value_layer import ValueLayer
from proxy.tls.renewal import Renewable
from proxy.wire.commands import CommandTable
from proxy.wire.request import Limits, RequestParser

HELLOS_MAX: Final = 1024  # users times protocols whose HELLO is remembered
GC_EVERY: Final = (50_000, 20, 100)  # a full collection over 100,000 entries takes 13-30 ms; nothing here makes cycles
_GOLDEN: Final = 0.6180339887498949  # multiples of it are spread evenly over 0 .. 1


class Worker:
    """Serve clients of the given listeners from one upstream."""

    def __init__(self, settings: Settings, upstream: Endpoint) -> None:
        self.settings = settings
        self.stats = Stats()
        self.started_at = time.monotonic()
        l1 = L1(settings.l1.max_bytes)
        self.engine = Engine(
            l1,
            self.stats,
            enabled=settings.l1.enabled and settings.rollout.mode != "off",
            max_age_s=settings.l1.max_age_s,
            max_value_bytes=settings.l1.max_value_bytes,
        )
        self.tracking = Tracking(self.engine, wanted=settings.l1.tracking, max_staleness_s=settings.l1.max_staleness_s)
        self.warmer = Warmer(self.engine)
        self._policy = Policy()
        self.reactor = Reactor(self.engine, self.tracking)
        self.endpoint = upstream
        context = client_context(settings.upstream.tls) if upstream.scheme == "tls" else None
        self.upstream = Upstream(
            upstream, context, settings.upstream.connect_timeout_s, settings.upstream.response_timeout_s
        )
        self.initial_identity = Identity(upstream.username.encode(), upstream.password.encode())
        self.initial_db = upstream.db
        self.gate = Gate(self.reactor, self.engine.outage)
        self.control = ControlLink(self.reactor, self.upstream, self.gate, self.initial_identity)
        self.links = DataLinks(self.reactor, self.stats, self.upstream, self.gate)
        pinned = settings.upstream.pinned_connections
        self.pool = PinnedPool(self.reactor, self.stats, self.upstream, self.gate, pinned)
        self.sessions = Sessions()
        self.on_reload: Callable[[Callable[[dict[str, Any]], None]], None] = lambda then: None
        self.host: Host | None = None  # the other workers, and the parent that knows them
        self.hellos: MutableMapping[tuple[bytes, int], bytes] = LRUCache(HELLOS_MAX)
        self.pipeline = Pipeline(self.engine, self.stats, self)
        self.parser = RequestParser()
        self.clients: set[ClientConnection] = set()
        self.door = Doorkeeper(self)
        self.logins = Logins()
        self.login_desk = LoginDesk(self)
        self.log_in = self.login_desk.log_in
        self.rights: RightsBook = RightsBook(self.control.table)
        self.control.on_table = self._learn
        self.stalled: set[Sender] = set()
        self.unread_bytes = 0  # what all clients have not taken yet
        self.paused_until = 0.0
        self.timers = Timers(self)
        self.draining = False
        self.may_accept: Callable[[], Awaitable[object]] = trio.lowlevel.checkpoint  # returns when clients may come
        tls = server_context(settings.listen.tls) if any(u.scheme == "tls" for u in settings.listen.urls) else None
        self.listeners = [
            Listener(
                self.reactor,
                url,
                tls if url.scheme == "tls" else None,
                self.door.accept,
                failed=self.door.handshake_failed,
            )
            for url in settings.listen.urls
        ]
        self.engine.verifier.probe = self._probe
        self.engine.recomputes.link_of = self._link_of
        self.engine.recomputes.refetch = self.pipeline.reads.refetch
        self.engine.verifier.fence = self.control.fence
        self.links.run_id = lambda: self.control.run_id if self.control.is_up else b""
        self.links.on_elsewhere = lambda: self.control.lose("the address of the upstream leads to another server")
        self.control.on_up = self._control_up
        self.control.on_down = self._control_down
        self.control.watch.on_users = self.door.users_changed
        self.control.watch.on_default = self.door.default_changed
        self.engine.outage.on_readonly = self.links.renew
        self.links.on_refused = self.door.refused
        self.value_layer = ValueLayer(self)
        self.values = self.value_layer.values
        self.invalidate = self.value_layer.invalidator.invalidate_as_event
        self.facts = Facts(self)
        self.certificates = Certificates(settings, self._contexts)
        self.reconciler = Reconciler(self, self.value_layer)
        self.tuning = Tuning(self.engine, self.values, make_tuners(), self.apply)
        self.apply(settings)

    def apply(self, settings: Settings) -> None:
        """Take the settings that may change while running."""
        settings = self.settings = self.tuning.take(settings)
        listen = settings.listen
        self.limits = Limits(listen.max_bulk_bytes, listen.max_request_bytes)
        self.output_limit = listen.output_buffer_limit_bytes
        self.unread_limit = listen.output_buffer_total_bytes // listen.workers
        self.max_pipeline = listen.max_pipeline
        self.user_names = frozenset(user.name.encode() for user in listen.users)
        self.has_users = bool(listen.users)
        self.max_subscriptions = listen.max_subscriptions
        self.logins.take(listen.users)
        self.rights.take(listen)
        self.door.apply()
        self.pool.limit = settings.upstream.pinned_connections
        self.engine.max_age_s = settings.l1.max_age_s
        self.engine.max_value_bytes = settings.l1.max_value_bytes
        self.engine.l1.resize(settings.l1.max_bytes, self.engine.now)
        self.tracking.max_staleness_s = settings.l1.max_staleness_s
        self.engine.early_refresh = settings.l1.early_refresh
        self.engine.l1.admit = "second_read" if self.tracking.narrowed else settings.l1.admit
        self._take_classes(Policy(settings.classes, settings.l1.scope))
        self.engine.outage.take(self._policy, settings)
        self.links.max_waiting = settings.upstream.max_waiting
        if settings.l1.tracking != self.tracking.wanted:
            self.tracking.wanted = settings.l1.tracking
            self.control.lose("l1.tracking was changed")
        # In shadow mode everything is compared anyway, by those who ask.
        self.engine.verifier.sample(settings.l1.verify if settings.rollout.mode == "on" else 0.0)
        self.warmer.rate = settings.l1.touch_rate
        self.control.cache(settings.l1.cache_commands)
        self.switch_l1(on=settings.l1.enabled and settings.rollout.mode != "off")
        self.reconciler.apply(settings)
        for client in self.clients:
            client.expose()
        self.certificates.look(self.engine.now)

    def _learn(self, table: CommandTable) -> None:
        """Follow the server's commands: what is denied may be more than before, for those who are here as well."""
        self.rights.learn(table)
        for client in self.clients:
            client.look()

    def _take_classes(self, policy: Policy) -> None:
        """Follow the classes. What they say is part of how the server was asked to track, so changes start anew."""
        if (policy.classes, policy.scope) != (self._policy.classes, self._policy.scope):
            self._policy = policy
            self.engine.policy = policy if policy.is_needed else None
            self.engine.tally.name_classes(policy.rules)
            self.engine.flush()
            self.engine.l1.group_by(policy.class_of if policy.classes else None)
            self.control.lose("the classes were changed")
        self.value_layer.apply(self.settings, self._policy.rules)

    def switch_l1(self, *, on: bool) -> None:
        """Use L1 or not. Off drops everything; on starts a new invalidation link, for what was untracked meanwhile."""
        if on == self.engine.enabled:
            return
        self.engine.enabled = on
        self.engine.flush()
        if on:
            self.timers.await_unmarked()
        self.control.lose("L1 was switched " + ("on" if on else "off"))

    def mode_of(self, session: Session) -> str:
        """Return what of L1 is in effect for a client: "on", "shadow" or "off". The same for all of its life."""
        return self._rolled_out(session) if self.engine.enabled else "off"

    def is_classed(self, session: Session) -> bool:
        """Return whether what classes say of values holds for what a client writes."""
        return self._rolled_out(session) == "on"

    def _rollout_facts(self) -> dict[str, Any]:
        """Say how much of Respite is in effect, and for how many of its connections."""
        rollout = self.settings.rollout
        return {"mode": rollout.mode, "percent": rollout.percent}

    def _rolled_out(self, session: Session) -> str:
        rollout = self.settings.rollout
        # Ids are counted up: spread over 0 .. 100, so that any percentage takes its share of any hundred clients.
        place = session.id * _GOLDEN % 1.0 * 100
        return rollout.mode if place < rollout.percent else "off"

    async def run(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. `task_status` gets the addresses, once the upstream has been tried."""
        gc.set_threshold(*GC_EVERY)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.reactor.run)
                await nursery.start(self.links.run)
                await nursery.start(self.pool.run)
                await nursery.start(self.login_desk.run)
                nursery.start_soon(self.control.run)
                nursery.start_soon(self.timers.run)
                nursery.start_soon(self.value_layer.run)
                nursery.start_soon(self._watch_redirect)
                await self.control.first_attempt.wait()
                await self.may_accept()
                for listener in self.listeners:
                    await nursery.start(listener.run)
                gc.collect()
                gc.freeze()
                task_status.started([listener.url for listener in self.listeners])
                await trio.sleep_forever()
        finally:
            for client in list(self.clients):
                client.close()
            self.reactor.close()

    async def drain(self, timeout_s: float) -> None:
        """Take no more clients, let those who wait for something get it, close the rest."""
        await drain(self, timeout_s)

    def join(self, scope: Scope, identity: Identity) -> Group:
        """Return the group of a scope for one more client."""
        group = self.links.group(scope, identity)
        group.clients += 1
        return group

    def leave(self, group: Group) -> None:
        """Note that a client uses a group no more."""
        group.clients -= 1
        group.idle_since = self.engine.now

    def _probe(self, namespace: Namespace, raw: bytes, slot: Slot) -> None:
        """Send a command of our own on the link that feeds a namespace, if it stands."""
        link = self._link_of(namespace)
        if link is not None:
            link.submit(raw, slot)

    def _link_of(self, namespace: Namespace) -> Link | None:
        """Return the link that feeds a namespace, None while it does not stand."""
        group = self.links.groups.get(namespace.scope)
        link = group.pick() if group is not None else None
        return link if link is not None and link.connected else None

    def _contexts(self) -> dict[str, Renewable]:
        """Return the TLS contexts in use, by side."""
        listening = [one.handshakes.context for one in self.listeners if one.handshakes is not None]
        found = {"listen": listening[0] if listening else None, "upstream": self.upstream.context}
        return {name: context for name, context in found.items() if context is not None}

    def touch_hot_keys(self) -> None:
        """Name the hottest keys of L1 in a TOUCH."""
        for namespace, keys in self.warmer.turn().items():
            self.stats.touched += len(keys)
            self._probe(namespace, b"*%d\r\n$5\r\nTOUCH\r\n%b" % (len(keys) + 1, b"".join(keys)), Slot(None))

    def _control_up(self) -> None:
        self.hellos.clear()
        self.links.retrack()
        self.value_layer.control_up()

    def _control_down(self) -> None:
        self.hellos.clear()
        self.value_layer.announcements.end()

    async def _watch_redirect(self) -> None:
        """Fall back to broadcast when the server will not redirect."""
        while True:
            await self.links.redirect_refused.wait()
            self.links.redirect_refused = trio.Event()
            if self.tracking.wanted == "auto" and self.tracking.redirects:
                self.reactor.enter()
                self.control.use_broadcast()
                self.reactor.flush()

    # -- core.downstream.Services ------------------------------------------------------------------------------------

    @property
    def table(self) -> CommandTable:
        """The command table of the upstream as it is now."""
        return self.control.table

    @property
    def table_is_builtin(self) -> bool:
        """Whether the upstream has not told its commands yet."""
        return self.control.table_is_builtin

    @property
    def asks_for_login(self) -> bool:
        """Whether Redis lets nobody in who has not said who it is: that is what it told us, whose URL does not."""
        control = self.control
        return control.user != self.initial_identity.user or (control.state == "refused" and "NOAUTH" in control.why)

    def now(self) -> float:
        """Return the clock of this wake-up, in seconds."""
        return self.engine.now

    def line_of(self, session: Session) -> str:
        """Return a session's line in CLIENT LIST, as this server would write it."""
        words = session.last_words
        name = self.table.find(words).name if words else b""  # an unknown one is the client's text: not shown
        return session.line(self.engine.now, self.control.client_fields, name)

    def count_denied(self, user: str) -> None:
        """Count a command that was refused because its client, of this user, may not run it here."""
        self.stats.deny(user)

    def is_known_good(self, scope: Scope) -> bool:
        """Return whether Redis has accepted this user, database and protocol, and still does."""
        group = self.links.groups.get(scope)
        return group is not None and group.is_known_good

    def adopt(self, identity: Identity) -> None:
        """Take note of credentials that Redis has accepted."""
        self.control.adopt(identity)

    def after_all(self, name: bytes) -> Callable[[], None] | None:
        """Return what follows a command that may have changed any key, None for nothing."""
        return self.value_layer.after_all(name)

    def pause(self, seconds: float) -> None:
        """Take no reply for late during CLIENT PAUSE, from now on for so many seconds; 0 ends it."""
        self.paused_until = self.engine.now + seconds

    def refresh_table(self) -> None:
        """Ask the upstream for its commands again."""
        self.control.refresh()

    def reload(self, then: Callable[[dict[str, Any]], None]) -> None:
        """Read the configuration again; `then` gets, in a wake-up of its own, what was applied and what was wrong."""
        self.on_reload(then)

    def fence(self, then: Callable[[], None]) -> None:
        """Call `then` once every push that Redis has sent by now has been applied; at once if none can be awaited."""
        if self.settings.l1.fence_scripts:
            self.control.fence(then)
        else:
            then()

    def report(self, section: str) -> dict[str, Any]:
        """Return the figures of `stats.json`, or one section of them (empty when there is no such)."""
        report = {**build_report(self.facts), "tuning": self.tuning.report(), "tls": self.certificates.report()}
        report["offline"] = self.reconciler.report()
        report["rollout"] = self._rollout_facts()
        if not section:
            return report
        part = report.get(section, {})
        return part if isinstance(part, dict) else {}

    def explain(self, key: bytes) -> dict[str, Any]:
        """Return what is known about a key."""
        known = {**explain_key(self.engine, key), "rollout": self._rollout_facts()}
        known |= {**self.value_layer.explain(key), "tuning": self.tuning.explain(key)}
        held = self.reconciler.memory.explain(key)
        return known | {"offline": held} if held else known

    def clear_l1(self) -> int:
        """Drop everything in L1; return how many entries went."""
        entries = len(self.engine.l1)
        self.engine.flush()
        return entries

    def families(self) -> list[MetricFamily]:
        """Return all metrics."""
        told = (self.facts, self.tuning, self.certificates, self.reconciler)
        return [family for one in told for family in one.families()]
