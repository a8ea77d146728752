"""What watches the figures: once a second a look at the proxy, kept, judged, and told to whoever wants to know.

    source.snapshot --> figures --> history, days --> trends
                           |                            |
                           '--> alerts --> log, webhooks, broker
                           '--> feed: respite:figures, respite:alerts

Owns the clock of all that. What goes wrong in a look is logged, and the next one comes a second later; what it watches
never waits for it. Alerts are judged over the last 15 seconds, so that no single second makes one.
"""

from __future__ import annotations

import difflib
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import trio

from proxy.admin.webhook import Webhooks
from proxy.config.alerts import alerts_of
from proxy.config.model import Settings
from proxy.core.figures.alerts import Alerts, Notice, Notifier
from proxy.core.figures.days import Days
from proxy.core.figures.health import Health, assess, parts_of
from proxy.core.figures.history import QUEUE_GROWTH, WATCHED, History
from proxy.core.figures.snapshot import Snapshot, read_figures
from proxy.core.figures.trends import Trends
from proxy.events.notices import FULL_AT
from proxy.log import get_logger

TICK_S: Final = 1.0
STEADY_S: Final = 15.0
SPAN_MAX_S: Final = 366 * 86_400.0  # more than is ever kept
TREND_TICKS: Final = 3  # one figure's trend is looked at in so many looks
FIGURES_CHANNEL: Final = "respite:figures"
ALERTS_CHANNEL: Final = "respite:alerts"
log = get_logger("monitor")
alert_log = get_logger("alert")


class Source(Protocol):
    """What is watched."""

    async def snapshot(self) -> Snapshot:
        """Return everything at this moment."""
        ...


class Told(Protocol):
    """Who is told."""

    def tell(self, channel: str, payload: dict[str, Any]) -> None:
        """Tell the subscribers of one of Respite's own channels."""
        ...


class Monitor:
    """Watches one source, from one look to the next."""

    def __init__(
        self,
        source: Source,
        feed: Told | None,
        settings: Settings,
        *,
        broker: Notifier | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`feed` None: nobody subscribes. `broker` takes notices for it. `now_s` is since 1970, the clock of people."""
        self._source = source
        self._feed = feed
        self._settings = settings
        self._now_s = now_s
        self._history = History(settings.metrics.history_s)
        self._days = Days()
        self._trends = Trends(self._history, self._days)
        self._alerts = Alerts(alerts_of(settings))
        self._webhooks = Webhooks()
        self._broker = broker
        self._looks: deque[Snapshot] = deque()
        self._now = Snapshot(0.0, {})
        self._steady: dict[str, float] = {}
        self._health = Health("healthy", ())
        self._has_broken = False
        self._count = 0

    def reload(self, settings: Settings) -> None:
        """Take new settings: rules that say the same go on, others begin anew."""
        self._settings = settings
        self._history.keep(settings.metrics.history_s)
        self._tell_alerts(self._alerts.replace(alerts_of(settings), self._now.at))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. Started once there is a first look."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._webhooks.run)
            if self._broker is not None:
                nursery.start_soon(self._broker.run)
            await self._try()
            task_status.started()
            due = trio.current_time()
            while True:
                due = max(due + TICK_S, trio.current_time())
                await trio.sleep_until(due)
                await self._try()

    async def look(self) -> None:
        """Look once, and tell what is new."""
        self._take(await self._source.snapshot())
        await trio.lowlevel.checkpoint()  # half a millisecond at a time: this loop serves clients
        self._count += 1
        if self._count % TREND_TICKS == 0:
            self._trends.step(self._now_s(), self._bounds(), self._alerts.bounds())
            await trio.lowlevel.checkpoint()
        figures = dict(self._history.latest)
        if self._feed is not None:
            self._feed.tell(FIGURES_CHANNEL, self._figures_body(figures))

    def report(self) -> dict[str, Any]:
        """Return the body of /report.json: cache, queue, polling, overall."""
        return {
            "at": _iso(self._now_s()),
            **parts_of(self._steady, self._now.report, self._health, self._alert_rows(), self._trend_rows()),
        }

    def history(self, names: str, seconds: float, step: float) -> dict[str, Any]:
        """Return the body of /history.json: of each figure its points as [ms since 1970, value or null].

        `names` is one figure or several, with commas between them. Raises ValueError with the reason.
        """
        if not 0 < seconds <= SPAN_MAX_S or not 0 < step <= SPAN_MAX_S:  # NaN is not, either
            raise ValueError(f"seconds and step are numbers above 0, at most {SPAN_MAX_S:.0f}")
        wanted = list(dict.fromkeys(names.split(",")))
        for name in wanted:
            if name not in WATCHED:
                near = difflib.get_close_matches(name, WATCHED, n=1)
                raise ValueError(
                    f"there is no figure {name!r}; " + (f"did you mean {near[0]}?" if near else _figures())
                )
        offset_s = self._now_s() - self._now.at
        return {"series": [self._series(name, seconds, step, offset_s) for name in wanted]}

    async def _try(self) -> None:
        try:
            await self.look()
        except Exception:
            if not self._has_broken:
                log.exception("the monitor broke, it goes on")
            self._has_broken = True
        else:
            self._has_broken = False

    def _take(self, now: Snapshot) -> None:
        while self._looks and self._looks[0].at < now.at - STEADY_S:
            self._looks.popleft()
        figures = read_figures(now, self._looks[-1] if self._looks else None)
        self._steady = read_figures(now, self._looks[0] if self._looks else None)
        self._looks.append(now)
        self._now = now
        if "queue_depth" in figures and (growth := self._history.growth("queue_depth")) is not None:
            figures[QUEUE_GROWTH.name] = self._steady[QUEUE_GROWTH.name] = growth
        self._history.add(now.at, figures)
        self._days.add(self._now_s(), figures)
        notices = self._alerts.judge(self._steady, now.at)
        self._health = assess(self._steady, now.report, self._alerts.rows(now.at))
        self._tell_alerts(notices)

    def _bounds(self) -> dict[str, float]:
        """Return where figures are full."""
        bounds = {"l1_fill": 1.0, "tracking_pressure": 1.0, "offline_fill": 1.0, "outbox_depth": float(FULL_AT)}
        if self._settings.metrics.queue_full_at:
            bounds["queue_depth"] = float(self._settings.metrics.queue_full_at)
        return bounds

    def _tell_alerts(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            body = {"at": _iso(self._now_s()), **notice.body()}
            if self._feed is not None:
                self._feed.tell(ALERTS_CHANNEL, body)
            for where in notice.notify:
                if where.kind == "webhook":
                    self._webhooks.offer(body, where.target)
                elif where.kind == "amqp" and self._broker is not None:
                    self._broker.offer(body, where.target)
                elif where.kind == "log":
                    write = alert_log.warning if notice.state == "on" else alert_log.info
                    write(notice.text, state=notice.state, name=notice.name, when=notice.when, value=notice.value)

    def _figures_body(self, figures: dict[str, float]) -> dict[str, Any]:
        return {
            "figures": figures,
            "steady": self._steady,
            "health": self._health.state,
            "reasons": list(self._health.reasons),
            "alerts": [row for row in self._alert_rows() if row["state"] != "off"],
            "trends": self._trend_rows(),
        }

    def _alert_rows(self) -> list[dict[str, Any]]:
        rows = self._alerts.rows(self._now.at)
        now_s = self._now_s()
        return [{**row, "since": None if row["lasts_s"] is None else _iso(now_s - row["lasts_s"])} for row in rows]

    def _trend_rows(self) -> list[dict[str, Any]]:
        return [trend.row() for trend in self._trends.found]

    def _series(self, name: str, seconds: float, step: float, offset_s: float) -> dict[str, Any]:
        figure = WATCHED[name]
        points = self._history.series(name, seconds, step)
        return {
            "figure": name,
            "unit": figure.unit,
            "about": figure.about,
            "good": figure.good,
            "points": [[round((at + offset_s) * 1000), value] for at, value in points],
        }


def _figures() -> str:
    return "the figures are " + ", ".join(WATCHED)


def _iso(now_s: float) -> str:
    return datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
