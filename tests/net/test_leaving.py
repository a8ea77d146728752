"""A client that has left is gone at once: nothing of it waits for a collection of garbage, which comes late."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio

from proxy.net.clients.client import ClientConnection

from ..e2e.servers import Server
from ..tls.pems import Pems
from .conftest import Serve
from .driver import Client, Proxy, make_settings
from .peer import until

LARGE = b"v" * 2_000_000

ASKED: dict[str, Sequence[tuple[bytes | str, ...]]] = {
    "nothing": (),
    "a hit": (("GET", "k"),),
    "misses": (("GET", "none"), ("MGET", "k", "none", "other"), ("HGETALL", "none")),
    "an error": (("NOSUCH",), ("GET",)),
    "a transaction": (("MULTI",), ("GET", "k"), ("EXEC",)),
    "a login": (("AUTH", "nobody", "wrong"),),
    "RESP3": (("HELLO", "3"), ("CLIENT", "SETNAME", "one"), ("CLIENT", "LIST")),
    "RESPITE": (("RESPITE", "INFO"), ("RESPITE", "EXPLAIN", "k")),
    "a script": (("EVAL", "return 1", "0"),),
}
"""What is asked and answered before they leave .."""

LEFT: dict[str, Sequence[tuple[bytes | str, ...]]] = {
    "a subscription": (("SUBSCRIBE", "channel"),),
    "watched keys": (("WATCH", "k"),),
    "MONITOR": (("MONITOR",),),
    "tracking": (("HELLO", "3"), ("CLIENT", "TRACKING", "ON")),
    "a wait": (("BLPOP", "none", "0"),),
    "a wait and what is behind it": (("BLPOP", "none", "0"), ("GET", "k")),
    "an open transaction": (("MULTI",), ("SET", "k", "other")),
    "a large reply": (("SET", "large", LARGE), ("GET", "large"), ("GET", "large")),
    "a pipeline": (("GET", "none"),) * 100,
}
""".. and what is under way when they do."""

LEAVERS = 10


async def _proxy(serve: Serve, redis: Server) -> Proxy:
    proxy = await serve(redis)
    first = await proxy.connect()
    await first.command("SET", "k", "v")
    await proxy.settled()
    await first.command("GET", "k")
    return proxy


async def _leave(proxy: Proxy, client: Client) -> None:
    await client.stream.aclose()
    proxy.clients.remove(client)


async def _none_left(proxy: Proxy) -> int:
    """Wait until those who left are closed, and return how many are still in memory."""
    await until(lambda: len(proxy.worker.clients) <= 1, "they have left")
    await trio.sleep(0.05)  # what they asked for is answered
    return sum(isinstance(one, ClientConnection) for one in gc.get_objects()) - len(proxy.worker.clients)


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """Collect now, and not while a test runs."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
async def test_client_that_was_answered_leaves_nothing(
    serve: Serve, redis: Server, asked: Sequence[tuple[bytes | str, ...]]
) -> None:
    """Whatever it has asked for."""
    proxy = await _proxy(serve, redis)
    for _ in range(LEAVERS):
        client = await proxy.connect()
        for words in asked:
            await client.command(*words)
        await _leave(proxy, client)

    assert await _none_left(proxy) == 0


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
async def test_client_that_waits_for_something_leaves_nothing(
    serve: Serve, redis: Server, left: Sequence[tuple[bytes | str, ...]]
) -> None:
    """Whatever is still to come for it."""
    proxy = await _proxy(serve, redis)
    for _ in range(LEAVERS):
        client = await proxy.connect()
        for words in left:
            await client.send(*words)
        await _leave(proxy, client)

    assert await _none_left(proxy) == 0


async def test_client_of_tls_leaves_nothing(serve: Serve, redis: Server, tmp_path: Path) -> None:
    """Its handshake neither."""
    pems = Pems(tmp_path)
    pems.write()
    proxy = await serve(redis, make_settings("rediss://127.0.0.1:0", listen={"tls": pems.settings()}))
    for _ in range(LEAVERS):
        client = await proxy.connect_tls(pems.trusting())
        await client.command("GET", "k")
        await _leave(proxy, client)

    assert await _none_left(proxy) == 0
