"""The parent of the workers: opens what they share, starts them, answers for them, stops them in order.

start  embedded Redis (if asked) -> addresses -> workers -> admin port -> start line
stop   first SIGTERM or SIGINT: addresses close, workers finish with their clients, exit 0; the second: at once
next   SIGUSR2: the command of this process is started anew, takes the addresses over, and this one finishes
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from functools import partial

import trio

from proxy.app import launch, leave, make_way, may_be_followed, start_line, telemetry_of
from proxy.config.model import Endpoint, Settings
from proxy.log import get_logger, say
from proxy.net.door.entrance import Entrance, start_next
from proxy.outlook import Outlook
from proxy.supervisor.child import Job
from proxy.supervisor.fleet import Fleet
from proxy.supervisor.host import Host
from proxy.supervisor.shares import share_of

log = get_logger("supervisor")


def run(settings: Settings, reload: Callable[[], Settings], *, replaces: bool = False) -> int:
    """Run `listen.workers` processes until told to stop; return the exit code. `reload` reads the configuration.

    `replaces`: take the addresses over from the proxy that has them, and let it go once these workers serve.
    """

    async def main(upstream: Endpoint, entrance: Entrance) -> int:
        return await _main(Host(settings, reload, entrance.manager), settings, upstream, entrance)

    return launch(settings, main, replaces=replaces)


async def _main(host: Host, settings: Settings, upstream: Endpoint, entrance: Entrance) -> int:
    addresses = entrance.addresses
    count = settings.listen.workers
    must_be_fit = entrance.takes_over

    def job(index: int, ids: range) -> Job:
        share = share_of(host.settings, index, count)
        return Job(index, count, ids, share, upstream, addresses.all, must_be_fit and not host.has_started)

    host.fleet = fleet = Fleet(count, job, host.handlers(), lambda: addresses.fds)
    # Listened to until everything is cleaned up: no signal finds a moment at which it would leave something behind.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2) as signals:
        telemetry = telemetry_of(host.settings)  # first: a wrong environment is found before anything is started
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_obey, signals, host, nursery.cancel_scope)
                addresses.open(settings.listen.urls, count)
                host.outlook = outlook = Outlook(host, host.settings, upstream)
                await outlook.open(entrance)
                with entrance.in_time():
                    urls = await nursery.start(fleet.run)
                admin = await nursery.start(outlook.run)
                host.has_started = True
                line = start_line(urls, admin, upstream)
                say(line)
                await entrance.took_over()
                host.manager.ready(line)
                nursery.start_soon(entrance.run, partial(make_way, outlook, host.drain))
                nursery.start_soon(host.watch)
                if telemetry is not None:
                    nursery.start_soon(telemetry.run, host)
                await host.stopping.wait()
                await leave(entrance, outlook, host.settings)
                await fleet.retire(entrance.kept)
                entrance.close()
                async with trio.open_nursery() as ending:
                    ending.start_soon(fleet.drain)
                    if telemetry is not None:  # of the workers' last seconds nothing is told
                        ending.start_soon(telemetry.close, host)
                nursery.cancel_scope.cancel()
        finally:
            entrance.close()
    return 0


async def _obey(signals: AsyncIterator[int], host: Host, scope: trio.CancelScope) -> None:
    """Turn signals into what they mean. The second one to stop ends everything at once; a drain asked for is none."""
    is_told = False
    async with trio.open_nursery() as nursery:
        async for number in signals:
            if number == signal.SIGHUP:
                nursery.start_soon(host.reload)  # workers may take their time: the next signal may be to stop
            elif number == signal.SIGUSR2:
                if may_be_followed(host.settings, started=host.has_started and not host.stopping.is_set()):
                    nursery.start_soon(start_next)
            elif is_told or not host.has_started:
                scope.cancel()
            else:
                is_told = True
                log.info("stopping", signal=signal.Signals(number).name)
                host.stopping.set()
