"""Reads of several keys: put together from L1, from leased reads and from reads for one client, in order, once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import attrs
import pytest

from proxy.core.gather import GatherSlot, PartSlot, joined
from proxy.core.reads import KEYS_MAX
from proxy.core.slots import Failure
from proxy.wire.encode import bulk, command
from proxy.wire.reads import CachedRead

from .scripted_slots import ScriptedClient
from .world import World, make_settings, running_world

WHOLE = b"the whole command"
SUM = CachedRead(join="sum")
LIST = CachedRead(join="list")


@pytest.fixture
def world() -> Iterator[World]:
    """Make a world."""
    with running_world() as made:
        yield made


@pytest.mark.parametrize(
    ("read", "parts", "expected"),
    [
        (SUM, [b":1\r\n", b":0\r\n", b":12\r\n"], b":13\r\n"),
        (SUM, [b":0\r\n"], b":0\r\n"),
        (LIST, [b"*1\r\n$1\r\na\r\n", b"*1\r\n$-1\r\n"], b"*2\r\n$1\r\na\r\n$-1\r\n"),
        (LIST, [b"*1\r\n*2\r\n:1\r\n:2\r\n", b"*1\r\n_\r\n"], b"*2\r\n*2\r\n:1\r\n:2\r\n_\r\n"),
        (LIST, [b"*1\r\n$4\r\na\r\nb\r\n"], b"*1\r\n$4\r\na\r\nb\r\n"),
        (SUM, [b":1\r\n", b"-ERR a\r\n", b"-ERR b\r\n"], b"-ERR a\r\n"),
        (LIST, [b"*1\r\n$1\r\na\r\n", b"!5\r\nERR a\r\n"], b"!5\r\nERR a\r\n"),
    ],
)
def test_joined_is_what_redis_would_have_said(read: CachedRead, parts: list[bytes], expected: bytes) -> None:
    """Numbers are added, elements follow each other, the first error is the whole."""
    assert joined(read, parts) == expected


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_gather_answers_when_the_last_part_is_in_whatever_the_order(order: tuple[int, ...]) -> None:
    """The parts stand in the order of the keys, not in that of their arrival; what L1 had is in its place."""
    client = ScriptedClient()
    slot = GatherSlot(client, LIST, [None, b"*1\r\n+l1\r\n", None, None], WHOLE)
    client.owe(slot)
    parts = [PartSlot(slot, at) for at in (0, 2, 3)]
    for number, place in enumerate(order):
        assert client.received == b""
        parts[place].land(b"*1\r\n:%d\r\n" % place)
        assert number < 2 or client.received

    assert client.received == b"*4\r\n:0\r\n+l1\r\n:1\r\n:2\r\n"
    assert not client.queue


@pytest.mark.parametrize("failed", [0, 1])
@pytest.mark.parametrize("asks_again", [False, True])
def test_gather_of_a_part_that_is_lost_is_asked_again_once(failed: int, asks_again: bool) -> None:
    """As a whole; where that cannot be, the error is the reply. The other part is of no use, whenever it comes."""
    client = ScriptedClient()
    client.asks_again = asks_again
    slot = GatherSlot(client, SUM, [None, None], WHOLE)
    client.owe(slot)
    parts = [PartSlot(slot, at) for at in range(2)]
    if failed:
        parts[0].land(b":1\r\n")
    parts[failed].fail(Failure.LOST)
    if not failed:
        parts[1].fail(Failure.LOST)

    assert client.asked == [WHOLE] * asks_again
    assert client.received == (b"" if asks_again else b"-ERR respite: upstream unavailable\r\n")
    if asks_again:
        slot.again(b":2\r\n")
        assert client.received == b":2\r\n"
    assert not client.queue


def test_gather_of_a_part_that_is_refused_waits_for_the_others_and_answers_once() -> None:
    """The error of the part is the reply, and only when the other has come: its link owes that yet."""
    client = ScriptedClient()
    slot = GatherSlot(client, SUM, [None, None], WHOLE)
    client.owe(slot)
    parts = [PartSlot(slot, at) for at in range(2)]
    parts[0].land(b"-NOPERM no\r\n")
    assert client.queue
    parts[1].land(b":1\r\n")

    assert client.received == b"-NOPERM no\r\n"


def test_gather_of_a_part_that_is_filled_twice_still_waits_for_the_others() -> None:
    """A part counts once: its first word stands."""
    client = ScriptedClient()
    slot = GatherSlot(client, SUM, [None, None], WHOLE)
    client.owe(slot)
    slot.put(0, b":1\r\n")
    slot.put(0, b":5\r\n")
    assert client.received == b""
    slot.put(1, b":1\r\n")

    assert client.received == b":2\r\n"


def test_gather_behind_another_reply_waits_for_its_turn() -> None:
    """Parts that are in early do not overtake what the client asked for before."""
    client = ScriptedClient()
    before, slot = Earlier(client), GatherSlot(client, SUM, [None], WHOLE)
    client.owe(slot)
    PartSlot(slot, 0).land(b":1\r\n")
    assert client.received == b""
    before.end()

    assert client.received == b"+first\r\n:1\r\n"


class Earlier:
    """A reply that is owed first."""

    def __init__(self, client: ScriptedClient) -> None:
        self._slot = GatherSlot(client, LIST, [None], WHOLE)
        client.owe(self._slot)

    def end(self) -> None:
        """Let it come."""
        self._slot.fill(b"+first\r\n")


# -- through the whole worker ----------------------------------------------------------------------------------------


def test_exists_of_several_asks_only_for_what_is_not_held(world: World) -> None:
    """A known key is a hit and is not asked about; the others are read under leases, and known from then on."""
    client = world.client()
    world.redis.foreign("MSET", "a", 1, "b", 2)
    assert client.ask("EXISTS", "a") == 1
    stats = world.worker.stats
    before = (world.redis.executed("EXISTS"), stats.hits, stats.misses)

    assert client.ask("EXISTS", "a", "b", "none") == 2
    assert (world.redis.executed("EXISTS") - before[0], stats.hits - before[1], stats.misses - before[2]) == (2, 1, 2)
    assert client.ask("EXISTS", "none", "b", "a") == 2
    assert (world.redis.executed("EXISTS") - before[0], stats.hits - before[1]) == (2, 4)


def test_exists_of_one_key_several_times_counts_it_each_time(world: World) -> None:
    """A key named twice counts twice, as in Redis; one lease is opened for it, and it is published once."""
    client = world.client()
    world.redis.foreign("SET", "a", 1)
    published = world.worker.stats.published

    assert client.ask("EXISTS", "a", "a", "b", "a") == 3
    assert world.worker.stats.published - published == 2
    assert client.ask("EXISTS", "a", "a", "b", "a") == 3
    assert client.connection.namespace is not None
    assert (client.connection.namespace.flights, client.connection.namespace.pending) == ({}, {})


@pytest.mark.parametrize("mode", ["on", "shadow"])
def test_reads_of_very_many_keys_are_left_to_redis(mode: Literal["on", "shadow"]) -> None:
    """One command, and no lease: to see to each key would hold up all clients."""
    settings = make_settings()
    with running_world(attrs.evolve(settings, rollout=attrs.evolve(settings.rollout, mode=mode))) as world:
        client = world.client()
        names = [f"k{at}" for at in range(KEYS_MAX)]
        world.redis.foreign("MSET", "k0", 1, "k9", 2)
        assert client.ask("GET", "k0") == b"1"
        published = world.worker.stats.published

        assert client.ask("EXISTS", *names) == 2
        assert client.ask("MGET", *names)[:10] == [b"1", *[None] * 8, b"2"]
        assert (world.redis.executed("EXISTS"), world.redis.executed("MGET")) == (1, 1)
        assert world.worker.stats.published == published


def test_exists_of_several_keeps_its_place_in_the_pipeline(world: World) -> None:
    """Replies come in the order of the commands, whichever of them L1 knows."""
    client = world.client()
    world.redis.foreign("MSET", "a", 1, "b", 2)
    client.ask("GET", "a")
    client.send_raw(
        command("EXISTS", "a", "b") + command("GET", "a") + command("DEL", "a") + command("EXISTS", "a", "b")
    )
    world.settle()

    assert client.replies() == [2, b"1", 1, 1]


@pytest.mark.parametrize("after", [0, 1, 3])
def test_exists_of_several_on_a_link_that_is_lost_is_asked_again(world: World, after: int) -> None:
    """However many parts have come before the link dies: it is asked again as a whole, as a read of one key is."""
    client = world.client()
    world.redis.foreign("MSET", "a", 1, "b", 2, "c", 3)
    client.send("EXISTS", "a", "b", "c")
    client.send("GET", "a")
    link = world.data_link()
    world.execute(link, after)
    world.kill(link)
    world.notice(link)
    world.settle()

    assert [str(reply) for reply in client.replies()] == ["3", "b'1'"]
    assert all(not n.flights and not n.pending for n in world.worker.engine.l1.namespaces.values())
    assert client.ask("EXISTS", "a", "b", "c") == 3


def test_exists_of_several_for_a_client_that_has_gone_fills_l1_all_the_same(world: World) -> None:
    """The parts land, nobody is answered, and what was read is known to the next."""
    client, other = world.client(), world.client()
    world.redis.foreign("MSET", "a", 1, "b", 2)
    client.send("EXISTS", "a", "b")
    client.close()
    world.settle()
    asked = world.redis.executed("EXISTS")

    assert client.replies() == []
    assert other.ask("EXISTS", "b", "a") == 2
    assert world.redis.executed("EXISTS") == asked


@pytest.mark.parametrize("how", ["OFF", "SKIP"])
def test_exists_of_several_for_a_muted_client_says_nothing(world: World, how: str) -> None:
    """CLIENT REPLY OFF or SKIP: no reply, and none of a later command is lost."""
    client = world.client()
    world.redis.foreign("MSET", "a", 1, "b", 2)
    client.send("CLIENT", "REPLY", how)
    client.send("EXISTS", "a", "b")
    if how == "OFF":
        client.send("CLIENT", "REPLY", "ON")
    client.send("GET", "a")
    world.settle()

    assert client.replies() == ([b"OK"] if how == "OFF" else []) + [b"1"]


def test_exists_of_several_while_one_is_written_reads_that_for_itself(world: World) -> None:
    """A key with a write in flight is read without a lease; the others fill L1."""
    writer, reader = world.client(), world.client()
    world.redis.foreign("MSET", "a", 1, "b", 2)
    writer.send("DEL", "a")
    reader.send("EXISTS", "a", "b")
    world.execute()
    namespace = reader.connection.namespace
    assert namespace is not None
    assert set(namespace.pending) == {bulk(b"b")}
    world.settle()

    assert (writer.replies(), reader.replies()) == ([1], [1])
    assert set(namespace.heads) & {bulk(b"a"), bulk(b"b")} == {bulk(b"b")}


def test_exists_of_several_revoked_by_a_push_is_answered_and_not_kept(world: World) -> None:
    """A change pushed between the read and its landing takes the part's lease back."""
    client = world.client()
    world.redis.foreign("MSET", "a", 1, "b", 2)
    world.hold(world.data_link())
    client.send("EXISTS", "a", "b")
    world.settle()
    world.redis.foreign("DEL", "a")
    world.settle()
    world.release(world.data_link())

    assert client.replies() == [2]
    assert client.ask("EXISTS", "a", "b") == 1
