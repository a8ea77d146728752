"""The same commands to a real server and to the memory: the same bytes come back, in both protocols."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from proxy.core.outage.offline.commands import COMMANDS, keys_of, run
from proxy.core.outage.offline.store import Room, Store
from proxy.core.outage.offline.words import NOT_INTEGER
from proxy.wire.encode import command

from ...e2e.servers import REQUIRED_KINDS, Server, ServerOptions, find_kind
from .sequences import commands

SEEDS = range(4)
COUNT = 1000
LEFT = {b"TTL": 3, b"PTTL": 3000, b"EXPIRETIME": 3, b"PEXPIRETIME": 3000}
"""Replies that depend on when the command arrived, and by how much they may differ."""
BAD_LIVES = (b"-ERR invalid expire time in 'getex' command\r\n", NOT_INTEGER)
"""What Valkey looks at before it finds that the key is not there, or no string; Redis 7 the other way round."""


@pytest.fixture(scope="module", params=REQUIRED_KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start a server of each kind, that keeps hashes of long values in their order, too."""
    with Server(find_kind(request.param), ServerOptions(extra=["hash-max-listpack-value 65536"])) as server:
        yield server


def answers(server: Server, asked: list[list[bytes]], protocol: int) -> list[bytes]:
    """Return what the server answers to commands, on an empty database."""
    with server.connect() as client:
        client.command("HELLO", str(protocol))
        client.command("FLUSHALL")
        client.send(b"".join(command(*words) for words in asked))
        return [client.frame() for _ in asked]


def remembered(asked: list[list[bytes]], protocol: int) -> list[bytes]:
    """Return what the memory answers."""
    store = Store(Room(1 << 30))
    replies = []
    for words in asked:
        store.now_ms = time.time_ns() // 1_000_000
        replies.append(run(store, words[0].upper(), words, protocol))
    return replies


def is_same(name: bytes, ours: bytes, theirs: bytes) -> bool:
    """Compare two replies; of what is left of a life, up to what passed between the two."""
    if name == b"GETEX" and theirs in BAD_LIVES and ours[:1] in b"_$-":
        return True
    if name in LEFT and (mine := _number(ours)) is not None and (other := _number(theirs)) is not None:
        return mine == other if min(mine, other) < 0 else abs(mine - other) <= LEFT[name]
    return ours == theirs


def _number(reply: bytes) -> int | None:
    found = re.fullmatch(rb":(-?[0-9]+)\r\n", reply)
    return int(found[1]) if found else None


@pytest.mark.parametrize("protocol", [2, 3])
def test_memory_answers_as_redis_does(server: Server, protocol: int) -> None:
    """Byte for byte, whatever is asked: values, types, lives, errors."""
    for seed in SEEDS:
        asked = list(commands(seed, COUNT))
        theirs, ours = answers(server, asked, protocol), remembered(asked, protocol)
        for number, words in enumerate(asked):
            assert is_same(words[0].upper(), ours[number], theirs[number]), (
                f"seed {seed}, command {number}: {words}: here {ours[number][:99]!r}, there {theirs[number][:99]!r}; "
                f"before it: {[one for one in asked[:number] if set(one) & set(words[1:2])][-6:]}"
            )


def test_sequences_reach_every_command() -> None:
    """No command of the table is left out of the comparison, and most of what is asked is answered well."""
    asked = [words for seed in SEEDS for words in commands(seed, COUNT)]
    replies = remembered(asked, 2)

    fine = {words[0].upper() for words, reply in zip(asked, replies, strict=True) if reply[:1] != b"-"}
    assert fine == set(COMMANDS)
    assert sum(reply[:1] != b"-" for reply in replies) > len(replies) / 2


def test_arity_and_keys_are_as_the_server_says(server: Server) -> None:
    """The table agrees with COMMAND about how many words there are, and which of them are keys."""
    with server.connect() as client:
        for name in COMMANDS:
            arity = COMMANDS[name].arity
            (row,) = [client.command("COMMAND", "INFO", name)]
            assert int(re.search(rb"\r\n:(-?[0-9]+)\r\n", row)[1]) == arity, name  # type: ignore[index]
            words = [name, *(b"%d" % number for number in range(1, max(abs(arity), 5 if name == b"MSET" else 0)))]
            keys = client.command("COMMAND", "GETKEYS", *words)
            assert keys.split(b"\r\n")[2::2] == keys_of(name, words), name


def test_large_hash_answers_the_same_fields(server: Server) -> None:
    """Redis keeps a large hash in an order of its own; the fields are the same."""
    asked = [[b"HSET", b"h", b"f%d" % at, b"v%d" % at] for at in range(600)] + [[b"HGETALL", b"h"], [b"HLEN", b"h"]]

    theirs, ours = answers(server, asked, 2), remembered(asked, 2)
    assert sorted(ours[-2].split(b"\r\n")) == sorted(theirs[-2].split(b"\r\n"))
    assert ours[-1] == theirs[-1]


def test_short_life_ends_here_and_there(server: Server) -> None:
    """A key that has ended is missing, has no type, and is made anew by what comes next."""
    before = [[b"SET", b"k", b"5", b"PX", b"30"], [b"HSET", b"h", b"f", b"v"], [b"PEXPIRE", b"h", b"30"]]
    after = [[b"GET", b"k"], [b"TYPE", b"h"], [b"INCR", b"k"], [b"TTL", b"k"], [b"HLEN", b"h"], [b"PTTL", b"h"]]
    store = Store(Room(1 << 20))
    store.now_ms = 1_000_000
    for words in before:
        run(store, words[0], words, 2)
    store.now_ms += 31
    with server.connect() as client:
        client.command("FLUSHALL")
        for words in before:
            client.command(*words)
        time.sleep(0.05)
        theirs = [client.command(*words) for words in after]

    assert [run(store, words[0], words, 2) for words in after] == theirs
