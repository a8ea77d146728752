"""Logins of listen.users: passwords that are tried elsewhere, failures that come late, floods that stall nobody."""

from __future__ import annotations

import secrets
import time
from functools import cache
from typing import Any

import attrs
import pytest
import trio

from proxy.config.passwords import PasswordHash
from proxy.config.users import ProxyUser
from proxy.net.door.logins import TOO_MANY
from proxy.wire.encode import command

from .conftest import Serve
from .driver import Client, Proxy
from .peer import Peer

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"
WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


@cache
def quick_hash(password: str) -> PasswordHash:
    """Hash a password with so little work that a test can afford it."""
    salt = secrets.token_bytes(16)
    empty = PasswordHash(10, 8, 1, salt, bytes(32))
    return attrs.evolve(empty, digest=empty._of(password.encode()))


def hashed(name: str, password: str) -> ProxyUser:
    """Return a user whose password is kept as a hash."""
    return ProxyUser(name, password_hash=quick_hash(password))


USERS = (hashed("app", "one"), hashed("default", "two"), ProxyUser("plain", "three"))


async def _proxy(serve: Serve, peer: Peer, **listen: Any) -> Proxy:
    return await serve(peer, listen={"users": USERS, **listen})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("AUTH", "app", "one"), OK),
        (("AUTH", "two"), OK),
        (("AUTH", "plain", "three"), OK),
        (("AUTH", "app", "two"), WRONGPASS),
        (("AUTH", "one"), WRONGPASS),
        (("AUTH", "plain", "one"), WRONGPASS),
        (("AUTH", "nobody", "one"), WRONGPASS),
        (("AUTH", "app", str(quick_hash("one"))), WRONGPASS),
        (("HELLO", "2", "AUTH", "app", "wrong"), WRONGPASS),
    ],
)
async def test_login_is_answered_and_then_what_stands_behind_it(
    peer: Peer, serve: Serve, words: tuple[str, ...], expected: bytes
) -> None:
    """In order, in one pipeline; the hash itself is no password."""
    client = await (await _proxy(serve, peer)).connect()

    await client.send_raw(command("PING") + command(*words) + command("PING") + command("NOSUCH"))

    replies = await client.frames(3)
    assert replies == [NOAUTH, expected, PONG if expected == OK else NOAUTH]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_login_by_hello_sets_the_protocol_and_the_name(peer: Peer, serve: Serve, protocol: int) -> None:
    """Redis never sees the password, in whatever order the options stand."""
    proxy = await _proxy(serve, peer)
    client = await proxy.connect()

    for words in (("AUTH", "app", "one", "SETNAME", "x"), ("SETNAME", "x", "AUTH", "app", "one")):
        assert (await client.command("HELLO", protocol, *words))[:1] == (b"%" if protocol == 3 else b"*")
        assert await client.command("CLIENT", "GETNAME") == b"$1\r\nx\r\n"
    assert not any(b"one" in word for seen in peer.seen("HELLO") for word in seen.words)


async def test_login_while_a_transaction_is_open_is_refused_as_by_redis(peer: Peer, serve: Serve) -> None:
    """AUTH in MULTI goes to Redis, which has it refused; the session stays who it was."""
    proxy = await _proxy(serve, peer)
    client = await proxy.connect()
    assert await client.command("AUTH", "app", "one") == OK
    await client.command("MULTI")

    await client.command("AUTH", "plain", "three")

    (found,) = proxy.worker.clients
    assert found.session.proxy_user == b"app"


async def test_failed_logins_of_an_address_are_answered_later_and_later(peer: Peer, serve: Serve) -> None:
    """A quarter of a second, then twice that, whoever of the address it was, and however he comes again."""
    proxy = await _proxy(serve, peer)
    waited = []
    for _ in range(3):
        client = await proxy.connect()
        began = trio.current_time()
        assert await client.command("AUTH", "app", "wrong") == WRONGPASS
        waited.append(trio.current_time() - began)
        client.close()

    assert [0.25 <= waited[0] < 0.5, 0.5 <= waited[1] < 1.0, 1.0 <= waited[2] < 2.0] == [True] * 3
    client = await proxy.connect()
    began = trio.current_time()
    assert await client.command("AUTH", "app", "one") == OK
    assert trio.current_time() - began < 0.25
    assert proxy.stats()["clients"]["logins_failed_total"] == 3


async def test_flood_of_logins_is_refused_untried_and_stalls_nobody(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is in goes on; of the flood few are tried, and a right password is refused like a wrong one."""
    monkeypatch.setattr("proxy.net.door.logins.OF_ADDRESS", 3)
    monkeypatch.setattr("proxy.core.rights.origins.DELAY_S", 2.0)
    monkeypatch.setattr(PasswordHash, "matches", lambda *_: time.sleep(0.5) or False)
    proxy = await _proxy(serve, peer)
    inside = await proxy.connect()
    assert await inside.command("AUTH", "plain", "three") == OK
    flood = [await proxy.connect() for _ in range(60)]
    for number, client in enumerate(flood):
        await client.send("AUTH", "app", f"guess-{number}")
    late = await proxy.connect()
    await late.send("AUTH", "plain", "three")
    slowest = 0.0
    for _ in range(50):
        began = trio.current_time()
        assert await inside.command("PING") == PONG
        slowest = max(slowest, trio.current_time() - began)

    assert await late.frame() == TOO_MANY
    replies = [await client.frame(10.0) for client in flood]
    assert (replies.count(WRONGPASS), replies.count(TOO_MANY)) == (3, 57)
    assert slowest < 0.5
    clients = proxy.stats()["clients"]
    assert (clients["logins_failed_total"], clients["logins_refused_total"]) == (3, 58)


async def test_pool_of_connections_with_one_password_is_one_try(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All get in with the first; later ones are known."""
    tries: list[bytes] = []
    matches = PasswordHash.matches

    def counted(self: PasswordHash, password: bytes) -> bool:
        tries.append(password)
        return matches(self, password)

    monkeypatch.setattr(PasswordHash, "matches", counted)
    proxy = await _proxy(serve, peer)
    pool = [await proxy.connect() for _ in range(40)]
    for client in pool:
        await client.send("AUTH", "app", "one")

    assert [await client.frame() for client in pool] == [OK] * 40
    assert await (await proxy.connect()).command("AUTH", "app", "one") == OK
    assert tries == [b"one"]


async def test_client_that_leaves_while_its_password_is_tried_is_forgotten(peer: Peer, serve: Serve) -> None:
    """Nobody waits for it, and the next login of its address is tried."""
    proxy = await _proxy(serve, peer)
    client = await proxy.connect()
    await client.send("AUTH", "app", "wrong")
    await trio.testing.wait_all_tasks_blocked(0.02)
    client.close()
    other = await proxy.connect()

    assert await other.command("AUTH", "app", "one") == OK
    await _until_alone(proxy)
    assert await other.command("PING") == PONG


async def _until_alone(proxy: Proxy) -> None:
    with trio.fail_after(5):
        while len(proxy.worker.clients) > 1 or any(origin.logins for origin in proxy.worker.door.origins):
            await trio.sleep(0.01)


async def test_failed_login_does_not_end_what_was_logged_in_before(peer: Peer, serve: Serve) -> None:
    """As in Redis the session stays who it was."""
    client = await (await _proxy(serve, peer)).connect()
    assert await client.command("AUTH", "app", "one") == OK

    assert await client.command("AUTH", "app", "wrong") == WRONGPASS

    assert await client.command("PING") == PONG


async def test_login_after_the_hash_was_changed_by_a_reload_is_tried_anew(peer: Peer, serve: Serve) -> None:
    """What was known of the old password lets nobody in."""
    proxy = await _proxy(serve, peer)
    client = await proxy.connect()
    assert await client.command("AUTH", "app", "one") == OK
    worker = proxy.worker
    worker.reactor.enter()
    changed = attrs.evolve(worker.settings.listen, users=(hashed("app", "new"),))
    worker.apply(attrs.evolve(worker.settings, listen=changed))

    assert await _login(proxy, "one") == WRONGPASS
    assert await _login(proxy, "new") == OK
    assert await client.command("PING") == PONG


async def _login(proxy: Proxy, password: str) -> bytes:
    client: Client = await proxy.connect()
    return await client.command("AUTH", "app", password)
