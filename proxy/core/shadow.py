"""Shadow mode: L1 is filled and compared, never served. Every client gets Redis' own reply.

Owns what a read does then. Hits and misses are counted as if L1 had been served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.cache.entry import Entry, Flight, Namespace
from proxy.core.downstream import Downstream
from proxy.core.figures.tally import name_of
from proxy.core.fill_slots import PTTL, FillSlot, MgetSlot, PttlSlot, submit_leased, with_pttl
from proxy.core.gather import joined, split
from proxy.core.slots import Link, Slot
from proxy.core.verify import VerifySlot
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import bulk
from proxy.wire.reads import GET_READ, CachedRead
from proxy.wire.reply import elements
from proxy.wire.request import Raw, Request

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.core.reads import Reads


class ShadowMgetSlot(MgetSlot):
    """The reply of an MGET: what L1 holds is compared, the rest fills it."""

    __slots__ = ("_entries",)

    def __init__(
        self, client: Downstream, engine: Engine, flights: list[Flight | None], entries: list[Entry | None]
    ) -> None:
        super().__init__(client, engine, [None] * len(entries), flights)
        self._entries = entries

    def fill(self, reply: bytes) -> None:
        """Compare, then answer."""
        if not self.streams and reply[:1] == b"*":
            for entry, frame in zip(self._entries, elements(reply), strict=True):
                if entry is not None:
                    self._engine.verifier.judge(entry, frame)
        super().fill(reply)


class ShadowGatherSlot(Slot):
    """The reply of a read of several keys that L1 could have joined: compared as a whole."""

    __slots__ = ("_engine", "_entries", "_read")
    needs_whole = True

    def __init__(self, client: Downstream, engine: Engine, read: CachedRead, entries: list[Entry]) -> None:
        super().__init__(client)
        self._engine = engine
        self._read = read
        self._entries = entries

    def may_stream(self, size: int) -> bool:
        """Stream what L1 would not have joined."""
        return size > self._engine.max_value_bytes

    def fill(self, reply: bytes) -> None:
        """Compare; where the whole differs each part is looked at."""
        if not self.streams:
            if reply == joined(self._read, [entry.reply for entry in self._entries]):
                self._engine.stats.verified += len(self._entries)
            else:
                for entry in self._entries:
                    self._engine.verifier.look(entry)
        super().fill(reply)


def shadow(reads: Reads, client: Downstream, spec: CommandSpec, args: list[bytes], raw: Raw) -> None:
    """Forward a read; compare its reply with what L1 holds, or fill L1 with it."""
    engine, namespace = reads.engine, client.shadow
    assert namespace is not None
    link = client.route()
    if link is None:
        client.reply(client.why_not())
        return
    if reads.values is not None and spec.every_key is not None:
        reads.values.before_read(link, [bytes(key) for key in spec.every_key(args)], namespace.scope.db)
    read = spec.read or GET_READ
    if spec.kind is Kind.MGET:
        keys = [bulk(name) for name in args[1:]]
        entries = [_live(engine, namespace.entries.get(key)) for key in keys]
        _count(engine, keys, entries, "MGET")
        flights = [
            engine.open(namespace, key, link)
            if entry is None and link.tracked and _may_fill(engine, namespace, key, key)
            else None
            for key, entry in zip(keys, entries, strict=True)
        ]
        slot: Slot = ShadowMgetSlot(client, engine, flights, entries)
        client.owe(slot)
        submit_leased(engine, link, namespace, raw, slot)
        for flight in flights:
            if flight is not None:
                link.submit(PTTL + flight.key, PttlSlot(engine, flight))
    elif read.join and len(args) - read.tail > 2:
        _shadow_gather(engine, client, link, spec, (args, raw))
    else:
        _shadow_one(engine, client, link, spec, (args, raw))


def _shadow_one(engine: Engine, client: Downstream, link: Link, spec: CommandSpec, command: Request) -> None:
    args, raw = command
    read, namespace = spec.read or GET_READ, client.shadow
    assert namespace is not None
    request = None if spec.kind is Kind.GET else bytes(raw)
    key = bulk(args[1])
    found: Entry | None = namespace.entries.get(key) if request is None else namespace.answers.get(request)
    entry = _live(engine, found)
    _count(engine, [key], [entry], name_of(request))
    if entry is not None:
        slot: Slot = VerifySlot(client, engine.verifier, entry)
    elif link.tracked and _may_fill(engine, namespace, key, request or key, read):
        slot = FillSlot(client, engine, engine.open(namespace, key, link, request, read))
        client.owe(slot)
        submit_leased(engine, link, namespace, with_pttl(raw, key), slot)
        return
    else:
        slot = Slot(client)
    client.owe(slot)
    link.submit(raw, slot)


def _shadow_gather(engine: Engine, client: Downstream, link: Link, spec: CommandSpec, command: Request) -> None:
    """Forward a read of several keys; what is missing in L1 is read once more, key by key, to fill it."""
    args, raw = command
    read, namespace = spec.read, client.shadow
    assert read is not None
    assert namespace is not None
    parts = split(read, args)
    entries = [_live(engine, namespace.answers.get(request)) for _, request in parts]
    _count(engine, [key for key, _ in parts], entries, name_of(bytes(raw)))
    known = [entry for entry in entries if entry is not None]
    slot: Slot = ShadowGatherSlot(client, engine, read, known) if len(known) == len(parts) else Slot(client)
    client.owe(slot)
    link.submit(raw, slot)
    for (key, request), entry in zip(parts, entries, strict=True):
        if entry is None and link.tracked and _may_fill(engine, namespace, key, request, read):
            fill = FillSlot(None, engine, engine.open(namespace, key, link, request, read))
            submit_leased(engine, link, namespace, with_pttl(request, key), fill)


def _count(engine: Engine, keys: list[bytes], entries: list[Entry | None], command: str) -> None:
    tally = engine.tally
    for key, entry in zip(keys, entries, strict=True):
        if entry is None:
            engine.count_misses((key,), command)
        else:
            engine.stats.hits += 1
            entry.uses += 1
            entry.used_at = engine.now
            tally.slow_hits += 1
            if tally.slow_hits >= tally.slow_at:
                tally.hit((entry,), command)


def _may_fill(engine: Engine, namespace: Namespace, key: bytes, request: bytes, read: CachedRead = GET_READ) -> bool:
    """Return whether a read may open a lease: as in `Reads.miss`, but nobody joins a flight in shadow mode."""
    if request in namespace.flights or not engine.can_lease(key, read):
        return False
    is_held = request in namespace.entries or request in namespace.answers  # it has ended, and comes back
    return is_held or engine.l1.admits(key, request)


def _live(engine: Engine, entry: Entry | None) -> Entry | None:
    return entry if entry is not None and (entry.deadline > engine.now or engine.revive(entry)) else None
