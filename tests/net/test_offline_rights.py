"""In whose name commands are taken and told, what Redis refuses, and what is lost in the end."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from proxy.config.model import ClassSettings
from proxy.core.outage.offline import settling
from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.events.event import Event
from proxy.events.sink import Failed
from proxy.net.events.event_sink import make_event_sink
from proxy.values.changes import set_fences
from proxy.values.dependencies import Dependents
from proxy.wire.encode import array, bulk

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client
from .offline_parts import KEPT, NIL, OK, OTHER, PLAIN, Scene, scene, settings
from .peer import Peer, error, until


@pytest.fixture
async def made(redis: Server, serve: Serve, nursery: trio.Nursery) -> Scene:
    """Return a worker in front of a Redis that is there."""
    return await scene(redis, serve, nursery)


async def logged_in(made: Scene, user: str) -> Client:
    """Connect as a user, whom Redis lets in."""
    client = await made.proxy.connect()
    assert await client.command("AUTH", user, "pw") == OK
    assert (await client.command("GET", "kept:x"))[:1] in b"$-"
    return client


async def test_users_do_not_read_what_others_wrote_here(made: Scene) -> None:
    """Nor do databases mix: each has its own memory, and Redis is told of each."""
    alice, bob = await logged_in(made, "alice"), await logged_in(made, "bob")
    second = await made.proxy.connect()
    assert await second.command("SELECT", 2) == OK
    assert await second.command("GET", "kept:x") == NIL
    await made.away()

    assert await alice.command("SET", "kept:1", "alice") == OK
    assert await bob.command("GET", "kept:1") == NIL
    assert await second.command("GET", "kept:1") == NIL
    assert await second.command("SET", "kept:1", "second") == OK
    await made.back()
    assert await bob.command("GET", "kept:1") == bulk(b"alice")
    assert await second.command("GET", "kept:1") == bulk(b"second")


async def test_user_whom_redis_never_let_in_is_not_served(redis: Server, made: Scene) -> None:
    """Nobody could say that it may."""
    client = await made.proxy.connect()
    made.proxy.worker.links.let_in.clear()
    await made.away()

    assert await client.command("SET", "kept:1", "v") == UPSTREAM_UNAVAILABLE
    assert await client.command("GET", "kept:1") == UPSTREAM_UNAVAILABLE
    assert made.figures["taken_total"] == {"read": 0, "write": 0}


async def test_database_that_redis_does_not_have_says_nothing_of_the_user(redis: Server, made: Scene) -> None:
    """An event that names one fails; who is let in elsewhere still is."""
    outcomes = await make_event_sink(made.proxy.worker).apply([Event(keys=(b"kept:1",), db=99)])
    assert isinstance(outcomes[0], Failed)
    assert "DB index is out of range" in outcomes[0].reason
    await made.away()

    assert await made.client.command("SET", "kept:1", "v") == OK
    await made.back()
    assert await made.client.command("GET", "kept:1") == bulk(b"v")


async def test_database_that_redis_has_no_more_holds_nobody_up(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came back with fewer: what is held for one of the others is given up in time, and no FLUSHALL waits for it."""
    proxy = await serve(peer, settings())
    client, other = await proxy.connect(), await proxy.connect()
    assert await other.command("PING") == b"+PONG\r\n"
    assert await client.command("SELECT", 5) == OK
    assert await client.command("SET", "kept:1", "v") == OK
    await peer.refuse()
    await until(lambda: proxy.worker.gate.is_shut, "Redis is away")
    assert await client.command("SET", "kept:1", "w") == OK
    peer.on("SELECT", error("ERR DB index is out of range"))
    peer.listen()
    await until(lambda: not proxy.worker.gate.is_shut, "Redis is back")

    assert await other.command("FLUSHALL") == OK
    assert proxy.stats()["offline"]["keys"] == 1
    monkeypatch.setattr(settling, "PATIENCE_S", 0.1)
    await until(lambda: not proxy.worker.reconciler.memory.places, "it is given up")
    assert proxy.stats()["offline"]["reconciled_total"]["lost"] == 1


@pytest.mark.parametrize(
    ("rights", "outcome", "left"),
    [
        ("~* &* +@all -eval", "deleted", b":0\r\n"),
        ("~* &* +@all -eval -unlink", "lost", b":1\r\n"),
        ("~mine:* &* +@all", "lost", b":1\r\n"),
    ],
)
async def test_redis_refuses_what_the_user_may_not(
    redis: Server, made: Scene, rights: str, outcome: str, left: bytes
) -> None:
    """Told in its own name: without the script the key is deleted, and without that nothing is done."""
    with redis.connect() as server:
        server.command("SET", "kept:1", "old")
        server.command("ACL", "SETUSER", "carol", "on", ">pw", *rights.split())
        carol = await logged_in(made, "carol")
        await made.away()
        await carol.command("SET", "kept:1", "new")
        await made.back()

        assert server.command("EXISTS", "kept:1") == left
        assert made.figures["reconciled_total"][outcome] == 1
        assert sum(b"EVAL" in piece and b"kept:1" in piece for piece in made.door.passed) == 1  # not tried again


async def test_user_who_is_let_in_no_more_is_given_up(
    redis: Server, made: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its password was changed meanwhile: after a while what it wrote is lost, and counted."""
    monkeypatch.setattr(settling, "PATIENCE_S", 0.2)
    alice = await logged_in(made, "alice")
    await made.away()
    await alice.command("MSET", "kept:1", "v", "kept:2", "v")
    with redis.connect() as server:
        server.command("ACL", "SETUSER", "alice", "resetpass", ">other")
    await made.back()

    assert made.figures["reconciled_total"]["lost"] == 2
    assert await made.client.command("EXISTS", "kept:1", "kept:2") == b":0\r\n"


async def test_redis_without_memory_deletes_what_it_cannot_take(redis: Server, made: Scene) -> None:
    """After some attempts the old value goes at least."""
    with redis.connect() as server:
        server.command("SET", "kept:1", "old")
        await made.away()
        await made.client.command("SET", "kept:1", "new")
        server.command("CONFIG", "SET", "maxmemory", "1", "maxmemory-policy", "noeviction")
        await made.back()

        assert server.command("EXISTS", "kept:1") == b":0\r\n"
        assert made.figures["reconciled_total"] == {"written": 0, "older": 0, "deleted": 1, "lost": 0}


async def test_redis_that_cannot_now_is_told_later(redis: Server, made: Scene) -> None:
    """It is a replica for a while: nothing is given up, and the keys are read here."""
    with redis.connect() as server:
        await made.away()
        await made.client.command("SET", "kept:1", "new")
        server.command("REPLICAOF", "127.0.0.1", "1")
        server.command("CONFIG", "SET", "replica-serve-stale-data", "yes")
        made.door.reopen()
        place = next(iter(made.proxy.worker.reconciler.memory.places.values()))
        await until(lambda: place.refused_rounds >= 4, "Redis has refused some times")
        assert await made.client.command("GET", "kept:1") == bulk(b"new")
        assert await made.client.command("GETRANGE", "kept:1", 0, 1) == UPSTREAM_UNAVAILABLE
        server.command("REPLICAOF", "NO", "ONE")
        await made.back()

    assert await made.client.command("GETRANGE", "kept:1", 0, 1) == bulk(b"ne")
    assert made.figures["reconciled_total"]["written"] == 1


async def test_redis_that_waits_for_its_replicas_is_waited_for(
    redis: Server, made: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are slower to be back than it is: nothing is given up."""
    monkeypatch.setattr(settling, "RETRY_MAX_S", 0.02)
    monkeypatch.setattr(settling, "FIRST_RETRY_S", 0.02)
    with redis.connect() as server:
        await made.away()
        await made.client.command("SET", "kept:1", "new")
        server.command("CONFIG", "SET", "min-replicas-to-write", "1")
        made.door.reopen()
        place = next(iter(made.proxy.worker.reconciler.memory.places.values()))
        await until(lambda: place.refused_rounds > 2 * settling.REFUSALS_MAX, "Redis has refused often")
        server.command("CONFIG", "SET", "min-replicas-to-write", "0")
        await made.back()

        assert made.figures["reconciled_total"] == {"written": 1, "older": 0, "deleted": 0, "lost": 0}


async def test_class_that_is_offline_no_more_is_told_all_the_same(redis: Server, made: Scene) -> None:
    """What was taken before the reload is read here until then; nothing new is taken."""
    with redis.connect() as server:
        server.command("SET", "kept:1", "old")
    await made.away()
    await made.client.command("SET", "kept:1", "new")
    made.proxy.worker.reactor.enter()
    made.proxy.worker.apply(settings(attrs.evolve(KEPT, offline="fail"), attrs.evolve(PLAIN, offline="fail")))
    made.proxy.worker.reactor.flush()

    assert await made.client.command("GET", "kept:1") == bulk(b"new")
    assert await made.client.command("APPEND", "kept:1", "er") == b":5\r\n"
    assert await made.client.command("SET", "kept:2", "v") == UPSTREAM_UNAVAILABLE
    await made.back()
    assert await made.client.command("GET", "kept:1") == bulk(b"newer")


@pytest.mark.parametrize("is_back", [True, False])
async def test_drain_waits_for_redis_and_counts_what_is_lost(made: Scene, is_back: bool) -> None:
    """Redis comes back in time, or the log says how many keys it never heard of."""
    await made.away()
    await made.client.command("MSET", "kept:1", "v", "plain:1", "v")
    made.client.close()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.proxy.worker.drain, 5.0 if is_back else 0.3)
        if is_back:
            await trio.sleep(0.05)
            made.door.reopen()

    told = [made.figures["reconciled_total"][how] for how in ("written", "older", "deleted", "lost")]
    assert told == ([1, 0, 1, 0] if is_back else [0, 0, 0, 2])
    assert made.figures["keys"] == 0


async def test_dependents_of_what_was_taken_are_not_served_stale(
    redis: Server, serve: Serve, nursery: trio.Nursery
) -> None:
    """Key, glob and tag: who has been told that the write is done reads nothing that it made wrong."""
    names = ("list:{1}", "view:{1}:*", "tag:queue-{1}")
    parts = ClassSettings("parts", ("part:*",), version=True, offline="memory", invalidates=names)
    lists = ClassSettings("lists", ("list:*", "view:*"), version=True, stale_if_error_s=30.0)
    items = ClassSettings("items", ("item:*",), version=True, tags=("queue-{1}",), stale_if_error_s=30.0)
    made = await scene(redis, serve, nursery, settings(parts, lists, items))
    client, keys = made.client, ("list:1", "view:1:a", "item:1", "list:2")
    for key in keys:
        await client.command("SET", key, "old")
        for _ in range(3):
            await client.command("GET", key)
    await made.away()
    assert [await client.command("GET", key) for key in keys] == [bulk(b"old")] * 4
    assert await client.command("SET", "part:1", "new") == OK

    assert [await client.command("GET", key) for key in keys] == [*[UPSTREAM_UNAVAILABLE] * 3, bulk(b"old")]


async def test_dependents_are_dropped_and_the_change_is_announced(
    redis: Server, serve: Serve, nursery: trio.Nursery
) -> None:
    """What a write makes wrong besides its key goes when Redis is told of it; who listens to changes hears of it."""
    parts = ClassSettings("parts", ("part:*",), version=True, offline="memory", invalidates=("list:{1}",))
    made = await scene(redis, serve, nursery, settings(parts, OTHER, amqp={"publish_changes": True}))
    with redis.connect() as server:
        server.command("SET", "list:1", "stale")
        await made.away()
        await made.client.command("SET", "part:1", "v")
        await made.back()

        await until(lambda: server.command("EXISTS", "list:1") == b":0\r\n", "the list is dropped")
        assert made.proxy.worker.value_layer.notices.counts.coarse == 1


async def test_what_is_held_and_becomes_wrong_is_not_told(redis: Server, made: Scene) -> None:
    """By an event that is not older, by an invalidation, by a fence that another has set: it is missing in the end."""
    worker = made.proxy.worker
    with redis.connect() as server:
        server.command("SET", "kept:fenced", "old")
        server.command("SET", "kept:dropped", "old")
        await made.away()
        for name in ("event", "older", "dropped", "fenced"):
            await made.client.command("SET", f"kept:{name}", "v")
        version = worker.reconciler.memory.holds(b"", 0, b"kept:event").version  # type: ignore[union-attr]
        worker.engine.outage.invalidated(0, [(b"kept:event", version), (b"kept:older", version)])
        worker.invalidate(Dependents((b"kept:dropped",)), 0, lambda _: None)
        server.send(set_fences(0, [b"kept:fenc*"], [], worker.value_layer.clock.next()))
        assert server.frame()[:1] == b"$"

        assert await made.client.command("GET", "kept:event") == NIL
        assert await made.client.command("GET", "kept:dropped") == NIL
        await made.back()
        for name in ("event", "dropped", "fenced"):
            assert server.command("EXISTS", f"kept:{name}") == b":0\r\n", name
        assert server.command("EXISTS", "kept:older") == b":1\r\n"


async def test_event_makes_wrong_what_is_held(redis: Server, made: Scene) -> None:
    """It fails, as Redis is away, and comes again later; here its keys are missing from then on."""
    await made.away()
    await made.client.command("MSET", "kept:1", "v", "plain:1", "v", "kept:2", "v")
    outcomes = await make_event_sink(made.proxy.worker).apply([Event(keys=(b"kept:1", b"plain:1"))])

    assert isinstance(outcomes[0], Failed)
    assert await made.client.command("MGET", "kept:1", "plain:1", "kept:2") == array([NIL, NIL, bulk(b"v")])
    await made.back()
    assert await made.client.command("EXISTS", "kept:1", "kept:2") == b":1\r\n"


async def test_figures_and_explain_tell_of_it(made: Scene) -> None:
    """How much is held, of what, and what became of it."""
    await made.away()
    await made.client.command("SET", "kept:1", "v", "EX", 100)
    await made.client.command("INCR", "kept:1")
    explained: Any = made.proxy.worker.explain(b"kept:1")
    metrics = {family.name: family for family in made.proxy.worker.families()}

    (row,) = explained["offline"]
    assert (row["user"], row["db"], row["is_deleted"], row["is_guessed"], row["changes"]) == ("", 0, False, False, 1)
    assert 98 < row["ends_in_s"] <= 100
    assert [event["event"] for event in explained["events"]].count("taken in memory") == 1
    assert made.figures["keys"] == 1
    assert metrics["respite_offline_keys"].samples[0].value == 1
    assert metrics["respite_offline_bytes"].samples[0].value == made.figures["bytes"] > 0
    assert [one.value for one in metrics["respite_offline_taken"].samples] == [0, 2]  # reads, writes
    assert {one.labels["outcome"] for one in metrics["respite_offline_reconciled"].samples} == {
        *("written", "older", "deleted", "lost")
    }
