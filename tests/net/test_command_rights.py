"""Commands that may not be run here: denied whatever way they come, everything else as ever. Against a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from proxy.config.command_words import read_command_rules
from proxy.config.model import ProxyUser
from proxy.wire.encode import command

from ..e2e.raw import RawClient
from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import Client, Proxy, warm

OK = b"+OK\r\n"
V = b"$1\r\nv\r\n"
QUEUED = b"+QUEUED\r\n"
DENIED = "-NOPERM respite: this proxy does not let clients run '{}' (listen.deny_commands)\r\n"
EXECABORT = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
ACL = ["user monitor on >pw ~* &* -@all +@connection +config|get", "user boss on >pw ~* &* +@all"]
RESPITE = {
    *("HELP", "INFO", "STATS", "EXPLAIN k", "VERSION k", "CLIENTS", "LINKS"),
    *("INVALIDATE KEY k", "INVALIDATE MATCH x*", "INVALIDATE TAG x", "L1 CLEAR", "RELOAD", "SETV k 1 v"),
}
CHANGING = {"INVALIDATE KEY k", "INVALIDATE MATCH x*", "INVALIDATE TAG x", "L1 CLEAR", "RELOAD", "SETV k 1 v"}


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    """Run one server for all tests here."""
    with Server(find_kind("redis7"), ServerOptions(acl=ACL)) as server:
        yield server


@pytest.fixture(autouse=True)
def _keys(redis: Server) -> None:
    with RawClient(redis.address) as client:
        client.command("FLUSHALL")
        client.command("SET", "k", "v")
        client.command("HSET", "h", "f", "v")


def _denied(name: str) -> bytes:
    return DENIED.format(name).encode()


def _user(name: str, *commands: str, **more: Any) -> ProxyUser:
    return ProxyUser(name, "pw", None, read_command_rules(list(commands)), **more)


@pytest.mark.parametrize(
    "raw",
    [
        command("FLUSHALL"),
        command("fLuShAlL", "ASYNC"),
        b"flushall\r\n",
        b"  FLUSHALL  async\r\n",
        b"*1\r\n$8\r\nFlushall\r\n",
    ],
)
async def test_denied_command_is_refused_however_it_is_spelt(redis: Server, serve: Serve, raw: bytes) -> None:
    """Any case, inline, in pieces, alone or in the middle of a pipeline; what stands around it is answered."""
    proxy = await serve(redis, listen={"deny_commands": ("flushall",)})
    client = await proxy.connect()

    await client.send_raw(command("GET", "k") + raw + command("SET", "a", "b") + raw + command("GET", "k"))
    assert await client.frames(5) == [V, _denied("flushall"), OK, _denied("flushall"), V]
    for byte in raw:
        await client.send_raw(bytes([byte]))
    assert await client.frame() == _denied("flushall")
    assert proxy.stats()["commands"]["denied_total"] == 3


@pytest.mark.parametrize("protocol", [2, 3])
async def test_denied_read_is_not_served_from_l1(redis: Server, serve: Serve, protocol: int) -> None:
    """A hit is refused as a miss is, in each way that L1 answers; other reads go on being answered from it."""
    users = (_user("all"), _user("some", "-get"))
    proxy = await serve(redis, listen={"users": users})
    everything, some = await proxy.connect(), await proxy.connect()
    for client, name in ((everything, "all"), (some, "some")):
        assert (await client.command("HELLO", protocol, "AUTH", name, "pw"))[:1] in b"*%"
    assert await warm(everything, "k") == V
    refusal = b"-NOPERM respite: user 'some' may not run 'get' here (listen.users)\r\n"

    for raw in (command("GET", "k"), command("get", "k"), b"GET k\r\n", command("GET", "k") * 3):
        await some.send_raw(raw)
        assert await some.frames(raw.count(b"k")) == [refusal] * raw.count(b"k")
    hits = proxy.worker.stats.hits
    for _ in range(5):
        assert await some.command("HGET", "h", "f") == V
    assert proxy.stats()["commands"]["denied_by_user_total"] == {"some": 6}
    assert proxy.worker.stats.hits > hits
    assert await everything.command("GET", "k") == V


async def test_denied_in_multi_makes_exec_abort(redis: Server, serve: Serve) -> None:
    """As in Redis: the error comes where it was queued, and EXEC applies nothing."""
    proxy = await serve(redis, listen={"deny_commands": ("del",)})
    client = await proxy.connect()

    await client.send_raw(
        b"".join(command(*words) for words in (("MULTI",), ("SET", "k", "w"), ("DEL", "k"), ("EXEC",)))
    )

    assert await client.frames(4) == [OK, QUEUED, _denied("del"), EXECABORT]
    assert await client.command("GET", "k") == V
    assert await client.command("MULTI") == OK
    assert await client.command("DEL", "k") == _denied("del")
    assert await client.command("DISCARD") == OK
    await client.command("MULTI")
    assert await client.command("GET", "k") == QUEUED
    assert await client.command("EXEC") == b"*1\r\n" + V


async def test_denied_multi_watch_and_exec_are_refused_like_the_others(redis: Server, serve: Serve) -> None:
    """Commands that need a connection of their own get none."""
    proxy = await serve(redis, listen={"deny_commands": ("multi", "watch", "blpop", "subscribe", "monitor", "eval")})
    client = await proxy.connect()

    for line in ("MULTI", "WATCH k", "BLPOP l 0", "SUBSCRIBE c", "MONITOR", "EVAL return 0"):
        name, *rest = line.split()
        assert await client.command(name, *rest) == _denied(name.lower())
    assert proxy.stats()["clients"]["pinned"] == 0


async def test_denied_on_a_connection_of_its_own_is_refused_there(redis: Server, serve: Serve) -> None:
    """To a subscriber of RESP3, and to one who watches a key."""
    proxy = await serve(redis, listen={"deny_commands": ("del",)})
    watcher, subscriber = await proxy.connect(), await proxy.connect()

    assert await watcher.command("WATCH", "k") == OK
    assert await watcher.command("DEL", "k") == _denied("del")
    await subscriber.command("HELLO", 3)
    await subscriber.command("SUBSCRIBE", "c")
    assert await subscriber.command("DEL", "k") == _denied("del")
    assert await subscriber.command("GET", "k") == V


async def test_denied_to_one_who_monitors_ends_the_connection(redis: Server, serve: Serve) -> None:
    """Nothing that is no part of the stream can be said in it, and Redis must not run it."""
    proxy = await serve(redis, listen={"deny_commands": ("set",)})
    client = await proxy.connect()
    assert await client.command("MONITOR") == OK

    await client.send("SET", "k", "w")

    await client.until_closed()
    other = await proxy.connect()
    assert await other.command("GET", "k") == V


async def test_category_denies_what_the_server_counts_to_it_and_subcommands_by_themselves(
    redis: Server, serve: Serve
) -> None:
    """CONFIG SET is dangerous, CONFIG itself is not; SCAN is no KEYS."""
    proxy = await serve(redis, listen={"deny_commands": ("@dangerous", "client|setname")})
    client = await proxy.connect()

    for words, name in (
        (("KEYS", "*"), "keys"),
        (("config", "Set", "maxmemory", "0"), "config|set"),
        (("CLIENT", "KILL", "ID", "1"), "client|kill"),
        (("CLIENT", "SETNAME", "x"), "client|setname"),
        (("INFO",), "info"),
    ):
        assert await client.command(*words) == _denied(name)
    assert (await client.command("SCAN", 0))[:1] == b"*"
    assert await client.command("CLIENT", "GETNAME") == b"$-1\r\n"


async def test_allowed_commands_are_all_there_is(redis: Server, serve: Serve) -> None:
    """HELLO, AUTH, RESET and QUIT go without saying; what nobody knows is refused here, not asked of Redis."""
    proxy = await serve(redis, listen={"allow_commands": ("get", "ping", "config|get")})
    client = await proxy.connect()
    refusal = "-NOPERM respite: this proxy does not let clients run '{}' (listen.allow_commands)\r\n"

    assert await warm(client, "k") == V
    for line in ("SET k w", "nosuch k", "CONFIG SET maxmemory 0", "CLIENT ID"):
        name = "|".join(line.split()[:2]) if line[0] == "C" and "SET" in line else line.split()[0]
        reply = await client.command(*line.split())
        assert reply.startswith(b"-NOPERM respite: "), reply
        assert name.lower().encode() in reply
    assert await client.command("NOSUCH") == refusal.format("nosuch").encode()
    assert (await client.command("CONFIG", "GET", "maxmemory"))[:1] == b"*"
    assert (await client.command("HELLO", 3))[:1] == b"%"
    assert await client.command("RESET") == b"+RESET\r\n"
    assert await client.command("QUIT") == OK


async def test_login_changes_what_may_be_run_at_once_and_reset_back(redis: Server, serve: Serve) -> None:
    """Also for what stands behind the AUTH in one pipeline, for RESET, and for a HELLO AUTH as somebody else."""
    proxy = await serve(redis, listen={"users": (_user("reader", "+@read", "+ping"), _user("writer"))})
    client = await proxy.connect()
    refusal = b"-NOPERM respite: user 'reader' may not run 'set' here (listen.users)\r\n"

    await client.send_raw(
        command("AUTH", "reader", "pw")
        + command("SET", "k", "w")
        + command("GET", "k")
        + command("AUTH", "writer", "pw")
    )
    await client.send_raw(command("SET", "k", "w"))
    assert await client.frames(5) == [OK, refusal, V, OK, OK]
    assert (await client.command("HELLO", 2, "AUTH", "reader", "pw"))[:1] == b"*"
    assert await client.command("SET", "k", "x") == refusal
    assert await client.command("RESET") == b"+RESET\r\n"
    assert await client.command("SET", "k", "x") == b"-NOAUTH Authentication required.\r\n"


async def test_reload_applies_to_those_who_are_connected(redis: Server, serve: Serve) -> None:
    """What may be run changes at once, hits of L1 included; a user who is removed is closed."""
    settings_users = (_user("a"), _user("b"))
    proxy = await serve(redis, listen={"users": settings_users})
    first, second = await proxy.connect(), await proxy.connect()
    assert [await first.command("AUTH", "a", "pw"), await second.command("AUTH", "b", "pw")] == [OK, OK]
    assert await warm(first, "k") == V

    _reload(proxy, users=(_user("a", "-get"),))

    assert (await first.command("GET", "k")).startswith(b"-NOPERM")
    assert await first.command("SET", "k", "w") == OK
    assert await second.until_closed() == b""
    _reload(proxy, users=(_user("a"),), deny_commands=("set",))
    assert await first.command("GET", "k") == b"$1\r\nw\r\n"
    assert await first.command("SET", "k", "x") == _denied("set")


def _reload(proxy: Proxy, **listen: Any) -> None:
    worker = proxy.worker
    worker.reactor.enter()
    worker.apply(attrs.evolve(worker.settings, listen=attrs.evolve(worker.settings.listen, **listen)))
    worker.reactor.flush()


async def _may(proxy: Proxy, client: Client) -> set[str]:
    """Return which RESPITE subcommands are answered."""
    proxy.worker.on_reload = lambda then: then({"applied": [], "needs_restart": [], "problems": []})
    client_may = set()
    for line in sorted(RESPITE):
        reply = await client.command("RESPITE", *line.split())
        if not reply.startswith(b"-NOPERM"):
            client_may.add(line)
    return client_may


async def test_respite_needs_config_get_to_tell_and_config_set_to_change(redis: Server, serve: Serve) -> None:
    """Of Redis, for the user of each client; one who may run nothing but CONFIG GET, as a monitor may, only looks."""
    proxy = await serve(redis)
    monitor, boss, plain = await proxy.connect(), await proxy.connect(), await proxy.connect()
    assert await monitor.command("AUTH", "monitor", "pw") == OK
    assert await boss.command("AUTH", "boss", "pw") == OK

    keyed = {"EXPLAIN k", "VERSION k"}  # who may not read the key is not told of it
    assert await _may(proxy, monitor) == RESPITE - CHANGING - keyed
    assert await _may(proxy, boss) == RESPITE
    assert await _may(proxy, plain) == RESPITE


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (_user("u"), RESPITE),
        (_user("u", "-config"), set()),
        (_user("u", "-config|set"), RESPITE - CHANGING),
        (_user("u", "+get", respite="read"), RESPITE - CHANGING),
        (_user("u", respite="none"), set()),
        (_user("u", "+get", respite="all"), RESPITE),
    ],
    ids=lambda value: "" if isinstance(value, set) else str(value.respite),
)
async def test_respite_is_bound_to_the_rights_of_listen_users(
    redis: Server, serve: Serve, user: ProxyUser, expected: set[str]
) -> None:
    """Every subcommand, whoever the user of the URL is to Redis."""
    proxy = await serve(redis, listen={"users": (user,)})
    client = await proxy.connect()
    assert await client.command("RESPITE", "STATS") == b"-NOAUTH Authentication required.\r\n"
    assert await client.command("AUTH", "u", "pw") == OK

    assert await _may(proxy, client) == expected
