"""The oracle knows right from wrong: what each read shows of a change, and what each promise forbids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

import hiredis
import pytest

from ..raw import encode
from ..servers import Kind, Server
from .moves import Move, build, change, choose_move
from .oracle import DIRECT, EXPIRY_SLACK_S, FOREVER, Register
from .reads import Read, get
from .reads_sorted import LEX_LIMIT, READS, choose_read, whole, zrangebylex
from .states import NOTHING, TYPES, State

KEY = b"k"
SERVED = (
    *("GET", "STRLEN", "GETRANGE", "SUBSTR", "GETBIT", "BITCOUNT", "BITPOS", "BITFIELD_RO", "EXISTS", "TYPE"),
    *("HGET", "HMGET", "HGETALL", "HKEYS", "HVALS", "HLEN", "HEXISTS", "HSTRLEN", "LINDEX", "LLEN", "LPOS", "LRANGE"),
    *(
        "SCARD",
        "SISMEMBER",
        "SMISMEMBER",
        "SMEMBERS",
        "ZCARD",
        "ZCOUNT",
        "ZLEXCOUNT",
        "ZMSCORE",
        "ZRANGE",
        "ZRANGEBYLEX",
    ),
    *("ZRANGEBYSCORE", "ZRANK", "ZREVRANGE", "ZREVRANGEBYLEX", "ZREVRANGEBYSCORE", "ZREVRANK", "ZSCORE"),
    *(
        "XLEN",
        "XRANGE",
        "XREVRANGE",
        "GEODIST",
        "GEOHASH",
        "GEOPOS",
        "GEOSEARCH",
        "GEORADIUS_RO",
        "GEORADIUSBYMEMBER_RO",
    ),
)
"""The reads of one key that L1 serves; MGET and EXISTS of several keys are made of GET and EXISTS."""


def _text(number: int) -> State:
    return State(b"string", b"v%d" % number)


@pytest.fixture
def register() -> Register:
    """Make a key that was written three times at times 1, 2 and 3: by Respite 0, by Respite 1, by a stranger."""
    made = Register(0, KEY, ("string",))
    for number, who in ((1, 0), (2, 1), (3, DIRECT)):
        made.done(made.begin(number - 0.1, _text(number)), float(number), who=who)
    return made


@pytest.fixture(scope="module")
def server(kind: Kind) -> Iterator[Server]:
    """Run a server of a kind."""
    with Server(kind) as server:
        yield server


def _judge(register: Register, now: float, who: int, reply: bytes | None, before: int | None = None) -> str:
    start = register.start(now, 0.5, who)
    return register.judge(start, now + 0.001, get(Random(0), KEY, b""), reply, before=before)


@pytest.mark.parametrize("family", sorted(READS.keys() - {"counter"}))
def test_reads_of_a_family_show_what_writes_have_changed(family: str) -> None:
    """Each read tells one state from the one before often enough to find what is stale, and none never."""
    rng = Random(5)
    told: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    before, now = NOTHING, build(rng, family, KEY, 1)[1]
    for serial in range(2, 3000):
        read = choose_read(rng, (family,), KEY, before)
        name = str(read.words[0])
        asked[name] += 1
        told[name] += read.expect(before) != read.expect(now)
        before = now
        is_new = rng.random() < 0.3
        now = (build(rng, family, KEY, serial) if is_new else change(rng, family, KEY, serial, now.value))[1]

    assert {name for name in asked if told[name] < asked[name] / 50} <= {"TYPE", "EXISTS"}


def test_reads_are_all_that_l1_serves() -> None:
    """No command that L1 serves is left out."""
    rng = Random(5)
    reads = [
        choose_read(rng, (family,), KEY, build(rng, family, KEY, serial)[1])
        for family in READS
        for serial in range(1, 400)
    ]

    assert set(SERVED) == {str(read.words[0]) for read in reads}


@pytest.mark.parametrize("family", READS)
def test_read_of_another_type_expects_the_error(family: str) -> None:
    """A state of another type is answered with WRONGTYPE, and that is no nil."""
    other = State(b"other", None)
    read = whole(family, KEY)

    assert (
        read.expect(other) == read.see(hiredis.ReplyError("WRONGTYPE Operation against a key")) != read.expect(NOTHING)
    )


@pytest.mark.parametrize("family", READS)
def test_whole_read_tells_every_state(family: str) -> None:
    """What shows all of a value is different after every change."""
    rng = Random(5)
    state = build(rng, family, KEY, 1)[1]
    for serial in range(2, 200):
        changed = change(rng, family, KEY, serial, state.value)[1]
        assert changed.type == TYPES[family]
        assert whole(family, KEY).expect(changed) != whole(family, KEY).expect(state)
        state = changed


@pytest.mark.parametrize("family", READS)
def test_whole_model_is_what_redis_does(server: Server, family: str) -> None:
    """Every read is expected to be answered as a server answers it, in every state that the writers make.

    Reads that are no part of the model would be told as violations, once in many runs.
    """
    rng = Random(5)
    with server.connect() as client:
        for protocol in (2, 3):
            client.command("HELLO", protocol)
            client.command("DEL", KEY)
            last = NOTHING
            for serial in range(1, 500):
                move = choose_move(rng, (family,), KEY, serial, last, lasts=last is not NOTHING)
                if move.lifetime_s != FOREVER:
                    continue
                client.send(move.data)
                assert move.is_done([_parse(frame) for frame in client.frames(move.count)])
                last = move.states[-1]
                reads = [choose_read(rng, (family,), KEY, last) for _ in range(10)]
                client.send(b"".join(encode(*read.words) for read in reads))
                for read, frame in zip(reads, client.frames(len(reads)), strict=True):
                    assert read.see(_parse(frame)) == read.expect(last), (read.words, last)


def _parse(frame: bytes) -> Any:
    parser = hiredis.Reader()
    parser.feed(frame)
    return parser.gets()


def test_read_with_a_limit_expects_no_more() -> None:
    """A sorted set by name may come to have more members than a read with LIMIT returns."""
    names = [b"a%d" % number for number in range(2 * LEX_LIMIT)]
    rng = Random(5)
    reads = [zrangebylex(rng, KEY, {}) for _ in range(200)]
    limited = [read for read in reads if "LIMIT" in read.words and b"[a" in read.words]

    assert limited
    for read in limited:
        assert read.expect(State(b"zset", dict.fromkeys(names, 0.0))) == names[: -LEX_LIMIT - 1 : -1]


def test_transaction_is_torn_when_it_was_refused_and_run() -> None:
    """Of a transaction whose MULTI was refused nothing may be run; what Redis refuses at EXEC is no such thing."""
    move = Move(encode("MULTI") + encode("DEL", KEY) + encode("EXEC"), 3, (NOTHING,))
    error = hiredis.ReplyError("ERR")

    assert move.is_torn([error, 1, error])
    assert not move.is_torn([error, error, error])
    assert not move.is_torn([b"OK", error, error])
    assert not move.is_torn([error])


def test_judge_of_an_own_write_forbids_what_is_older(register: Register) -> None:
    """Who is told of a write by the same Respite reads it or what came later, at once."""
    assert _judge(register, 1.9, 0, b"v1") == ""
    assert "own change 2" in _judge(register, 2.01, 1, b"v1")
    assert _judge(register, 2.01, 1, b"v2") == ""


def test_judge_of_a_foreign_write_allows_what_is_older_for_the_bound(register: Register) -> None:
    """What others wrote may take as long as the bound to be seen, and no longer."""
    assert _judge(register, 3.4, 1, b"v2") == ""
    assert "foreign change 3" in _judge(register, 3.6, 1, b"v2")
    assert "own change 3" in _judge(register, 3.4, DIRECT, b"v2")


def test_judge_of_a_nil_wants_a_reason(register: Register) -> None:
    """Nothing is found only where something has been deleted or has expired."""
    assert "change 0, although own change 2" in _judge(register, 3.4, 1, None)
    register.begin(3.5, NOTHING)
    assert _judge(register, 3.6, 1, None) == ""


def test_judge_of_what_nobody_wrote_says_so(register: Register) -> None:
    """A value that never was is found whenever it comes."""
    assert _judge(register, 3.4, 1, b"v4") == "what never was"


def test_judge_of_a_reply_ahead_of_its_own_write_says_so(register: Register) -> None:
    """What a client reads first and writes then, in one pipeline, is read first."""
    number = register.begin(3.5, _text(4)).number

    assert "behind the read" in _judge(register, 3.5, 1, b"v4", before=number)
    assert _judge(register, 3.5, 1, b"v3", before=number) == ""


def test_judge_of_an_expired_value_says_so(register: Register) -> None:
    """A value is not found later than its end; nothing may be, a little earlier."""
    register.done(register.begin(4.0, _text(4), lifetime_s=1.0), 4.0, who=0, lifetime_s=1.0)

    assert _judge(register, 4.9, 0, b"v4") == ""
    assert _judge(register, 5.0 - EXPIRY_SLACK_S, 0, None) == ""
    assert "after its expiry" in _judge(register, 5.1, 0, b"v4")


def test_judge_of_a_shortened_life_gives_others_the_bound(register: Register) -> None:
    """An expiry that one Respite set is known to the other when the bound has passed."""
    register.begin_expiry(4.0, 0.1)
    register.done_expiry(4.0, 0.1, who=0, bound_s=0.5)

    assert "after its expiry" in _judge(register, 4.2, 0, b"v3")
    assert _judge(register, 4.2, 1, b"v3") == ""
    assert "after its expiry" in _judge(register, 4.6, 1, b"v3")


def test_judge_of_an_odd_reply_says_so(register: Register) -> None:
    """A reply that cannot be one is found, not stumbled over."""

    def refuse(_: Any) -> Any:
        raise ValueError("odd")

    read = Read(("GET", KEY), lambda state: state.value, refuse)

    assert "odd reply" in register.judge(register.start(4.0, 0.5, 0), 4.0, read, b"v3")
