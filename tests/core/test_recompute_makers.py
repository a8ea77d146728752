"""Whoever makes a value anew waits for no other, and nobody is served what is older than the last value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs
import pytest

from proxy.config.model import Settings
from proxy.values.fences import Fence
from proxy.wire.encode import command

from .test_recompute import LEASE_S, is_held_elsewhere, scripted, settings
from .world import ScriptedClient, World, running_world


@pytest.fixture
def world() -> Iterator[World]:
    """Run a proxy and a model server that knows leases."""
    with running_world(settings()) as made:
        yield scripted(made)


@pytest.fixture
def stale() -> Iterator[World]:
    """Run one whose readers get the last value while another makes it anew."""
    with running_world(settings("stale")) as made:
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


def ends(world: World, name: str) -> None:
    """Let a key end, and be found to have ended by one reader, who makes it."""
    world.pass_time(1.5)
    maker = world.client()
    assert asks(world, maker, "GET", name) == [None]


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


# -- the last value --------------------------------------------------------------------------------------------------


def test_last_value_is_the_last_one_there_was(stale: World) -> None:
    """One that is too large to be kept, or went from L1 unseen, is newer all the same than what was kept before it."""
    reader, other = stale.client(), stale.client()
    stale.redis.foreign("SET", "k", "first", "PX", 1000)
    assert reader.ask("GET", "k") == b"first"
    stale.pass_time(1.5)
    stale.redis.foreign("SET", "k", "second", "PX", 1000)
    stale.settle()
    assert reader.ask("GET", "k") == b"second"
    stale.worker.reactor.enter()
    stale.worker.engine.l1.clear()  # evicted, say
    ends(stale, "k")

    assert b"first" not in asks(stale, other, "GET", "k")


def test_last_value_that_is_too_large_replaces_an_older_one(stale: World) -> None:
    """`remember` keeps no large ones: the one before it must not stay."""
    reader, other = stale.client(), stale.client()
    engine = stale.worker.engine
    stale.redis.foreign("SET", "k", "first", "PX", 1000)
    assert reader.ask("GET", "k") == b"first"
    (entry,) = next(iter(engine.l1.namespaces.values())).resident.values()
    engine.recomputes.remember(entry)
    entry.reply = b"$%d\r\n%b\r\n" % (1 << 19, b"x" * (1 << 19))
    engine.recomputes.remember(entry)
    ends(stale, "k")

    assert b"first" not in asks(stale, other, "GET", "k")


def test_last_value_is_served_for_as_long_as_l1_may_hold_one(stale: World) -> None:
    """A key that nobody has read since may have had any number of values: `l1.max_age` is the bound of what is old."""
    reader = stale.client()
    max_age_s = stale.worker.engine.max_age_s
    for pause_s, expected in ((1.5, [b"old"]), (max_age_s + 10.0, [])):
        stale.redis.foreign("SET", "k", "old", "PX", 1000)
        assert reader.ask("GET", "k") == b"old"
        stale.pass_time(1.5)
        assert asks(stale, stale.client(), "GET", "k") == [None]  # found to have ended
        stale.pass_time(LEASE_S)
        stale.now += pause_s
        stale.connect_control()
        stale.settle()
        assert asks(stale, stale.client(), "GET", "k") == [None]
        found = asks(stale, stale.client(), "GET", "k")
        stale.pass_time(LEASE_S + 1)

        assert found == expected


@pytest.mark.parametrize("many", [0, 1_500])
def test_last_value_of_what_a_fence_covers_is_not_served(stale: World, many: int) -> None:
    """Who drops a glob drops it for those who would get the last value as well, however many are kept."""
    reader, other = stale.client(), stale.client()
    for name in ("k", "k2", *(f"k:{number}" for number in range(many))):
        stale.redis.foreign("SET", name, "old", "PX", 1000)
        assert reader.ask("GET", name) == b"old"
    stale.pass_time(1.5)
    for name in ("k", "k2", *(f"k:{number}" for number in range(many))):
        reader.send("GET", name)
    stale.settle()
    stale.worker.reactor.enter()
    stale.worker.value_layer.fencing.put([Fence(0, "glob", b"k", 7)])
    stale.worker.reactor.flush()

    assert asks(stale, other, "GET", "k2") == ([] if many else [b"old"])
    assert asks(stale, stale.client(), "GET", "k") == []
