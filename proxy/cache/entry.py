"""What L1 is made of: entries, the flights that bring them, and the namespaces both are looked up in."""

from __future__ import annotations

from typing import Any, Final

import attrs

ENTRY_OVERHEAD_BYTES: Final = 330
"""What an entry costs besides its key and reply: the object, two bytes headers, its places in a dict and a list.
Measured by tests/cache/test_l1.py on CPython 3.11; without it "64MiB" of small values would take 200."""


class Entry:
    """One reply under one key. Plain attributes, no methods: a hit reads two of them and writes two."""

    __slots__ = ("deadline", "index", "key", "namespace", "reply", "size_bytes", "used_at", "uses")

    def __init__(self, namespace: Namespace, key: bytes, reply: bytes, deadline: float, now: float) -> None:
        self.namespace = namespace
        self.key = key  # as a bulk string: the bytes that follow `GET` in a request
        self.reply = reply  # raw, in the namespace's protocol
        self.deadline = deadline  # clock seconds from which it is not served
        self.uses = 1
        self.used_at = now
        self.size_bytes = len(key) + len(reply) + ENTRY_OVERHEAD_BYTES
        self.index = -1  # its place in the eviction list


class Flight:
    """One fetch for many readers."""

    __slots__ = ("joiners", "key", "link", "namespace", "reply", "sent_at", "standing")

    def __init__(self, namespace: Namespace, key: bytes, link: object, now: float) -> None:
        self.namespace = namespace
        self.key = key  # as a bulk string
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
    flights: dict[bytes, Flight] = attrs.field(factory=dict)
