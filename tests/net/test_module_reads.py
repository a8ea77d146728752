"""Reads of modules that the settings name: kept, joined from several keys, dropped with their key, bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from proxy.wire.encode import bulk

from .conftest import Serve
from .driver import Client, Proxy, warm
from .peer import Peer, PeerLink, error, until

ROWS = (
    b"*6\r\n$8\r\njson.get\r\n:-2\r\n*1\r\n$8\r\nreadonly\r\n:1\r\n:1\r\n:1\r\n",
    b"*6\r\n$9\r\njson.mget\r\n:-3\r\n*1\r\n$8\r\nreadonly\r\n:1\r\n:-2\r\n:1\r\n",
)


@pytest.fixture
def documents(peer: Peer) -> dict[bytes, bytes]:
    """Give the peer documents under keys, and the two commands that read them."""
    found: dict[bytes, bytes] = {b"a": b"[1]", b"b": b"[2]"}
    known = peer.model.commands[b"COMMAND"]

    def command(link: PeerLink, words: list[bytes]) -> bytes:
        count, _, rows = known(peer.model, link.model, words).partition(b"\r\n")
        return b"*%d\r\n%b%b" % (int(count[1:]) + len(ROWS), rows, b"".join(ROWS))

    def read(link: PeerLink, key: bytes) -> bytes:
        peer.model.run(link.model, [b"GET", key])  # it is tracked
        return bulk(found[key]) if key in found else b"$-1\r\n"

    def get(link: PeerLink, words: list[bytes]) -> bytes:
        return read(link, words[1])

    def mget(link: PeerLink, words: list[bytes]) -> bytes:
        if b"broken" in words:
            return error("ERR broken")
        return b"*%d\r\n%b" % (len(words) - 2, b"".join(read(link, key) for key in words[1:-1]))

    peer.on("COMMAND", command)
    peer.on("JSON.GET", get)
    peer.on("JSON.MGET", mget)
    return found


@pytest.fixture
async def served(peer: Peer, serve: Serve, documents: dict[bytes, bytes]) -> tuple[Proxy, Client]:
    """Start a proxy that keeps both reads, and a client whose link is tracked."""
    for key in documents:
        peer.model.foreign("SET", key.decode(), "document")
    proxy = await serve(peer, l1={"cache_commands": ("JSON.GET", "JSON.MGET")})
    client = await proxy.connect()
    await client.command("SET", "warm", "v")
    await proxy.settled()
    await warm(client)
    return proxy, client


def asked(peer: Peer, name: str) -> Callable[[], int]:
    """Count the commands of a name from now on."""
    before = len(peer.seen(name))
    return lambda: len(peer.seen(name)) - before


async def test_module_read_is_kept_until_its_key_changes(
    peer: Peer, served: tuple[Proxy, Client], documents: dict[bytes, bytes]
) -> None:
    """A second read asks nobody; a push for the key drops it."""
    proxy, client = served
    reads = asked(peer, "JSON.GET")
    assert [await client.command("JSON.GET", "a", "$") for _ in range(3)] == [b"$3\r\n[1]\r\n"] * 3
    assert reads() == 1

    documents[b"a"] = b"[9]"
    peer.model.foreign("SET", "a", "document")
    peer.pump()
    await until(lambda: not _is_kept(proxy, b"a"), "the push is applied")

    assert await client.command("JSON.GET", "a", "$") == b"$3\r\n[9]\r\n"


def _is_kept(proxy: Proxy, key: bytes) -> bool:
    return any(bulk(key) in namespace.heads for namespace in proxy.worker.engine.l1.namespaces.values())


async def test_module_read_of_several_keys_asks_only_for_what_is_not_known(
    peer: Peer, served: tuple[Proxy, Client]
) -> None:
    """Each key's part is kept with the words behind the keys; a missing key's too."""
    _, client = served
    expected = b"*3\r\n$3\r\n[1]\r\n$-1\r\n$3\r\n[2]\r\n"
    assert await client.command("JSON.MGET", "a", "$") == b"*1\r\n$3\r\n[1]\r\n"
    reads = asked(peer, "JSON.MGET")

    assert await client.command("JSON.MGET", "a", "none", "b", "$") == expected
    assert reads() == 2
    assert await client.command("JSON.MGET", "a", "none", "b", "$") == expected
    assert reads() == 2
    assert await client.command("JSON.MGET", "a", "b", ".other") == b"*2\r\n$3\r\n[1]\r\n$3\r\n[2]\r\n"
    assert reads() == 4


async def test_module_read_of_several_keys_fails_as_one(peer: Peer, served: tuple[Proxy, Client]) -> None:
    """One part's error is the reply, and nobody's order is lost."""
    _, client = served
    await client.send("JSON.MGET", "a", "broken", "$")
    await client.send("GET", "warm")

    assert await client.frames(2) == [b"-ERR broken\r\n", b"$1\r\nv\r\n"]


async def test_module_read_of_several_keys_is_asked_again_when_the_link_dies(
    peer: Peer, served: tuple[Proxy, Client]
) -> None:
    """Its parts are lost with their link; the next one is asked for the whole."""
    _, client = served
    peer.stop("data")
    await client.send("JSON.MGET", "a", "b", "$")
    await until(lambda: peer.of("data")[0].model is not None, "the link stands")
    peer.kill("data")
    peer.go_on("data")

    assert await client.frame() == b"*2\r\n$3\r\n[1]\r\n$3\r\n[2]\r\n"


async def test_module_reads_that_are_named_no_more_are_not_kept(peer: Peer, served: tuple[Proxy, Client]) -> None:
    """The setting applies at once."""
    proxy, client = served
    assert await client.command("JSON.GET", "a", "$") == b"$3\r\n[1]\r\n"
    proxy.worker.control.cache(())
    proxy.worker.reactor.flush()
    await until(lambda: proxy.worker.table.find([b"JSON.GET"]).read is None, "the table is read anew")
    reads = asked(peer, "JSON.GET")

    assert [await client.command("JSON.GET", "a", "$") for _ in range(2)] == [b"$3\r\n[1]\r\n"] * 2
    assert reads() == 2
