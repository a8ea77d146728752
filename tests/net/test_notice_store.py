"""The outbox in front of a real Redis: what enters it with a write, what the relay reads, and who may not."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio

from proxy.config.endpoint import parse_amqp_url
from proxy.config.model import ClassSettings
from proxy.errors import RemoteError
from proxy.events.notices import Batch, Entry
from proxy.net.events.notice_store import RedisNoticeStore
from proxy.values import outbox
from proxy.wire.encode import OK, array, bulk

from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import Proxy, make_settings
from .test_event_sink import put

CLASSES = (ClassSettings("docs", ("doc:*",), version=True), ClassSettings("lists", ("list:*",)))
SLOW_TO_LOAD = ("key-load-delay 1000", "loading-process-events-interval-bytes 1024")
BROKER = {"publish_changes": True, "urls": (parse_amqp_url("amqp://127.0.0.1:9"),)}


async def announcing(redis: Server, serve: Serve, **sections: Any) -> tuple[Proxy, RedisNoticeStore]:
    """Start a proxy that announces; return it and its store."""
    proxy = await serve(redis, attrs.evolve(make_settings(amqp=BROKER, **sections), classes=CLASSES))
    return proxy, proxy.worker.value_layer.notice_store


async def read(store: RedisNoticeStore) -> list[Entry]:
    """Return what is in the outbox, once it may be read."""
    await trio.sleep(2 * outbox.GRACE_MS / 1000)
    return list((await store.read(1000)).entries)


def keys_of(entries: list[Entry]) -> list[tuple[int, str, list[str]]]:
    """Return (database, topic, keys) of entries."""
    return [(entry.db, entry.topic, json.loads(entry.body)["keys"]) for entry in entries]


async def test_write_leaves_a_notice_in_its_database(redis: Server, serve: Serve) -> None:
    """In whatever database: all are read, in the order of time."""
    proxy, store = await announcing(redis, serve)
    client = await proxy.connect()
    await client.command("SET", "doc:1", "text")
    await client.command("SELECT", 5)
    await client.command("DEL", "list:1")
    await client.command("LPUSH", "list:2", "x")
    await client.command("SET", "other", "x")

    assert keys_of(await read(store)) == [(0, "docs", ["doc:1"]), (5, "lists", ["list:2"])]


async def test_version_is_the_one_the_value_got(redis: Server, serve: Serve) -> None:
    """What RESPITE VERSION says."""
    proxy, store = await announcing(redis, serve)
    client = await proxy.connect()
    await client.command("SET", "doc:1", "text")
    (entry,) = await read(store)

    assert b":%d\r\n" % json.loads(entry.body)["version"] == await client.command("RESPITE", "VERSION", "doc:1")


@pytest.mark.parametrize("protocol", [2, 3])
async def test_transaction_and_script_are_announced(redis: Server, serve: Serve, protocol: int) -> None:
    """The client's replies are its own; a transaction that is discarded announces nothing."""
    proxy, store = await announcing(redis, serve)
    client = await proxy.connect()
    await client.command("HELLO", protocol)
    for words in (("MULTI",), ("SET", "doc:1", "a"), ("GET", "doc:1"), ("SET", "no", "b")):
        await client.command(*words)
    assert await client.command("EXEC") == array([OK, bulk(b"a"), OK])
    assert await client.command("EVAL", "return redis.call('SET', KEYS[1], 'x')", 1, "list:1") == OK
    for words in (("MULTI",), ("SET", "doc:2", "a"), ("DISCARD",)):
        await client.command(*words)
    assert await client.command("APPEND", "doc:1", "b") == b":2\r\n"

    assert keys_of(await read(store)) == [(0, "docs", ["doc:1"]), (0, "lists", ["list:1"]), (0, "docs", ["doc:1"])]


async def test_pipeline_keeps_its_order(redis: Server, serve: Serve) -> None:
    """Writes that are announced and others, reads between them."""
    proxy, _ = await announcing(redis, serve)
    client = await proxy.connect()
    for number in range(50):
        await client.send("SET", "doc:1", f"v{number}")
        await client.send("GET", "doc:1")
        await client.send("SET", "other", number)
    replies = [await client.frame() for _ in range(150)]

    assert replies == [one for number in range(50) for one in (OK, bulk(b"v%d" % number), OK)]


async def test_blocking_pop_is_announced_before_its_reply(redis: Server, serve: Serve) -> None:
    """One that runs out of time is not."""
    proxy, store = await announcing(redis, serve)
    client, other = await proxy.connect(), await proxy.connect()
    assert await client.command("BLPOP", "list:1", "0.05") == b"*-1\r\n"
    await client.send("BLPOP", "list:1", 5)
    await trio.sleep(0.1)
    await other.command("RPUSH", "list:1", "x")
    assert await client.frame() == array([bulk(b"list:1"), bulk(b"x")])

    assert keys_of(await read(store)) == [(0, "lists", ["list:1"])] * 2


async def test_group_read_that_blocks_holds_nobody_up(redis: Server, serve: Serve) -> None:
    """It has a link of its own, also where its class does more than wrap values; what it got is announced."""
    timed = attrs.evolve(CLASSES[1], ttl_s=100.0, adaptive_ttl="on")
    proxy = await serve(redis, attrs.evolve(make_settings(amqp=BROKER), classes=(timed,)))
    client, other = await proxy.connect(), await proxy.connect()
    put(redis, "XGROUP", "CREATE", "list:1", "g", "$", "MKSTREAM")
    await client.send("XREADGROUP", "GROUP", "g", "c", "BLOCK", 5000, "STREAMS", "list:1", ">")
    await trio.sleep(0.1)
    with trio.fail_after(2.0):
        assert await other.command("SET", "x", "1") == OK
        await other.command("XADD", "list:1", "*", "f", "v")
    assert (await client.frame())[:1] == b"*"

    assert keys_of(await read(proxy.worker.value_layer.notice_store)) == [(0, "lists", ["list:1"])] * 2


async def test_write_that_redis_refuses_leaves_no_notice(redis: Server, serve: Serve) -> None:
    """Nor one that changed nothing; the client has Redis' own words."""
    proxy, store = await announcing(redis, serve)
    client = await proxy.connect()
    put(redis, "SET", "list:1", "no list")
    assert (await client.command("LPUSH", "list:1", "x")).startswith(b"-WRONGTYPE")
    assert await client.command("SET", "list:1", "x", "NX") == b"$-1\r\n"
    assert (await client.command("SET", "list:1")).startswith(b"-ERR wrong number of arguments for 'set' command")
    assert (await client.command("EVALSHA", "0" * 40, 1, "list:1")).startswith(b"-NOSCRIPT")

    assert await read(store) == []
    assert proxy.worker.value_layer.notices.counts.withdrawn == 3


async def test_user_who_may_not_write_the_outbox_writes_all_the_same(redis: Server, serve: Serve) -> None:
    """In order, in a pipeline and in a transaction; nothing is announced, and that is counted."""
    put(redis, "ACL", "SETUSER", "carol", "on", ">pw", "~doc:*", "&*", "+@all")
    proxy, store = await announcing(redis, serve)
    client = await proxy.connect()
    assert await client.command("AUTH", "carol", "pw") == OK
    for words in (("SET", "doc:1", "a"), ("GET", "doc:1"), ("SET", "doc:1", "b"), ("GET", "doc:1")):
        await client.send(*words)
    assert [await client.frame() for _ in range(4)] == [OK, bulk(b"a"), OK, bulk(b"b")]
    for line in ("MULTI", "SET doc:1 c", "EXEC"):
        await client.send(*line.split())
    assert [await client.frame() for _ in range(3)] == [OK, b"+QUEUED\r\n", array([OK])]

    assert await read(store) == []
    assert proxy.worker.value_layer.notices.counts.unannounced == 3


async def test_user_who_is_forbidden_later_loses_no_write(redis: Server, serve: Serve) -> None:
    """Redis refuses the notice, and with it the transaction: the write is sent again."""
    put(redis, "ACL", "SETUSER", "carol", "on", ">pw", "~*", "&*", "+@all")
    proxy, store = await announcing(redis, serve)
    client = await proxy.connect()
    await client.command("AUTH", "carol", "pw")
    await client.command("SET", "doc:1", "a")
    put(redis, "ACL", "SETUSER", "carol", "resetkeys", "~doc:*")

    assert [await client.command("SET", "doc:1", one) for one in "bc"] == [OK, OK]
    assert await client.command("GET", "doc:1") == bulk(b"c")
    assert keys_of(await read(store)) == [(0, "docs", ["doc:1"])]


async def test_full_redis_refuses_no_deletion(redis: Server, serve: Serve) -> None:
    """What frees memory goes through and is announced by class when Redis has room; writes have Redis' own error."""
    proxy, store = await announcing(redis, serve)
    client = await proxy.connect()
    await client.command("SET", "doc:1", "a")
    put(redis, "CONFIG", "SET", "maxmemory", "1")
    assert (await client.command("SET", "doc:1", "b")).startswith(b"-OOM command not allowed")

    assert await client.command("DEL", "doc:1") == b":1\r\n"
    assert (await client.command("SET", "doc:2", "b")).startswith(b"-OOM command not allowed")
    await store.pay()
    assert proxy.worker.value_layer.notices.owed
    put(redis, "CONFIG", "SET", "maxmemory", "0")
    client.close()
    await proxy.worker.drain(5)  # which pays what is owed
    await read(store)
    by_key, by_class = await read(store)

    assert json.loads(by_key.body)["keys"] == ["doc:1"]
    assert (by_class.topic, json.loads(by_class.body)["patterns"]) == ("docs", ["doc:*"])
    assert proxy.worker.value_layer.notices.owed == {}


async def test_pop_that_waited_through_a_time_without_memory_is_announced(redis: Server, serve: Serve) -> None:
    """By class, after it has popped: what was owed before would have been paid before."""
    proxy, store = await announcing(redis, serve)
    client, other = await proxy.connect(), await proxy.connect()
    await client.command("SET", "doc:1", "a")
    put(redis, "CONFIG", "SET", "maxmemory", "1")
    await client.command("DEL", "doc:1")
    await other.send("BLPOP", "list:1", 5)
    await trio.sleep(0.1)
    put(redis, "CONFIG", "SET", "maxmemory", "0")
    await store.pay()
    await read(store)
    await store.remove(await read(store))
    put(redis, "RPUSH", "list:1", "x")
    assert await other.frame() == array([bulk(b"list:1"), bulk(b"x")])
    await store.pay()
    await read(store)

    assert [(one.topic, json.loads(one.body)["patterns"]) for one in await read(store)] == [("lists", ["list:*"])]


async def test_writes_are_announced_as_soon_as_redis_has_loaded(serve: Serve) -> None:
    """A transaction that is refused while it loads says nothing about what is written behind it."""
    with Server(find_kind("redis7"), ServerOptions(extra=SLOW_TO_LOAD)) as redis:
        proxy, store = await announcing(redis, serve)
        client = await proxy.connect()
        for number in range(500):
            await client.command("SET", f"other:{number}", f"{number}" * 100)
        assert put(redis, "SAVE") == OK
        redis.kill()
        refused: list[bytes] = []
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, redis.start)
                while not refused or refused[-1][:1] != b"*":
                    refused.append(await transaction(proxy))
        assert sum(b"LOADING" in one or b"EXECABORT" in one for one in refused) > 3
        client = await proxy.connect()
        assert await client.command("SET", "doc:2", "x") == OK

        assert [keys for _, _, keys in keys_of(await read(store))] == [["doc:1"], ["doc:2"]]


async def transaction(proxy: Proxy) -> bytes:
    """Write doc:1 in a transaction of a client's own; return how it ended."""
    client = await proxy.connect()
    await client.send("MULTI")
    await client.send("SET", "doc:1", "x")
    await client.send("EXEC")
    last = b""
    try:
        for _ in range(3):
            last = await client.frame()
    except AssertionError:  # it was closed: Redis is away
        await trio.sleep(0.01)
    return last


async def test_full_outbox_announces_the_class(redis: Server, serve: Serve) -> None:
    """By a hash that does not grow; once there is room, everything of the class is announced, once."""
    proxy, store = await announcing(redis, serve)
    notices = proxy.worker.value_layer.notices
    store._full_at = 2
    client = await proxy.connect()
    for number in range(2):
        await client.command("SET", f"doc:{number}", "x")
    store._judge(0, 2)
    for number in range(3):
        assert await client.command("SET", f"doc:{number}", "y") == OK
    assert (notices.counts.coarse, len(notices.full)) == (3, 1)
    entries = await read(store)
    assert len(entries) == 2
    await store.remove(entries)
    store._judge(0, 0)
    await read(store)
    (entry,) = await read(store)

    assert (entry.topic, json.loads(entry.body)["patterns"]) == ("docs", ["doc:*"])
    assert put(redis, "EXISTS", "respite:outbox:missed") == b":0\r\n"


async def test_relay_reads_nothing_that_may_be_withdrawn(redis: Server, serve: Serve) -> None:
    """An entry is left alone for a moment; how many there are and how old is told at once."""
    proxy, store = await announcing(redis, serve)
    client = await proxy.connect()
    await client.command("DEL", "doc:1")
    await store.read(10)
    await client.command("SET", "doc:1", "x")
    batch = await store.read(10)

    assert (batch.entries, batch.depth) == ((), 1)
    (entry,) = await read(store)
    await store.remove([entry])
    assert await store.read(10) == Batch((), 0, 0.0)
    assert put(redis, "DBSIZE") == b":1\r\n"


async def test_lease_is_given_to_one(redis: Server, serve: Serve) -> None:
    """Who has it keeps it; it can be given back by nobody else."""
    _, one = await announcing(redis, serve)
    _, other = await announcing(redis, serve)
    assert await one.lease("a", 60_000)
    await other.release("b")
    assert (await one.lease("a", 60_000), await other.lease("b", 60_000)) == (True, False)
    await one.release("a")

    assert await other.lease("b", 60_000)


async def test_store_says_that_redis_is_away(redis: Server, serve: Serve) -> None:
    """The relay waits, and asks again."""
    _, store = await announcing(redis, serve)
    redis.kill()
    with pytest.raises(RemoteError):
        await store.read(10)


async def test_switched_off_nothing_is_announced(redis: Server, serve: Serve) -> None:
    """Neither without publish_changes nor in pure pass-through."""
    off = attrs.evolve(make_settings(), classes=CLASSES)
    for proxy in (await serve(redis, off), (await announcing(redis, serve, rollout={"mode": "off"}))[0]):
        client = await proxy.connect()
        assert await client.command("SET", "doc:1", "x") == OK
        assert proxy.worker.pipeline.notices is None

    assert put(redis, "EXISTS", "respite:outbox") == b":0\r\n"
