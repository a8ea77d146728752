"""What all clients together have not read: bounded, and it is those with the most who go."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import trio

from proxy.net.process import kernel_unsent

from ..tls.pems import Pems
from .conftest import Serve
from .driver import Client, Proxy, make_settings
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
    assert proxy.stats()["clients"]["killed_unread_total"] == proxy.stats()["clients"]["killed_total"]
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


async def test_what_many_have_not_read_of_one_value_is_held_once(peer: Peer, serve: Serve) -> None:
    """Also of replies that went out in one send, of which the socket took a part."""
    proxy, reader = await _proxy(peer, serve)
    value = b"v" * 1_000_000
    await reader.command("SET", "large", value)
    assert await reader.command("GET", "large") == await reader.command("GET", "large")
    clients = [await proxy.connect_narrow() for _ in range(10)]

    tracemalloc.start()
    try:
        for client in clients:
            await client.send_raw(b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n" * 3)
        await until(lambda: proxy.worker.unread_bytes > 20_000_000, "all have asked")
        for client in clients:
            await client.send_raw(b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n" * 3)
        await until(lambda: proxy.worker.unread_bytes > 50_000_000, "all have asked again")
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 5_000_000


async def test_kernel_holds_no_more_than_half_a_megabyte_for_who_does_not_read(peer: Peer, serve: Serve) -> None:
    """The rest waits with us, where it is counted and bounded."""
    proxy, _ = await _proxy(peer, serve)
    await _leave_unread(proxy, 200)

    await until(lambda: proxy.worker.unread_bytes > 8_000_000, "much is unread")
    [slow] = [client for client in proxy.worker.clients if client.unsent_bytes]
    assert kernel_unsent(slow._fd) < 600_000


async def test_slow_reader_of_tls_gets_every_byte(peer: Peer, serve: Serve, tmp_path: Path) -> None:
    """TLS has begun a record of what the socket did not take: it is given the same bytes again."""
    pems = Pems(tmp_path)
    pems.write()
    settings = make_settings("rediss://127.0.0.1:0", listen={"tls": pems.settings()})
    proxy = await serve(peer, settings)
    client = await proxy.connect_narrow(pems.trusting())
    value = b"v" * 60_000
    await client.command("SET", "k", value)
    await proxy.settled()
    await client.command("GET", "k")
    reply = b"$60000\r\n%b\r\n" % value

    for _ in range(40):
        await client.send_raw(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" * 16)
        await until(lambda: proxy.worker.unread_bytes > 0, "some is unread")
        assert await client.exactly(16 * len(reply)) == reply * 16
