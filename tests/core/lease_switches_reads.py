"""How a lease rule is taken out for other reads than GET: what drops, revokes or finds them is replaced."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.cache.entry import Flight, Namespace, ReplyEntry, Scope
from proxy.cache.flights import Flights
from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.pipeline import READ_KINDS
from proxy.wire.commands import Kind


def drop_values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop what GET has read of a key, and no other reply."""

    def drop(self: L1, key: bytes) -> int:
        entries = [n.resident[key] for n in self.namespaces.values() if key in n.resident]
        for entry in entries:
            self._forget(entry)
        return len(entries)

    monkeypatch.setattr(L1, "drop", drop)


def revoke_gets_only(self: Flights, key: bytes) -> None:
    """Revoke the leases of GETs of a key, and of no other read."""
    for namespace in self._namespaces.values():
        if key in namespace.flights:
            self.revoke(namespace.flights[key])


def keep_replies_on_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush what GETs have read, and nothing else."""

    def clear(self: L1) -> int:
        gone = [e for n in self.namespaces.values() for e in n.resident.values() if not isinstance(e, ReplyEntry)]
        for entry in gone:
            self._forget(entry)
        return len(gone)

    monkeypatch.setattr(L1, "clear", clear)


def revoke_all_but_reads(self: Flights) -> None:
    """Revoke the leases of GETs, and of no other read."""
    for namespace in self._namespaces.values():
        for flight in [one for one in namespace.flights.values() if one.request is one.key]:
            self.revoke(flight)


def believe_contradictions(self: Engine, flight: Flight, pttl_ms: int) -> float:
    """Publish what has been read though PTTL contradicts it."""
    until = flight.sent_at + self.max_age_s
    if self.flights.land(flight) and flight.reply is not None:
        self.l1.put_reply(flight.namespace, flight.key, flight.reply, until, self.now, request=flight.request)
    return until


def answers_of_all(self: L1, scope: Scope) -> Namespace:
    """Keep the replies of all users, databases and protocols together."""
    shared = Scope(b"", 0, 0)
    if shared not in self.namespaces:
        made = self.namespaces[shared] = Namespace(shared)
        made.entries, made.answers = made.resident, made.replies
    return self.namespaces[shared]


def drop_in_one_database(self: Engine, key: bytes) -> None:
    """Drop the replies about a pushed key in database 0 only."""
    for namespace in self.l1.namespaces.values():
        if namespace.scope.db == 0:
            for entry in [one for one in namespace.replies.values() if one.key == key]:
                self.l1._forget(entry)


def find_by_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find replies by their key alone, whatever the request."""
    put = L1.put_reply

    class ByKey(dict[bytes, Any]):
        def get(self, request: bytes, default: Any = None) -> Any:
            return next((e for r, e in self.items() if request.endswith(e.key) or e.key in request), default)

    def put_and_mix(self: L1, namespace: Namespace, *args: Any, request: bytes, **about: Any) -> Any:
        made = put(self, namespace, *args, request=request, **about)
        namespace.answers = ByKey(namespace.replies)
        return made

    monkeypatch.setattr(L1, "put_reply", put_and_mix)


def let_writes_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send a client's writes past its reads that have joined."""
    monkeypatch.setattr("proxy.core.pipeline.READ_KINDS", (*READ_KINDS, Kind.WRITE))


def serve_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop serving values, and go on serving the other replies."""
    suspend = L1.suspend

    def half(self: L1) -> None:
        suspend(self)
        for namespace in self.namespaces.values():
            namespace.answers = namespace.replies

    monkeypatch.setattr(L1, "suspend", half)
