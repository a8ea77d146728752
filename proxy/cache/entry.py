"""What L1 is made of: entries, the flights that bring them, and the namespaces both are looked up in.

A reply of GET is found by its key, every other reply by the bytes of the whole request; all hang on their key.

    resident[key] -> Entry                          GET
    replies[request] -> ReplyEntry -.               HGETALL, ZRANGE ..
    heads[key] -> ReplyEntry <-> ReplyEntry <-> ..  all of one key: what a change of the key drops
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import attrs

from proxy.wire.reads import CachedRead

ENTRY_OVERHEAD_BYTES: Final = 330
"""What an entry costs besides its key and reply: the object, two bytes headers, its places in a dict and a list.
Measured by tests/cache/test_l1.py on CPython 3.11; without it "64MiB" of small values would take 200."""

REPLY_OVERHEAD_BYTES: Final = 170
"""What an entry of another read than GET costs besides: its request, its place among the replies of its key."""


class Entry:
    """One reply under one key. Plain attributes, no methods: a hit reads two of them and writes two."""

    __slots__ = ("deadline", "ends_at", "index", "key", "namespace", "reply", "size_bytes", "used_at", "uses")

    def __init__(self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float) -> None:
        self.namespace = namespace
        self.key = key  # as a bulk string: the bytes that follow `GET` in a request
        self.reply = reply  # raw, in the namespace's protocol
        self.ends_at = deadline  # clock seconds from which it is not served
        self.deadline = (
            deadline  # .. from which it is looked at more closely first (Engine.revive): `ends_at` or sooner
        )
        self.uses = 1
        self.used_at = now
        self.size_bytes = len(key) + len(reply) + ENTRY_OVERHEAD_BYTES
        self.index = -1  # its place in the eviction list


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
        self.size_bytes += len(request) + REPLY_OVERHEAD_BYTES


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

    def replies_of(self, key: bytes) -> Iterator[ReplyEntry]:
        """Yield the replies of a key to other reads than GET."""
        reply = self.heads.get(key)
        while reply is not None:
            yield reply
            reply = reply.after
