"""A missing value that many want is made anew by one of them, whichever sidecar they read through."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from proxy.config.model import ClassSettings, Settings
from proxy.wire.encode import bulk

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy, make_settings, warm
from .peer import Peer, error, until

NIL = b"$-1\r\n"
OK = b"+OK\r\n"
LEASE = "respite:lease:page:1"
LONG_S = 30.0


def settings_with(lease_s: float, *, stale: bool = False) -> Settings:
    """Return settings with a class whose missing values are made anew under a lease."""
    pages = ClassSettings(
        "pages", ("page:*",), recompute_lease_s=lease_s, while_recomputed="stale" if stale else "wait"
    )
    return attrs.evolve(make_settings(l1={"touch_rate": 0}), classes=(pages,))


async def served(serve: Serve, target: Any, lease_s: float = LONG_S, *, stale: bool = False) -> Proxy:
    """Start a proxy and wait until its links are tracked."""
    proxy = await serve(target, settings_with(lease_s, stale=stale))
    client = await proxy.connect()
    await client.command("SET", "warm", "v")
    await proxy.settled()
    await warm(client)
    return proxy


async def asking(proxy: Proxy, count: int, *words: str) -> list[Client]:
    """Connect clients that ask the same, and do not read the reply."""
    clients = [await proxy.connect() for _ in range(count)]
    for client in clients:
        await client.send(*words)
    return clients


def waits(proxy: Proxy) -> int:
    """Count the readers who wait, or waited."""
    return proxy.worker.stats.recompute_waits


@pytest.mark.parametrize("words", [("GET", "page:1"), ("STRLEN", "page:1")])
async def test_one_of_many_is_told_nothing_and_the_rest_get_what_it_makes(
    redis: Server, serve: Serve, words: tuple[str, str]
) -> None:
    """Of eight readers behind two sidecars one makes the value; when it is written, all others have it."""
    near, far = await served(serve, redis), await served(serve, redis)
    first = (await asking(near, 1, *words))[0]
    missing = NIL if words[0] == "GET" else b":0\r\n"
    assert await first.frame() == missing
    others = await asking(near, 3, *words) + await asking(far, 4, *words)
    await until(lambda: (waits(near), waits(far)) == (3, 4), "seven wait")
    with redis.connect() as server:
        server.command("CONFIG", "RESETSTAT")

    assert await first.command("SET", "page:1", "made") == OK

    expected = bulk(b"made") if words[0] == "GET" else b":4\r\n"
    assert [await client.frame() for client in others] == [expected] * 7
    with redis.connect() as server:
        stats = server.command("INFO", "commandstats").decode()
        assert server.command("EXISTS", LEASE) == b":0\r\n"
    assert f"cmdstat_{words[0].lower()}:calls=2," in stats  # one a sidecar


async def test_readers_that_come_together_are_one(redis: Server, serve: Serve) -> None:
    """Those whose read is on its way when the value is missing: one of them makes it."""
    proxy = await served(serve, redis)
    clients = await asking(proxy, 6, "GET", "page:1")
    await until(lambda: waits(proxy) == 5, "five wait")
    with redis.connect() as server:
        server.command("SET", "page:1", "elsewhere")

    frames = [await client.frame() for client in clients]
    assert sorted(frames) == sorted([NIL, *[bulk(b"elsewhere")] * 5])


async def test_waiting_ends_with_the_lease(redis: Server, serve: Serve) -> None:
    """If nobody makes the value in time, the others are told that there is none."""
    proxy = await served(serve, redis, 0.3)
    with redis.connect() as server:
        server.command("SET", LEASE, "of another sidecar", "PX", "10000")
    clients = await asking(proxy, 3, "GET", "page:1")

    assert [await client.frame() for client in clients] == [NIL] * 3
    assert waits(proxy) == 3
    assert not proxy.worker.engine.recomputes


async def test_value_that_is_there_needs_no_lease(redis: Server, serve: Serve) -> None:
    """Nothing is different for a value that exists, nor for keys of no class."""
    proxy = await served(serve, redis)
    client = await proxy.connect()
    assert await client.command("SET", "page:2", "v") == OK

    assert await client.command("GET", "page:2") == bulk(b"v")
    assert await client.command("GET", "page:2") == bulk(b"v")
    assert await client.command("GET", "none") == NIL
    with redis.connect() as server:
        assert server.command("KEYS", "respite:*") == b"*0\r\n"


async def test_others_get_the_last_value_where_the_class_says_so(redis: Server, serve: Serve) -> None:
    """After it has ended, one makes it anew, and the rest are served what it was."""
    proxy = await served(serve, redis, stale=True)
    client, other = await proxy.connect(), await proxy.connect()
    with redis.connect() as server:
        server.command("SET", "page:1", "old", "PX", "150")
    assert await client.command("GET", "page:1") == bulk(b"old")
    await until(lambda: _is_gone(redis), "it has ended")

    assert await client.command("GET", "page:1") == NIL
    assert await other.command("GET", "page:1") == bulk(b"old")
    assert await client.command("SET", "page:1", "new") == OK
    assert await other.command("GET", "page:1") == bulk(b"new")


def _is_gone(redis: Server) -> bool:
    with redis.connect() as server:
        return server.command("PTTL", "page:1") == b":-2\r\n"


async def test_last_value_is_never_served_after_an_own_write(redis: Server, serve: Serve) -> None:
    """Who was told that the key is deleted reads nothing older, lease or not."""
    proxy = await served(serve, redis, 0.3, stale=True)
    client, other = await proxy.connect(), await proxy.connect()
    assert await client.command("SET", "page:1", "old") == OK
    await warm(client, "page:1")
    before = proxy.stats()["l1"]["invalidations_total"]
    with redis.connect() as server:
        server.command("SET", "page:1", "newer")
    await until(lambda: proxy.stats()["l1"]["invalidations_total"] > before, "the push is applied")
    assert await client.command("DEL", "page:1") == b":1\r\n"

    assert await client.command("GET", "page:1") == NIL
    assert await other.command("GET", "page:1") == NIL


async def test_client_that_leaves_while_it_waits_harms_nobody(redis: Server, serve: Serve) -> None:
    """The others still get the value."""
    proxy = await served(serve, redis)
    maker = (await asking(proxy, 1, "GET", "page:1"))[0]
    assert await maker.frame() == NIL
    gone, stays = await asking(proxy, 2, "GET", "page:1")
    await until(lambda: waits(proxy) == 2, "two wait")
    gone.close()

    assert await maker.command("SET", "page:1", "made") == OK

    assert await stays.frame() == bulk(b"made")


async def test_flush_and_lost_links_let_everybody_go(redis: Server, serve: Serve) -> None:
    """After FLUSHALL, and when the invalidation link dies, those who wait ask again; nobody waits for ever."""
    proxy = await served(serve, redis, 1.0)
    with redis.connect() as server:
        server.command("SET", LEASE, "of another sidecar", "PX", "600")
    (client,) = await asking(proxy, 1, "GET", "page:1")
    await until(lambda: waits(proxy) == 1, "it waits")

    proxy.worker.reactor.enter()
    proxy.worker.control.lose("a test")
    proxy.worker.reactor.flush()

    assert await client.frame() == NIL


async def test_user_who_may_not_write_the_lease_reads_as_ever(peer: Peer, serve: Serve) -> None:
    """An error for the lease is nobody's reply."""

    def refuse(_: object, words: list[bytes]) -> bytes:
        return error("NOPERM no") if words[1].startswith(b"respite:") else OK

    proxy = await served(serve, peer)
    peer.on("SET", refuse)
    clients = await asking(proxy, 3, "GET", "page:1")

    assert [await client.frame() for client in clients] == [NIL] * 3
