"""What all clients together have not read: bounded, and it is those with the most who go."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from .conftest import Serve
from .driver import Client, Proxy
from .peer import Peer, until
from .test_rates import _reload

VALUE = b"v" * 50_000
REPLY = b"$50000\r\n%b\r\n" % VALUE


async def _proxy(peer: Peer, serve: Serve, **listen: Any) -> tuple[Proxy, Client]:
    proxy = await serve(peer, listen=listen)
    client = await proxy.connect()
    assert await client.command("SET", "k", VALUE) == b"+OK\r\n"
    await proxy.settled()
    return proxy, client


async def _leave_unread(proxy: Proxy, count: int) -> Client:
    """Return a client that has asked for so much and reads nothing of it."""
    client = await proxy.connect_narrow()
    for _ in range(count):
        await client.send("GET", "k")
    return client


async def test_those_with_the_most_unread_replies_are_closed(peer: Peer, serve: Serve) -> None:
    """Nobody is over its own limit; who has little, and who reads, stays and is served."""
    proxy, reader = await _proxy(peer, serve, output_buffer_total_bytes=30_000_000)
    much = [await _leave_unread(proxy, 200) for _ in range(5)]
    little = await _leave_unread(proxy, 100)

    await until(lambda: proxy.stats()["clients"]["killed_total"] > 0, "one is closed")
    await until(lambda: proxy.worker.unread_bytes <= 30_000_000, "there is room again")
    assert await reader.command("GET", "k") == REPLY
    assert await little.exactly(100 * len(REPLY)) == REPLY * 100
    for client in much:
        client.close()
    await until(lambda: len(proxy.worker.clients) == 2, "they have left")
    assert proxy.worker.unread_bytes == 0


@pytest.mark.parametrize(("workers", "stays"), [(1, True), (10, False)])
async def test_limit_of_all_is_shared_by_the_workers_and_follows_a_reload(
    peer: Peer, serve: Serve, workers: int, stays: bool
) -> None:
    """Each has its part."""
    proxy, _ = await _proxy(peer, serve, workers=workers)
    await _leave_unread(proxy, 200)
    await until(lambda: proxy.worker.unread_bytes > 4_000_000, "much is unread")

    _reload(proxy, output_buffer_total_bytes=20_000_000)
    await trio.sleep(0.2)

    assert (len(proxy.worker.clients) == 2) is stays
