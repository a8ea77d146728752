"""The process of one of several workers: asks its parent what to serve, serves it, ends with its parent.

SIGTERM drains it, once another worker has been told to accept for it, and the parent starts another. Ctrl-C and SIGHUP
are the parent's: a worker has a session of its own, so they come to the parent alone. When the parent has gone, however
it went, this process goes too: the kernel kills it (Linux), or it finds the channel closed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from contextlib import suppress
from functools import partial
from typing import Final

import attrs
import trio

from proxy.app import DRAIN_S, App, why_not_started
from proxy.config.model import Endpoint, Settings
from proxy.core.session import Sessions
from proxy.errors import ListenError, RemoteError
from proxy.log import configure, get_logger
from proxy.net.door.addresses import Address
from proxy.net.door.entrance import SERVES_S, await_fit
from proxy.net.door.queues import Queues, make_worker
from proxy.net.events.event_sink import make_event_sink
from proxy.supervisor.channel import Channel, NoAnswerError
from proxy.supervisor.duties import Duties, HostLink

_PR_SET_PDEATHSIG: Final = 1
log = get_logger("worker")


@attrs.frozen
class Job:
    """What a worker is to serve: `settings` hold its share of what is for the whole host."""

    index: int
    count: int  # of workers
    ids: range  # of clients, which are told apart on the whole host
    settings: Settings
    upstream: Endpoint
    addresses: tuple[Address, ...]
    must_be_fit: bool  # another proxy serves as long as this one cannot


def run_worker(fd: int) -> int:
    """Work for the parent at the other end of the socket `fd`; return the exit code."""
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return trio.run(_main, socket.socket(fileno=fd), strict_exception_groups=True)


async def _main(sock: socket.socket) -> int:
    duties = Duties()
    channel = Channel(sock, duties.handlers())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_with, channel, nursery.cancel_scope)
        await nursery.start(_drain_at_sigterm, duties)
        code = 0
        try:
            await _work(channel, duties, nursery)
        except (ListenError, RemoteError) as exc:
            code = 1
            await _tell(channel, str(exc))
        except BaseExceptionGroup as group:
            if (why := why_not_started(group)) is None:
                raise
            code = 1
            await _tell(channel, why)
        nursery.cancel_scope.cancel()
    return code


async def _tell(channel: Channel, why: str) -> None:
    with suppress(NoAnswerError):  # nobody is there to be told
        await channel.ask("failed", why)


async def _work(channel: Channel, duties: Duties, nursery: trio.Nursery) -> None:
    job: Job = await channel.ask("job")
    duties.index = job.index
    configure(job.settings.log.level, job.settings.log.format)
    worker = make_worker(job.settings, job.upstream)
    worker.sessions = Sessions(job.ids.start, job.ids.step)
    app = App(worker, job.settings, lambda: job.settings, make_event_sink(worker), consumes=job.index == 0)
    if duties.settings is not None:  # came while the worker was being made
        app.take(duties.settings)
    worker.host = HostLink(channel, nursery, worker.reactor)
    duties.app = app
    duties.queues = queues = Queues(worker, job.addresses, job.index, job.count)
    if job.must_be_fit:
        worker.may_accept = partial(_await_all_fit, channel, app)
    await nursery.start(queues.run)
    with trio.CancelScope() as starting:
        nursery.start_soon(_cancel_at, duties.stopping, starting)
        urls = await nursery.start(worker.run)
        await channel.ask("serving", urls)
    consuming = await nursery.start(app.consume)
    await duties.stopping.wait()
    await _hand_in(channel, duties, job)
    log.info("stopping", worker=job.index)
    await worker.drain(DRAIN_S)
    consuming.cancel()  # not before: the others serve on, and no other of us takes events
    if app.telemetry is not None:  # its figures are the parent's to send
        await app.telemetry.close()


async def _await_all_fit(channel: Channel, app: App) -> None:
    """Return once every worker can serve: whom one accepts before is cut off if another never can."""
    await await_fit(app.ready)
    await channel.ask("fit", timeout_s=SERVES_S)


async def _hand_in(channel: Channel, duties: Duties, job: Job) -> None:
    """Leave the queues to another worker, which the parent names, or to the next one in this seat."""
    if duties.queues is not None and not duties.queues.is_retired:
        with suppress(NoAnswerError):
            await channel.ask("leaving")
        duties.queues.retire()
    for address in job.addresses:
        for fd in address.fds:
            os.close(fd)


async def _end_with(channel: Channel, scope: trio.CancelScope) -> None:
    await channel.run()
    scope.cancel()  # the parent has gone


async def _cancel_at(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _drain_at_sigterm(duties: Duties, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            duties.stopping.set()


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent has died, whatever it is doing then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
