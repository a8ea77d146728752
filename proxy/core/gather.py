"""Reads of several keys that fall apart into reads of one: EXISTS, JSON.MGET.

    EXISTS a b c  -->  EXISTS a: in L1 | EXISTS b, PTTL b: under a lease | EXISTS c: for this client alone  -->  sum

Owns the taking apart and the joining. The parts are read at different moments, as those of an MGET are; an error of
one part is the reply of the whole, which is asked once more when the link of a part is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proxy.cache.entry import Entry, Flight, Namespace
from proxy.core.downstream import Downstream
from proxy.core.figures.tally import name_of
from proxy.core.fill_slots import FillSlot, submit_leased, with_pttl
from proxy.core.slots import Client, Failure, Slot, retry
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import bulk, command, unbulk
from proxy.wire.reads import CachedRead

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.core.reads import Reads


class GatherSlot(Slot):
    """The reply that is owed: made when the last part is in. It stands in its client's queue, and in no link's."""

    __slots__ = ("_missing", "_parts", "_raw", "_read")

    def __init__(self, client: Client, read: CachedRead, parts: list[bytes | None], raw: bytes) -> None:
        super().__init__(client)
        self._read = read
        self._raw = raw  # the whole
        self._parts = parts  # None where it is awaited
        self._missing = parts.count(None)

    def put(self, at: int, reply: bytes) -> None:
        """Take one part."""
        if self._parts[at] is None:
            self._parts[at] = reply
            self._missing -= 1
            if not self._missing:
                self.fill(joined(self._read, [part for part in self._parts if part is not None]))

    def lose(self, failure: Failure) -> None:
        """Take note that a part will not come: ask for the whole once more, or fail. Later parts are of no use."""
        if not self._missing:
            return
        self._missing = 0
        self._parts = [b""] * len(self._parts)
        if not retry(self, self._raw):
            self.fail(failure)


class PartSlot(Slot):
    """One part, read without a lease."""

    __slots__ = ("_at", "_gather")
    needs_whole = True

    def __init__(self, gather: GatherSlot, at: int) -> None:
        super().__init__(None)
        self._gather = gather
        self._at = at

    def fill(self, reply: bytes) -> None:
        """Hand it over."""
        self.reply = reply
        self._gather.put(self._at, reply)

    def fail(self, failure: Failure) -> None:
        """Tell the whole."""
        self.reply = b""
        self._gather.lose(failure)


class LeasedPartSlot(FillSlot):
    """One part, read under a lease."""

    __slots__ = ("_at", "_gather")

    def __init__(self, gather: GatherSlot, at: int, engine: Engine, flight: Flight) -> None:
        super().__init__(None, engine, flight)
        self._gather = gather
        self._at = at

    def fill(self, reply: bytes) -> None:
        """Hand it over."""
        self.reply = reply
        self._gather.put(self._at, reply)

    def ask_again(self, raw: bytes, failure: Failure) -> bool:
        """Leave that to the whole."""
        self.reply = b""
        self._gather.lose(failure)
        return True


def is_joined(spec: CommandSpec, args: Sequence[bytes]) -> bool:
    """Return whether a read that L1 may answer is put together from what other reads have brought."""
    read = spec.read
    return spec.kind is Kind.MGET or (read is not None and bool(read.join) and len(args) - read.tail > 2)


def joined(read: CachedRead, parts: list[bytes]) -> bytes:
    """Make one reply of those for the single keys."""
    for part in parts:
        if part[:1] in (b"-", b"!"):
            return part
    if read.join == "sum":
        return b":%d\r\n" % sum([int(part[1:]) for part in parts])
    return b"*%d\r\n%b" % (len(parts), b"".join([part[part.find(b"\n") + 1 :] for part in parts]))


def split(read: CachedRead, args: list[bytes]) -> list[tuple[bytes, bytes]]:
    """Take a read of several keys apart: (key as a bulk string, the request for it alone)."""
    last = len(args) - read.tail
    return [(bulk(bytes(name)), command(args[0], name, *args[last:])) for name in args[1:last]]


def gather(reads: Reads, client: Downstream, namespace: Namespace, read: CachedRead, args: list[bytes]) -> None:
    """Answer a read of several keys, each from L1, under a lease, or for this client alone."""
    engine = reads.engine
    split_up = split(read, args)
    requests = [request for _, request in split_up]
    parts: list[bytes | None] = []
    known: list[Entry] = []
    for request in requests:
        entry = engine.held(namespace, b"", request)
        if entry is not None and (entry.deadline > engine.now or engine.revive(entry)):
            entry.uses += 1
            entry.used_at = engine.now
            parts.append(entry.reply)
            known.append(entry)
        else:
            parts.append(None)
    missing = [at for at, part in enumerate(parts) if part is None]
    engine.verifier.count_hits(known)
    engine.count_misses([split_up[at][0] for at in missing], name_of(requests[0]))
    if not missing:
        client.reply(joined(read, [part for part in parts if part is not None]))
        return
    link = client.route()
    if link is None:
        client.reply(client.why_not())
        return
    if reads.values is not None:
        reads.values.before_read(link, [unbulk(split_up[at][0]) for at in missing], namespace.scope.db)
    slot = GatherSlot(client, read, parts, command(*args))
    slot.submitted_at = engine.now
    client.owe(slot)
    for at in missing:
        key, request = split_up[at]
        if (
            link.tracked
            and request not in namespace.flights
            and engine.can_lease(key, read)
            and (request in namespace.answers or engine.l1.admits(key, request))
        ):
            flight = engine.open(namespace, key, link, request, read)
            part = LeasedPartSlot(slot, at, engine, flight)
            submit_leased(engine, link, namespace, with_pttl(request, key), part)
        else:
            link.submit(request, PartSlot(slot, at))
