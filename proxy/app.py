"""The composition root: builds a worker, the admin port and the embedded Redis, and stops them in order.

start  addresses -> embedded Redis (if asked) -> worker (control link, listeners) -> admin -> start line
stop   first SIGTERM or SIGINT: listeners close, clients finish, exit 0; the second: at once
next   SIGUSR2: the command of this process is started anew, takes the addresses over, and this one finishes
reload SIGHUP, `respite reload`, POST /reload: the file is read again; a wrong one changes nothing
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from proxy.config.model import Endpoint, Settings
from proxy.config.reload import Changes, compare, merge_live
from proxy.core.figures.snapshot import Snapshot
from proxy.core.figures.stats import MetricFamily
from proxy.core.respite_values import value_facts
from proxy.embedded import Embedded
from proxy.errors import ConfigError, EmbeddedError, ListenError, RemoteError, TelemetryError
from proxy.events.event import Event
from proxy.events.mapping import Mapper
from proxy.events.sink import Failed, Sink
from proxy.log import configure, get_logger, say
from proxy.net.door.entrance import Entrance, await_fit, start_next
from proxy.net.door.queues import Queues, make_worker
from proxy.net.events.event_sink import make_event_sink
from proxy.net.files import check_file_limit
from proxy.net.pulse import Pulse
from proxy.net.service_manager import ServiceManager
from proxy.net.values.invalidator import ask
from proxy.net.worker import Worker
from proxy.outlook import Outlook
from proxy.values.scripts import facts

if TYPE_CHECKING:
    from proxy.amqp.relay import Relay
    from proxy.amqp.service import EventService
    from proxy.otel.telemetry import Telemetry

_LOOK_S: Final = 0.5  # between two looks at whether the embedded Redis lives
DRAIN_S: Final = 30.0  # how long what runs may take to finish after SIGTERM
log = get_logger("app")


def run(settings: Settings, reload: Callable[[], Settings], *, replaces: bool = False) -> int:
    """Run the proxy until it is told to stop; return the exit code. `reload` reads the configuration again.

    `replaces`: take the addresses over from the proxy that has them, and let it go once this one serves.
    """

    async def main(upstream: Endpoint, entrance: Entrance) -> int:
        worker = make_worker(settings, upstream)
        try:
            app = App(worker, settings, reload, make_event_sink(worker))
            app.manager = entrance.manager
            return await _main(app, entrance)
        finally:
            for listener in worker.listeners:  # those that never ran, too
                listener.close()

    return launch(settings, main, replaces=replaces)


def launch(settings: Settings, main: Callable[[Endpoint, Entrance], Awaitable[int]], *, replaces: bool = False) -> int:
    """Run `main` in front of its upstream, an embedded one if need be; return the exit code.

    What keeps it from starting is said in one line on stderr. Whatever ends it, the embedded Redis ends too.
    """
    configure(settings.log.level, settings.log.format)
    check_file_limit(settings)
    embedded: Embedded | None = None
    entrance: Entrance | None = None
    with _sigterm_as_interrupt():
        try:
            entrance = Entrance(settings.listen, os.environ, replaces=replaces)
            endpoint = settings.upstream.endpoint
            if endpoint is None:
                embedded = Embedded()
                endpoint = embedded.start()
            return trio.run(_beside, embedded, partial(main, endpoint, entrance), strict_exception_groups=True)
        except (EmbeddedError, ListenError, RemoteError) as exc:
            print(f"respite: {exc}", file=sys.stderr)
            return 1
        except TelemetryError as exc:
            print(f"respite: {exc}", file=sys.stderr)
            return 2
        except BaseExceptionGroup as group:
            if (why := why_not_started(group)) is None:
                raise
            print(f"respite: {why}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:  # before the signal handlers stood
            return 0
        finally:
            if entrance is not None:
                entrance.close()
            if embedded is not None:
                embedded.stop()


async def _beside(embedded: Embedded | None, main: Callable[[], Awaitable[int]]) -> int:
    """Run `main` as long as the embedded Redis lives. Raises EmbeddedError when that dies: what it held is lost."""
    if embedded is None:
        return await main()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, embedded)
        code = await main()
        nursery.cancel_scope.cancel()
    return code


async def _watch(embedded: Embedded) -> None:
    while not (how := embedded.how_it_ended()):
        await trio.sleep(_LOOK_S)
    raise EmbeddedError(f"the embedded Redis has ended ({how}), and all that it held with it: start respite again")


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
        self._relay: Relay | None = None
        if settings.amqp.urls:
            from proxy.broker import make_event_service, show_changes  # noqa: PLC0415 - brings the protocol along

            if consumes:
                self._events = make_event_service(worker, settings, sink)
            else:
                worker.facts.event_facts = dict
            if settings.amqp.publish_changes:
                self._relay = show_changes(worker, settings, relays=consumes)
        self.started = False  # the start line has been printed
        self.stopping = trio.Event()
        self.manager = ServiceManager()  # by default nobody is told
        self.outlook: Outlook | None = None  # of several workers, the parent has it
        self._reload = reload

    async def ready(self) -> tuple[bool, str]:
        """Return whether clients are served, and why not."""
        if self.worker.draining or self.stopping.is_set():
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
        if not self.stopping.is_set():
            log.info("stopping", why="told to drain")
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


async def _main(app: App, entrance: Entrance) -> int:
    worker = app.worker
    async with trio.open_nursery() as nursery:
        await nursery.start(_signals, app, nursery)
        worker.on_reload = lambda then: nursery.start_soon(app.reload_for, then)
        entrance.addresses.open(app.settings.listen.urls)
        app.outlook = outlook = Outlook(app, app.settings, worker.endpoint, worker.reactor)
        await outlook.open(entrance)
        queues = Queues(worker, entrance.addresses.all, 0, 1)
        if entrance.takes_over:
            worker.may_accept = partial(await_fit, app.ready)
        with entrance.in_time():
            urls = await nursery.start(worker.run)
        admin = await nursery.start(outlook.run)
        consuming = await nursery.start(app.consume)
        app.started = True
        line = start_line(urls, admin, worker.endpoint)
        say(line)
        await entrance.took_over()
        app.manager.ready(line)
        nursery.start_soon(entrance.run, partial(make_way, outlook, app.drain))
        nursery.start_soon(app.watch)
        if app.telemetry is not None:
            nursery.start_soon(app.telemetry.run, app)
        await app.stopping.wait()
        await leave(entrance, outlook, app.settings)
        consuming.cancel()
        queues.retire(entrance.kept)
        entrance.close()
        await worker.drain(DRAIN_S)
        if app.telemetry is not None:
            await app.telemetry.close(app)
        nursery.cancel_scope.cancel()
    return 0


async def leave(entrance: Entrance, outlook: Outlook, settings: Settings) -> None:
    """Begin to stop: be not ready for as long as others need to notice, then let nobody connect any more."""
    entrance.is_leaving = True
    if not entrance.is_replaced:
        entrance.manager.stopping()
        await trio.sleep(settings.listen.drain_delay_s)
    outlook.stop()
    await entrance.turn_away()


def make_way(outlook: Outlook, drain: Callable[[], None]) -> None:
    """Another proxy serves from now on: who asks the admin port, asks that one."""
    outlook.leave()
    drain()


def why_not_started(group: BaseExceptionGroup[BaseException]) -> str | None:
    """Return what the first error in nested groups says; None where one is not of those that keep us from starting."""
    known, others = group.split((EmbeddedError, ListenError, RemoteError))
    if known is None or others is not None:
        return None
    first: BaseException = known
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first)


def start_line(urls: list[str], admin: str, upstream: Endpoint) -> str:
    """Say where everything is, without a password: the one line that goes to stdout. An address may come many times."""
    return f"respite listening on {' '.join(dict.fromkeys(urls))}, admin {admin}, upstream {upstream.display}"


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
    app: App, nursery: trio.Nursery, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Turn signals into what they mean. The second one to stop ends everything at once; a drain asked for is none."""
    is_told = False
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                await app.reload()
            elif number == signal.SIGUSR2:
                if may_be_followed(app.settings, started=app.started and not app.stopping.is_set()):
                    nursery.start_soon(start_next)
            elif is_told or not app.started:
                nursery.cancel_scope.cancel()
                return
            else:
                is_told = True
                log.info("stopping", signal=signal.Signals(number).name)
                app.stopping.set()


def may_be_followed(settings: Settings, *, started: bool) -> bool:
    """Tell whether another proxy can take the place of this one; if not, say why."""
    why = "an embedded Redis ends with its proxy" if settings.upstream.endpoint is None else ""
    if os.getpid() == 1:
        why = "this is the first process of a container, which ends with it: start another container"
    if not started:
        why = "it is starting, or stopping"
    if why:
        log.warning("no proxy is started to take over", why=why)
    return not why
