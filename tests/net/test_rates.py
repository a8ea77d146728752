"""How much one may ask for and hold: rates, connections of an address, connections of their own, subscriptions."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from proxy.config.users import ProxyUser
from proxy.errors import PINNED_SHARE_USED, TOO_MANY_CLIENTS, TOO_MANY_SUBSCRIPTIONS
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy, warm
from .peer import Peer, until

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
USERS = (ProxyUser("a", "pw"), ProxyUser("b", "pw"))


def _reload(proxy: Proxy, **listen: Any) -> None:
    worker = proxy.worker
    worker.reactor.enter()
    worker.apply(attrs.evolve(worker.settings, listen=attrs.evolve(worker.settings.listen, **listen)))
    worker.reactor.flush()


async def _pings(client: Client, count: int) -> float:
    """Send so many, one after another; return how long it took."""
    began = trio.current_time()
    for _ in range(count):
        assert await client.command("PING") == PONG
    return trio.current_time() - began


async def test_rate_lets_a_burst_pass_and_then_holds_back_without_an_error(peer: Peer, serve: Serve) -> None:
    """20 at once, then 50 a second: 60 commands take the time of 40, and every one is answered."""
    proxy = await serve(peer, listen={"rate_limit": 50, "rate_burst": 20})
    client, other = await proxy.connect(), await proxy.connect()

    await _pings(client, 20)
    assert proxy.stats()["clients"]["throttled_total"] == 0
    assert await _pings(client, 40) >= 0.5

    throttled = proxy.stats()["clients"]["throttled_total"]
    assert throttled > 3
    await _pings(other, 15)
    assert proxy.stats()["clients"]["throttled_total"] == throttled


async def test_rate_counts_hits_of_l1_and_pipelines(peer: Peer, serve: Serve) -> None:
    """What never reaches Redis costs as much as what does; a pipeline waits as long as its commands one by one."""
    proxy = await serve(peer, listen={"rate_limit": 1000, "rate_burst": 100})
    client = await proxy.connect()
    reply = await warm(client)
    began = trio.current_time()

    await client.send_raw(command("GET", "warm") * 1000)

    assert set(await client.frames(1000)) == {reply}
    await client.command("PING")
    assert 0.8 <= trio.current_time() - began < 1.8


@pytest.mark.parametrize("per", ["address", "user"])
async def test_rate_of_an_address_or_user_is_shared_by_its_connections(peer: Peer, serve: Serve, per: str) -> None:
    """More connections do not bring more; another user has a rate of his own."""
    proxy = await serve(peer, listen={"rate_limit": 50, "rate_burst": 20, "rate_per": per, "users": USERS})
    clients = [await proxy.connect() for _ in range(3)]
    for client, name in zip(clients, "aab", strict=True):
        assert await client.command("AUTH", name, "pw") == OK
    shared = {(client.session.proxy_user, id(client.meter)) for client in proxy.worker.clients}

    began = trio.current_time()
    for _ in range(20):
        assert [await client.command("PING") for client in clients[:2]] == [PONG] * 2

    assert 0.3 <= trio.current_time() - began < 1.2
    assert len({meter for _, meter in shared}) == (1 if per == "address" else 2)


async def test_rate_that_is_taken_away_lets_go_at_once(peer: Peer, serve: Serve) -> None:
    """And one that is set on a running proxy holds for those who are connected."""
    proxy = await serve(peer, listen={"rate_limit": 1})
    client = await proxy.connect()
    assert await _pings(client, 1) < 0.5
    await client.send("PING")
    await client.send("PING")
    _reload(proxy, rate_limit=0)
    assert await client.frames(2) == [PONG] * 2
    assert await _pings(client, 30) < 1.0

    _reload(proxy, rate_limit=20, rate_burst=1)
    assert await _pings(client, 10) >= 0.35


async def test_rate_is_exceeded_by_no_more_than_one_small_read(peer: Peer, serve: Serve) -> None:
    """However much a client sends at once: what it may not ask for yet stays in its socket."""
    proxy = await serve(peer, listen={"rate_limit": 1, "rate_burst": 10})
    client = await proxy.connect()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.stream.send_all, command("PING") * 20_000)
        await until(lambda: proxy.stats()["clients"]["throttled_total"] > 0, "it is held back")
        await trio.sleep(0.2)
        assert proxy.worker.stats.commands <= 8192 // len(command("PING")) + 1
        nursery.cancel_scope.cancel()


async def test_rate_off_leaves_the_quick_way_to_hits(peer: Peer, serve: Serve) -> None:
    """Nothing is counted, and hits are answered from their bytes."""
    proxy = await serve(peer)
    client = await proxy.connect()
    await warm(client)

    (found,) = proxy.worker.clients
    assert (found.meter, found.checked) == (None, False)
    assert found.namespace is not None


async def test_client_that_is_held_back_and_leaves_is_forgotten(peer: Peer, serve: Serve) -> None:
    """What it owes stays with its address, not with the proxy's clients."""
    proxy = await serve(peer, listen={"rate_limit": 1, "rate_per": "address"})
    client = await proxy.connect()
    await client.send_raw(command("PING") * 50)
    await client.frames(50)
    client.close()
    await until(lambda: not proxy.worker.clients, "it has left")

    again = await proxy.connect()
    assert await again.command("PING") == PONG
    await again.send("PING")
    with trio.move_on_after(0.3):
        await again.frame()
        raise AssertionError("a new connection has paid what the address owes")


async def test_clients_of_an_address_are_bounded(peer: Peer, serve: Serve) -> None:
    """One more is refused in Redis' words; a place that becomes free is taken."""
    proxy = await serve(peer, listen={"max_clients_per_address": 2})
    first, second = await proxy.connect(), await proxy.connect()
    assert [await first.command("PING"), await second.command("PING")] == [PONG, PONG]

    assert await (await proxy.connect()).until_closed() == TOO_MANY_CLIENTS

    assert proxy.stats()["clients"]["crowded_total"] == 1
    second.close()
    await until(lambda: len(proxy.worker.clients) == 1, "it has left")
    assert await (await proxy.connect()).command("PING") == PONG


async def test_pinned_connections_of_an_address_are_bounded(peer: Peer, serve: Serve) -> None:
    """One more gets an error at once; each way to give one back makes room: reply, EXEC, RESET and the end."""
    proxy = await serve(peer, listen={"max_pinned_per_address": 2})
    clients = [await proxy.connect() for _ in range(3)]
    last = clients[2]
    for ends in ("DISCARD", "RESET", "close"):
        for client in clients[:2]:
            assert await client.command("MULTI") == OK
        assert await last.command("MULTI") == PINNED_SHARE_USED
        assert await last.command("PING") == PONG
        if ends == "close":
            clients[0].close()
            await until(lambda: len(proxy.worker.clients) == 2, "it has left")
        else:
            await clients[0].command(ends)
        assert await last.command("MULTI") == OK
        for client in (last, clients[1]):
            await client.command("DISCARD")
    assert proxy.stats()["clients"]["pins_refused_total"] == 3
    await until(lambda: all(not origin.pinned for origin in proxy.worker.door.origins), "nothing is held any more")


async def test_what_stands_behind_a_multi_that_gets_no_connection_is_not_run(peer: Peer, serve: Serve) -> None:
    """One by one it would not be what was asked for: the client is closed, as where Redis is away."""
    proxy = await serve(peer, listen={"max_pinned_per_address": 1})
    holder, client = await proxy.connect(), await proxy.connect()
    assert await holder.command("MULTI") == OK

    await client.send_raw(command("MULTI") + command("SET", "k", "v") + command("EXEC"))

    assert await client.until_closed() == PINNED_SHARE_USED
    assert not peer.seen("SET")


async def test_pinned_connection_that_cannot_be_opened_is_not_counted(peer: Peer, serve: Serve) -> None:
    """Neither is one whose client has left meanwhile."""
    proxy = await serve(peer, listen={"max_pinned_per_address": 1})
    client = await proxy.connect()
    for _ in range(3):
        assert await client.command("MULTI") == OK
        await client.command("EXEC")
    await until(lambda: all(not origin.pinned for origin in proxy.worker.door.origins), "nothing is held any more")


@pytest.mark.parametrize("protocol", [2, 3])
async def test_subscriptions_of_a_client_are_bounded(redis: Server, serve: Serve, protocol: int) -> None:
    """Channels and patterns together; what stands goes on, and one that ends makes room."""
    proxy = await serve(redis, listen={"max_subscriptions": 3})
    client = await proxy.connect()
    await client.command("HELLO", protocol)
    await client.command("SUBSCRIBE", "a")
    await client.command("PSUBSCRIBE", "b*")

    assert await client.command("SUBSCRIBE", "c", "d") == TOO_MANY_SUBSCRIPTIONS
    assert b"subscribe" in await client.command("subscribe", "c")
    assert await client.command("PSUBSCRIBE", "d") == TOO_MANY_SUBSCRIPTIONS
    assert b"unsubscribe" in await client.command("UNSUBSCRIBE", "a")
    assert b"subscribe" in await client.command("SUBSCRIBE", "d")
    if protocol == 3:
        assert await client.command("MULTI") == OK
        assert await client.command("SUBSCRIBE", "e") == TOO_MANY_SUBSCRIPTIONS
        assert (await client.command("EXEC")).startswith(b"-EXECABORT")


async def test_subscriptions_in_one_pipeline_are_bounded_like_those_one_by_one(redis: Server, serve: Serve) -> None:
    """Those that are not acknowledged yet count, and so does what a transaction has queued and what comes after it."""
    proxy = await serve(redis, listen={"max_subscriptions": 3})
    client, queueing = await proxy.connect(), await proxy.connect()

    await client.send_raw(b"".join(command("SUBSCRIBE", *names) for names in ("ab", "cd", "c", "d")))
    replies = await client.frames(5)
    assert [b"subscribe" in reply for reply in replies] == [True, True, False, True, False]
    assert replies[2] == replies[4] == TOO_MANY_SUBSCRIPTIONS

    await queueing.send_raw(command("MULTI") + command("SUBSCRIBE", "a", "b") + command("SUBSCRIBE", "c", "d"))
    assert (await queueing.frames(3))[2] == TOO_MANY_SUBSCRIPTIONS
    assert (await queueing.command("EXEC")).startswith(b"-EXECABORT")
    await queueing.send_raw(command("MULTI") + command("SUBSCRIBE", "a", "b") + command("EXEC"))
    await queueing.frames(3)
    await queueing.send("SUBSCRIBE", "c", "d")
    await queueing.until_closed()


async def test_client_that_is_held_back_is_not_idle(peer: Peer, serve: Serve) -> None:
    """What it has sent lies in its socket until its rate allows it: idle_timeout does not end it meanwhile."""
    proxy = await serve(peer, listen={"rate_limit": 1, "idle_timeout_s": 0.2})
    client, other = await proxy.connect(), await proxy.connect()
    await client.send_raw(command("PING") * 3)
    assert await client.frames(3) == [PONG] * 3
    await client.send("PING")

    await other.until_closed()

    assert await client.frame() == PONG
