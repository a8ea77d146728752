"""What no socket wakes us for: pings, late replies, stalled and idle clients, idle links.

One trio task; each tick is synchronous, as a wake-up of the reactor is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from proxy.core.slots import Failure, Slot
from proxy.log import get_logger
from proxy.net.links.link import Link
from proxy.net.process import give_back_memory

if TYPE_CHECKING:
    from proxy.net.worker import Worker

TICK_S: Final = 0.05
STALL_S: Final = 1.0  # a client that takes nothing of a large reply for so long is closed: others wait behind it
TRICKLE: Final = 8 * 1024
"""Bytes a second. A link that brings less over a response_timeout, in which its oldest command waited, is given up."""
FROZEN_S: Final = 0.5
"""Whose sleep ends so late was stopped itself (a container that is paused, a machine without processor time): what the
others have sent meanwhile lies there unread, and nobody is late or idle before it has been looked at."""
EXCUSED_EVERY_S: Final = 10.0  # not each time: one that is always late would never see that others are
GIVE_BACK_EVERY_S: Final = 1.0
GIVE_BACK_SHARE: Final = 0.002
"""Of the time, at most, to give memory back. L1 with values of 100 bytes to 1 MB takes up to 1.8 times its bound
without, for good; with it that ends a second after the churn. So often it takes some 0.3 ms, 4 for much of 512 MiB."""
LATE: Final = "no reply in upstream.response_timeout"
log = get_logger("timers")


class Timers:
    """The clockwork of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._excused_until = 0.0
        self._unmarked: list[list[Slot]] = []  # the last slots of commands sent while L1 was off
        self._give_back_at = 0.0
        self._came_and_went = 0  # entries of L1, when memory was last given back

    async def run(self) -> None:
        """Tick until cancelled."""
        worker = self._worker
        while True:
            due = trio.current_time() + min(TICK_S, worker.tracking.ping_every_s / 2)
            await trio.sleep_until(due)
            now = worker.reactor.enter()
            if trio.current_time() - due > FROZEN_S and now >= self._excused_until:
                self._excused_until = now + EXCUSED_EVERY_S
                worker.paused_until = max(worker.paused_until, now)
                continue
            try:
                self.tick(now)
            except Exception:
                log.exception("bug", owner="tick")
            worker.reactor.flush()

    def await_unmarked(self) -> None:
        """Grant no lease until what was sent while L1 was off has been answered: it is not marked as being written."""
        waiting = [link.fifo[-1] for link in self._links() if link.fifo and not link.patient]
        if waiting:
            self._worker.engine.begin_write_all()
            self._unmarked.append(waiting)

    def tick(self, now: float) -> None:
        """Do what is due."""
        worker = self._worker
        settings = worker.settings
        timeout_s = settings.upstream.response_timeout_s
        worker.control.tick(now, timeout_s, worker.paused_until)
        if now >= worker.paused_until:
            for link in self._links():
                if is_late(link, now, worker.paused_until, timeout_s):
                    # Where Redis has been heard of since, only this is late.
                    if worker.control.is_unheard_since(link.waiting_since):
                        worker.gate.failed(LATE)
                    link.lose(LATE, Failure.TIMED_OUT)
        for client in list(worker.stalled):
            if client.takes_some():
                client.drained_at = now
            elif now - client.drained_at > STALL_S:
                client.kill_unread("it stopped reading a large reply")
        if worker.unread_bytes > worker.unread_limit:
            worker.door.relieve()
        worker.door.rates.tick(now)
        worker.engine.outage.tick(now)
        worker.engine.end_lingering()
        if worker.engine.l1.shrinks:
            worker.engine.l1.shrink(now)
        worker.touch_hot_keys()
        worker.facts.hottest.turn()
        worker.engine.tally.tick()
        worker.tuning.tick()
        worker.certificates.tick(now)
        worker.door.strangers.tick(now)
        worker.engine.recomputes.tick(now)
        worker.reconciler.tick(now)
        while self._unmarked and all(slot.reply is not None for slot in self._unmarked[0]):
            self._unmarked.pop(0)
            worker.engine.end_write_all()
        if now >= self._give_back_at:
            self._give_back(now)
        worker.pool.tick(now, timeout_s)
        worker.links.tick(now)
        worker.links.sweep(now)
        idle_s = settings.listen.idle_timeout_s
        if idle_s:
            for connected in list(worker.clients):
                if connected.is_idle and not connected.waits_off and now - connected.read_at > idle_s:
                    connected.close()

    def _give_back(self, now: float) -> None:
        """Give back the memory of entries that have gone from L1, where others have come and gone since."""
        stats, began = self._worker.stats, self._worker.reactor.time()
        moved = stats.published + stats.dropped + stats.flushes + self._worker.engine.l1.evictions
        if moved != self._came_and_went:
            self._came_and_went = moved
            give_back_memory()
        took_s = self._worker.reactor.time() - began
        self._give_back_at = now + max(GIVE_BACK_EVERY_S, took_s / GIVE_BACK_SHARE)

    def _links(self) -> list[Link]:
        worker = self._worker
        return [*(link for group in worker.links.groups.values() for link in group.links), *worker.pool.links]


def is_late(link: Link, now: float, paused_until: float, timeout_s: float) -> bool:
    """Return whether a link owes a reply for too long: it is silent, or what comes is no more than a trickle.

    A reply that is large, or has many before it, may take longer than that, as long as bytes keep coming. One that a
    blocking command waits for has the time that it asked for besides.
    """
    if not link.fifo or not link.connected or link.paused:
        return False
    if link.patient:
        return now - max(link.fifo[0].submitted_at, link.waiting_since, paused_until) > link.patience_s + timeout_s
    received = link.figures.received_bytes
    if received - link.progress[0] >= TRICKLE * timeout_s:
        link.progress = (received, now)
    if now - max(link.waiting_since, paused_until) > timeout_s:
        return True
    return now - max(link.fifo[0].submitted_at, link.progress[1], paused_until) > timeout_s
