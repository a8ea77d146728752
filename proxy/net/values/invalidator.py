"""Invalidations: drop keys, globs and tags in both tiers, whoever asks.

    keys         marked as being written --> UNLINK --> L1 hears of it by push, everywhere; subscribers, too,
                                                        who are told of keys that were not there as well
    globs, tags  a fence, set in Redis  --> announced to all, in force for our own L1 --> the sweeper removes the bodies

Owns the order, and the links it travels on: those of the proxy's own user, whatever the client may do. `then` is called
once all is done, or cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import attrs
import trio

from proxy.cache.entry import Scope
from proxy.core.fencing import Fencing
from proxy.core.invalidation import Invalidated
from proxy.core.plain import StepSlot
from proxy.core.slots import Slot
from proxy.errors import UPSTREAM_UNAVAILABLE, RemoteError
from proxy.values.changes import announce_keys, set_fences
from proxy.values.clock import HybridClock
from proxy.values.dependencies import Dependents
from proxy.values.fences import Fence
from proxy.values.scripts import drop_older
from proxy.values.telling import tell_events
from proxy.wire.encode import bulk, command
from proxy.wire.reply import text

if TYPE_CHECKING:
    from proxy.core.session import Identity
    from proxy.net.links.link import Link
    from proxy.net.links.upstream import DataLinks, Group
    from proxy.net.reactor import Reactor

TEXT_MAX_BYTES: Final = 4096  # of a glob or a tag: every proxy parses it, and keeps it until it is swept
KEYS_MAX: Final = 1000  # of one UNLINK
Then = Callable[[Invalidated], None]


@attrs.define
class _Task:
    """One invalidation under way."""

    then: Then
    is_event: bool = False
    left: int = 1
    keys: int = 0
    entries: int = 0
    fences: int = 0
    error: str = ""

    def done(self) -> None:
        """Note that one part is done; the last one answers."""
        self.left -= 1
        if not self.left:
            self.then(Invalidated(self.keys, self.entries, self.fences, self.error))


class Invalidator:
    """Invalidate. One a worker."""

    def __init__(self, links: DataLinks, fencing: Fencing, clock: HybridClock, identity: Identity) -> None:
        self._links = links
        self._fencing = fencing
        self._engine = fencing.engine
        self._clock = clock
        self._identity = identity
        self.tells_absent = True  # subscribers may want to hear of keys that were not there
        self.announces_keys = False  # Redis tells nobody of changes: L1 lives by what is announced

    def link(self, db: int) -> Link | None:
        """Return the link of the proxy's own user to a database, None while it cannot be reached."""
        return self._group(db).pick()

    def _group(self, db: int) -> Group:
        group = self._links.group(Scope(self._identity.user, db, 2), self._identity)
        group.idle_since = self._engine.now  # kept as those are that a client has just left
        return group

    def send(self, db: int, raw: bytes, then: Callable[[bytes], None]) -> None:
        """Send a command of ours; `then` gets its reply, or the error that says why there is none: once, always."""
        group = self._group(db)
        link = group.pick()
        if link is None:
            then(group.why_not())
        else:
            link.submit(raw, answer(then))

    def invalidate(self, what: Dependents, db: int, then: Then) -> None:
        """Drop all of it, then tell."""
        self._invalidate(_Task(then), what, db)

    def invalidate_as_event(self, what: Dependents, db: int, then: Then) -> None:
        """Drop all of it, then tell; subscribers hear of it as of an event. Dearer: Redis runs a script for it."""
        self._invalidate(_Task(then, is_event=True), what, db)

    def _invalidate(self, task: _Task, what: Dependents, db: int) -> None:
        if any(len(text) > TEXT_MAX_BYTES for text in (*what.globs, *what.tags)):
            task.then(Invalidated(error=f"ERR respite: a glob or a tag has at most {TEXT_MAX_BYTES} bytes"))
            return
        for at in range(0, len(what.keys), KEYS_MAX):
            self._unlink(task, what.keys[at : at + KEYS_MAX], db)
        if what.globs or what.tags:
            self._fence(task, what, db)
        task.done()

    def _unlink(self, task: _Task, keys: tuple[bytes, ...], db: int) -> None:
        engine = self._engine
        names = [bulk(key) for key in keys]
        before = len(engine.l1)
        engine.begin_write(names)
        task.entries += before - len(engine.l1)
        engine.outage.invalidated(db, ((key, None) for key in keys))

        def then(reply: bytes) -> None:
            engine.end_write(names)
            if reply[:1] == b":":
                gone = int(reply[1:])
                task.keys += gone
                if gone < len(keys) and self.tells_absent:
                    self._tell(tell_events(db, keys), db)
            elif reply[:1] == b"$":
                task.keys += text(reply).count(b"g")
            else:
                task.error = task.error or text(reply).decode("utf-8", "replace")
            task.done()

        raw = drop_older(db, [(key, None) for key in keys]) if task.is_event else command("UNLINK", *keys)
        self._send(task, db, raw, then)
        if self.announces_keys:
            self._tell(announce_keys(db, keys), db)

    def _tell(self, raw: bytes, db: int) -> None:
        """Tell others, without a word about whether they have been told."""
        link = self.link(db)
        if link is not None:
            link.submit(raw, Slot(None))

    def _fence(self, task: _Task, what: Dependents, db: int) -> None:
        def then(reply: bytes) -> None:
            if reply[:1] == b"$":
                task.entries += self.put_fences(db, what.globs, what.tags, reply)
                task.fences += len(what.globs) + len(what.tags)
            else:
                task.error = task.error or text(reply).decode("utf-8", "replace")
            task.done()

        self._send(task, 0, self.fence_command(db, what.globs, what.tags), then)

    def fence_command(self, db: int, globs: Sequence[bytes], tags: Sequence[bytes]) -> bytes:
        """Return the command that sets fences, for a link of database 0; its reply is for `put_fences`."""
        version = self._clock.next()
        remains = self._engine.outage.remains
        if not remains.is_empty:  # Redis may not hear of it now; what is served meanwhile must
            remains.drop_covered(_fences(db, globs, tags, version))
        return set_fences(db, globs, tags, version)

    def put_fences(self, db: int, globs: Sequence[bytes], tags: Sequence[bytes], reply: bytes) -> int:
        """Put fences in force here that Redis has set; return how many entries L1 dropped for it at once."""
        version = int(text(reply))
        self._clock.observe(version)
        before = len(self._engine.l1)
        self._fencing.put(_fences(db, globs, tags, version))
        return max(before - len(self._engine.l1), 0)

    def _send(self, task: _Task, db: int, raw: bytes, then: Callable[[bytes], None]) -> None:
        task.left += 1
        link = self.link(db)
        if link is None:
            then(UPSTREAM_UNAVAILABLE)
        else:
            link.submit(raw, answer(then))


def _fences(db: int, globs: Sequence[bytes], tags: Sequence[bytes], version: int) -> list[Fence]:
    return [
        *(Fence(db, "glob", glob, version) for glob in globs),
        *(Fence(db, "tag", tag, version) for tag in tags),
    ]


def answer(then: Callable[[bytes], None]) -> Slot:
    """Return a slot for one reply to a command of ours; `then` gets it, or the error that a client would read."""
    return StepSlot(1, lambda replies: then(replies[0]), then)


async def ask(reactor: Reactor, invalidator: Invalidator, db: int, raw: bytes) -> bytes:
    """Send a command with the proxy's own user, and wait for its reply. Raises RemoteError with an error's text."""
    answered = trio.Event()
    replies: list[bytes] = []

    def then(reply: bytes) -> None:
        replies.append(reply)
        answered.set()

    reactor.enter()
    invalidator.send(db, raw, then)
    reactor.flush()
    await answered.wait()
    if replies[0][:1] in (b"-", b"!"):
        raise RemoteError(text(replies[0]).decode("utf-8", "replace"))
    return replies[0]
