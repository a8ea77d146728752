"""Where clients come from, and what an address has done."""

from __future__ import annotations

import pytest

from proxy.core.rights.meter import Bucket
from proxy.core.rights.origins import DELAY_MAX_S, FORGIVEN_S, IDLE_MAX, Origins, network_of


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("10.0.0.1:4711", "10.0.0.1"),
        ("[::ffff:10.0.0.1]:4711", "10.0.0.1"),
        ("[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:1", "fe80::/64"),
        ("/run/respite.sock:0", "unix"),
        ("?:0", "unix"),
    ],
)
def test_network_is_what_counts_as_one_address(address: str, name: str) -> None:
    """An IPv6 host may come from any address of its network of 64 bits, an IPv4 one also through IPv6."""
    assert network_of(address) == name


def test_origin_is_the_same_for_all_clients_of_an_address_and_forgotten_with_the_last() -> None:
    """Nothing stays of those who are gone."""
    origins = Origins()
    origin = origins.find("10.0.0.1:1")
    origins.enter(origin)
    origins.enter(origins.find("10.0.0.1:2"))
    assert (origin.clients, len(origins)) == (2, 1)

    origins.leave(origin, 0.0)
    origins.leave(origin, 0.0)

    assert len(origins) == 0
    assert origins.find("10.0.0.1:3") is not origin


def test_origin_failed_logins_are_answered_later_and_later_and_forgiven_in_the_end() -> None:
    """Each doubles the wait, up to a most."""
    origin = Origins().find("10.0.0.1:1")

    assert [origin.fail(5.0) for _ in range(7)] == [0.25, 0.5, 1.0, 2.0, DELAY_MAX_S, DELAY_MAX_S, DELAY_MAX_S]
    assert not origin.is_forgiven(5.0 + FORGIVEN_S)
    assert origin.fail(5.1 + FORGIVEN_S) == 0.25


def test_origin_that_leaves_and_comes_back_has_not_got_rid_of_what_it_owes() -> None:
    """Neither of failed logins nor of commands it has asked for beyond its rate."""
    origins = Origins()
    failed, dry = origins.find("10.0.0.1:1"), origins.find("10.0.0.2:1")
    failed.fail(1.0)
    dry.meter = Bucket.full(10, 10, 1.0)
    dry.meter.take(100, 1.0)
    for origin in (failed, dry):
        origins.enter(origin)
        origins.leave(origin, 2.0)

    assert [origins.find("10.0.0.1:9"), origins.find("10.0.0.2:9")] == [failed, dry]
    assert len(origins) == 0


def test_origins_that_are_gone_are_remembered_up_to_a_bound() -> None:
    """A flood from everywhere costs a bounded memory."""
    origins = Origins()
    for number in range(IDLE_MAX + 10):
        origin = origins.find(f"10.0.{number >> 8}.{number & 255}:1")
        origin.fail(1.0)
        origins.enter(origin)
        origins.leave(origin, 1.0)

    assert not origins.find("10.0.0.0:1").failures
    assert origins.find("10.0.0.10:1").failures
