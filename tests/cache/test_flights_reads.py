"""Flights of other reads than GET: found by their request, revoked by their key."""

from __future__ import annotations

import itertools

import pytest

from proxy.cache.entry import Flight, Namespace, Scope
from proxy.cache.flights import Flights
from proxy.wire.encode import bulk, command
from proxy.wire.reads import GET_READ, READS

KEY, OTHER = bulk(b"k"), bulk(b"o")
LENGTH, RANGE, FIRST = (command(*words) for words in (("LLEN", "k"), ("LRANGE", "k", 0, -1), ("LINDEX", "k", 0)))
READ = READS[b"LLEN"]


@pytest.fixture
def namespaces() -> dict[Scope, Namespace]:
    """Two namespaces, as L1 would have them."""
    return {scope: Namespace(scope) for scope in (Scope(b"", 0, 2), Scope(b"", 1, 2))}


@pytest.fixture
def flights(namespaces: dict[Scope, Namespace]) -> Flights:
    """Flights over those namespaces."""
    return Flights(namespaces)


def opened(
    flights: Flights, namespace: Namespace, *wanted: bytes, key: bytes = KEY, link: object = None
) -> list[Flight]:
    """Open a flight for each request."""
    return [flights.open(namespace, key, link, 1.0, request=request, read=READ) for request in wanted]


def pending(namespace: Namespace) -> dict[bytes, list[Flight]]:
    """Return what is pending, and check that it is what flies."""
    assert all(namespace.pending.values()), "an empty list is left behind"
    flying = [flight for flight in namespace.flights.values() if flight.request is not flight.key]
    hanging = [flight for flights in namespace.pending.values() for flight in flights]
    assert {id(flight) for flight in flying} == {id(flight) for flight in hanging}
    assert len(flying) == len(hanging)
    return namespace.pending


def test_open_read_is_found_by_its_request_and_by_its_key(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """Joiners look for the request, changes for the key; a GET of the key is another flight."""
    namespace, elsewhere = namespaces.values()
    one, other = opened(flights, namespace, LENGTH, RANGE)
    get = flights.open(namespace, KEY, None, 1.0)

    assert namespace.flights == {LENGTH: one, RANGE: other, KEY: get}
    assert pending(namespace) == {KEY: [one, other]}
    assert (one.read, get.read) == (READ, GET_READ)
    assert (elsewhere.flights, elsewhere.pending) == ({}, {})


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_land_in_any_order_leaves_the_others_pending(
    flights: Flights, namespaces: dict[Scope, Namespace], order: tuple[int, ...]
) -> None:
    """Each lands once; the last leaves nothing behind."""
    namespace = next(iter(namespaces.values()))
    flying = opened(flights, namespace, LENGTH, RANGE, FIRST)
    for done, place in enumerate(order, 1):
        assert flights.land(flying[place]) is True
        assert flights.land(flying[place]) is False
        left = [flying[at] for at in range(3) if at not in order[:done]]
        assert pending(namespace) == ({KEY: left} if left else {})

    assert namespace.flights == {}
    assert flights.revoked == 0


def test_revoke_key_reaches_every_read_of_it(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """A change of a key revokes its GET and all its other reads, in every namespace; other keys' reads stand."""
    gone, stay = [], []
    for namespace in namespaces.values():
        gone += [*opened(flights, namespace, LENGTH, RANGE, FIRST), flights.open(namespace, KEY, None, 1.0)]
        stay += opened(flights, namespace, command("LLEN", "o"), key=OTHER)
    flights.revoke_key(KEY)

    assert not any(flight.standing for flight in gone)
    assert all(flight.standing for flight in stay)
    assert flights.revoked == len(gone)
    for namespace, flight in zip(namespaces.values(), stay, strict=True):
        assert pending(namespace) == {OTHER: [flight]}
        assert list(namespace.flights.values()) == [flight]


def test_revoke_link_reaches_the_reads_on_it(flights: Flights, namespaces: dict[Scope, Namespace]) -> None:
    """Of the reads of one key those on the lost link go."""
    lost, kept = object(), object()
    namespace = next(iter(namespaces.values()))
    gone = opened(flights, namespace, LENGTH, FIRST, link=lost)
    (stay,) = opened(flights, namespace, RANGE, link=kept)
    flights.revoke_link(lost)

    assert [flight.standing for flight in (*gone, stay)] == [False, False, True]
    assert pending(namespace) == {KEY: [stay]}


@pytest.mark.parametrize("all_of_them", [True, False])
def test_revoke_of_a_namespace_leaves_nothing_pending(
    flights: Flights, namespaces: dict[Scope, Namespace], all_of_them: bool
) -> None:
    """A revoked flight neither lands nor hangs anywhere, and one opened after it is another."""
    first, second = namespaces.values()
    flying = opened(flights, first, LENGTH, RANGE) + opened(flights, second, LENGTH)
    if all_of_them:
        flights.revoke_all()
    else:
        flights.revoke_namespace(first)

    assert [flight.standing for flight in flying] == [False, False, not all_of_them]
    assert (first.flights, pending(first)) == ({}, {})
    assert bool(pending(second)) != all_of_them
    assert flights.revoked == (3 if all_of_them else 2)
    (successor,) = opened(flights, first, LENGTH)
    assert not flights.land(flying[0])
    assert pending(first) == {KEY: [successor]}
    assert flights.land(successor)
