"""The commands of one connection take effect in the order they were sent, on whatever links they travel."""

from __future__ import annotations

import pytest

from .conftest import Serve
from .driver import Client, Proxy
from .peer import Peer, PeerLink, until

OK = b"+OK\r\n"


async def _places(proxy: Proxy) -> tuple[Client, Client]:
    """Open the data links of two databases and two protocols; return a client in database 0 and RESP2, and another."""
    client, other = await proxy.connect(), await proxy.connect()
    for words in (("SELECT", "1"), ("STRLEN", "k"), ("HELLO", "3"), ("STRLEN", "k"), ("SELECT", "0"), ("STRLEN", "k")):
        assert (await other.command(*words))[:1] in b"+:%"
    assert await client.command("SET", "k", "old") == OK
    if proxy.worker.engine.enabled:
        await proxy.settled()
    return client, other


def _link(peer: Peer, db: int, protocol: int) -> PeerLink:
    (link,) = [link for link in peer.of("data") if (link.model.db, link.model.protocol) == (db, protocol)]
    return link


@pytest.mark.parametrize("l1", [True, False], ids=["L1 on", "L1 off"])
@pytest.mark.parametrize("switch", [("SELECT", "1"), ("HELLO", "3"), ("RESET",), ("MULTI",), ("CLIENT", "LIST")])
async def test_command_behind_a_switch_waits_for_what_was_sent_before(
    peer: Peer, serve: Serve, switch: tuple[str, ...], l1: bool
) -> None:
    """What follows a SELECT, HELLO or MULTI reaches Redis after what came before it, though on another link."""
    proxy = await serve(peer, l1={"enabled": l1})
    client, other = await _places(proxy)
    reads = len(peer.seen("STRLEN"))
    stopped = _link(peer, 0, 2)
    peer.stop(stopped)
    await client.send("SET", "k", "longer")
    await client.send(*switch)
    await client.send("STRLEN", "k")
    await until(lambda: stopped.model.unread, "the SET is on its link")
    assert (await other.command("SELECT", "1"))[:1] == b"+"
    assert (await other.command("INCR", "n"))[:1] == b":"  # the worker has been through what was sent before

    assert len(peer.seen("STRLEN")) == reads
    peer.go_on(stopped)
    assert await client.frame() == OK
    assert (await client.frame())[:1] in b"+%$*"
    assert await client.frame() in (b":6\r\n", b":0\r\n", b"+QUEUED\r\n")


async def test_replies_of_two_links_keep_the_order_of_the_commands(peer: Peer, serve: Serve) -> None:
    """A reply that is there before its turn waits for those in front of it."""
    proxy = await serve(peer)
    client, _ = await _places(proxy)
    slow = _link(peer, 0, 2)
    peer.hold(slow)
    await client.send("INCR", "n")
    await client.send("CLIENT", "GETNAME")
    await client.send("PING")
    await until(lambda: peer.seen("INCR"), "INCR is executed")

    peer.go_on(slow)
    assert await client.frames(3) == [b":1\r\n", b"$-1\r\n", b"+PONG\r\n"]
