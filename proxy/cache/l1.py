"""L1: the entries of all namespaces under one bound in bytes.

Owns what is resident and what is evicted. Knows no rule of consistency: who may publish is decided in `core`.

    namespaces[scope].resident, .replies          what is held
    namespaces[scope].entries, .answers           the same dicts while L1 is served, empty ones while it is not
    _ring                                         every entry once, in no order, for the sampled eviction

Eviction looks at a roving slice of the ring and drops the entries with the smallest `uses / (idle time * size)`:
by use, idle time and size, a relative of hyperbolic caching and GDSF.
"""

from __future__ import annotations

from typing import Final

from proxy.cache.entry import Entry, Namespace, ReplyEntry, Scope
from proxy.cache.journal import EVICTED, Journal

# An eviction looks at so many entries and drops so many. bench/eviction.py: 4 of 32 hits as often as 1 of 16 (54.70 and
# 54.75 %), in two thirds of the time; 1 of 8 hits less often (54.29 %).
SAMPLE: Final = 32
BATCH: Final = 4
REPLIES_MAX: Final = 4096
"""Replies of one key: a change of it drops them all at once, in some 2 ms."""


class L1:
    """Hold entries, bounded in bytes. All times are seconds of the caller's clock."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.journal = Journal()
        self.bytes = 0
        self.evictions = 0
        self.serving = False
        self.namespaces: dict[Scope, Namespace] = {}
        self._ring: list[Entry] = []
        self._hand = 0

    def __len__(self) -> int:
        return len(self._ring)

    def namespace(self, scope: Scope) -> Namespace:
        """Return the namespace of a scope, made on first need."""
        found = self.namespaces.get(scope)
        if found is None:
            found = self.namespaces[scope] = Namespace(scope)
            if self.serving:
                found.entries, found.answers = found.resident, found.replies
        return found

    def serve(self) -> None:
        """Let hits see what is resident."""
        self.serving = True
        for namespace in self.namespaces.values():
            namespace.entries, namespace.answers = namespace.resident, namespace.replies

    def suspend(self) -> None:
        """Hide everything from hits at once, keeping it."""
        self.serving = False
        for namespace in self.namespaces.values():
            namespace.entries, namespace.answers = {}, {}

    def put(self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float) -> Entry:
        """Hold a reply of GET until `deadline`, replacing what was there; evict until the bound is kept."""
        entry = Entry(namespace, key, reply, deadline, now)
        if self._make_room(entry, namespace.resident.get(key), now):
            namespace.resident[key] = entry
            self._link(entry)
        return entry

    def put_reply(
        self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float, *, request: bytes
    ) -> Entry:
        """Hold a reply of another read."""
        entry = ReplyEntry(namespace, key, reply, deadline, now, request=request)
        if self._make_room(entry, namespace.replies.get(request), now):
            head = namespace.heads.get(key)
            if head is not None:
                if head.count >= REPLIES_MAX:
                    return entry
                entry.after, head.before, entry.count = head, entry, head.count + 1
            namespace.heads[key] = namespace.replies[request] = entry
            self._link(entry)
        return entry

    def _make_room(self, entry: Entry, old: Entry | None, now: float) -> bool:
        """Forget what an entry replaces and evict until it fits; False if it never will."""
        if entry.size_bytes > self.max_bytes:
            return False
        if old is not None:
            self._forget(old)
        while self.bytes + entry.size_bytes > self.max_bytes:
            self._evict(now)
        return True

    def _link(self, entry: Entry) -> None:
        entry.index = len(self._ring)
        self._ring.append(entry)
        self.bytes += entry.size_bytes

    def drop(self, key: bytes) -> int:
        """Drop a key in every namespace; return how many entries went."""
        dropped = 0
        for namespace in self.namespaces.values():
            entry = namespace.resident.pop(key, None)
            if entry is not None:
                self._unlink(entry)
                dropped += 1
            reply = namespace.heads.pop(key, None)
            while reply is not None:
                del namespace.replies[reply.request]
                self._unlink(reply)
                dropped += 1
                reply = reply.after
        return dropped

    def clear(self) -> int:
        """Drop everything; return how many entries went."""
        dropped = len(self._ring)
        for namespace in self.namespaces.values():
            namespace.resident.clear()
            namespace.replies.clear()
            namespace.heads.clear()
        self._ring.clear()
        self._hand = 0
        self.bytes = 0
        return dropped

    def clear_namespace(self, namespace: Namespace) -> int:
        """Drop the entries of one namespace; return how many went."""
        entries = [*namespace.resident.values(), *namespace.replies.values()]
        namespace.resident.clear()
        namespace.replies.clear()
        namespace.heads.clear()
        for entry in entries:
            self._unlink(entry)
        return len(entries)

    def forget_namespace(self, namespace: Namespace) -> None:
        """Drop a namespace that nobody uses any more."""
        self.clear_namespace(namespace)
        self.namespaces.pop(namespace.scope, None)

    def slice(self, start: int, count: int) -> list[Entry]:
        """Return `count` entries, in no order, from a place in 0 .. len - 1 on; fewer at the end."""
        return self._ring[start : start + count]

    def resize(self, max_bytes: int, now: float) -> None:
        """Change the bound; a smaller one evicts at once."""
        self.max_bytes = max_bytes
        while self.bytes > max_bytes:
            self._evict(now)

    def _evict(self, now: float) -> None:
        """Drop the `BATCH` entries of the next slice that are worth least, the dead ones before all others."""

        def worth(entry: Entry) -> float:
            if entry.ends_at <= now:
                return -1.0
            # A little is added to the idle time: an entry of this very wake-up would divide by zero.
            return entry.uses / ((now - entry.used_at + 0.001) * entry.size_bytes)

        hand = self._hand if self._hand < len(self._ring) else 0
        looked_at = self._ring[hand : hand + SAMPLE]
        looked_at.sort(key=worth)
        self._hand = hand + SAMPLE
        for entry in looked_at[:BATCH]:
            self.evictions += 1
            self.journal.note((now, EVICTED, entry.key))
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        namespace = entry.namespace
        if isinstance(entry, ReplyEntry):
            del namespace.replies[entry.request]
            before, after = entry.before, entry.after
            if after is not None:
                after.before = before
            if before is not None:
                before.after = after
                namespace.heads[entry.key].count -= 1
            elif after is not None:
                after.count = entry.count - 1
                namespace.heads[entry.key] = after
            else:
                del namespace.heads[entry.key]
        else:
            del namespace.resident[entry.key]
        self._unlink(entry)

    def _unlink(self, entry: Entry) -> None:
        """Take an entry out of the ring: the last one moves into its place."""
        last = self._ring.pop()
        if last is not entry:
            last.index = entry.index
            self._ring[entry.index] = last
        self.bytes -= entry.size_bytes
