"""The end of a worker under load: whoever has sent something is answered, wherever it is at that moment."""

from __future__ import annotations

import select
import socket

import pytest
import trio

from proxy.net.door import draining
from proxy.net.door.draining import QUIET_S
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, Proxy, within
from .peer import until

SET = command("SET", "k", "v")
OK = b"+OK\r\n"


def _is_listening(proxy: Proxy) -> bool:
    return any(listener._open for listener in proxy.worker.listeners)


async def _began(proxy: Proxy, nursery: trio.Nursery) -> trio.Event:
    """Begin to drain; return what is set when it is over."""
    over = trio.Event()

    async def drain() -> None:
        await proxy.worker.drain(30)
        over.set()

    nursery.start_soon(drain)
    await until(lambda: proxy.worker.draining and not _is_listening(proxy), "it drains")
    return over


async def test_client_that_was_not_accepted_yet_is_answered(redis: Server, serve: Serve) -> None:
    """It has connected and sent its request, as far as it knows: it waits in the kernel's queue at that moment."""
    proxy = await serve(redis)
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(SET)
        await within(proxy.worker.drain(30), "the drain")  # begins before the reactor runs again

        client.settimeout(5)
        assert client.recv(64) == OK
        assert client.recv(64) == b""


async def test_request_that_was_not_read_yet_is_answered(redis: Server, serve: Serve, nursery: trio.Nursery) -> None:
    """Its bytes are in the kernel when the client looks idle."""
    proxy = await serve(redis)
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.settimeout(5)
        client.sendall(SET)
        await until(lambda: bool(select.select([client], [], [], 0)[0]), "it is served")
        assert client.recv(64) == OK
        await trio.sleep(QUIET_S * 2)  # it has been quiet for long enough to be let go at once
        client.sendall(SET * 3)
        await within(proxy.worker.drain(30), "the drain")

        assert b"".join(iter(lambda: client.recv(64), b"")) == OK * 3


async def test_half_a_request_is_waited_for(redis: Server, serve: Serve, nursery: trio.Nursery) -> None:
    """A command in two pieces, short or long, is whole when the second one comes."""
    proxy = await serve(redis)
    long = command("SET", "long", b"x" * 100_000)
    short_client, long_client = await proxy.connect(), await proxy.connect()
    for client, request in ((short_client, SET), (long_client, long)):
        assert await client.command("PING") == b"+PONG\r\n"
        await client.send_raw(request[: len(request) // 2])
    over = await _began(proxy, nursery)
    with trio.move_on_after(QUIET_S * 4):
        await over.wait()
    assert not over.is_set()

    await short_client.send_raw(SET[len(SET) // 2 :])
    await long_client.send_raw(long[len(long) // 2 :])

    assert await short_client.until_closed() == OK
    assert await long_client.until_closed() == OK
    await within(over.wait(), "the drain")


async def test_subscriber_that_asks_is_answered_first(redis: Server, serve: Serve, nursery: trio.Nursery) -> None:
    """It would be let go at once; what it has sent was run, and is told."""
    proxy = await serve(redis)
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.settimeout(5)
        client.sendall(command("HELLO", "3"))
        await until(lambda: bool(select.select([client], [], [], 0)[0]), "it is served")
        client.recv(4096)
        client.sendall(command("SUBSCRIBE", "news"))
        await until(lambda: bool(select.select([client], [], [], 0)[0]), "it has subscribed")
        client.recv(4096)
        client.sendall(SET * 3)
        await within(proxy.worker.drain(30), "the drain")

        assert b"".join(iter(lambda: client.recv(64), b"")) == OK * 3


async def test_busy_client_is_closed_between_two_requests_only(
    redis: Server, serve: Serve, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never pauses is closed after a while, right after a reply: what was run was answered."""
    monkeypatch.setattr(draining, "BUSY_S", 0.2)
    monkeypatch.setattr(draining, "QUIET_S", 3600.0)
    proxy = await serve(redis)
    client = await proxy.connect()
    assert await client.command("DEL", "n") == b":0\r\n"
    over = await _began(proxy, nursery)
    answered = 0
    try:
        while True:
            assert await client.command("INCR", "n") == b":%d\r\n" % (answered + 1)
            answered += 1
    except (AssertionError, trio.BrokenResourceError):
        pass

    await within(over.wait(), "the drain")
    assert answered > 10
    with redis.connect() as direct:
        assert direct.command("GET", "n").split(b"\r\n")[1] == b"%d" % answered


async def test_client_between_two_requests_is_given_a_moment(
    redis: Server, serve: Serve, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second request follows at once: it was on its way, and is answered before the connection is closed."""
    monkeypatch.setattr(draining, "QUIET_S", 0.5)  # a loaded machine may take long between two steps of ours
    proxy = await serve(redis)
    client: Client = await proxy.connect()
    assert await client.command("PING") == b"+PONG\r\n"
    over = await _began(proxy, nursery)
    for _ in range(5):
        assert await client.command("PING") == b"+PONG\r\n"
        await trio.sleep(QUIET_S / 2)

    assert await client.until_closed() == b""
    await within(over.wait(), "the drain")
