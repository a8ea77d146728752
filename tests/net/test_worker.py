"""A worker as a whole: draining, stopping, taking new settings, and CLIENT PAUSE."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from proxy import errors
from proxy.config.model import ProxyUser, Settings
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy, make_settings, warm, within
from .peer import Peer, PeerLink, until

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
V = b"$1\r\nv\r\n"
NEW = b"$3\r\nnew\r\n"


def _apply(proxy: Proxy, **sections: dict[str, Any]) -> Settings:
    """Reload as the app does it."""
    settings = make_settings(**sections)
    worker = proxy.worker
    worker.reactor.enter()
    worker.apply(settings)
    worker.reactor.flush()
    return settings


async def _served(proxy: Proxy) -> Client:
    client = await proxy.connect()
    assert await client.command("SET", "warm", "v") == OK
    await proxy.settled()
    assert await warm(client) == V
    return client


# -- drain -------------------------------------------------------------------------------------------------------------


async def test_drain_closes_the_idle_at_once_and_takes_nobody_new(peer: Peer, serve: Serve) -> None:
    """Clients that wait for nothing are closed without a word, and the port is closed."""
    proxy = await serve(peer)
    clients = [await proxy.connect() for _ in range(5)]
    for client in clients:
        assert await client.command("PING") == PONG
    began = trio.current_time()

    await within(proxy.worker.drain(30), "the drain")

    assert trio.current_time() - began < 1
    assert [await client.until_closed() for client in clients] == [b""] * 5
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream("127.0.0.1", proxy.port)


async def test_drain_lets_what_was_sent_be_answered(peer: Peer, serve: Serve, nursery: trio.Nursery) -> None:
    """A client that is owed replies gets them, and is closed after the last."""
    proxy = await serve(peer)
    client = await _served(proxy)
    peer.stop("data")
    await client.send_raw(command("INCR", "n") * 3)
    await until(lambda: proxy.links("data")[0]["outstanding"] > 0, "it is sent")
    done = trio.Event()

    async def drain() -> None:
        await proxy.worker.drain(30)
        done.set()

    nursery.start_soon(drain)
    await until(lambda: proxy.worker.draining and not _is_listening(proxy), "the port is closed")
    assert not done.is_set()
    peer.go_on("data")

    assert await client.until_closed() == b":1\r\n:2\r\n:3\r\n"
    await within(done.wait(), "the drain")


def _is_listening(proxy: Proxy) -> bool:
    return any(listener._open for listener in proxy.worker.listeners)


async def test_drain_lets_a_large_reply_be_read(redis: Server, serve: Serve, nursery: trio.Nursery) -> None:
    """A reply that is still being read is finished."""
    proxy = await serve(redis)
    client = await proxy.connect_narrow()
    assert await client.command("SETRANGE", "k", 4_000_000, "x") == b":4000001\r\n"
    await client.send("GET", "k")
    await until(lambda: any(one.unsent_bytes for one in proxy.worker.clients), "some of it waits")
    nursery.start_soon(proxy.worker.drain, 30)
    await until(lambda: proxy.worker.draining, "it drains")

    assert len(await client.until_closed(20)) == len(b"$4000001\r\n") + 4_000_003


async def test_drain_lets_a_transaction_be_ended(redis: Server, serve: Serve, nursery: trio.Nursery) -> None:
    """A client in MULTI may go on to its EXEC, and is closed then."""
    proxy = await serve(redis)
    client = await proxy.connect()
    assert await client.command("MULTI") == OK
    nursery.start_soon(proxy.worker.drain, 30)
    await until(lambda: not _is_listening(proxy), "it drains")

    assert await client.command("INCR", "n") == b"+QUEUED\r\n"
    assert await client.command("EXEC") == b"*1\r\n:1\r\n"
    assert await client.until_closed() == b""


async def test_drain_waits_for_a_blocked_client_no_longer_than_told(redis: Server, serve: Serve) -> None:
    """A blocking command may end by itself; after the timeout the drain is over, and the stop answers it."""
    proxy = await serve(redis)
    ending, endless = await proxy.connect(), await proxy.connect()
    await ending.send("BLPOP", "q", "0.2")
    await endless.send("BLPOP", "q", "0")
    await until(lambda: redis.info("blocked_clients") == "2", "both are blocked")
    began = trio.current_time()

    await within(proxy.worker.drain(0.8), "the drain")

    assert 0.8 <= trio.current_time() - began < 2
    assert await ending.until_closed() == b"*-1\r\n"
    assert proxy.stats()["clients"]["connected"] == 1
    await proxy.stop()
    assert await endless.until_closed() == errors.UPSTREAM_LOST
    await until(lambda: redis.info("blocked_clients") == "0", "nobody is blocked any more")


@pytest.mark.parametrize("words", [("SUBSCRIBE", "ch"), ("PSUBSCRIBE", "*"), ("MONITOR",), ("READONLY",)])
async def test_drain_closes_who_would_stay_for_ever(redis: Server, serve: Serve, words: tuple[str, ...]) -> None:
    """Nobody waits for a subscriber, a MONITOR or a sticky session to finish."""
    proxy = await serve(redis)
    client = await proxy.connect()
    await client.command(*words)
    await until(lambda: proxy.links("pinned"), "it holds a link")

    await within(proxy.worker.drain(30), "the drain")

    await client.until_closed()
    assert proxy.links("pinned") == []


async def test_stop_answers_everybody_and_leaves_nothing_open(redis: Server, serve: Serve) -> None:
    """A worker that is cancelled answers who waits, on whatever they wait, and closes all connections."""
    proxy = await serve(redis, upstream={"pinned_connections": 1})
    blocked, waiting, asking = [await proxy.connect() for _ in range(3)]
    assert await asking.command("PING") == PONG
    await blocked.send("BLPOP", "q", "0")
    await until(lambda: redis.info("blocked_clients") == "1", "it is blocked")
    await waiting.send("MULTI")
    await until(lambda: proxy.worker.pool._waiting, "it waits for a link")
    redis.pause()
    try:
        await asking.send("INCR", "n")
        await until(lambda: proxy.links("data")[0]["outstanding"], "it is sent")

        await proxy.stop()

        assert await asking.until_closed() == errors.UPSTREAM_LOST
        assert await blocked.until_closed() == errors.UPSTREAM_LOST
        assert await waiting.until_closed() == errors.UPSTREAM_UNAVAILABLE
    finally:
        redis.resume()
    await until(lambda: redis.info("connected_clients") == "1", "Redis has no client of ours")


# -- new settings ------------------------------------------------------------------------------------------------------


async def test_apply_smaller_l1_evicts_at_once(peer: Peer, serve: Serve) -> None:
    """A smaller bound holds from the reload on; a larger one lets L1 grow again."""
    proxy = await serve(peer)
    client = await _served(proxy)
    for number in range(50):
        assert await client.command("SET", f"k{number}", b"v" * 1000) == OK
        await client.command("GET", f"k{number}")
    assert proxy.stats()["l1"]["bytes"] > 40_000

    _apply(proxy, l1={"max_bytes": 10_000})

    l1 = proxy.stats()["l1"]
    assert l1["bytes"] <= l1["max_bytes"] == 10_000
    assert l1["evictions_total"] >= 30
    assert 0 < l1["entries"] < 20
    assert [await client.command("GET", f"k{number}") for number in range(50)] == [
        b"$1000\r\n%b\r\n" % (b"v" * 1000)
    ] * 50
    assert proxy.stats()["l1"]["bytes"] <= 10_000


async def test_apply_changes_what_is_kept_and_for_how_long(peer: Peer, serve: Serve) -> None:
    """max_age and max_value_bytes hold for what is read from then on."""
    proxy = await serve(peer)
    client = await _served(proxy)
    await client.command("SET", "large", b"v" * 5000)

    _apply(proxy, l1={"max_value_bytes": 1000, "max_age_s": 7.0})

    await client.command("GET", "large")
    assert proxy.worker.explain(b"large")["l1"] == []
    await client.command("SET", "small", "v")
    await client.command("GET", "small")
    (row,) = proxy.worker.explain(b"small")["l1"]
    assert 6 < row["ends_in_s"] <= 7


async def test_apply_changes_the_limits_of_clients(peer: Peer, serve: Serve) -> None:
    """Limits and users hold for clients that are connected and for those to come."""
    proxy = await serve(peer)
    client, second = await proxy.connect(), await proxy.connect()
    assert [await client.command("PING"), await second.command("PING")] == [PONG, PONG]

    user = ProxyUser("app", "pw")
    _apply(proxy, listen={"max_clients": 3, "max_bulk_bytes": 1000, "users": (user,), "idle_timeout_s": 0.3})

    newcomer = await proxy.connect()
    assert await newcomer.command("PING") == b"-NOAUTH Authentication required.\r\n"
    assert await newcomer.command("AUTH", "app", "pw") == OK
    assert await newcomer.command("PING") == PONG
    assert await (await proxy.connect()).until_closed() == errors.TOO_MANY_CLIENTS
    await client.send_raw(b"*2\r\n$4\r\nPING\r\n$1001\r\n")
    assert await client.until_closed() == b"-ERR Protocol error: invalid bulk length\r\n"
    assert await second.until_closed() == b""  # idle


@pytest.mark.parametrize("switch", [{"rollout": {"mode": "off"}}, {"l1": {"enabled": False}}])
async def test_apply_l1_off_passes_everything_through(
    peer: Peer, serve: Serve, switch: dict[str, dict[str, Any]]
) -> None:
    """Off drops L1, asks Redis for every read, tells it to track no more, and keeps every client."""
    proxy = await serve(peer)
    client = await _served(proxy)

    _apply(proxy, **switch)

    assert proxy.stats()["l1"]["entries"] == 0
    asked = len(peer.seen("GET"))
    assert [await client.command("GET", "warm") for _ in range(3)] == [V] * 3
    assert len(peer.seen("GET")) == asked + 3
    await until(lambda: proxy.stats()["upstream"]["state"] == "up", "the invalidation link is back")
    assert await client.command("GET", "warm") == V
    assert [b"OFF" in one.words for one in peer.seen("CLIENT", "data")][-1]
    assert proxy.stats()["upstream"]["tracking"] == "off"
    assert proxy.stats()["clients"]["connected"] == 1
    assert not proxy.stats()["l1"]["serving"]


async def test_apply_off_and_on_serves_nothing_of_before(peer: Peer, serve: Serve) -> None:
    """What changed while L1 was off is read anew once it is on, by clients that stayed connected."""
    proxy = await serve(peer)
    client = await _served(proxy)
    _apply(proxy, rollout={"mode": "off"})
    assert await client.command("GET", "warm") == V
    peer.model.foreign("SET", "warm", "new")

    _apply(proxy, rollout={"mode": "on"})

    assert await client.command("GET", "warm") == NEW
    await proxy.settled()
    assert await warm(client) == NEW
    asked = len(peer.seen("GET"))
    assert await client.command("GET", "warm") == NEW
    assert len(peer.seen("GET")) == asked
    peer.model.foreign("SET", "warm", "v")
    peer.pump()
    await until(lambda: proxy.stats()["l1"]["entries"] == 0, "the push is applied")
    assert await client.command("GET", "warm") == V


async def test_apply_on_with_a_read_in_flight_keeps_nothing_of_it(peer: Peer, serve: Serve) -> None:
    """A read that began before L1 was switched off and on fills nothing."""
    proxy = await serve(peer)
    client, other = await _served(proxy), await proxy.connect()
    peer.model.foreign("SET", "k", "v")
    peer.hold("data")
    await client.send("GET", "k")
    await until(lambda: any(b"k" in one.words for one in peer.seen("PTTL")), "it has been executed")
    _apply(proxy, rollout={"mode": "off"})
    _apply(proxy, rollout={"mode": "on"})
    peer.model.foreign("SET", "k", "new")
    peer.go_on("data")

    assert await client.frame() == V
    await proxy.settled()
    assert await other.command("GET", "k") == NEW


async def test_apply_on_with_a_write_in_flight_reads_nothing_older_after_its_reply(peer: Peer, serve: Serve) -> None:
    """A write sent while L1 was off, answered while it is on: who has read the reply reads nothing older."""
    proxy = await serve(peer)
    writer, reader = await _served(proxy), await proxy.connect()
    assert (await reader.command("HELLO", "3"))[:1] == b"%"
    assert await reader.command("GET", "warm") == V
    _apply(proxy, rollout={"mode": "off"})
    await until(lambda: proxy.stats()["upstream"]["tracking"] == "off", "off")
    late: list[PeerLink] = []

    def delay(link: PeerLink, words: list[bytes]) -> None:
        late.append(link)
        peer.stop(link)  # nothing behind it is answered before it

    peer.on("SET", delay)
    await writer.send("SET", "warm", "new")
    await until(lambda: late, "the write is on its way")
    _apply(proxy, rollout={"mode": "on"})
    await until(lambda: proxy.stats()["l1"]["serving"], "on")
    await until(lambda: any(row["tracked"] for row in proxy.links("data") if row["protocol"] == 3), "tracked")
    assert [await reader.command("GET", "warm") for _ in range(2)] == [V] * 2

    peer.hold("control")  # the push is on its way
    peer.model.foreign("SET", "warm", "new")
    late[0].push(OK)
    assert await writer.frame() == OK

    assert await reader.command("GET", "warm") == NEW


async def test_apply_max_staleness_is_what_the_next_silence_is_measured_by(peer: Peer, serve: Serve) -> None:
    """A shorter max_staleness takes effect with the next PING, without a new link."""
    proxy = await serve(peer, l1={"max_staleness_s": 60.0})
    client = await _served(proxy)
    accepted = peer.accepted

    _apply(proxy, l1={"max_staleness_s": 0.2})
    await until(lambda: proxy.worker.tracking.serve_until - proxy.worker.engine.now < 0.3, "a PONG has set it")
    peer.hold("control")
    await until(lambda: not proxy.stats()["l1"]["serving"], "L1 is suspended", timeout_s=2)

    assert await client.command("GET", "warm") == V
    assert peer.accepted == accepted


# -- CLIENT PAUSE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["ALL", "WRITE"])
async def test_client_pause_makes_nobody_late(redis: Server, serve: Serve, mode: str) -> None:
    """During CLIENT PAUSE no reply counts as late, however short response_timeout is."""
    proxy = await serve(redis, upstream={"response_timeout_s": 0.45}, l1={"max_staleness_s": 0.2})
    client, other = await proxy.connect(), await proxy.connect()
    assert await client.command("SET", "k", "v") == OK
    began = trio.current_time()
    assert await other.command("CLIENT", "PAUSE", "900", mode) == OK

    assert await client.command("SET", "k", "new") == OK
    assert 0.8 < trio.current_time() - began < 3
    assert await client.command("GET", "k") == NEW
    assert proxy.stats()["commands"]["errors_total"] == 0


async def test_client_pause_that_ends_gives_redis_its_time_anew(peer: Peer, serve: Serve) -> None:
    """What waited through a pause is late only when response_timeout has passed after it."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.5})
    client, other = await _served(proxy), await proxy.connect()
    peer.on("CLIENT PAUSE", OK)
    assert await other.command("CLIENT", "PAUSE", "700") == OK
    clock = proxy.worker.reactor.clock
    paused_until = proxy.worker.paused_until
    peer.stop("data")
    await client.send("INCR", "n")
    await until(lambda: clock() > paused_until + 0.25, "the pause is over, for less than response_timeout")

    peer.go_on("data")
    assert await client.frame() == b":1\r\n"

    peer.stop("data")
    assert await client.command("INCR", "n") == errors.UPSTREAM_TIMED_OUT
    assert clock() > paused_until + 0.5


async def test_client_pause_that_is_over_or_refused_leaves_the_timeouts_alone(redis: Server, serve: Serve) -> None:
    """A user who may not pause changes nothing, and UNPAUSE ends what PAUSE began."""
    proxy = await serve(redis, upstream={"response_timeout_s": 0.3})
    bob, admin, victim = [await proxy.connect() for _ in range(3)]
    assert await victim.command("PING") == PONG
    assert await bob.command("AUTH", "bob", "pw") == OK
    assert (await bob.command("CLIENT", "PAUSE", "100000")).startswith(b"-NOPERM")
    assert await admin.command("CLIENT", "PAUSE", "100000", "WRITE") == OK
    assert await admin.command("CLIENT", "UNPAUSE") == OK

    redis.pause()
    try:
        assert await victim.command("INCR", "n") == errors.UPSTREAM_TIMED_OUT
    finally:
        redis.resume()
