"""What was published and never came: noticed by the numbers of a publisher, made up for by fences.

    note   numbers --> Redis (values.sequences), those that cannot be told now with the next ones
    take   close what was made up for --> gaps that have stood too long, each to one sidecar
    flush  fences for globs in every database --> (all globs) L1 dropped

Owns what has been noted here and not in Redis, and which gaps this sidecar was given. A gap is closed only once every
flush since has been done: a sidecar that dies on the way leaves it to another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from proxy.core.coordinator import FENCES_A_CALL, is_away, is_short
from proxy.events.event import Event
from proxy.events.sink import Gap
from proxy.log import get_logger
from proxy.net.reactor import Reactor
from proxy.values.sequences import (
    NAME_MAX_BYTES,
    NUMBER_MAX,
    Missing,
    close_holes,
    note,
    parse_holes,
    take_holes,
)
from proxy.wire.encode import command
from proxy.wire.reply import text

if TYPE_CHECKING:
    from proxy.core.engine import Engine

UNNOTED_MAX: Final = 100_000  # numbers; what is dropped beyond shows as a gap
KEYSPACE: Final = command("INFO", "keyspace")
log = get_logger("events")

Ask = Callable[[int, bytes], Awaitable[bytes]]
SetFences = Callable[[int, Sequence[bytes]], Awaitable[bytes]]


class EventGaps:
    """Notice gaps, and make up for them. `globs` are those of all classes, as they are when it is called."""

    def __init__(
        self,
        ask: Ask,
        set_fences: SetFences,
        engine: Engine,
        reactor: Reactor,
        *,
        db: int,
        globs: Callable[[], Sequence[bytes]],
        grace_ms: int,
    ) -> None:
        self._ask = ask
        self._set_fences = set_fences
        self._engine = engine
        self._reactor = reactor
        self._db = db
        self._globs = globs
        self._grace_ms = grace_ms
        self._unnoted: dict[tuple[bytes, int], None] = {}
        self._dbs = {db}  # that events were about
        self._taken: list[Missing] = []
        self._undone: set[tuple[tuple[str, ...] | None, str]] = set()  # flushes that were begun, and have not succeeded
        self._trouble = ""

    async def note(self, events: Sequence[Event]) -> None:
        """Take note of the numbers of events; a cancellation leaves them to the next call."""
        for event in events:
            if event.db is not None and len(self._dbs) < FENCES_A_CALL:
                self._dbs.add(event.db)
            if event.publisher and event.seq is not None and 0 <= event.seq <= NUMBER_MAX:
                name = event.publisher.encode("utf-8", "surrogatepass")
                if len(name) <= NAME_MAX_BYTES:
                    self._unnoted[name, event.seq] = None
        for number in list(self._unnoted)[: max(len(self._unnoted) - UNNOTED_MAX, 0)]:
            del self._unnoted[number]
        await self._send_notes()

    async def _send_notes(self) -> bool:
        """Tell Redis what it has not been told; return whether it could be."""
        sent = list(self._unnoted)
        if not sent:
            return True
        numbers: dict[bytes, list[int]] = {}
        for name, number in sent:
            numbers.setdefault(name, []).append(number)
        reply = await self._ask(0, note(numbers))
        if self._is_trouble(reply) and (is_away(reply) or is_short(reply)):
            return False
        for one in sent:
            self._unnoted.pop(one, None)
        return True

    async def take(self) -> list[Gap]:
        """Close the gaps of the last time, if all is made up for, and return those that are due now."""
        if self._undone:
            self._taken.clear()  # they are offered again
            self._undone.clear()
        if self._taken:
            reply = await self._ask(0, close_holes(self._taken))
            if self._is_trouble(reply) and is_away(reply):
                return []
            self._taken.clear()
        if not await self._send_notes():  # what is missing there may be what it is still to be told
            return []
        reply = await self._ask(0, take_holes(self._grace_ms))
        if self._is_trouble(reply):
            return []
        self._taken = parse_holes(reply)
        return [Gap(one.publisher.decode("utf-8", "replace"), one.first, one.last) for one in self._taken]

    async def flush(self, globs: Sequence[str] | None, reason: str) -> bool:
        """Drop what the globs take, None: every key of every class, and all of L1; False: it is not done."""
        what = (None if globs is None else tuple(globs), reason)
        self._undone.add(what)
        texts = self._globs() if globs is None else [one.encode("utf-8", "surrogateescape") for one in globs]
        texts = list(dict.fromkeys(texts))
        error = await self._fence(texts) if texts else b""
        if not error and globs is None:
            self._reactor.enter()
            self._engine.flush()
            self._reactor.flush()
        if error:
            log.warning("not flushed", reason=reason, why=_line(error))
            return False
        self._undone.discard(what)
        log.warning("flushed, as events may have been missed", reason=reason, globs=len(texts))
        return True

    async def _fence(self, globs: Sequence[bytes]) -> bytes:
        """Fence globs in every database that holds anything; return the error that kept it from being done."""
        reply = await self._ask(0, KEYSPACE)
        if is_away(reply):
            return reply
        for db in sorted(self._databases(reply)):
            for at in range(0, len(globs), FENCES_A_CALL):
                if error := await self._set_fences(db, globs[at : at + FENCES_A_CALL]):
                    return error
        return b""

    def _databases(self, reply: bytes) -> Iterable[int]:
        """Return the databases that hold keys; those that are known of here, where Redis does not tell."""
        if reply[:1] != b"$":
            return self._dbs | {space.scope.db for space in self._engine.l1.namespaces.values()}
        lines = text(reply).split(b"\r\n")
        return {self._db} | {int(line[2 : line.index(b":")]) for line in lines if line[:2] == b"db" and b":" in line}

    def _is_trouble(self, reply: bytes) -> bool:
        """Return whether a reply is an error; one of another kind than the last is logged."""
        trouble = reply[:1] in (b"-", b"!")
        why = reply[:12].decode("utf-8", "replace") if trouble else ""
        if why and why != self._trouble and not is_away(reply):
            log.warning("gaps between events go unnoticed", why=_line(reply))
        self._trouble = why
        return trouble


def _line(error: bytes) -> str:
    return text(error).decode("utf-8", "replace")
