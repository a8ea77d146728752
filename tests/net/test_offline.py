"""Commands of a class with `offline = "memory"`, with a real Redis that goes away and comes back."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from proxy.config.model import parse_endpoint
from proxy.core.outage.offline.store import NO_ROOM
from proxy.errors import UPSTREAM_OVERLOADED, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE
from proxy.wire.encode import array, bulk, command

from ..e2e.servers import Server
from .conftest import Serve
from .offline_parts import NIL, OK, Scene, scene, settings
from .peer import Peer, error, until

LAG_S = 0.2
"""Versions are of the server's time, which each proxy knows up to what a reply took: on a busy machine, some while."""


@pytest.fixture
async def away(redis: Server, serve: Serve, nursery: trio.Nursery) -> Scene:
    """Return a worker for which Redis has just gone away."""
    made = await scene(redis, serve, nursery)
    await made.away()
    return made


async def test_commands_of_the_class_are_answered_while_redis_is_away(away: Scene) -> None:
    """Written here, read here; keys of other classes get the usual error."""
    client = away.client

    assert await client.command("SET", "kept:1", "v", "EX", 100) == OK
    assert await client.command("GET", "kept:1") == bulk(b"v")
    assert await client.command("GET", "kept:unknown") == NIL
    assert await client.command("TTL", "kept:1") in (b":100\r\n", b":99\r\n", b":98\r\n", b":97\r\n")
    assert await client.command("INCRBY", "plain:n", 5) == b":5\r\n"
    assert await client.command("APPEND", "kept:1", "w") == b":2\r\n"
    assert await client.command("HSET", "plain:h", "f", "1", "g", "2") == b":2\r\n"
    assert await client.command("MGET", "kept:1", "plain:n", "kept:none") == array([bulk(b"vw"), bulk(b"5"), NIL])
    assert await client.command("DEL", "kept:1", "plain:none") == b":1\r\n"
    assert await client.command("SET", "other:1", "v") == UPSTREAM_UNAVAILABLE
    assert await client.command("MGET", "kept:1", "other:1") == UPSTREAM_UNAVAILABLE
    assert await client.command("LPUSH", "kept:list", "v") == UPSTREAM_UNAVAILABLE
    assert away.figures["taken_total"] == {"read": 4, "write": 5}


async def test_redis_is_told_of_values_with_versions(redis: Server, away: Scene) -> None:
    """They are there once it is back, sealed, with their TTL; numbers as INCR takes them."""
    client = away.client
    await client.command("SET", "kept:1", "v", "EX", 100)
    await client.command("SET", "kept:n", "41")
    await client.command("INCR", "kept:n")
    await away.back()

    assert await client.command("GET", "kept:1") == bulk(b"v")
    assert int((await client.command("TTL", "kept:1"))[1:]) > 90
    with redis.connect() as server:
        assert server.command("GET", "kept:n") == bulk(b"42")
        assert server.command("TTL", "kept:n") == b":-1\r\n"
    assert away.figures["reconciled_total"] == {"written": 2, "older": 0, "deleted": 0, "lost": 0}
    assert away.figures["keys"] == away.figures["bytes"] == 0


async def test_value_that_redis_got_meanwhile_wins_if_it_is_newer(redis: Server, serve: Serve, nursery: Any) -> None:
    """Another proxy has written after us: ours is dropped. Before us: ours stands."""
    made = await scene(redis, serve, nursery)
    others = await serve(redis, settings())
    other = await others.connect()
    await made.away()
    await other.command("SET", "kept:a", "theirs, before")
    lag_ms = abs(made.proxy.worker.value_layer.clock.now_ms() - others.worker.value_layer.clock.now_ms())
    lag_s = LAG_S + lag_ms / 1000  # as far as it took each of them to hear the time of the server
    await trio.sleep(lag_s)
    await made.client.command("SET", "kept:a", "ours")
    await made.client.command("SET", "kept:b", "ours")
    await made.client.command("DEL", "kept:c")
    await trio.sleep(lag_s)
    await other.command("SET", "kept:b", "theirs, after")
    await other.command("SET", "kept:c", "theirs, after")
    await made.back()

    assert await other.command("MGET", "kept:a", "kept:b", "kept:c") == array(
        [bulk(b"ours"), bulk(b"theirs, after"), bulk(b"theirs, after")]
    )
    assert made.figures["reconciled_total"] == {"written": 1, "older": 2, "deleted": 0, "lost": 0}


async def test_keys_without_versions_are_deleted_when_redis_is_back(redis: Server, away: Scene) -> None:
    """Whatever was there, and whatever was taken: nobody reads a mix of both."""
    with redis.connect() as server:
        server.command("SET", "plain:1", "old")
        server.command("HSET", "plain:h", "f", "old")
        server.command("HSET", "kept:h", "f", "old")
    await away.client.command("SET", "plain:1", "new")
    await away.client.command("HSET", "plain:h", "g", "new")
    await away.client.command("HSET", "kept:h", "g", "new")
    await away.client.command("DEL", "plain:gone")
    await away.back()

    with redis.connect() as server:
        assert server.command("EXISTS", "plain:1", "plain:h", "kept:h", "plain:gone") == b":0\r\n"
    assert away.figures["reconciled_total"] == {"written": 0, "older": 0, "deleted": 4, "lost": 0}


async def test_what_l1_knew_is_gone_on_from(redis: Server, serve: Serve, nursery: Any) -> None:
    """A counter counts on from what was known; in Redis it is replaced only if it is still what it was."""
    made = await scene(redis, serve, nursery)
    client = made.client
    for key in ("kept:n", "kept:m", "kept:text"):
        await client.command("SET", key, "10")
    await client.command("EXPIRE", "kept:n", 1000)
    await client.command("HSET", "kept:h", "f", "1")
    for _ in range(2):
        await client.command("MGET", "kept:n", "kept:m", "kept:text")
        await client.command("HGETALL", "kept:h")
    await until(lambda: made.proxy.stats()["l1"]["entries"] == 4, "all are in L1")
    await made.away()

    assert await client.command("INCR", "kept:n") == b":11\r\n"
    assert await client.command("INCR", "kept:m") == b":11\r\n"
    assert await client.command("HINCRBY", "kept:h", "f", 1) == b":2\r\n"
    assert await client.command("GET", "kept:text") == bulk(b"10")
    assert await client.command("TTL", "kept:n") == UPSTREAM_UNAVAILABLE  # only Redis knows
    with redis.connect() as server:
        server.command("INCRBY", "kept:m", 100)
    await made.back()
    with redis.connect() as server:
        assert server.command("MGET", "kept:n", "kept:m", "kept:text") == array([bulk(b"11"), NIL, bulk(b"10")])
        assert int(server.command("TTL", "kept:n")[1:]) > 990
    assert made.figures["reconciled_total"] == {"written": 1, "older": 0, "deleted": 2, "lost": 0}


async def test_counter_that_was_not_known_counts_from_nothing_and_is_deleted(redis: Server, away: Scene) -> None:
    """What Redis holds of it would be wrong afterwards, and so would be what was counted here."""
    with redis.connect() as server:
        server.command("SET", "kept:n", "10")

    assert await away.client.command("INCR", "kept:n") == b":1\r\n"
    await away.back()
    assert await away.client.command("GET", "kept:n") == NIL


async def test_no_room_is_a_clear_error_and_changes_nothing(redis: Server, serve: Serve, nursery: Any) -> None:
    """What was there stays readable; deleting it makes room."""
    made = await scene(redis, serve, nursery, settings(outage={"memory_bytes": 4096}))
    await made.away()
    client = made.client
    assert await client.command("SET", "kept:1", b"x" * 2000) == OK

    assert await client.command("SET", "kept:2", b"x" * 2000) == NO_ROOM
    assert await client.command("MSET", "kept:1", "s", "kept:2", b"x" * 4000) == NO_ROOM
    assert await client.command("GET", "kept:2") == NIL
    assert await client.command("STRLEN", "kept:1") == b":2000\r\n"
    assert made.figures["refused_total"] == 2
    assert await client.command("DEL", "kept:1") == b":1\r\n"
    assert await client.command("SET", "kept:2", b"x" * 2000) == OK


async def test_redis_that_has_too_much_to_do_is_not_away(peer: Peer, serve: Serve) -> None:
    """What it holds is not guessed: no counter goes on from nothing, and none is deleted afterwards."""
    proxy = await serve(peer, settings(upstream={"max_waiting": 4, "response_timeout_s": 4.0}))
    client, busy = await proxy.connect(), await proxy.connect()
    assert await client.command("SET", "kept:n", "41") == OK
    peer.stop("data")
    for number in range(8):
        await busy.send("LLEN", f"list:{number}")
    (group,) = proxy.worker.links.groups.values()
    await until(lambda: group.links[0].full, "too many wait")

    for words in (("GET", "kept:n"), ("INCR", "kept:n"), ("SET", "kept:1", "v")):
        assert await client.command(*words) == UPSTREAM_OVERLOADED
    peer.go_on("data")
    await until(lambda: group.links[0].open, "there is room again")
    assert await client.command("GET", "kept:n") == bulk(b"41")
    assert proxy.stats()["offline"]["taken_total"] == {"read": 0, "write": 0}


async def test_redis_that_loads_has_commands_taken_that_need_a_link_of_their_own(peer: Peer, serve: Serve) -> None:
    """There is none to be had for what must see a value without its envelope; memory has it as it was written."""
    proxy = await serve(peer, settings())
    client = await proxy.connect()
    assert await client.command("PING") == b"+PONG\r\n"
    peer.on("PING", error("LOADING Redis is loading"))
    peer.kill()
    await until(lambda: proxy.worker.gate.is_shut, "Redis is away")

    assert await client.command("STRLEN", "kept:1") == b":0\r\n"
    assert await client.command("SET", "kept:1", "v") == OK
    assert await client.command("GET", "kept:2") == NIL
    assert await client.command("STRLEN", "other:1") == error("LOADING Redis is loading")
    assert proxy.stats()["commands"]["errors_total"] == 1


async def test_write_that_redis_may_have_done_is_not_said_to_have_no_room(
    redis: Server, serve: Serve, nursery: trio.Nursery
) -> None:
    """It was sent, so nobody can say that nothing came of it."""
    made = await scene(
        redis, serve, nursery, settings(outage={"memory_bytes": 1024}, upstream={"response_timeout_s": 0.3})
    )
    redis.pause()
    await made.client.send("SET", "kept:1", b"x" * 4000)
    reply = await made.client.frame()
    redis.resume()

    assert reply == UPSTREAM_TIMED_OUT


async def test_protocol_3_gets_its_own_shapes(away: Scene) -> None:
    """Maps and nils as RESP3 has them, of the same keys."""
    await away.client.command("HSET", "plain:h", "f", "v")
    away.door.reopen()
    third = await away.proxy.connect()
    await until(lambda: not away.proxy.worker.reconciler.memory.places, "Redis was told")
    assert (await third.command("HELLO", 3)).startswith(b"%")
    assert await third.command("GET", "kept:x") == b"_\r\n"
    await away.away()

    await away.client.command("HSET", "plain:h", "f", "v")
    assert await third.command("HGETALL", "plain:h") == b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n"
    assert await third.command("GET", "kept:y") == b"_\r\n"


async def test_key_that_is_taken_is_served_from_l1_no_more(redis: Server, serve: Serve, nursery: Any) -> None:
    """Only the links of one protocol are away: clients of the other read what was written here, not their L1."""
    made = await scene(redis, serve, nursery)
    await made.client.command("SET", "kept:1", "old")
    third = await made.proxy.connect()
    await third.command("HELLO", 3)
    for _ in range(3):
        assert await third.command("GET", "kept:1") == bulk(b"old")
    assert made.proxy.stats()["l1"]["hits_total"] > 0
    groups = made.proxy.worker.links.groups
    second = next(group for scope, group in groups.items() if scope.protocol == 2)
    made.proxy.worker.links.upstream = attrs.evolve(
        made.proxy.worker.links.upstream, endpoint=parse_endpoint("redis://127.0.0.1:1")
    )
    made.proxy.worker.reactor.enter()
    second.links[0].lose("test")
    made.proxy.worker.reactor.flush()
    await until(lambda: second.failures > 0, "the links of the second protocol fail")
    made.proxy.worker.reconciler.settling.tick = lambda now: None  # type: ignore[method-assign]

    assert await made.client.command("SET", "kept:1", "new") == OK
    assert await third.command("GET", "kept:1") == bulk(b"new")


async def test_transaction_is_not_taken_in_memory(away: Scene) -> None:
    """MULTI needs Redis: it gets an error, and what follows it is not run by itself."""
    assert await away.client.command("MULTI") == UPSTREAM_UNAVAILABLE
    other = await away.proxy.connect()
    await other.send_raw(command("MULTI") + command("SET", "kept:1", "v") + command("EXEC"))

    assert await other.until_closed() == UPSTREAM_UNAVAILABLE
    assert await away.client.command("GET", "kept:1") == NIL


async def test_muted_client_gets_no_reply_of_what_is_taken(away: Scene) -> None:
    """CLIENT REPLY SKIP holds here, too."""
    await away.client.send_raw(
        command("CLIENT", "REPLY", "SKIP") + command("SET", "kept:1", "v") + command("GET", "kept:1")
    )

    assert await away.client.frame() == bulk(b"v")
