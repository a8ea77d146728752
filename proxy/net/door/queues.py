"""The queues of clients that one worker accepts from, of all that its proxy has.

    queues of an address   0  1  2  3            as many as there were workers when it was opened, or given
    worker 0 of 2          *     *               those of its own: index, index + count, ...
    worker 1 of 2             *     *
    fewer queues than workers: some are shared, and each takes one client at a time

A queue whose worker is away is covered by another, told so by the parent: who connects meanwhile waits for nobody.
Owns the worker's listeners. The descriptors they are copied from are whose the addresses are.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable

import attrs
import trio

from proxy.config.model import Endpoint, Settings
from proxy.net.door.addresses import Address
from proxy.net.door.listener import Listener
from proxy.net.tls import server_context
from proxy.net.worker import Worker


class Queues:
    """The queues of worker `index` of `count`; `listeners` are the worker's own, for `Worker.run` to start."""

    def __init__(self, worker: Worker, addresses: Iterable[Address], index: int, count: int) -> None:
        """Make the listeners, which do not listen yet. Raises ListenError when TLS is asked for and cannot be had."""
        self._worker = worker
        self._addresses = tuple(addresses)
        self._count = count
        is_tls = any(one.endpoint.scheme == "tls" for one in self._addresses)
        self._context = server_context(worker.settings.listen.tls) if is_tls else None
        self._covering: dict[int, list[Listener]] = {}
        self._nursery: trio.Nursery | None = None
        self.is_retired = False
        worker.listeners += self._listeners(index)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let queues be covered until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            await trio.sleep_forever()

    async def cover(self, seats: Collection[int]) -> None:
        """Accept for these workers too, and for no others any more: who is back finds its queue as it is."""
        if self.is_retired or self._nursery is None:
            return
        for seat in [one for one in self._covering if one not in seats]:
            for listener in self._covering.pop(seat):
                listener.close()
                self._worker.listeners.remove(listener)
        news: list[Listener] = []
        for seat in seats:
            if seat not in self._covering:
                self._covering[seat] = listeners = self._listeners(seat, is_covering=True)
                news += listeners
        self._worker.listeners += news
        for listener in news:  # only now: who is told otherwise, or to retire, meanwhile finds all of them
            await self._nursery.start(listener.run)

    def retire(self, kept: Collection[str] | None = None) -> None:
        """Accept no more. Who waits in a queue is taken, but of addresses that others go on with: None means all."""
        self._worker.reactor.enter()
        if not self.is_retired:
            self.is_retired = True
            for listener in self._worker.listeners:
                if kept is None or listener.name in kept:
                    listener.close()
                else:
                    listener.retire()
        self._worker.reactor.flush()

    def _listeners(self, seat: int, *, is_covering: bool = False) -> list[Listener]:
        made = []
        for address in self._addresses:
            for number, fd in enumerate(address.fds):
                is_own = number % self._count == seat
                is_shared = len(address.fds) < self._count and seat % len(address.fds) == number
                if is_own or (is_shared and not is_covering):
                    made.append(self._listener(address, fd, is_shared=is_shared))
        return made

    def _listener(self, address: Address, fd: int, *, is_shared: bool) -> Listener:
        context = self._context if address.endpoint.scheme == "tls" else None
        sock = socket.socket(fileno=os.dup(fd))
        sock.setblocking(False)
        worker = self._worker
        return Listener(
            worker.reactor,
            address.endpoint,
            context,
            worker.door.accept,
            failed=worker.door.handshake_failed,
            inherited=sock,
            is_shared=is_shared,
        )


def make_worker(settings: Settings, upstream: Endpoint) -> Worker:
    """Return a worker that listens on nothing yet: its queues are made beside it."""
    worker = Worker(attrs.evolve(settings, listen=attrs.evolve(settings.listen, urls=())), upstream)
    worker.apply(settings)
    return worker
