"""The worker processes: a seat each, which is never empty for long.

    start -> asks its job -> serving -> ends -> waits, longer each time -> start
               |        |                |
               |        |                |   meanwhile the first of the others accepts who comes to its queues
               |        |                +-> while stopping: the seat stays empty
               |        +-> where another proxy serves until then: fit, and serving once all are
               +-> fails before the seat has ever served: the whole start fails, with its words

Owns the processes. Whatever ends `run`, every one of them has been waited for.
"""

from __future__ import annotations

import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import attrs
import trio

from proxy.app import DRAIN_S
from proxy.core.figures.merge import Figures, retire
from proxy.errors import ListenError, RemoteError
from proxy.log import get_logger
from proxy.net.links.backoff import Backoff
from proxy.supervisor.channel import Channel, Handler
from proxy.supervisor.child import Job

# A worker takes half a second of processor to start, so a restart waits longer than a reconnect: 0.1 to 10 s.
_SLOWER: Final = 10.0
_STEADY_S: Final = 60.0  # who has served so long died of something new
_LEAVE_S: Final = 2.0  # between the end of its channel, or of the time to drain, and SIGKILL
_POLL_S: Final = 0.01
_IDS_PER_LIFE: Final = 10**8  # client ids of one worker process; the next one in its seat gives others
log = get_logger("supervisor")


class StartError(ListenError):
    """A worker cannot start; the text is why, in its own words."""


@attrs.define(eq=False)
class Child:
    """One worker process."""

    pid: int
    channel: Channel
    process: subprocess.Popen[bytes]
    urls: list[str] | None = None  # where it listens, None before it serves
    accepts: bool = False  # it serves, and does not leave yet
    covers: frozenset[int] | None = frozenset()  # the seats whose queues it accepts from, too; None: it has not said
    failed: str = ""  # why it cannot start
    figures: Figures | None = None  # as it gave them when it was last asked


@attrs.define(eq=False)
class Seat:
    """The place of one worker among the others: what outlives its process."""

    index: int
    restarts: int = 0
    child: Child | None = None  # None between two of them
    is_fit: trio.Event = attrs.field(factory=trio.Event)  # it could serve, where all must before one does
    served: trio.Event = attrs.field(factory=trio.Event)
    retired: Figures | None = None  # what the processes before it counted


class Fleet:
    """Keep `count` workers running. `job` gives one its job, `handlers` answer what it asks for its clients.

    `fds` are the descriptors each inherits.
    """

    def __init__(
        self,
        count: int,
        job: Callable[[int, range], Job],
        handlers: Mapping[str, Handler],
        fds: Callable[[], Sequence[int]],
    ) -> None:
        self.seats = [Seat(index) for index in range(count)]
        self.stopping = False
        self._nursery: trio.Nursery
        self._covering = trio.Lock()
        self._job = job
        self._handlers = handlers
        self._fds = fds

    async def run(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled, which kills all that still run. `task_status` gets the addresses once all serve.

        Raises StartError when a worker fails before it has ever served.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for seat in self.seats:
                nursery.start_soon(self._keep, seat)
            for seat in self.seats:
                await seat.served.wait()
            first = self.seats[0].child
            task_status.started(first.urls if first is not None and first.urls is not None else [])

    async def retire(self, kept: frozenset[str]) -> None:
        """Have every worker accept no more; who waits in a queue is taken, but of the addresses that are `kept`."""
        self.stopping = True
        async with trio.open_nursery() as nursery:
            for child in self.children():
                nursery.start_soon(_ask_to_retire, child, kept)

    async def drain(self) -> None:
        """Have every worker finish what runs and leave; returns when all have, or have had their time."""
        self.stopping = True
        async with trio.open_nursery() as nursery:
            for child in self.children():
                nursery.start_soon(_ask_to_drain, child)
        with trio.move_on_after(DRAIN_S + _LEAVE_S):
            while self.children():
                await trio.sleep(_POLL_S)

    def children(self) -> list[Child]:
        """Return the processes there are at the moment."""
        return [seat.child for seat in self.seats if seat.child is not None]

    async def _keep(self, seat: Seat) -> None:
        backoff = Backoff()
        while not self.stopping:
            began = trio.current_time()
            try:
                child = self._start(seat)
            except StartError as exc:
                if not seat.served.is_set():
                    raise
                wait_s = backoff.next_s() * _SLOWER  # no memory, no descriptor: the others serve, and it may pass
                log.warning("seat stays empty", worker=seat.index, why=str(exc), next_in_s=round(wait_s, 2))
                await trio.sleep(wait_s)
                continue
            await self._live(seat, child)
            how = child.failed or _how_it_ended(child.process.returncode)
            if self.stopping:
                return
            if not seat.served.is_set():
                raise StartError(child.failed or f"worker {seat.index} ended while it started: {how}")
            if child.urls is not None and trio.current_time() - began > _STEADY_S:
                backoff.reset()
            wait_s = backoff.next_s() * _SLOWER
            log.error("worker ended", worker=seat.index, pid=child.pid, how=how, next_in_s=round(wait_s, 2))
            await trio.sleep(wait_s)
            seat.restarts += 1

    async def _live(self, seat: Seat, child: Child) -> None:
        """See one process, just started, to its end. Cancelled, it kills the process."""
        seat.child = child
        try:
            await child.channel.run()
            child.accepts = False
            self._nursery.start_soon(self._cover)  # not waited for: one that hangs shall hold up no seat
        except BaseException:
            child.process.kill()
            raise
        finally:
            # The seat is empty once the process is no more: who waits for that may go on without it.
            with trio.CancelScope(shield=True):
                await _bury(child.process)
            seat.child = None
            if child.figures is not None:
                seat.retired = retire(child.figures, seat.retired)

    async def _cover(self) -> None:
        """Have the first worker that accepts do it for all who do not, once they have for the first time."""
        async with self._covering:
            seats = [seat for seat in self.seats if seat.served.is_set()]
            away = frozenset(seat.index for seat in seats if seat.child is None or not seat.child.accepts)
            for seat in seats:
                child = seat.child
                if child is None or not child.accepts or self.stopping:
                    continue
                try:
                    if child.covers != away:
                        await child.channel.ask("cover", away)
                except RemoteError as exc:  # it hangs, or has just gone: another one shall
                    child.covers = None  # it will, if it ever goes on: the next time it is told what is so by then
                    log.warning("worker covers for no other", worker=seat.index, why=str(exc))
                else:
                    child.covers, away = away, frozenset()

    def _start(self, seat: Seat) -> Child:
        """Start a process; on this thread, for the kernel ties its life to the thread that forked it.

        Raises StartError when the system has no more descriptors or no memory for it.
        """

        async def job() -> Job:
            first = seat.index + 1 + seat.restarts * _IDS_PER_LIFE * len(self.seats)
            return self._job(seat.index, range(first, 2**63, len(self.seats)))

        async def fit() -> None:
            seat.is_fit.set()
            for one in self.seats:
                await one.is_fit.wait()

        async def serving(urls: list[str]) -> None:
            child.urls = urls
            child.accepts = True
            seat.served.set()
            self._nursery.start_soon(self._cover)
            log.info("worker serves", worker=seat.index, pid=child.pid)

        async def leaving() -> None:
            child.accepts = False
            await self._cover()

        async def failed(why: str) -> None:
            child.failed = why

        with ExitStack() as undone:
            try:
                ours, theirs = socket.socketpair()
                undone.enter_context(ours)
                with theirs:
                    process = subprocess.Popen(
                        [sys.executable, "-P", "-m", "proxy", "worker", str(theirs.fileno())],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        env=_environment(),
                        pass_fds=(theirs.fileno(), *self._fds()),
                        start_new_session=True,
                    )
            except OSError as exc:
                raise StartError(f"no worker can be started: {exc.strerror or exc}") from exc
            undone.pop_all()
        own: dict[str, Handler] = {"job": job, "fit": fit, "serving": serving, "leaving": leaving, "failed": failed}
        child = Child(process.pid, Channel(ours, {**self._handlers, **own}), process)
        return child


async def _ask_to_retire(child: Child, kept: frozenset[str]) -> None:
    try:
        await child.channel.ask("retire", kept)
    except RemoteError as exc:
        log.warning("worker is not heard to accept no more", pid=child.pid, why=str(exc))


async def _ask_to_drain(child: Child) -> None:
    try:
        await child.channel.ask("drain")
    except RemoteError as exc:
        if child.channel.is_open:  # else it has left, or is about to: nobody is to be waited for
            log.warning("worker killed: it does not drain", pid=child.pid, why=str(exc))
        child.process.kill()


async def _bury(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process is no more; one that lingers is killed. An answer of its, just read, is used before."""
    deadline = trio.current_time() + _LEAVE_S
    while True:
        await trio.sleep(_POLL_S)
        if process.poll() is not None:
            return
        if trio.current_time() >= deadline:
            process.kill()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _environment() -> dict[str, str]:
    """Return what a worker needs to find the same package, wherever we were started.

    `-P` keeps the current directory out of it, where another `proxy` may lie. A checkout, not installed, is named.
    """
    home = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)
    if home not in (*site.getsitepackages(), site.getusersitepackages()):
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (home, environment.get("PYTHONPATH"))))
    return environment
