"""Random work on few hot keys, on several connections and databases, gives the same bytes through Respite as directly.

Every step is answered before the next, so a reply that differs is a value from L1 that should have been gone, or a
reply that went to the wrong place. Seeded: a failure names the step and repeats.
"""

from __future__ import annotations

import random

import pytest

from .raw import RawClient, encode_all
from .servers import Kind
from .targets import Target, is_direct_only, running_pair
from .words import Words, words

Pair = tuple[Target, Target]
STEPS = 2500
KEYS = ("a", "b", "c", "n", "list", "hash")
READS = ("GET {k}", "GET {k}", "GET {k}", "MGET {k} {k2}", "MGET a b c n list hash", "STRLEN {k}", "EXISTS {k} {k2}")
WRITES = (
    "SET {k} {v}",
    "SET {k} {v} EXAT 4102444800",
    "SET {k} {v} XX GET",
    "SETNX {k} {v}",
    "GETSET {k} {v}",
    "GETDEL {k}",
    "GETEX {k} PERSIST",
    "APPEND {k} {v}",
    "SETRANGE {k} 1 {v}",
    "SETBIT {k} 3 1",
    "INCR n",
    "INCRBYFLOAT n 0.5",
    "MSET {k} {v} {k2} {v}",
    "MSETNX {k} {v} {k2} {v}",
    "DEL {k} {k2}",
    "UNLINK {k}",
    "RENAME {k} {k2}",
    "RENAMENX {k} {k2}",
    "COPY {k} {k2} REPLACE",
    "MOVE {k} 1",
    "EXPIREAT {k} 4102444800",
    "PEXPIREAT {k} 1",
    "PERSIST {k}",
    "LPUSH list {v}",
    "LPOP list",
    "LMOVE list {k} LEFT RIGHT",
    "HSET hash f {v}",
    "SORT list ALPHA STORE {k}",
    "BITOP OR {k} {k2} n",
    "PFADD {k} {v}",
    "BLPOP list {k} 0.01",
    "SWAPDB 0 1",
    "FLUSHDB",
    "TOUCH {k}",
    "OBJECT ENCODING {k}",
    "TYPE {k}",
)
SCRIPTS: tuple[Words, ...] = (
    (b"EVAL", b"return redis.call('SET', KEYS[1], ARGV[1])", b"1", b"a", b"scripted"),
    (b"EVAL", b"return redis.call('DEL', 'b', 'c')", b"0"),
    (b"EVAL", b"redis.call('SELECT', 1); return redis.call('SET', 'a', 'elsewhere')", b"0"),
)
TRANSACTIONS: tuple[tuple[str, ...], ...] = (
    ("MULTI", "SET {k} {v}", "GET {k}", "DEL {k2}", "EXEC"),
    ("MULTI", "SET {k} {v}", "NOSUCH", "EXEC"),
    ("MULTI", "SET {k} {v}", "DISCARD"),
    ("WATCH {k}", "GET {k}", "MULTI", "APPEND {k} {v}", "EXEC"),
    ("MULTI", "SELECT 1", "SET {k} {v}", "SELECT 0", "GET {k}", "EXEC"),
    ("SELECT 1", "SET {k} {v}", "GET {k}", "SELECT 0", "GET {k}"),
    ("CLIENT REPLY SKIP", "SET {k} {v}", "GET {k}"),
)


def make_step(rng: random.Random) -> list[Words]:
    """Make the commands of one step: a read, a write, a pipeline of both, or a transaction."""
    kind = rng.random()
    if kind < 0.5:
        return [_fill(rng.choice(READS), rng)]
    if kind < 0.8:
        return [_fill(rng.choice(WRITES), rng)]
    if kind < 0.83:
        return [rng.choice(SCRIPTS)]
    if kind < 0.88:
        return [_fill(line, rng) for line in rng.choice(TRANSACTIONS)]
    return [_fill(rng.choice(READS + WRITES), rng) for _ in range(rng.randint(2, 12))]


def _fill(template: str, rng: random.Random) -> Words:
    first, second = rng.sample(KEYS, 2)
    return words(template.format(k=first, k2=second, v=f"v{rng.randrange(1000)}"))


def replies_to(client: RawClient, step: list[Words], seed: int) -> list[bytes]:
    """Send a step cut at random bytes, and read what it brings."""
    is_skipped = step[0][:2] == (b"CLIENT", b"REPLY")
    client.send_split(encode_all(step), random.Random(seed))
    return client.frames(len(step) - 2 * is_skipped)


def run_steps(pair: Pair, seed: int) -> None:
    """Do the random work on four connections: two protocols, two databases."""
    rng = random.Random(seed)
    sides = [[target.connect() for _ in range(4)] for target in pair]
    for side in sides:
        for client, protocol, db in zip(side, (2, 3, 2, 3), (0, 0, 1, 1), strict=True):
            client.command("HELLO", protocol)
            client.command("SELECT", db)
        side[0].command("FLUSHALL")

    for number in range(STEPS):
        step, which = make_step(rng), rng.randrange(4)
        direct, proxied = (replies_to(side[which], step, number) for side in sides)
        assert proxied == direct, f"step {number} on connection {which}: {step}"

    for side in sides:
        for client in side:
            client.close()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
def test_random_work_through_respite_is_answered_as_directly(any_pair: Pair, seed: int) -> None:
    """Thousands of random steps bring equal bytes, many of them from L1."""
    run_steps(any_pair, seed)

    assert hits_of(any_pair[1]) > STEPS / 20


MODES: dict[str, dict[str, dict[str, object]]] = {
    "broadcast": {"l1": {"tracking": "broadcast"}},
    "tiny": {"l1": {"max_bytes": "64KiB", "max_value_bytes": "16B", "max_age": "1s"}},
    "disabled": {"l1": {"enabled": False}},
    "pass-through": {"rollout": {"mode": "off"}},
}
PLAIN = ("disabled", "pass-through")  # without L1


@pytest.mark.long("valkey9")
@pytest.mark.parametrize("mode", ["broadcast", "tiny", *(pytest.param(one, marks=pytest.mark.long) for one in PLAIN)])
def test_random_work_in_every_mode_is_answered_as_directly(kind: Kind, mode: str) -> None:
    """The same holds however L1 is set up, with or without it."""
    with running_pair(kind, settings=MODES[mode]) as pair:
        run_steps(pair, seed=3)
        hits = hits_of(pair[1])

    assert (hits > 0) == (mode in ("broadcast", "tiny")) or is_direct_only()


def hits_of(target: Target) -> float:
    """Ask Respite how many reads L1 has answered; as many as one likes when there is no Respite."""
    if target.respite is None:
        return float("inf")
    return float(target.respite.stats()["l1"]["hits_total"])
