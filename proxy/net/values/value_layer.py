"""The value layer of a worker, wired together: what classes do to values, and what proxies agree on through Redis.

    pipeline --> core.values --> sealer, lifetimes, fences            links --> openers --> dictionaries
    invalidation link --> announcements --> fencing, dictionaries     tasks: sweeper, trainer, walks through L1

Owns the building, and which of it is in use: the pipeline asks for nothing while no class does, but every link opens
envelopes always. A class that is taken out of the configuration must not leave sealed bytes to the clients.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import trio

from proxy.core.fencing import Fencing
from proxy.core.lifetimes import Lifetimes
from proxy.core.notices import NoticeCounts, Notices
from proxy.core.values import Values
from proxy.net.events.notice_store import RedisNoticeStore
from proxy.net.invalidation.announcements import Announcements
from proxy.net.links.openers import Openers
from proxy.net.values.invalidator import Invalidator
from proxy.net.values.sweeper import Sweeper
from proxy.net.values.trainer import Trainer
from proxy.values.clock import HybridClock
from proxy.values.dictionary import Dictionaries
from proxy.values.fences import Fences
from proxy.values.rules import Rules
from proxy.values.sealing import Sealer
from proxy.values.ttl import Thresholds

if TYPE_CHECKING:
    from proxy.config.model import Settings
    from proxy.net.worker import Worker


SETTLE_S: Final = 1.0


class ValueLayer:
    """Build and run it. One a worker."""

    def __init__(self, worker: Worker) -> None:
        reactor, engine = worker.reactor, worker.engine
        self._worker = worker
        self._reactor = reactor
        self._engine = engine
        self.clock = HybridClock(reactor.clock)
        fences = Fences()
        lifetimes = Lifetimes(Thresholds(), engine.l1, random.random)
        self.values = Values(engine, Sealer(self.clock, Dictionaries(), reactor.clock), fences, lifetimes)
        self.fencing = Fencing(engine, fences)
        self.invalidator = Invalidator(worker.links, self.fencing, self.clock, worker.initial_identity)
        self.values.invalidate = self.invalidator.invalidate
        self.values.link = self.invalidator.link
        self.notices = Notices(engine, self.values, NoticeCounts(), token=secrets.token_hex(8))
        self.notice_store = RedisNoticeStore(reactor, self.invalidator, self.notices, db=worker.initial_db)
        openers = Openers(self.values.dictionaries, self.values.opened, self.values.lookalikes)
        reactor.openers = openers
        self.announcements = Announcements(self.values, self.fencing, openers, reactor.clock)
        openers.ask = self.announcements.fetch_dictionary
        worker.control.on_message = self.announcements.hear
        worker.control.on_watch = self.announcements.ask_time
        self.sweeper = Sweeper(self.invalidator, self.fencing, reactor)
        self._trainer = Trainer(self.values.dictionaries, self.invalidator, reactor)
        self._walk = trio.Event()
        self.fencing.on_walk = self._begin_walk

    def apply(self, settings: Settings, rules: Rules) -> None:
        """Take the settings that may change while running."""
        values, ttl = self.values, settings.ttl
        if rules is not values.rules:
            values.take(rules)
            self.fencing.take(rules)
        values.writes_envelopes = settings.rollout.write_envelopes
        is_announcing = settings.amqp.publish_changes and settings.rollout.mode != "off"
        values.notices = self.notices if is_announcing else None
        self._worker.pipeline.take_notices(values.notices)
        values.sealer.configure(settings.compression)
        values.lifetimes.thresholds = Thresholds(
            ttl.window_s, ttl.warm_above, ttl.hot_above, ttl.hot_s, ttl.cold_s, ttl.jitter
        )
        self._worker.pipeline.take_values(values if rules.is_active else None)
        self.invalidator.tells_absent = bool(settings.listen.admin) and settings.push.max_subscribers > 0

    def control_up(self) -> None:
        """Begin with an invalidation link that has come up."""
        self.fencing.has_pushes = self._worker.tracking.mode != "off"
        self.invalidator.announces_keys = not self.fencing.has_pushes
        self.announcements.begin(self._worker.control)

    def after_all(self, name: bytes) -> Callable[[], None] | None:
        """Return what follows a command that may have changed any key, None for nothing."""
        if name == b"SWAPDB":
            return self.announcements.tell_all
        return self._worker.control.check_acl if name.startswith(b"ACL|") else None

    async def run(self) -> None:
        """Serve until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.sweeper.run)
            nursery.start_soon(self._trainer.run)
            nursery.start_soon(self._walk_through_l1)
            if self._worker.settings.amqp.publish_changes:
                nursery.start_soon(self.notice_store.watch)

    async def settle(self) -> None:
        """Pay what is owed to the outbox, if that takes but a moment: nobody else knows of it."""
        with trio.move_on_after(SETTLE_S):
            await self.notice_store.pay()

    def _begin_walk(self) -> None:
        self._walk.set()

    async def _walk_through_l1(self) -> None:
        while True:
            await self._walk.wait()
            self._walk = trio.Event()
            while self.fencing.is_walking:
                self._reactor.enter()
                self.fencing.turn()
                self._reactor.flush()
                await trio.lowlevel.checkpoint()

    def report(self) -> dict[str, Any]:
        """Return the section `values` of the report."""
        values, figures, sweep = self.values, self.values.figures, self.sweeper.figures
        sealed = values.sealer.figures
        return {
            "enabled": values.rules.is_active,
            "writes_envelopes": values.writes_envelopes,
            "announcements": self.announcements.state,
            "sealed_total": figures.sealed,
            "opened_total": figures.opened,
            "damaged_total": figures.damaged,
            "unwrapped_total": figures.unwrapped,
            "purged_total": figures.purged,
            "dependents_total": figures.dependents,
            "raw_bytes_total": figures.raw_bytes,
            "stored_bytes_total": figures.stored_bytes,
            "saved": round(1 - figures.stored_bytes / figures.raw_bytes, 6) if figures.raw_bytes else 0.0,
            "compression": {
                "tried_total": sealed.tried,
                "compressed_total": sealed.compressed,
                "saved_bytes_total": sealed.saved_bytes,
                "skipped_format_total": sealed.skipped_format,
                "given_up_total": sealed.given_up,
                "out_of_time_total": sealed.out_of_time,
            },
            "dictionaries": sum(map(bool, values.dictionaries.known.values())),
            "fences": len(values.fences),
            "sweep": {
                "running": sweep.running,
                "share": round(sweep.share, 4),
                "scanned_total": sweep.scanned,
                "unlinked_total": sweep.unlinked,
                "passes_total": sweep.passes,
            },
            "ttl": values.lifetimes.figures(),
        }

    def explain(self, key: bytes) -> dict[str, Any]:
        """Return which class a key has, what becomes of its TTL, and the fence it is behind, in any database."""
        values = self.values
        rules = values.rules.find(key)
        fence = max((values.fences.version_over(db, key, rules) for db in {one.db for one in values.fences}), default=0)
        found: dict[str, Any] = {"class": None, "fence": fence or None}
        if rules is not None:
            found["class"] = {
                "name": rules.name,
                "glob": next(glob.raw for glob in rules.globs if glob.matches(key)).decode("utf-8", "replace"),
                "compress": rules.compress,
                "dictionary": rules.dictionary,
                "version": rules.version,
            }
            if rules.has_ttl:
                found["ttl"] = values.lifetimes.explain(rules, key, self._engine.now)
        return found
