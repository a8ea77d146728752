"""The store: what it holds, what it may say of it, and how much it takes."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from proxy.core.outage.offline.commands import COMMANDS, may_repeat, run
from proxy.core.outage.offline.store import NO_ROOM, Known, NoRoomError, Room, Standing, Store, UnsureError, Value

OK = b"+OK\r\n"
BASE_VERSION = 7


class Scene:
    """A store at noon, with what L1 knew."""

    def __init__(self, max_bytes: int = 1 << 20, known: dict[bytes, Value] | None = None) -> None:
        self.held: list[bytes] = []
        self.known = known or {}
        self.store = Store(Room(max_bytes), self._known, self.held.append, lambda key: not key.startswith(b"plain"))
        self.store.now_ms = 1_000_000
        self.store.version = 100

    def _known(self, key: bytes) -> Known | None:
        return Known(self.known[key], BASE_VERSION) if key in self.known else None

    def run(self, *words: bytes | str | int) -> bytes:
        """Run a command in RESP2."""
        args = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        return run(self.store, args[0], args, 2)


@pytest.mark.parametrize(
    ("commands", "standing", "since"),
    [
        (["SET known v"], Standing.ABSOLUTE, 100),
        (["DEL known"], Standing.ABSOLUTE, 100),
        (["INCR known"], Standing.DERIVED, BASE_VERSION),
        (["APPEND known x", "EXPIRE known 5"], Standing.DERIVED, BASE_VERSION),
        (["INCR known", "SET known 1", "INCR known"], Standing.ABSOLUTE, 100),
        (["INCR unknown"], Standing.GUESSED, 100),
        (["SETNX unknown v"], Standing.GUESSED, 100),
        (["SET unknown v NX"], Standing.GUESSED, 100),
        (["HDEL unknown f"], Standing.GUESSED, 100),
        (["SETNX missing v"], Standing.DERIVED, BASE_VERSION),
        (["GETDEL unknown"], Standing.ABSOLUTE, 100),
        (["SET plain v"], Standing.ABSOLUTE, 0),
    ],
)
def test_item_says_what_it_owes_to_what_was_there(commands: list[str], standing: Standing, since: int) -> None:
    """That decides what Redis may be told: what is certain, what depends on what it holds, what is a guess."""
    scene = Scene(known={b"known": b"10", b"missing": None})
    for one in commands:
        scene.run(*one.split())

    ((key, item),) = scene.store.items.items()
    assert (item.standing, item.since) == (standing, since)
    assert scene.held == [key]


@pytest.mark.parametrize(
    "command",
    ["GET known", "GET unknown", "SETNX known v", "SET unknown v XX", "EXPIRE unknown 5", "PERSIST unknown",
     "HDEL missing f", "GETEX unknown EX 5", "INCR hash", "HINCRBY known f 1", "SET known v EX 0"],
)  # fmt: skip
def test_command_that_changes_nothing_holds_nothing(command: str) -> None:
    """There is nothing to tell Redis of."""
    scene = Scene(known={b"known": b"v", b"missing": None, b"hash": {b"f": b"1"}})
    scene.run(*command.split())

    assert scene.store.items == {}
    assert scene.store.room.used_bytes == 0


@pytest.mark.parametrize("command", ["TTL known", "EXPIRETIME known", "PERSIST known", "EXPIRE known 5 NX", "TTL kept"])
def test_life_that_only_redis_knows_is_not_told(command: str) -> None:
    """L1 knows when its copy ends, not when the key does."""
    scene = Scene(known={b"known": b"1"})
    scene.run("SET", "kept", "v", "KEEPTTL")

    with pytest.raises(UnsureError):
        scene.run(*command.split())
    assert b"known" not in scene.store.items


def test_life_given_here_is_known() -> None:
    """From the first EXPIRE on, of whatever value."""
    scene = Scene(known={b"known": b"1"})

    assert scene.run("EXPIRE", "known", 50) == b":1\r\n"
    assert scene.run("TTL", "known") == b":50\r\n"
    scene.run("INCR", "known")
    assert scene.run("TTL", "known") == b":50\r\n"
    scene.run("SET", "known", "v", "KEEPTTL")
    assert scene.run("TTL", "known") == b":50\r\n"
    scene.run("SET", "known", "v")
    assert scene.run("TTL", "known") == b":-1\r\n"


def test_ended_key_stays_held_as_deleted() -> None:
    """Redis may hold an older value of it that lives on."""
    scene = Scene()
    scene.run("SET", "k", b"x" * 500, "PX", 10)
    before = scene.store.room.used_bytes
    scene.store.now_ms += 11

    assert scene.run("GET", "k") == b"$-1\r\n"
    assert scene.store.items[b"k"].value is None
    assert scene.store.room.used_bytes < before - 400


def test_hash_that_l1_knew_is_not_changed_where_it_is_kept() -> None:
    """The store has its own copy of it."""
    scene = Scene(known={b"h": {b"f": b"1"}})
    scene.run("HSET", "h", "g", "2")

    assert scene.known[b"h"] == {b"f": b"1"}
    assert scene.run("HLEN", "h") == b":2\r\n"


def test_what_frees_room_is_taken_under_a_lowered_bound() -> None:
    """And counts as what it is, as often as it is tried."""
    scene = Scene(10_000)
    for key in ("a", "b", "c"):
        assert scene.run("SET", key, "x" * 2000) == OK
    used = scene.store.room.used_bytes
    scene.store.room.max_bytes = 1000

    with pytest.raises(NoRoomError):
        scene.run("MSET", "a", "y" * 3000, "b", "y" * 3000)
    assert scene.store.room.used_bytes == used
    assert scene.run("MSET", "a", "y", "b", "y") == OK
    assert scene.run("DEL", "b", "c") == b":2\r\n"
    assert scene.store.room.used_bytes == sum(item.size_bytes for item in scene.store.items.values())


@pytest.mark.parametrize(
    "command",
    ["SET k {}", "SETNX new {}", "APPEND k {}", "GETSET k {}", "HSET h f {}", "HSET new f {}", "MSET k a new {}",
     "SETEX k 5 {}", "SET k {} XX", "DEL n1 n2 n3 n4 n5 n6 n7"],
)  # fmt: skip
def test_no_room_changes_nothing(command: str) -> None:
    """Not even a part of what one command writes."""
    scene = Scene(4000)
    for one in ("SET k v", "HSET h f v g w"):
        assert scene.run(*one.split())[:1] in b"+:"
    before = (scene.run("GET", "k"), scene.run("HGETALL", "h"), scene.store.room.used_bytes)

    with pytest.raises(NoRoomError) as refused:
        scene.run(*command.format("x" * 4000).split())
    assert refused.value.reply == NO_ROOM
    assert before == (scene.run("GET", "k"), scene.run("HGETALL", "h"), scene.store.room.used_bytes)
    assert scene.run("SET", "k", "w") == OK


def test_room_is_given_back_when_a_key_is_held_no_more() -> None:
    """All of it, however it came to be so large."""
    scene = Scene()
    for at in range(50):
        scene.run("HSET", "h", f"f{at}", "x" * at)
        scene.run("APPEND", "s", "x" * at)
    scene.run("HDEL", "h", *[f"f{at}" for at in range(25)])
    scene.run("HINCRBY", "h", "n", 5)
    for key in list(scene.store.items):
        scene.store.forget(key)

    assert scene.store.room.used_bytes == 0


@pytest.mark.parametrize("kind", ["strings", "hash", "hashes", "deleted"])
def test_bound_holds_what_it_counts(kind: str) -> None:
    """What Python takes is no more than what is counted, and not much less."""
    scene = Scene(1 << 30)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for at in range(1200):
        if kind == "strings":
            scene.run("SET", b"key:%d" % at, b"value:%020d" % at, "EX", 1000 + at)
        elif kind == "hash":
            scene.run("HSET", "h", b"field:%d" % at, b"value:%020d" % at)
        elif kind == "hashes":
            scene.run("HSET", b"key:%d" % at, b"f", b"value:%020d" % at)
        else:
            scene.run("DEL", b"key:%d" % at)
    scene.held.clear()
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()

    assert taken <= scene.store.room.used_bytes < 3 * taken


def test_repeatable_commands_are_those_that_leave_the_same_behind() -> None:
    """Doing them twice in a row ends as doing them once."""
    asked: dict[bytes, list[bytes]] = {
        b"SET": [b"k", b"v"], b"SETEX": [b"k", b"5", b"v"], b"PSETEX": [b"k", b"5000", b"v"], b"MSET": [b"k", b"v"],
        b"DEL": [b"k"], b"UNLINK": [b"k"], b"HSET": [b"h", b"f", b"v"], b"HMSET": [b"h", b"f", b"v"],
        b"HDEL": [b"h", b"f"],
    }  # fmt: skip
    assert {name for name in COMMANDS if may_repeat(name, [name, *asked.get(name, [])])} == set(asked)
    for name, words in asked.items():
        ends = []
        for times in (1, 2):
            scene = Scene()
            scene.run("SET", "k", "before")
            scene.run("HSET", "h", "f", "before", "g", "before")
            for _ in range(times):
                scene.run(name, *words)
            ends.append({key: (item.value, item.ends_ms) for key, item in scene.store.items.items()})
        assert ends[0] == ends[1], name
    for word in (b"NX", b"xx", b"GET"):
        assert not may_repeat(b"SET", [b"SET", b"k", b"v", word])
