"""One stream's way out, over two sockets of this machine."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import attrs
import pytest
import trio
import trio.testing

from proxy.admin.outlet import Outlet


@attrs.define
class _Pair:
    """An outlet, the peer that should read, and what the outlet has told."""

    outlet: Outlet
    ours: trio.SocketStream
    peer: trio.SocketStream
    told: list[str]

    async def read(self, size: int) -> bytes:
        """Read so much on the other side, and let the outlet go on meanwhile."""
        data = b""
        with trio.fail_after(10):
            while len(data) < size:
                data += await self.peer.receive_some(1 << 20)
                self.outlet.flush()
        return data


@pytest.fixture
async def pair() -> AsyncIterator[_Pair]:
    """Open a connection, with an outlet on one side."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    peer = await trio.open_tcp_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
    ours = await listeners[0].accept()
    await listeners[0].aclose()
    told: list[str] = []
    outlet = Outlet(ours, lambda: told.append("stalled"), lambda: told.append("broken"))
    outlet.tune(10)
    yield _Pair(outlet, ours, peer, told)
    await ours.aclose()
    await peer.aclose()


async def test_write_that_is_taken_leaves_nothing(pair: _Pair) -> None:
    """Most writes are one system call."""
    pair.outlet.write(b"hello")

    assert await pair.read(5) == b"hello"
    assert (pair.outlet.is_stalled, pair.told) == (False, [])


async def test_write_that_is_not_taken_waits_in_order(pair: _Pair) -> None:
    """What the socket does not take is kept, told once, and sent before what comes after it."""
    large = bytes(range(256)) * (1 << 13)
    pair.outlet.write(large)
    pair.outlet.write(b"after")

    assert (pair.outlet.is_stalled, pair.told) == (True, ["stalled"])
    assert await pair.read(len(large) + 5) == large + b"after"
    assert not pair.outlet.is_stalled


async def test_write_to_a_full_socket_waits_whole(pair: _Pair) -> None:
    """A socket that takes not one byte loses none."""
    filled = 0
    raw = socket.socket(fileno=socket.dup(pair.ours.socket.fileno()))
    with raw:
        while True:
            try:
                filled += raw.send(b"x" * 100_000)
            except BlockingIOError:
                break
    pair.outlet.write(b"whole")

    assert pair.told == ["stalled"]
    assert (await pair.read(filled + 5)).endswith(b"xwhole")


async def test_write_aside_is_dropped_where_much_waits(pair: _Pair) -> None:
    """Who asks and asks and does not read gets no answers, and takes no memory."""
    large = b"x" * (2 << 20)
    pair.outlet.write(large)
    for _ in range(1000):
        pair.outlet.write_aside(b"pong" * 25)
    await pair.read(len(large))
    pair.outlet.write_aside(b"pong")

    with trio.fail_after(10):
        assert await pair.peer.receive_some(100) == b"pong"


async def test_write_aside_takes_what_is_large_where_nothing_waits(pair: _Pair) -> None:
    """An answer is dropped for who does not read, not for its size."""
    pair.outlet.write_aside(b"x" * 10_000)

    assert await pair.read(10_000) == b"x" * 10_000


@pytest.mark.parametrize("ends", ["flushed", "closed"])
async def test_wait_taken_returns_when_nothing_waits(pair: _Pair, ends: str) -> None:
    """Who must say something waits for its turn, and for nobody who has gone."""
    large = b"x" * (2 << 20)
    with trio.fail_after(10):
        await pair.outlet.wait_taken()
        pair.outlet.write(large)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pair.outlet.wait_taken)
            await trio.testing.wait_all_tasks_blocked()
            waits = len(nursery.child_tasks)
            if ends == "flushed":
                await pair.read(len(large))
            else:
                pair.outlet.close()

    assert waits == 1


async def test_write_to_a_broken_socket_is_told(pair: _Pair) -> None:
    """A peer that has gone is found out by the write, which takes all: nobody waits for it."""
    await pair.peer.aclose()
    with trio.fail_after(10):
        while not pair.told:
            pair.outlet.write(b"x" * 1000)
            await trio.sleep(0.001)
    pair.outlet.write(b"more")

    assert (pair.told, pair.outlet.is_stalled) == (["broken"], False)


async def test_closed_outlet_writes_nothing(pair: _Pair) -> None:
    """After its end nothing reaches the socket, whoever has it then."""
    pair.outlet.close()
    pair.outlet.write(b"late")
    pair.outlet.flush()
    await pair.ours.send_eof()

    with trio.fail_after(10):
        assert await pair.peer.receive_some(100) == b""


async def test_tuned_socket_keeps_little(pair: _Pair) -> None:
    """A thousand streams that nobody reads take tens of megabytes of the kernel, not gigabytes."""
    assert pair.ours.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 256 * 1024
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        assert pair.ours.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
