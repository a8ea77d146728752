"""Links while Redis is away, slow, loading, a replica: who knocks, who waits for how long, what is bounded."""

from __future__ import annotations

import pytest
import trio

from proxy import errors
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy
from .outage_parts import outage_is, settings_of, with_value
from .peer import Peer, PeerLink, error, serve_raw, until

OFF = {"mode": "off"}  # no PTTL behind a read, whose reply a script would have to keep back, too
OK = b"+OK\r\n"
UNAVAILABLE = errors.UPSTREAM_UNAVAILABLE
LOADING = error("LOADING Redis is loading the dataset in memory")
READONLY = error("READONLY You can't write against a read only replica.")


async def _in_databases(proxy: Proxy, count: int) -> list[Client]:
    """Connect clients, each in a database of its own: so many groups of links."""
    clients = [await proxy.connect() for _ in range(count)]
    for db, client in enumerate(clients):
        assert await client.command("SELECT", db) == OK
        await client.command("SET", "k", "v")
    return clients


@pytest.mark.parametrize(
    "text", ["LOADING Redis is loading", "MASTERDOWN Link with MASTER is down", "ERR max number of clients reached"]
)
async def test_server_that_is_not_ready_is_away_until_it_says_pong(peer: Peer, serve: Serve, text: str) -> None:
    """A connection is no link before its PING is answered; until then its clients read Redis' own words."""
    peer.on("PING", error(text))
    proxy = await serve(peer)
    client = await proxy.connect()

    assert await client.command("GET", "k") == error(text)
    assert outage_is(proxy, "away")
    assert not any(row["state"] == "up" for row in proxy.links("data"))
    assert proxy.stats()["upstream"]["state"] == "unreachable"
    assert peer.seen("GET") == []

    peer.as_usual("PING")
    await until(lambda: not proxy.worker.gate.is_shut, "it is found within a delay")
    assert await client.command("GET", "k") == b"$-1\r\n"


async def test_link_whose_ping_is_refused_is_none(peer: Peer, serve: Serve) -> None:
    """Also where only this one hears of it: the address leads to several servers."""

    def script(link: PeerLink, _: list[bytes]) -> bytes:
        return LOADING if link.kind == "data" else b"+PONG\r\n"

    peer.on("PING", script)
    proxy = await serve(peer)
    client = await proxy.connect()

    assert await client.command("GET", "k") == LOADING
    assert peer.seen("GET") == []


async def test_server_that_begins_to_load_is_away(peer: Peer, serve: Serve) -> None:
    """The invalidation link hears of it, and L1 is not served."""
    proxy = await serve(peer, l1={"max_staleness_s": 0.2})
    await until(lambda: proxy.worker.engine.l1.serving, "L1 is served")
    peer.on("PING", LOADING)

    await until(lambda: outage_is(proxy, "away"), "the PING says so")
    assert not proxy.worker.engine.l1.serving


async def test_one_link_knocks_for_all_while_redis_is_away(nursery: trio.Nursery, serve: Serve) -> None:
    """Six groups, the invalidation link and a pinned one: attempts are as many as one of them would make."""
    knocks: list[float] = []

    async def slam(stream: trio.SocketStream) -> None:
        knocks.append(trio.current_time())
        await stream.aclose()

    port = await serve_raw(nursery, slam)
    proxy = await serve(f"redis://127.0.0.1:{port}")
    clients = [await proxy.connect() for _ in range(6)]
    for db, client in enumerate(clients):
        client_db = command("SELECT", db) + command("GET", "k") + command("BLPOP", "q", 1)
        await client.send_raw(client_db)
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")
    await trio.sleep(1.0)
    before = len(knocks)
    await trio.sleep(1.0)

    assert len(knocks) - before <= 4
    assert proxy.worker.engine.outage.breaker.opened_total == 1


async def test_all_links_are_opened_as_soon_as_one_is_let_in(peer: Peer, serve: Serve) -> None:
    """Nobody waits out a delay of its own, and no command that comes meanwhile fails."""
    proxy = await serve(peer)
    clients = await _in_databases(proxy, 5)
    await peer.refuse()
    await until(lambda: outage_is(proxy, "away"), "the breaker opens")
    assert [await client.command("GET", "k") for client in clients] == [UNAVAILABLE] * 5
    groups = proxy.worker.links.groups
    told: list[list[bool]] = []
    proxy.worker.engine.outage.on_back.append(
        lambda: told.append([group.pick() is not None for group in groups.values()])
    )

    peer.listen()
    await until(lambda: told, "it is back")

    assert [await client.command("GET", "k") for client in clients] == [b"$1\r\nv\r\n"] * 5
    assert told == [[True] * 5], "what comes waits for a link"
    await until(lambda: len(peer.of("data")) == 5, "all links stand")


@pytest.mark.parametrize(
    "text",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        "NOREPLICAS Not enough good replicas to write.",
    ],
)
async def test_write_that_redis_has_no_room_for_is_refused_and_counted(peer: Peer, serve: Serve, text: str) -> None:
    """Redis is up, and its word is the answer: no link goes, reads are served on, and the figures tell."""
    proxy = await serve(peer)
    client = await proxy.connect()
    assert await client.command("SET", "k", "v") == OK
    links = peer.of("data")
    peer.on("SET", error(text))

    for _ in range(3):
        assert await client.command("SET", "k", "w") == error(text)
        assert await client.command("GET", "k") == b"$1\r\nv\r\n"

    assert proxy.stats()["upstream"]["refusals"] == {text.partition(" ")[0]: 3}
    assert outage_is(proxy, "up")
    assert peer.of("data") == links
    assert proxy.worker.stats.failed == 0


async def test_write_that_a_replica_refuses_has_links_opened_anew(peer: Peer, serve: Serve) -> None:
    """The client reads Redis' own words; the address is looked up again, once for many refusals."""
    proxy = await serve(peer)
    client, other = await proxy.connect(), await proxy.connect()
    assert await client.command("SET", "k", "v") == OK
    old = peer.of("data") + peer.of("control")
    peer.on("SET", READONLY)
    peer.hold("data")
    await other.send("STRLEN", "k")
    await until(lambda: peer.seen("STRLEN"), "the read has arrived")
    peer.go_on("data")

    for _ in range(20):
        assert await client.command("SET", "k", "w") == READONLY
    assert await other.frame() == b":1\r\n"

    await until(lambda: not set(old) & set(peer.links), "the old links are closed")
    assert proxy.stats()["upstream"]["refusals"] == {"READONLY": 20}
    assert peer.accepted < 20
    peer.as_usual("SET")
    assert await client.command("SET", "k", "w") == OK
    assert proxy.worker.stats.failed == 0


async def test_commands_beyond_max_waiting_fail_at_once(peer: Peer, serve: Serve) -> None:
    """What waits for a Redis that does not answer is bounded; what waits already is answered when it does."""
    proxy = await serve(peer, upstream={"max_waiting": 8, "response_timeout_s": 4.0}, rollout=OFF)
    first, later = await proxy.connect(), await proxy.connect()
    assert await later.command("GET", "k") == b"$-1\r\n"
    peer.stop("data")
    await first.send_raw(command("GET", "k") * 9)
    (group,) = proxy.worker.links.groups.values()
    await until(lambda: group.links[0].full, "it is full")

    assert await later.command("GET", "k") == errors.UPSTREAM_OVERLOADED
    assert await later.command("SET", "k", "v") == errors.UPSTREAM_OVERLOADED

    peer.go_on("data")
    assert await first.frames(9) == [b"$-1\r\n"] * 9
    await until(lambda: group.links[0].open, "there is room again")
    assert await later.command("SET", "k", "v") == OK


async def test_commands_that_wait_for_a_connection_are_bounded_too(peer: Peer, serve: Serve) -> None:
    """Nothing grows while the server takes connections and says nothing."""
    peer.stop("data")
    proxy = await serve(peer, upstream={"max_waiting": 8, "connect_timeout_s": 3.0})
    first, later = await proxy.connect(), await proxy.connect()
    await first.send_raw(command("STRLEN", "k") * 9)
    await until(lambda: [g.links[0].full for g in proxy.worker.links.groups.values()] == [True], "it is full")

    assert await later.command("STRLEN", "k") == errors.UPSTREAM_OVERLOADED
    peer.go_on("data")
    assert await first.frames(9) == [b":0\r\n"] * 9


async def test_commands_wait_for_a_connection_no_longer_than_connect_timeout(peer: Peer, serve: Serve) -> None:
    """The handshake may take response_timeout, they need not; the link that comes after all is used."""
    peer.stop("data")
    proxy = await serve(peer, upstream={"connect_timeout_s": 0.3, "response_timeout_s": 5.0})
    client = await proxy.connect()
    began = trio.current_time()

    assert await client.command("GET", "k") == UNAVAILABLE
    assert 0.3 <= trio.current_time() - began < 1.5
    assert await client.command("GET", "k") == UNAVAILABLE
    assert trio.current_time() - began < 1.5

    peer.go_on("data")
    await until(lambda: peer.of("data") and [row["state"] for row in proxy.links("data")] == ["up"], "the link stands")
    assert await client.command("GET", "k") == b"$-1\r\n"
    assert len(peer.of("data")) == 1


async def test_reply_that_trickles_is_late(peer: Peer, serve: Serve) -> None:
    """A byte now and then is no answer: its link is given up after response_timeout, and who is behind it asks anew."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.8}, rollout=OFF)
    client, behind = await proxy.connect(), await proxy.connect()
    assert await behind.command("STRLEN", "k") == b":0\r\n"
    (link,) = peer.of("data")
    peer.on("GET", None)
    peer.on("STRLEN", lambda on, _words: None if on is link else b":7\r\n")
    began = trio.current_time()
    await client.send("GET", "k")
    await until(lambda: peer.seen("GET"), "the read has arrived")

    async def trickle() -> None:
        for byte in b"$1000\r\n" + b"x" * 100:
            link.push(bytes([byte]))
            await trio.sleep(0.05)

    async with trio.open_nursery() as trickling:
        trickling.start_soon(trickle)
        await trio.sleep(0.3)
        await behind.send("STRLEN", "k")
        assert await client.frame() == errors.UPSTREAM_TIMED_OUT
        assert await behind.frame() == b":7\r\n"
        assert 0.8 <= trio.current_time() - began < 1.8
        trickling.cancel_scope.cancel()


async def test_read_that_is_asked_once_more_waits_no_longer_for_that(peer: Peer, serve: Serve) -> None:
    """Its link dies late, and the next one is as silent: response_timeout counts from when it was first asked."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.8, "connect_timeout_s": 0.8}, rollout=OFF)
    client = await proxy.connect()
    assert await client.command("STRLEN", "k") == b":0\r\n"
    peer.on("GET", None)
    began = trio.current_time()
    await client.send("GET", "k")
    await trio.sleep(0.5)
    peer.stop("data")
    peer.kill("data")

    assert await client.frame() == errors.UPSTREAM_TIMED_OUT
    assert 0.8 <= trio.current_time() - began < 1.2


@pytest.mark.parametrize("key", ["n:2", "r:2"])
async def test_read_behind_one_that_is_late_has_a_time_of_its_own(peer: Peer, serve: Serve, key: str) -> None:
    """Their link is given up for the first of them; the others are asked again while Redis answers on another."""
    proxy, client = await with_value(serve, peer, settings_of(upstream={"response_timeout_s": 0.8}))
    peer.model.foreign("SET", key, "there")
    peer.stop(next(iter(peer.of("data"))))
    await client.send("STRLEN", "k")
    await trio.sleep(0.4)
    began = trio.current_time()
    await client.send("GET", key)
    await client.send("STRLEN", key)

    assert await client.frame() == errors.UPSTREAM_TIMED_OUT
    assert [await client.frame(), await client.frame()] == [b"$5\r\nthere\r\n", b":5\r\n"]
    assert trio.current_time() - began < 0.8
    assert proxy.worker.stats.failed == 1


async def test_large_reply_that_keeps_coming_is_not_late(peer: Peer, serve: Serve) -> None:
    """It takes longer than response_timeout, and it arrives."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.4}, rollout=OFF)
    client = await proxy.connect()
    assert await client.command("STRLEN", "k") == b":0\r\n"
    peer.on("GET", None)
    await client.send("GET", "k")
    await until(lambda: peer.seen("GET"), "the read has arrived")
    (link,) = peer.of("data")
    head = b"$1000000\r\n"
    link.push(head)
    for _ in range(20):
        await trio.sleep(0.05)
        link.push(b"v" * 50_000)
    link.push(b"\r\n")

    assert (await client.exactly(len(head) + 1_000_002)).endswith(b"v\r\n")


async def test_one_late_command_is_no_outage_while_redis_answers_others(peer: Peer, serve: Serve) -> None:
    """The invalidation link has heard of Redis since: only this link is given up."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.4}, l1={"max_staleness_s": 0.2}, rollout=OFF)
    clients = await _in_databases(proxy, 2)
    peer.on("STRLEN", None)

    assert await clients[0].command("STRLEN", "k") == errors.UPSTREAM_TIMED_OUT
    assert not proxy.worker.gate.is_shut
    assert await clients[1].command("GET", "k") == b"$1\r\nv\r\n"
    assert proxy.worker.engine.outage.breaker.opened_total == 0


async def test_link_that_is_killed_is_no_outage(peer: Peer, serve: Serve) -> None:
    """CLIENT KILL: the next link is there at once, and what comes waits for it."""
    proxy, client = await with_value(serve, peer)
    for _ in range(3):
        peer.kill("data")
        assert await client.command("GET", "r:1") == b"$3\r\nold\r\n"

    assert proxy.worker.engine.outage.breaker.opened_total == 0
    assert proxy.worker.stats.failed == 0


async def test_every_command_is_answered_while_redis_is_frozen(redis: Server, serve: Serve) -> None:
    """SIGSTOP: reads, writes, transactions, scripts, new clients; each within response_timeout, and all after it."""
    proxy = await serve(redis, settings_of(upstream={"response_timeout_s": 1.0, "connect_timeout_s": 0.5}))
    clients = [await proxy.connect() for _ in range(6)]
    for client in clients:
        assert await client.command("SET", "k", "v") == OK
    sent = [("GET", "k"), ("SET", "k", "w"), ("MULTI",), ("EVAL", "return 1", "0"), ("MGET", "a", "b"), ("DBSIZE",)]
    redis.pause()
    try:
        began = trio.current_time()
        for client, words in zip(clients, sent, strict=True):
            await client.send(*words)
        replies = [await client.frame() for client in clients]
        took_s = trio.current_time() - began
        late = await proxy.connect()
        again = [await one.command("GET", "other") for one in (late, clients[0])]
        again_s = trio.current_time() - began - took_s
    finally:
        redis.resume()

    assert all(reply.startswith(b"-ERR respite: upstream") for reply in replies)
    assert took_s < 2.0
    assert again == [UNAVAILABLE] * 2
    assert again_s < 0.5
    await until(lambda: outage_is(proxy, "up"), "it is back")
    assert await late.command("GET", "k") in (b"$1\r\nv\r\n", b"$1\r\nw\r\n")
