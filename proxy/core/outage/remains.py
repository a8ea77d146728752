"""What L1 held of classes with `stale_if_error` when it stopped being true: served while Redis is away, and no longer.

    a link is lost --keep--> a part a namespace: the very entries, moved over   --tick--> sifted: by class, by bytes
                             |
    a write, a push, an event, FLUSHALL, a fence --drop, clear--> gone
    Redis is back            --clear----------------------------> all gone, before it answers anybody

Owns the parts and their bound in bytes. To move entries over costs copies of dictionaries, whatever is in them; what is
not worth keeping goes in the ticks after it. Until then they take no more than L1 did, which is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Entry, Namespace, ReplyEntry, Scope
from proxy.values.fences import Fences
from proxy.wire.encode import unbulk

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.core.engine import Engine
    from proxy.values.fences import Fence

SIFTED_AT_ONCE: Final = 2_000
"""Entries that are looked at in a tick: some 2 ms, in which nobody else is served."""


class Part:
    """What is left of one namespace, true up to `lost_at`."""

    __slots__ = ("heads", "is_shared", "kept", "lost_at", "replies", "resident", "unsifted")

    def __init__(self, namespace: Namespace, lost_at: float) -> None:
        self.lost_at = lost_at
        self.is_shared = namespace.is_shared is True  # what GET has brought may answer an MGET
        self.resident = namespace.resident.copy()
        self.replies = namespace.replies.copy()
        self.heads = namespace.heads.copy()
        self.kept: set[Entry] = set()  # those that count in bytes
        # Taken from the end: those that came last go in first, and the bound leaves the others out.
        self.unsifted: list[Entry] = [*self.resident.values(), *self.replies.values()]

    def find(self, key: bytes, request: bytes | None) -> Entry | None:
        """Return the entry of a GET of a key (as a bulk string), or of a raw request."""
        return self.resident.get(key) if request is None else self.replies.get(request)

    def drop(self, key: bytes) -> list[Entry]:
        """Drop a key; return what went."""
        entry = self.resident.pop(key, None)
        gone = [] if entry is None else [entry]
        reply = self.heads.pop(key, None)
        while reply is not None:
            if self.replies.pop(reply.request, None) is not None:
                gone.append(reply)
            reply = reply.after
        return gone

    def forget(self, entry: Entry) -> None:
        """Drop one entry; others of its key stay."""
        if isinstance(entry, ReplyEntry):
            self.replies.pop(entry.request, None)
        else:
            self.resident.pop(entry.key, None)


class Remains:
    """All that is left of L1. `max_bytes` bounds what is kept once it is sifted."""

    def __init__(self, engine: Engine) -> None:
        self.max_bytes = 0
        self.bytes = 0
        self._engine = engine
        self.parts: dict[Scope, Part] = {}  # empty: there is nothing

    def __len__(self) -> int:
        return sum(len(part.resident) + len(part.replies) for part in self.parts.values())

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing."""
        return not self.parts

    def keep(self, namespace: Namespace, lost_at: float) -> None:
        """Take what a namespace holds, which is about to be dropped there: nothing says any more that it is true."""
        known = self.parts.get(namespace.scope)
        if known is not None and (known.resident or known.replies):
            return  # what was lost first was true last
        if (namespace.resident or namespace.replies) and not self._engine.l1.hidden:
            self.parts[namespace.scope] = Part(namespace, lost_at)

    def find(self, scope: Scope, key: bytes, request: bytes | None = None) -> tuple[Entry, float] | None:
        """Return an entry of a scope and when it stopped being true; None when there is none."""
        part = self.parts.get(scope)
        entry = part.find(key, request) if part is not None else None
        return (entry, part.lost_at) if part is not None and entry is not None else None

    def until(self, key: bytes) -> float | None:
        """Return when what is left of a key (as a bulk string) stopped being true; None where nothing is."""
        found = [
            min(entry.ends_at, part.lost_at)
            for part in self.parts.values()
            for entry in (part.resident.get(key), part.heads.get(key))
            if entry is not None
        ]
        return max(found, default=None)

    def is_shared(self, scope: Scope) -> bool | None:
        """Return whether what GET has brought to a scope may answer an MGET; None where nothing is left of it."""
        part = self.parts.get(scope)
        return None if part is None else part.is_shared

    def drop(self, key: bytes) -> None:
        """Drop a key (as a bulk string) everywhere: it has changed, or may have."""
        for part in self.parts.values():
            for entry in part.drop(key):
                if entry in part.kept:
                    part.kept.remove(entry)
                    self.bytes -= entry.size_bytes

    def drop_covered(self, fences: Iterable[Fence]) -> None:
        """Drop what fences cover that have come, or are to be set once Redis is back; of many, all of them."""
        if len(self) > SIFTED_AT_ONCE:
            self.clear()
            return
        find = self._engine.outage.find_class
        covering = Fences()
        for one in fences:
            covering.put(one.db, one.kind, one.text, one.version)
        for scope, part in self.parts.items():
            for raw in {entry.key for entry in (*part.resident.values(), *part.replies.values())}:
                key = unbulk(raw)
                if covering.version_over(scope.db, key, find(key)):
                    self.drop(raw)

    def clear(self) -> None:
        """Drop everything."""
        self.parts.clear()
        self.bytes = 0

    def tick(self, now: float) -> None:
        """Go on sifting; drop what nobody may be served any more."""
        left = SIFTED_AT_ONCE
        longest_s = max(self._engine.outage.longest_s, self._engine.outage.base_s)
        for scope, part in list(self.parts.items()):
            while part.unsifted and left:
                left -= 1
                self._sift(part, part.unsifted.pop(), now)
            if (not part.unsifted and not part.kept) or now >= part.lost_at + longest_s:
                self.bytes -= sum(entry.size_bytes for entry in part.kept)
                del self.parts[scope]

    def _sift(self, part: Part, entry: Entry, now: float) -> None:
        request = entry.request if isinstance(entry, ReplyEntry) else None
        if part.find(entry.key, request) is not entry:
            return  # dropped meanwhile
        rules = self._engine.outage.find_class(unbulk(entry.key))
        stale_s = 0 if rules is None else rules.stale_if_error_s
        size = entry.size_bytes
        until = min(entry.ends_at, part.lost_at) + stale_s
        if rules is not None and rules.offline == "memory":
            until = max(until, entry.ends_at)  # commands in memory go on from it
        if now < until and self.bytes + size <= self.max_bytes:
            part.kept.add(entry)
            self.bytes += size
        else:
            part.forget(entry)
