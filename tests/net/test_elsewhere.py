"""After a fail-over that leaves the old server alive: no link reads from one server what another one's pushes cover."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.wire.encode import bulk

from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import warm
from .peer import Peer, PeerLink, until

V, NEW = bulk(b"v"), bulk(b"new")


@pytest.fixture
def named(peer: Peer) -> list[bytes]:
    """Let the peer say which server it is: the last of these names."""
    names = [b"one"]

    def info(_: PeerLink, __: list[bytes]) -> bytes:
        return bulk(b"# Server\r\nredis_version:7.0.15\r\nrun_id:%b\r\n" % names[-1])

    peer.on("INFO", info)
    return names


@pytest.mark.parametrize("tracking", ["redirect", "broadcast"])
async def test_data_link_of_the_server_before_is_given_up(
    peer: Peer, serve: Serve, named: list[bytes], tracking: str
) -> None:
    """The invalidation link comes back to another server: links to the one before are opened anew, L1 starts empty."""
    proxy = await serve(peer, l1={"tracking": tracking, "touch_rate": 0})
    client = await proxy.connect()
    assert await client.command("SET", "warm", "v") == b"+OK\r\n"
    await proxy.settled()
    await warm(client)
    (before,) = peer.of("data")

    named.append(b"two")
    peer.kill("control")

    await until(lambda: before.is_closed, "the link to the server before is closed")
    await until(lambda: proxy.stats()["upstream"]["state"] == "up", "the invalidation link is back")
    assert await client.command("GET", "warm") == V
    await proxy.settled()
    await warm(client)
    hits = proxy.stats()["l1"]["hits_total"]
    assert await client.command("GET", "warm") == V
    assert proxy.stats()["l1"]["hits_total"] == hits + 1


async def test_invalidation_link_of_the_server_before_is_given_up(peer: Peer, serve: Serve, named: list[bytes]) -> None:
    """A data link comes back to another server: the invalidation link follows, before anything is held."""
    proxy = await serve(peer, l1={"tracking": "broadcast", "touch_rate": 0})
    client = await proxy.connect()
    assert await client.command("SET", "warm", "v") == b"+OK\r\n"
    await proxy.settled()
    await warm(client)
    (before,) = peer.of("control")

    named.append(b"two")
    peer.kill("data")

    await until(lambda: before.is_closed, "the invalidation link to the server before is closed")
    await until(lambda: proxy.worker.control.run_id == b"two", "it leads to the other server")
    await until(lambda: proxy.stats()["l1"]["serving"], "L1 is served again")


async def test_address_of_several_servers_is_passed_through(peer: Peer, serve: Serve) -> None:
    """Where every connection reaches another server nothing is held, and everything is answered."""
    count = 0

    def info(_: PeerLink, __: list[bytes]) -> bytes:
        nonlocal count
        count += 1
        return bulk(b"# Server\r\nredis_version:7.0.15\r\nrun_id:%d\r\n" % count)

    peer.on("INFO", info)
    proxy = await serve(peer, l1={"tracking": "broadcast", "touch_rate": 0})
    client = await proxy.connect()
    for _ in range(20):
        reply = await client.command("SET", "k", "v")
        if reply == b"+OK\r\n":
            break

    await until(lambda: proxy.worker.links._elsewhere > 5, "it is noticed")
    await until(lambda: proxy.stats()["upstream"]["state"] == "up", "the invalidation link stands")
    await until(lambda: any(link["state"] == "up" for link in proxy.links("data")), "a data link stands")
    assert [await client.command("GET", "k") for _ in range(3)] == [V] * 3
    assert proxy.stats()["l1"]["hits_total"] == 0


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """Run two servers of their own."""
    kind = find_kind("redis7")
    with Server(kind, ServerOptions()) as one, Server(kind, ServerOptions()) as two:
        yield one, two


def test_real_servers_are_told_apart(pair: tuple[Server, Server]) -> None:
    """Each run of a server has a name of its own."""
    assert pair[0].info("run_id") != pair[1].info("run_id")
