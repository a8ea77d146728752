"""The process of one of several workers: asks its parent what to serve, serves it, ends with its parent.

SIGTERM drains it, and the parent starts another. Ctrl-C and SIGHUP are the parent's: a worker has a session of its own,
so they come to the parent alone. When the parent has gone, however it went, this process goes too: the kernel kills it
(Linux), or it finds the channel closed.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import sys
from typing import Final

import attrs
import trio

from proxy.app import DRAIN_S, App
from proxy.config.model import Endpoint, Settings
from proxy.core.session import Sessions
from proxy.errors import ListenError, RemoteError
from proxy.log import configure, get_logger
from proxy.net.event_sink import make_event_sink
from proxy.net.listener import Listener
from proxy.net.tls import server_context
from proxy.net.worker import Worker
from proxy.supervisor.addresses import Address
from proxy.supervisor.channel import Channel, NoAnswerError
from proxy.supervisor.duties import Duties, HostLink

_PR_SET_PDEATHSIG: Final = 1
log = get_logger("worker")


@attrs.frozen
class Job:
    """What a worker is to serve: `settings` hold its share of what is for the whole host."""

    index: int
    ids: range  # of clients, which are told apart on the whole host
    settings: Settings
    upstream: Endpoint
    addresses: tuple[Address, ...]


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
            if not isinstance(exc, NoAnswerError):  # else nobody is there to be told
                await channel.ask("failed", str(exc))
        nursery.cancel_scope.cancel()
    return code


async def _work(channel: Channel, duties: Duties, nursery: trio.Nursery) -> None:
    job: Job = await channel.ask("job")
    duties.index = job.index
    configure(job.settings.log.level, job.settings.log.format)
    worker = _build(job)
    app = App(worker, job.settings, lambda: job.settings, make_event_sink(worker), consumes=job.index == 0)
    if duties.settings is not None:  # came while the worker was being made
        app.take(duties.settings)
    worker.host = HostLink(channel, nursery, worker.reactor)
    duties.app = app
    with trio.CancelScope() as starting:
        nursery.start_soon(_cancel_at, duties.stopping, starting)
        urls = await nursery.start(worker.run)
        await channel.ask("serving", urls)
    consuming = await nursery.start(app.consume)
    await duties.stopping.wait()
    consuming.cancel()
    log.info("stopping", worker=job.index)
    await worker.drain(DRAIN_S)
    if app.telemetry is not None:  # its figures are the parent's to send
        await app.telemetry.close()


def _build(job: Job) -> Worker:
    """Make the worker, with listeners that share their addresses and ids that no other worker gives."""
    listen = job.settings.listen
    worker = Worker(attrs.evolve(job.settings, listen=attrs.evolve(listen, urls=())), job.upstream)
    worker.apply(job.settings)
    worker.sessions = Sessions(job.ids.start, job.ids.step)
    tls = server_context(listen.tls) if any(one.endpoint.scheme == "tls" for one in job.addresses) else None
    worker.listeners = [
        Listener(
            worker.reactor,
            one.endpoint,
            tls if one.endpoint.scheme == "tls" else None,
            worker.accept,
            reuse_port=one.fd < 0,
            inherited=None if one.fd < 0 else socket.socket(fileno=one.fd),
        )
        for one in job.addresses
    ]
    return worker


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
