"""`invalidates` and `tags`: what depends on a key is gone from both tiers when its writer has the reply.

The sweeper is kept from its work, by holding its lease: what readers find gone is so by the fence alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import pytest
import redis

from .contract import LOST
from .relay import Relay
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite

SETTINGS: Mapping[str, Any] = {
    "l1": {"admit": "always"},
    "class": [
        {
            "name": "tickets",
            "match": ["ticket:*"],
            "version": True,
            "invalidates": ["list:{1}", "view:{1}:*", "tag:queue-{1}"],
        },
        {"name": "views", "match": ["view:*"], "version": True, "invalidates": ["cascade:1"]},
        {"name": "lists", "match": ["list:*"], "invalidates": ["cascade:2"]},
        {"name": "items", "match": ["item:*:*"], "version": True, "tags": ["queue-{1}"], "invalidates": ["cascade:3"]},
        {"name": "bare", "match": ["bare:*"], "invalidates": ["list:{1}", "view:{1}:*", "tag:queue-{1}"]},
    ],
}
CASCADE = ("cascade:1", "cascade:2", "cascade:3")
GONE = ("list:7", "view:7:a", "view:7:b:c", "item:7:x")
OTHERS = ("list:8", "view:8:a", "view:77:a", "item:8:x", "other")
KEPT = (*OTHERS, *CASCADE)
LEASE = "respite:sweeping"


@attrs.frozen
class Ways:
    """One server, two proxies with the same classes, a third whose clients have none, and a direct client."""

    server: Server
    first: redis.Redis
    second: redis.Redis
    outside: redis.Redis
    direct: redis.Redis
    respite: Respite

    def fill(self) -> None:
        """Write all keys, and read them until they are in both L1."""
        self.direct.delete("ticket:7", "bare:7", "ticket:src")
        self.direct.set(LEASE, "the test", px=600_000)
        self.first.mset({key: f"value of {key}" for key in (*GONE, *KEPT)})
        self.first.mset({key: f"value of {key}" for key in CASCADE})  # the writes before have dropped them
        for client in (self.first, self.second) * 2:
            assert None not in client.mget(GONE + KEPT)
            assert client.get(GONE[0]) is not None

    def missing(self, client: redis.Redis) -> list[str]:
        """Return which keys a client does not find."""
        keys = GONE + KEPT
        return [key for key, value in zip(keys, client.mget(keys), strict=True) if value is None]

    def assert_dropped(self) -> None:
        """Demand that both tiers have forgotten what depends on the ticket, and nothing else: no cascade."""
        assert self.missing(self.first) == list(GONE)
        assert [self.first.get(key) for key in GONE] == [None] * len(GONE)
        assert self.direct.get("list:7") is None
        wait_for(lambda: self.missing(self.second) == list(GONE), what="the second proxy has heard", timeout_s=2)
        assert [self.second.get(key) for key in GONE] == [None] * len(GONE)

    def assert_kept(self) -> None:
        """Demand that nothing was dropped."""
        assert self.missing(self.first) == []
        assert self.missing(self.second) == []


@pytest.fixture(scope="module")
def ways(redis7: Kind) -> Iterator[Ways]:
    """Run them for all tests here."""
    with Server(redis7) as server:
        settings = {"upstream": {"url": server.url}, **SETTINGS}
        with (
            running_respite(settings) as first,
            running_respite(settings) as second,
            running_respite({**settings, "rollout": {"percent": 0}}) as outside,
            redis.Redis(port=first.port) as one,
            redis.Redis(port=second.port) as two,
            redis.Redis(port=outside.port) as three,
            redis.Redis(port=server.port) as direct,
        ):
            for proxy in (first, second, outside):
                wait_for(lambda proxy=proxy: proxy.stats()["values"]["announcements"] == "subscribed", what="it is up")
            yield Ways(server, one, two, three, direct, first)


Write = Callable[[redis.Redis], object]


WRITE_AND_FAIL = "redis.call('SET', KEYS[1], 'x') return redis.error_reply('no')"


def refused(client: redis.Redis, *words: str) -> None:
    """Send a command that is answered with an error."""
    client.hset("ticket:src", "f", "x")
    with pytest.raises(redis.ResponseError):
        client.execute_command(*words)


def pipelined(client: redis.Redis, count: int) -> None:
    """Write one ticket among many other keys, in one pipeline."""
    with client.pipeline(transaction=False) as pipeline:
        for number in range(count):
            pipeline.set(f"plain:{number}", "x")
            if number == count // 2:
                pipeline.set("ticket:7", "x")
        assert all(pipeline.execute())


def watched(client: redis.Redis) -> None:
    """Write a ticket optimistically."""

    def change(pipeline: Any) -> None:
        pipeline.get("ticket:7")
        pipeline.multi()
        pipeline.set("ticket:7", "x")

    client.transaction(change, "ticket:7")


TRIGGERS: Mapping[str, Write] = {
    "set": lambda client: client.set("ticket:7", "x"),
    "set of a class without versions": lambda client: client.set("bare:7", "x"),
    "set nx px get": lambda client: client.set("ticket:7", "x", nx=True, px=10_000, get=True),
    "setex": lambda client: client.execute_command("SETEX", "ticket:7", "10", "x"),
    "getset": lambda client: client.getset("ticket:7", "x"),
    "mset": lambda client: client.mset({"a": "1", "ticket:7": "x", "b": "2"}),
    "msetnx": lambda client: client.msetnx({"ticket:7": "x"}),
    "incr": lambda client: client.incr("ticket:7"),
    "incrbyfloat": lambda client: client.incrbyfloat("ticket:7", 1.5),
    "append": lambda client: client.append("ticket:7", "x"),
    "setrange": lambda client: client.setrange("ticket:7", 3, "x"),
    "del": lambda client: client.delete("a", "ticket:7"),
    "unlink": lambda client: client.unlink("ticket:7"),
    "getdel": lambda client: client.getdel("ticket:7"),
    "hset": lambda client: client.hset("ticket:7", "field", "x"),
    "hset of a class without versions": lambda client: client.hset("bare:7", "field", "x"),
    "hincrby": lambda client: client.hincrby("ticket:7", "field", 2),
    "lpush": lambda client: client.lpush("ticket:7", "x"),
    "zadd": lambda client: client.zadd("ticket:7", {"x": 1}),
    "xadd": lambda client: client.xadd("ticket:7", {"x": "1"}),
    "pipeline": lambda client: client.pipeline(transaction=False).get("a").set("ticket:7", "x").get("b").execute(),
    "long pipeline": lambda client: pipelined(client, 300),
    "multi": lambda client: client.pipeline().get("a").set("ticket:7", "x").hgetall("none").execute(),
    "multi of many": lambda client: client.pipeline().set("bare:1", "x").hset("ticket:7", "f", "x").execute(),
    "multi after watch": watched,
    "eval": lambda client: client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "ticket:7", "x"),
    "eval of two keys": lambda client: client.eval("return redis.call('SET', KEYS[2], 'x')", 2, "a", "ticket:7"),
    "evalsha": lambda client: client.register_script("return redis.call('INCR', KEYS[1])")(keys=["ticket:7"]),
    "eval in multi": lambda client: (
        client.pipeline().eval("return redis.call('SET', KEYS[1], 1)", 1, "ticket:7").execute()
    ),
    "eval that writes and fails": lambda client: refused(client, "EVAL", WRITE_AND_FAIL, "1", "ticket:7"),
    "expire at once": lambda client: client.expire("ticket:7", 0),
    "expireat that has passed": lambda client: client.execute_command("EXPIREAT", "ticket:7", "1", "NX"),
    "getex that has passed": lambda client: client.getex("ticket:7", exat=1),
    "rename onto it": lambda client: (client.set("a", "x"), client.rename("a", "ticket:7")),
    "copy onto it": lambda client: (client.set("a", "x"), client.copy("a", "ticket:7", replace=True)),
    "blocking move onto it": lambda client: (client.rpush("l", "x"), client.blmove("l", "ticket:7", 1)),
}


ENDING = ("del", "unlink", "getdel", "expire at once", "expireat that has passed", "getex that has passed")


@pytest.mark.parametrize("how", TRIGGERS)
def test_write_drops_what_depends_on_it(ways: Ways, how: str) -> None:
    """Exact keys, globs and tags, in this proxy's L1, the other's and Redis; the written key stays as written."""
    ways.fill()

    TRIGGERS[how](ways.first)

    ways.assert_dropped()
    key = "bare:7" if "without versions" in how else "ticket:7"
    assert ways.first.exists(key) == ways.second.exists(key) == (0 if how in ENDING else 1)


@pytest.mark.parametrize("in_multi", [False, True])
@pytest.mark.parametrize("words", ["COPY src ticket:7 DB 3 REPLACE", "MOVE ticket:7 3"])
def test_write_of_another_database_drops_what_depends_on_it_there(ways: Ways, words: str, in_multi: bool) -> None:
    """The key is written in that one, and so is what is made from it."""
    ways.fill()
    with redis.Redis(port=ways.respite.port, db=3) as other:
        other.flushdb()
        other.mset(dict.fromkeys(GONE, "old"))
        assert None not in other.mget(GONE)
        ways.first.set("src", "new")
        ways.direct.set("ticket:7", "new")
        if in_multi:
            with ways.first.pipeline(transaction=True) as pipeline:
                pipeline.execute_command(*words.split())
                assert pipeline.execute()[0] in (1, True)
        else:
            assert ways.first.execute_command(*words.split()) in (1, True)

        assert other.mget(GONE) == [None] * len(GONE)
        assert other.exists("ticket:7")
    assert (ways.missing(ways.first) == list(GONE)) is words.startswith("MOVE")


@pytest.mark.parametrize("how", ["set", "multi", "eval"])
def test_written_anew_after_the_drop_is_found(ways: Ways, how: str) -> None:
    """What is filled after the write lives, on both proxies, whoever wrote it; and the sweep leaves it alone."""
    ways.fill()
    TRIGGERS[how](ways.second)
    ways.second.set("view:7:a", "new")
    assert ways.second.get("view:7:a") == b"new"
    wait_for(lambda: ways.first.get("view:7:b:c") is None, what="the first proxy has heard", timeout_s=2)
    ways.first.set("item:7:x", "newer")

    ways.direct.delete(LEASE)

    wait_for(lambda: ways.direct.hlen("respite:fences") == 0, what="the sweep ends", timeout_s=10)
    assert [ways.direct.exists(key) for key in GONE] == [0, 1, 0, 1]
    for client in (ways.first, ways.second):
        assert client.mget(GONE) == [None, b"new", None, b"newer"]
        assert None not in client.mget(OTHERS)


def aborted(client: redis.Redis) -> None:
    """Queue a write of a ticket behind a WATCH that fails."""
    with client.pipeline() as pipeline:
        pipeline.watch("other:watched")
        client.set("other:watched", "changed")
        pipeline.multi()
        pipeline.set("ticket:7", "x")
        with pytest.raises(redis.WatchError):
            pipeline.execute()


def discarded(client: redis.Redis) -> None:
    """Queue a write of a ticket and think better of it."""
    with client.pipeline() as pipeline:
        pipeline.watch("ticket:7")
        pipeline.multi()
        pipeline.immediate_execute_command("MULTI")
        pipeline.immediate_execute_command("SET", "ticket:7", "x")
        pipeline.immediate_execute_command("DISCARD")


NO_TRIGGERS: Mapping[str, Write] = {
    "get": lambda client: client.get("ticket:7"),
    "expire": lambda client: (client.expire("ticket:7", 100), client.pexpire("ticket:7", 10_000)),
    "expire in multi": lambda client: client.pipeline().expire("ticket:7", 100).persist("ticket:7").execute(),
    "persist": lambda client: client.persist("ticket:7"),
    "getex": lambda client: client.getex("ticket:7", ex=100),
    "touch": lambda client: client.touch("ticket:7"),
    "eval_ro": lambda client: client.eval_ro("return redis.call('GET', KEYS[1])", 1, "ticket:7"),
    "a write of another class": lambda client: client.set("thing:7", "x"),
    "wrong type": lambda client: refused(client, "LPUSH", "ticket:7", "x"),
    "wrong number": lambda client: refused(client, "INCR", "ticket:7"),
    "wrong syntax": lambda client: refused(client, "SET", "ticket:7", "x", "EX", "none"),
    "aborted by watch": aborted,
    "discarded": discarded,
}


@pytest.mark.parametrize("how", NO_TRIGGERS)
def test_what_changes_no_value_drops_nothing(ways: Ways, how: str) -> None:
    """Reads, lifetimes, refused writes, transactions that did not happen."""
    ways.outside.set("ticket:7", "before")
    ways.fill()
    ways.outside.set("ticket:7", "before")

    NO_TRIGGERS[how](ways.first)

    ways.assert_kept()


@pytest.mark.parametrize("how", ["set", "mset", "pipeline", "multi", "eval", "hset"])
def test_client_outside_the_roll_out_drops_nothing(ways: Ways, how: str) -> None:
    """Classes have no effect for the clients that rollout.percent leaves out."""
    ways.fill()

    TRIGGERS[how](ways.outside)

    ways.assert_kept()


def test_glob_takes_a_capture_literally(ways: Ways) -> None:
    """A client that writes a key named like a glob drops what belongs to that key."""
    ways.fill()
    ways.first.mset({"view:*:a": "x", "list:*": "x", "view:7*:a": "x"})

    ways.first.set("ticket:*", "x")

    assert ways.first.mget("view:*:a", "list:*") == [None, None]
    assert ways.first.get("view:7*:a") == b"x"
    assert None not in ways.first.mget(GONE + OTHERS)


def test_readers_of_dependents_never_see_the_old_one_after_the_reply(ways: Ways) -> None:
    """A view that is made of its ticket anew whenever it is missing is never older than what its writer was told."""
    ways.fill()
    for number in range(60):
        ways.first.set("ticket:7", number)
        for key in ("list:7", "view:7:a", "item:7:x"):
            value = ways.first.get(key)
            if value is None:
                value = b"of %b" % ways.first.get("ticket:7")
                ways.first.set(key, value)
            assert value == b"of %d" % number
            assert ways.first.get(key) == b"of %d" % number


@pytest.mark.parametrize("is_multi", [False, True], ids=["single", "multi"])
def test_lost_write_that_may_have_been_applied_drops_all_the_same(redis7: Kind, is_multi: bool) -> None:
    """Its writer reads that it may have been applied; what depends on it is gone, for it was."""
    with Server(redis7) as server, Relay(server.port) as relay:
        settings = {"upstream": {"url": relay.url}, **SETTINGS}
        with running_respite(settings) as respite, respite.connect() as client, server.connect() as direct:
            direct.command("SET", LEASE, "the test")
            for key in (*GONE, *KEPT, *CASCADE):
                assert client.command("SET", key, "x") == b"+OK\r\n"
            for key in GONE + KEPT:
                assert client.command("GET", key) == b"$1\r\nx\r\n"
            if is_multi:
                assert client.command("MULTI") == b"+OK\r\n"
                assert client.command("SET", "ticket:7", "lost") == b"+QUEUED\r\n"
                relay.cut_after(b"EXEC")
                assert client.command("EXEC") == LOST
            else:
                relay.cut_after(b"lost")
                assert client.command("SET", "ticket:7", "lost") == LOST
            assert b"lost" in direct.command("GET", "ticket:7")

            with respite.connect() as other:
                wait_for(lambda: other.command("GET", "list:8") == b"$1\r\nx\r\n", what="Redis is back")
                for key in GONE:
                    assert (key, other.command("GET", key)) == (key, b"$-1\r\n")
                for key in KEPT:
                    assert other.command("GET", key) == b"$1\r\nx\r\n"
