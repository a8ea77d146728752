"""Making missing values anew: who is elected, who waits, and that nobody waits for nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Literal

import attrs
import pytest

from proxy.cache.entry import Flight, Scope
from proxy.cache.l1 import L1
from proxy.config.model import ClassSettings, Settings
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.policy import Policy
from proxy.core.recompute import PREFIX, Recompute
from proxy.wire.encode import bulk, command
from proxy.wire.reads import GET_READ

from .model_commands import COMMANDS, _set
from .model_redis import Connection, ModelRedis
from .world import World, make_settings, running_world

LEASE_S = 5.0
LEASE = (PREFIX + b"k").decode()


def set_nx(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    """SET as the model knows it, and with NX PX."""
    if len(words) == 6:
        if redis.look(connection.db, words[1]) is not None:
            return connection.nil
        return _set(redis, connection, [*words[:3], b"PX", words[5]])
    return _set(redis, connection, words)


def unlink(redis: ModelRedis, connection: Connection, words: list[bytes]) -> bytes:
    """UNLINK, as DEL."""
    return COMMANDS[b"DEL"](redis, connection, words)


def settings(mode: Literal["wait", "stale"] = "wait", lease_s: float = LEASE_S) -> Settings:
    """Return settings with a class whose missing values are made anew under a lease."""
    one = ClassSettings("k", ("k*",), recompute_lease_s=lease_s, while_recomputed=mode)
    made = make_settings()
    return attrs.evolve(made, classes=(one,), l1=attrs.evolve(made.l1, touch_rate=0))


def scripted(world: World) -> World:
    """Teach the model what leases need."""
    world.redis.commands = {**COMMANDS, b"SET": set_nx, b"UNLINK": unlink}
    return world


@pytest.fixture
def world() -> Iterator[World]:
    """Run a proxy and a model server that knows leases."""
    with running_world(settings()) as made:
        yield scripted(made)


def is_held_elsewhere(world: World) -> None:
    """Another sidecar makes the value."""
    world.redis.foreign("SET", LEASE, "another", "PX", 60_000)


def test_reader_after_an_own_write_does_not_wait_for_nothing(world: World) -> None:
    """`recomputed` takes a flight whose lease was revoked: what it found missing is older than the write."""
    slow, writer, late = world.client(), world.client(protocol=3), world.client()
    link = world.data_link()
    slow.send("GET", "k")
    world.execute(link)  # Redis says nil; that is on its way
    world.hold(link)
    assert writer.ask("SET", "k", "new") == b"OK"
    world.settle()  # its push has come, too
    world.release(link)
    assert slow.replies() in ([None], [b"new"])
    late.send("GET", "k")
    world.pass_time(LEASE_S + 1)

    assert late.replies() == [b"new"]  # it is told nil, though the writer had its OK before


@pytest.mark.parametrize("words", [("MGET", "k"), ("MGET", "k", "other"), ("EXISTS", "k", "other")])
def test_read_of_several_keys_ends_no_recompute(world: World, words: tuple[str, ...]) -> None:
    """`end_flight` calls `found` for a flight that found nothing when nobody joined it: a second maker is elected."""
    first = "GET" if words[0] == "MGET" else "EXISTS"
    maker, waiter, other = world.client(), world.client(), world.client()
    maker.send(first, "k")
    world.settle()
    assert maker.replies() in ([None], [0])
    waiter.send(first, "k")
    world.settle()
    assert waiter.replies() == []
    other.ask(*words)
    world.settle()

    assert waiter.replies() == []  # one of many


@pytest.mark.parametrize("words", [("MGET", "k"), ("EXISTS", "k", "other")])
def test_nothing_that_several_keys_read_found_is_not_held(world: World, words: tuple[str, ...]) -> None:
    """MGET's nil enters L1: every reader of the key is then told nothing from there, and all make it anew."""
    first = "GET" if words[0] == "MGET" else "EXISTS"
    other = world.client()
    other.ask(*words)
    clients = [world.client() for _ in range(4)]
    for client in clients:
        client.send(first, "k")
    world.settle()

    assert sum(bool(client.replies()) for client in clients) == 1


def test_lost_data_link_lets_the_waiting_go(world: World) -> None:
    """In redirect mode Redis forgets with a link what was to be pushed: `flush_namespace` must end recomputes, too."""
    is_held_elsewhere(world)
    waiter, late = world.client(), world.client()
    waiter.send("GET", "k")
    world.settle()
    assert waiter.replies() == []
    link = world.data_link()
    world.kill(link)
    world.notice(link)
    world.settle()
    world.redis.foreign("SET", "k", "made elsewhere")
    world.settle()
    late.send("GET", "k")
    world.settle()

    assert (waiter.replies(), late.replies()) == ([None], [b"made elsewhere"])


def test_value_pushed_while_l1_is_suspended_is_found(world: World) -> None:
    """`pushed` cannot read under a lease then, and the key is tracked no more: the recompute must end."""
    is_held_elsewhere(world)
    waiter, late = world.client(), world.client()
    waiter.send("GET", "k")
    world.settle()
    assert waiter.replies() == []
    engine = world.worker.engine
    engine.suspend()  # the invalidation link has been silent
    world.redis.foreign("SET", "k", "made elsewhere")
    world.settle()
    assert waiter.replies() == [b"made elsewhere"]
    world.worker.reactor.enter()
    engine.serve()  # and here is the PONG behind the push
    late.send("GET", "k")
    world.settle()

    assert late.replies() == [b"made elsewhere"]


def test_lease_of_a_maker_that_left_is_given_back(world: World) -> None:
    """All had left when SET NX was answered: the lease stays, and the next reader waits for nobody."""
    gone, late = world.client(), world.client()
    link = world.data_link()
    gone.send("GET", "k")
    world.execute(link)
    world.deliver(link)  # nil, PTTL; SET NX goes out
    gone.close()
    world.settle()
    late.send("GET", "k")
    world.settle()

    assert late.replies() == [None]


def test_lease_granted_after_its_recompute_ended_is_given_back(world: World) -> None:
    """A DEL of ours ends the recompute while SET NX is on its way: granted, it belongs to nobody."""
    reader, writer = world.client(), world.client(protocol=3)
    link = world.data_link()
    reader.send("GET", "k")
    world.execute(link)
    world.deliver(link)
    world.hold(link)
    writer.ask("DEL", "k")
    world.release(link)

    assert reader.replies() == [None]


def test_maker_that_looks_again_is_told_nothing_at_once(world: World) -> None:
    """Read, lock, read again, make: the second read must not wait for what its own client is to make."""
    maker = world.client()
    assert maker.ask("GET", "k") is None
    maker.send("GET", "k")
    world.settle()

    assert maker.replies() == [None]


def test_maker_that_pipelines_two_reads_is_told_nothing_twice(world: World) -> None:
    """Both replies are awaited before anything is made."""
    maker = world.client()
    maker.send_raw(command("GET", "k") + command("GET", "k"))
    world.settle()

    assert maker.replies() == [None, None]


def test_recomputes_are_bounded(world: World) -> None:
    """A crawler of keys that are not there: each is kept for the length of its lease, and looked at every tick."""
    client = world.client()
    for start in range(0, 20_000, 1000):
        client.send_raw(b"".join(command("GET", f"k{n}") for n in range(start, start + 1000)))
        world.settle()
    assert len(client.replies()) == 20_000

    assert len(world.worker.engine.recomputes._by_place) <= 16_384


def test_last_values_are_not_those_of_another_namespace() -> None:
    """`_last` is found by id(namespace): when that was swept, a new one may have its id, of any user or database."""
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    one = ClassSettings("k", ("k*",), recompute_lease_s=5.0, while_recomputed="stale")
    engine.policy = Policy((one,))
    engine.now = 100.0
    engine.serve()
    zero = engine.l1.namespace(Scope(b"alice", 0, 2))
    engine.l1.put(zero, bulk(b"k"), bulk(b"secret of alice"), 101.0, 100.0)
    engine.recomputes.remember(zero.resident[bulk(b"k")])
    engine.flush_namespace(zero)  # as DataLinks.sweep does
    engine.l1.forget_namespace(zero)
    place = id(zero)
    del zero
    gc.collect()
    leaked: object = None
    for number in range(1000):
        scope = Scope(b"mallory", number, 2)
        other = engine.l1.namespace(scope)
        if id(other) == place:
            flight = Flight(other, bulk(b"k"), None, 100.0, request=bulk(b"k"), read=GET_READ)
            rules = engine.policy.recompute(bulk(b"k"))
            assert rules is not None
            leaked = engine.recomputes._last_value(Recompute(flight, b"$-1\r\n", rules, 100.0))

    assert leaked is None


def test_last_values_are_bounded_in_bytes_with_their_keys() -> None:
    """`_size` counts replies, not keys and requests: those belong to clients and may be long."""
    engine = Engine(L1(1 << 28), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    engine.now = 100.0
    engine.serve()
    zero = engine.l1.namespace(Scope(b"", 0, 2))
    for number in range(2_000):
        key = bulk(b"k%d" % number + b"x" * 10_000)
        engine.l1.put(zero, key, b"$-1\r\n", 1e9, 100.0)
        engine.recomputes.remember(zero.resident[key])
    held = sum(len(key) for key in engine.recomputes._last)

    assert held <= 4 * 1024 * 1024


def test_every_waiter_is_answered_when_l1_goes_off(world: World) -> None:
    """`flush` refetches while L1 is still served; `recomputed` then begins anew though the lease was taken back."""
    is_held_elsewhere(world)
    waiter = world.client()
    waiter.send("GET", "k")
    world.settle()
    world.worker.reactor.enter()
    world.worker.apply(attrs.evolve(settings(), rollout=attrs.evolve(settings().rollout, mode="off")))
    world.worker.reactor.flush()
    world.settle()

    assert waiter.replies() == [None]


def test_every_waiter_is_answered_when_the_class_goes(world: World) -> None:
    """Holds."""
    is_held_elsewhere(world)
    waiter = world.client()
    waiter.send("GET", "k")
    world.settle()
    world.worker.reactor.enter()
    world.worker.apply(attrs.evolve(settings(), classes=()))
    world.worker.reactor.flush()
    world.settle()

    assert waiter.replies() == [None]


@pytest.mark.parametrize("end", ["FLUSHALL", "FLUSHDB", "foreign"])
def test_every_waiter_is_answered_after_a_flush(world: World, end: str) -> None:
    """Holds."""
    is_held_elsewhere(world)
    waiter, other = world.client(), world.client()
    waiter.send("GET", "k")
    waiter.send("GET", "other")
    world.settle()
    if end == "foreign":
        world.redis.foreign("FLUSHALL")
    else:
        other.ask(end)
    world.settle()

    assert waiter.replies() == [None, None]


def test_write_of_two_namespaces_at_once(world: World) -> None:
    """Holds."""
    is_held_elsewhere(world)
    clients = [world.client(), world.client(protocol=3), world.client()]
    for client in clients:
        client.send("GET", "k")
        client.send("STRLEN", "k")
    world.settle()
    writer = world.client()
    writer.ask("SET", "k", "v")
    world.settle()

    assert [client.replies() for client in clients] == [[b"v", 1]] * 3


def test_new_bound_of_a_class_holds_for_what_is_held(world: World) -> None:
    """Holds."""
    client = world.client()
    world.redis.foreign("SET", "z", "v")
    client.ask("GET", "z")
    tight = ClassSettings("z", ("z",), max_staleness_s=0.2)
    world.worker.reactor.enter()
    world.worker.apply(attrs.evolve(settings(), classes=(tight,)))
    assert not world.worker.engine.l1.namespaces[Scope(b"", 0, 2)].resident


def test_push_of_a_write_nobody_reads_the_reply_of_lets_the_waiting_go(world: World) -> None:
    """`drop_pushed` skips keys being written: after `linger` that is 5 s, in which the value is there."""
    is_held_elsewhere(world)
    waiter = world.client()
    waiter.send("GET", "k")
    world.settle()
    engine = world.worker.engine
    world.worker.reactor.enter()
    engine.linger([bulk(b"k")])  # CLIENT REPLY OFF, SET k
    world.redis.foreign("SET", "k", "made")
    world.settle()

    assert waiter.replies() == [b"made"]
