"""What the parent answers for all workers: the admin port, and what clients ask about the whole host.

Asks every worker at once and joins what comes within the deadline; one that does not answer is shown as silent, with
the counters it had. Nothing here is about one worker alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import trio

from proxy.config.model import Settings
from proxy.config.reload import compare, merge_live
from proxy.core.figures.merge import Figures, join_facts, join_families, join_named, join_reports, known_by, retire
from proxy.core.figures.snapshot import Snapshot
from proxy.core.figures.stats import MetricFamily, Sample
from proxy.core.session import Filters
from proxy.errors import ConfigError, RemoteError
from proxy.events.event import Event
from proxy.log import configure, get_logger
from proxy.net.process import resident_bytes
from proxy.net.service_manager import ServiceManager
from proxy.outlook import Outlook
from proxy.supervisor.channel import Handler, NoAnswerError
from proxy.supervisor.fleet import Child, Fleet, Seat
from proxy.supervisor.shares import share_of
from proxy.supervisor.watching import feel_all

_PARENT: Final = -1  # the index of the parent's own figures: it is no worker
log = get_logger("supervisor")


class Host:
    """The whole host, as the admin port and the workers see it."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], manager: ServiceManager | None = None) -> None:
        """`read` reads the configuration again; `manager` is whoever started us and wants to hear."""
        self.settings = settings
        self.manager = manager or ServiceManager()
        self.fleet: Fleet
        self.outlook: Outlook | None = None
        self.has_started = False  # the start line has been printed
        self.stopping = trio.Event()
        self._read = read
        self._started_at = trio.current_time()
        self._reloading = trio.Lock()

    def handlers(self) -> Mapping[str, Handler]:
        """Return what a worker may ask on behalf of a client, by the question's name."""
        return {
            "clear_l1": self.clear_l1,
            "explain": self.explain,
            "kill": self.kill,
            "lines": self.lines,
            "pause": self.pause,
            "reload": self.reload,
            "stats": self.stats,
            "upstream_id": self.upstream_id,
        }

    # -- admin.routes.AdminSource ------------------------------------------------------------------------------------

    async def ready(self) -> tuple[bool, str]:
        """Return whether clients are served: by whom is running, all of whom must be able to."""
        if self.stopping.is_set():
            return False, "draining"
        answers: list[tuple[bool, str]] = list((await self._ask("ready")).values())
        if not answers:
            return False, "no worker runs"
        away = len(self.fleet.seats) - len(answers)
        for is_ready, why in answers:
            if not is_ready:
                return False, why
        return True, answers[0][1] + (f", {away} of {len(self.fleet.seats)} workers away" if away else "")

    async def stats(self) -> dict[str, Any]:
        """Return the body of /stats.json: one proxy's, and a row for each worker."""
        return dict((await self.snapshot()).report)

    async def snapshot(self) -> Snapshot:
        """Return everything at this moment, joined."""
        fresh, others = await self._figures("report")
        now = trio.current_time()
        reports = {one.index: one.report for one in fresh}
        report = {
            **join_reports([*fresh, *others], uptime_s=now - self._started_at),
            "workers": [_row(seat, reports.get(seat.index, {})) for seat in self.fleet.seats],
            **(self.outlook.report() if self.outlook is not None else {}),
        }
        histograms = join_named([one.histograms for one in [*fresh, *others]])
        return Snapshot(now, report, {name: one for name, one in histograms.items() if "/" not in name})

    async def families(self) -> Iterable[MetricFamily]:
        """Return all metrics, joined, and those about the workers."""
        fresh, others = await self._figures("figures")
        restarts = sum(seat.restarts for seat in self.fleet.seats)
        serving = sum(child.urls is not None for child in self.fleet.children())
        return [
            *join_families(one.families for one in [*fresh, *others]),
            *(self.outlook.families() if self.outlook is not None else ()),
            MetricFamily("respite_workers", "gauge", "Worker processes that serve.", (Sample("", {}, float(serving)),)),
            MetricFamily(
                "respite_worker_restarts",
                "counter",
                "Worker processes started in place of one that ended.",
                (Sample("_total", {}, float(restarts)),),
            ),
        ]

    async def explain(self, key: bytes) -> dict[str, Any]:
        """Return what the workers know about a key."""
        return join_facts(list((await self._ask("explain", key)).items()))

    async def invalidate(self, event: Event) -> dict[str, int]:
        """Have one worker drop keys, globs and tags; the others hear of it through Redis.

        They are asked in turn until one has: twice does no harm. Raises RemoteError, with the last one's reason.
        """
        why = "no worker runs"
        for seat in self.fleet.seats:
            if seat.child is None or seat.child.urls is None:
                continue
            try:
                dropped: dict[str, int] = await seat.child.channel.ask("invalidate", event)
            except NoAnswerError as exc:
                why = str(exc)
                log.warning("worker could not invalidate", worker=seat.index, why=why)
            else:
                return dropped
        raise RemoteError(why)

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again and have every worker apply it; a wrong one changes nothing.

        "partly" is there, and true, where the problems are not the file's: some workers have applied it, others not.
        """
        with self.manager.reloading():
            return await self._read_again()

    async def _read_again(self) -> dict[str, Any]:
        async with self._reloading:
            try:
                settings = self._read()
            except ConfigError as exc:
                problems = [str(problem) for problem in exc.problems]
                log.warning("reload refused, the old settings stay", problems=problems)
                return {"applied": [], "needs_restart": [], "problems": problems}
            except Exception as exc:  # a mistake of ours: no file may end a proxy that serves
                log.exception("reload failed, the old settings stay")
                problem = f"the file cannot be read: {type(exc).__name__}; the log has more, please report it"
                return {"applied": [], "needs_restart": [], "problems": [problem]}
            changes = compare(self.settings, settings)
            self.settings = merge_live(self.settings, settings)
            if "log.level" in changes.live:
                configure(self.settings.log.level, self.settings.log.format)
            if self.outlook is not None:
                self.outlook.take(self.settings)
            count = len(self.fleet.seats)
            _, refused = await self._ask_each(
                "apply", lambda index: (share_of(self.settings, index, count),), starting=True
            )
            log.info("reloaded", applied=list(changes.live), needs_restart=list(changes.restart))
            return {
                "applied": list(changes.live),
                "needs_restart": list(changes.restart),
                "problems": [f"worker {index} has not applied it: {why}" for index, why in refused.items()],
                **({"partly": True} if refused else {}),
            }

    async def watch(self) -> None:
        """Feed the watchdog of whoever started us, as long as every worker turns or is replaced."""
        await self.manager.watch(lambda: feel_all(self.fleet, self.manager.patience_s))

    def drain(self) -> None:
        """Stop taking clients, finish what runs, exit."""
        if not self.stopping.is_set():
            log.info("stopping", why="told to drain")
        self.stopping.set()

    # -- for clients of the workers ----------------------------------------------------------------------------------

    async def clear_l1(self) -> int:
        """Drop everything in L1, everywhere; return how many entries went."""
        return sum((await self._ask("clear_l1")).values())

    async def lines(self, filters: Filters) -> list[str]:
        """Return the lines of CLIENT LIST of all sessions that pass, in order of their ids."""
        answers = await self._ask("lines", filters)
        return [line for _, line in sorted(row for rows in answers.values() for row in rows)]

    async def kill(self, filters: Filters, asker_id: int) -> int:
        """Close the sessions that pass but the asker, whose own worker sees to it; return how many."""
        return sum((await self._ask("kill", filters, asker_id)).values())

    async def pause(self, seconds: float) -> None:
        """Take no reply for late for so long: Redis has been told to pause."""
        await self._ask("pause", seconds)

    async def upstream_id(self, session_id: int) -> int:
        """Return the client id of a session's pinned link, 0 when it has none."""
        return max((await self._ask("upstream_id", session_id)).values(), default=0)

    # -- within ------------------------------------------------------------------------------------------------------

    async def _figures(self, question: str) -> tuple[list[Figures], list[Figures]]:
        """Ask all for their figures; return them, and what counts besides: of the dead, of the silent, and our own."""
        answers = await self._ask(question)
        fresh: list[Figures] = []
        others = [Figures(_PARENT, {"memory": {"rss_bytes": resident_bytes()}}, (_own_memory(),))]
        for seat in self.fleet.seats:
            child = seat.child
            if child is not None and child.figures is not None:
                if seat.index in answers:
                    fresh.append(child.figures)
                else:
                    others.append(retire(child.figures))
            if seat.retired is not None:
                others.append(seat.retired)
        return fresh, others

    async def _ask(self, name: str, *arguments: object) -> dict[int, Any]:
        """Ask every worker that serves; return the answers that came by index."""
        answers, refused = await self._ask_each(name, lambda _: arguments)
        for index, why in refused.items():
            log.warning("worker does not answer", worker=index, question=name, why=why)
        return answers

    async def _ask_each(
        self, name: str, arguments: Callable[[int], tuple[object, ...]], *, starting: bool = False
    ) -> tuple[dict[int, Any], dict[int, str]]:
        """Ask each worker, those that are starting only if told to; return answers, and why there is none."""
        answers: dict[int, Any] = {}
        refused: dict[int, str] = {}

        async def ask(index: int, child: Child) -> None:
            try:
                answers[index] = await child.channel.ask(name, *arguments(index))
            except NoAnswerError as exc:
                refused[index] = str(exc)
            else:
                if isinstance(answers[index], Figures):
                    child.figures = known_by(answers[index], child.figures)

        async with trio.open_nursery() as nursery:
            for seat in self.fleet.seats:
                if seat.child is not None and (starting or seat.child.urls is not None):
                    nursery.start_soon(ask, seat.index, seat.child)
        return answers, refused


def _row(seat: Seat, report: Mapping[str, Any]) -> dict[str, Any]:
    child = seat.child
    state = "starting" if child is None or child.urls is None else "serving" if report else "silent"
    return {
        "index": seat.index,
        "pid": None if child is None else child.pid,
        "state": state,
        "uptime_s": report.get("uptime_s", 0.0),
        "restarts": seat.restarts,
        "clients": report.get("clients", {}).get("connected", 0),
    }


def _own_memory() -> MetricFamily:
    # Its help text is that of the workers, which come first.
    return MetricFamily("respite_resident_memory_bytes", "gauge", "", (Sample("", {}, float(resident_bytes())),))
