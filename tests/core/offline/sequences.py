"""Random commands of the kinds that are done in memory, made so that any two servers must answer them alike.

Values of hashes are short and few, so that Redis keeps a hash in the order in which it was filled. No two lives are of
the same length, so that NX, XX, GT and LT do not depend on the millisecond in which a command arrives.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

KEYS = [b"a", b"b", b"c", b"\x00odd\r\n"]
FIELDS = [b"f", b"g", b"h", b""]
VALUES = [
    *(b"", b"v", b"1", b"-7", b"10", b"2.5", b"9223372036854775807", b"-9223372036854775808", b"007", b"+3", b" 4"),
    *(b"x" * 20, b"1e3", b"0x1p3", b"inf", b"nan", b"3.0", b"-0", b"0.1", b"1e17", b"\r\n", b"5e-324"),
]
NUMBERS = [b"0", b"1", b"-1", b"5", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808", b"x"]
FLOATS = [
    *(b"0.1", b"-0.1", b"3", b"1e2", b"5.0e3", b"1e-17", b"-1e-18", b"inf", b"-inf", b"nan", b"x", b"", b" 1", b"1 "),
    *(b"0x10", b"1e4932", b"1e5000", b"1e-5000", b"0.30000000000000004", b"123456789.987654321", b".5", b"5.", b"1e"),
]
PLAIN = {
    b"GET": "k", b"STRLEN": "k", b"TYPE": "k", b"TTL": "k", b"PTTL": "k", b"EXPIRETIME": "k", b"PEXPIRETIME": "k",
    b"PERSIST": "k", b"GETDEL": "k", b"INCR": "k", b"DECR": "k", b"INCRBY": "kn", b"DECRBY": "kn",
    b"INCRBYFLOAT": "ke", b"APPEND": "kv", b"GETSET": "kv", b"SETNX": "kv", b"SETEX": "klv", b"PSETEX": "klv",
    b"HGETALL": "k", b"HKEYS": "k", b"HVALS": "k", b"HLEN": "k", b"HGET": "kf", b"HEXISTS": "kf", b"HSTRLEN": "kf",
    b"HSETNX": "kfv", b"HINCRBY": "kfn", b"HINCRBYFLOAT": "kfe", b"MGET": "kk", b"EXISTS": "kkk", b"DEL": "k",
    b"UNLINK": "kk", b"HDEL": "kff", b"HMGET": "kff", b"HSET": "kfvfv", b"HMSET": "kfv", b"MSET": "kvkv",
}  # fmt: skip
"""What follows each name: a key, a number, a float, a value, a life, a field."""
LIVES = [b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT"]
MANY = 3  # more of what makes something there


def commands(seed: int, count: int) -> Iterator[list[bytes]]:
    """Yield so many commands, some of them wrong in one way or another."""
    rng = random.Random(seed)
    names = [*PLAIN, *[b"SET"] * 6, *[b"HSET"] * MANY, *[b"GETEX"] * MANY, *LIVES * 2]
    for number in range(count):
        name = rng.choice(names)
        words = _words(rng, name, number)
        if rng.random() < 0.03:
            words = words[:-1] if rng.random() < 0.5 else [*words, rng.choice([b"x", b"NX", b"a"])]
        yield [_odd_case(rng, name), *words]


def _words(rng: random.Random, name: bytes, number: int) -> list[bytes]:
    if name in LIVES:
        some = [b"NX", b"XX", b"GT", b"LT", b"gt", b"no\rne"]
        conditions = [rng.choice(some) for _ in range(rng.choice([0, 0, 1, 1, 2]))]
        return [rng.choice(KEYS), _life(rng, name, number), *conditions]
    if name == b"SET":
        options = _options(rng, number, [b"NX", b"XX", b"GET", b"KEEPTTL", b"bad"])
        return [rng.choice(KEYS), rng.choice(VALUES), *options]
    if name == b"GETEX":
        return [rng.choice(KEYS), *_options(rng, number, [b"PERSIST", b"KEEPTTL"])]
    made = {
        "k": lambda: rng.choice(KEYS),
        "n": lambda: rng.choice(NUMBERS),
        "e": lambda: rng.choice(FLOATS),
        "v": lambda: rng.choice(VALUES),
        "f": lambda: rng.choice(FIELDS),
        "l": lambda: _life(rng, name, number),
    }
    return [made[kind]() for kind in PLAIN[name]]


def _options(rng: random.Random, number: int, others: list[bytes]) -> list[bytes]:
    words: list[bytes] = []
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        if rng.random() < 0.4:
            unit = rng.choice([b"EX", b"PX", b"EXAT", b"PXAT", b"px"])
            words += [unit, _life(rng, unit.upper(), number)]
        else:
            words.append(rng.choice(others))
    return words


def _life(rng: random.Random, name: bytes, number: int) -> bytes:
    """Return a number for a life: far ahead, or long over, or none at all."""
    if rng.random() < 0.12:
        return rng.choice([b"0", b"-5", b"9223372036854775807", b"-9223372036854775808", b"1x", b"9223372036854775"])
    s = 10_000 + 10 * number
    if name.endswith(b"AT"):
        s += 4_000_000_000
    return b"%d" % (s * 1000 if name.startswith(b"P") else s)


def _odd_case(rng: random.Random, name: bytes) -> bytes:
    return name.lower() if rng.random() < 0.2 else name
