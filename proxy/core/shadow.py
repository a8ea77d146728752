"""Shadow mode: L1 is filled and compared, never served. Every client gets Redis' own reply.

Owns what a read does then. Hits and misses are counted as if L1 had been served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.cache.entry import Entry
from proxy.core.downstream import Downstream
from proxy.core.fill_slots import FillSlot, submit_leased
from proxy.core.slots import Slot
from proxy.core.verify import VerifySlot
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import bulk
from proxy.wire.reads import GET_READ
from proxy.wire.reply import elements
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.core.pipeline import Pipeline


class ShadowMgetSlot(Slot):
    """The reply of an MGET: each value is compared with the entry of its key."""

    __slots__ = ("_engine", "_entries")
    needs_whole = True

    def __init__(self, client: Downstream, engine: Engine, entries: list[Entry | None]) -> None:
        super().__init__(client)
        self._engine = engine
        self._entries = entries

    def may_stream(self, size: int) -> bool:
        """Stream what L1 would not have joined."""
        return size > self._engine.max_value_bytes

    def fill(self, reply: bytes) -> None:
        """Compare, then answer."""
        if not self.streams and reply[:1] == b"*":
            for entry, frame in zip(self._entries, elements(reply), strict=True):
                if entry is not None:
                    self._engine.verifier.judge(entry, frame)
        super().fill(reply)


def shadow(pipeline: Pipeline, client: Downstream, spec: CommandSpec, args: list[bytes], raw: Raw) -> None:
    """Forward a read; compare its reply with what L1 holds, or fill L1 with it."""
    engine, stats, namespace = pipeline.engine, pipeline.stats, client.shadow
    assert namespace is not None
    now = engine.now
    link = client.route()
    if link is None:
        client.reply(client.why_not())
        return
    read = spec.read or GET_READ
    if spec.kind is Kind.MGET:
        entries = [_live(engine, namespace.entries.get(bulk(name))) for name in args[1:]]
        known = len(entries) - entries.count(None)
        stats.hits += known
        stats.misses += len(entries) - known
        slot: Slot = ShadowMgetSlot(client, engine, entries) if known else Slot(client)
        client.owe(slot)
        link.submit(raw, slot)
        return
    if read.join and len(args) - read.tail > 2:
        slot = Slot(client)  # of several keys: what it would be joined from is compared when it is asked for singly
        client.owe(slot)
        link.submit(raw, slot)
        return
    key = bulk(args[1])
    request = None if spec.kind is Kind.GET else bytes(raw)
    found: Entry | None = namespace.entries.get(key) if request is None else namespace.answers.get(request)
    entry = _live(engine, found)
    if entry is not None:
        entry.uses += 1
        entry.used_at = now
        stats.hits += 1
        slot = VerifySlot(client, engine.verifier, entry)
    else:
        stats.misses += 1
        if (
            link.tracked
            and (request or key) not in namespace.flights
            and engine.can_lease(key, read)
            and (found is not None or engine.l1.admits(request or key, now))
        ):
            slot = FillSlot(client, engine, engine.open(namespace, key, link, request, read))
            client.owe(slot)
            submit_leased(engine, link, namespace, b"%b*2\r\n$4\r\nPTTL\r\n%b" % (bytes(raw), key), slot)
            return
        slot = Slot(client)
    client.owe(slot)
    link.submit(raw, slot)


def _live(engine: Engine, entry: Entry | None) -> Entry | None:
    return entry if entry is not None and (entry.deadline > engine.now or engine.revive(entry)) else None
