"""Commands of classes with `offline = "memory"`: taken here while Redis is away, told to it when it is back.

    Redis is away      take:  a command of such keys  --> Store --> reply
    Redis is back      first: a key that is still held --> Store --> reply      nobody sees what Redis holds until then
                       meet:  what cannot be answered here, or is being told now, waits
                       settling tells Redis, key by key; what it was told of is held no more

Owns which commands are taken, in whose name, and what is counted. A user and a database have a store of their own: what
one user wrote here no other can read, and it is told to Redis on that user's own link. While a key is held it counts as
being written: L1 neither keeps nor serves it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs

from proxy.core.outage.offline.commands import COMMANDS, keys_of, may_repeat, run
from proxy.core.outage.offline.knowledge import Knowledge, Where
from proxy.core.outage.offline.store import NO_ROOM, Item, NoRoomError, Room, Standing, Store, UnsureError
from proxy.core.slots import Failure
from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.log import get_logger
from proxy.values.clock import HybridClock
from proxy.values.writes import LIFE_ONLY
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import bulk

if TYPE_CHECKING:
    from proxy.core.downstream import Downstream
    from proxy.core.engine import Engine
    from proxy.core.session import Identity
    from proxy.core.slots import Link

WAIT: Final = b""
"""What `meet` says of a command that has to wait until Redis has been told."""
ROUNDS_WAITED: Final = 3
"""When Redis has refused what it was told so often in a row, nobody waits for it any more."""
HELD: Final = "taken in memory"
"""In the journal, for RESPITE EXPLAIN."""
_NO_DATA: Final = (b"ACL|", b"CONFIG|")
"""What changes everything, and no key: it may be what lets Redis hear of what is held."""
_EVERYTHING: Final = frozenset([b"KEYS", b"SCAN", b"DBSIZE", b"RANDOMKEY"])
"""Reads of all keys: what they would find is not all there before Redis has been told."""
log = get_logger("offline")


class Ways(Protocol):
    """What the memory asks of the links."""

    def is_proven(self, user: bytes) -> bool:
        """Return whether Redis has let a user in, and has not refused it since."""

    def hold(self, where: Where, identity: Identity) -> None:
        """Keep a link of this user and database open, or being opened, from now on."""

    def leave(self, where: Where) -> None:
        """Need that link no more."""

    def link(self, where: Where) -> Link | None:
        """Return a link of this user and database that stands; None when there is none."""

    def is_half_back(self, where: Where) -> bool:
        """Return whether some of its clients have a link again, and others, of another protocol, wait for theirs."""

    def kills(self, where: Where) -> list[bytes]:
        """Return commands that end on the side of Redis, too, the links that are no more.

        What Redis was asked on them may still wait there, and would be done after what it is told.
        """

    def is_informed(self) -> bool:
        """Return whether it is known which fences came meanwhile, as far as Redis tells."""

    def refusal(self, where: Where) -> bytes:
        """Return the words with which Redis does not let this user into this database; b"" when there are none."""

    def resume(self, client: Downstream) -> None:
        """Run what a client that was parked waits with."""

    def wall_ms(self) -> int:
        """Return the time of this machine, in milliseconds since 1970."""


@attrs.define
class OfflineFigures:
    """Counted by one worker since it started."""

    reads: int = 0
    """Reads answered from memory."""
    writes: int = 0
    """Writes taken in memory."""
    refused: int = 0
    """Writes there was no room for."""
    reconciled: Counter[str] = attrs.field(factory=Counter)
    """Keys that Redis was told of, by what became of them: written, older (Redis had something newer), deleted, or lost
    because it would not hear of them."""


@attrs.define(eq=False)
class Place:
    """What is held for one user in one database."""

    where: Where
    store: Store
    began_at: float
    identity: Identity
    sending: frozenset[bytes] = frozenset()
    """Keys that Redis is being told of right now: they are not changed until it has answered."""
    waiting: list[Downstream] = attrs.field(factory=list)
    told: Counter[str] = attrs.field(factory=Counter)
    """What became of its keys, since it began."""
    told_on: Link | None = None
    """The link on which Redis was told last."""
    refused_rounds: int = 0
    retry_at: float = 0.0
    linked_at: float = 0.0
    """When Redis was there again; 0.0: it has not been yet."""
    refused_since: float = 0.0
    half_since: float = 0.0
    """Since when only some of its clients have a link again; 0.0: they all have one, or none has."""


class Memory:
    """One a worker: `engine.outage.memory`."""

    def __init__(self, engine: Engine, clock: HybridClock, ways: Ways, max_bytes: int) -> None:
        self.room = Room(max_bytes)
        self.figures = OfflineFigures()
        self.places: dict[Where, Place] = {}
        self.engine = engine
        self.ways = ways
        self.on_holding: Callable[[], None] = lambda: None  # the first place is held, or the last one no more
        self.on_written: Callable[[int, Iterable[bytes]], None] = lambda _db, _keys: None  # values have changed here
        self._clock = clock
        self._knowledge = Knowledge(engine, clock, self.now_ms)

    def __len__(self) -> int:
        return sum(len(place.store.items) for place in self.places.values())

    # -- commands -----------------------------------------------------------------------------------------------------

    def take(self, client: Downstream, spec: CommandSpec, args: Sequence[bytes], failure: Failure) -> bytes | None:
        """Return the reply to a command that Redis did not answer; None when it is not for us.

        One that Redis may have done already is taken only where doing it again leaves the same behind.
        """
        name = spec.name
        asked = COMMANDS.get(name)
        if asked is None or spec.kind is Kind.DENIED or not client.classed:
            return None
        words = [bytes(word) for word in args]
        where = _where(client)
        place = self.places.get(where)
        keys = keys_of(name, words)
        if not keys or not self.ways.is_proven(where.user) or not all(self._is_ours(place, key) for key in keys):
            return None
        is_held = place is not None and any(key in place.store.items for key in keys)
        if asked.is_read and not is_held:
            if failure is not Failure.TIMED_OUT and client.route() is not None:
                return None  # only its link was lost: it is asked again on the next
            last = self.engine.outage.fallbacks.stale(client, spec, words)
            if last is not None:
                return last
        elif not asked.is_read and failure is not Failure.UNAVAILABLE and not may_repeat(name, words):
            return None
        reply = self._run(client, place or self._make(where, client), name, words)
        # Of what Redis may have done the client is told that: "no room" would say that it was not.
        return None if reply == NO_ROOM and failure is not Failure.UNAVAILABLE else reply

    def first(self, client: Downstream, spec: CommandSpec, args: Sequence[bytes]) -> bytes | None:
        """Return the reply to a command on keys that are all held, whether Redis is there or not; None for another."""
        place = self.places.get(_where(client))
        asked = COMMANDS.get(spec.name)
        if place is None or asked is None or spec.kind is Kind.DENIED or not client.classed:
            return None
        words = [bytes(word) for word in args]
        keys = keys_of(spec.name, words)
        if not keys or not all(key in place.store.items for key in keys):
            return None  # of the others Redis knows more than we do
        if not asked.is_read and place.sending and not place.sending.isdisjoint(keys):
            return None
        return self._run(client, place, spec.name, words)

    def meet(self, client: Downstream, spec: CommandSpec, args: Sequence[bytes]) -> bytes | None:
        """Return the reply to a command that touches what is held, or WAIT; None when it may go its way.

        A command that may not be answered from here goes to Redis only once that has been told of its keys.
        """
        place = None if spec.kind is Kind.DENIED else self._in_the_way(client, spec, args)
        if place is None:
            return None
        asked = COMMANDS.get(spec.name)
        if client.joins and (asked is None or not asked.is_read):
            return None  # the pipeline holds it until its joined reads are answered
        if client.pin is None:
            reply = self.first(client, spec, args)
            if reply is not None:
                return reply
            if client.route() is None:
                return None  # the usual error
        if self.engine.outage.breaker.is_open and self.ways.link(place.where) is None:
            return UPSTREAM_UNAVAILABLE  # the client's own link stands, and nobody can say when Redis can be told
        return UPSTREAM_UNAVAILABLE if place.refused_rounds > ROUNDS_WAITED else WAIT

    def wait(self, client: Downstream) -> None:
        """Have a client that was parked go on once Redis has been told of more."""
        place = self.places.get(_where(client)) or next(iter(self.places.values()))
        place.waiting.append(client)

    def holds(self, user: bytes, db: int, key: bytes) -> Item | None:
        """Return what is held of a key."""
        place = self.places.get(Where(user, db))
        return None if place is None else place.store.items.get(key)

    @property
    def is_holding(self) -> bool:
        """Whether anything is held."""
        return bool(self.places)

    def has(self, key: bytes) -> bool:
        """Return whether a key is held, for any user, in any database."""
        return any(key in place.store.items for place in self.places.values())

    def invalidate(self, db: int, versions: Iterable[tuple[bytes, int | None]]) -> None:
        """Hold that keys are not there, where what is held is not newer than a version; None: in any case."""
        places = [place for place in self.places.values() if place.where.db == db]
        for key, version in versions:
            for place in places:
                item = place.store.items.get(key)
                if item is not None and (version is None or item.version <= version):
                    place.store.now_ms, place.store.version = self.now_ms(), self._clock.next()
                    place.store.remove(key)

    def _in_the_way(self, client: Downstream, spec: CommandSpec, args: Sequence[bytes]) -> Place | None:
        """Return what a command may not overtake: what is held for its client, or, if it ends all data, for anybody."""
        place = self.places.get(_where(client))
        if place is not None and self._touches(place, spec, args):
            return place  # also for one in whose connection classes have no effect: Redis is told first all the same
        if spec.kind is not Kind.WRITE_ALL or spec.name.startswith(_NO_DATA):
            return None
        return next((one for one in self.places.values() if not one.refused_since), None)

    def _touches(self, place: Place, spec: CommandSpec, args: Sequence[bytes]) -> bool:
        if spec.kind is Kind.WRITE_ALL:
            return not spec.name.startswith(_NO_DATA)
        if spec.name in _EVERYTHING:
            return True
        items = place.store.items
        return spec.every_key is not None and any(bytes(key) in items for key in spec.every_key(args))

    def _is_ours(self, place: Place | None, key: bytes) -> bool:
        if place is not None and key in place.store.items:
            return True
        rules = self.engine.outage.find_class(key)
        return rules is not None and rules.offline == "memory"

    def _run(self, client: Downstream, place: Place, name: bytes, words: list[bytes]) -> bytes | None:
        store = place.store
        is_read = COMMANDS[name].is_read
        store.now_ms = self.now_ms()
        if not is_read:
            store.version = self._clock.next()
        try:
            reply = run(store, name, words, client.session.protocol)
        except NoRoomError as exc:
            self.figures.refused += 1
            return exc.reply
        except UnsureError:
            return None
        finally:
            if not store.items:
                self.forget(place)
        if is_read:
            self.figures.reads += 1
        else:
            self.figures.writes += 1
            if name not in LIFE_ONLY and reply[:1] != b"-":
                self.on_written(place.where.db, keys_of(name, words))
        return reply

    # -- what is held -------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Return what the server's clock shows, as far as it is known."""
        return self._clock.now_ms() or self.ways.wall_ms()

    def _make(self, where: Where, client: Downstream) -> Place:
        """Make a place; it stays only if something comes to be held in it."""

        def on_hold(key: bytes) -> None:
            if where not in self.places:
                self.places[where] = place
                self.ways.hold(where, place.identity)
                log.warning("writes are taken in memory", user=where.user.decode("utf-8", "replace"), db=where.db)
                self.on_holding()
            raw = bulk(key)
            self.engine.begin_write([raw])
            self.engine.journal.note((self.engine.now, HELD, raw))

        store = Store(self.room, lambda key: self._knowledge.of(where, key), on_hold, self._has_version)
        place = Place(where, store, self.engine.now, client.session.identity)
        return place

    def release(self, place: Place, key: bytes) -> None:
        """Hold a key no more: Redis has been told of it, or will not hear of it."""
        place.store.forget(key)
        self.engine.end_write([bulk(key)])

    def forget(self, place: Place) -> None:
        """Let go of a place that holds nothing."""
        if self.places.get(place.where) is place:
            del self.places[place.where]
            self.ways.leave(place.where)
            self.on_holding()

    def _has_version(self, key: bytes) -> bool:
        rules = self.engine.outage.find_class(key)
        return rules is not None and rules.version

    # -- what is told -------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Return the section `offline` of stats.json."""
        figures = self.figures
        return {
            "keys": len(self),
            "bytes": self.room.used_bytes,
            "max_bytes": self.room.max_bytes,
            "waiting": sum(len(place.waiting) for place in self.places.values()),
            "taken_total": {"read": figures.reads, "write": figures.writes},
            "refused_total": figures.refused,
            "reconciled_total": {how: figures.reconciled[how] for how in ("written", "older", "deleted", "lost")},
        }

    def explain(self, key: bytes) -> list[dict[str, Any]]:
        """Return what is held of a key, one row a user and database."""
        rows = []
        for where, place in self.places.items():
            item = place.store.items.get(key)
            if item is not None:
                rows.append(
                    {
                        "user": where.user.decode("utf-8", "replace"),
                        "db": where.db,
                        "held_bytes": item.size_bytes,
                        "changes": item.changes,
                        "is_deleted": item.value is None,
                        "is_guessed": item.standing is Standing.GUESSED,
                        "ends_in_s": None if item.ends_ms is None else round((item.ends_ms - self.now_ms()) / 1000, 3),
                    }
                )
        return rows


def _where(client: Downstream) -> Where:
    return Where(client.session.identity.user, client.session.db)
