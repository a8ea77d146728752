"""Flights: reads on their way to fill L1, each under a lease that any change of its key revokes.

    open   a miss sends its read and a PTTL; one flight a key and namespace
    join   later readers of the key wait for it
    land   read and PTTL are in: the lease still stands -> publish
    revoke the key was written, pushed, flushed, or a link was lost -> never published, never joined again

Owns which flights stand. A revoked flight still answers those who joined while it stood: they asked before the change.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.cache.entry import Flight, Namespace, Scope
from proxy.wire.reads import GET_READ, CachedRead


class Flights:
    """Which flights stand; they hang in their namespaces."""

    __slots__ = ("_namespaces", "revoked")

    def __init__(self, namespaces: Mapping[Scope, Namespace]) -> None:
        self._namespaces = namespaces
        self.revoked = 0

    def open(
        self,
        namespace: Namespace,
        key: bytes,
        link: object,
        now: float,
        *,
        request: bytes | None = None,
        read: CachedRead = GET_READ,
    ) -> Flight:
        """Open a lease for a GET, or for the read of a raw request; the caller has made sure that none stands."""
        request = request or key
        flight = Flight(namespace, key, link, now, request=request, read=read)
        namespace.flights[request] = flight
        if request is not key:
            pending = namespace.pending.get(key)
            if pending is None:
                namespace.pending[key] = [flight]
            else:
                pending.append(flight)
        return flight

    def land(self, flight: Flight) -> bool:
        """End a flight; return whether its lease stood to the end."""
        if not flight.standing:
            return False
        flight.standing = False
        namespace = flight.namespace
        del namespace.flights[flight.request]
        if flight.request is not flight.key:
            pending = namespace.pending[flight.key]
            if len(pending) == 1:
                del namespace.pending[flight.key]
            else:
                pending.remove(flight)
        return True

    def revoke(self, flight: Flight) -> None:
        """Take one lease back."""
        if self.land(flight):
            self.revoked += 1

    def revoke_key(self, key: bytes) -> None:
        """Take back the leases of a key in every namespace."""
        for namespace in self._namespaces.values():
            flight = namespace.flights.get(key)
            if flight is not None:
                self.revoke(flight)
            for flight in namespace.pending.get(key, ())[:]:
                self.revoke(flight)

    def revoke_namespace(self, namespace: Namespace) -> None:
        """Take back every lease of one namespace."""
        self.revoked += len(namespace.flights)
        for flight in namespace.flights.values():
            flight.standing = False
        namespace.flights.clear()
        namespace.pending.clear()

    def revoke_all(self) -> None:
        """Take every lease back."""
        for namespace in self._namespaces.values():
            self.revoke_namespace(namespace)

    def revoke_link(self, link: object) -> None:
        """Take back the leases whose read travels on a link."""
        for namespace in self._namespaces.values():
            for flight in [flight for flight in namespace.flights.values() if flight.link is link]:
                self.revoke(flight)
