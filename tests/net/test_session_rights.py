"""Rights that change under a session: inside MULTI, by a reload, by what the server says of its commands."""

from __future__ import annotations

import pytest

from proxy.errors import LOGIN_IN_MULTI
from proxy.wire.commands import CommandTable
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, warm
from .peer import Peer, until
from .test_logins import USERS
from .test_rates import _reload

OK = b"+OK\r\n"
QUEUED = b"+QUEUED\r\n"
DEFAULT = b"$7\r\ndefault\r\n"


async def _whoami_in_multi(client: Client) -> bytes:
    await client.send_raw(command("MULTI") + command("ACL", "WHOAMI") + command("EXEC"))
    return (await client.frames(3))[2]


async def test_login_inside_multi_is_for_nobody_else(redis: Server, serve: Serve) -> None:
    """The link that has become another user stays with who did that, and is closed with it."""
    proxy = await serve(redis)
    client, other = await proxy.connect(), await proxy.connect()

    await client.send_raw(command("MULTI") + command("AUTH", "alice", "pw") + command("EXEC"))

    assert await client.frames(3) == [OK, QUEUED, b"*1\r\n" + OK]
    assert await _whoami_in_multi(other) == b"*1\r\n" + DEFAULT
    assert await client.command("ACL", "WHOAMI") == b"$5\r\nalice\r\n"
    client.close()
    await until(lambda: len(proxy.worker.clients) == 1, "it has left")
    assert await _whoami_in_multi(other) == b"*1\r\n" + DEFAULT


async def test_protocol_that_is_changed_inside_multi_is_for_nobody_else(redis: Server, serve: Serve) -> None:
    """The next one who gets a connection of its own is answered in its own protocol."""
    proxy = await serve(redis)
    client, other = await proxy.connect(), await proxy.connect()

    await client.send_raw(command("MULTI") + command("HELLO", "3") + command("EXEC"))
    assert (await client.frames(3))[2].startswith(b"*1\r\n%")

    await other.send_raw(command("MULTI") + command("CONFIG", "GET", "maxmemory") + command("EXEC"))
    assert (await other.frames(3))[2] == b"*1\r\n*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n"
    assert (await client.command("CONFIG", "GET", "maxmemory")).startswith(b"%1")


@pytest.mark.parametrize("words", [("AUTH", "plain", "three"), ("HELLO", "3", "AUTH", "plain", "three")])
async def test_login_of_our_own_users_inside_multi_is_refused_here(
    peer: Peer, serve: Serve, words: tuple[str, ...]
) -> None:
    """Redis never sees the password; EXEC is refused as after any error."""
    proxy = await serve(peer, listen={"users": USERS})
    client = await proxy.connect()
    assert await client.command("AUTH", "app", "one") == OK
    assert await client.command("MULTI") == OK

    assert await client.command(*words) == LOGIN_IN_MULTI

    await client.command("EXEC")
    assert not any(b"three" in one.words for name in ("AUTH", "HELLO") for one in peer.seen(name))
    assert [one.session.proxy_user for one in proxy.worker.clients] == [b"app"]


async def test_what_was_queued_before_it_was_denied_is_not_run(redis: Server, serve: Serve) -> None:
    """EXEC asks again, as Redis does; what is still allowed is run, and the next goes by the rights of its own time."""
    proxy = await serve(redis)
    client = await proxy.connect()
    await client.command("SET", "k", "v")
    await client.command("MULTI")
    assert await client.command("DEL", "k") == QUEUED

    _reload(proxy, deny_commands=("del",))

    assert (await client.command("EXEC")).startswith(b"-EXECABORT")
    assert await client.command("GET", "k") == b"$1\r\nv\r\n"
    await client.send_raw(command("MULTI") + command("GET", "k"))
    assert await client.frames(2) == [OK, QUEUED]
    _reload(proxy, deny_commands=("del", "keys"))
    assert await client.command("EXEC") == b"*1\r\n$1\r\nv\r\n"


async def test_read_that_is_denied_once_the_server_has_told_of_it_is_not_served_from_l1(
    redis: Server, serve: Serve
) -> None:
    """Who came before the server told its commands is looked at from then on like those who came after."""
    proxy = await serve(redis, listen={"deny_commands": ("hget",)})
    worker = proxy.worker
    told = worker.table
    worker.control.on_table(CommandTable.builtin())
    client = await proxy.connect()
    await warm(client)
    assert not any(one.checked for one in worker.clients)

    worker.control.on_table(told)

    assert all(one.checked for one in worker.clients)
    assert (await client.command("HGET", "h", "f")).startswith(b"-NOPERM")
