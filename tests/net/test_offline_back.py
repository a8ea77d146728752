"""Redis is back and must be told: what clients see meanwhile, and what becomes of it when it goes away again."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from proxy.errors import UPSTREAM_LOST, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE
from proxy.values.envelope import wrap
from proxy.wire.encode import array, bulk, command

from ..e2e.servers import Server
from .conftest import Serve
from .offline_parts import NIL, OK, Scene, scene, settings
from .peer import Peer, until

TELLING = b"PX', ARGV[7]"
"""What only the script has in it that Redis is told with."""


@pytest.fixture
async def made(redis: Server, serve: Serve, nursery: trio.Nursery) -> Scene:
    """Return a worker in front of a Redis that is there."""
    return await scene(redis, serve, nursery)


async def being_told(made: Scene) -> None:
    """Let Redis come back and hear of what is held; its replies do not come yet."""
    made.door.mute_at = TELLING
    made.door.reopen()
    await until(lambda: made.door.is_mute, "Redis is being told")


async def test_held_keys_are_read_here_until_redis_has_been_told(redis: Server, made: Scene) -> None:
    """Redis has an old value; nobody sees it, not even while the new one is on its way."""
    with redis.connect() as server:
        server.command("SET", "kept:1", "old")
    await made.away()
    await made.client.command("SET", "kept:1", "new")
    await being_told(made)
    other = await made.proxy.connect()

    assert await made.client.command("GET", "kept:1") == bulk(b"new")
    assert await other.command("GET", "kept:1") == bulk(b"new")
    await made.door.release()
    await made.back()
    assert await other.command("GET", "kept:1") == bulk(b"new")


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        (("GETRANGE", "kept:1", "1", "2"), bulk(b"ew")),  # not one of those that are answered in memory
        (("APPEND", "kept:1", "!"), b":4\r\n"),  # would change what is being told
        (("MGET", "kept:1", "kept:2"), array([bulk(b"new"), bulk(b"theirs")])),  # of one of them Redis knows more
        (("EVAL", "return redis.call('GET', KEYS[1])", "1", "kept:1"), bulk(b"new")),
        (("DBSIZE",), b":2\r\n"),
        (("WATCH", "kept:1"), OK),
        (("FLUSHALL",), OK),
    ],
)
async def test_command_that_needs_redis_waits_until_it_has_been_told(
    redis: Server, made: Scene, words: tuple[str, ...], reply: bytes
) -> None:
    """It finds what was taken in memory."""
    with redis.connect() as server:
        server.command("SET", "kept:2", "theirs")
        await made.away()
        await made.client.command("SET", "kept:1", "new")
        await being_told(made)
        await made.client.send(*words)
        await made.client.send("PING")
        await until(lambda: made.figures["waiting"] == 1, "it waits")

        await made.door.release()
        assert await made.client.frames(2) == [reply, b"+PONG\r\n"]
        await made.back()
        assert server.command("EXISTS", "kept:1") == (b":0\r\n" if words == ("FLUSHALL",) else b":1\r\n")


async def test_waiting_command_gets_an_error_when_redis_goes_away_again(made: Scene) -> None:
    """It is not left waiting for ever; the keys are still held, and told the next time."""
    await made.away()
    await made.client.command("SET", "kept:1", "new")
    await being_told(made)
    await made.client.send("GETRANGE", "kept:1", "0", "0")
    await until(lambda: made.figures["waiting"] == 1, "it waits")
    made.door.shut()

    assert (await made.client.frame()).startswith(b"-ERR respite: upstream unavailable")
    assert await made.client.command("GET", "kept:1") == bulk(b"new")
    await made.back()
    assert await made.client.command("GETRANGE", "kept:1", "0", "0") == bulk(b"n")


async def test_redis_lost_while_it_is_told_hears_all_of_it_again(redis: Server, made: Scene) -> None:
    """What it may have heard is neither lost nor done twice: not even a counter that goes on meanwhile."""
    for key, value in (("kept:n", "10"), ("kept:t", "text")):
        await made.client.command("SET", key, value)
        await made.client.command("GET", key)
        await made.client.command("GET", key)
    await until(lambda: made.proxy.stats()["l1"]["entries"] == 2, "both are in L1")
    await made.away()
    await made.client.command("INCR", "kept:n")
    await made.client.command("APPEND", "kept:t", "+")
    await made.client.command("SET", "plain:1", "v")
    await being_told(made)
    await until(lambda: _holds(redis, "kept:n", b"11"), "Redis has done it")
    made.door.shut()
    await until(lambda: all(group.failures for group in made.proxy.worker.links.groups.values()), "it is away again")
    assert await made.client.command("INCR", "kept:n") == b":12\r\n"
    assert await made.client.command("APPEND", "kept:t", "+") == b":6\r\n"
    await made.back()

    assert await made.client.command("MGET", "kept:n", "kept:t", "plain:1") == array(
        [bulk(b"12"), bulk(b"text++"), NIL]
    )
    assert made.figures["reconciled_total"] == {"written": 2, "older": 0, "deleted": 1, "lost": 0}


def _holds(redis: Server, key: str, value: bytes) -> bool:
    with redis.connect() as server:
        return server.command("GET", key) == bulk(value)


async def test_write_whose_link_died_is_taken_where_it_may_be_repeated(redis: Server, made: Scene) -> None:
    """Its outcome is unknown: a SET is done again here, an INCR is not."""
    with redis.connect() as server:
        server.command("SET", "kept:n", "1")
    others = [await made.proxy.connect() for _ in range(4)]
    for client in others:
        await client.command("PING")
    made.door.is_mute = True
    await others[0].send("SET", "kept:1", "v")
    await others[1].send("INCR", "kept:n")
    await others[2].send("SET", "kept:2", "v", "NX")
    await others[3].send("HSET", "plain:h", "f", "v")
    with redis.connect() as server:
        await until(
            lambda: (
                server.command("EXISTS", "kept:1", "kept:2", "plain:h") == b":3\r\n"
                and server.command("GET", "kept:n") == bulk(b"2")
            ),
            "all of it has arrived",
        )
    made.door.shut()

    assert await others[0].frame() == OK
    assert await others[1].frame() == UPSTREAM_LOST
    assert await others[2].frame() == UPSTREAM_LOST
    assert await others[3].frame() == b":1\r\n"
    await made.back()
    assert await made.client.command("MGET", "kept:1", "kept:n", "kept:2") == array(
        [bulk(b"v"), bulk(b"2"), bulk(b"v")]
    )
    assert await made.client.command("EXISTS", "plain:h") == b":0\r\n"


async def test_write_whose_reply_broke_off_is_not_done_again(peer: Peer, serve: Serve) -> None:
    """Redis has done it: its old value was on the way. Nobody waits for it, so there is nobody to be cut off either."""
    proxy = await serve(peer, settings())
    client = await proxy.connect()
    assert await client.command("PING") == b"+PONG\r\n"
    peer.on("SET", b"$9000000\r\n" + b"v" * 3_000_000)
    await client.send("CLIENT", "REPLY", "OFF")
    await client.send("SET", "plain:1", "new", "GET")
    await client.send("SET", "plain:2", "new")
    await until(lambda: peer.seen("SET"), "it has arrived")
    await trio.sleep(0.1)
    await peer.refuse()
    memory = proxy.worker.engine.outage.memory

    assert memory is not None
    await until(lambda: memory.has(b"plain:2"), "what may be repeated is taken")
    assert not memory.has(b"plain:1")


@pytest.mark.parametrize("words", [("DUMP", "plain:1"), ("SRANDMEMBER", "plain:1", "2")])
async def test_read_whose_link_died_is_asked_again_where_memory_has_no_answer(
    peer: Peer, serve: Serve, words: tuple[str, ...]
) -> None:
    """A class with a fallback is no worse off than one without: the next link answers."""
    proxy = await serve(peer, settings())
    client = await proxy.connect()
    await client.command("PING")
    peer.close_on(words[0])
    await client.send(*words)
    await until(lambda: peer.seen(words[0]), "it has arrived")
    peer.on(words[0], b"$2\r\nok\r\n")

    assert await client.frame() == b"$2\r\nok\r\n"
    assert len(peer.seen(words[0])) == 2


async def test_client_without_classes_does_not_overtake_what_redis_is_told(redis: Server, made: Scene) -> None:
    """With rollout.percent there are both kinds: what it writes comes later, and stays."""
    before = set(made.proxy.worker.clients)
    other = await made.proxy.connect()
    assert await other.command("PING") == b"+PONG\r\n"
    (connected,) = set(made.proxy.worker.clients) - before
    connected.classed = False
    await made.away()
    assert await made.client.command("SET", "kept:1", "mine") == OK
    assert await other.command("SET", "kept:1", "later") == UPSTREAM_UNAVAILABLE
    made.proxy.worker.reconciler.settling._next = lambda place: None  # type: ignore[method-assign]
    made.door.reopen()
    await until(lambda: all(row["state"] == "up" for row in made.proxy.links("data")), "the link is there")
    await other.send("SET", "kept:1", "later")
    await until(lambda: made.figures["waiting"] == 1, "it waits")
    del made.proxy.worker.reconciler.settling._next

    assert await other.frame() == OK
    assert await other.command("GET", "kept:1") == bulk(b"later")


@pytest.mark.parametrize("words", [("EXPIRE", "kept:1", 100), ("APPEND", "kept:1", "+"), ("SET", "kept:1", "v", "XX")])
async def test_what_another_wrote_right_after_the_link_was_lost_stays(
    redis: Server, made: Scene, words: tuple[str | int, ...]
) -> None:
    """Ours was made from what was there before; its version alone does not tell the two from each other."""
    assert await made.client.command("SET", "kept:1", "base") == OK
    assert await made.client.command("GET", "kept:1") == bulk(b"base")
    await made.away()
    theirs = wrap(b"theirs", made.proxy.worker.value_layer.clock.next())
    with redis.connect() as server:
        server.command("SET", "kept:1", theirs)
    assert await made.client.command(*words) != NIL
    await made.back()

    assert await made.client.command("GET", "kept:1") == bulk(b"theirs")
    assert made.figures["reconciled_total"] == {"written": 0, "older": 1, "deleted": 0, "lost": 0}


async def test_client_with_a_link_of_its_own_does_not_wait_for_a_frozen_redis(
    redis: Server, serve: Serve, nursery: trio.Nursery
) -> None:
    """Its link stands while those of the others are lost; what is held it cannot have, and it is told so."""
    made = await scene(redis, serve, nursery, settings(upstream={"response_timeout_s": 0.3}))
    assert await made.client.command("WATCH", "kept:9") == OK
    other = await made.proxy.connect()
    redis.pause()
    assert await other.command("SET", "kept:1", "v") == OK
    await until(lambda: made.proxy.worker.gate.is_shut, "Redis is away")
    with trio.move_on_after(2):
        reply = await made.client.command("GET", "kept:1")
    redis.resume()

    assert reply == UPSTREAM_UNAVAILABLE
    await made.back()
    assert await made.client.command("GET", "kept:1") == bulk(b"v")


async def test_frozen_redis_is_one_that_is_away(redis: Server, serve: Serve, nursery: trio.Nursery) -> None:
    """What it does not answer in time is answered here: writes that may be repeated, and reads."""
    made = await scene(redis, serve, nursery, settings(upstream={"response_timeout_s": 0.3}))
    others = [made.client, *[await made.proxy.connect() for _ in range(2)]]
    redis.pause()
    for client, words in zip(others, (("GET", "kept:1"), ("SET", "kept:2", "v"), ("INCR", "kept:3")), strict=True):
        await client.send(*words)
    replies = [await client.frame() for client in others]
    redis.resume()

    assert replies == [NIL, OK, UPSTREAM_TIMED_OUT]
    await made.back()


@pytest.mark.parametrize("is_pinned", [False, True])
async def test_what_was_asked_on_a_lost_link_is_not_done_after_what_redis_is_told(
    redis: Server, serve: Serve, nursery: trio.Nursery, *, is_pinned: bool
) -> None:
    """It waits somewhere on its way, or in a Redis that was frozen, and would undo what was written since."""
    made = await scene(redis, serve, nursery, settings(upstream={"response_timeout_s": 0.3}))
    if is_pinned:
        assert await made.client.command("CLIENT", "TRACKING", "ON") == OK
    other = await made.proxy.connect()  # a client whose own link is lost is closed
    made.door.is_late = True
    await made.client.send("SET", "kept:1", "first")
    assert await made.client.frame() == OK
    assert any(b"kept:1" in data for _, data in made.door.late)
    made.door.is_late = False
    assert await other.command("SET", "kept:1", "second") == OK
    await made.back()
    await made.door.release()

    await trio.sleep(0.05)
    assert await other.command("GET", "kept:1") == bulk(b"second")
    with redis.connect() as server:
        assert b"second" in server.command("GET", "kept:1")


async def test_links_to_a_server_that_is_no_more_are_not_looked_for_at_its_successor(
    redis: Server, made: Scene
) -> None:
    """There their numbers are those of others."""
    redis.pause()
    await made.client.send("SET", "kept:1", "v")
    await until(lambda: any(b"kept:1" in piece for piece in made.door.passed), "it is on its way")
    redis.kill()
    assert await made.client.frame() == OK
    redis.start()
    await made.back()

    with redis.connect() as server:
        assert server.command("EXISTS", "kept:1") == b":1\r\n"
        assert b"client|kill" not in server.command("INFO", "commandstats")


async def test_read_whose_link_alone_died_is_read_from_redis(redis: Server, made: Scene) -> None:
    """Redis is there, and knows more than the memory: the value, not nil."""
    with redis.connect() as server:
        server.command("SET", "kept:1", "v")
    made.door.is_mute = True
    await made.client.send("GET", "kept:1")
    await until(lambda: any(b"kept:1" in piece for piece in made.door.passed), "it is on its way")
    made.door.cut()

    assert await made.client.frame() == bulk(b"v")


async def test_thousands_of_keys_are_told_while_clients_read_them(redis: Server, made: Scene) -> None:
    """No reader ever sees what Redis held, and all is told, in batches."""
    count = 600
    with redis.connect() as server:
        for at in range(count):
            server.send(b"".join([b"*3\r\n$3\r\nSET\r\n", bulk(b"kept:%d" % at), bulk(b"old")]))
        for _ in range(count):
            server.frame()
    await made.away()
    pairs: list[Any] = [word for at in range(count) for word in (f"kept:{at}", "new")]
    assert await made.client.command("MSET", *pairs) == OK
    made.door.reopen()
    seen: set[bytes] = set()
    at = 0
    while made.proxy.worker.reconciler.memory.places:
        seen.add(await made.client.command("GET", f"kept:{at % count}"))
        at += 7

    assert seen == {bulk(b"new")}
    assert made.figures["reconciled_total"]["written"] == count
    values = await made.client.command("MGET", *[f"kept:{at}" for at in range(count)])
    assert values == array([bulk(b"new")] * count)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_clients_of_the_class_see_no_error_while_redis_dies_and_comes_back(
    redis: Server, serve: Serve, nursery: trio.Nursery, protocol: int
) -> None:
    """Killed twice in the middle of traffic: every reply is one that Redis might have given."""
    proxy = await serve(redis, settings())
    errors: list[bytes] = []
    counted = [0]
    is_over = False

    async def use(number: int) -> None:
        client = await proxy.connect()
        await client.command("HELLO", protocol)
        at = 0
        while not is_over:
            at += 1
            key = f"{'kept' if number % 2 else 'plain'}:{number}:{at % 5}"
            await client.send_raw(
                command("SET", key, at) + command("GET", key) + command("HSET", key + "h", "f", at)
                + command("HGET", key + "h", "f") + command("MGET", key, key) + command("DEL", key)
                + command("GET", key)
            )  # fmt: skip
            replies = await client.frames(7)
            counted[0] += 7
            errors.extend(reply for reply in replies if reply[:1] == b"-")
            if redis.process is not None and replies[1] not in (bulk(b"%d" % at), NIL, b"_\r\n"):
                errors.append(replies[1])

    async with trio.open_nursery() as users:
        for number in range(4):
            users.start_soon(use, number)
        await until(lambda: counted[0] > 100, "traffic")
        for _ in range(2):
            redis.kill()
            before = counted[0]
            await until(lambda: counted[0] > before + 200, "traffic without Redis")  # noqa: B023
            redis.start()
            await until(lambda: not proxy.worker.reconciler.memory.places, "Redis was told")
            before = counted[0]
            await until(lambda: counted[0] > before + 200, "traffic with Redis")  # noqa: B023
        is_over = True
    assert errors == []
    assert proxy.stats()["offline"]["taken_total"]["write"] > 100
