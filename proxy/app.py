"""The composition root: builds a worker, the admin port and the embedded Redis, and stops them in order.

start  embedded Redis (if asked) -> worker (control link, listeners) -> admin -> start line
stop   first SIGTERM or SIGINT: listeners close, clients finish, exit 0; the second: at once
reload SIGHUP, `respite reload`, POST /reload: the file is read again; a wrong one changes nothing
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from proxy import __version__
from proxy.amqp.change_families import change_families
from proxy.amqp.families import families
from proxy.amqp.relay import Relay
from proxy.amqp.service import EventService
from proxy.config.model import Endpoint, Settings
from proxy.config.reload import Changes, compare, merge_live
from proxy.core.figures.snapshot import Snapshot
from proxy.core.figures.stats import Histogram, MetricFamily
from proxy.core.respite_values import value_facts
from proxy.embedded import Embedded
from proxy.errors import ConfigError, EmbeddedError, ListenError, RemoteError, TelemetryError
from proxy.events.event import Event
from proxy.events.figures import EventFigures
from proxy.events.mapping import Mapper
from proxy.events.notices import RelayFigures
from proxy.events.sink import Failed, Sink
from proxy.log import configure, get_logger
from proxy.net.event_sink import make_event_sink
from proxy.net.invalidator import ask
from proxy.net.pulse import Pulse
from proxy.net.service_manager import ServiceManager
from proxy.net.worker import Worker
from proxy.outlook import Outlook
from proxy.values.scripts import facts

if TYPE_CHECKING:
    from proxy.otel.telemetry import Telemetry

DRAIN_S: Final = 30.0  # how long what runs may take to finish after SIGTERM
log = get_logger("app")


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Run the proxy until it is told to stop; return the exit code. `reload` reads the configuration again."""
    manager = ServiceManager.of(os.environ)

    async def main(upstream: Endpoint) -> int:
        worker = Worker(settings, upstream)
        try:
            app = App(worker, settings, reload, make_event_sink(worker))
            app.manager = manager
            return await _main(app)
        finally:
            for listener in worker.listeners:  # those that were bound and never ran, too
                listener.close()

    return launch(settings, main)


def launch(settings: Settings, main: Callable[[Endpoint], Awaitable[int]]) -> int:
    """Run `main` in front of its upstream, an embedded one if need be; return the exit code.

    What keeps it from starting is said in one line on stderr. Whatever ends it, the embedded Redis ends too.
    """
    configure(settings.log.level, settings.log.format)
    embedded: Embedded | None = None
    with _sigterm_as_interrupt():
        try:
            endpoint = settings.upstream.endpoint
            if endpoint is None:
                embedded = Embedded()
                endpoint = embedded.start()
            return trio.run(main, endpoint, strict_exception_groups=True)
        except (EmbeddedError, ListenError, RemoteError) as exc:
            print(f"respite: {exc}", file=sys.stderr)
            return 1
        except TelemetryError as exc:
            print(f"respite: {exc}", file=sys.stderr)
            return 2
        except BaseExceptionGroup as group:
            known, others = group.split(ListenError)
            if known is None or others is not None:
                raise
            print(f"respite: {_first(known)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:  # before the signal handlers stood
            return 0
        finally:
            if embedded is not None:
                embedded.stop()


class App:
    """The running proxy, as the admin port sees it."""

    def __init__(
        self, worker: Worker, settings: Settings, reload: Callable[[], Settings], sink: Sink, *, consumes: bool = True
    ) -> None:
        """`sink` makes events true in both tiers; `consumes`: whether this process, of several, takes the broker's."""
        self.worker = worker
        self.settings = settings
        self.telemetry = telemetry_of(settings)
        if self.telemetry is not None:
            sink = self.telemetry.traced(sink)
        self._sink = sink
        self._events: EventService | None = None
        if settings.amqp.urls:
            self._events = make_event_service(worker, settings, sink) if consumes else None
            if not consumes:
                worker.facts.event_facts = dict
        self._relay: Relay | None = None
        if settings.amqp.publish_changes:
            self._relay = show_changes(worker, settings, relays=consumes)
        self.started = False  # the start line has been printed
        self.stopping = trio.Event()
        self.manager = ServiceManager()  # by default nobody is told
        self.outlook: Outlook | None = None  # of several workers, the parent has it
        self._reload = reload

    async def ready(self) -> tuple[bool, str]:
        """Return whether clients are served, and why not."""
        if self.worker.draining:
            return False, "draining"
        control = self.worker.control
        return control.state in ("up", "refused"), control.why or "serving"

    async def stats(self) -> dict[str, Any]:
        """Return the body of /stats.json."""
        self.worker.reactor.enter()
        return {**self.worker.report(""), **(self.outlook.report() if self.outlook is not None else {})}

    async def families(self) -> Iterable[MetricFamily]:
        """Return all metrics."""
        self.worker.reactor.enter()
        return [*self.worker.families(), *(self.outlook.families() if self.outlook is not None else ())]

    async def snapshot(self) -> Snapshot:
        """Return everything at this moment."""
        return Snapshot(trio.current_time(), await self.stats(), self.worker.stats.histograms())

    async def explain(self, key: bytes) -> dict[str, Any]:
        """Return what is known about a key, and what the database of the upstream URL holds of it."""
        worker = self.worker
        try:
            reply = await ask(worker.reactor, worker.value_layer.invalidator, worker.initial_db, facts(key))
            value = value_facts(reply)
        except RemoteError as exc:
            value = {"error": str(exc)}
        worker.reactor.enter()
        return {**worker.explain(key), "value": value}

    async def invalidate(self, event: Event) -> dict[str, int]:
        """Drop keys, globs and tags from both tiers; return what was dropped. Raises RemoteError when not all was.

        A cancellation, like a Redis that is late, leaves open how much of it is done.
        """
        with trio.move_on_after(self.settings.upstream.response_timeout_s):
            (outcome,) = await self._sink.apply([event])
            if isinstance(outcome, Failed):
                raise RemoteError(outcome.reason)
            return {"keys": outcome.keys, "entries": outcome.entries, "fences": outcome.fences}
        raise RemoteError("Redis has not answered in time")

    async def consume(self, *, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED) -> None:
        """Take the broker's events and bring it the changes, if this process does; `task_status` gets what ends it."""
        with trio.CancelScope() as scope:
            task_status.started(scope)
            async with trio.open_nursery() as nursery:
                if self._events is not None:
                    nursery.start_soon(self._events.run)
                if self._relay is not None:
                    nursery.start_soon(self._relay.run)

    def drain(self) -> None:
        """Stop taking clients, finish what runs, exit."""
        self.stopping.set()

    async def reload(self) -> dict[str, Any]:
        """Read the configuration again and apply what can be applied; a wrong one changes nothing."""
        with self.manager.reloading():
            return self._read_again()

    def _read_again(self) -> dict[str, Any]:
        try:
            settings = self._reload()
        except ConfigError as exc:
            problems = [str(problem) for problem in exc.problems]
            log.warning("reload refused, the old settings stay", problems=problems)
            return {"applied": [], "needs_restart": [], "problems": problems}
        except Exception as exc:  # a mistake of ours: no file may end a proxy that serves
            log.exception("reload failed, the old settings stay")
            problem = f"the file cannot be read: {type(exc).__name__}; the log has more, please report it"
            return {"applied": [], "needs_restart": [], "problems": [problem]}
        changes = self.take(settings)
        log.info("reloaded", applied=list(changes.live), needs_restart=list(changes.restart))
        return {"applied": list(changes.live), "needs_restart": list(changes.restart), "problems": []}

    async def watch(self) -> None:
        """Feed the watchdog of whoever started us, as long as the reactor turns."""
        if self.manager.watchdog_s:
            with closing(Pulse(self.worker.reactor)) as pulse:
                await self.manager.watch(pulse.beat)

    async def reload_for(self, then: Callable[[dict[str, Any]], None]) -> None:
        """Reload, and hand a client of ours what came of it."""
        answer = await self.reload()
        self.worker.reactor.enter()
        then(answer)
        self.worker.reactor.flush()

    def take(self, settings: Settings) -> Changes:
        """Apply what of new settings can be applied while running; return what is new."""
        changes = compare(self.settings, settings)
        settings = merge_live(self.settings, settings)
        self.worker.reactor.enter()
        self.worker.apply(settings)
        self.worker.reactor.flush()
        if self._events is not None:
            self._events.mapper = Mapper(settings.events)
        if self.outlook is not None:
            self.outlook.take(settings)
        if "log.level" in changes.live:
            configure(settings.log.level, settings.log.format)
        self.settings = settings
        return changes


def telemetry_of(settings: Settings) -> Telemetry | None:
    """Return what tells a collector of figures and traces, if one is configured. Raises TelemetryError."""
    if not settings.otel.endpoint:
        return None
    try:  # the standard's variables are read by the SDK, some of them when it is imported
        from proxy.otel.telemetry import Telemetry  # noqa: PLC0415 - brings OpenTelemetry along

        return Telemetry(settings.otel)
    except Exception as exc:
        why = " ".join(str(exc).split()) or type(exc).__name__
        raise TelemetryError(f"OpenTelemetry cannot be set up, look at the variables OTEL_..: {why}") from exc


def make_event_service(worker: Worker, settings: Settings, sink: Sink) -> EventService:
    """Return what takes the broker's events for a worker, which shows from now on what became of them."""
    figures = EventFigures(Histogram())

    def now_ms() -> int:
        return int(time.time() * 1000)

    worker.facts.event_facts = lambda: figures.report(now_ms(), trio.current_time())
    worker.facts.event_families = lambda: families(figures, now_ms=now_ms(), now=trio.current_time())
    name = f"respite {__version__}"
    return EventService(settings.amqp, Mapper(settings.events), sink, figures, now_ms=now_ms, name=name)


def show_changes(worker: Worker, settings: Settings, *, relays: bool) -> Relay | None:
    """Have a worker show what becomes of the changes it announces; return what relays them, if this one `relays`."""
    layer, facts = worker.value_layer, worker.facts
    figures = RelayFigures() if relays else None
    events, others = facts.event_facts, facts.event_families

    def report() -> dict[str, Any]:
        return {**layer.notices.counts.report(), **(figures.report() if figures is not None else {})}

    facts.event_facts = lambda: {**events(), "changes": report()}
    facts.event_families = lambda: [*others(), *change_families(report())]
    if figures is None:
        return None
    token = secrets.token_hex(12)
    return Relay(settings.amqp, layer.notice_store, figures, token=token, name=f"respite {__version__}")


async def _main(app: App) -> int:
    async with trio.open_nursery() as nursery:
        await nursery.start(_signals, app, nursery.cancel_scope)
        app.worker.on_reload = lambda then: nursery.start_soon(app.reload_for, then)
        urls = await nursery.start(app.worker.run)
        app.outlook = outlook = Outlook(app, app.settings, app.worker.endpoint, app.worker.reactor)
        admin = await nursery.start(outlook.run)
        consuming = await nursery.start(app.consume)
        endpoint = app.worker.endpoint
        app.started = True
        line = start_line(urls, admin, endpoint)
        print(line, flush=True)
        app.manager.ready(line)
        nursery.start_soon(app.watch)
        if app.telemetry is not None:
            nursery.start_soon(app.telemetry.run, app)
        await app.stopping.wait()
        app.manager.stopping()
        outlook.stop()
        consuming.cancel()
        await app.worker.drain(DRAIN_S)
        if app.telemetry is not None:
            await app.telemetry.close(app)
        nursery.cancel_scope.cancel()
    return 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first exception in nested groups."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def start_line(urls: list[str], admin: str, upstream: Endpoint) -> str:
    """Say where everything is, without a password: the one line that goes to stdout."""
    return f"respite listening on {' '.join(urls)}, admin {admin}, upstream {upstream.display}"


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C where nobody listens for signals yet, or any more: neither leaves anything behind.

    Once all is done, one that comes late (from who asked for a drain before) makes no other kind of end of it.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if before is signal.SIG_DFL else before)


async def _signals(
    app: App, scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Turn signals into what they mean. The second one to stop ends everything at once; a drain asked for is none."""
    is_told = False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                await app.reload()
            elif is_told or not app.started:
                scope.cancel()
                return
            else:
                is_told = True
                log.info("stopping", signal=signal.Signals(number).name)
                app.stopping.set()
