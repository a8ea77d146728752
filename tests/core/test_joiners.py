"""Readers who join another's flight: what they are answered when the flight does not go well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .world import World, make_settings, running_world

TOO_LARGE = 150_000
STREAMED = 70_000


@pytest.fixture
def world() -> Iterator[World]:
    """Make a world whose L1 holds values up to 100 kB."""
    with running_world(make_settings(max_value_bytes=100_000)) as made:
        yield made


@pytest.mark.parametrize("size", [100, STREAMED, TOO_LARGE])
@pytest.mark.parametrize("cut", [1, 50, 20_000, 66_000, 120_000])
def test_joiner_whose_opener_leaves_half_way_is_answered_the_whole_value(world: World, size: int, cut: int) -> None:
    """An opener that closes while its value arrives, at whatever byte, takes nothing of it from the others."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", b"v" * size)
    opener.send("GET", "k")
    joiner.send("GET", "k")
    world.execute()
    world.deliver(world.data_link(), cut)
    opener.close()
    world.settle()

    assert joiner.replies() == [b"v" * size]


@pytest.mark.parametrize("size", [100, STREAMED, TOO_LARGE])
def test_joiner_that_selects_next_is_answered_from_where_it_was(world: World, size: int) -> None:
    """A joiner that must ask again asks in the database it asked in, whatever it has sent since."""
    opener, joiner, elsewhere = world.client(), world.client(), world.client(db=1)
    world.redis.foreign("SET", "k", b"v" * size)
    elsewhere.ask("SET", "k", "other")
    opener.send("GET", "k")
    joiner.send("GET", "k")
    joiner.send("SELECT", 1)
    joiner.send("GET", "k")
    world.settle()

    assert joiner.replies() == [b"v" * size, b"OK", b"other"]


@pytest.mark.parametrize("size", [100, STREAMED, TOO_LARGE])
def test_joiner_that_changes_protocol_next_is_answered_in_the_one_it_had(world: World, size: int) -> None:
    """A joiner that must ask again does so in the protocol it spoke."""
    opener, joiner = world.client(), world.client()
    world.client(protocol=3)  # what HELLO 3 is answered is known
    world.redis.foreign("SET", "k", b"v" * size)
    opener.send("GET", "k")
    joiner.send("GET", "k")
    joiner.send("GET", "missing")
    joiner.send("HELLO", 3)
    joiner.send("GET", "missing")
    world.settle()

    assert bytes(joiner.received).startswith(b"$%d\r\n" % size)
    assert b"\r\n$-1\r\n%" in joiner.received
    assert joiner.received.endswith(b"\r\n_\r\n")


@pytest.mark.parametrize("size", [100, STREAMED, TOO_LARGE])
@pytest.mark.parametrize("behind", [("SET", "k", "own"), ("DEL", "k"), ("FLUSHDB",), ("EVAL", "set k own", "1", "k")])
def test_joiner_that_writes_next_reads_what_was_before(world: World, size: int, behind: tuple[str, ...]) -> None:
    """In one pipeline a read never sees the write behind it, though its flight is revoked by that write."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", b"v" * size)
    opener.send("GET", "k")
    joiner.send("GET", "k")
    joiner.send(*behind)
    world.settle()

    assert [b"v" * size, b"OK" if behind[0] != "DEL" else 1] == joiner.replies()


def test_readers_whose_link_is_lost_ask_once_more_on_the_next(world: World) -> None:
    """A flight that is lost is no reader's loss: opener and joiner ask again."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", "v")
    opener.send("GET", "k")
    joiner.send("GET", "k")
    lost = world.data_link()
    world.kill(lost)
    world.notice(lost)
    world.settle()

    assert joiner.replies() == [b"v"] == opener.replies()


def test_joiners_of_one_flight_reach_redis_once(world: World) -> None:
    """Ten readers of a key that is not in L1 are one read in Redis."""
    readers = [world.client() for _ in range(10)]
    world.redis.foreign("SET", "k", "v")
    for reader in readers:
        reader.send("GET", "k")
    world.settle()

    assert [reader.replies() for reader in readers] == [[b"v"]] * 10
    assert world.redis.executed("GET") == 1


def test_joiner_that_has_left_keeps_its_group_from_nothing(world: World) -> None:
    """A joiner that closes before it is answered is counted as a client of its links no more."""
    opener, joiner = world.client(), world.client()
    world.redis.foreign("SET", "k", b"v" * TOO_LARGE)
    opener.send("GET", "k")
    joiner.send("GET", "k")
    joiner.close()
    world.settle()
    opener.close()

    assert [group.clients for group in world.worker.links.groups.values()] == [0]


def test_joiners_of_a_reply_too_large_for_l1_are_answered_whole_and_in_order() -> None:
    """A joiner asks again for what is not kept; what it sent behind that waits for its turn."""
    with running_world(make_settings(max_value_bytes=100)) as world:
        opener, joiner = world.client(), world.client()
        world.redis.foreign("RPUSH", "k", b"v" * 90_000)
        opener.send("LRANGE", "k", 0, -1)
        joiner.send("LRANGE", "k", 0, -1)
        joiner.send("LLEN", "k")
        world.settle()

        assert opener.replies() == [[b"v" * 90_000]]
        assert joiner.replies() == [[b"v" * 90_000], 1]
