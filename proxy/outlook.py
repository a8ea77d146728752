"""What is seen and heard of a proxy from outside: the admin port, the change feed, the figures over time.

    Redis --ChangeWatch--> Feed --Push--> streams and polls            one of each for the whole host: in the process of
    figures --Monitor--> history, alerts --> Feed                      the only worker, or in the parent of several

Owns how these fit together; what is answered for one worker or for all is the `AdminSource`'s.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any, Final

import trio

from proxy import __version__
from proxy.admin.http import serve_admin
from proxy.admin.monitor import Monitor
from proxy.admin.pushing import Push, Sharer
from proxy.admin.routes import AdminSource
from proxy.amqp.alert_sender import AlertSender
from proxy.config.model import Endpoint, Settings
from proxy.core.feed.families import feed_families
from proxy.core.feed.feed import Feed
from proxy.core.figures.stats import MetricFamily
from proxy.net.change_watch import ChangeWatch
from proxy.net.dial import Upstream
from proxy.net.tls import client_context
from proxy.values.rules import Rules

_SILENT_S: Final = 0.5  # a link that is silent for less is not given up, however fresh L1 must be


class Outlook:
    """The outside of one proxy. `sharer`: the reactor, where clients are served in this process."""

    def __init__(
        self, source: AdminSource, settings: Settings, upstream: Endpoint, sharer: Sharer | None = None
    ) -> None:
        self.settings = settings
        self.feed = Feed(
            settings.push,
            Rules(settings.classes),
            now_ms=lambda: time.time_ns() // 1_000_000,
            epoch=secrets.token_hex(4),
        )
        tls, timeouts = settings.upstream.tls, settings.upstream
        context = client_context(tls) if upstream.scheme == "tls" else None
        self.watch = ChangeWatch(
            self.feed,
            Upstream(upstream, context, timeouts.connect_timeout_s, timeouts.response_timeout_s),
            silent_s=_silent_s(settings),
            breathe=sharer.turn if sharer is not None else lambda: None,
        )
        amqp = settings.amqp
        broker = AlertSender(amqp, name=f"respite {__version__}") if amqp.urls else None
        self.monitor = Monitor(source, self.feed, settings, broker=broker)
        self.push = Push(self.feed, settings.push, sharer=sharer)
        self._source = source

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; `task_status` gets the URL of the admin port, "none" where there is none.

        Raises ListenError, before it has started, when the admin port cannot be opened.
        """
        listen = self.settings.listen
        url = "none"
        async with trio.open_nursery() as nursery:
            if listen.admin:
                url = await nursery.start(self._serve, listen.admin, listen.admin_token)
                nursery.start_soon(self.watch.run)
            await nursery.start(self.monitor.run)
            task_status.started(url)

    async def _serve(self, url: str, token: str, *, task_status: trio.TaskStatus[str]) -> None:
        await serve_admin(url, token, self._source, monitor=self.monitor, push=self.push, task_status=task_status)

    def stop(self) -> None:
        """End all streams: the proxy is going."""
        self.push.stop()

    def take(self, settings: Settings) -> None:
        """Take what may change while running."""
        self.settings = settings
        self.feed.take(settings.push, Rules(settings.classes))
        self.push.take(settings.push)
        self.watch.silent_s = _silent_s(settings)
        self.monitor.reload(settings)

    def report(self) -> dict[str, Any]:
        """Return what of it stands in stats.json."""
        return {"push": {**self.feed.report(), "watch": self.watch.report()}}

    def families(self) -> Iterable[MetricFamily]:
        """Return the metrics of it."""
        return feed_families(self.feed.report())


def _silent_s(settings: Settings) -> float:
    return max(settings.l1.max_staleness_s, _SILENT_S)
