"""What happens to each command of a client: answered here, sent on the shared link, or on one of its own.

    requests --> L1 hit ------------------------------------------> reply
             --> miss: lease, read + PTTL, or join a flight ------> shared link
             --> write: drop, mark, forward ----------------------> shared link
             --> session's own (HELLO, SELECT, CLIENT ...) -------> reply, or asked on a pinned link
             --> needs a connection's state ----------------------> pinned link  (core.pinned)

Owns the routing and the order of a client's slots. Everything here is synchronous; what must wait parks the client.
"""

from __future__ import annotations

from typing import Final

from proxy.cache.entry import Namespace
from proxy.core.downstream import Downstream, Services
from proxy.core.engine import Engine
from proxy.core.pinned_commands import PinnedCommands
from proxy.core.session_commands import SessionCommands
from proxy.core.slots import (
    FillSlot,
    JoinSlot,
    MgetSlot,
    PttlSlot,
    Slot,
    WriteAllSlot,
    WriteSlot,
)
from proxy.core.stats import Stats
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import bulk, command
from proxy.wire.request import Raw, Request

PTTL: Final = b"*2\r\n$4\r\nPTTL\r\n"
NOAUTH: Final = b"-NOAUTH Authentication required.\r\n"


class Pipeline:
    """Route commands. One a worker."""

    def __init__(self, engine: Engine, stats: Stats, services: Services) -> None:
        self.engine = engine
        self.stats = stats
        self.services = services
        self.session_commands = SessionCommands(services)
        self.pinned_commands = PinnedCommands(engine, services, self.session_commands)

    def run(self, client: Downstream, requests: list[Request]) -> None:
        """Route a client's requests in order; park the client when one must wait, the rest behind it."""
        self.stats.commands += len(requests)
        self.resume(client, requests)

    def resume(self, client: Downstream, requests: list[Request]) -> None:
        """Route requests that were counted when they came."""
        session = client.session
        engine = self.engine
        find = self.services.table.find
        batch: Slot | None = None  # the slot that may take one more reply of the same sort
        at = 0
        for request in requests:
            if client.parked:
                client.park(client.parked, requests[at:])
                return
            if client.ended:
                return
            at += 1
            args, raw = request
            if session.muted or session.skips or client.muting:
                self._mute(client)
                batch = None
            if client.pin is not None:
                batch = None
                if not self.pinned_commands.take(client, args, raw):
                    client.park("reply", requests[at - 1 :])
                    return
                continue
            spec = find(args)
            kind = spec.kind
            if kind is Kind.WRITE and not engine.enabled:
                kind = Kind.READ
            if not session.authenticated and kind is not Kind.SESSION:
                client.reply(NOAUTH)
                batch = None
            elif kind is Kind.READ and not (spec.blocks_if and _has_word(args, spec.blocks_if)):
                link = client.route()
                if link is None:
                    client.reply(client.why_not())
                elif batch is not None and type(batch) is Slot and batch.is_write is spec.is_write:
                    batch.left += 1
                    link.more(raw)
                    continue
                else:
                    batch = Slot(client, is_write=spec.is_write)
                    client.owe(batch)
                    link.submit(raw, batch)
                    if not client.muting:
                        continue
                batch = None
            elif kind is Kind.WRITE:
                link = client.route()
                keys = [b"$%d\r\n%b\r\n" % (len(key), key) for key in spec.keys(args)] if spec.keys else []
                if link is None:
                    client.reply(client.why_not())
                elif batch is not None and type(batch) is WriteSlot:
                    engine.begin_write(keys)
                    batch.keys += keys
                    batch.left += 1
                    link.more(raw)
                    continue
                else:
                    engine.begin_write(keys)
                    batch = WriteSlot(client, engine, keys)
                    client.owe(batch)
                    link.submit(raw, batch)
                    if not client.muting:
                        continue
                batch = None
            else:
                batch = None
                if not self._special(client, spec, kind, args, raw):
                    client.park(client.parked or "settle", requests[at - 1 :])
                    return

    def _special(self, client: Downstream, spec: CommandSpec, kind: Kind, args: list[bytes], raw: Raw) -> bool:
        """Route what is neither a plain read nor a plain write; False = it must wait."""
        if kind is Kind.GET and client.namespace is not None and len(args) == 2:
            self.get(client, client.namespace, bulk(args[1]))
            return True
        if kind is Kind.MGET and client.namespace is not None and len(args) > 1:
            self.mget(client, client.namespace, args[1:])
            return True
        if kind in (Kind.GET, Kind.MGET):
            self._forward(client, raw, Slot(client))
            return True
        if kind is Kind.WRITE_ALL:
            if client.route() is None:
                client.reply(client.why_not())
            else:
                self.engine.begin_write_all()
                self._forward(client, raw, WriteAllSlot(client, self.engine))
            return True
        if kind is Kind.SESSION and self.session_commands.answer(client, args, raw):
            return True
        if client.queue:
            return False  # what it asked for before comes first
        if not client.pin_down():
            return False
        return self.pinned_commands.take(client, args, raw)

    def _forward(self, client: Downstream, raw: Raw, slot: Slot) -> None:
        link = client.route()
        if link is None:
            client.reply(client.why_not())
            return
        client.owe(slot)
        link.submit(raw, slot)

    def get(self, client: Downstream, namespace: Namespace, key: bytes) -> None:
        """Answer a GET of a key (as a bulk string): from L1, from a flight, or from Redis under a new lease."""
        engine = self.engine
        entry = namespace.entries.get(key)
        if entry is not None and entry.deadline > engine.now:
            entry.uses += 1
            entry.used_at = engine.now
            self.stats.hits += 1
            client.reply(entry.reply)
            return
        self.stats.misses += 1
        link = client.route()
        if link is None:
            client.reply(client.why_not())
            return
        raw = b"*2\r\n$3\r\nGET\r\n%b" % key
        if not (link.tracked and engine.l1.serving and engine.can_lease(key)):
            slot = Slot(client)
            client.owe(slot)
            link.submit(raw, slot)
            return
        flight = namespace.flights.get(key)
        if flight is None:
            flight = engine.open(namespace, key, link)
            fill = FillSlot(client, engine, flight)
            client.owe(fill)
            link.submit(raw, fill)
            link.submit(PTTL + key, PttlSlot(engine, flight))
        else:
            self.stats.joined += 1
            join = JoinSlot(client, raw, engine.now)
            client.owe(join)
            if flight.joiners is None:
                flight.joiners = [join]
            else:
                flight.joiners.append(join)

    def mget(self, client: Downstream, namespace: Namespace, names: list[bytes]) -> None:
        """Answer an MGET: what is in L1 from there, the rest fetched in one MGET, a lease for each key."""
        engine = self.engine
        now = engine.now
        entries = namespace.entries
        frames: list[bytes | None] = []
        missing: list[bytes] = []
        keys: list[bytes] = []
        for name in names:
            key = bulk(name)
            entry = entries.get(key)
            if entry is not None and entry.deadline > now:
                entry.uses += 1
                entry.used_at = now
                frames.append(entry.reply)
            else:
                frames.append(None)
                missing.append(name)
                keys.append(key)
        self.stats.hits += len(names) - len(missing)
        self.stats.misses += len(missing)
        if not missing:
            client.reply(b"*%d\r\n%b" % (len(frames), b"".join(frame for frame in frames if frame is not None)))
            return
        link = client.route()
        if link is None:
            client.reply(client.why_not())
            return
        leasing = link.tracked and engine.l1.serving
        flights = [
            engine.open(namespace, key, link)
            if leasing and key not in namespace.flights and engine.can_lease(key)
            else None
            for key in keys
        ]
        slot = MgetSlot(client, engine, frames, flights)
        client.owe(slot)
        link.submit(command("MGET", *missing), slot)
        for flight in flights:
            if flight is not None:
                link.submit(PTTL + flight.key, PttlSlot(engine, flight))

    @staticmethod
    def _mute(client: Downstream) -> None:
        """Decide whether the command at hand gets a reply (CLIENT REPLY OFF, SKIP)."""
        session = client.session
        client.muting = session.muted or session.skips == 1
        if session.skips:
            session.skips -= 1


def _has_word(args: list[bytes], word: bytes) -> bool:
    return any(len(arg) == len(word) and bytes(arg).upper() == word for arg in args)
