"""Commands that are made of several: what becomes of them, and of the connection, where Redis refuses one of ours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.config.model import ClassSettings
from proxy.wire.encode import command

from ..e2e.raw import RawClient
from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import Proxy
from .outage_parts import settings_of
from .peer import until

CLASSES = (ClassSettings("k", ("k*",), version=True),)
OK, QUEUED = b"+OK\r\n", b"+QUEUED\r\n"
V = b"$1\r\nv\r\n"
REFUSED = "-NOPERM this user has no permissions to run the '{}' command\r\n"


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    """Run one server for all tests here, with a user for each right that is missing."""
    users = [f"user no-{name} on >pw ~* &* +@all -{name}" for name in ("discard", "eval", "multi", "watch", "exec")]
    with Server(find_kind("redis7"), ServerOptions(acl=users)) as server:
        yield server


def client_is_pinned(proxy: Proxy) -> bool:
    """Say whether any client holds a connection of its own."""
    return any(client.pin is not None for client in proxy.worker.clients)


@pytest.fixture(autouse=True)
def _keys(redis: Server) -> None:
    with RawClient(redis.address) as client:
        client.command("FLUSHALL")


@pytest.mark.parametrize("name", ["discard", "eval"])
async def test_connection_whose_queue_may_not_be_discarded_is_no_trap_for_the_next(
    redis: Server, serve: Serve, name: str
) -> None:
    """EXEC of what looks at bytes needs both; refused, nothing is done, and nothing is left of MULTI."""
    proxy = await serve(redis, settings_of(classes=CLASSES))
    client, other = await proxy.connect(), await proxy.connect()
    for one in (client, other):
        assert await one.command("AUTH", f"no-{name}", "pw") == OK
    assert await client.command("SET", "k1", "v") == OK

    assert await client.command("MULTI") == OK
    assert await client.command("STRLEN", "k1") == QUEUED
    assert await client.command("APPEND", "k1", "x") == QUEUED
    assert await client.command("EXEC") == REFUSED.format(name).encode()

    for one in (client, other):
        assert await one.command("BLPOP", "l", "0.01") == b"*-1\r\n"
        assert await one.command("MULTI") == OK
        assert await one.command("GET", "k1") == QUEUED
        assert await one.command("EXEC") == b"*1\r\n" + V


@pytest.mark.parametrize("name", ["multi", "watch", "exec", "eval"])
async def test_command_that_needs_a_transaction_is_not_done_without_it(redis: Server, serve: Serve, name: str) -> None:
    """Whoever reads an error may try again: the bytes must not have been appended."""
    proxy = await serve(redis, settings_of(classes=CLASSES))
    client = await proxy.connect()
    assert await client.command("AUTH", f"no-{name}", "pw") == OK
    assert await client.command("SET", "k1", "v") == OK

    assert REFUSED.format(name).encode()[1:] in await client.command("APPEND", "k1", "x")

    assert await client.command("GET", "k1") == V
    assert await client.command("BLPOP", "l", "0.01") == b"*-1\r\n"


@pytest.mark.parametrize("in_one_go", [False, True])
async def test_what_stands_behind_a_multi_that_is_refused_is_run_as_it_comes(
    redis: Server, serve: Serve, *, in_one_go: bool
) -> None:
    """It drops what depends on it, and the connection it has moved to another database is nobody else's."""
    classes = (ClassSettings("k", ("k*",), invalidates=("list",)),)
    proxy = await serve(redis, settings_of(classes=classes))
    client, other = await proxy.connect(), await proxy.connect()
    for one in (client, other):
        assert await one.command("AUTH", "no-multi", "pw") == OK
    assert await other.command("SET", "list", "old") == OK
    commands = [("MULTI",), ("SET", "k1", "v"), ("SELECT", "3"), ("SET", "there", "v"), ("EXEC",)]
    expected = [REFUSED.format("multi").encode(), OK, OK, OK, b"-ERR EXEC without MULTI\r\n"]

    if in_one_go:
        await client.send_raw(b"".join([command(*words) for words in commands]))
        assert await client.frames(5) == expected
    else:
        assert [await client.command(*words) for words in commands] == expected

    await until(lambda: not client_is_pinned(proxy), "the connection is given back")
    assert await client.command("GET", "there") == V
    assert await other.command("EVAL", "return redis.call('get', 'there')", "0") == b"$-1\r\n"
    assert await other.command("GET", "list") == b"$-1\r\n"
