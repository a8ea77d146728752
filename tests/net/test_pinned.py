"""Pinned links: how many there are, who waits for one, who may use one again, and what their loss means."""

from __future__ import annotations

import socket
import struct

import pytest
import trio

from proxy import errors
from proxy.net.links import pinned as pinned_module
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy
from .peer import Peer, until

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
NIL = b"$-1\r\n"
LOST = errors.UPSTREAM_LOST


def _upstream_id(proxy: Proxy) -> str:
    """Name the one pinned link."""
    (row,) = proxy.links("pinned")
    return str(row["id"])


def _kill(redis: Server, proxy: Proxy) -> None:
    """Let Redis close the pinned link."""
    with redis.connect() as direct:
        assert direct.command("CLIENT", "KILL", "ID", _upstream_id(proxy).removeprefix("pinned-")) == b":1\r\n"


async def _transaction(client: Client, *words: str | int) -> bytes:
    """Run one command in MULTI and return what EXEC says."""
    assert await client.command("MULTI") == OK
    assert await client.command(*words) == QUEUED
    return await client.command("EXEC")


async def _blocked(redis: Server, count: int) -> None:
    await until(lambda: redis.info("blocked_clients") == str(count), f"{count} clients are blocked")


# -- how many ----------------------------------------------------------------------------------------------------------


async def test_pool_at_its_limit_lets_the_next_wait_its_turn(redis: Server, serve: Serve) -> None:
    """One more than pinned_connections waits, in order, and goes on with the link that is given back."""
    proxy = await serve(redis, upstream={"pinned_connections": 2})
    first, second, third, fourth = [await proxy.connect() for _ in range(4)]
    assert [await first.command("MULTI"), await second.command("MULTI")] == [OK, OK]
    await third.send("MULTI")
    await until(lambda: len(proxy.worker.pool._waiting) == 1, "the third waits")
    await fourth.send("MULTI")
    await until(lambda: len(proxy.worker.pool._waiting) == 2, "the fourth waits")
    links = {row["id"] for row in proxy.links("pinned")}

    assert await second.command("EXEC") == b"*0\r\n"
    assert await third.frame() == OK
    assert len(proxy.worker.pool._waiting) == 1
    assert await first.command("DISCARD") == OK
    assert await fourth.frame() == OK
    assert {row["id"] for row in proxy.links("pinned")} == links


async def test_pool_at_its_limit_makes_room_for_another_place(redis: Server, serve: Serve) -> None:
    """An idle link of another database is closed for whoever waits; the limit is never passed."""
    proxy = await serve(redis, upstream={"pinned_connections": 1})
    holder, waiter = await proxy.connect(), await proxy.connect()
    assert await waiter.command("SELECT", "1") == OK
    assert await holder.command("MULTI") == OK
    await waiter.send("MULTI")
    await until(lambda: proxy.worker.pool._waiting, "the other waits")

    assert await holder.command("EXEC") == b"*0\r\n"
    assert await waiter.frame() == OK

    assert [row["db"] for row in proxy.links("pinned")] == [1]
    assert await waiter.command("EXEC") == b"*0\r\n"


async def test_pool_at_its_limit_never_passes_it(redis: Server, serve: Serve) -> None:
    """However many databases wait for links at once, Redis never sees more than pinned_connections of them."""
    proxy = await serve(redis, upstream={"pinned_connections": 3})
    clients = [await proxy.connect() for _ in range(12)]
    for db, client in enumerate(clients):
        assert await client.command("SELECT", db) == OK
    most = 0

    async def work(client: Client) -> None:
        for _ in range(5):
            assert await _transaction(client, "INCR", "n") != b""

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(proxy.links("pinned")) + proxy.worker.pool._opening)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        async with trio.open_nursery() as workers:
            for client in clients:
                workers.start_soon(work, client)
        nursery.cancel_scope.cancel()

    assert most == 3


@pytest.mark.parametrize(
    "words",
    [
        [("MULTI",), ("INCR", "n"), ("SELECT", "1"), ("INCR", "n"), ("EXEC",)],
        [("WATCH", "k"), ("MULTI",), ("INCR", "n"), ("EXEC",)],
        [("SELECT", "1"), ("INCR", "n")],
        [("AUTH", "alice", "pw"), ("INCR", "n")],
        [("HELLO", "3", "SETNAME", "me"), ("INCR", "n")],
    ],
    ids=["MULTI", "WATCH", "SELECT", "AUTH", "HELLO"],
)
@pytest.mark.parametrize("how", ["refused", "lost"])
async def test_command_that_fails_takes_along_what_only_makes_sense_behind_it(
    peer: Peer, serve: Serve, words: list[tuple[str, ...]], how: str
) -> None:
    """A MULTI without a link runs nothing of its queue one by one, a SELECT nothing in the wrong database."""
    proxy = await serve(peer, upstream={"pinned_connections": 1, "response_timeout_s": 0.4})
    holder, client = await proxy.connect(), await proxy.connect()
    assert await client.command("GET", "n") == NIL
    if how == "refused":
        assert await holder.command("MULTI") == OK
    else:
        peer.close_on(words[0][0])

    await client.send_raw(b"".join(command(*one) for one in words))
    await client.until_closed()

    assert peer.seen("INCR") == []


async def test_command_that_fails_alone_leaves_its_client(redis: Server, serve: Serve) -> None:
    """Who waits for each reply is told, and goes on; so is who sends what makes sense behind any command."""
    proxy = await serve(redis, upstream={"pinned_connections": 1, "response_timeout_s": 0.3})
    holder, client = await proxy.connect(), await proxy.connect()
    assert await holder.command("MULTI") == OK

    assert await client.command("MULTI") == errors.PINNED_EXHAUSTED
    assert await client.command("SELECT", "1") == errors.PINNED_EXHAUSTED
    await client.send_raw(command("BLPOP", "q", "0") + command("INCR", "n"))
    assert await client.frames(2) == [errors.PINNED_EXHAUSTED, b":1\r\n"]


async def test_pool_at_its_limit_refuses_who_waits_too_long(redis: Server, serve: Serve) -> None:
    """After response_timeout without a free link the command is answered with what to change; the client stays."""
    proxy = await serve(redis, upstream={"pinned_connections": 1, "response_timeout_s": 0.3})
    blocked, waiting = await proxy.connect(), await proxy.connect()
    await blocked.send("BLPOP", "q", "0")
    await _blocked(redis, 1)

    assert await waiting.command("BLPOP", "q", "0") == errors.PINNED_EXHAUSTED
    assert b"upstream.pinned_connections" in errors.PINNED_EXHAUSTED
    assert await waiting.command("RPUSH", "q", "x") == b":1\r\n"
    assert await blocked.frame() == b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"
    assert await waiting.command("BLPOP", "none", "0.01") == b"*-1\r\n"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_pool_wastes_no_link_on_a_client_that_left_while_waiting(redis: Server, serve: Serve, how: str) -> None:
    """Who goes away while waiting keeps no link from those behind."""
    proxy = await serve(redis, upstream={"pinned_connections": 1})
    holder, leaver, last = [await proxy.connect() for _ in range(3)]
    assert await holder.command("MULTI") == OK
    for client, count in ((leaver, 1), (last, 2)):
        await client.send("MULTI")
        await until(lambda expected=count: len(proxy.worker.pool._waiting) == expected, "it waits")
    if how == "reset":
        leaver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    leaver.close()

    assert await holder.command("EXEC") == b"*0\r\n"
    assert await last.frame() == OK
    assert len(proxy.links("pinned")) == 1
    await until(lambda: proxy.stats()["clients"]["connected"] == 2, "it is forgotten")


async def test_pool_closes_what_has_been_idle_for_long(
    redis: Server, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle pinned link is closed after a while, on Redis' side too."""
    monkeypatch.setattr(pinned_module, "IDLE_S", 0.1)
    proxy = await serve(redis)
    client = await proxy.connect()
    assert await _transaction(client, "INCR", "n") == b"*1\r\n:1\r\n"
    connected = int(redis.info("connected_clients"))

    await until(lambda: proxy.links("pinned") == [], "the idle link is closed")

    await until(lambda: int(redis.info("connected_clients")) == connected - 1, "Redis has noticed")
    assert await _transaction(client, "INCR", "n") == b"*1\r\n:2\r\n"


# -- used again --------------------------------------------------------------------------------------------------------


async def test_link_given_back_serves_the_next_client_without_a_new_connection(redis: Server, serve: Serve) -> None:
    """Transactions of many clients, one after the other, share one connection."""
    proxy = await serve(redis)
    ids = set()
    for number in range(1, 6):
        client = await proxy.connect()
        assert await _transaction(client, "INCR", "n") == b"*1\r\n:%d\r\n" % number
        ids.add(_upstream_id(proxy))
        client.close()

    assert len(ids) == 1


async def test_link_given_back_has_forgotten_its_last_client(redis: Server, serve: Serve) -> None:
    """The next client on the same connection has no name, no database and no WATCH of the last one."""
    proxy = await serve(redis)
    first, second = await proxy.connect(), await proxy.connect()
    assert await first.command("CLIENT", "SETNAME", "first") == OK
    assert await _transaction(first, "CLIENT", "GETNAME") == b"*1\r\n$5\r\nfirst\r\n"
    assert await first.command("WATCH", "watched") == OK
    assert await first.command("UNWATCH") == OK
    used = _upstream_id(proxy)
    assert await second.command("SET", "watched", "changed") == OK

    assert await _transaction(second, "CLIENT", "GETNAME") == b"*1\r\n" + NIL
    assert _upstream_id(proxy) == used
    assert await second.command("CLIENT", "SETNAME", "second") == OK
    assert await _transaction(second, "CLIENT", "GETNAME") == b"*1\r\n$6\r\nsecond\r\n"
    assert await _transaction(first, "CLIENT", "GETNAME") == b"*1\r\n$5\r\nfirst\r\n"
    assert _upstream_id(proxy) == used


@pytest.mark.parametrize(
    "words",
    [
        ("SELECT", "3"),
        ("HELLO", "3"),
        ("AUTH", "alice", "pw"),
        ("CLIENT", "TRACKING", "ON"),
        ("CLIENT", "NO-EVICT", "ON"),
        ("READONLY",),
    ],
)
async def test_link_whose_client_changed_it_serves_no_other_place(
    redis: Server, serve: Serve, words: tuple[str, ...]
) -> None:
    """What a client did to a connection of its own is not met by another: database, protocol, user, tracking."""
    proxy = await serve(redis)
    changer, other = await proxy.connect(), await proxy.connect()
    assert await other.command("SET", "where", "here") == OK
    assert (await changer.command(*words))[:1] in b"+%-"
    changer.close()
    await until(lambda: proxy.stats()["clients"]["connected"] == 1, "it has gone")

    assert await _transaction(other, "GET", "where") == b"*1\r\n$4\r\nhere\r\n"
    assert await _transaction(other, "ACL", "WHOAMI") == b"*1\r\n$7\r\ndefault\r\n"
    assert await _transaction(other, "ZADD", "z", "1", "m") in (b"*1\r\n:1\r\n", b"*1\r\n:0\r\n")
    assert await _transaction(other, "ZSCORE", "z", "m") == b"*1\r\n$1\r\n1\r\n"  # RESP3 has `,1`
    assert b"flags=x " in await _transaction(other, "CLIENT", "INFO")


async def test_link_whose_client_left_in_a_transaction_is_not_used_again(redis: Server, serve: Serve) -> None:
    """A MULTI that nobody will end dies with its connection."""
    proxy = await serve(redis)
    leaver, other = await proxy.connect(), await proxy.connect()
    assert await leaver.command("MULTI") == OK
    assert await leaver.command("SET", "k", "never") == QUEUED
    left = _upstream_id(proxy)
    leaver.close()
    await until(lambda: proxy.links("pinned") == [], "the link is closed")

    assert await other.command("MULTI") == OK
    assert _upstream_id(proxy) != left
    assert await other.command("EXEC") == b"*0\r\n"
    assert await other.command("GET", "k") == NIL


# -- lost --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [("MULTI",)],
        [("WATCH", "k")],
        [("SUBSCRIBE", "ch")],
        [("CLIENT", "TRACKING", "ON", "BCAST")],
        [("MULTI",), ("SET", "k", "v")],
    ],
)
async def test_link_lost_with_state_on_it_closes_its_client(
    redis: Server, serve: Serve, words: list[tuple[str, ...]]
) -> None:
    """What the connection knew is gone: going on would be wrong. Others stay."""
    proxy = await serve(redis)
    client, other = await proxy.connect(), await proxy.connect()
    assert await other.command("SET", "k", "v") == OK
    if words[0][0] == "CLIENT":
        assert (await client.command("HELLO", "3"))[:1] == b"%"
    for one in words:
        assert (await client.command(*one))[:1] in b"+*>"

    _kill(redis, proxy)

    assert await client.until_closed() == b""
    assert await other.command("GET", "k") == b"$1\r\nv\r\n"


async def test_link_lost_in_exec_says_that_it_may_have_been_applied(peer: Peer, serve: Serve) -> None:
    """An EXEC without a reply is answered as a write, then the client is closed: its session's state is gone."""
    proxy = await serve(peer)
    client = await proxy.connect()
    assert await client.command("MULTI") == OK
    assert await client.command("SET", "k", "v") == QUEUED
    peer.close_on("EXEC")
    await client.send("EXEC")

    assert await client.until_closed() == LOST
    assert len(peer.seen("EXEC")) == 1


async def test_link_lost_in_blpop_answers_an_error_and_keeps_the_client(redis: Server, serve: Serve) -> None:
    """A blocking command holds nothing but its reply."""
    proxy = await serve(redis)
    client = await proxy.connect()
    await client.send("BLPOP", "q", "0")
    await _blocked(redis, 1)

    _kill(redis, proxy)

    assert await client.frame() == LOST
    assert await client.command("RPUSH", "q", "x") == b":1\r\n"
    assert await client.command("BLPOP", "q", "0") == b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"


async def test_link_lost_while_idle_is_noticed_by_nobody(redis: Server, serve: Serve) -> None:
    """An idle link that Redis closes (its `timeout`) is forgotten; the next transaction gets a new one."""
    proxy = await serve(redis)
    client = await proxy.connect()
    assert await _transaction(client, "INCR", "n") == b"*1\r\n:1\r\n"

    _kill(redis, proxy)
    await until(lambda: proxy.links("pinned") == [], "it is forgotten")

    assert await _transaction(client, "INCR", "n") == b"*1\r\n:2\r\n"


async def test_link_that_answers_nothing_times_out_unless_it_blocks(peer: Peer, serve: Serve) -> None:
    """EXEC has response_timeout like any command; BLPOP waits for as long as it was told."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.3})
    busy, blocked = await proxy.connect(), await proxy.connect()
    peer.on("BLPOP", None)
    peer.on("EXEC", None)
    await blocked.send("BLPOP", "q", "0")
    assert await busy.command("MULTI") == OK

    assert await busy.command("EXEC") == errors.UPSTREAM_TIMED_OUT
    for _ in range(4):
        assert await busy.until_closed() == b""
        (waiting,) = [client for client in proxy.worker.clients if client.pin is not None]
        busy = await proxy.connect()
        assert await busy.command("MULTI") == OK
        assert await busy.command("EXEC") == errors.UPSTREAM_TIMED_OUT
        assert not waiting.closed


@pytest.mark.parametrize("waits", [b"", command("GET", "k")], ids=["for a link", "for a reply, then for a link"])
async def test_pinned_command_that_waits_is_still_skipped(redis: Server, serve: Serve, waits: bytes) -> None:
    """CLIENT REPLY SKIP silences the next command, also when that must first wait for a connection of its own."""
    proxy = await serve(redis)
    client = await proxy.connect()
    expected = [b"$-1\r\n"] if waits else []

    await client.send_raw(waits + command("CLIENT", "REPLY", "SKIP") + command("BLPOP", "none", "0.01"))
    await client.send_raw(command("ECHO", "end"))

    assert await client.frames(len(expected) + 1) == [*expected, b"$3\r\nend\r\n"]
