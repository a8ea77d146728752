"""The parent of the workers: opens what they share, starts them, answers for them, stops them in order.

start  embedded Redis (if asked) -> addresses -> workers -> admin port -> start line
stop   first SIGTERM or SIGINT: addresses close, workers finish with their clients, exit 0; the second: at once
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable

import trio

from proxy.app import launch, start_line, telemetry_of
from proxy.config.model import Endpoint, Settings
from proxy.log import get_logger
from proxy.net.service_manager import ServiceManager
from proxy.outlook import Outlook
from proxy.supervisor.addresses import Addresses
from proxy.supervisor.child import Job
from proxy.supervisor.fleet import Fleet
from proxy.supervisor.host import Host
from proxy.supervisor.shares import share_of

log = get_logger("supervisor")


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Run `listen.workers` processes until told to stop; return the exit code. `reload` reads the configuration."""
    manager = ServiceManager.of(os.environ)

    async def main(upstream: Endpoint) -> int:
        return await _main(Host(settings, reload, manager), settings, upstream)

    return launch(settings, main)


async def _main(host: Host, settings: Settings, upstream: Endpoint) -> int:
    addresses = Addresses()
    count = settings.listen.workers

    def job(index: int, ids: range) -> Job:
        return Job(index, ids, share_of(host.settings, index, count), upstream, addresses.all)

    host.fleet = fleet = Fleet(count, job, host.handlers(), lambda: addresses.fds)
    # Listened to until everything is cleaned up: no signal finds a moment at which it would leave something behind.
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        telemetry = telemetry_of(host.settings)  # first: a wrong environment is found before anything is started
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_obey, signals, host, nursery.cancel_scope)
                addresses.open(settings.listen.urls)
                urls = await nursery.start(fleet.run)
                host.outlook = outlook = Outlook(host, host.settings, upstream)
                admin = await nursery.start(outlook.run)
                host.has_started = True
                line = start_line(urls, admin, upstream)
                print(line, flush=True)
                host.manager.ready(line)
                nursery.start_soon(host.watch)
                if telemetry is not None:
                    nursery.start_soon(telemetry.run, host)
                await host.stopping.wait()
                host.manager.stopping()
                outlook.stop()
                addresses.close()
                async with trio.open_nursery() as ending:
                    ending.start_soon(fleet.drain)
                    if telemetry is not None:  # of the workers' last seconds nothing is told
                        ending.start_soon(telemetry.close, host)
                nursery.cancel_scope.cancel()
        finally:
            addresses.close()
    return 0


async def _obey(signals: AsyncIterator[int], host: Host, scope: trio.CancelScope) -> None:
    """Turn signals into what they mean. The second one to stop ends everything at once; a drain asked for is none."""
    is_told = False
    async with trio.open_nursery() as nursery:
        async for number in signals:
            if number == signal.SIGHUP:
                nursery.start_soon(host.reload)  # workers may take their time: the next signal may be to stop
            elif is_told or not host.has_started:
                scope.cancel()
            else:
                is_told = True
                log.info("stopping", signal=signal.Signals(number).name)
                host.stopping.set()
