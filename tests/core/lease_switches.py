"""How a lease rule is taken out: one method replaced, before the worker is made.

Each is either a switch (it takes the monkeypatch) or the function that is put in the place of a method.
"""

from __future__ import annotations

from typing import Any

import pytest

from proxy.cache.entry import Namespace, Scope
from proxy.cache.flights import Flights
from proxy.cache.l1 import L1
from proxy.core.engine import NO_EXPIRY, Engine
from proxy.core.fill_slots import FillSlot, JoinSlot
from proxy.core.pinning import Pinning
from proxy.core.tracking import Tracking
from proxy.net.clients.client import ClientConnection
from proxy.net.invalidation.control import ControlLink
from proxy.net.links.link import Link
from proxy.net.links.upstream import DataLinks, Group
from proxy.wire import commands
from proxy.wire.commands import Kind
from proxy.wire.encode import command

from .lease_rule import Switch, replace


def land_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish whatever became of the lease."""
    monkeypatch.setattr(Flights, "land", lambda self, flight: flight.namespace.flights.pop(flight.key, None) or True)


def answer_joiners_anyway(self: JoinSlot, reply: bytes | None, deadline: float) -> None:
    """Answer with the value, whatever the deadline."""
    self.fill(reply or b"$-1\r\n")


def answer_joiners_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer when the value has come, before its PTTL."""
    keep = FillSlot.keep

    def keep_and_answer(self: FillSlot, raw: bytes, count: int) -> None:
        keep(self, raw, count)
        joiners, self.flight.joiners = self.flight.joiners or [], None
        for joiner in joiners:
            joiner.fill(raw)

    monkeypatch.setattr(FillSlot, "keep", keep_and_answer)


def finish_with(change: Any) -> Switch:
    """Return the switch that changes what `finish` is told: (engine, flight, pttl) -> pttl."""
    finish = Engine.finish
    return replace(Engine, "finish", lambda self, flight, pttl: finish(self, flight, change(self, flight, pttl)))


def count_from_arrival(engine: Engine, flight: Any, pttl_ms: int) -> int:
    """Count the deadline from when the PTTL arrived."""
    flight.sent_at = engine.now
    return pttl_ms


def believe_contradictions(self: Engine, flight: Any, pttl_ms: int) -> float:
    """Publish the value though its PTTL says that there is none."""
    if self.flights.land(flight) and flight.reply is not None:
        self.l1.put(flight.namespace, flight.key, flight.reply, flight.sent_at + self.max_age_s, self.now)
    return float(flight.sent_at + self.max_age_s)


def begin_without_drop(self: Engine, keys: Any) -> None:
    """Mark the keys and drop nothing."""
    for key in keys:
        self.writing[key] = self.writing.get(key, 0) + 1


def end_without_drop(self: Engine, keys: Any) -> None:
    """Unmark the keys and drop nothing."""
    for key in keys:
        self.writing[key] -= 1
        if not self.writing[key]:
            del self.writing[key]


def lease_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open and join flights while a write is in flight."""
    monkeypatch.setattr(Engine, "can_lease", lambda self, key, read=None: True)


def know_no_unknown_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take writes of unknown keys for reads."""
    monkeypatch.setattr(Engine, "begin_write_all", lambda self: None)
    monkeypatch.setattr(Engine, "end_write_all", lambda self: None)


def fill_from_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish what an own SET wrote."""
    end = Engine.end_write

    def end_and_put(self: Engine, keys: list[bytes]) -> None:
        end(self, keys)
        namespace = self.l1.namespace(Scope(b"", 0, 2))
        for key in keys:
            self.l1.put(namespace, key, b"$3\r\nown\r\n", self.now + 300, self.now)

    monkeypatch.setattr(Engine, "end_write", end_and_put)


def ignore_null_pushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the null of FLUSHALL for "nothing"."""
    take = ControlLink._take
    monkeypatch.setattr(
        ControlLink, "_take", lambda self, frame: None if frame == [b"invalidate", None] else take(self, frame)
    )


def drop_in_one_database(self: Engine, key: bytes) -> None:
    """Drop a pushed key in database 0 only."""
    for namespace in self.l1.namespaces.values():
        if namespace.scope.db == 0 and (entry := namespace.resident.get(key)) is not None:
            self.l1._forget(entry)


def share_a_namespace(self: L1, scope: Scope) -> Namespace:
    """Keep the replies of all users, databases and protocols together."""
    shared = Scope(b"", 0, 0)
    if shared not in self.namespaces:
        self.namespaces[shared] = Namespace(shared)
        self.namespaces[shared].entries = self.namespaces[shared].resident
    return self.namespaces[shared]


def ask_for_noloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask Redis not to announce our own writes to us."""

    def with_noloop(*words: Any) -> bytes:
        return command(*words, "NOLOOP") if words[:2] == ("CLIENT", "TRACKING") else command(*words)

    monkeypatch.setattr("proxy.net.links.upstream.command", with_noloop)


def list_pttl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a command whose reply changes with time on the list of what L1 may answer."""
    monkeypatch.setitem(commands._REFINED, b"PTTL", Kind.GET)


def count_from_the_pong(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the bound from when the PONG arrived."""
    pong = Tracking.pong

    def trust(self: Tracking) -> None:
        pong(self)
        self.serve_until = self._engine.now + self.max_staleness_s
        self._engine.serve()

    monkeypatch.setattr(Tracking, "pong", trust)


def lose_without_flush(self: Tracking) -> None:
    """Keep what the lost invalidation link covered."""
    self.redirect_id = 0
    self._pings.clear()
    self.serve_until = 0.0
    self._engine.suspend()


def lease_before_the_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every link for tracked from the start."""
    make = DataLinks.make

    def make_tracked(self: DataLinks, group: Group) -> Link:
        link = make(self, group)
        link.tracked = True
        return link

    monkeypatch.setattr(DataLinks, "make", make_tracked)


def take_pushes_for_replies(self: Link, frame: bytes) -> None:
    """Land a push in the slot at the head."""
    self.fifo.popleft().land(frame)


def serve_the_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer sessions that hold a link of their own from L1 too."""
    expose = ClientConnection.expose

    def expose_always(self: ClientConnection) -> None:
        expose(self)
        if self.pin is not None and self.group is not None:
            self.namespace = self.group.namespace

    monkeypatch.setattr(ClientConnection, "expose", expose_always)


def forget_what_is_queued(name: str, nothing: Any) -> Switch:
    """Return the switch that lets a transaction forget what it has queued."""
    return lambda monkeypatch: monkeypatch.setattr(Pinning, name, property(lambda self: nothing(), lambda *_: None))


def find_no_expiry(engine: Engine, flight: Any, pttl_ms: int) -> int:
    """Take no notice of what PTTL says about an expiry."""
    return NO_EXPIRY if pttl_ms >= 0 else pttl_ms


def hold_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold entries past `max_age`."""
    put = L1.put
    monkeypatch.setattr(
        L1, "put", lambda self, namespace, key, reply, deadline, now: put(self, namespace, key, reply, now + 1e9, now)
    )
