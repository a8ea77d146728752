"""Scripts in common use on keys of classes with envelopes: they find plain values, and leave what can be read.

Every lock and limiter runs on values with a version (a plain body) and on compressed ones.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import redis
from redis.exceptions import LockError, LockNotOwnedError, NoScriptError

from proxy.values.envelope import MAGIC, Codec, read_header

from .raw import encode
from .servers import Kind, Server, wait_for
from .targets import Target, running_respite

SETTINGS: Mapping[str, Any] = {
    "compression": {"min_bytes": "100B"},
    "class": [
        {"name": "versioned", "match": ["v:*", "{v}:*"], "version": True},
        {"name": "compressed", "match": ["c:*", "{c}:*"], "compress": True},
    ],
}
CODECS = {"v": Codec.PLAIN, "c": Codec.LZ4}
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
EXTEND = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
SWAP = """
local old = redis.call('GET', KEYS[1])
if old == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL') end
return old
"""
TOKEN_BUCKET = """
local capacity, rate, now, asked = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local state = redis.call('GET', KEYS[1])
local tokens, at = capacity, now
if state then
  local found = cjson.decode(state)
  tokens, at = found.tokens, found.at
end
tokens = math.min(capacity, tokens + (now - at) * rate)
local allowed = tokens >= asked
if allowed then tokens = tokens - asked end
redis.call('SET', KEYS[1], cjson.encode({tokens = tokens, at = now, comment = ARGV[5]}), 'EX', 60)
return {allowed and 1 or 0, tostring(tokens)}
"""
SLIDING_ZSET = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], 0, ARGV[1] - ARGV[2])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
FIXED = """
local count = redis.call('INCR', KEYS[1])
if count == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return count
"""
LIBRARY = """#!lua name=respitetest
redis.register_function('swap_if', function(keys, args)
  local old = redis.call('GET', keys[1])
  if old == args[1] then redis.call('SET', keys[1], args[2], 'KEEPTTL') end
  return {old, {redis.call('GET', keys[1])}}
end)
redis.register_function{
  function_name = 'look', callback = function(keys) return redis.call('GET', keys[1]) end, flags = {'no-writes'}
}
"""


@pytest.fixture(scope="module")
def way(redis7: Kind) -> Iterator[Target]:
    """Run a server behind a proxy that wraps and compresses."""
    with Server(redis7) as server, running_respite({"upstream": {"url": server.url}, **SETTINGS}) as respite:
        wait_for(lambda: respite.stats()["values"]["announcements"] == "subscribed", what="its link is up")
        yield Target(server, respite)


@pytest.fixture(params=[2, 3])
def client(way: Target, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """Give a client of the proxy, in each protocol, over an empty database."""
    with redis.Redis(port=way.port, protocol=request.param) as opened:
        opened.flushall()
        yield opened


@pytest.fixture
def direct(way: Target) -> Iterator[redis.Redis]:
    """Give a client that sees what is stored."""
    with redis.Redis(port=way.server.port) as opened:
        yield opened


pytestmark = pytest.mark.parametrize("form", ["v", "c"])


def token(name: str = "owner") -> str:
    """Make a value that is worth compressing."""
    return f"{name}-{uuid.uuid4()}-" + "padding " * 30


def is_sealed(direct: redis.Redis, form: str, key: str) -> bool:
    """Tell whether a key holds an envelope of that form."""
    stored = direct.get(key) or b""
    return stored.startswith(MAGIC) and read_header(stored).codec is CODECS[form]


def test_lock_is_released_by_its_owner_only(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """SET NX PX, then compare and extend, compare and delete."""
    key, mine, other = f"{form}:lock", token("mine"), token("other")
    assert client.set(key, mine, nx=True, px=30_000) is True
    assert is_sealed(direct, form, key)
    assert client.set(key, other, nx=True, px=30_000) is None

    assert client.eval(RELEASE, 1, key, other) == 0
    assert client.get(key) == mine.encode()
    assert client.eval(EXTEND, 1, key, other, 90_000) == 0
    assert client.eval(EXTEND, 1, key, mine, 90_000) == 1
    assert 80_000 < client.pttl(key) <= 90_000
    assert client.eval(RELEASE, 1, key, mine) == 1
    assert client.get(key) is None
    assert client.set(key, other, nx=True) is True
    assert is_sealed(direct, form, key)


def test_lock_of_redis_py_works(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """Acquire, extend, reacquire, release; someone else's is neither extended nor released."""
    name = f"{form}:pylock"
    lock = client.lock(name, timeout=20, blocking=False)
    assert lock.acquire(token=token())
    assert is_sealed(direct, form, name)
    assert not client.lock(name, timeout=20, blocking=False).acquire()
    assert lock.owned()
    assert lock.locked()
    assert lock.extend(30)
    assert 40_000 < client.pttl(name) <= 50_000
    assert lock.extend(10, replace_ttl=True)
    assert client.pttl(name) <= 10_000
    assert lock.reacquire()
    assert client.pttl(name) > 15_000
    client.set(name, token("thief"), px=20_000)
    assert not lock.owned()
    with pytest.raises(LockNotOwnedError):
        lock.extend(10)
    with pytest.raises(LockError):
        lock.release()
    client.delete(name)
    with client.lock(name, timeout=20), pytest.raises(LockError):
        client.lock(name, timeout=20, blocking=False).__enter__()
    assert client.get(name) is None


def test_lock_of_redis_py_excludes(client: redis.Redis, way: Target, form: str) -> None:
    """Threads that add to a number under a lock lose nothing."""
    client.set(f"{form}:sum", "start 0")

    def work() -> None:
        with redis.Redis(port=way.port) as own:
            for _ in range(8):
                with own.lock(f"{form}:mutex", timeout=30, sleep=0.001):
                    word, number = own.get(f"{form}:sum").split()
                    own.set(f"{form}:sum", b"%b %d" % (word, int(number) + 1))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert client.get(f"{form}:sum") == b"start 32"


def test_redlock_works(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """As its implementations do it: SET NX PX; scripts with several keys that count what they extend and release."""
    keys, mine = [f"{{{form}}}:resource:{at}" for at in range(3)], token()
    extend = """
    local count = 0
    for _, key in ipairs(KEYS) do
      if redis.call('GET', key) == ARGV[1] then redis.call('PEXPIRE', key, ARGV[2]) count = count + 1 end
    end
    return count
    """
    release = """
    local count = 0
    for _, key in ipairs(KEYS) do
      if redis.call('GET', key) == ARGV[1] then count = count + redis.call('DEL', key) end
    end
    return count
    """
    acquire = """
    for _, key in ipairs(KEYS) do if redis.call('EXISTS', key) == 1 then return 0 end end
    for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
    return #KEYS
    """
    assert client.eval(acquire, 3, *keys, mine, 30_000) == 3
    assert client.eval(acquire, 1, keys[1], token(), 30_000) == 0
    client.set(keys[2], token("other"), px=30_000)
    client.set(keys[0], mine, px=30_000)
    assert [is_sealed(direct, form, key) for key in keys] == [True, False, True]

    assert client.eval(extend, 3, *keys, mine, 90_000) == 2
    assert [client.pttl(key) > 60_000 for key in keys] == [True, True, False]
    assert client.eval(release, 3, *keys, mine) == 2
    assert client.exists(*keys) == 1


def test_token_bucket_counts(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """Its state is JSON in a string: 5 pass, the sixth does not, and after a second one does."""
    script, key, comment = client.register_script(TOKEN_BUCKET), f"{form}:bucket", "padding " * 30

    def ask(now: float) -> int:
        return int(script(keys=[key], args=[5, 1, now, 1, comment])[0])

    client.set(key, json.dumps({"tokens": 5, "at": 1000, "comment": comment}))
    assert is_sealed(direct, form, key)
    assert [ask(1000) for _ in range(6)] == [1, 1, 1, 1, 1, 0]
    assert [ask(1001), ask(1001), ask(1003), ask(1003), ask(1003)] == [1, 0, 1, 1, 0]
    assert client.ttl(key) > 50
    assert client.get(key).startswith(b"{")


def test_sliding_window_limits(client: redis.Redis, form: str) -> None:
    """As a sorted set, and as a string that the app writes between."""
    key = f"{form}:window"
    taken = [client.eval(SLIDING_ZSET, 1, key, 1_000 + at, 1_000, 3, token()) for at in range(5)]
    assert taken == [1, 1, 1, 0, 0]
    assert client.eval(SLIDING_ZSET, 1, key, 2_001, 1_000, 3, token()) == 1
    assert client.zcard(key) == 2

    text = """
    local kept = {}
    for at in string.gmatch(redis.call('GET', KEYS[1]) or '', '%d+') do
      if tonumber(at) > ARGV[1] - ARGV[2] then kept[#kept + 1] = at end
    end
    local allowed = #kept < tonumber(ARGV[3])
    if allowed then kept[#kept + 1] = ARGV[1] end
    redis.call('SET', KEYS[1], table.concat(kept, ' ') .. ' ', 'PX', ARGV[2])
    return {allowed and 1 or 0, table.concat(kept, ' ')}
    """
    old = "1 " * 100
    client.set(f"{form}:stamps", old, px=50_000)
    found = [client.eval(text, 1, f"{form}:stamps", 5_000 + at, 3_000, 2)[0] for at in range(3)]
    assert found == [1, 1, 0]
    assert client.get(f"{form}:stamps") == b"5000 5001 "


def test_fixed_window_counter_counts(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """INCR and EXPIRE, as a script, as a pipeline and as plain commands: numbers are never wrapped."""
    key = f"{form}:counter"
    assert [client.eval(FIXED, 1, key, 60) for _ in range(3)] == [1, 2, 3]
    assert client.pipeline().incr(key).expire(key, 50).execute() == [4, True]
    client.set(key, 41)
    assert client.incr(key) == 42
    assert client.incrbyfloat(key, 0.5) == 42.5
    assert (direct.get(key), client.get(key)) == (b"42.5", b"42.5")


def test_value_is_swapped_if_it_is_equal(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """A script's comparison sees the plain value, its reply carries it, the TTL stays; EVALSHA, SCRIPT LOAD, too."""
    key, one, two = f"{form}:cas", token("one").encode(), token("two").encode()
    with pytest.raises(NoScriptError):
        client.evalsha("0" * 40, 1, key)
    client.set(key, one, px=70_000)
    sha = client.script_load(SWAP)
    assert is_sealed(direct, form, key)

    assert client.evalsha(sha, 1, key, b"something else", two) == one
    assert client.get(key) == one
    assert client.evalsha(sha, 1, key, one, two) == one
    assert client.get(key) == two
    assert 60_000 < client.pttl(key) <= 70_000
    client.set(key, one)
    assert client.pipeline(transaction=True).set(key, one).evalsha(sha, 1, key, one, two).get(key).execute() == [
        True,
        one,
        two,
    ]


def test_functions_see_plain_values(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """FCALL and FCALL_RO of a library that was loaded through the proxy."""
    key, one, two = f"{form}:function", token("one").encode(), token("two").encode()
    client.function_load(LIBRARY, replace=True)
    client.set(key, one)
    assert is_sealed(direct, form, key)

    assert client.fcall_ro("look", 1, key) == one
    client.set(key, one)
    assert client.fcall("swap_if", 1, key, one, two) == [one, [two]]
    assert client.get(key) == two


def test_read_only_script_sees_plain_values(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """EVAL_RO and EVALSHA_RO; what they may not do they still may not."""
    key, value = f"{form}:look", token("value").encode()
    script = "return {#redis.call('GET', KEYS[1]), {redis.call('GETRANGE', KEYS[1], 0, 4)}, redis.call('GET', KEYS[1])}"
    client.set(key, value, ex=100)
    assert is_sealed(direct, form, key)
    assert client.eval_ro(script, 1, key) == [len(value), [b"value"], value]
    client.set(key, value, ex=100)
    assert client.evalsha_ro(client.script_load(script), 1, key) == [len(value), [b"value"], value]
    with pytest.raises(redis.ResponseError, match=r"[Ww]rite"):
        client.eval_ro("return redis.call('DEL', KEYS[1])", 1, key)
    assert client.get(key) == value


def test_script_of_many_keys_gets_all_of_them_plain(client: redis.Redis, direct: redis.Redis, form: str) -> None:
    """Sealed, plain and missing ones, of other types as well; nested replies carry them."""
    keys = [f"{form}:many:{at}" for at in range(20)]
    values = [token(f"value{at}").encode() for at in range(20)]
    client.mset(dict(zip(keys, values, strict=True)))
    client.rpush(f"{form}:list", "element")
    client.set("outside", "plain")
    assert all(is_sealed(direct, form, key) for key in keys)
    script = """
    local found = {}
    for at, key in ipairs(KEYS) do
      local value = redis.pcall('GET', key)
      found[at] = {value and type(value) == 'string' and #value or -1, {value}}
    end
    return {found, {{{redis.call('MGET', KEYS[1], KEYS[2])}}}}
    """
    found, nested = client.eval(script, 23, *keys, "outside", f"{form}:none", f"{form}:more")
    assert found[:20] == [[len(value), [value]] for value in values]
    assert found[20:22] == [[5, [b"plain"]], [-1, [None]]]
    assert nested == [[[values[:2]]]]
    assert client.mget(keys) == values
    assert client.eval("return redis.call('LRANGE', KEYS[1], 0, -1)", 2, f"{form}:list", keys[0]) == [b"element"]


def test_script_and_writers_at_once_lose_nothing(client: redis.Redis, way: Target, form: str) -> None:
    """A script that appends, while others write the key anew through the proxy: every append is to a whole value."""
    key, ends = f"{form}:busy", time.monotonic() + 0.5
    padding = "padding " * 30
    append = "local v = redis.call('GET', KEYS[1]) or '' redis.call('SET', KEYS[1], v .. '|x') return v"
    seen: list[bytes] = []

    def write() -> None:
        with redis.Redis(port=way.port) as own:
            while time.monotonic() < ends:
                own.set(key, padding + uuid.uuid4().hex)
                time.sleep(0.003)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    while time.monotonic() < ends:
        seen.append(client.eval(append, 1, key))
    for writer in writers:
        writer.join(10)

    assert len(seen) > 10
    assert all(value == b"" or value.startswith(padding.encode()) or set(value) <= set(b"|x") for value in seen)


def test_pipelined_scripts_keep_order(client: redis.Redis, way: Target, form: str) -> None:
    """SET and EVAL in turn on one connection, sent at once: each script sees the SET before it."""
    key, values = f"{form}:turns", [token(str(at)).encode() for at in range(20)]
    with way.connect() as raw:
        look = ("EVAL", "return redis.call('GET', KEYS[1])", 1, key)
        raw.send(b"".join(encode("SET", key, value) + encode(*look) for value in values))
        assert raw.frames(40) == [
            part for value in values for part in (b"+OK\r\n", b"$%d\r\n%b\r\n" % (len(value), value))
        ]
    assert client.get(key) == values[-1]


def test_transaction_and_writers_at_once_lose_nothing(client: redis.Redis, way: Target, form: str) -> None:
    """MULTI with commands that look at bytes, while others write the key anew: never on a value that is sealed."""
    key, value = f"{form}:raced", b"padding " * 30
    ends = time.monotonic() + 0.5
    client.set(key, value)

    def write() -> None:
        with redis.Redis(port=way.port) as own:
            while time.monotonic() < ends:
                own.set(key, value)
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    rounds = 0
    while time.monotonic() < ends:
        size, found, length = client.pipeline(transaction=True).append(key, "!").get(key).strlen(key).execute()
        assert found.rstrip(b"!") == value
        assert size == length == len(found)
        rounds += 1
    writer.join(10)

    assert rounds > 10
    assert client.get(key).rstrip(b"!") == value
