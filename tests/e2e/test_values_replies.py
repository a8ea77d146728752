"""Replies that carry enveloped values: opened wherever they are, and never guessed at where they are damaged."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import pytest
import redis

from proxy.values.dictionary import stored as stored_dictionary
from proxy.values.envelope import MAGIC, Codec, open_value, read_header, wrap

from .raw import RawClient, encode_all, tree
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite

CLASSES: Mapping[str, Any] = {
    "compression": {"min_bytes": "100B", "time_share": 1.0},  # a busy machine stores no value as it is
    "class": [
        {"name": "versioned", "match": ["v:*"], "version": True},
        {"name": "compressed", "match": ["c:*"], "compress": True, "version": True},
        {"name": "small", "match": ["d:*"], "dictionary": True},
        {"name": "bare", "match": ["b:*"]},
    ],
}
TEXT = b"a value of some length, which compresses; " * 20
VALUES = {b"v:1": b"short", b"v:empty": b"", b"v:2": TEXT, b"c:1": TEXT, b"c:2": TEXT[::-1], b"b:1": TEXT}
MIB = 1024 * 1024


@attrs.frozen
class Ways:
    """A server with two proxies before it: `direct` is a client of it, `proxied` and `second` one of each proxy."""

    server: Server
    respite: Respite
    proxied: redis.Redis
    second: redis.Redis
    direct: redis.Redis

    def figure(self, name: str) -> int:
        """Read one of the value figures."""
        return int(self.respite.stats()["values"][name])


@pytest.fixture(scope="module")
def both(redis7: Kind) -> Iterator[Ways]:
    """Run one server and two proxies for all tests here."""
    with (
        Server(redis7) as server,
        running_respite({"upstream": {"url": server.url}, **CLASSES}) as respite,
        running_respite({"upstream": {"url": server.url}, **CLASSES}) as other,
        redis.Redis(port=respite.port) as proxied,
        redis.Redis(port=other.port) as second,
        redis.Redis(port=server.port) as direct,
    ):
        for proxy in (respite, other):
            wait_for(
                lambda proxy=proxy: proxy.stats()["values"]["announcements"] == "subscribed", what="its link is up"
            )
        yield Ways(server, respite, proxied, second, direct)


@pytest.fixture
def ways(both: Ways) -> Ways:
    """Fill the emptied server with values of every form."""
    both.direct.flushall()
    both.proxied.mset(VALUES)
    assert [key for key in VALUES if both.direct.get(key).startswith(MAGIC)] == [
        b"v:1",
        b"v:empty",
        b"v:2",
        b"c:1",
        b"c:2",
    ]
    assert read_header(both.direct.get(b"c:1")).codec is Codec.LZ4
    return both


@pytest.mark.parametrize("protocol", [2, 3])
def test_value_is_opened_in_every_reply_that_carries_it(ways: Ways, protocol: int) -> None:
    """GET and its like, SORT, EXEC, scripts: as from a server that holds the plain value."""
    with redis.Redis(port=ways.respite.port, protocol=protocol) as client:
        for key, value in VALUES.items():
            assert client.get(key) == value
            assert client.get(key) == value
            assert client.getex(key, ex=100) == value
            assert client.getset(key, value) == value
            assert client.set(key, value, get=True) == value
            assert client.set(key, value, get=True, nx=True) == value
        assert client.mget(*VALUES, "none") == [*VALUES.values(), None]
        assert client.getdel("c:2") == TEXT[::-1]
        assert client.get("c:2") is None

        client.rpush("order", "2", "1")
        assert client.sort("order", get=["v:*", "#"]) == [b"short", b"1", TEXT, b"2"]
        assert client.execute_command("SORT_RO", "order", "BY", "nosort", "GET", "c:*") == [None, TEXT]

        with client.pipeline(transaction=True) as pipeline:
            pipeline.get("v:1").mget("c:1", "none", "v:2").set("v:1", "other", get=True).get("v:1").hgetall("none")
            assert pipeline.execute() == [b"short", [TEXT, None, TEXT], b"short", b"other", {}]

        script = "return {redis.call('GET', KEYS[1]), {{redis.call('MGET', unpack(KEYS))}, 7}, {}}"
        assert client.eval(script, 2, "c:1", "v:2") == [TEXT, [[[TEXT, TEXT]], 7], []]


def test_values_written_in_one_pipeline_are_each_their_own(ways: Ways) -> None:
    """Short ones and long ones, wrapped and bare, other commands between: none gets what belongs to its neighbour."""
    rng = random.Random(7)
    for _ in range(20):
        written: dict[str, bytes] = {}
        with ways.proxied.pipeline(transaction=False) as pipeline:
            for number in range(40):
                key = f"{rng.choice('vcbx')}:{number}"
                written[key] = rng.randbytes(4) * rng.choice((1, 10, 1000, 1020, 1100, 5000, 10_000))
                pipeline.set(key, written[key])
                if rng.random() < 0.2:
                    pipeline.incr("n") if rng.random() < 0.5 else pipeline.exists(key)
            assert pipeline.execute().count(True) >= 40
        values = list(written.values())
        wait_for(lambda written=written, values=values: ways.second.mget(*written) == values, what="L1 has heard")
        for key, value in written.items():
            stored = ways.direct.get(key)
            assert open_value(stored, {})[0] == value if key[0] in "vc" else stored == value


def test_value_that_a_script_reads_without_declaring_it_is_opened(ways: Ways) -> None:
    """The reply carries it, so it is opened, in a map of RESP3 as well."""
    with ways.respite.connect() as client:
        client.command("HELLO", "3")
        script = "redis.setresp(3); return {map={a=redis.call('GET', ARGV[1])}}"

        assert client.command("EVAL", script, 0, "c:1") == b"%%1\r\n$1\r\na\r\n$%d\r\n%b\r\n" % (len(TEXT), TEXT)
        assert client.command("EVAL", "return {{{redis.call('GET', ARGV[1])}}}", 0, "v:1") == (
            b"*1\r\n*1\r\n*1\r\n$5\r\nshort\r\n"
        )


@pytest.mark.parametrize("key", ["v:big", "c:big"])
@pytest.mark.parametrize("kind_of_bytes", ["compressible", "random"])
def test_large_value_comes_back_whole(ways: Ways, key: str, kind_of_bytes: str) -> None:
    """A megabyte and more, alone, in MGET, in EXEC and in a script; it arrives in many chunks."""
    size = MIB + 4_321
    value = random.Random(3).randbytes(size) if kind_of_bytes == "random" else (TEXT * (size // len(TEXT) + 1))[:size]
    ways.proxied.set(key, value)
    stored = ways.direct.strlen(key)
    assert stored < size / 10 if (key, kind_of_bytes) == ("c:big", "compressible") else size < stored < size + 30

    assert [ways.proxied.get(key) for _ in range(3)] == [value] * 3
    assert ways.proxied.mget("v:1", key, key, "c:1") == [b"short", value, value, TEXT]
    assert ways.proxied.pipeline().get(key).get("v:1").execute() == [value, b"short"]
    assert ways.proxied.eval("return {redis.call('GET', ARGV[1]), 1}", 0, key) == [value, 1]
    assert ways.proxied.strlen(key) == size


def test_pipeline_of_a_hundred_keeps_order(ways: Ways) -> None:
    """Opened, plain and missing values in turn, of all sizes, sent at once; and once more from L1."""
    expected = {f"{'vcbx'[at % 4]}:p{at}": random.Random(at).randbytes(at * 7) + TEXT[: at * 11] for at in range(100)}
    with ways.proxied.pipeline(transaction=False) as pipeline:
        for key, value in expected.items():
            pipeline.set(key, value)
        assert pipeline.execute() == [True] * 100
    for _ in range(2):
        with ways.proxied.pipeline(transaction=False) as pipeline:
            for key in expected:
                pipeline.get(key)
                pipeline.get("none")
            assert pipeline.execute() == [part for value in expected.values() for part in (value, None)]


@pytest.mark.parametrize("message", [MAGIC + b"no envelope", MAGIC], ids=["garbage", "magic"])
def test_what_is_no_value_and_begins_with_the_magic_passes_untouched(ways: Ways, message: bytes) -> None:
    """Messages, fields, elements and members are not ours, in keys of a class as well."""
    client = ways.proxied
    with client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe("channel")
        listener.get_message(timeout=1)
        wait_for(lambda: client.publish("channel", message) == 1, what="the subscription")
        wait_for(lambda: (listener.get_message(timeout=0.1) or {}).get("data") == message, what="the message")
    for prefix in ("v", "c", "x"):
        client.hset(f"{prefix}:hash", mapping={"field": message, message: "value"})
        client.rpush(f"{prefix}:list", message, "other")
        client.zadd(f"{prefix}:zset", {message: 1})
        for _ in range(2):
            assert client.hgetall(f"{prefix}:hash") == {b"field": message, message: b"value"}
            assert client.hget(f"{prefix}:hash", "field") == message
            assert client.lrange(f"{prefix}:list", 0, -1) == [message, b"other"]
            assert client.zrange(f"{prefix}:zset", 0, -1, withscores=True) == [(message, 1.0)]
        assert client.pipeline().hget(f"{prefix}:hash", "field").lpop(f"{prefix}:list").execute() == [message, message]
    assert ways.figure("damaged_total") == 0


WHOLE_ENVELOPE = wrap(b"what a user took out of Redis", 77)


@pytest.mark.parametrize("key", ["v:own", "c:own", "d:own", "b:own", "own"])
@pytest.mark.parametrize("value", [MAGIC, MAGIC + b"and more", WHOLE_ENVELOPE, wrap(WHOLE_ENVELOPE, 0)])
def test_value_of_a_user_that_looks_like_an_envelope_comes_back(ways: Ways, key: str, value: bytes) -> None:
    """Byte for byte, in every command that gives it, from L1, and through a proxy that has not seen it written."""
    client, before = ways.proxied, ways.figure("damaged_total")
    client.set(key, value, ex=100)

    assert [ways.second.get(key), ways.second.get(key), *ways.second.mget(key)] == [value] * 3
    assert [client.get(key), client.get(key), client.getex(key), *client.mget(key, "v:1")] == [*[value] * 4, b"short"]
    assert client.pipeline().get(key).set(key, value, get=True, keepttl=True).execute() == [value, value]
    assert client.eval("return {redis.call('GET', ARGV[1])}", 0, key) == [value]
    assert client.getset(key, value) == value
    assert client.getdel(key) == value
    assert ways.figure("damaged_total") == before


DAMAGED: Mapping[str, Callable[[Ways, str], None]] = {
    "a flipped byte of its body": lambda ways, key: ways.direct.setrange(key, ways.direct.strlen(key) - 1, b"\xff"),
    "a flipped byte of its checksum": lambda ways, key: ways.direct.setrange(key, 17, b"\x00\x01\x02"),
    "cut short": lambda ways, key: ways.direct.set(key, ways.direct.get(key)[:-3]),
    "cut in its header": lambda ways, key: ways.direct.set(key, ways.direct.get(key)[:9]),
    "of an unknown format": lambda ways, key: ways.direct.setrange(key, 4, b"\x09"),
    "of unknown flags": lambda ways, key: ways.direct.setrange(key, 5, b"\xe1"),
    "of an unknown dictionary": lambda ways, key: ways.direct.set(
        key, wrap(TEXT, 5, codec=Codec.LZ4, body=b"body", dictionary=4_711)
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("key", ["v:2", "c:1"])
def test_damaged_value_is_an_error_and_stays_as_it_is(ways: Ways, key: str, damage: str) -> None:
    """Wherever its key is known, the others answered as ever; counted; not a byte in Redis is touched."""
    DAMAGED[damage](ways, key)
    stored = ways.direct.get(key)
    before = ways.figure("damaged_total")
    error = b"-ERR respite: value of '%b' is damaged (" % key.encode()

    with ways.respite.connect() as client:
        for _ in range(2):
            assert client.command("GET", key).startswith(error)
            parts = tree(client.command("MGET", "v:1", key, "c:2")).children
            assert [parts[0].own, parts[2].own] == [b"$5\r\nshort\r\n", b"$%d\r\n%b\r\n" % (len(TEXT), TEXT[::-1])]
            assert parts[1].own.startswith(error)
        assert client.command("GETEX", key).startswith(error)
        assert client.command("STRLEN", key).startswith(error)
        assert client.command("EVAL", "return redis.call('GET', KEYS[1])", 1, key).startswith(error)
        client.send(encode_all([("MULTI",), ("GET", "v:1"), ("GET", key), ("MGET", "v:1", key), ("EXEC",)]))
        found = tree(client.frames(5)[-1]).children
        assert found[0].own == b"$5\r\nshort\r\n"
        assert found[1].own.startswith(error)
        assert found[2].children[0].own == b"$5\r\nshort\r\n"
        assert found[2].children[1].own.startswith(error)
        assert client.command("PING") == b"+PONG\r\n"
    assert ways.direct.get(key) == stored
    assert ways.figure("damaged_total") >= before + 9

    ways.proxied.set(key, "whole")
    assert ways.proxied.get(key) == b"whole"


def test_damaged_value_in_a_large_reply_is_an_error(ways: Ways) -> None:
    """Replies that are too large for L1 are passed on part by part: not what must be looked at."""
    keys = [f"v:large{at}" for at in range(4)]
    values = [random.Random(at).randbytes(MIB + 100) for at in range(4)]
    for key, value in zip(keys, values, strict=True):
        ways.proxied.set(key, value)
    ways.direct.setrange(keys[2], 500_000, b"damage")

    with ways.respite.connect() as client:
        assert client.command("GET", keys[2]).startswith(b"-ERR respite: value of 'v:large2' is damaged (")
        parts = tree(client.command("MGET", *keys)).children
        assert [part.own[-MIB - 102 : -2] for part in (parts[0], parts[1], parts[3])] == [
            values[0],
            values[1],
            values[3],
        ]
        assert parts[2].own.startswith(b"-ERR respite: value of 'v:large2' is damaged (")


def test_values_of_a_dictionary_class_are_read_by_every_proxy(ways: Ways) -> None:
    """A class learns a dictionary; proxies that run, and one started later, open what was compressed with it."""
    settings = {"upstream": {"url": ways.server.url}, **CLASSES}
    rng = random.Random(5)

    def message(number: int) -> bytes:
        return b'{"id": %d, "from": "agent-%d", "text": "Thank you for your message about order %d.", "read": %s}' % (
            number,
            rng.randrange(90),
            rng.randrange(10**6),
            rng.choice((b"true", b"false")),
        )

    messages = {f"d:{number}": message(number) for number in range(3_000)}
    rounds = 0

    def is_learnt() -> bool:
        nonlocal rounds
        rounds += 1
        some = dict(list(messages.items())[:: 1 if rounds == 1 else 300])
        ways.proxied.mset(some)
        return any(ways.direct.get(key).startswith(MAGIC) for key in some)

    wait_for(is_learnt, what="a dictionary is learnt and used", timeout_s=20)
    ways.proxied.mset(messages)
    with running_respite(settings) as third, redis.Redis(port=third.port) as late:
        for client in (ways.proxied, ways.second, late):
            assert client.mget(list(messages)) == list(messages.values())
            assert client.get("d:77") == messages["d:77"]
            assert client.strlen("d:78") == len(messages["d:78"])
    sizes = [ways.direct.strlen(key) for key in messages]
    assert sum(sizes) < 0.8 * sum(map(len, messages.values()))


def test_value_whose_dictionary_comes_later_is_not_damaged_for_good(ways: Ways) -> None:
    """A dictionary that is announced after it was missed: values that need it are opened from then on."""
    dictionary = TEXT * 4
    field, stored = stored_dictionary("small", Codec.LZ4, dictionary)
    lz4_block = pytest.importorskip("lz4.block")
    body = lz4_block.compress(TEXT, store_size=False, dict=dictionary)
    ways.direct.set("d:late", wrap(TEXT, 0, codec=Codec.LZ4, body=body, dictionary=int(field)))

    with pytest.raises(redis.ResponseError, match="value of 'd:late' is damaged"):
        ways.proxied.get("d:late")
    ways.direct.hset("respite:dictionaries", field, stored)
    with (
        running_respite({"upstream": {"url": ways.server.url}, **CLASSES}) as other,
        RawClient(other.address) as client,
    ):
        assert client.command("GET", "d:late") == b"$%d\r\n%b\r\n" % (len(TEXT), TEXT)
