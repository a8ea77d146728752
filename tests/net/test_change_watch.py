"""The change watch in front of real servers: whoever changes a key, it is told once and with its cause."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio

from proxy.config.model import ClassSettings
from proxy.net.changes import change_watch
from proxy.values.changes import set_fences
from proxy.values.clock import version_at
from proxy.values.envelope import wrap
from proxy.values.scripts import drop_older, sweep
from proxy.values.telling import tell_events

from ..e2e.raw import RawClient
from ..e2e.servers import REQUIRED_KINDS, Server, ServerOptions, find_kind
from .peer import until
from .watching import Watch, Watching, quiet

USERS = (
    "user plain on >pw ~* &* +@all -client|tracking",
    "user mute on >pw ~* &* +@all -publish",
    "user blind on >pw ~* &* +@all -config",
    "user numb on >pw ~* resetchannels +@all",
)
TICKETS = ClassSettings("tickets", ("ticket:*",), tags=("queue-{1}",))


@pytest.fixture(scope="module", params=REQUIRED_KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run a server of each kind."""
    with Server(find_kind(request.param), ServerOptions(acl=USERS)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    """Connect to it, empty and as it is configured."""
    with server.connect() as connection:
        connection.command("FLUSHALL")
        connection.command("CONFIG", "SET", "notify-keyspace-events", "", "maxmemory", "0")
        yield connection


@pytest.fixture
def watch(server: Server, nursery: trio.Nursery) -> Watch:
    """Return what starts a watch in the test's nursery."""

    def start(*classes: ClassSettings, user: str = "") -> Watching:
        url = server.url.replace("//", f"//{user}:pw@") if user else server.url
        watching = Watching(url, *classes)
        nursery.start_soon(watching.watch.run)
        return watching

    return start


def ask(client: RawClient, raw: bytes) -> bytes:
    """Send a command as it is."""
    client.send(raw)
    return client.frame()


def feed_links(client: RawClient) -> int:
    """Count the links of watches."""
    return client.command("CLIENT", "LIST").count(b"name=respite-feed ")


async def test_nobody_listens_no_link_stands(client: RawClient, watch: Watch) -> None:
    """Redis is told to push only while somebody wants to hear."""
    watching = watch()
    await quiet()
    before = feed_links(client)
    listener = await watching.listen("a")
    during = feed_links(client)

    listener.subscription.close()
    watching.feed._lingering.update(dict.fromkeys(watching.feed._lingering, 0))
    watching.feed.tick()

    await until(lambda: not feed_links(client), "the link is closed")
    assert (0, 1, "off") == (before, during, watching.watch.state)


async def test_changes_by_anybody_are_told_as_writes(client: RawClient, watch: Watch) -> None:
    """Foreign clients, transactions, scripts; keys that nobody listens to are not."""
    listener = await watch().listen("a:*", "b")

    client.command("SET", "a:1", "x")
    first = await listener.told()
    client.command("MULTI")
    for name in ("a:2", "x", "b"):
        client.command("SET", name, "x")
    client.command("EXEC")
    second = await listener.causes(2)
    client.command("EVAL", "redis.call('SET', 'a:3', 'x') redis.call('HSET', 'a:4', 'f', 'v')", "0")
    (third,) = await listener.told()

    assert ("a:*", ["a:1"], "write") == (first[0]["channel"], first[0]["keys"], first[0]["cause"])
    assert [("write", ["a:2"]), ("write", ["b"])] == sorted(second)
    assert ["a:3", "a:4"] == sorted(third["keys"])


async def test_version_of_a_write_is_not_below_the_time_of_the_server(client: RawClient, watch: Watch) -> None:
    """A value that was written then bears no later one."""
    listener = await watch().listen("a")

    client.command("SET", "a", "x")
    seconds, us = client.command("TIME").split(b"\r\n")[2::2][:2]
    (message,) = await listener.told()

    server_ms = int(seconds) * 1000 + int(us) // 1000
    assert server_ms - 1 <= message["version"] < server_ms + 1000


async def test_expiry_is_told_as_such_where_redis_notifies_of_it(client: RawClient, watch: Watch) -> None:
    """With the database, from the moment on that it does; else it only says that the key has changed."""
    listener = await watch().listen("k*")
    client.command("SELECT", "3")

    client.command("SET", "k1", "x", "PX", "1")
    unnotified = await listener.causes(2)
    client.command("CONFIG", "SET", "notify-keyspace-events", "Ex")
    client.command("SET", "k1", "x", "PX", "1")

    assert [("write", ["k1"]), ("write", ["k1"])] == unnotified
    write, expiry = await listener.told(2)
    assert ("write", "expired", 3) == (write["cause"], expiry["cause"], expiry["db"])


async def test_expiry_is_told_as_such_to_who_may_not_see_the_configuration(client: RawClient, watch: Watch) -> None:
    """As where somebody else runs Redis."""
    client.command("CONFIG", "SET", "notify-keyspace-events", "Ex")
    listener = await watch(user="blind").listen("k*")

    client.command("SET", "k1", "x", "PX", "1")

    assert [("write", ["k1"]), ("expired", ["k1"])] == await listener.causes(2)


async def test_eviction_is_told_as_such_where_redis_notifies_of_it(client: RawClient, watch: Watch) -> None:
    """Redis makes room: what is gone has changed."""
    client.command("CONFIG", "SET", "notify-keyspace-events", "Ee", "maxmemory-policy", "allkeys-random")
    for number in range(20):
        client.command("SET", f"k{number}", "x" * 1000)
    listener = await watch().listen("k*")

    client.command("CONFIG", "SET", "maxmemory", "1")
    client.command("SET", "y", "x")
    await until(lambda: sum(len(keys) for _, keys in listener.updates) == 20, "all are evicted")

    assert {"evicted"} == {cause for cause, _ in listener.updates}


@pytest.mark.parametrize("flush", ["FLUSHALL", "FLUSHDB"])
async def test_flush_is_told_to_every_channel(client: RawClient, watch: Watch, flush: str) -> None:
    """Whether or not there was anything to flush."""
    listener = await watch(TICKETS).listen("a", "b*", "tag:queue-1")

    client.command(flush)

    assert [("flush", []), ("flush", []), ("flush", ["a"])] == sorted(await listener.causes(3))


async def test_event_is_told_once_with_its_version(client: RawClient, watch: Watch) -> None:
    """Whether its key was there or not; not where the value is newer, and its push is not told besides."""
    listener = await watch().listen("k*")
    for name, at_us in (("k1", 1_000_000), ("k2", 9_000_000)):
        client.command("SET", name, wrap(b"x", version_at(at_us)))
    await listener.told(2)

    ask(client, drop_older(0, [(b"k1", version_at(5_000_000)), (b"k2", version_at(5_000_000)), (b"k3", None)]))
    ask(client, tell_events(0, [b"k4"]))
    client.command("SET", "k1", "y")
    told = await listener.told(4)

    assert [("event", ["k1"]), ("event", ["k3"]), ("event", ["k4"]), ("write", ["k1"])] == [
        (one["cause"], one["keys"]) for one in told
    ]
    assert 5000 == told[0]["version"]


async def test_fence_is_told_and_what_is_swept_behind_it_is_not(client: RawClient, watch: Watch) -> None:
    """To who listens to keys that it takes, globs that overlap with it, and tags that such keys may bear."""
    watching = watch(TICKETS)
    names = ("ticket:1", "ticket:*", "tag:queue-2", "tag:other", "x")
    listeners = [await watching.listen(name) for name in names]
    client.command("MSET", "ticket:1", "x", "ticket:2", "x")
    await listeners[1].told()
    await listeners[0].told()
    await listeners[2].told()

    version = int(ask(client, set_fences(0, [b"ticket:*"], [])).split(b"\r\n")[1])
    ask(client, sweep([(b"ticket:1", version), (b"ticket:2", version)]))
    ask(client, set_fences(0, [], [b"queue-1"]))
    await listeners[1].told(2)

    await quiet()
    assert [1 + 1, 0, 1, 0, 0] == [len(listener.take()) for listener in listeners]
    assert [["ticket:1"], ["ticket:1"]] == [one["keys"] for one in listeners[0].messages]


async def test_tag_is_told_of_keys_that_bear_it(client: RawClient, watch: Watch) -> None:
    """All classes with such a tag are watched."""
    listener = await watch(TICKETS).listen("tag:queue-7")

    client.command("MSET", "ticket:7", "x", "ticket:8", "x")

    assert [("write", ["ticket:7"])] == await listener.causes()


async def test_killed_link_is_told_as_a_loss_and_replaced(client: RawClient, watch: Watch) -> None:
    """What happened between nobody has heard."""
    listener = await watch().listen("a")

    client.command("CLIENT", "KILL", "TYPE", "pubsub")
    (lost,) = await listener.told()
    client.command("SET", "a", "x")

    assert ("lost", None) == (lost["type"], lost["count"])
    assert [("write", ["a"])] == await listener.causes()


async def count_updates(listener_updates: list[tuple[str, list[str]]]) -> dict[str, int]:
    """Count how often each key was told."""
    counts: dict[str, int] = {}
    for _, keys in listener_updates:
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
    return counts


@pytest.mark.parametrize("user", ["", "mute"])
async def test_more_interest_under_load_misses_no_change(client: RawClient, watch: Watch, user: str) -> None:
    """Link follows link while keys change, each once; who may set no mark is told some twice, and none never."""
    watching = watch(user=user)
    listener = await watching.listen("a:*")
    changes, links = 2000, 12

    async def write() -> None:
        for at in range(0, changes, 10):
            client.send(b"".join(b"SET a:%d x\r\n" % number for number in range(at, at + 10)))
            client.frames(10)
            await trio.lowlevel.checkpoint()

    async def widen() -> None:
        for number in range(links):
            await watching.listen(f"b:{number}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        nursery.start_soon(widen)
    await until(lambda: f"a:{changes - 1}" in str(listener.updates[-3:]), "the last one is told")

    counts = await count_updates(listener.updates)
    assert {f"a:{number}" for number in range(changes)} == counts.keys()
    assert [] == listener.losses
    if not user:
        assert {1} == set(counts.values())
        order = [int(key[2:]) for _, keys in listener.updates for key in sorted(keys, key=lambda one: int(one[2:]))]
        assert order == sorted(order)


async def test_link_that_watches_too_much_is_narrowed(
    client: RawClient, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while, for who went may come back; nothing is missed."""
    monkeypatch.setattr(change_watch, "NARROW_AFTER_S", 0.05)
    monkeypatch.setattr(change_watch, "TICK_S", 0.02)
    watching = watch()
    listener = await watching.listen("a:1")
    other = await watching.listen("b")
    other.subscription.close()
    watching.feed._lingering.update(dict.fromkeys(watching.feed._lingering, 0))

    await until(lambda: watching.watch.report()["prefixes"] == ["a:1"], "it is narrow again")
    client.command("SET", "a:1", "x")

    assert [("write", ["a:1"])] == await listener.causes()


async def test_redis_that_tells_no_changes_leaves_events(client: RawClient, watch: Watch) -> None:
    """Who listens is told so at the start."""
    watching = watch(user="plain")
    listener = await watching.listen("a")
    late = watching.feed.subscribe(["b"])

    client.command("SET", "a", "x")
    ask(client, drop_older(0, [(b"a", None)]))

    assert ["lost", "event"] == [one.get("cause", one["type"]) for one in await listener.told(2)]
    assert not late.begin()
    assert "events only" == watching.watch.state


async def test_redis_that_tells_of_changes_after_all_is_heard(
    client: RawClient, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked again after a while: an administrator may have changed his mind."""
    monkeypatch.setattr(change_watch, "NARROW_AFTER_S", 0.05)
    monkeypatch.setattr(change_watch, "TICK_S", 0.02)
    watching = watch(user="plain")
    listener = await watching.listen("a")
    await listener.told()

    client.command("ACL", "SETUSER", "plain", "+client|tracking")
    await watching.reaches("watching")
    client.command("ACL", "SETUSER", "plain", "-client|tracking")
    of_channel, of_all = await listener.told(2)
    client.command("SET", "a", "x")

    assert ("lost", "a") == (of_channel["type"], of_channel["channel"])
    assert ("lost", None) == (of_all["type"], of_all["count"])
    assert [("write", ["a"])] == await listener.causes()


async def test_redis_that_lets_nobody_subscribe_leaves_writes(client: RawClient, watch: Watch) -> None:
    """Without the channels of other proxies an event is a write of its key."""
    listener = await watch(user="numb").listen("a")

    client.command("SET", "a", "x")
    ask(client, drop_older(0, [(b"a", None)]))

    assert [("write", ["a"]), ("write", ["a"])] == await listener.causes(2)


async def test_wrong_password_is_told_and_tried_again(server: Server, nursery: trio.Nursery) -> None:
    """Nobody is told that his keys are watched."""
    watching = Watching(server.url.replace("//", "//mute:wrong@"))
    nursery.start_soon(watching.watch.run)
    subscription = watching.feed.subscribe(["a"])

    await watching.reaches("unreachable")

    assert "WRONGPASS" in watching.watch.why
    assert not subscription.is_watched
