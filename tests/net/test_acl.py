"""L1 is never wider than what Redis would let a user do: users, key patterns, commands, and all of it when it changes.

What is changed behind our back is heard by asking: `ACL LIST`, once a second (control.WATCH_EVERY_S); where that
is refused, little is kept for users who log in (watch.DISTRUST_EVERY_S).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from ..e2e.raw import RawClient
from ..e2e.servers import Server, ServerOptions, find_kind
from .conftest import Serve
from .driver import Client, Proxy
from .peer import until

OK = b"+OK\r\n"
V = b"$1\r\nv\r\n"
USERS = (
    "user reader on >pw %R~r:* &* +@all",
    "user writer on >pw %W~r:* &* +@all",
    "user both on >pw ~r:* &* +@all -hget",
    "user selective on >pw -@all +@connection (+get ~r:*) (+hget ~h:*)",
    "user apart on >pw -@all +@connection (+@read ~r:1 ~r:2) (+@read ~s:*) (+mget +pttl ~r:3)",
    "user many on >pw ~* -@all +@connection +pttl +mget",
    "user one on >pw ~* -@all +@connection +pttl +get",
    "user quiet on >pw ~* resetchannels &open:* +@all",
    "user admin on >pw ~* &* +@all",
    "user blind on >pw ~* &* +@all -acl",
)


@pytest.fixture(scope="module")
def redis_acl() -> Iterator[Server]:
    """Run one server for all tests here."""
    with Server(find_kind("redis7"), ServerOptions(acl=list(USERS))) as server:
        yield server


@pytest.fixture
def direct(redis_acl: Server) -> Iterator[RawClient]:
    """Connect to the server itself; the keys and users of the tests are as they were."""
    with RawClient(redis_acl.address) as client:
        client.command("FLUSHALL")
        client.command("ACL", "LOAD")
        client.command("SET", "r:1", "v")
        client.command("SET", "k", "v")
        client.command("HSET", "h:1", "f", "v")
        yield client


async def _login(proxy: Proxy, user: str, protocol: int = 2) -> Client:
    client = await proxy.connect()
    if protocol == 3:
        assert (await client.command("HELLO", 3, "AUTH", user, "pw"))[:1] == b"%"
    else:
        assert await client.command("AUTH", user, "pw") == OK
    return client


async def _warm(proxy: Proxy, client: Client, *words: str) -> bytes:
    """Ask until it comes from L1."""
    reply = await client.command(*words)
    for _ in range(200):
        hits = proxy.worker.stats.hits
        assert await client.command(*words) == reply
        if proxy.worker.stats.hits > hits:
            return reply
        await trio.sleep(0.01)
    raise AssertionError(f"{words} never came from L1")


@pytest.mark.parametrize("protocol", [2, 3])
async def test_what_one_user_has_read_is_not_served_to_another(
    redis_acl: Server, direct: RawClient, serve: Serve, protocol: int
) -> None:
    """Key patterns, read and write halves, commands and selectors are judged by Redis for each user."""
    proxy = await serve(redis_acl)
    admin = await _login(proxy, "admin", protocol)
    for words in (("GET", "r:1"), ("GET", "k"), ("HGET", "h:1", "f")):
        assert await _warm(proxy, admin, *words) == V
    allowed = {
        "reader": ("GET r:1",),
        "writer": (),
        "both": ("GET r:1",),
        "selective": ("GET r:1", "HGET h:1 f"),
        "one": ("GET r:1", "GET k"),
        "many": (),
    }
    for user, mine in allowed.items():
        client = await _login(proxy, user, protocol)
        for line in ("GET r:1", "GET k", "HGET h:1 f"):
            for _ in range(3):
                reply = await client.command(*line.split())
                assert reply == V if line in mine else reply.startswith(b"-NOPERM"), (user, line, reply)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_key_read_by_mget_is_not_served_to_get_where_get_is_denied(
    redis_acl: Server, direct: RawClient, serve: Serve, protocol: int
) -> None:
    """And the other way round: what one command has brought, another brings only to whom Redis lets run it."""
    proxy = await serve(redis_acl)
    many, one = await _login(proxy, "many", protocol), await _login(proxy, "one", protocol)
    for _ in range(4):
        assert await many.command("MGET", "k") == b"*1\r\n" + V
        assert (await many.command("GET", "k")).startswith(b"-NOPERM")
        assert await one.command("GET", "k") == V
        assert (await one.command("MGET", "k")).startswith(b"-NOPERM")


async def test_reads_of_several_keys_are_not_joined_where_rights_are_of_selectors(
    redis_acl: Server, direct: RawClient, serve: Serve
) -> None:
    """Who may run each of two commands on some key may not run both on each; nor on two keys of two selectors."""
    proxy = await serve(redis_acl)
    for key in ("r:2", "r:3", "s:1"):
        direct.command("SET", key, "v")
    client = await _login(proxy, "apart")
    for line in ("GET r:1", "GET s:1", "EXISTS r:1", "EXISTS s:1"):
        await _warm(proxy, client, *line.split())
    for _ in range(3):
        for line in ("MGET r:1 r:2", "MGET r:1", "MGET s:1", "MGET r:3", "EXISTS r:1 r:2", "EXISTS s:1 s:1"):
            assert not (await client.command(*line.split())).startswith(b"-"), line
        for line in ("MGET r:1 s:1", "GET r:3", "EXISTS r:1 s:1"):
            assert (await client.command(*line.split())).startswith(b"-NOPERM"), line


_CHANGES = [
    ("ACL", "SETUSER", "both", "-get"),
    ("ACL", "SETUSER", "both", "resetkeys", "~other:*"),
    ("ACL", "SETUSER", "both", "%W~r:*", "resetkeys", "%W~r:*"),
    ("ACL", "SETUSER", "both", "-@read"),
    ("ACL", "SETUSER", "both", "nocommands"),
]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("change", _CHANGES, ids=lambda words: " ".join(words[3:]))
async def test_a_right_that_is_taken_ends_hits_at_once_where_it_was_taken_through_us(
    redis_acl: Server, direct: RawClient, serve: Serve, protocol: int, change: tuple[str, ...]
) -> None:
    """Whose ACL SETUSER has been answered finds that hits of that user are refused."""
    proxy = await serve(redis_acl)
    both, admin = await _login(proxy, "both", protocol), await _login(proxy, "admin", protocol)
    await _warm(proxy, both, "GET", "r:1")

    assert await admin.command(*change) == OK

    assert (await both.command("GET", "r:1")).startswith(b"-NOPERM")


@pytest.mark.parametrize("how", ["directly", "by another proxy"])
async def test_a_right_that_is_taken_elsewhere_ends_hits_within_the_bound(
    redis_acl: Server, direct: RawClient, serve: Serve, how: str
) -> None:
    """Within WATCH_EVERY_S and a ping, wherever it was changed: 2 seconds with the default settings."""
    proxy = await serve(redis_acl)
    other = await serve(redis_acl)
    both = await _login(proxy, "both")
    await _warm(proxy, both, "GET", "r:1")
    await until(lambda: proxy.worker.control.watch.acl_digest, "the ACLs have been seen")

    if how == "directly":
        assert direct.command("ACL", "SETUSER", "both", "-get") == OK
    else:
        assert await (await _login(other, "admin")).command("ACL", "SETUSER", "both", "-get") == OK

    began = trio.current_time()
    while not (await both.command("GET", "r:1")).startswith(b"-NOPERM"):
        assert trio.current_time() - began < 2.0
        await trio.sleep(0.01)


async def test_a_right_that_is_taken_right_after_the_invalidation_link_came_back_ends_hits(
    redis_acl: Server, direct: RawClient, serve: Serve
) -> None:
    """What is read on a new link is compared with the ACLs as they were when it came up."""
    proxy = await serve(redis_acl)
    control, both = proxy.worker.control, await _login(proxy, "both")
    await until(lambda: control.watch.acl_digest, "the ACLs have been seen")
    looked_at = control._watched_at
    await until(lambda: control._watched_at != looked_at, "they have just been looked at")
    assert direct.command("CLIENT", "KILL", "ID", str(control._client_id)) == b":1\r\n"
    await until(lambda: control.state != "up", "the link is lost")
    await until(lambda: control.state == "up", "it is back")
    await _warm(proxy, both, "GET", "r:1")

    assert direct.command("ACL", "SETUSER", "both", "-get") == OK

    began = trio.current_time()
    while not (await both.command("GET", "r:1")).startswith(b"-NOPERM"):
        assert trio.current_time() - began < 2.0
        await trio.sleep(0.01)


@pytest.mark.parametrize("change", [("ACL", "DELUSER", "both"), ("ACL", "LOAD")], ids=lambda words: words[1])
async def test_a_user_who_is_no_more_is_closed(
    redis_acl: Server, direct: RawClient, serve: Serve, change: tuple[str, ...]
) -> None:
    """DELUSER, or a LOAD of a file without the user, ends its sessions here as it ends them in Redis."""
    proxy = await serve(redis_acl)
    if change[1] == "LOAD":
        assert direct.command("ACL", "SETUSER", "passing", "on", ">pw", "~*", "+@all") == OK
    user = "both" if change[1] == "DELUSER" else "passing"
    client = await _login(proxy, user)
    await _warm(proxy, client, "GET", "r:1")
    await until(lambda: proxy.worker.control.watch.acl_digest, "the ACLs have been seen")

    direct.command(*change)

    assert await client.until_closed() == b""


@pytest.mark.parametrize("change", [("resetpass", ">pw"), ("off",)], ids=lambda words: words[0])
async def test_who_does_not_log_in_is_let_in_no_more_once_redis_wants_a_password(
    redis_acl: Server, direct: RawClient, serve: Serve, change: tuple[str, ...]
) -> None:
    """Links of any kind that were opened before it did serve nobody who comes later."""
    proxy = await serve(redis_acl)
    first = await proxy.connect()
    await _warm(proxy, first, "GET", "k")
    assert await first.command("EVAL", "return 1", "0") == b":1\r\n"  # its link is kept for the next
    assert (await first.command("HELLO", 2))[:1] == b"*"  # so is the greeting
    await until(lambda: proxy.worker.control.watch.acl_digest, "the ACLs have been seen")

    async def let_in(*words: str) -> bool:
        client = await proxy.connect()
        return not (await client.command(*words)).startswith(b"-NOAUTH")

    try:
        assert direct.command("ACL", "SETUSER", "default", *change) == OK
        began = trio.current_time()
        while await let_in("GET", "k"):
            assert trio.current_time() - began < 2.0
            await trio.sleep(0.01)
        for line in ("SET k x", "HELLO 2", "HELLO 3", "EVAL return 0", "MULTI"):
            assert not await let_in(*line.split()), line
        client = await _login(proxy, "admin")
        assert await client.command("GET", "k") == V
    finally:
        assert direct.command("ACL", "SETUSER", "default", "on", "resetpass", "nopass") == OK
    began = trio.current_time()
    while not await let_in("GET", "k"):
        assert trio.current_time() - began < 3.0
        await trio.sleep(0.01)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_session_that_becomes_another_user_has_that_users_rights(
    redis_acl: Server, direct: RawClient, serve: Serve, protocol: int
) -> None:
    """AUTH, HELLO AUTH and RESET leave nothing of the user before."""
    proxy = await serve(redis_acl)
    client = await _login(proxy, "admin", protocol)
    await _warm(proxy, client, "GET", "k")

    assert await client.command("AUTH", "reader", "pw") == OK
    assert (await client.command("GET", "k")).startswith(b"-NOPERM")
    assert await client.command("GET", "r:1") == V
    assert (await client.command("HELLO", protocol, "AUTH", "many", "pw"))[:1] in b"*%"
    assert (await client.command("GET", "r:1")).startswith(b"-NOPERM")
    assert await client.command("RESET") == b"+RESET\r\n"
    assert await client.command("GET", "k") == V


@pytest.mark.parametrize("protocol", [2, 3])
async def test_channels_are_those_of_the_user(
    redis_acl: Server, direct: RawClient, serve: Serve, protocol: int
) -> None:
    """SUBSCRIBE and PUBLISH go to Redis as the user."""
    proxy = await serve(redis_acl)
    client = await _login(proxy, "quiet", protocol)

    assert (await client.command("PUBLISH", "closed:1", "x")).startswith(b"-NOPERM")
    assert await client.command("PUBLISH", "open:1", "x") == b":0\r\n"
    assert (await client.command("SUBSCRIBE", "closed:1")).startswith(b"-NOPERM")
    assert (await client.command("SUBSCRIBE", "open:1"))[:1] in b"*>"


@pytest.mark.parametrize("inside", [("HELLO", "3"), ("HELLO", "3", "AUTH", "admin", "pw"), ("HELLO", "2")])
async def test_a_connection_that_multi_has_made_another_serves_nobody_else(
    redis_acl: Server, direct: RawClient, serve: Serve, inside: tuple[str, ...]
) -> None:
    """HELLO in MULTI changes who, or what, a connection is: the next one who needs one gets another."""
    proxy = await serve(redis_acl)
    client = await _login(proxy, "reader")
    assert await client.command("MULTI") == OK
    await client.command(*inside)
    await client.command("EXEC")
    other = await _login(proxy, "reader")
    assert await other.command("MULTI") == OK
    assert await other.command("ACL", "WHOAMI") == b"+QUEUED\r\n"
    assert await other.command("HGETALL", "r:none") == b"+QUEUED\r\n"
    assert await other.command("EXEC") == b"*2\r\n$6\r\nreader\r\n*0\r\n"


@pytest.mark.parametrize("behind", ["SETNAME\ta b", "AUTH\tadmin\twrong", "SETNAME", "NONSENSE"])
async def test_a_connection_on_which_a_hello_has_failed_serves_nobody_else(
    redis_acl: Server, direct: RawClient, serve: Serve, behind: str
) -> None:
    """Redis 7.0 has let its user in by then, whatever the reply says."""
    proxy = await serve(redis_acl)
    client, other = await _login(proxy, "reader"), await _login(proxy, "reader")
    reply = await client.command("HELLO", "3", "AUTH", "admin", "pw", *behind.split("\t"))
    assert reply.startswith(b"-")

    for one in (client, other):
        assert await one.command("MULTI") == OK
        assert await one.command("ACL", "WHOAMI") == b"+QUEUED\r\n"
        assert await one.command("EXEC") == b"*1\r\n$6\r\nreader\r\n"


async def test_where_acls_cannot_be_read_users_who_log_in_keep_little(
    redis_acl: Server, direct: RawClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right that is taken ends hits within DISTRUST_EVERY_S; what our own user has read stays."""
    monkeypatch.setattr("proxy.net.invalidation.watch.DISTRUST_EVERY_S", 0.5)
    proxy = await serve(f"redis://blind:pw@127.0.0.1:{redis_acl.port}")
    both, own = await _login(proxy, "both"), await proxy.connect()
    await _warm(proxy, both, "GET", "r:1")
    await _warm(proxy, own, "GET", "k")
    assert direct.command("ACL", "SETUSER", "both", "-get") == OK

    began = trio.current_time()
    while not (await both.command("GET", "r:1")).startswith(b"-NOPERM"):
        assert trio.current_time() - began < 3.0
        await trio.sleep(0.01)

    hits = proxy.worker.stats.hits
    assert await own.command("GET", "k") == V
    assert proxy.worker.stats.hits == hits + 1


async def test_where_acls_cannot_be_read_who_lent_us_his_name_keeps_little_as_others_do(
    redis_acl: Server, direct: RawClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The invalidation link is in the name of a client where the URL names nobody: that is no user of ours."""
    monkeypatch.setattr("proxy.net.invalidation.watch.DISTRUST_EVERY_S", 0.5)
    assert direct.command("ACL", "SETUSER", "default", "off") == OK
    try:
        proxy = await serve(redis_acl)
        client = await _login(proxy, "blind")
        await _warm(proxy, client, "GET", "k")
        assert direct.command("ACL", "SETUSER", "blind", "-get") == OK

        began = trio.current_time()
        while not (await client.command("GET", "k")).startswith(b"-NOPERM"):
            assert trio.current_time() - began < 3.0
            await trio.sleep(0.01)
    finally:
        assert direct.command("ACL", "SETUSER", "default", "on") == OK
