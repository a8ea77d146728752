"""L1: the entries of all namespaces under one bound in bytes.

Owns what is resident and what is evicted. Knows no rule of consistency: who may publish is decided in `core`.

    namespaces[scope].resident, .replies          what is held
    namespaces[scope].entries, .answers           the same dicts while L1 is served, empty ones while it is not
    namespaces[scope].blocks                      every entry once, in no order, for the sampled eviction

Eviction looks at a roving slice of them and drops the entries with the smallest `uses / (idle time ** p * size)`:
by use, idle time and size, a relative of hyperbolic caching and GDSF. What was never hit counts as a tenth of a use;
a key that comes back has the uses that are remembered of it (memory.py): a hit costs no more than two attribute writes.
How much idle time says, p, is learnt by class of keys (groups.py), and the room is shared by what is worth most of all.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Final

from proxy.cache.admission import Admission, Mode
from proxy.cache.entry import ENTRY_OVERHEAD_BYTES, Entry, Namespace, ReplyEntry, Scope
from proxy.cache.ghost import Ghosts
from proxy.cache.groups import IDLE_SPREAD, ClassOf, Group, Groups
from proxy.cache.journal import EVICTED, Journal
from proxy.cache.memory import DROPPED, FLAT, STEEP, USES_MAX, Memory
from proxy.cache.tables import Table

# bench/hitratio.py, mean lead on S3-FIFO in points of hits: 4 of 32 +0.86, of 48 +0.94, of 64 +1.0, but sessions that
# are new are then found, and dropped, before they are read again.
SAMPLE: Final = 48
BATCH: Final = 4
NEVER_HIT: Final = 0.1
"""The uses of an entry that was never hit. 0.2: 0.8 points less on sessions at 1 %; 0.02: 0.4 less on mixed sizes."""
BATCHES_MAX: Final = 2
"""Batches evicted at a put, besides what it needs itself, for a table that has grown: not all of its room at once."""
TABLES_FREE_BYTES: Final = 128 << 10
"""What tables of a small L1 take, or an empty one: it is not counted."""
CELL_BYTES: Final = 4
_BESIDES_BYTES: Final = ENTRY_OVERHEAD_BYTES + 130
"""What an entry weighs besides its reply when entries are compared: its key and places in dicts are about 130."""
EVENT_BYTES: Final = 160
"""What an event of the journal takes: its tuple 64, its time 32, and a key of 20 bytes."""
JOURNAL_SHARE: Final = 100
"""The part of `max_bytes` that the journal may take."""
SHRUNK_AT_ONCE: Final = 200  # batches: some 10 ms in which nobody is served; 100,000 entries take more than a second
REFUSED_SHARE: Final = 64
"""The part of `max_bytes` that what is remembered of refused keys may take: a cell for each of the smallest entries."""
REPLIES_MAX: Final = 4096
"""Replies of one key: a change of it drops them all at once, in some 2 ms."""


class L1:
    """Hold entries, bounded in bytes. All times are seconds of the caller's clock."""

    def __init__(self, max_bytes: int) -> None:
        self.journal = Journal()
        self._bound(max_bytes)
        self.bytes = 0  # what the entries take, and the tables they, and what is remembered of others, stand in
        self.evictions = 0
        self.serving = False
        self.hidden = False  # what is resident is looked at one by one, and not by hits
        self.namespaces: dict[Scope, Namespace] = {}
        self.groups = Groups()
        self.admission = Admission()
        self.ghosts: Ghosts | None = None  # set to count what more room would bring
        self._count = 0
        self._tables_bytes = 0
        self._dicts_bytes = 0
        self.shrinks = False  # `shrink` has something to do
        self._hand = self.walk(SAMPLE)
        # By turns would not do: with an even number of slices, each rule would see one half of them for ever.
        self._chance = random.Random(0)

    def __len__(self) -> int:
        return self._count

    def namespace(self, scope: Scope) -> Namespace:
        """Return the namespace of a scope, made on first need."""
        found = self.namespaces.get(scope)
        if found is None:
            found = self.namespaces[scope] = Namespace(scope)
            if self.serving and not self.hidden:
                found.entries, found.answers = found.resident, found.replies
        return found

    def serve(self) -> None:
        """Let hits see what is resident."""
        self.serving = True
        self._expose()

    def suspend(self) -> None:
        """Hide everything from hits at once, keeping it."""
        self.serving = False
        self._expose()

    def hide(self, *, hidden: bool) -> None:
        """Have whoever reads look at each entry more closely, or end that; leases go on being granted."""
        self.hidden = hidden
        self._expose()

    def _expose(self) -> None:
        is_seen = self.serving and not self.hidden
        for namespace in self.namespaces.values():
            if is_seen:
                namespace.entries, namespace.answers = namespace.resident, namespace.replies
            else:
                namespace.entries, namespace.answers = {}, {}

    @property
    def admit(self) -> Mode:
        """What may enter; may be set at any time."""
        return self.admission.mode

    @admit.setter
    def admit(self, mode: Mode) -> None:
        self.admission.mode = mode

    def group_by(self, class_of: ClassOf | None) -> None:
        """Drop everything and learn anew, by these classes; None: all keys are one."""
        self.clear()
        self.groups = Groups(class_of)
        self._count_tables()

    def admits(self, key: bytes, id: bytes) -> bool:  # noqa: A002
        """Return whether what was missed may enter, found by its key (GET) or request; ask before a lease is opened."""
        if not self.admission.is_strict:
            return True
        memory = self.groups.of(key).memory
        if self.admission.admits(id, memory):
            return True
        if memory.is_crowded and self.admit == "second_read":
            self._remember_more(memory)
        return False

    def _remember_more(self, memory: Memory) -> None:
        """Have room for more keys that are refused: there may be many more of them than L1 holds entries as yet."""
        cells = 2 * len(memory)
        if (self.groups.cells + len(memory)) * CELL_BYTES * REFUSED_SHARE <= self.max_bytes and memory.fit(cells):
            self._count_tables()

    def put(self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float) -> Entry:
        """Hold a reply of GET until `deadline`, replacing what was there; evict until the bound is kept."""
        entry = Entry(namespace, key, reply, deadline, now)
        size = entry.size_bytes
        group = self._make_room(entry, size, namespace.resident.get(key), key, now)
        if group is not None:
            namespace.resident[key] = entry
            self._link(entry, namespace, size, group)
            table = namespace.tables.resident
            table.room -= 1
            if not table.room:
                self._look(table)
        return entry

    def put_reply(
        self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float, *, request: bytes
    ) -> Entry:
        """Hold a reply of another read."""
        entry = ReplyEntry(namespace, key, reply, deadline, now, request=request)
        size = entry.size_bytes
        group = self._make_room(entry, size, namespace.replies.get(request), request, now)
        if group is not None:
            head = namespace.heads.get(key)
            if head is not None:
                if head.count >= REPLIES_MAX:
                    return entry
                entry.after, head.before, entry.count = head, entry, head.count + 1
            namespace.heads[key] = namespace.replies[request] = entry
            self._link(entry, namespace, size, group)
            for table in (namespace.tables.replies, namespace.tables.heads):
                table.room -= 1
                if not table.room:
                    self._look(table)
        return entry

    def _make_room(self, entry: Entry, size: int, old: Entry | None, id: bytes, now: float) -> Group | None:  # noqa: A002
        """Forget what an entry replaces and evict until it fits; return its group, or None if it never will."""
        if size > self._limit:
            return None
        group = self.groups.of(entry.key)
        if self.ghosts is not None and old is None and not hash(entry.key) & self.ghosts.mask:
            self.ghosts.came(entry.key, id, now)
        most = max(self._limit, self.bytes)
        if old is not None:
            entry.uses = old.uses
            self._forget(old)
        elif (past := group.memory.recall(id)) is not None:
            uses, how = past
            entry.uses += uses
            if how in (FLAT, STEEP):
                group.learn(how)
        while self.bytes + size > most and self._count:
            self._evict(now)
        for _ in range(BATCHES_MAX):
            if self.bytes + size <= self._limit or not self._count:
                break
            self._evict(now)
        return group

    def _link(self, entry: Entry, namespace: Namespace, size: int, group: Group) -> None:
        namespace.link(entry, group.number)
        group.count += 1
        self._count += 1
        self.bytes += size

    def _group(self, entry: Entry) -> Group:
        return self.groups.all[entry.block.groups[entry.place]]

    def _unlink(self, entry: Entry) -> None:
        self._group(entry).count -= 1
        entry.block.namespace.unlink(entry)
        self._count -= 1
        self.bytes -= entry.size_bytes

    def _look(self, table: Table) -> None:
        before = table.bytes
        table.look(self._limit - self.bytes)
        self._count_tables(table.bytes - before)

    def _count_tables(self, grown_bytes: int = 0) -> None:
        """Count what the tables take; those of namespaces have grown by so much."""
        self._dicts_bytes += grown_bytes
        taken = self._dicts_bytes + self.groups.cells * CELL_BYTES
        counted = max(0, taken - TABLES_FREE_BYTES)
        self.bytes += counted - self._tables_bytes
        self._tables_bytes = counted

    def _bound(self, max_bytes: int) -> None:
        """Share the bound out. The journal has its part from the beginning.

        Once it is full it is too late: the memory of entries that go here and there is not given back.
        """
        self.max_bytes = max_bytes
        events = self.journal.limit(max_bytes // JOURNAL_SHARE // EVENT_BYTES)
        self._limit = max_bytes - max(0, events * EVENT_BYTES - TABLES_FREE_BYTES)

    def drop(self, key: bytes) -> int:
        """Drop a key in every namespace; return how many entries went."""
        dropped = 0
        for namespace in self.namespaces.values():
            entry = namespace.resident.pop(key, None)
            if entry is not None:
                if entry.uses > 1:  # who was never hit is no loss, and dropping stays cheap
                    self._group(entry).memory.remember(key, entry.uses, DROPPED)
                self._unlink(entry)
                dropped += 1
            reply = namespace.heads.pop(key, None)
            while reply is not None:
                del namespace.replies[reply.request]
                if reply.uses > 1:
                    self._group(reply).memory.remember(reply.request, reply.uses, DROPPED)
                self._unlink(reply)
                dropped += 1
                reply.before = None  # else it and its neighbour would hold each other, until a collection of garbage
                reply = reply.after
        return dropped

    def clear(self) -> int:
        """Drop everything; return how many entries went."""
        dropped = self._count
        if self.ghosts is not None:
            self.ghosts.clear()
        for namespace in self.namespaces.values():
            namespace.clear()
        for group in self.groups.all:
            group.count = 0
        self._count = self._dicts_bytes = self._tables_bytes = self.bytes = 0
        self._count_tables()
        return dropped

    def clear_namespace(self, namespace: Namespace) -> int:
        """Drop the entries of one namespace; return how many went."""
        self.bytes -= sum(entry.size_bytes for block in namespace.blocks for entry in block.entries)
        for block in namespace.blocks:
            for number, count in Counter(block.groups).items():
                self.groups.all[number].count -= count
        tables_bytes = namespace.tables.taken
        dropped = namespace.clear()
        self._count -= dropped
        self._count_tables(namespace.tables.taken - tables_bytes)
        return dropped

    def forget_namespace(self, namespace: Namespace) -> None:
        """Drop a namespace that nobody uses any more."""
        self.clear_namespace(namespace)
        self.namespaces.pop(namespace.scope, None)

    def walk(self, count: int) -> Iterator[list[Entry]]:
        """Yield all entries for ever, up to `count` at a time, in no order, and [] at the end of each round.

        What comes or goes meanwhile may be missed in a round, or met twice.
        """
        while True:
            found: list[Entry] = []
            for namespace in list(self.namespaces.values()):
                blocks = namespace.blocks
                at = start = 0
                while at < len(blocks):
                    before = len(found)
                    found += blocks[at].entries[start : start + count - before]
                    start += len(found) - before
                    if len(found) == count:
                        full, found = [found], []
                        yield full.pop()  # not held here: until the next step it may all have gone
                    else:
                        at, start = at + 1, 0
            if found:
                full, found = [found], []
                yield full.pop()
            yield []

    def resize(self, max_bytes: int, now: float) -> None:
        """Change the bound; what is beyond a smaller one is evicted now, or, where it is much, by `shrink`."""
        self._bound(max_bytes)
        self.shrinks = True
        self.shrink(now)

    def shrink(self, now: float) -> None:
        """Evict some of what is beyond a bound that was made smaller. Call it often."""
        for _ in range(SHRUNK_AT_ONCE):
            if self.bytes - self._tables_bytes <= self._limit:
                break
            self._evict(now)
        else:
            return
        self.shrinks = False
        if self.bytes > self._limit:  # by tables that were made for more
            for namespace in self.namespaces.values():
                self._dicts_bytes += namespace.tables.renew()
            for group in self.groups.all:
                group.memory.shrink(group.count)
            self._count_tables()
        while self.bytes > self._limit and self._count:
            self._evict(now)

    def _evict(self, now: float) -> None:
        """Drop the `BATCH` entries of the next slice that are worth least, the dead ones before all others."""
        groups, chance = self.groups.all, self._chance.random
        hows, powers, have_grown = [], [], False
        for group in groups:
            how = STEEP if chance() < 0.5 else FLAT
            hows.append(how)
            powers.append(group.idle_power + (IDLE_SPREAD if how == STEEP else -IDLE_SPREAD))
            have_grown = group.memory.fit(group.count) or have_grown
        if have_grown:
            self._count_tables()
        age_s = (len(groups) > 1 and self.groups.age_s) or 1.0

        soon = now + 0.001  # an entry of this very wake-up would divide by zero
        power, alone = powers[0], len(groups) == 1  # to find an entry's group takes a fifth of the time

        def worth(entry: Entry) -> float:
            if entry.ends_at <= now:
                return -1.0
            count = entry.uses
            uses: float = NEVER_HIT if count == 1 else count if count <= USES_MAX else USES_MAX
            idle: float = (soon - entry.used_at) / age_s
            idle **= power if alone else powers[entry.block.groups[entry.place]]
            return uses / (idle * (len(entry.reply) + _BESIDES_BYTES))

        looked_at = next(self._hand) or next(self._hand)
        looked_at.sort(key=worth)
        if self.ghosts is not None:
            self.ghosts.fit(self._limit, self._count)
            for entry in looked_at[:BATCH]:
                if not hash(entry.key) & self.ghosts.mask:
                    self.ghosts.went(entry, now)
        if len(groups) > 1:
            last = looked_at[:BATCH][-1]
            if last.ends_at > now:
                self.groups.went(now - last.used_at + 0.001)
        for entry in looked_at[:BATCH]:
            self.evictions += 1
            self.admission.evicted(entry.uses)
            group = self._group(entry)
            id = entry.request if isinstance(entry, ReplyEntry) else entry.key  # noqa: A001
            group.memory.remember(id, entry.uses, hows[group.number])
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
