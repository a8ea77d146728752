"""Clients who have not logged in: little time, little room, and the first to go when there is none."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import trio

from proxy.config.load import load_settings
from proxy.config.model import parse_endpoint
from proxy.config.users import ProxyUser
from proxy.errors import ConfigError
from proxy.wire.encode import command

from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import Client, make_settings
from .peer import Peer, until

PONG = b"+PONG\r\n"
USERS = (ProxyUser("app", "secret"),)


async def _log_in(client: Client) -> bool:
    return await client.command("AUTH", "app", "secret") == b"+OK\r\n" and await client.command("PING") == PONG


async def test_who_does_not_log_in_is_closed_and_who_has_is_not(peer: Peer, serve: Serve) -> None:
    """A silent stranger, one who trickles bytes, and one who tries wrong passwords are gone after auth_timeout."""
    proxy = await serve(peer, listen={"users": USERS, "auth_timeout_s": 0.4})
    friend, silent, slow, wrong = [await proxy.connect() for _ in range(4)]
    assert await _log_in(friend)
    began = trio.current_time()
    await slow.send_raw(b"*2\r\n$4\r\nAU")
    async with trio.open_nursery() as nursery:

        async def trickle() -> None:
            for byte in b"TH\r\n$3\r\n" * 1000:
                try:
                    await slow.stream.send_all(bytes([byte]))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(0.01)

        nursery.start_soon(trickle)
        assert b"WRONGPASS" in await wrong.command("AUTH", "app", "no")
        for client in (silent, slow, wrong):
            await client.until_closed()
        nursery.cancel_scope.cancel()

    assert trio.current_time() - began < 3
    assert await friend.command("PING") == PONG
    clients = proxy.stats()["clients"]
    assert (clients["connected"], clients["killed_unproven_total"], clients["killed_total"]) == (1, 3, 3)


async def test_who_need_not_log_in_may_be_silent(peer: Peer, serve: Serve) -> None:
    """A pool opens connections it uses later: without users, and without a password of Redis, nobody is a stranger."""
    proxy = await serve(peer, listen={"auth_timeout_s": 0.2})
    silent, spoken = await proxy.connect(), await proxy.connect()
    assert await spoken.command("PING") == PONG
    await until(lambda: not proxy.worker.door.strangers._since, "their time is over")

    assert await silent.command("PING") == await spoken.command("PING") == PONG


async def test_who_must_log_in_to_redis_itself_is_a_stranger_too(serve: Serve) -> None:
    """Where Redis asks for a password that our URL does not have, a client that got NOAUTH and stays is closed."""
    with Server(find_kind("redis7"), ServerOptions(password="pw")) as redis:
        proxy = await serve(f"redis://127.0.0.1:{redis.port}", listen={"auth_timeout_s": 0.6})
        stranger, friend = await proxy.connect(), await proxy.connect()
        assert await friend.command("AUTH", "pw") == b"+OK\r\n"
        assert (await stranger.command("GET", "k")).startswith(b"-NOAUTH")

        await stranger.until_closed()
        assert await friend.command("PING") == PONG


async def test_full_house_strangers_make_room(peer: Peer, serve: Serve) -> None:
    """Whoever fills all places without a password keeps nobody out who has one; friends are never closed for it."""
    proxy = await serve(peer, listen={"users": USERS, "auth_timeout_s": 600.0, "max_clients": 5})
    friends = [await proxy.connect() for _ in range(2)]
    assert [await _log_in(one) for one in friends] == [True] * 2
    crowd = [await proxy.connect() for _ in range(20)]

    late = await proxy.connect()
    assert await _log_in(late)
    assert await crowd[0].until_closed() == b""
    assert [await one.command("PING") for one in friends] == [PONG] * 2
    assert proxy.stats()["clients"]["connected"] <= 5
    more = [await proxy.connect() for _ in range(2)]
    assert [await _log_in(one) for one in more] == [True] * 2

    refused = await proxy.connect()
    assert b"max number of clients" in await refused.until_closed()


async def test_before_the_login_a_command_is_small(peer: Peer, serve: Serve) -> None:
    """Strangers make nothing grow: what is announced too large is refused before it comes, as Redis refuses it."""
    proxy = await serve(peer, listen={"users": USERS})
    for said in (b"*1000000000\r\n", b"*2\r\n$4\r\nAUTH\r\n$500000000\r\n", b"*11\r\n", command("AUTH", b"x" * 20_000)):
        stranger = await proxy.connect()
        await stranger.send_raw(said)
        assert b"-ERR Protocol error: " in await stranger.until_closed(), said[:30]


async def test_browser_that_is_made_to_talk_to_us_is_hung_up_on(redis: Server, serve: Serve) -> None:
    """A form of some page may post to this port; nothing of its body is run, not even what looks like commands."""
    proxy = await serve(redis)
    body = command("SET", "owned", "1")
    for line in (b"POST / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: 127.0.0.1:6380\r\n"):
        page = await proxy.connect()
        await page.send_raw(line + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert b"+OK" not in await page.until_closed()

    with redis.connect() as direct:
        assert direct.command("EXISTS", "owned") == b":0\r\n"


async def test_mode_of_a_unix_socket_is_that_of_its_url(peer: Peer, serve: Serve, tmp_path: Path) -> None:
    """`?mode=` says who may connect; it is so before anybody can."""
    path = tmp_path / "respite.sock"
    await serve(peer, make_settings(f"unix://{path}?mode=660"))

    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert parse_endpoint(f"unix://{path}?mode=0700").mode == 0o700


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1?mode=660", "unix:///x?mode=999", "unix:///x?mode=rw", "unix:///x?mode=7777"]
)
def test_mode_is_refused_where_it_means_nothing(url: str) -> None:
    """A TCP port has no rights, and three octal digits are what rights are."""
    with pytest.raises(ConfigError):
        load_settings(None, env={}, overrides={"listen.url": url})
    with pytest.raises(ConfigError):
        load_settings(None, env={}, overrides={"upstream.url": "unix:///x?mode=660"})
