"""What is seen and heard of a proxy from outside: the admin port, the change feed, the figures over time.

    Redis --ChangeWatch--> Feed --Push--> streams and polls            one of each for the whole host: in the process of
    figures --Monitor--> history, alerts --> Feed                      the only worker, or in the parent of several

Owns how these fit together; what is answered for one worker or for all is the `AdminSource`'s.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import trio

from proxy import __version__
from proxy.admin.http import open_admin, serve_admin
from proxy.admin.monitor import Monitor
from proxy.admin.pushing import Push, Sharer
from proxy.admin.routes import AdminSource
from proxy.config.model import Amqp, Endpoint, Settings
from proxy.core.feed.families import feed_families
from proxy.core.feed.feed import Feed
from proxy.core.figures.alerts import Notifier
from proxy.core.figures.stats import MetricFamily
from proxy.net.changes.change_watch import ChangeWatch
from proxy.net.door.entrance import Entrance
from proxy.net.links.dial import Upstream
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
        self.monitor = Monitor(source, self.feed, settings, broker=_alert_sender(settings.amqp))
        self.push = Push(self.feed, settings.push, sharer=sharer)
        self._listeners: Sequence[trio.SocketListener] = ()
        self._leaving = trio.Event()
        self._source = source
        self._entrance: Entrance | None = None

    async def open(self, entrance: Entrance) -> None:
        """Open the admin port, before anybody is served: raises ListenError when it cannot be.

        Its sockets are kept at the entrance too, for the proxy that comes after this one.
        """
        self._entrance = entrance
        listen = self.settings.listen
        given = entrance.take_admin()
        if listen.admin:
            self._listeners = await open_admin(listen.admin, listen.admin_token, given)
            entrance.hold_admin(listener.socket.fileno() for listener in self._listeners)

    async def run(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; `task_status` gets the URL of the admin port, "none" where there is none.

        Raises ListenError, before it has started, when the admin port was not opened and cannot be.
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
        await serve_admin(
            url,
            token,
            self._source,
            monitor=self.monitor,
            push=self.push,
            listeners=self._listeners,
            closing=self._leaving,
            task_status=task_status,
        )

    def stop(self) -> None:
        """End all streams: the proxy is going."""
        self.push.stop()

    def leave(self) -> None:
        """Leave the admin port to the proxy that has taken the place of this one."""
        self._leaving.set()

    def take(self, settings: Settings) -> None:
        """Take what may change while running."""
        self.settings = settings
        self.feed.take(settings.push, Rules(settings.classes))
        self.push.take(settings.push)
        self.watch.silent_s = _silent_s(settings)
        self.monitor.reload(settings)

    def report(self) -> dict[str, Any]:
        """Return what of it stands in stats.json."""
        return {
            "push": {**self.feed.report(), "watch": self.watch.report()},
            "doors": {"state": "open" if self._entrance is None else self._entrance.state},
        }

    def families(self) -> Iterable[MetricFamily]:
        """Return the metrics of it."""
        return feed_families(self.feed.report())


def _alert_sender(amqp: Amqp) -> Notifier | None:
    if not amqp.urls:
        return None
    from proxy.amqp.alert_sender import AlertSender  # noqa: PLC0415 - brings the protocol of the broker along

    return AlertSender(amqp, name=f"respite {__version__}")


def _silent_s(settings: Settings) -> float:
    return max(settings.l1.max_staleness_s, _SILENT_S)
