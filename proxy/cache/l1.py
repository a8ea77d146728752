"""L1: the entries of all namespaces under one bound in bytes.

Owns what is resident and what is evicted. Knows no rule of consistency: who may publish is decided in `core`.

    namespaces[scope].resident, .replies          what is held
    namespaces[scope].entries, .answers           the same dicts while L1 is served, empty ones while it is not
    _ring                                         every entry once, in no order, for the sampled eviction

Eviction looks at a roving slice of the ring and drops the entries with the smallest `uses / (idle time ** p * size)`:
by use, idle time and size, a relative of hyperbolic caching and GDSF. What was never hit counts as a tenth of a use;
a key that comes back has the uses that are remembered of it (memory.py): a hit costs no more than two attribute writes.

How much idle time says is learnt. Each eviction is by one of two rules at random, p a little above or below its middle;
a key that is read again soon after it was evicted speaks against its rule, and the middle moves away from that one:

    short-lived sessions    p -> 2      as LRU: who has been idle has gone
    steady popularity       p -> 0.4    as LFU: who was read often will be
"""

from __future__ import annotations

import random
from typing import Final

from proxy.cache.admission import Admission, Mode
from proxy.cache.entry import Entry, Namespace, ReplyEntry, Scope
from proxy.cache.journal import EVICTED, Journal
from proxy.cache.memory import DROPPED, FLAT, STEEP, USES_MAX, Memory

# bench/hitratio.py, mean lead on S3-FIFO in points of hits: 4 of 32 +0.86, of 48 +0.94, of 64 +1.0, but sessions that
# are new are then found, and dropped, before they are read again.
SAMPLE: Final = 48
BATCH: Final = 4
NEVER_HIT: Final = 0.1
"""The uses of an entry that was never hit. 0.2: 0.8 points less on sessions at 1 %; 0.02: 0.4 less on mixed sizes."""
IDLE_POWERS: Final = (0.4, 2.0)
"""Between which the power of the idle time is learnt, beginning at 0.8."""
IDLE_SPREAD: Final = 0.3
"""How far the two rules are from their middle: nearer, their difference drowns in noise."""
IDLE_STEP: Final = 0.1
REGRETS: Final = 32
"""So many more keys must come back to one rule than to the other before the middle moves: with 16 it wanders."""
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
        self.memory = Memory()
        self.admission = Admission(self.memory)
        self._ring: list[Entry] = []
        self._hand = 0
        self._idle_power = 0.8
        self._regret = 0
        # By turns would not do: with an even number of slices, each rule would see one half of the ring for ever.
        self._chance = random.Random(0)

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

    @property
    def admit(self) -> Mode:
        """What may enter; may be set at any time."""
        return self.admission.mode

    @admit.setter
    def admit(self, mode: Mode) -> None:
        self.admission.mode = mode

    def admits(self, id: bytes, now: float) -> bool:  # noqa: A002
        """Return whether what was missed may enter, by its key (GET) or request; ask before a lease is opened."""
        return self.admission.admits(id)

    def put(self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float) -> Entry:
        """Hold a reply of GET until `deadline`, replacing what was there; evict until the bound is kept."""
        entry = Entry(namespace, key, reply, deadline, now)
        if self._make_room(entry, namespace.resident.get(key), key, now):
            namespace.resident[key] = entry
            self._link(entry)
        return entry

    def put_reply(
        self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float, *, request: bytes
    ) -> Entry:
        """Hold a reply of another read."""
        entry = ReplyEntry(namespace, key, reply, deadline, now, request=request)
        if self._make_room(entry, namespace.replies.get(request), request, now):
            head = namespace.heads.get(key)
            if head is not None:
                if head.count >= REPLIES_MAX:
                    return entry
                entry.after, head.before, entry.count = head, entry, head.count + 1
            namespace.heads[key] = namespace.replies[request] = entry
            self._link(entry)
        return entry

    def _make_room(self, entry: Entry, old: Entry | None, id: bytes, now: float) -> bool:  # noqa: A002
        """Forget what an entry replaces and evict until it fits; False if it never will."""
        if entry.size_bytes > self.max_bytes:
            return False
        if old is not None:
            entry.uses = old.uses
            self._forget(old)
        elif (past := self.memory.recall(id)) is not None:
            uses, how = past
            entry.uses += uses
            if how in (FLAT, STEEP):
                self._learn(how)
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
                if entry.uses > 1:  # who was never hit is no loss, and dropping stays cheap
                    self.memory.remember(key, entry.uses, DROPPED)
                self._unlink(entry)
                dropped += 1
            reply = namespace.heads.pop(key, None)
            while reply is not None:
                del namespace.replies[reply.request]
                if reply.uses > 1:
                    self.memory.remember(reply.request, reply.uses, DROPPED)
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
        how = STEEP if self._chance.random() < 0.5 else FLAT
        power = self._idle_power + (IDLE_SPREAD if how == STEEP else -IDLE_SPREAD)

        def worth(entry: Entry) -> float:
            if entry.ends_at <= now:
                return -1.0
            uses: float = entry.uses
            if uses == 1:
                uses = NEVER_HIT
            elif uses > USES_MAX:
                uses = USES_MAX
            # A little is added to the idle time: an entry of this very wake-up would divide by zero.
            idle: float = (now - entry.used_at + 0.001) ** power
            return uses / (idle * entry.size_bytes)

        self.memory.fit(len(self._ring))
        hand = self._hand if self._hand < len(self._ring) else 0
        looked_at = self._ring[hand : hand + SAMPLE]
        looked_at.sort(key=worth)
        self._hand = hand + SAMPLE
        for entry in looked_at[:BATCH]:
            self.evictions += 1
            self.admission.evicted(entry.uses)
            self.memory.remember(entry.request if isinstance(entry, ReplyEntry) else entry.key, entry.uses, how)
            self.journal.note((now, EVICTED, entry.key))
            self._forget(entry)

    def _learn(self, how: int) -> None:
        """Note that a key came back which a rule evicted; move away from the rule to which more come back."""
        self._regret += 1 if how == STEEP else -1
        if abs(self._regret) >= REGRETS:
            low, high = IDLE_POWERS
            step = -IDLE_STEP if self._regret > 0 else IDLE_STEP
            self._idle_power = min(high, max(low, self._idle_power + step))
            self._regret = 0

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
