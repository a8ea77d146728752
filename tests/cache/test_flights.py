"""Flights stand until they land or are revoked, each once, each in its namespace."""

from __future__ import annotations

import pytest

from proxy.cache.entry import Flight, Namespace, Scope
from proxy.cache.flights import Flights

KEY = b"$1\r\nk\r\n"
OTHER = b"$1\r\no\r\n"


@pytest.fixture
def namespaces() -> dict[Scope, Namespace]:
    """Two namespaces, as L1 would have them."""
    return {scope: Namespace(scope) for scope in (Scope(b"", 0, 2), Scope(b"", 1, 2))}


@pytest.fixture
def flights(namespaces: dict[Scope, Namespace]) -> Flights:
    """Flights over those namespaces."""
    return Flights(namespaces)


def open_everywhere(
    flights: Flights, namespaces: dict[Scope, Namespace], *keys: bytes, link: object = None
) -> list[Flight]:
    """Open a flight for each key in each namespace."""
    return [flights.open(namespace, key, link, 1.0) for namespace in namespaces.values() for key in keys]


def standing(namespaces: dict[Scope, Namespace]) -> int:
    """Return how many flights hang in the namespaces."""
    return sum(len(namespace.flights) for namespace in namespaces.values())


def test_open_flight_stands_and_is_found_by_its_key(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """A later reader finds the flight in the namespace, with the time its read was sent."""
    namespace, elsewhere = namespaces.values()
    link = object()
    flight = flights.open(namespace, KEY, link, 7.0)

    assert namespace.flights[KEY] is flight
    assert elsewhere.flights == {}
    assert (flight.standing, flight.sent_at, flight.link, flight.reply) == (True, 7.0, link, None)


def test_land_of_a_standing_flight_says_so_once(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """A lease stands to the end or not; it ends once, and is found no more."""
    flight, _ = open_everywhere(flights, namespaces, KEY)

    assert flights.land(flight) is True
    assert flights.land(flight) is False
    assert standing(namespaces) == 1
    assert flights.revoked == 0


def test_revoked_flight_does_not_land(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """What was revoked is counted, found no more, and never lands."""
    flight, other = open_everywhere(flights, namespaces, KEY)
    flights.revoke(flight)
    flights.revoke(flight)

    assert flights.land(flight) is False
    assert (flights.revoked, standing(namespaces)) == (1, 1)
    assert other.standing


def test_revoked_flight_leaves_its_successor_alone(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """A flight opened after a revocation is another: the end of the first is not its end."""
    namespace = next(iter(namespaces.values()))
    first = flights.open(namespace, KEY, None, 1.0)
    flights.revoke(first)
    second = flights.open(namespace, KEY, None, 2.0)
    landed = flights.land(first)

    assert not landed
    assert namespace.flights[KEY] is second
    assert second.standing


def test_revoke_key_reaches_every_namespace(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """A change of a key revokes its leases in all databases, and no other key's."""
    opened = open_everywhere(flights, namespaces, KEY, OTHER)
    flights.revoke_key(KEY)

    assert [flight.standing for flight in opened] == [flight.key == OTHER for flight in opened]
    assert (flights.revoked, standing(namespaces)) == (2, 2)


def test_revoke_namespace_reaches_one_scope(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """The loss of a link revokes what it fed, and nothing else."""
    opened = open_everywhere(flights, namespaces, KEY, OTHER)
    first = next(iter(namespaces.values()))
    flights.revoke_namespace(first)

    assert [flight.standing for flight in opened] == [flight.namespace is not first for flight in opened]
    assert (flights.revoked, first.flights) == (2, {})


def test_revoke_all_reaches_everything(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """A flush revokes every lease."""
    opened = open_everywhere(flights, namespaces, KEY, OTHER)
    flights.revoke_all()

    assert not any(flight.standing for flight in opened)
    assert (flights.revoked, standing(namespaces)) == (4, 0)


def test_revoke_link_reaches_what_travels_on_it(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """In broadcast mode a lost link takes the reads that travelled on it, not those of another."""
    lost, kept = object(), object()
    gone = open_everywhere(flights, namespaces, KEY, link=lost)
    stay = open_everywhere(flights, namespaces, OTHER, link=kept)
    flights.revoke_link(lost)

    assert not any(flight.standing for flight in gone)
    assert all(flight.standing for flight in stay)
    assert (flights.revoked, standing(namespaces)) == (2, 2)
