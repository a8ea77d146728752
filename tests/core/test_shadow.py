"""Shadow mode: every client gets Redis' own reply, whatever L1 holds; L1 is filled and compared all the same."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest

from proxy.cache.entry import Entry
from proxy.config.model import Settings
from proxy.wire.encode import bulk, command

from .world import ScriptedClient, World, make_settings, running_world

LARGE = 150_000
Words = tuple[str, ...]

READS: tuple[tuple[Words, Words, Words], ...] = (
    # the read, what makes its key, what changes it
    (("GET", "k"), ("SET", "k", "old"), ("SET", "k", "newer")),
    (("STRLEN", "k"), ("SET", "k", "old"), ("SET", "k", "newer")),
    (("LRANGE", "k", "0", "-1"), ("RPUSH", "k", "old"), ("RPUSH", "k", "newer")),
    (("HGETALL", "k"), ("HSET", "k", "f", "old"), ("HSET", "k", "f", "newer")),
    (("EXISTS", "k"), ("SET", "k", "old"), ("DEL", "k")),
    (("GET", "k"), ("DEL", "k"), ("SET", "k", "now")),
)
NAMES = [words[0] + ("-missing" if made[0] == "DEL" else "") for words, made, _ in READS]


def shadowed(*, max_value_bytes: int = 100_000) -> Settings:
    """Return settings for shadow mode."""
    settings = make_settings(max_value_bytes=max_value_bytes)
    return attrs.evolve(settings, rollout=attrs.evolve(settings.rollout, mode="shadow"))


@pytest.fixture
def world() -> Iterator[World]:
    """Make a world in shadow mode."""
    with running_world(shadowed()) as made:
        yield made


def held(client: ScriptedClient, *words: str) -> Entry | None:
    """Return what L1 holds for a read in the place of a client."""
    namespace = client.connection.shadow
    assert namespace is not None
    if words[0] == "GET":
        return namespace.resident.get(bulk(words[1].encode()))
    return namespace.replies.get(command(*words))


def counts(world: World) -> tuple[int, ...]:
    """Return hits, misses, verified, stale and healed."""
    stats = world.worker.stats
    return (stats.hits, stats.misses, stats.verified, stats.stale, stats.healed)


def counted(world: World, before: tuple[int, ...]) -> tuple[int, ...]:
    """Return what was counted since."""
    return tuple(now - then for now, then in zip(counts(world), before, strict=True))


def plant(world: World, *change: str) -> None:
    """Change a key so that nobody hears of it: what L1 holds of it stays, and is wrong."""
    for connection in world.redis.connections.values():
        connection.tracked.discard(change[1].encode())
    world.redis.foreign(*change)
    world.settle()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize(("read", "made", "changed"), READS, ids=NAMES)
def test_read_in_shadow_fills_then_compares_and_always_asks_redis(
    world: World, protocol: int, read: Words, made: Words, changed: Words
) -> None:
    """The first is a miss and fills, the next are hits that are compared; Redis executes each of them."""
    client = world.client(protocol=protocol)
    world.redis.foreign(*made)
    before, asked = counts(world), world.redis.executed(read[0])
    replies = [client.ask(*read) for _ in range(3)]

    assert replies == [replies[0]] * 3
    assert world.redis.executed(read[0]) - asked == 3
    assert counted(world, before) == (2, 1, 2, 0, 0)
    entry = held(client, *read)
    assert entry is not None
    assert entry.uses == 3


@pytest.mark.parametrize(("read", "made", "changed"), READS, ids=NAMES)
def test_read_in_shadow_of_what_is_stale_gets_redis_reply_and_heals(
    world: World, read: Words, made: Words, changed: Words
) -> None:
    """No push came: the client reads what Redis holds now, the difference counts, and the entry goes."""
    client = world.client()
    world.redis.foreign(*made)
    old = client.ask(*read)
    plant(world, *changed)
    assert held(client, *read) is not None
    before = counts(world)
    new = client.ask(*read)

    assert new != old
    assert counted(world, before) == (1, 0, 1, 1, 1)
    assert held(client, *read) is None
    assert client.ask(*read) == new
    assert held(client, *read) is not None


def test_read_in_shadow_that_a_push_is_on_its_way_for_is_stale_and_not_healed(world: World) -> None:
    """The push comes behind the reply, before the fence: L1 was late, not wrong for good."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    world.hold(world.control)
    world.redis.foreign("SET", "k", "new")
    before = counts(world)
    assert client.ask("GET", "k") == b"new"
    world.release(world.control)

    assert counted(world, before) == (1, 0, 1, 1, 0)
    assert world.worker.stats.staleness.count == 1


def test_mget_in_shadow_is_compared_key_by_key(world: World) -> None:
    """Each key that L1 holds is a hit and is compared with its own value; the stale one heals, the others stay."""
    client = world.client()
    world.redis.foreign("MSET", "a", "1", "b", "2", "c", "3")
    for key in ("a", "b", "c", "none"):
        client.ask("GET", key)
    plant(world, "SET", "b", "changed")
    before, asked = counts(world), world.redis.executed("MGET")

    assert client.ask("MGET", "none", "a", "b", "c", "unread") == [None, b"1", b"changed", b"3", None]
    assert world.redis.executed("MGET") - asked == 1
    assert counted(world, before) == (4, 1, 4, 1, 1)
    assert [held(client, "GET", key) is not None for key in ("none", "a", "b", "c")] == [True, True, False, True]


def test_mget_in_shadow_that_fails_compares_nothing(world: World) -> None:
    """A lost link: the client hears so, L1 is flushed with the link, and nothing was judged."""
    client = world.client()
    world.redis.foreign("SET", "a", "1")
    client.ask("GET", "a")
    before = counts(world)
    client.send("MGET", "a", "b")
    link = world.data_link()
    world.kill(link)
    world.notice(link)
    world.settle()

    assert [str(reply) for reply in client.replies()] == ["ERR respite: upstream unavailable"]
    assert counted(world, before)[2:] == (0, 0, 0)


def test_read_of_several_keys_in_shadow_is_redis_own(world: World) -> None:
    """What would have been put together from L1 is asked as it came; what L1 lacks is read once more, to fill it."""
    client = world.client()
    world.redis.foreign("MSET", "a", "1", "b", "2")
    assert [client.ask("EXISTS", key) for key in ("a", "none")] == [1, 0]
    plant(world, "DEL", "a")
    asked = world.redis.executed("EXISTS")

    assert client.ask("EXISTS", "b", "a", "none") == 1
    assert world.redis.executed("EXISTS") - asked == 2
    assert held(client, "EXISTS", "b") is not None
    assert held(client, "EXISTS", "b", "a", "none") is None, "kept under one of its keys"


def test_read_in_shadow_of_what_is_too_large_streams_and_is_not_kept(world: World) -> None:
    """The client is sent a large reply as it comes; L1 does not take it."""
    client = world.client()
    value = b"v" * LARGE
    world.redis.foreign("SET", "k", value)
    client.send("GET", "k")
    world.execute()
    world.deliver(world.data_link(), LARGE - 20_000)
    assert len(client.received) > LARGE // 2
    world.settle()

    assert client.replies() == [value]
    assert held(client, "GET", "k") is None


def test_mget_in_shadow_of_what_is_too_large_streams(world: World) -> None:
    """Though L1 holds one of its keys."""
    client = world.client()
    value = b"v" * LARGE
    world.redis.foreign("MSET", "small", "1", "k", value)
    client.ask("GET", "small")
    client.send("MGET", "small", "k")
    world.execute()
    world.deliver(world.data_link(), LARGE - 20_000)
    assert len(client.received) > LARGE // 2
    world.settle()

    assert client.replies() == [[b"1", value]]


def test_mget_in_shadow_of_what_l1_would_have_joined_is_compared_whole(world: World) -> None:
    """Large enough to be streamed, small enough for L1: it is kept until it is whole, and compared."""
    client = world.client()
    value = b"v" * 80_000
    world.redis.foreign("MSET", "small", "1", "k", value)
    client.ask("GET", "small")
    plant(world, "SET", "small", "2")
    before = counts(world)
    client.send("MGET", "k", "small")
    world.execute()
    world.deliver(world.data_link(), 70_000)
    assert client.received == b""
    world.settle()

    assert client.replies() == [[value, b"2"]]
    assert counted(world, before) == (1, 1, 1, 1, 1)


def test_pipeline_in_shadow_keeps_its_order(world: World) -> None:
    """Reads, writes and errors between them come back as Redis gave them."""
    client = world.client()
    client.send_raw(
        command("SET", "k", "1")
        + command("GET", "k")
        + command("SET", "k", "22")
        + command("STRLEN", "k")
        + command("MGET", "k", "none")
        + command("LLEN", "k")
        + command("GET", "k")
    )
    world.settle()
    replies = client.replies()

    assert replies[:5] + replies[6:] == [b"OK", b"1", b"OK", 2, [b"22", None], b"22"]
    assert str(replies[5]).startswith("WRONGTYPE")


@pytest.mark.parametrize("read", [("GET", "k"), ("STRLEN", "k")])
def test_own_write_in_shadow_takes_back_what_was_read_before(world: World, read: Words) -> None:
    """The lease rules hold as they do when L1 is served: what it is filled with is never older than the write."""
    reader, writer = world.client(), world.client(protocol=3)
    world.redis.foreign("SET", "k", "old")
    world.hold(world.data_link())
    reader.send(*read)
    world.settle()
    writer.ask("SET", "k", "newer")
    world.hold(world.control)
    world.release(world.data_link())

    assert held(reader, *read) is None
    before = counts(world)
    reader.replies()
    reader.ask(*read)
    reader.ask(*read)
    assert counted(world, before)[3] == 0


@pytest.mark.parametrize("read", [("GET", "k"), ("STRLEN", "k")])
def test_read_in_shadow_of_a_key_that_is_being_written_is_not_kept(world: World, read: Words) -> None:
    """On another link it may have overtaken the write: it is answered, and fills nothing."""
    reader, writer = world.client(), world.client(protocol=3)
    world.redis.foreign("SET", "k", "old")
    writer.send("SET", "k", "newer")
    reader.send(*read)
    namespace = reader.connection.shadow
    assert namespace is not None
    assert not namespace.flights
    world.settle()

    assert reader.replies() in ([b"newer"], [5], [b"old"], [3])
    assert held(reader, *read) is None


def test_reads_in_shadow_while_l1_is_not_served_are_forwarded(world: World) -> None:
    """The invalidation link is silent: nothing is held, compared or filled, and every read is answered."""
    client = world.client()
    world.redis.foreign("SET", "k", "v")
    client.ask("GET", "k")
    world.worker.engine.suspend()
    before = counts(world)

    assert [client.ask("GET", "k"), client.ask("MGET", "k"), client.ask("STRLEN", "k")] == [b"v", [b"v"], 1]
    assert counted(world, before) == (0, 3, 0, 0, 0)


@pytest.mark.parametrize("read", [("GET", "k"), ("STRLEN", "k")])
def test_entry_in_shadow_that_has_ended_is_filled_anew(world: World, read: Words) -> None:
    """Past its deadline it is no hit."""
    client = world.client()
    world.redis.foreign("SET", "k", "v", "PX", 100)
    client.ask(*read)
    world.now += 0.15
    before = counts(world)

    assert client.ask(*read) in (None, 0)
    assert counted(world, before) == (0, 1, 0, 0, 0)


def test_stale_entry_whose_new_value_streams_is_noticed(world: World) -> None:
    """The new value is so much larger that it goes to the client as it arrives: a difference, and the entry goes."""
    client = world.client()
    world.redis.foreign("SET", "k", "old")
    client.ask("GET", "k")
    plant(world, "SET", "k", "v" * 90_000)
    before = counts(world)
    client.send("GET", "k")
    world.execute()
    world.deliver(world.data_link(), 70_000)
    world.settle()

    assert client.replies() == [b"v" * 90_000]
    assert counted(world, before) == (1, 0, 1, 1, 1)
    assert held(client, "GET", "k") is None


@pytest.mark.parametrize("read", [("MGET", "a", "b"), ("EXISTS", "a", "b")])
def test_read_of_several_keys_in_shadow_fills_each_and_counts_as_if_served(world: World, read: Words) -> None:
    """Two keys are two misses, then two hits a read, each of them compared."""
    client = world.client()
    world.redis.foreign("MSET", "a", "1", "b", "2")
    before = counts(world)
    replies = [client.ask(*read) for _ in range(3)]

    assert replies == [replies[0]] * 3
    assert counted(world, before) == (4, 2, 4, 0, 0)
