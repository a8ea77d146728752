"""A server that answers with what no Redis would: nested without end, announced without bounds, and bombs.

Whoever can write to Redis, or stands in its place, must not bring the proxy down with it: a link may end, a client may
read an error, everybody else goes on.
"""

from __future__ import annotations

import struct
import tracemalloc

import attrs
import lz4.block
import pytest
import trio

from proxy.config.model import ClassSettings
from proxy.values.envelope import MAGIC, Codec, wrap
from proxy.wire.encode import bulk

from .conftest import Serve
from .driver import Client, Proxy, make_settings
from .peer import Peer, PeerLink

DEPTH = 20_000
OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
NESTED = {
    "arrays": b"*1\r\n" * DEPTH + b":1\r\n",
    "maps": b"%1\r\n+k\r\n" * DEPTH + b":1\r\n",
    "attributes": b"|1\r\n+k\r\n+v\r\n~1\r\n" * DEPTH + b":1\r\n",
    "values": b"*2\r\n" + b"*2\r\n$1\r\nv\r\n" * DEPTH + b":1\r\n" + bulk(MAGIC + b"not quite"),
}
ANNOUNCED = {
    "array": b"*2147483647\r\n",
    "value": b"$9223372036854775807\r\nabc",
    "map": b"%4611686018427387904\r\n:1\r\n",
    "push": b">2147483647\r\n",
}
CLASSES = (ClassSettings("all", ("*",), version=True, compress=True),)


async def _serve(serve: Serve, peer: Peer, *, classed: bool) -> tuple[Proxy, Client]:
    """Return a proxy, and a client of it who has done nothing wrong."""
    proxy = await serve(
        peer, attrs.evolve(make_settings(upstream={"response_timeout_s": 0.8}), classes=CLASSES * classed)
    )
    honest = await proxy.connect()
    assert await honest.command("SET", "k", "v") == OK
    return proxy, honest


def _answer(peer: Peer, name: str, reply: bytes) -> None:
    """Answer a command of a client so; what the proxy asks for itself is answered as usual."""

    def script(link: PeerLink, words: list[bytes]) -> bytes | None:
        if link.kind == "control":
            return b"-ERR not now\r\n"
        return reply

    peer.on(name, script)


async def _goes_on(client: Client) -> bool:
    """Say whether somebody is served, on the link there is or soon on the next."""
    with trio.fail_after(5):
        while await client.command("GET", "k") != b"$1\r\nv\r\n":
            await trio.sleep(0.01)
    return await client.command("PING") == PONG


@pytest.mark.parametrize("what", NESTED)
@pytest.mark.parametrize("classed", [False, True])
async def test_nested_answer_needs_no_stack(peer: Peer, serve: Serve, what: str, *, classed: bool) -> None:
    """20,000 levels, more than Python recurses, are passed on, by links that look into values and by the others."""
    proxy, honest = await _serve(serve, peer, classed=classed)
    stranger = await proxy.connect()
    _answer(peer, "HGETALL", NESTED[what])

    await stranger.send("HGETALL", "deep")
    assert await stranger.exactly(len(NESTED[what])) == NESTED[what]

    assert await _goes_on(honest)


@pytest.mark.parametrize("what", ANNOUNCED)
async def test_announced_answer_takes_no_memory_and_ends_with_its_link(peer: Peer, serve: Serve, what: str) -> None:
    """Billions that never come are waited for no longer than anything else; nothing is reserved for them."""
    proxy, honest = await _serve(serve, peer, classed=True)
    stranger = await proxy.connect()
    _answer(peer, "HGETALL", ANNOUNCED[what])
    tracemalloc.start()
    try:
        await stranger.send("HGETALL", "huge")
        answer = await stranger.frame()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        peer.as_usual("HGETALL")

    assert answer.startswith(b"-ERR respite: upstream")
    assert peak < 4_000_000
    assert await _goes_on(honest)


async def test_own_step_that_is_answered_otherwise_fails_its_command(peer: Peer, serve: Serve) -> None:
    """Where we ask something ourselves before a client's command, nonsense in return is its error, and no wait."""
    proxy, honest = await _serve(serve, peer, classed=True)
    stranger = await proxy.connect()
    for nonsense in (b"*1\r\n" * 1000 + b":1\r\n", b"*1\r\n*3\r\n:1\r\n:2\r\n:3\r\n", b"*0\r\n", b":1\r\n", b"_\r\n"):
        _answer(peer, "EVAL", nonsense)

        assert (await stranger.command("EVAL", "return 1", "1", "key"))[:1] in b"-:_", nonsense[:20]
    assert await _goes_on(honest)


def _claiming(length: int) -> bytes:
    """Write an envelope whose header claims so much and whose body is of three bytes."""
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    return MAGIC + b"\x01\x01" + struct.pack("<Q", 0) + bytes([*varint, length]) + b"\0\0\0\0" + b"abc"


async def test_bomb_is_a_damaged_value_and_takes_no_memory(peer: Peer, serve: Serve) -> None:
    """What a header claims is held against what its body can become before anything is taken for it."""
    proxy, honest = await _serve(serve, peer, classed=True)
    stranger = await proxy.connect()
    honest_bytes = b"v" * 100_000
    sealed = wrap(honest_bytes, 0, codec=Codec.LZ4, body=lz4.block.compress(honest_bytes, store_size=False))
    tracemalloc.start()
    try:
        for length in (100_000, 500_000_000, 1 << 40):
            peer.on("GET", bulk(_claiming(length)))
            assert (await stranger.command("GET", f"bomb{length}")).startswith(b"-ERR respite: value of"), length
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4_000_000
    peer.on("GET", bulk(sealed))
    assert await stranger.command("GET", "fine") == bulk(honest_bytes)
    peer.as_usual("GET")
    assert await _goes_on(honest)
