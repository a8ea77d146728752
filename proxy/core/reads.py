"""Reads that L1 may answer: from an entry, from a flight that is under way, or from Redis under a new lease.

    get / read --> in L1 ----------------------------> reply
               --> miss: a flight stands ------------> join it
                         none, and a lease may be ---> read + PTTL, to fill L1
                         else -----------------------> the plain read, for this client alone

Owns what a read does; where commands go that are no reads is `pipeline`'s, who may hold what is `engine`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Entry, Flight, Namespace
from proxy.core.downstream import Downstream
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.figures.tally import name_of
from proxy.core.fill_slots import GET, PTTL, FillSlot, JoinSlot, MgetSlot, PttlSlot, submit_leased, with_pttl
from proxy.core.gather import gather, is_joined
from proxy.core.outage.stand_in import StandIn
from proxy.core.slots import CallSlot, Link, ReadSlot, Slot
from proxy.core.value_slots import WholeSlot
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import bulk, command, unbulk
from proxy.wire.reads import GET_READ, CachedRead
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.core.values import Values

MGET: Final = b"*2\r\n$4\r\nMGET\r\n"  # .. of one key, which follows
KEYS_MAX: Final = 2048
"""A read of more keys is left to Redis: to look each up, or to open a lease for it, would hold up all clients."""


def is_of_one(spec: CommandSpec) -> bool:
    """Return whether a read that L1 may answer is of one key: `Reads` sees to its fallback, and not at a hit."""
    return spec.kind is Kind.GET or (spec.kind is Kind.CACHED and spec.read is not None and not spec.read.join)


def is_of_many(spec: CommandSpec, args: Sequence[bytes]) -> bool:
    """Return whether a read names more keys than are looked up in L1."""
    return len(args) > KEYS_MAX and is_joined(spec, args)


class Reads:
    """Answer reads. One a worker."""

    def __init__(self, engine: Engine, stats: Stats) -> None:
        self.engine = engine
        self.stats = stats
        self.values: Values | None = None  # None: no class asks for anything to be done to values

    def get(self, client: Downstream, namespace: Namespace, key: bytes) -> None:
        """Answer a GET of a key (as a bulk string): from L1, from a flight, or from Redis under a new lease."""
        engine = self.engine
        entry = namespace.entries.get(key)
        if entry is not None and entry.deadline > engine.now:
            self._hit(client, entry)
        else:
            self.miss(client, namespace, key)

    def read(self, client: Downstream, namespace: Namespace, spec: CommandSpec, args: list[bytes], raw: Raw) -> None:
        """Answer another read of the allow-list, as `get` does."""
        engine = self.engine
        read = spec.read
        assert read is not None
        if read.join and len(args) - read.tail > 2:
            gather(self, client, namespace, read, args)
            return
        request = bytes(raw)
        entry = namespace.answers.get(request)
        if entry is not None and entry.deadline > engine.now:
            self._hit(client, entry)
        else:
            self.miss(client, namespace, bulk(args[1]), request, read)

    def _hit(self, client: Downstream, entry: Entry) -> None:
        entry.uses += 1
        entry.used_at = self.engine.now
        client.reply(entry.reply)
        self.engine.verifier.count_hits((entry,))

    def miss(
        self,
        client: Downstream,
        namespace: Namespace,
        key: bytes,
        request: bytes | None = None,
        read: CachedRead = GET_READ,
    ) -> None:
        """Fetch what is not in L1: under a new lease, in another reader's flight, or for this client alone."""
        engine = self.engine
        entry = engine.held(namespace, key, request)
        if entry is not None and engine.revive(entry):
            self._hit(client, entry)
            return
        guards = engine.guards
        if guards is not None and not isinstance(client, StandIn) and guards.has_key(key):
            guarded = guards.begin(client, request or GET + key)
            if guarded is None:
                return
            client = guarded
        stats = self.stats
        if engine.policy is None or engine.policy.may_keep(key):
            stats.misses += 1
            if stats.misses >= engine.tally.missed_at:
                engine.tally.miss(unbulk(key), name_of(request))
        link = client.route()
        if link is None:
            client.reply(client.why_not())
            return
        if self.values is not None and self.values.looks_at_reads:
            self.values.before_read(link, (unbulk(key),), namespace.scope.db)
        flight = namespace.flights.get(request or key)
        if not (link.tracked and engine.can_lease(key, read)):
            self._pass(client, link, request or GET + key)
        elif engine.policy is not None and flight is None and engine.policy.recompute(key):
            self._read_patiently(client, link, (namespace, key, request), read)
        elif flight is None and entry is None and not engine.l1.admits(key, request or key):
            self._pass(client, link, request or GET + key)
        elif flight is None:
            flight = engine.open(namespace, key, link, request, read)
            fill = FillSlot(client, engine, flight)
            client.owe(fill)
            submit_leased(engine, link, namespace, with_pttl(request or GET + key, key), fill)
        else:
            stats.joined += 1
            join = JoinSlot(client, request or GET + key, engine)
            client.owe(join)
            if flight.joiners is None:
                flight.joiners = [join]
            else:
                flight.joiners.append(join)

    def _pass(self, client: Downstream, link: Link, raw: bytes) -> None:
        """Read for this client alone."""
        if self.values is not None and raw.startswith(GET):
            slot: Slot = WholeSlot(client, ((b"GET", unbulk(raw[len(GET) :])),), self.values)
        else:
            slot = ReadSlot(client, raw)
        client.owe(slot)
        link.submit(raw, slot)

    def _read_patiently(
        self, client: Downstream, link: Link, place: tuple[Namespace, bytes, bytes | None], read: CachedRead
    ) -> None:
        """Read a key whose value, if it is missing, is made anew by one of many: the others may have to wait."""
        engine = self.engine
        namespace, key, request = place
        join = JoinSlot(client, request or GET + key, engine)
        client.owe(join)
        recompute = engine.recomputes.under_way(namespace, request or key)
        if recompute is not None:
            engine.recomputes.join(recompute, join)
        else:
            self._fetch_for(engine.open(namespace, key, link, request, read), link, [join])

    def refetch(self, flight: Flight, waiters: list[JoinSlot]) -> bool:
        """Read again what a flight read, for slots that wait in their clients' queues.

        Returns whether it is read under a lease, so that Redis will tell of the next change.
        """
        engine = self.engine
        namespace, key, request = flight.namespace, flight.key, flight.request
        link = engine.recomputes.link_of(namespace)
        standing = namespace.flights.get(request)
        if standing is not None:
            standing.joiners = [*(standing.joiners or ()), *waiters]
        elif link is None or not (link.tracked and engine.can_lease(key, flight.read)):
            for waiter in waiters:
                waiter.answer(None, 0.0)
            return False
        else:
            if self.values is not None:
                self.values.purge(link, (unbulk(key),), namespace.scope.db)
            anew = engine.open(namespace, key, link, None if request is key else request, flight.read)
            self._fetch_for(anew, link, waiters)
        return True

    def _fetch_for(self, flight: Flight, link: Link, waiters: list[JoinSlot]) -> None:
        """Send the read of a flight that nobody but those who joined it waits for."""
        flight.joiners = waiters
        key = flight.key
        raw = GET + key if flight.request is key else flight.request
        slot = FillSlot(None, self.engine, flight)
        submit_leased(self.engine, link, flight.namespace, with_pttl(raw, key), slot)

    def mget(self, client: Downstream, namespace: Namespace, names: list[bytes]) -> None:
        """Answer an MGET: what is in L1 from there, the rest fetched in one MGET, a lease for each key."""
        engine = self.engine
        if not namespace.is_shared:
            self._mget_apart(client, namespace, names)
            return
        now = engine.now
        find = partial(engine.held, namespace) if engine.l1.hidden else namespace.entries.get
        frames: list[bytes | None] = []
        known: list[Entry] = []
        missing: list[bytes] = []
        keys: list[bytes] = []
        for name in names:
            key = bulk(name)
            entry = find(key)
            if entry is not None and (entry.deadline > now or engine.revive(entry)):
                entry.uses += 1
                entry.used_at = now
                frames.append(entry.reply)
                known.append(entry)
            else:
                frames.append(None)
                missing.append(name)
                keys.append(key)
        if sum([len(frame) for frame in frames if frame is not None]) > self.engine.max_value_bytes:
            self._pass_mget(client, namespace, names)  # too much to join here: Redis' own reply streams
            return
        engine.verifier.count_hits(known, "MGET")
        engine.count_misses(keys, "MGET")
        if not missing:
            client.reply(b"*%d\r\n%b" % (len(frames), b"".join(frame for frame in frames if frame is not None)))
            return
        link = client.route()
        if link is None:
            client.reply(client.why_not())
            return
        if self.values is not None:
            self.values.before_read(link, missing, namespace.scope.db)
        flights = [
            engine.open(namespace, key, link)
            if link.tracked
            and key not in namespace.flights
            and engine.can_lease(key)
            and (key in namespace.entries or engine.l1.admits(key, key))
            else None
            for key in keys
        ]
        fetching = MgetSlot(client, engine, frames, flights)
        if engine.judge is not None:
            fetching.keys = keys
        client.owe(fetching)
        fetching.raw = command("MGET", *missing)
        submit_leased(engine, link, namespace, fetching.raw, fetching)
        for flight in flights:
            if flight is not None:
                link.submit(PTTL + flight.key, PttlSlot(engine, flight))

    def _mget_apart(self, client: Downstream, namespace: Namespace, names: list[bytes]) -> None:
        """Have Redis answer an MGET while it is not known whether its user may run GET as well.

        What one of the two has brought, the other serves: not to somebody who may run only one. So both are asked
        for once, until the rights may have changed.
        """
        self.engine.count_misses([bulk(name) for name in names], "MGET")
        link = self._pass_mget(client, namespace, names)
        if link is None or namespace.is_shared is False or namespace.asking is not None:
            return
        asking = namespace.asking = object()
        replies: list[bytes] = []

        def answered(reply: bytes) -> bytes:
            replies.append(reply)
            if namespace.asking is asking and len(replies) == 2:
                namespace.asking = None
                if any(b"run the" in one for one in replies if one.startswith(b"-NOPERM")):
                    namespace.is_shared = False
                elif not any(one.startswith((b"-NOPERM", b"-NOAUTH", b"-LOADING")) for one in replies):
                    namespace.is_shared = True
            return b""

        def failed() -> None:
            if namespace.asking is asking:
                namespace.asking = None

        key = bulk(names[0])
        for raw in (GET + key, MGET + key):
            link.submit(raw, CallSlot(None, answered, failed))

    def _pass_mget(self, client: Downstream, namespace: Namespace, names: list[bytes]) -> Link | None:
        """Have Redis answer an MGET; return the link it went out on, None when there is none."""
        link = client.route()
        if link is None:
            client.reply(client.why_not())
            return None
        raw = command("MGET", *names)
        slot: Slot = ReadSlot(client, raw)
        if self.values is not None:
            slot = WholeSlot(client, ((b"MGET", *names),), self.values)
            self.values.before_read(link, names, namespace.scope.db)
        client.owe(slot)
        link.submit(raw, slot)
        return link
