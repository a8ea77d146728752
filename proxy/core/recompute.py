"""One of many makes a missing value anew: a lease in Redis, for classes that ask (`recompute_lease`).

    a reader finds nothing --> SET respite:lease:<key> <token> NX PX <lease>
        granted   one reader is told "nothing" and makes the value; the rest wait
        held      somebody else does, here or behind another sidecar: all wait

A waiter is let go when the key is written by a client of ours, or a push came and there is a value: with what Redis
then holds; with "nothing" when the length of the lease has passed; or at once with the last value it had, where the
class says so. (Not every push tells of a value: that of the key's own expiry comes late, and says nothing new.)
Whoever makes a value waits for no other: what it writes would wait with it, and two could wait for each other.
Owns who waits, and the values kept for them.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from cachetools import LRUCache

from proxy.cache.entry import Entry, Flight, Namespace, ReplyEntry
from proxy.core.outage.stand_in import StandIn
from proxy.core.slots import WHOLE, CallSlot, Client, Link, Slot
from proxy.values.rules import ClassRules
from proxy.wire.encode import OK, command, unbulk

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.core.fill_slots import JoinSlot

PREFIX: Final = b"respite:lease:"
STALE_BYTES: Final = 4 * 1024 * 1024  # kept of values that are gone, for those who may have the last one
UNDER_WAY_MAX: Final = 4096  # who asks for more keys that are not there is told so
LOOKED_THROUGH_MAX: Final = 1_000  # last values that are looked at for a fence: some 2 ms, nobody else is served
Place = tuple[Namespace, bytes]
"""A namespace, and what a read is found by there."""


class _Last(NamedTuple):
    """The last value of a read, and when it ended."""

    reply: bytes
    at: float


class Recompute:
    """One missing value that is being made anew."""

    __slots__ = (
        "answered",
        "elected",
        "ends_at",
        "flight",
        "maker",
        "nothing",
        "rules",
        "token",
        "waiters",
        "was_pushed",
    )

    def __init__(self, flight: Flight, nothing: bytes, rules: ClassRules, now: float) -> None:
        self.flight = flight  # what was read, and found missing
        self.nothing = nothing  # the reply that says so
        self.rules = rules
        self.ends_at = now + rules.recompute_lease_s
        self.waiters: list[JoinSlot] = []
        self.answered = False  # Redis has said whose the lease is
        self.elected = False  # it is ours
        self.maker: Client | None = None  # who was told that there is nothing, and makes it
        self.was_pushed = False  # while it was not answered
        self.token = secrets.token_hex(8)


class Recomputes:
    """All that are under way on this worker.

    `link_of` returns the link that feeds a namespace, None when it is down; `refetch` reads again what a flight read.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._by_place: dict[Place, Recompute] = {}
        self._by_key: dict[bytes, list[Recompute]] = {}
        self._makers: Counter[Client] = Counter()  # who makes values, and how many
        self._last: LRUCache[bytes, dict[Place, _Last]] = LRUCache(STALE_BYTES, getsizeof=_size)
        self.link_of: Callable[[Namespace], Link | None] = lambda namespace: None
        self.refetch: Callable[[Flight, list[JoinSlot]], bool] = lambda flight, waiters: True

    def __bool__(self) -> bool:
        return bool(self._by_place)

    def under_way(self, namespace: Namespace, request: bytes) -> Recompute | None:
        """Return what a reader of this may wait for."""
        return self._by_place.get((namespace, request))

    def join(self, recompute: Recompute, waiter: JoinSlot) -> None:
        """Let a later reader wait, or have the last value; one that is to make it is told again that there is none."""
        last = self._last_value(recompute)
        client = _whose(waiter)
        if client is recompute.maker and client is not None:
            waiter.fill(recompute.nothing)
        elif last is not None:
            self._engine.stats.stale_served += 1
            waiter.fill(last)
        elif client in self._makers:
            waiter.fill(recompute.nothing)
        else:
            self._engine.stats.recompute_waits += 1
            recompute.waiters.append(waiter)

    def begin(self, flight: Flight, nothing: bytes, rules: ClassRules, waiters: list[JoinSlot]) -> None:
        """Ask for the lease of a key that was found missing; `waiters` are those who read it, the first first."""
        now = self._engine.now
        patient = []
        for waiter in waiters:
            if now - waiter.joined_at < rules.recompute_lease_s:
                patient.append(waiter)
            else:
                waiter.fill(nothing)
        under_way = self.under_way(flight.namespace, flight.request)
        if under_way is not None:  # a push came, and there was no value yet
            for waiter in patient:
                if _whose(waiter) in self._makers:
                    waiter.fill(nothing)
                else:
                    under_way.waiters.append(waiter)
            return
        link = self.link_of(flight.namespace)
        if not patient or link is None or len(self._by_place) >= UNDER_WAY_MAX:
            for waiter in patient:
                waiter.fill(nothing)
            return
        recompute = Recompute(flight, nothing, rules, now)
        recompute.waiters = patient
        self._by_place[flight.namespace, flight.request] = recompute
        self._by_key.setdefault(flight.key, []).append(recompute)
        lease_ms = max(1, round(rules.recompute_lease_s * 1000))
        slot = CallSlot(None, lambda reply: self._answered(recompute, reply), lambda: self._give_up(recompute))
        link.submit(command("SET", PREFIX + unbulk(flight.key), recompute.token, "NX", "PX", lease_ms), slot)

    def _answered(self, recompute: Recompute, reply: bytes) -> bytes:
        recompute.elected = reply == OK
        if not self._is_open(recompute):
            self._give_back(recompute)
            return b""
        recompute.answered = True
        if recompute.elected:
            present = [waiter for waiter in recompute.waiters if _is_awaited(waiter)]
            if not present:
                self._give_up(recompute)  # all have left: nobody would make it
                self._give_back(recompute)
                return b""
            maker = _whose(present[0])
            assert maker is not None
            recompute.maker = maker
            self._makers[maker] += 1
            self._let_go([recompute, *self._by_place.values()] if maker.joins > 1 else [recompute])
        elif reply[:1] in (b"-", b"!"):
            self._give_up(recompute)  # who may not write the lease reads as ever
            return b""
        last = self._last_value(recompute)
        if last is None:
            self._let_go([recompute])
        waiters = recompute.waiters
        if last is not None:
            recompute.waiters = []
            self._engine.stats.stale_served += len(waiters)
            for waiter in waiters:
                waiter.fill(last)
        else:
            self._engine.stats.recompute_waits += len(waiters)
        if recompute.was_pushed and self._is_open(recompute):
            self.pushed(recompute.flight.key)
        return b""

    def _let_go(self, recomputes: Iterable[Recompute]) -> None:
        """Tell those that there is nothing who wait, and make a value themselves: that one, or another."""
        for recompute in recomputes:
            if not recompute.answered or not any(_whose(waiter) in self._makers for waiter in recompute.waiters):
                continue  # one that is not answered may yet be theirs
            waiters, recompute.waiters = recompute.waiters, []
            for waiter in waiters:
                if _whose(waiter) in self._makers:
                    waiter.fill(recompute.nothing)
                else:
                    recompute.waiters.append(waiter)

    def _is_open(self, recompute: Recompute) -> bool:
        flight = recompute.flight
        return self._by_place.get((flight.namespace, flight.request)) is recompute

    def _close(self, recompute: Recompute) -> list[JoinSlot]:
        """End one; return who still waits."""
        flight = recompute.flight
        del self._by_place[flight.namespace, flight.request]
        of_key = self._by_key[flight.key]
        of_key.remove(recompute)
        if not of_key:
            del self._by_key[flight.key]
        maker = recompute.maker
        if maker is not None:
            self._makers[maker] -= 1
            if not self._makers[maker]:
                del self._makers[maker]
        waiters, recompute.waiters = recompute.waiters, []
        return waiters

    def _give_up(self, recompute: Recompute) -> None:
        """Tell all who wait that there is nothing."""
        if self._is_open(recompute):
            for waiter in self._close(recompute):
                waiter.fill(recompute.nothing)

    def written(self, key: bytes) -> None:
        """Let those who wait for a key read it: a client of ours has written it."""
        for recompute in self._by_key.get(key, ())[:]:
            self._end(recompute)

    def pushed(self, key: bytes) -> None:
        """Look whether there is a value now: Redis has told of a change."""
        for recompute in self._by_key.get(key, ())[:]:
            if recompute.answered:  # else the one who is to make the value is still among those who wait
                waiters, recompute.waiters = recompute.waiters, []
                if not self.refetch(recompute.flight, waiters) and self._is_open(recompute):
                    self._close(recompute)  # of what comes next nobody would tell us
            else:
                recompute.was_pushed = True

    def found(self, flight: Flight) -> None:
        """Note that a read has found a value."""
        recompute = self.under_way(flight.namespace, flight.request)
        if recompute is not None:
            self._end(recompute)

    def _end(self, recompute: Recompute) -> None:
        waiters = self._close(recompute)
        self._give_back(recompute)
        if waiters:
            self.refetch(recompute.flight, waiters)

    def _give_back(self, recompute: Recompute) -> None:
        """End the lease in Redis, if it is ours."""
        link = self.link_of(recompute.flight.namespace)
        if recompute.elected and link is not None:
            link.submit(command("UNLINK", PREFIX + unbulk(recompute.flight.key)), Slot(None))

    def lost(self, namespace: Namespace | None = None) -> None:
        """Let all go, or those of one namespace: pushes that would have told of their keys are lost."""
        for recompute in list(self._by_place.values()):
            if namespace is not None and recompute.flight.namespace is not namespace:
                continue
            waiters = self._close(recompute)
            if waiters:
                self.refetch(recompute.flight, waiters)

    def end(self) -> None:
        """Tell all who wait that there is nothing: the proxy is about to stop."""
        for recompute in list(self._by_place.values()):
            self._give_up(recompute)

    def tick(self, now: float) -> None:
        """End what has taken as long as its lease."""
        for recompute in [each for each in self._by_place.values() if now >= each.ends_at]:
            self._give_up(recompute)

    def remember(self, entry: Entry) -> None:
        """Keep the last value of a read whose key has ended or was changed elsewhere."""
        request = entry.request if isinstance(entry, ReplyEntry) else entry.key
        known = {**self._last.get(entry.key, {}), (entry.namespace, request): _Last(entry.reply, self._engine.now)}
        if _size(known) <= STALE_BYTES // 16:
            self._last[entry.key] = known
        else:
            self.forget(entry.key)  # what was kept before is older than the last one

    @property
    def has_last(self) -> bool:
        """Return whether there is a last value of any key."""
        return len(self._last) > 0

    def forget(self, key: bytes) -> None:
        """Keep no last value of a key: it is back, or a client of ours writes it, who must never read an older one."""
        if self._last:
            self._last.pop(key, None)

    def forget_covered(self, covers: Callable[[int, bytes], bool]) -> None:
        """Keep no last values of keys, of a database, that are said to be gone; of many, none at all."""
        if len(self._last) > LOOKED_THROUGH_MAX:
            self._last.clear()
        for key, known in list(self._last.items()):
            if any(covers(db, key) for db in {namespace.scope.db for namespace, _ in known}):
                del self._last[key]

    def forget_all(self) -> None:
        """Keep no last values."""
        self._last.clear()

    def _last_value(self, recompute: Recompute) -> bytes | None:
        if recompute.rules.while_recomputed != "stale":
            return None
        flight = recompute.flight
        last = self._last.get(flight.key, {}).get((flight.namespace, flight.request))
        # Nobody may have read the key for days: what was its last value here need not be the last that there was.
        return last.reply if last is not None and self._engine.now - last.at <= self._engine.max_age_s else None


def _whose(waiter: JoinSlot) -> Client | None:
    """Return the client that waits, not who stands in for it in one command."""
    client = waiter.client
    return client.client if isinstance(client, StandIn) else client


def _is_awaited(waiter: JoinSlot) -> bool:
    """Return whether a client is there to be told something."""
    client = waiter.client
    return client.is_awaited if isinstance(client, StandIn) else waiter.mode is WHOLE


def _size(values: dict[Place, _Last]) -> int:
    return sum(len(request) + len(last.reply) + 200 for (_, request), last in values.items())
