"""What L1 is made of: entries, the flights that bring them, and the namespaces both are looked up in.

A reply of GET is found by its key, every other reply by the bytes of the whole request; all hang on their key.

    resident[key] -> Entry                          GET
    replies[request] -> ReplyEntry -.               HGETALL, ZRANGE ..
    heads[key] -> ReplyEntry <-> ReplyEntry <-> ..  all of one key: what a change of the key drops
    blocks -> Block -> Entry, ReplyEntry, ..        all of the namespace, for who walks through them
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from proxy.cache.tables import Tables
from proxy.wire.reads import CachedRead

ENTRY_OVERHEAD_BYTES: Final = 170
"""What an entry takes besides its key, its reply and its places in dicts: the object 96, two floats 32 each, its place
in a block 10. tests/cache/test_memory_bound.py measures it; without it "64MiB" of small values would take 200."""

REPLY_OVERHEAD_BYTES: Final = 32
"""What an entry of another read than GET takes besides, without its request: its place among the replies of its key."""

BLOCK_SIZE: Final = 240
"""Entries of a block. Python keeps the integers up to 256, so a place in a block takes no memory of its own."""


def held_bytes(raw: bytes) -> int:
    """Return what a bytes object takes: 33 besides its length, in steps of 16; malloc adds 8 to what is large."""
    size = len(raw)
    return (size + 48 & -16) if size <= 479 else (size + 56 & -16)


class Entry:
    """One reply under one key. Plain attributes: a hit reads two of them and writes two.

    Eight slots are 96 bytes, and a ninth would make it 112: what can be found elsewhere is not kept.
    """

    __slots__ = ("block", "deadline", "ends_at", "key", "place", "reply", "used_at", "uses")

    def __init__(self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float) -> None:
        self.block = namespace.blocks[-1]  # where it stands among the entries of its namespace
        self.place = -1  # .. and at which place of that; none yet
        self.key = key  # as a bulk string: the bytes that follow `GET` in a request
        self.reply = reply  # raw, in the namespace's protocol
        self.ends_at = deadline  # clock seconds from which it is not served
        self.deadline = (
            deadline  # .. from which it is looked at more closely first (Engine.revive): `ends_at` or sooner
        )
        self.uses = 1
        self.used_at = now

    @property
    def namespace(self) -> Namespace:
        """The namespace it is, or was, held in."""
        return self.block.namespace

    @property
    def size_bytes(self) -> int:
        """What it counts."""
        return held_bytes(self.key) + held_bytes(self.reply) + ENTRY_OVERHEAD_BYTES


class ReplyEntry(Entry):
    """A reply of another read than GET."""

    __slots__ = ("after", "before", "count", "request")

    def __init__(
        self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float, *, request: bytes
    ) -> None:
        super().__init__(namespace, key, reply, deadline, now)
        self.request = request  # raw, as the client sent it
        self.before: ReplyEntry | None = None  # the neighbours among the replies of the same key
        self.after: ReplyEntry | None = None
        self.count = 1  # how many they are; kept by the first

    @property
    def size_bytes(self) -> int:
        """What it counts."""
        held = held_bytes(self.key) + held_bytes(self.reply) + held_bytes(self.request)
        return held + ENTRY_OVERHEAD_BYTES + REPLY_OVERHEAD_BYTES


class Block:
    """Up to `BLOCK_SIZE` entries of one namespace, in no order. All blocks but the namespace's last are full."""

    __slots__ = ("entries", "groups", "namespace")

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.entries: list[Entry] = []
        self.groups = bytearray()  # the number of the group (groups.py) of each: a byte, where a slot would be 16


class Flight:
    """One fetch for many readers."""

    __slots__ = ("joiners", "key", "link", "namespace", "read", "reply", "request", "sent_at", "standing")

    def __init__(
        self, namespace: Namespace, key: bytes, link: object, now: float, *, request: bytes, read: CachedRead
    ) -> None:
        self.namespace = namespace
        self.key = key  # as a bulk string
        self.request = request  # what it is found by: the key object itself for a GET, else the raw request
        self.read = read
        self.link = link  # the link that carries the read: its loss revokes the lease
        self.sent_at = now
        self.standing = True
        self.reply: bytes | None = None  # None until the read has landed
        self.joiners: list[Any] | None = None  # the slots of later readers (core.slots)


@attrs.frozen
class Scope:
    """Whose replies a namespace holds: nobody is ever served from another's."""

    user: bytes
    db: int
    protocol: int


@attrs.define(eq=False)
class Namespace:
    """The entries of one scope. `entries` is what hits look into: an empty dict while L1 must not be served."""

    scope: Scope
    resident: dict[bytes, Entry] = attrs.field(factory=dict)
    entries: dict[bytes, Entry] = attrs.field(factory=dict)
    replies: dict[bytes, ReplyEntry] = attrs.field(factory=dict)
    answers: dict[bytes, ReplyEntry] = attrs.field(factory=dict)  # is to `replies` what `entries` is to `resident`
    heads: dict[bytes, ReplyEntry] = attrs.field(factory=dict)
    flights: dict[bytes, Flight] = attrs.field(factory=dict)  # of GET by key, of other reads by request
    pending: dict[bytes, list[Flight]] = attrs.field(factory=dict)  # key -> flights of other reads
    # Whether its user may run both GET and MGET, of which each serves what the other has brought: None = not asked.
    is_shared: bool | None = None
    asking: object = None  # stands for the question that is under way, None when none is
    blocks: list[Block] = attrs.field(init=False)  # every entry once, for who walks through all; never none
    tables: Tables = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.blocks = [Block(self)]
        self.tables = Tables(self.resident, self.replies, self.heads)

    def link(self, entry: Entry, group: int) -> None:
        """Give an entry of the group of a number its place."""
        block = self.blocks[-1]
        if len(block.entries) >= BLOCK_SIZE:
            block = Block(self)
            self.blocks.append(block)
        entry.block = block
        entry.place = len(block.entries)
        block.entries.append(entry)
        block.groups.append(group)

    def unlink(self, entry: Entry) -> None:
        """Take an entry out: the last one moves into its place."""
        end = self.blocks[-1]
        last, group = end.entries.pop(), end.groups.pop()
        if last is not entry:
            block, place = entry.block, entry.place
            last.block, last.place = block, place
            block.entries[place] = last
            block.groups[place] = group
        if not end.entries and len(self.blocks) > 1:
            self.blocks.pop()

    def clear(self) -> int:
        """Let go of all entries; return how many they were."""
        count = len(self.resident) + len(self.replies)
        for reply in self.replies.values():
            reply.before = None  # else neighbours would hold each other; what remains for an outage needs `after`
        for entries in (self.resident, self.replies, self.heads):
            entries.clear()
        for block in self.blocks:
            block.entries.clear()  # else the two would hold each other
            block.groups.clear()
        del self.blocks[1:]
        self.tables.reset()
        self.is_shared = self.asking = None  # what a user may run may be what has changed
        return count

    def replies_of(self, key: bytes) -> Iterator[ReplyEntry]:
        """Yield the replies of a key to other reads than GET."""
        reply = self.heads.get(key)
        while reply is not None:
            yield reply
            reply = reply.after
