"""Commands that must not overtake what is held in memory: those that end all data, whoever sends them; and MULTI."""

from __future__ import annotations

import pytest
import trio

from proxy.errors import UPSTREAM_UNAVAILABLE

from ..e2e.servers import Server
from .conftest import Serve
from .offline_parts import NIL, OK, Scene, scene, settings
from .peer import Peer, error, until


@pytest.fixture
async def made(redis: Server, serve: Serve, nursery: trio.Nursery) -> Scene:
    """Return a worker in front of a Redis that is there."""
    return await scene(redis, serve, nursery)


@pytest.mark.parametrize("flush", [("FLUSHALL",), ("FLUSHDB",)])
async def test_flush_of_another_does_not_leave_what_was_taken_before_it(
    redis: Server, made: Scene, flush: tuple[str, ...]
) -> None:
    """A user, whose memory holds nothing, ends all data: it waits until that of the others has been told."""
    alice = await made.proxy.connect()
    assert await alice.command("AUTH", "alice", "pw") == OK
    assert await alice.command("GET", "kept:1") == NIL
    await made.away()
    assert await made.client.command("SET", "kept:1", "v") == OK
    made.proxy.worker.reconciler.settling._next = lambda _place: None  # type: ignore[method-assign]
    made.door.reopen()
    await until(lambda: all(row["state"] == "up" for row in made.proxy.links("data")), "both links are there")
    await alice.send(*flush)
    await until(lambda: made.figures["waiting"] == 1, "it waits")
    del made.proxy.worker.reconciler.settling._next

    assert await alice.frame() == OK
    with redis.connect() as server:
        assert server.command("EXISTS", "kept:1") == b":0\r\n"


async def test_flush_does_not_wait_for_a_link_that_is_not_to_be_had(peer: Peer, serve: Serve) -> None:
    """Redis has no place for the links of a database, and serves those that stand."""
    proxy = await serve(peer, settings())
    client, other = await proxy.connect(), await proxy.connect()
    assert await client.command("SELECT", 5) == OK
    assert await client.command("SET", "kept:1", "v") == OK
    assert await other.command("PING") == b"+PONG\r\n"
    peer.on("PING", error("ERR max number of clients reached"))
    place = next(group for scope, group in proxy.worker.links.groups.items() if scope.db == 5)
    proxy.worker.reactor.enter()
    place.links[0].lose("cut")
    proxy.worker.reactor.flush()
    await until(lambda: proxy.worker.gate.is_shut, "no link is to be had")
    assert await client.command("SET", "kept:1", "w") == OK

    assert await other.command("FLUSHALL") == UPSTREAM_UNAVAILABLE


async def test_setting_that_may_help_redis_waits_for_nothing(redis: Server, made: Scene) -> None:
    """CONFIG SET maxmemory is what lets Redis hear of what is held."""
    await made.away()
    assert await made.client.command("SET", "kept:1", "v") == OK
    made.proxy.worker.reconciler.settling._next = lambda _place: None  # type: ignore[method-assign]
    made.door.reopen()
    await until(lambda: all(row["state"] == "up" for row in made.proxy.links("data")), "the link is there")

    assert await made.client.command("CONFIG", "SET", "maxmemory", "0") == OK
    del made.proxy.worker.reconciler.settling._next
    await made.back()


async def test_command_that_is_refused_in_a_transaction_refuses_it_all(redis: Server, made: Scene) -> None:
    """Redis will not hear of a key that is held: EXEC runs no part of what was meant to be one."""
    await made.away()
    await made.client.command("SET", "kept:1", "v")
    with redis.connect() as server:
        server.command("REPLICAOF", "127.0.0.1", "1")
        made.door.reopen()
        place = next(iter(made.proxy.worker.reconciler.memory.places.values()))
        await until(lambda: place.refused_rounds >= 4, "Redis has refused some times")
        assert await made.client.command("MULTI") == OK
        assert await made.client.command("APPEND", "kept:1", "w") == UPSTREAM_UNAVAILABLE
        assert await made.client.command("PING") == b"+QUEUED\r\n"
        assert (await made.client.command("EXEC")).startswith(b"-EXECABORT")
        server.command("REPLICAOF", "NO", "ONE")
        await made.back()
