"""What a pipeline starts with and L1 knows is answered from its bytes, each reply as if a parser had led to it.

The same bytes go to a worker and to a Redis that nobody stands before; the replies are compared byte for byte. A model
Redis where the moment matters, a real one for random pipelines.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from proxy.wire.encode import bulk, command

from ..core.model_commands import COMMANDS
from ..core.model_redis import ModelRedis
from ..core.world import STALENESS_S, ScriptedClient, World, running_world
from ..e2e.raw import RawClient
from ..e2e.servers import Server, find_kind
from .conftest import Serve
from .peer import until

GET_A, GET_B = command("GET", "a"), command("GET", "b")
ALL = command("LRANGE", "l", 0, -1)
LENGTH = command("LLEN", "l")
IS_THERE = command("EXISTS", "a")
MANY = b"".join([GET_A, ALL, command("STRLEN", "a"), IS_THERE, GET_B, LENGTH])
ALL_REPLY = b"*1\r\n" + bulk(b"element")
INSIDE = b"x\r\n*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
"""An argument with a whole request of L1 in it, at the start of a line."""

PIPELINES: dict[str, bytes] = {
    "hits": MANY * 3,
    "a miss in front": command("GET", "none") + MANY,
    "a miss in the middle": MANY + command("STRLEN", "none") + MANY,
    "a miss of GET among hits of GET": GET_A + GET_B + command("GET", "none") + GET_A,
    "a write in front": command("SET", "a", "one") + MANY,
    "a write in the middle": MANY + command("INCR", "n") + command("GET", "n") + MANY,
    "a write of what is read around it": GET_A + command("SET", "a", "two") + GET_A + IS_THERE,
    "a write as long as a GET": MANY + command("DEL", "b") + MANY + command("SET", "b", "back"),
    "errors": command("GET", "l") + MANY + command("LLEN", "a") + command("GET", "l") + GET_A,
    "a request as a value": command("SET", "b", GET_A) + GET_B + command("SET", "b", MANY) + GET_B + GET_A,
    "a request inside a value": MANY + command("SET", "b", INSIDE) + GET_B + MANY,
    "a request inside a name": MANY + command("GET", INSIDE) + command("STRLEN", INSIDE) + GET_A,
    "a request inside a name that is held": command("SET", INSIDE, "v") + command("GET", INSIDE) * 2 + MANY,
    "the head of a request as a value": command("SET", "b", "\r\n*3\r\n$6\r\nLRANGE") + ALL + GET_B,
    "the start of a request as a name": command("GET", "a\r\n") + command("EXISTS", "\r\n*") + IS_THERE,
    "several keys": MANY + command("MGET", "a", "none", "b") + command("EXISTS", "a", "a", "none") + MANY,
    "MULTI": MANY + command("MULTI") + GET_A + ALL + command("SET", "a", "3") + GET_A + command("EXEC") + MANY,
    "another database": MANY + command("SELECT", 1) + GET_A + ALL + command("SELECT", 0) + MANY,
    "another spelling": b"".join([command("get", "a"), command("Get", "a"), command("llen", "l"), LENGTH, GET_A]),
    "long requests": command("GET", "g" * 600) + command("STRLEN", "s" * 600) + MANY,
}


class Pair:
    """A worker with a client before a model Redis, and a connection to another of the same data."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plain = ModelRedis(lambda: world.now, COMMANDS)
        self.connection = self.plain.connect()
        self.client: ScriptedClient = world.client()
        self.do("SET", "a", "one")
        self.do("SET", "b", "other")
        self.do("RPUSH", "l", "element")
        self.send(MANY * 2)
        assert self.received == self.expected

    def do(self, *words: str | bytes | int) -> None:
        """Execute a command of somebody else on both servers."""
        self.world.redis.foreign(*words)
        self.plain.foreign(*words)
        self.world.settle()

    def send(self, *chunks: bytes) -> None:
        """Send bytes to both, to the worker in these chunks and with all that follows of each."""
        for chunk in chunks:
            self.client.send_raw(chunk)
            self.world.settle()
            self.expect(chunk)

    def expect(self, data: bytes) -> None:
        """Execute what the client sends on the other server."""
        self.connection.receive(data)
        self.connection.execute()

    @property
    def received(self) -> bytes:
        """What the client has been sent."""
        return bytes(self.client.received)

    @property
    def expected(self) -> bytes:
        """What Redis would have sent."""
        return bytes(self.connection.answers)

    @property
    def hits(self) -> int:
        """How many reads L1 has answered."""
        return self.world.worker.stats.hits


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Make a pair whose L1 holds what MANY reads."""
    with running_world() as world:
        yield Pair(world)


def test_pipeline_of_hits_needs_no_parser_and_counts_each(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of any sort, in any order: none is parsed, Redis hears nothing, each is a command and a hit."""
    stats = pair.world.worker.stats
    hits, commands, asked = stats.hits, stats.commands, len(pair.world.redis.log)
    monkeypatch.setattr(pair.world.worker, "parser", None)
    pair.send(MANY * 8)  # less than is read at once

    assert pair.received == pair.expected
    assert (stats.hits - hits, stats.commands - commands) == (48, 48)
    assert len(pair.world.redis.log) == asked


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline_in_one_piece_is_answered_as_by_redis(pair: Pair, name: str) -> None:
    """Cold, and again with whatever L1 holds by then."""
    for _ in range(4):
        pair.send(PIPELINES[name])
        assert pair.received == pair.expected


@pytest.mark.parametrize("name", PIPELINES)
def test_pipeline_split_at_every_byte_is_answered_as_by_redis(pair: Pair, name: str) -> None:
    """Two reads of the socket, wherever the first ends."""
    data = PIPELINES[name]
    for at in range(1, len(data)):
        pair.send(data[:at], data[at:])
        assert pair.received == pair.expected, (at, data[:at])
        pair.client.received.clear()
        pair.connection.answers.clear()


def test_inline_commands_among_known_requests_are_answered_as_by_redis(pair: Pair) -> None:
    """A line that is no array, and an empty one: they end what is known, wherever the chunk is cut."""
    data = GET_A + b"GET a\r\n" + ALL + b"\r\nLLEN l\r\n" + GET_A
    expected = bulk(b"one") * 2 + ALL_REPLY + b":1\r\n" + bulk(b"one")
    for at in range(1, len(data) + 1):
        pair.client.received.clear()
        pair.client.send_raw(data[:at])
        pair.client.send_raw(data[at:])
        pair.world.settle()
        assert pair.received == expected, at


def test_pipeline_byte_by_byte_is_answered_as_by_redis(pair: Pair) -> None:
    """No chunk holds a request."""
    data = MANY + command("SET", "b", INSIDE) + MANY
    pair.send(*(data[at : at + 1] for at in range(len(data))))

    assert pair.received == pair.expected


@pytest.mark.parametrize("written", [GET_A, ALL, INSIDE, b"\r\n" + ALL, MANY])
def test_value_that_is_a_request_is_written_not_answered(pair: Pair, written: bytes) -> None:
    """However the SET is split: the bytes of its value are no request, even where a chunk begins with them."""
    data = command("SET", "w", written)
    for at in range(1, len(data)):
        hits = pair.hits
        pair.send(data[:at], data[at:])
        assert pair.received == pair.expected
        assert pair.hits == hits
        assert pair.world.redis.dbs[0][b"w"].data == written


def test_large_value_that_holds_requests_is_written_not_answered(pair: Pair) -> None:
    """Also where a chunk in the middle of the value is a request, and nothing else."""
    value = b"x" * 40_000 + GET_A + ALL + b"x" * 10
    data = command("SET", "w", value)
    at = data.index(GET_A)
    hits = pair.hits
    pair.send(data[:at], GET_A, ALL, data[at + len(GET_A + ALL) :])

    assert pair.received == pair.expected
    assert pair.hits == hits
    assert pair.world.redis.dbs[0][b"w"].data == value


@pytest.mark.parametrize(
    ("before", "expired", "after", "missing"),
    [
        (ALL, GET_A, LENGTH, b"$-1\r\n"),
        (ALL, IS_THERE, LENGTH, b":0\r\n"),
        (GET_B, GET_A, GET_B, b"$-1\r\n"),
        (b"", GET_A, b"", b"$-1\r\n"),
        (b"", IS_THERE, b"", b":0\r\n"),
    ],
    ids=["GET", "EXISTS", "GET among GETs", "GET alone", "EXISTS alone"],
)
def test_entry_past_its_deadline_is_asked_of_redis(
    pair: Pair, before: bytes, expired: bytes, after: bytes, missing: bytes
) -> None:
    """What stands around it comes from L1, and the order is kept."""
    pair.do("PEXPIRE", "a", 500)
    data = before + expired + after
    pair.send(data)
    hits = pair.hits
    pair.send(data)
    known = bool(before) + bool(after)
    assert pair.hits - hits == known + 1
    pair.world.now += 0.6
    hits = pair.hits
    pair.send(data)

    assert pair.received == pair.expected
    assert pair.received.count(missing) == 1
    assert pair.hits - hits == known


@pytest.mark.parametrize("known", [GET_A, ALL, GET_A * 5, MANY], ids=["GET", "LRANGE", "GETs", "many"])
@pytest.mark.parametrize("first", [("GET", "none"), ("SET", "c", "1"), ("INCR", "n")], ids=lambda words: words[0])
def test_hits_behind_an_unfilled_slot_wait_for_their_turn(pair: Pair, first: tuple[str, ...], known: bytes) -> None:
    """Nothing that is known overtakes what is not; all of it comes when that has come."""
    before = len(pair.received)
    hits = pair.hits
    pair.client.send(*first)
    pair.client.send_raw(known)
    assert pair.hits > hits
    assert len(pair.received) == before
    pair.world.settle()
    pair.expect(command(*first) + known)

    assert pair.received == pair.expected


@pytest.mark.parametrize("at", [0, 1, 40, len(MANY) - 1])
def test_suspended_l1_answers_nothing_more(pair: Pair, at: int) -> None:
    """From the moment on that L1 is not proven, also for the rest of a request of which the beginning has come."""
    pair.send(MANY[:at])
    answered = pair.hits
    pair.world.hold(pair.world.control)
    pair.world.now += 2 * STALENESS_S
    pair.do("SET", "a", "newer")
    pair.send(MANY[at:], MANY)

    assert pair.hits == answered
    assert pair.received == pair.expected


def test_other_clients_replies_are_not_mixed_in(pair: Pair) -> None:
    """Two clients whose pipelines come in turns each get their own."""
    other = pair.world.client()
    pair.client.send_raw(MANY[:50])
    other.send_raw(GET_B * 3)
    pair.client.send_raw(MANY[50:])
    pair.world.settle()
    pair.expect(MANY)

    assert pair.received == pair.expected
    assert other.replies() == [b"other"] * 3


# -- a real Redis ----------------------------------------------------------------------------------------------------

RNG_SEEDS = range(6)
ROUNDS = 60
KEYS = ("a", "b", "h", "l", "s", "z", INSIDE, "\r\n*", "")
VALUES = ("v", "", "12", INSIDE, GET_A, MANY, "\r\n", "x" * 700, "*1\r\n$4\r\nPING\r\n")
Words = tuple[str | bytes | int, ...]


def random_words(rng: random.Random, state: Words) -> Words:
    """Return a command: mostly reads that L1 answers, of right and of wrong types; now and then what begins a state."""
    key, value = rng.choice(KEYS), rng.choice(VALUES)
    if rng.random() < 0.85:
        reads: tuple[Words, ...] = (
            *[("GET", key)] * 4,
            ("get", key),
            ("STRLEN", key),
            ("LRANGE", key, 0, -1),
            ("LLEN", key),
            ("HGETALL", key),
            ("HGET", key, "f"),
            ("SMEMBERS", key),
            ("ZRANGE", key, 0, -1, "WITHSCORES"),
            ("EXISTS", key),
            ("EXISTS", key, rng.choice(KEYS)),
            ("MGET", key, rng.choice(KEYS)),
            ("TYPE", key),
        )
        return rng.choice(reads)
    others: tuple[Words, ...] = (
        ("SET", rng.choice(("a", "b", key)), value),
        ("APPEND", "a", value),
        ("HSET", "h", "f", value),
        ("RPUSH", "l", value),
        ("SADD", "s", "only"),
        ("ZADD", "z", "1.5", value),
        ("DEL", key),
        ("INCR", key),
        ("GET",),
        ("GET", key, value),
        ("NONSENSE", value),
        ("PING",),
        ("SELECT", rng.choice((0, 0, 1))),
        ("EXEC",),
        state,
    )
    return rng.choice(others)


def random_pipeline(rng: random.Random) -> bytes:
    """Return some commands, of which some may be for a muted client; what ends every state comes last.

    Not CLIENT REPLY in a transaction: Redis then leaves an element out of what EXEC answers.
    """
    state = rng.choice((("MULTI",), ("CLIENT", "REPLY", "SKIP"), ("CLIENT", "REPLY", "OFF"), ("CLIENT", "REPLY", "ON")))
    commands = [command(*random_words(rng, state)) for _ in range(rng.randrange(1, 25))]
    return b"".join([*commands, command("DISCARD"), command("CLIENT", "REPLY", "ON")])


def read_until(client: RawClient, end: bytes) -> bytes:
    """Read from Redis itself up to the reply that is known to be the last."""
    frames = [client.frame()]
    while frames[-1] != end:
        frames.append(client.frame())
    return b"".join(frames)


@pytest.mark.parametrize("seed", RNG_SEEDS)
async def test_random_pipelines_are_answered_as_by_redis(redis: Server, serve: Serve, seed: int) -> None:
    """Hits, misses, writes, errors, MULTI, muted clients, in chunks of any size: the same bytes in the same order."""
    rng = random.Random(seed)
    proxy = await serve(redis)
    client = await proxy.connect()
    with Server(find_kind("redis7")) as other, other.connect() as plain:
        await client.command("GET", "a")
        await proxy.settled()
        worker = proxy.worker
        for number in range(ROUNDS):
            end = b"end of %d" % number
            data = random_pipeline(rng) + command("ECHO", end)
            plain.send(data)
            expected = read_until(plain, bulk(end))
            at = 0
            while at < len(data):
                chunk = data[at : at + rng.choice((1, 7, 60, 600, len(data)))]
                at += len(chunk)
                taken = worker.stats.received_bytes + len(chunk)
                await client.send_raw(chunk)
                if len(chunk) > 50 or rng.random() < 0.1:  # else what is sent next is read with it
                    await until(lambda: worker.stats.received_bytes >= taken, "it is read")  # noqa: B023
            assert await client.exactly(len(expected)) == expected, (seed, number, data)
        assert worker.stats.hits > ROUNDS
