"""Who reads and who writes: clients of Respite, and strangers who write to Redis directly.

A writer takes a key (or several, or a whole database) for itself, changes it, and notes when that was certain. A change
whose outcome is unknown is waited out, then written over, directly: only then is the key free again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Sequence

import attrs
import hiredis

from ..raw import encode
from .loop import Actor, Ask, LostError, Port
from .oracle import FOREVER, Change, Register, Start

OUTCOME_S = 0.3
"""After so long nothing is left of a connection that was killed: Redis has executed what it had received."""

Steps = Generator[Ask | float, list[object], None]
"""A part of an actor."""

SCRIPT = "return redis.call('SET', KEYS[1], ARGV[1])"


@attrs.define
class Counts:
    """What was done."""

    reads: int = 0
    writes: int = 0
    foreign_writes: int = 0
    flushes: int = 0
    unknown: int = 0
    refused_reads: int = 0


@attrs.define(eq=False)
class World:
    """What all actors share."""

    rng: random.Random
    registers: list[list[Register]]  # by database
    bound_s: float
    direct: list[Port]  # by database, for those who write over
    counts: Counts = attrs.field(factory=Counts)
    violations: list[str] = attrs.field(factory=list)
    is_stopping: bool = False
    flushing: set[int] = attrs.field(factory=set)  # databases in which nobody may begin to write

    def judge(self, register: Register, at: float, floor: int, reply: object, before: int | None = None) -> None:
        """Check one reply to a read that started with this floor."""
        if isinstance(reply, hiredis.ReplyError):
            if "respite: upstream" not in str(reply):
                self.violations.append(f"db {register.db} {register.key!r}: {reply}")
            self.counts.refused_reads += 1
            return
        assert reply is None or isinstance(reply, bytes)
        self.counts.reads += 1
        if wrong := register.judge(Start(at, floor), time.monotonic(), reply, before=before):
            self.violations.append(f"db {register.db} {register.key!r}: {wrong}; last is {register.last}")


def reader(world: World, port: Port, pause_s: float) -> Actor:
    """Read: GETs in pipelines, MGETs, and GETs on both sides of a SELECT."""
    rng = world.rng
    while not world.is_stopping:
        kind = rng.random()
        registers = _popular(rng, world.registers[port.db], rng.choice((1, 1, 2, 4, 8)))
        there = None
        if kind < 0.7:
            data, count = b"".join(encode("GET", register.key) for register in registers), len(registers)
        elif kind < 0.95:
            data, count = encode("MGET", *(register.key for register in registers)), 1
        else:
            there = 1 - port.db
            registers = [registers[0], _popular(rng, world.registers[there], 1)[0], registers[0]]
            commands = (("GET", registers[0].key), ("SELECT", there), ("GET", registers[1].key), ("SELECT", port.db))
            data = b"".join(encode(*words) for words in commands) + encode("GET", registers[2].key)
            count = 5
        now = time.monotonic()
        floors = [register.start(now, world.bound_s).floor for register in registers]
        try:
            replies = yield Ask(port, data, count)
        except LostError:
            continue
        if there is not None:
            if replies[1] != b"OK" or replies[3] != b"OK":
                port.is_spoiled = True  # nobody knows in which database it is
                continue
            replies = [replies[0], replies[2], replies[4]]
        elif kind >= 0.7 and isinstance(replies[0], list):
            replies = replies[0]
        for register, floor, reply in zip(registers, floors, replies, strict=kind < 0.7 or len(replies) > 1):
            world.judge(register, now, floor, reply)
        yield pause_s * rng.random()


def _popular(rng: random.Random, registers: Sequence[Register], count: int) -> list[Register]:
    """Choose keys, the first ones more often than the last."""
    return [registers[int(len(registers) * rng.random() ** 2)] for _ in range(count)]


@attrs.frozen
class Move:
    """One way to write: the commands, how many replies, and which of them says that it was done."""

    data: bytes
    count: int
    is_done: Callable[[list[object]], bool]
    lifetime_s: float = FOREVER
    exists: bool = True


def _is_ok(replies: list[object]) -> bool:
    return replies[-1] == b"OK"


def _is_integer(replies: list[object]) -> bool:
    return isinstance(replies[-1], int)


def _is_executed(replies: list[object]) -> bool:
    return replies[-1] == [b"OK"]


def _moves(rng: random.Random, register: Register, value: bytes) -> Move:
    """Choose how to change one key."""
    key = register.key
    if register.is_counter:
        if register.last.exists and rng.random() < 0.7:
            return Move(encode("INCR", key), 1, lambda replies: replies == [int(value)])
        return Move(encode("SET", key, value), 1, _is_ok)
    lifetime_ms = rng.choice((30, 100, 400))
    queued = encode("MULTI") + encode("SET", key, value) + encode("EXEC")
    moves = (
        Move(encode("SET", key, value), 1, _is_ok),
        Move(encode("SET", key, value), 1, _is_ok),
        Move(encode("SET", key, value, "PX", lifetime_ms), 1, _is_ok, lifetime_ms / 1000),
        Move(encode("SETEX", key, 1, value), 1, _is_ok, 1.0),
        Move(encode("MSET", key, value), 1, _is_ok),
        Move(encode("EVAL", SCRIPT, 1, key, value), 1, _is_ok),
        Move(queued, 3, _is_executed),
        Move(encode("DEL", key), 1, _is_integer, exists=False),
        Move(encode("UNLINK", key), 1, _is_integer, exists=False),
    )
    return rng.choice(moves)


def writer(world: World, port: Port, pause_s: float, *, own: bool) -> Actor:
    """Write to one key after the other; an own writer also reads around its write in the same pipeline."""
    rng = world.rng
    # The last keys are written most: those that are read most live long, and what is stale there is found.
    allowed = ("both", "own" if own else "foreign")
    registers = [register for register in reversed(world.registers[port.db]) if register.writers in allowed]
    while not world.is_stopping:
        yield pause_s * 2 * rng.random()
        register = registers[int(len(registers) * rng.random() ** 3)]
        if register.is_busy or port.db in world.flushing:
            continue
        register.is_busy = True
        lives = register.last.exists and register.last.gone_after == FOREVER and not register.is_counter
        if lives and rng.random() < 0.1:
            yield from _expire(world, port, register, own=own)
        else:
            yield from _change(world, port, register, own=own)
        register.is_busy = False


def _change(world: World, port: Port, register: Register, *, own: bool) -> Steps:
    move = _moves(world.rng, register, register.value(register.last.number + 1))
    sandwich = own and world.rng.random() < 0.3
    get = encode("GET", register.key)
    now = time.monotonic()
    floor = register.start(now, world.bound_s).floor
    change = register.begin(now, exists=move.exists, lifetime_s=move.lifetime_s)
    data = get + move.data + get if sandwich else move.data
    try:
        replies = yield Ask(port, data, move.count + 2 * sandwich)
    except LostError:
        replies = [b"lost"]
    inner = replies[1:-1] if sandwich and len(replies) > 1 else replies
    if not move.is_done(inner):
        yield from _write_over(world, register, inner)
        return
    register.done(change, time.monotonic(), own=own, lifetime_s=move.lifetime_s)
    _count(world, own=own)
    if sandwich:
        world.judge(register, now, floor, replies[0], before=change.number)
        world.judge(register, now, change.number, replies[-1])


def _count(world: World, *, own: bool) -> None:
    if own:
        world.counts.writes += 1
    else:
        world.counts.foreign_writes += 1


def _expire(world: World, port: Port, register: Register, *, own: bool) -> Steps:
    lifetime_ms = world.rng.choice((20, 200))
    register.begin_expiry(time.monotonic(), lifetime_ms / 1000)
    try:
        replies = yield Ask(port, encode("PEXPIRE", register.key, lifetime_ms), 1)
    except LostError:
        replies = [b"lost"]
    if replies != [1]:
        yield from _write_over(world, register, replies)
        return
    register.done_expiry(time.monotonic(), lifetime_ms / 1000, own=own, bound_s=world.bound_s)
    _count(world, own=own)


def _write_over(world: World, register: Register, replies: list[object]) -> Steps:
    """Wait until what was sent has been executed or never will be, then write directly."""
    if replies != [b"lost"] and not any("respite: upstream" in str(reply) for reply in replies):
        world.violations.append(f"db {register.db} {register.key!r}: a write was answered {replies!r}")
    world.counts.unknown += 1
    yield OUTCOME_S
    yield from _write_directly(world, register)


def _write_directly(world: World, register: Register) -> Steps:
    port = world.direct[register.db]
    change = register.begin(time.monotonic(), exists=True)
    while True:
        try:
            while port.waiting is not None:
                yield 0.001
            replies = yield Ask(port, encode("SET", register.key, register.value(change.number)), 1)
        except LostError:
            continue
        assert replies == [b"OK"], replies
        register.done(change, time.monotonic(), own=False)
        return


def flusher(world: World, port: Port, pause_s: float, *, own: bool) -> Actor:
    """Delete a whole database now and then."""
    registers = world.registers[port.db]
    while not world.is_stopping:
        yield pause_s * (0.5 + world.rng.random())
        if port.db in world.flushing:
            continue
        world.flushing.add(port.db)
        while any(register.is_busy for register in registers):
            yield 0.001
        now = time.monotonic()
        changes: list[Change] = [register.begin(now, exists=False) for register in registers]
        try:
            replies = yield Ask(port, encode("FLUSHDB"), 1)
        except LostError:
            replies = [b"lost"]
        if replies == [b"OK"]:
            end = time.monotonic()
            for register, change in zip(registers, changes, strict=True):
                register.done(change, end, own=own)
            world.counts.flushes += 1
        else:
            world.counts.unknown += 1
            yield OUTCOME_S
            for register in registers:
                yield from _write_directly(world, register)
        world.flushing.discard(port.db)
