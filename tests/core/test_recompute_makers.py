"""Whoever makes a value anew waits for no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs
import pytest

from proxy.config.model import Settings
from proxy.wire.encode import command

from .test_recompute import LEASE_S, is_held_elsewhere, scripted, settings
from .world import ScriptedClient, World, running_world


@pytest.fixture
def world() -> Iterator[World]:
    """Run a proxy and a model server that knows leases."""
    with running_world(settings()) as made:
        yield scripted(made)


def with_fallback(mode: Literal["wait", "stale"] = "wait") -> Settings:
    """Return settings with a class that has a fallback, too: others stand in for its clients."""
    made = settings(mode)
    (one,) = made.classes
    return attrs.evolve(made, classes=(attrs.evolve(one, stale_if_error_s=30.0),))


def asks(world: World, client: ScriptedClient, *words: str) -> list[object]:
    """Send a command, let everything happen, return the replies that have come."""
    client.send(*words)
    world.settle()
    return client.replies()


# -- who makes a value -----------------------------------------------------------------------------------------------


def test_maker_that_asks_by_another_command_is_told_nothing_at_once(world: World) -> None:
    """Read, lock, look whether it is there by now, make: the lease that the second read is refused is its own."""
    maker = world.client()
    assert asks(world, maker, "GET", "k") == [None]

    assert asks(world, maker, "EXISTS", "k") == [0]
    assert asks(world, maker, "STRLEN", "k") == [0]


def test_makers_that_read_each_others_keys_do_not_wait_for_each_other(world: World) -> None:
    """Two pipelines with two keys in either order: each makes one, and none would be written before the lease ends."""
    one, other = world.client(), world.client()
    one.send("GET", "k1")
    other.send("GET", "k2")
    world.settle()
    one.send("GET", "k2")
    other.send("GET", "k1")
    world.settle()

    assert [one.replies(), other.replies()] == [[None, None]] * 2


def test_maker_waits_no_longer_for_what_it_waited_for_before(world: World) -> None:
    """A pipeline of two keys, the first of which another sidecar makes: its client is to make the second one."""
    is_held_elsewhere(world)
    client = world.client()
    client.send_raw(command("GET", "k") + command("GET", "k2"))
    world.settle()

    assert client.replies() == [None, None]


def test_maker_of_two_keys_makes_both(world: World) -> None:
    """Elected for the first of a pipeline, it is still to be elected for the second."""
    maker, other = world.client(), world.client()
    maker.send_raw(command("GET", "k1") + command("GET", "k2"))
    world.settle()
    assert maker.replies() == [None, None]

    assert asks(world, other, "GET", "k1") == []
    assert asks(world, other, "GET", "k2") == []


def test_maker_waits_again_once_its_value_is_written(world: World) -> None:
    """It makes nothing any more."""
    is_held_elsewhere(world)
    maker = world.client()
    assert asks(world, maker, "GET", "k2") == [None]
    assert asks(world, maker, "SET", "k2", "made") == [b"OK"]

    assert asks(world, maker, "GET", "k") == []


def test_maker_of_what_nobody_wrote_in_time_waits_again(world: World) -> None:
    """Its lease has ended."""
    maker = world.client()
    assert asks(world, maker, "GET", "k2") == [None]
    world.pass_time(LEASE_S + 0.1)
    is_held_elsewhere(world)

    assert asks(world, maker, "GET", "k") == []


def test_maker_in_a_class_with_a_fallback_looks_again_at_once() -> None:
    """There another stands in for the client in each command: a maker is the client itself."""
    with running_world(with_fallback()) as world:
        scripted(world)
        maker = world.client()
        assert asks(world, maker, "GET", "k") == [None]

        assert asks(world, maker, "GET", "k") == [None]


def test_client_that_has_left_makes_nothing_in_a_class_with_a_fallback() -> None:
    """Who stood in for it is still there: elected, it would make nothing, and all others wait for it."""
    with running_world(with_fallback()) as world:
        scripted(world)
        gone, stays = world.client(), world.client()
        link = world.data_link()
        gone.send("GET", "k")
        stays.send("GET", "k")
        world.execute(link)
        world.deliver(link)  # nil, PTTL; SET NX goes out
        gone.close()
        world.settle()

        assert stays.replies() == [None]
