"""What somebody may take who has not logged in: tries, time of others, connections to Redis, memory."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from proxy.config.passwords import PasswordHash
from proxy.config.users import ProxyUser
from proxy.net.clients.client import RECV_MAX, STRANGER_BYTES, ClientConnection
from proxy.net.door.logins import OF_ADDRESS, TOO_MANY
from proxy.wire.encode import command

from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import Client, Proxy
from .peer import Peer, until
from .test_logins import NOAUTH, OK, PONG, USERS, WRONGPASS
from .test_rates import _reload

HELLO_NOAUTH = b"-NOAUTH HELLO must be called with the client already authenticated"


@contextmanager
def _held_tries(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no try end before the event is set, or the test over."""
    held = threading.Event()
    matches = PasswordHash.matches

    def waits(self: PasswordHash, password: bytes) -> bool:
        return held.wait(10) and matches(self, password)

    monkeypatch.setattr(PasswordHash, "matches", waits)
    try:
        yield held
    finally:
        held.set()


async def _guess(proxy: Proxy, count: int) -> None:
    """Have so many clients try a password of their own, and leave before they are answered."""
    for number in range(count):
        before = proxy.worker.login_desk._under_way, proxy.worker.stats.logins_refused
        client = await proxy.connect()
        await client.send("AUTH", "app", f"guess-{number}")
        await until(
            lambda before=before: before != (proxy.worker.login_desk._under_way, proxy.worker.stats.logins_refused),
            "it is tried or refused",
        )
        _reset(client)
        await until(lambda: len(proxy.worker.clients) == 0, "it has left")


def _reset(client: Client) -> None:
    """Leave without a farewell."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _only(proxy: Proxy) -> ClientConnection:
    (found,) = proxy.worker.clients
    return found


async def test_logins_of_clients_that_have_left_count_for_their_address(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who guesses and leaves at once gets no more tries, and takes those of other addresses from nobody."""
    with _held_tries(monkeypatch) as held:
        proxy = await serve(peer, listen={"users": USERS})
        await _guess(proxy, OF_ADDRESS + 4)
        assert (proxy.worker.login_desk._under_way, proxy.worker.stats.logins_refused) == (OF_ADDRESS, 4)
        held.set()
        await until(lambda: proxy.worker.stats.logins_failed == OF_ADDRESS, "all have failed")

    (origin,) = proxy.worker.door.origins.remembered
    assert origin.failures == OF_ADDRESS


async def test_clients_that_have_left_are_not_kept_while_a_password_they_gave_is_tried(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is what they had sent: a storm of those who come and go costs no memory."""
    monkeypatch.setattr("proxy.net.door.logins.LOOKED_OVER", 4)
    with _held_tries(monkeypatch):
        proxy = await serve(peer, listen={"users": USERS})
        for _ in range(20):
            client = await proxy.connect()
            await client.send("AUTH", "app", "wrong")
            await until(lambda: any(one.parked for one in proxy.worker.clients), "it waits")
            await client.send_raw(b"*2\r\n$4\r\nECHO\r\n$9000\r\n" + b"x" * 8000)
            await until(lambda: any(one._tail for one in proxy.worker.clients), "half a command is there")
            _reset(client)
            await until(lambda: len(proxy.worker.clients) == 0, "it has left")
        (waiting,) = proxy.worker.login_desk._tries.values()

    assert len(waiting) <= 5
    assert {one._tail for one in waiting} == {b""}


async def test_full_desk_lets_in_who_is_known_from_where_nobody_has_failed(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood from everywhere keeps out who is new; an address that has given a wrong password has had its guess."""
    monkeypatch.setattr("proxy.net.door.logins.OF_ALL", 1)
    with _held_tries(monkeypatch):
        proxy = await serve(peer, listen={"users": USERS})
        flood = await proxy.connect()
        await flood.send("AUTH", "app", "guess")
        await until(lambda: proxy.worker.login_desk._under_way == 1, "it is tried")

        assert await (await proxy.connect()).command("AUTH", "plain", "three") == OK
        assert await (await proxy.connect()).command("AUTH", "plain", "four") == TOO_MANY
        assert await (await proxy.connect()).command("AUTH", "plain", "three") == TOO_MANY


async def test_all_who_gave_a_right_password_are_let_in_though_their_address_is_full(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first of them asks for next takes the last place: the others were tried already."""
    with _held_tries(monkeypatch) as held:
        proxy = await serve(peer, listen={"users": USERS})
        first, second = await proxy.connect(), await proxy.connect()
        await first.send_raw(command("AUTH", "app", "one") + command("AUTH", "app", "wrong"))
        await until(lambda: proxy.worker.login_desk._under_way == 1, "it is tried")
        await second.send("AUTH", "app", "one")
        await until(lambda: all(client.parked for client in proxy.worker.clients), "both wait")
        monkeypatch.setattr("proxy.net.door.logins.OF_ADDRESS", 1)
        held.set()

        assert [await second.frame(), await first.frame(), await first.frame()] == [OK, OK, WRONGPASS]


@pytest.mark.parametrize("error", [ValueError("memory limit exceeded"), MemoryError()])
async def test_password_that_cannot_be_tried_is_wrong_and_ends_nobody(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Where there is no memory for a try, who is in goes on."""

    def fails(self: PasswordHash, password: bytes) -> bool:
        raise error

    monkeypatch.setattr(PasswordHash, "matches", fails)
    proxy = await serve(peer, listen={"users": USERS})
    client, inside = await proxy.connect(), await proxy.connect()
    assert await inside.command("AUTH", "plain", "three") == OK

    assert await client.command("AUTH", "app", "one") == WRONGPASS
    assert await inside.command("PING") == PONG


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("HELLO", "3", "SETNAME", "AUTH"), HELLO_NOAUTH),
        (("HELLO", "3", "SETNAME", "x"), HELLO_NOAUTH),
        (("HELLO", "3", "AUTH"), b"-ERR Syntax error in HELLO option 'AUTH'"),
        (("RESET", "AUTH"), b"-ERR wrong number of arguments for 'reset' command"),
    ],
)
async def test_stranger_gets_no_connection_to_redis(
    peer: Peer, serve: Serve, words: tuple[str, ...], expected: bytes
) -> None:
    """Whatever it sends without a password is answered here."""
    proxy = await serve(peer, listen={"users": USERS})
    client = await proxy.connect()

    assert (await client.command(*words)).startswith(expected)
    assert proxy.links("pinned") == []


async def test_stranger_that_waits_for_its_login_is_read_no_further(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what it sends behind it little is kept, and all of it is answered."""
    with _held_tries(monkeypatch) as held:
        proxy = await serve(peer, listen={"users": USERS})
        client = await proxy.connect()
        data = command("AUTH", "app", "one") + command("ECHO", "x" * 16_000) * 400
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.stream.send_all, data)
            await until(lambda: any(one._backpressed for one in proxy.worker.clients), "it is read no further")
            await trio.sleep(0.1)
            kept = sum(len(raw) for _, raw in _only(proxy)._backlog)
            held.set()
            assert await client.frame() == OK
            replies = await client.frames(400)

    assert kept <= STRANGER_BYTES + 2 * RECV_MAX
    assert len(replies) == 400


async def test_stranger_that_does_not_read_is_read_no_further(peer: Peer, serve: Serve) -> None:
    """Its NOAUTHs do not pile up, and come once it reads."""
    proxy = await serve(peer, listen={"users": USERS, "auth_timeout_s": 600.0})
    client = await proxy.connect_narrow()
    most = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.stream.send_all, command("X") * 300_000)
        await until(lambda: any(one._backpressed for one in proxy.worker.clients), "it is held back", timeout_s=20.0)
        for _ in range(20):
            await trio.sleep(0.005)
            most = max(most, proxy.worker.unread_bytes)
        assert await client.exactly(len(NOAUTH) * 1000) == NOAUTH * 1000
        nursery.cancel_scope.cancel()

    assert 0 < most <= STRANGER_BYTES + 2 * RECV_MAX // len(command("X")) * len(NOAUTH)


async def test_stranger_makes_room_behind_many_who_have_logged_in(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many have come just before it."""
    monkeypatch.setattr("proxy.net.door.strangers._LOOKED_AT", 2)
    proxy = await serve(peer, listen={"users": USERS, "auth_timeout_s": 600.0, "max_clients": 6})
    for _ in range(5):
        assert await (await proxy.connect()).command("AUTH", "plain", "three") == OK
    stranger = await proxy.connect()
    await until(lambda: len(proxy.worker.clients) == 6, "it has a place")

    assert await (await proxy.connect()).command("AUTH", "plain", "three") == OK
    assert await stranger.until_closed() == b""


async def test_who_is_silent_where_redis_asks_for_a_password_is_a_stranger(serve: Serve) -> None:
    """Nobody must have said a word for that."""
    with Server(find_kind("redis7"), ServerOptions(password="pw")) as redis:
        proxy = await serve(f"redis://127.0.0.1:{redis.port}", listen={"auth_timeout_s": 0.5})
        silent, friend = await proxy.connect(), await proxy.connect()
        assert await friend.command("AUTH", "pw") == OK

        assert await silent.until_closed() == b""
        assert await friend.command("PING") == PONG


async def test_who_has_not_logged_in_when_users_are_taken_away_is_in(peer: Peer, serve: Serve) -> None:
    """Redis decides from then on, of old connections as of new ones."""
    proxy = await serve(peer, listen={"users": (ProxyUser("a", "pw"),)})
    client: Client = await proxy.connect()
    assert await client.command("PING") == NOAUTH

    _reload(proxy, users=())

    assert await client.command("PING") == PONG
