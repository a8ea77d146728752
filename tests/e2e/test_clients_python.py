"""The everyday work of Python apps runs through Respite unchanged: redis-py and valkey-py, in RESP2 and in RESP3."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import valkey
from redis.cache import CacheConfig

from .servers import Kind, Server, wait_for
from .targets import Target, running_respite

LIBRARIES: dict[str, tuple[Any, Any]] = {"redis": (redis, redis.Redis), "valkey": (valkey, valkey.Valkey)}
Connect = Callable[..., Any]


@pytest.fixture(
    params=[(name, protocol) for name in LIBRARIES for protocol in (2, 3)], ids=lambda p: f"{p[0]}-resp{p[1]}"
)
def library(request: pytest.FixtureRequest) -> tuple[str, int]:
    """Each client library in each protocol."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def errors(library: tuple[str, int]) -> Any:
    """Give the module of the library's exceptions."""
    return LIBRARIES[library[0]][0].exceptions


@pytest.fixture
def connect(library: tuple[str, int], target: Target) -> Iterator[Connect]:
    """Make clients of the library, all closed in the end; the data start empty."""
    made: list[Any] = []

    def make(**options: Any) -> Any:
        settings = {"port": target.port, "protocol": library[1], "decode_responses": True, "socket_timeout": 10}
        made.append(LIBRARIES[library[0]][1](**(settings | options)))
        return made[-1]

    make().flushall()
    yield make
    for client in made:
        client.close()


def test_client_types_come_back_as_directly(connect: Connect) -> None:
    """Values of each type keep their type and their content."""
    client = connect()

    client.set("s", "text", ex=100)
    client.hset("h", mapping={"a": "1", "b": "2"})
    client.rpush("l", "x", "y")
    client.sadd("set", "m")
    client.zadd("z", {"low": 1, "high": 2.5})

    assert [client.get("s")] * 3 == [client.get("s") for _ in range(3)] == ["text"] * 3
    assert 0 < client.ttl("s") <= 100
    assert client.hgetall("h") == {"a": "1", "b": "2"}
    assert client.lrange("l", 0, -1) == ["x", "y"]
    assert {"m"} == set(client.smembers("set"))
    assert [list(pair) for pair in client.zrange("z", 0, -1, withscores=True)] == [["low", 1.0], ["high", 2.5]]
    assert client.get("none") is None
    assert client.mget("s", "none") == ["text", None]
    assert client.ping()
    assert client.info("server")["redis_version"]


def test_client_reads_its_own_writes_on_every_connection(connect: Connect) -> None:
    """After a write has been answered no connection reads the value before it."""
    writer, reader = connect(), connect()

    for index in range(300):
        writer.set("k", index)
        assert str(index) == reader.get("k") == writer.get("k")


def test_client_pipeline_keeps_order_and_errors(connect: Connect, errors: Any) -> None:
    """A pipeline brings each reply to its command, errors in their places."""
    client = connect()
    pipe = client.pipeline(transaction=False)
    for index in range(500):
        pipe.set(f"k{index}", index).get(f"k{index}")
    pipe.lpush("k0", "x").get("k0")

    replies = pipe.execute(raise_on_error=False)

    assert [str(index) for index in range(500)] == replies[1:1000:2]
    assert isinstance(replies[-2], errors.ResponseError)
    assert replies[-1] == "0"


def test_client_transaction_runs_as_one(connect: Connect, errors: Any) -> None:
    """MULTI/EXEC brings all replies; an error inside does not undo the rest; an error before drops everything."""
    client = connect()

    assert client.pipeline().set("a", 0).incr("a").get("a").execute() == [True, 1, "1"]
    replies = client.pipeline().set("a", "x").incr("a").get("a").execute(raise_on_error=False)

    assert replies[0] is True
    assert isinstance(replies[1], errors.ResponseError)
    assert replies[2] == "x"
    with pytest.raises(errors.ResponseError):
        client.pipeline().set("a", "lost").execute_command("NOSUCH").execute()
    assert client.get("a") == "x"


def test_client_watch_sees_a_foreign_write(connect: Connect, errors: Any) -> None:
    """A watched key that another connection writes makes EXEC fail; one that nobody writes does not."""
    client, other = connect(), connect()
    client.set("w", 1)

    with client.pipeline() as pipe:
        pipe.watch("w")
        seen = pipe.get("w")
        other.set("w", 2)
        pipe.multi()
        pipe.set("w", int(seen) + 10)
        with pytest.raises(errors.WatchError):
            pipe.execute()

    assert client.get("w") == "2"


def test_client_transactions_of_many_threads_lose_nothing(connect: Connect) -> None:
    """Optimistic counters of many threads add up."""
    client = connect(max_connections=20)

    def add(_: int) -> None:
        client.transaction(_increment, "counter")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))

    assert client.get("counter") == "80"


def _increment(pipe: Any) -> None:
    value = int(pipe.get("counter") or 0)
    pipe.multi()
    pipe.set("counter", value + 1)


def test_client_pubsub_receives_channels_and_patterns(connect: Connect) -> None:
    """Messages arrive in order on channels and patterns until unsubscribed."""
    client = connect()
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("news")
    pubsub.psubscribe("n*")
    wait_for(lambda: client.pubsub_numpat() == 1, what="the pattern")
    pubsub.get_message(timeout=0.1)

    assert client.publish("news", "one") == 2
    received = _messages(pubsub, 2)
    pubsub.unsubscribe("news")
    wait_for(lambda: client.pubsub_numsub("news")[0][1] == 0, what="the end of the subscription")
    assert client.publish("news", "two") == 1
    received += _messages(pubsub, 1)
    pubsub.close()

    assert received == [("message", "one"), ("pmessage", "one"), ("pmessage", "two")]
    assert client.publish("news", "three") == 0


def _messages(pubsub: Any, count: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    deadline = time.monotonic() + 5
    while len(found) < count and time.monotonic() < deadline:
        message = pubsub.get_message(timeout=0.5)
        if message is not None:
            found.append((message["type"], message["data"]))
    return found


def test_client_lock_excludes_others(connect: Connect, errors: Any) -> None:
    """A lock lets one in at a time, and refuses to release what it no longer owns."""
    client = connect(max_connections=20)
    inside: list[int] = []

    def work(index: int) -> None:
        with client.lock("lock", timeout=10, sleep=0.005):
            inside.append(index)
            assert len(inside) == 1
            inside.pop()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(24)))
    lost = client.lock("lock", timeout=10)
    assert lost.acquire()
    client.set("lock", "stolen")
    with pytest.raises(errors.LockNotOwnedError):
        lost.release()


def test_client_script_runs_and_is_loaded_again(connect: Connect) -> None:
    """A registered script runs by its hash and is loaded again when the server has forgotten it."""
    client = connect()
    script = client.register_script("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])")

    client.set("sk", "before")
    assert client.get("sk") == "before"
    assert script(keys=["sk"], args=["one"]) == "one"
    assert client.get("sk") == "one"
    client.script_flush()
    assert script(keys=["sk"], args=["two"]) == "two"
    pipe = client.pipeline()
    script(keys=["sk"], args=["three"], client=pipe)

    assert pipe.execute() == ["three"]
    assert client.get("sk") == "three"


def test_client_blocking_pop_waits_and_times_out(connect: Connect, target: Target) -> None:
    """A blocking pop takes what is pushed later, gives None when its time is over, and holds up nobody else."""
    client = connect()
    found: list[Any] = []
    waiter = threading.Thread(target=lambda: found.append(client.blpop(["q1", "q2"], timeout=5)))

    waiter.start()
    wait_for(lambda: target.server.info("blocked_clients") == "1", what="the blocked client")
    client.set("meanwhile", "works")
    client.rpush("q2", "job")
    waiter.join(5)

    assert [list(pair) for pair in found] == [["q2", "job"]]
    assert client.brpop("empty", timeout=1) is None
    assert client.get("meanwhile") == "works"


def test_client_stream_groups_share_the_work(connect: Connect) -> None:
    """Consumers of a group get each entry once; what is not acknowledged can be claimed."""
    client = connect()
    client.xgroup_create("events", "workers", id="0", mkstream=True)
    ids = [client.xadd("events", {"n": index}) for index in range(10)]

    first = _entries(client.xreadgroup("workers", "one", {"events": ">"}, count=6))
    second = _entries(client.xreadgroup("workers", "two", {"events": ">"}, count=6, block=1000))
    client.xack("events", "workers", *first)
    pending = client.xpending("events", "workers")
    claimed = client.xautoclaim("events", "workers", "one", min_idle_time=0)

    assert ids == first + second
    assert pending["pending"] == 4
    assert second == [entry[0] for entry in claimed[1]]
    assert not client.xreadgroup("workers", "two", {"events": ">"}, block=20)


def _entries(reply: Any) -> list[str]:
    streams = reply.values() if isinstance(reply, dict) else [stream[1] for stream in reply]
    entries = next(iter(streams))
    # In RESP3 the libraries hand out the entries of a stream one level deeper.
    flat = entries[0] if entries and isinstance(entries[0][0], list | tuple) else entries
    return [entry[0] for entry in flat]


def test_client_scan_finds_every_key_once(connect: Connect) -> None:
    """The scan iterators walk everything."""
    client = connect()
    client.mset({f"scan:{index}": index for index in range(700)})
    client.hset("big", mapping={f"f{index}": index for index in range(700)})
    client.sadd("bigset", *range(700))

    assert {f"scan:{index}" for index in range(700)} == set(client.scan_iter("scan:*", count=50))
    assert len(dict(client.hscan_iter("big", count=50))) == 700
    assert len(set(client.sscan_iter("bigset", count=50))) == 700


def test_client_big_binary_value_comes_back_whole(connect: Connect) -> None:
    """A value of 8 MiB of any bytes, above what L1 takes, is stored and read back."""
    client = connect(decode_responses=False)
    value = bytes(range(256)) * 32_768

    client.set("blob", value)

    assert value == client.get("blob") == client.get("blob")
    assert [value, None] == client.mget("blob", "none")


def test_client_pool_of_threads_reads_what_it_writes(connect: Connect) -> None:
    """Sixteen threads on one pool each read what they wrote."""
    client = connect(max_connections=32)

    def work(thread: int) -> int:
        for index in range(60):
            key = f"t{thread}:{index % 5}"
            client.set(key, index)
            assert str(index) == client.get(key)
            assert [str(index), None] == client.mget(key, "none")
        return thread

    with ThreadPoolExecutor(16) as pool:
        assert list(range(16)) == list(pool.map(work, range(16)))


def test_client_connection_settings_stay_its_own(connect: Connect) -> None:
    """Database, name and id belong to the connection that asked for them."""
    zero, three = connect(), connect(db=3, client_name="three")

    zero.set("k", "zero")
    three.set("k", "three")

    assert [zero.get("k"), three.get("k"), zero.get("k")] == ["zero", "three", "zero"]
    assert [three.client_getname(), zero.client_getname()] == ["three", None]
    assert "three" in {client["name"] for client in zero.client_list()}
    assert zero.config_get("databases") == {"databases": "16"}


def test_client_monitor_shows_commands_of_others(connect: Connect) -> None:
    """MONITOR shows what others write."""
    client = connect()
    writer = threading.Timer(0.05, client.set, ["seen", "x"])
    with client.monitor() as monitor:
        writer.start()
        command = next(entry["command"] for entry in monitor.listen() if "seen" in entry["command"])
    writer.join()

    assert command == "SET seen x"


def test_client_side_cache_of_an_app_is_invalidated(redis8: Kind) -> None:
    """redis-py's own client-side cache works through Respite: hits, and an invalidation by another's write."""
    with Server(redis8) as server, running_respite({"upstream": {"url": server.url}}) as respite:
        cached = redis.Redis(port=respite.port, protocol=3, cache_config=CacheConfig(), decode_responses=True)
        other = redis.Redis(port=respite.port, decode_responses=True)
        other.set("csc", "one")

        assert [cached.get("csc") for _ in range(3)] == ["one"] * 3
        cache = cached.get_cache()
        assert cache is not None
        assert cache.size == 1
        other.set("csc", "two")
        wait_for(lambda: cached.get("csc") == "two", what="the invalidation")
        cached.set("csc", "own")
        wait_for(lambda: cached.get("csc") == "own", what="the own write")

        cached.close()
        other.close()
