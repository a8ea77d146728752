"""Blocking commands on a link that has gone silent: each has the time it asked for, and the timeout besides."""

from __future__ import annotations

import trio

from proxy import errors

from .conftest import Serve
from .peer import Peer


async def test_blocking_command_is_late_after_its_own_time_and_the_timeout(peer: Peer, serve: Serve) -> None:
    """A link that has gone silent is no event that is waited for: it is closed, and its client goes on."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.3})
    client = await proxy.connect()
    peer.on("BLPOP", None)
    began = trio.current_time()

    assert await client.command("BLPOP", "q", "0.3") == errors.UPSTREAM_TIMED_OUT
    assert 0.6 <= trio.current_time() - began < 1.0
    assert proxy.links("pinned") == []
    assert await client.command("GET", "k") == b"$-1\r\n"


async def test_blocking_command_that_waits_for_ever_is_never_late(peer: Peer, serve: Serve) -> None:
    """Its timeout is 0."""
    proxy = await serve(peer, upstream={"response_timeout_s": 0.1})
    client = await proxy.connect()
    peer.on("BLPOP", None)
    await client.send("BLPOP", "q", "0")
    await trio.sleep(0.5)

    (row,) = proxy.links("pinned")
    assert row["outstanding"] == 1
