"""Every read of the allow-list on real servers: Redis' bytes the first time, L1's the second, fresh after a change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.wire.reads import READS

from .raw import RawClient
from .servers import find_kind, wait_for
from .targets import Target, running_pair

Words = tuple[str, ...]

SETUP: tuple[Words, ...] = (
    ("SET", "str", "Hello, world"),
    ("SET", "empty", ""),
    ("SETRANGE", "bits", "3", "\x07"),
    ("HSET", "hash", "a", "1", "b", "two", "c", ""),
    ("RPUSH", "list", "a", "b", "c", "b"),
    ("SADD", "set", "1"),  # of integers: the order of others is not the same in two servers
    ("ZADD", "zset", "1", "a", "2.5", "b", "3", "c"),
    ("ZADD", "lex", "0", "a", "0", "b", "0", "c"),
    ("XADD", "stream", "1-1", "f", "v"),
    ("XADD", "stream", "2-1", "f", "w"),
    ("GEOADD", "geo", "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania"),
)
CHANGE: tuple[Words, ...] = (
    ("APPEND", "str", "!"),
    ("SET", "empty", "x"),
    ("SETBIT", "bits", "1", "1"),
    ("HSET", "hash", "a", "3", "d", "4"),
    ("LPUSH", "list", "b"),
    ("SADD", "set", "2"),
    ("ZADD", "zset", "7", "a", "8", "d"),
    ("ZADD", "lex", "0", "bb"),
    ("XADD", "stream", "3-1", "f", "x"),
    ("GEOADD", "geo", "12", "37", "Palermo"),
    ("SET", "missing", "here"),
)

# `K` stands for the key; each is asked of every key in the list, and of one that does not exist.
SAMPLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("STRLEN K", ("str", "empty")),
    ("GETRANGE K 0 4", ("str", "empty")),
    ("SUBSTR K -5 -1", ("str",)),
    ("GETBIT K 7", ("str", "bits")),
    ("BITCOUNT K", ("str", "bits", "empty")),
    ("BITCOUNT K 0 1 BYTE", ("str",)),
    ("BITPOS K 1", ("bits", "str")),
    ("BITPOS K 0 0 1", ("bits",)),
    ("BITFIELD_RO K GET u8 0 GET i4 4", ("str", "bits")),
    ("EXISTS K", ("str", "hash")),
    ("EXISTS K str K", ("hash", "zset")),
    ("TYPE K", ("str", "hash", "list", "set", "zset", "stream")),
    ("HGET K a", ("hash",)),
    ("HGET K nofield", ("hash",)),
    ("HMGET K a nofield b", ("hash",)),
    ("HGETALL K", ("hash",)),
    ("HKEYS K", ("hash",)),
    ("HVALS K", ("hash",)),
    ("HLEN K", ("hash",)),
    ("HEXISTS K a", ("hash",)),
    ("HEXISTS K nofield", ("hash",)),
    ("HSTRLEN K b", ("hash",)),
    ("LINDEX K 1", ("list",)),
    ("LINDEX K 99", ("list",)),
    ("LLEN K", ("list",)),
    ("LPOS K b", ("list",)),
    ("LPOS K b COUNT 0", ("list",)),
    ("LRANGE K 0 -1", ("list",)),
    ("SCARD K", ("set",)),
    ("SISMEMBER K 1", ("set",)),
    ("SISMEMBER K none", ("set",)),
    ("SMISMEMBER K 1 none", ("set",)),
    ("SMEMBERS K", ("set",)),
    ("ZCARD K", ("zset",)),
    ("ZCOUNT K (1 +inf", ("zset",)),
    ("ZLEXCOUNT K [a (c", ("lex",)),
    ("ZMSCORE K a none", ("zset",)),
    ("ZRANGE K 0 -1", ("zset",)),
    ("ZRANGE K 0 -1 WITHSCORES", ("zset",)),
    ("ZRANGE K 3 1 BYSCORE REV LIMIT 0 1", ("zset",)),
    ("ZRANGEBYLEX K - +", ("lex",)),
    ("ZRANGEBYSCORE K -inf 3 WITHSCORES", ("zset",)),
    ("ZRANK K b", ("zset",)),
    ("ZREVRANGE K 0 1", ("zset",)),
    ("ZREVRANGEBYLEX K + -", ("lex",)),
    ("ZREVRANGEBYSCORE K +inf -inf", ("zset",)),
    ("ZREVRANK K a", ("zset",)),
    ("ZSCORE K b", ("zset",)),
    ("XLEN K", ("stream",)),
    ("XRANGE K - + COUNT 5", ("stream",)),
    ("XREVRANGE K + -", ("stream",)),
    ("GEODIST K Palermo Catania km", ("geo",)),
    ("GEOHASH K Palermo none", ("geo",)),
    ("GEOPOS K Palermo none", ("geo",)),
    ("GEOSEARCH K FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHDIST", ("geo",)),
    ("GEORADIUS_RO K 15 37 200 km", ("geo",)),
    ("GEORADIUSBYMEMBER_RO K Palermo 500 km", ("geo",)),
)
NOT_NEGATIVE = ("BITPOS",)  # what a missing key gets is not kept


@pytest.fixture(scope="module", params=["redis7", "valkey9"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Target]]:
    """Start a server directly, and another of its kind behind Respite."""
    with running_pair(find_kind(request.param)) as both:
        yield both


def fill(target: Target, changes: tuple[Words, ...]) -> None:
    """Write directly, behind Respite's back."""
    with target.server.connect() as client:
        for words in changes:
            reply = client.command(*words)
            assert reply[:1] != b"-", reply


def lines() -> list[tuple[str, Words]]:
    """Every sample as (command, words), for its keys and for one that is missing."""
    found = []
    for line, keys in SAMPLES:
        for key in (*keys, "missing"):
            words = tuple(key if word == "K" else word for word in line.split())
            found.append((words[0], words))
    return found


def hits(target: Target) -> int:
    """Return how often L1 has answered."""
    assert target.respite is not None
    return int(target.respite.stats()["l1"]["hits_total"])


def settle(target: Target) -> None:
    """Wait until every push that was sent has been applied: a script's reply is a fence."""
    with target.connect() as client:
        assert client.command("EVAL", "return 1", "0") == b":1\r\n"


def warm(client: RawClient, target: Target) -> None:
    """Wait until the client's link is tracked: what is read is kept."""

    def is_kept() -> bool:
        before = hits(target)
        client.command("GET", "warm")
        client.command("GET", "warm")
        return hits(target) > before

    wait_for(is_kept, what="reads are kept")


def test_samples_name_every_read_of_the_list() -> None:
    """A read that is added to the allow-list must be tried here."""
    assert {line.split()[0].encode() for line, _ in SAMPLES} == set(READS)


@pytest.mark.parametrize("protocol", [2, 3])
def test_read_is_answered_by_redis_then_by_l1_then_fresh(pair: tuple[Target, Target], protocol: int) -> None:
    """Each reply equals Redis' own before and after a foreign change; the second of each is a hit."""
    direct, proxied = pair
    for target in pair:
        fill(target, (("FLUSHALL",), *SETUP))
    settle(proxied)
    with direct.connect() as left, proxied.connect() as right:
        for client in (left, right):
            client.command("HELLO", protocol)
        warm(right, proxied)
        wrong = [*compare(left, right, proxied, must_hit=True)]
        for target in pair:
            fill(target, CHANGE)
        settle(proxied)
        wrong += compare(left, right, proxied, must_hit=False)

    assert not wrong, "\n".join(wrong)


def compare(left: RawClient, right: RawClient, proxied: Target, *, must_hit: bool) -> Iterator[str]:
    """Ask both sides, Respite's twice; yield what is wrong."""
    for name, words in lines():
        expected = left.command(*words)
        if (first := right.command(*words)) != expected:
            yield f"{words} first: {first!r}, Redis: {expected!r}"
        before = hits(proxied)
        if (second := right.command(*words)) != expected:
            yield f"{words} second: {second!r}, Redis: {expected!r}"
        is_kept = must_hit and not (name in NOT_NEGATIVE and "missing" in words)
        if is_kept and hits(proxied) == before:
            yield f"{words} was not answered from L1"
        if expected[:1] == b"-" and hits(proxied) != before:
            yield f"{words}: an error was kept"


@pytest.mark.parametrize("words", [("HGET", "str", "a"), ("LLEN", "str"), ("ZRANGE", "zset", "a", "b"), ("STRLEN",)])
def test_read_refused_by_redis_is_not_kept(pair: tuple[Target, Target], words: Words) -> None:
    """Errors come from Redis each time."""
    direct, proxied = pair
    for target in pair:
        fill(target, (("FLUSHALL",), *SETUP))
    with direct.connect() as left, proxied.connect() as right:
        expected = left.command(*words)
        before = hits(proxied)

        assert [right.command(*words) for _ in range(3)] == [expected] * 3
    assert expected[:1] == b"-"
    assert hits(proxied) == before


def test_reads_end_with_their_key(pair: tuple[Target, Target]) -> None:
    """Replies of every type expire when their key does, to the millisecond of Redis' own clock and not later."""
    _, proxied = pair
    names = ("HGETALL hash", "LRANGE list 0 -1", "SMEMBERS set", "ZRANGE zset 0 -1", "XLEN stream", "STRLEN str")
    fill(proxied, (("FLUSHALL",), *SETUP))
    with proxied.connect() as client:
        expiring = [tuple(line.split()) for line in names]
        fill(proxied, tuple(("PEXPIRE", words[1], "300") for words in expiring))
        settle(proxied)
        warm(client, proxied)
        there = [client.command(*words) for words in expiring]
        before = hits(proxied)
        assert [client.command(*words) for words in expiring] == there
        assert hits(proxied) == before + len(expiring)
        with proxied.server.connect() as server:
            wait_for(lambda: server.command("DBSIZE") != b"", what="the server answers")
            wait_for(
                lambda: all(server.command("PTTL", words[1]) == b":-2\r\n" for words in expiring), what="all expired"
            )

        gone = [client.command(*words) for words in expiring]
    assert gone == [b"*0\r\n", b"*0\r\n", b"*0\r\n", b"*0\r\n", b":0\r\n", b":0\r\n"]


def test_exists_of_several_keys_is_put_together(pair: tuple[Target, Target]) -> None:
    """What is known of single keys answers for several; only the others are asked for."""
    _, proxied = pair
    fill(proxied, (("FLUSHALL",), *SETUP))
    with proxied.connect() as client, proxied.server.connect() as server:
        settle(proxied)
        warm(client, proxied)
        assert client.command("EXISTS", "str") == b":1\r\n"
        assert client.command("EXISTS", "nokey") == b":0\r\n"
        server.command("CONFIG", "RESETSTAT")

        assert client.command("EXISTS", "str", "nokey", "hash", "str") == b":3\r\n"
        assert client.command("EXISTS", "hash", "str") == b":2\r\n"

        stats = server.command("INFO", "commandstats").decode()
    assert "cmdstat_exists:calls=1," in stats


def test_fields_that_expire_keep_hashes_out_of_l1() -> None:
    """A field may end before its key does: then replies about hashes come from Redis, until no field has an end."""
    with running_pair(find_kind("valkey9")) as (_, proxied), proxied.connect() as client:
        respite = proxied.respite
        assert respite is not None
        wait_for(lambda: not respite.stats()["l1"]["hash_fields_expire"], what="the server has said that none expires")
        fill(proxied, (("HSET", "h", "f", "1", "g", "2"),))
        settle(proxied)
        warm(client, proxied)
        before = hits(proxied)
        assert [client.command("HGET", "h", "f") for _ in range(2)] == [b"$1\r\n1\r\n"] * 2
        assert hits(proxied) == before + 1

        assert client.command("HPEXPIRE", "h", "200", "FIELDS", "1", "f") == b"*1\r\n:1\r\n"
        assert client.command("HGET", "h", "f") == b"$1\r\n1\r\n"
        wait_for(lambda: client.command("HGET", "h", "f") == b"$-1\r\n", what="the field ends", timeout_s=2)
        assert client.command("HGETALL", "h") == b"*2\r\n$1\r\ng\r\n$1\r\n2\r\n"
        assert hits(proxied) == before + 1


def test_fields_that_others_let_expire_are_noticed() -> None:
    """A foreign HPEXPIRE is seen in the keyspace figures within about a second."""
    with running_pair(find_kind("valkey9")) as (_, proxied):
        respite = proxied.respite
        assert respite is not None
        wait_for(lambda: not respite.stats()["l1"]["hash_fields_expire"], what="the server has said that none expires")

        fill(proxied, (("HSET", "h", "f", "1"), ("HPEXPIRE", "h", "100000", "FIELDS", "1", "f")))

        wait_for(lambda: respite.stats()["l1"]["hash_fields_expire"], what="it is noticed", timeout_s=5)
        fill(proxied, (("DEL", "h"),))
        wait_for(lambda: not respite.stats()["l1"]["hash_fields_expire"], what="and that it is over", timeout_s=20)
