"""What a worker answers its parent, and how its clients ask the parent about the whole host."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import attrs
import trio

from proxy.app import App
from proxy.config.model import Settings
from proxy.core.figures.merge import Figures
from proxy.core.session import Filters, Session
from proxy.errors import RemoteError
from proxy.events.event import Event
from proxy.log import get_logger
from proxy.net.door.queues import Queues
from proxy.net.pulse import Pulse
from proxy.net.reactor import Reactor
from proxy.supervisor.channel import Channel, Handler

ASK_S: Final = 5.0  # longer than the parent gives the workers it asks on our behalf
ASKED_MAX: Final = 256  # questions of clients on their way; more are answered with None at once
log = get_logger("worker")


class Duties:
    """Answer the parent. Everything but `drain` and `apply` fails until there is an `app`."""

    def __init__(self) -> None:
        self.index = 0
        self.app: App | None = None
        self.queues: Queues | None = None
        self.stopping = trio.Event()
        self.settings: Settings | None = None  # came before the app did
        self.pulse: Pulse | None = None  # once somebody wants to know

    def handlers(self) -> Mapping[str, Handler]:
        """Return what answers, by the question's name."""
        return {
            "apply": self.apply,
            "clear_l1": self.clear_l1,
            "cover": self.cover,
            "drain": self.drain,
            "explain": self.explain,
            "figures": self.figures,
            "invalidate": self.invalidate,
            "kill": self.kill,
            "lines": self.lines,
            "pause": self.pause,
            "pulse": self.beat,
            "ready": self.ready,
            "report": self.report,
            "retire": self.retire,
            "upstream_id": self.upstream_id,
        }

    async def figures(self) -> Figures:
        """Return everything that is counted and measured."""
        return attrs.evolve(await self.report(), families=tuple(await self._running().families()))

    async def report(self) -> Figures:
        """Return it without the metrics: what is asked for every second, at a tenth of the cost."""
        app = self._running()
        return Figures(self.index, await app.stats(), (), app.worker.facts.histograms())

    async def ready(self) -> tuple[bool, str]:
        """Return whether clients are served, and why not."""
        return await self._running().ready()

    async def explain(self, key: bytes) -> dict[str, Any]:
        """Return what is known about a key."""
        return await self._running().explain(key)

    async def invalidate(self, event: Event) -> dict[str, int]:
        """Drop keys, globs and tags from both tiers; return what was dropped."""
        return await self._running().invalidate(event)

    async def apply(self, settings: Settings) -> None:
        """Take what may change while running."""
        if self.app is None:
            self.settings = settings
        else:
            self.app.take(settings)

    async def cover(self, seats: Collection[int]) -> None:
        """Accept for these workers too, and for no others any more."""
        if self.queues is not None:
            await self.queues.cover(seats)

    async def retire(self, kept: Collection[str]) -> None:
        """Accept no more, and take who waits, but of the addresses that others go on with."""
        if self.queues is not None:
            self.queues.retire(kept)

    async def drain(self) -> None:
        """Begin to stop."""
        self.stopping.set()

    async def clear_l1(self) -> int:
        """Drop everything in L1; return how many entries went."""
        worker = self._running().worker
        worker.reactor.enter()
        return worker.clear_l1()

    async def lines(self, filters: Filters) -> list[tuple[int, str]]:
        """Return (id, line of CLIENT LIST) of the sessions that pass."""
        worker = self._running().worker
        worker.reactor.enter()
        return [(session.id, worker.line_of(session)) for session in self._matching(filters, 0)]

    async def kill(self, filters: Filters, asker_id: int) -> int:
        """Close the sessions that pass; return how many. The asker is left to its own worker, and not counted."""
        worker = self._running().worker
        worker.reactor.enter()
        killed = self._matching(filters, asker_id)
        for session in killed:
            session.close()
        worker.reactor.flush()
        return len(killed)

    async def pause(self, seconds: float) -> None:
        """Take no reply for late for so long."""
        worker = self._running().worker
        worker.reactor.enter()
        worker.pause(seconds)

    async def beat(self) -> None:
        """Answer once the reactor has turned."""
        if self.pulse is None:
            self.pulse = Pulse(self._running().worker.reactor)
        await self.pulse.beat()

    async def upstream_id(self, session_id: int) -> int:
        """Return the client id of a session's pinned link, 0 if it has none or is not here."""
        session = self._running().worker.sessions.get(session_id)
        return 0 if session is None else session.upstream_id

    def _running(self) -> App:
        if self.app is None:
            raise RemoteError("it is starting")
        return self.app

    def _matching(self, filters: Filters, asker_id: int) -> list[Session]:
        worker = self._running().worker
        # The asker is left out by its id, which is its own on the whole host; here nobody is "me".
        others = attrs.evolve(filters, skip_me=False)
        return [
            session
            for session in worker.sessions
            if session.id != asker_id and others.match(session, session, worker.engine.now)
        ]


class HostLink:
    """Ask the parent on behalf of a client; see `host.Host.handlers` for what can be asked."""

    def __init__(self, channel: Channel, nursery: trio.Nursery, reactor: Reactor) -> None:
        self._channel = channel
        self._nursery = nursery
        self._reactor = reactor
        self._asked = 0

    def ask(self, question: str, *arguments: object, then: Callable[[Any], None]) -> None:
        """Ask, and call `then` with the answer in a wake-up of its own, or with None when there is none in time."""
        self._asked += 1
        self._nursery.start_soon(self._ask, question, arguments, then)

    async def _ask(self, question: str, arguments: tuple[object, ...], then: Callable[[Any], None]) -> None:
        answer: Any = None
        try:
            if self._asked <= ASKED_MAX:
                answer = await self._channel.ask(question, *arguments, timeout_s=ASK_S)
            else:
                log.warning("too many questions about the host at once", question=question)
        except RemoteError as exc:
            log.warning("no answer about the host", question=question, why=str(exc))
        finally:
            self._asked -= 1
        self._reactor.enter()
        self._reactor.guard(self, lambda: then(answer))
        self._reactor.flush()

    def on_event(self, mask: int) -> None:
        """Own no socket."""

    def on_crash(self) -> None:
        """Go on: one answer could not be used."""
