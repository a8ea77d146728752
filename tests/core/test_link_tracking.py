"""A data link fills L1 only while Redis is known to announce, to the present invalidation link, what is read on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .world import ScriptedClient, World, running_world


@pytest.fixture
def world() -> Iterator[World]:
    """Make a world."""
    with running_world() as made:
        yield made


def replace_control(world: World) -> None:
    """Lose the invalidation link and open another."""
    lost = world.control
    world.kill(lost)
    world.notice(lost)
    world.connect_control()


def reads_stale(world: World, client: ScriptedClient) -> bool:
    """Tell whether a read is held in L1 past the push of a foreign write."""
    world.redis.foreign("SET", "k", "old")
    world.settle()
    client.ask("GET", "k")
    world.redis.foreign("SET", "k", "new")
    world.settle()
    return bool(client.ask("GET", "k") != b"new")


def test_link_whose_handshake_named_a_lost_link_is_tracked_anew(world: World) -> None:
    """The invalidation link is replaced during a handshake that names it: what the handshake asked for is void."""
    client = world.client()
    lost = world.data_link()
    world.kill(lost)
    world.notice(lost)

    def meanwhile() -> None:
        world.during_handshake = lambda: None
        replace_control(world)

    world.during_handshake = meanwhile
    world.run_tasks()
    (group,) = world.worker.links.groups.values()
    tracked = [group.links[0].tracked]
    world.settle()
    tracked.append(group.links[0].tracked)

    assert tracked == [False, True]
    assert not reads_stale(world, client)


def test_acknowledgement_of_an_older_redirection_counts_for_nothing(world: World) -> None:
    """Two invalidation links in a row: the first one's acknowledgement, come late, does not make the link tracked."""
    client = world.client()
    data = world.data_link()
    replace_control(world)
    world.execute(data)
    replace_control(world)
    (group,) = world.worker.links.groups.values()
    world.deliver(data)
    tracked = [group.links[0].tracked]
    world.settle()
    tracked.append(group.links[0].tracked)

    assert tracked == [False, True]
    assert not reads_stale(world, client)


def test_refused_redirection_leaves_the_link_untracked(world: World) -> None:
    """Redis no longer knows the link it is to redirect to: nothing is filled from there."""
    client = world.client()
    replace_control(world)
    world.kill(world.control)  # gone, and not noticed
    world.execute(world.data_link())
    world.deliver(world.data_link())
    (group,) = world.worker.links.groups.values()
    published = world.worker.stats.published
    client.ask("GET", "k")

    assert not group.links[0].tracked
    assert world.worker.stats.published == published


def test_broken_redirection_stops_filling_and_loses_no_command(world: World) -> None:
    """The push that says so on a RESP3 link costs that link its leases and nobody a reply."""
    client = world.client(protocol=3)
    client.ask("GET", "k")
    world.kill(world.control)
    world.redis.foreign("SET", "k", "new")
    replies = [client.ask("GET", "k"), client.ask("INCR", "n"), client.ask("GET", "n")]
    published = world.worker.stats.published
    client.ask("GET", "other")

    assert replies[1:] == [1, b"1"]
    assert world.worker.stats.published == published
    assert world.worker.stats.links_lost == 0
