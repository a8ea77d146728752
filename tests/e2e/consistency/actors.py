"""Who reads and who writes: clients of a Respite, and strangers who talk to Redis directly.

A writer takes a key (or two, or a whole database) for itself, changes it, and notes when that was certain. A change
whose outcome is unknown is waited out, then written over, directly: only then is the key free again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random
from typing import Any

import hiredis

from ..raw import encode
from .loop import Actor, Ask, LostError, Port
from .moves import Move, build, choose_move, has_error
from .oracle import FOREVER, Register
from .reads import Read, exists, mget
from .reads_sorted import choose_read
from .states import NOTHING
from .world import Steps, World, ask, is_away

WATCH_S = 0.02
HELD_UP_S = 0.1
LOST = [hiredis.ReplyError("the connection is lost")]


def reader(world: World, port: Port, pause_s: float) -> Actor:
    """Read: pipelines, MGET and EXISTS of several keys, transactions, and reads on both sides of a SELECT."""
    rng = world.rng
    while not world.is_stopping:
        kind = rng.random()
        registers = _popular(rng, world.registers[port.db], rng.choice((1, 1, 2, 4, 8)))
        if kind < 0.65:
            yield from _read_each(world, port, registers)
        elif kind < 0.80:
            yield from _read_strings(world, port, registers)
        elif kind < 0.85:
            yield from _count_existing(world, port, registers)
        elif kind < 0.95:
            yield from _read_around_select(world, port, registers[0])
        else:
            yield from _read_in_transaction(world, port, registers)
        yield pause_s * rng.random()


def watcher(world: World) -> Actor:
    """Note when this process was held up: the others may have been, too, and longer than the margins allow."""
    while not world.is_stopping:
        before = time.monotonic()
        yield WATCH_S
        late_s = time.monotonic() - before - WATCH_S
        if late_s > HELD_UP_S:
            world.mark(f"the checker had been held up for {late_s:.3f} s")


def _popular(rng: Random, registers: Sequence[Register], count: int) -> list[Register]:
    """Choose keys, the first ones more often than the last."""
    return [registers[int(len(registers) * rng.random() ** 2)] for _ in range(count)]


def _choose(world: World, register: Register) -> Read:
    return choose_read(world.rng, register.families, register.key, register.last.state)


def _read_each(world: World, port: Port, registers: list[Register]) -> Steps:
    reads = [_choose(world, register) for register in registers]
    starts = [world.start(register, port) for register in registers]
    try:
        replies = yield Ask(port, b"".join(encode(*read.words) for read in reads), len(reads))
    except LostError:
        return
    for register, start, read, reply in zip(registers, starts, reads, replies, strict=True):
        world.judge(register, start, read, reply)


def _read_strings(world: World, port: Port, registers: list[Register]) -> Steps:
    starts = [world.start(register, port) for register in registers]
    try:
        (replies,) = yield Ask(port, encode("MGET", *(register.key for register in registers)), 1)
    except LostError:
        return
    if is_away(replies):
        replies = [replies] * len(registers)
    for register, start, reply in zip(registers, starts, replies, strict=True):
        world.judge(register, start, mget(world.rng, register.key, None), reply)


def _count_existing(world: World, port: Port, registers: list[Register]) -> Steps:
    """Ask how many of several keys exist: each may count for what any of its states may say."""
    starts = [world.start(register, port) for register in registers]
    try:
        (reply,) = yield Ask(port, encode("EXISTS", *(register.key for register in registers)), 1)
    except LostError:
        return
    if len(registers) == 1 or is_away(reply):
        world.judge(registers[0], starts[0], exists(world.rng, registers[0].key, None), reply)
        return
    now = time.monotonic()
    fewest = most = 0
    for register, start in zip(registers, starts, strict=True):
        read = exists(world.rng, register.key, None)
        may_be = [count for count in (0, 1) if not register.judge(start, now, read, count)]
        fewest, most = fewest + min(may_be), most + max(may_be)
    world.counts.reads += 1
    world.counts.commands["EXISTS.."] += 1
    if not fewest <= reply <= most:
        world.blame(registers[0], f"EXISTS of it and {len(registers) - 1} more is {reply}, not {fewest} to {most}")


def _read_around_select(world: World, port: Port, here: Register) -> Steps:
    there = 1 - port.db
    registers = [here, _popular(world.rng, world.registers[there], 1)[0], here]
    reads = [_choose(world, register) for register in registers]
    starts = [world.start(register, port) for register in registers]
    first, second, third = (encode(*read.words) for read in reads)
    data = first + encode("SELECT", there) + second + encode("SELECT", port.db) + third
    try:
        replies = yield Ask(port, data, 5)
    except LostError:
        return
    if replies[1] != b"OK" or replies[3] != b"OK":
        port.is_spoiled = True  # nobody knows in which database it is
        return
    for register, start, read, reply in zip(registers, starts, reads, replies[::2], strict=True):
        world.judge(register, start, read, reply)


def _read_in_transaction(world: World, port: Port, registers: list[Register]) -> Steps:
    reads = [_choose(world, register) for register in registers]
    starts = [world.start(register, port) for register in registers]
    words = [("MULTI",), *(read.words for read in reads), ("EXEC",)]
    try:
        replies = yield Ask(port, b"".join(encode(*command) for command in words), len(words))
    except LostError:
        return
    if not isinstance(replies[-1], list):
        if not any(is_away(reply) for reply in replies):
            world.violations.append(f"a transaction of reads was answered {replies!r}")
        world.counts.refused_reads += 1
        return
    for register, start, read, reply in zip(registers, starts, reads, replies[-1], strict=True):
        world.judge(register, start, read, reply)


def writer(world: World, port: Port, pause_s: float) -> Actor:
    """Write to one key after the other; who does it through a Respite also reads around it in the same pipeline."""
    rng = world.rng
    # The last keys are written most: those that are read most live long, and what is stale there is found.
    allowed = ("both", "foreign" if port.who < 0 else "own")
    registers = [register for register in reversed(world.registers[port.db]) if register.writers in allowed]
    while not world.is_stopping:
        yield pause_s * 2 * rng.random()
        register = registers[int(len(registers) * rng.random() ** 2)]
        if register.is_busy or port.db in world.flushing:
            continue
        kind = rng.random()
        twins = [twin for twin in registers if twin.families == register.families and not twin.is_busy]
        twins.remove(register)
        register.is_busy = True
        if register.lasts and kind < 0.1:
            yield from _expire(world, port, register)
        elif register.lasts and kind < 0.2 and twins:
            yield from _take_over(world, port, register, rng.choice(twins))
        else:
            yield from _change(world, port, register)
        register.is_busy = False


def _change(world: World, port: Port, register: Register) -> Steps:
    rng = world.rng
    last = register.last.state
    move: Move = choose_move(rng, register.families, register.key, world.serial(), last, lasts=register.lasts)
    reads = [_choose(world, register) for _ in range(2)] if port.who >= 0 and rng.random() < 0.3 else []
    around = [encode(*read.words) for read in reads] or [b"", b""]
    start = world.start(register, port)
    changes = [register.begin(start.at, state, lifetime_s=move.lifetime_s) for state in move.states]
    try:
        replies = yield Ask(port, around[0] + move.data + around[1], move.count + len(reads))
    except LostError:
        replies = LOST
    inner = replies[1:-1] if reads and len(replies) > 1 else replies
    if not move.is_done(inner):
        if move.is_torn(inner):
            world.blame(register, f"a transaction that was refused was run in part: {inner!r}")
        yield from _write_over(world, [register], inner)
        return
    register.done(changes[-1], time.monotonic(), who=port.who, lifetime_s=move.lifetime_s)
    world.count(port.who)
    if reads:
        world.judge(register, start, reads[0], replies[0], before=changes[0].number)
        # The second may be answered after its end, when that is short: it is no older than its own write.
        after = type(start)(start.at, start.who, changes[-1].number, is_own=True)
        world.judge(register, after, reads[1], replies[-1])


def _expire(world: World, port: Port, register: Register) -> Steps:
    lifetime_ms = world.rng.choice((20, 200))
    register.begin_expiry(time.monotonic(), lifetime_ms / 1000)
    data = encode("PEXPIRE", register.key, lifetime_ms)
    if register.last.state.type == b"string" and world.rng.random() < 0.5:
        data = encode("GETEX", register.key, "PX", lifetime_ms)
    try:
        replies = yield Ask(port, data, 1)
    except LostError:
        replies = LOST
    if replies not in ([1], [register.last.state.value]):
        yield from _write_over(world, [register], replies)
        return
    register.done_expiry(time.monotonic(), lifetime_ms / 1000, who=port.who, bound_s=world.bound_s)
    world.count(port.who)


def _take_over(world: World, port: Port, source: Register, target: Register) -> Steps:
    """Rename or copy one key over another of the same kind."""
    target.is_busy = True
    now = time.monotonic()
    state = source.last.state
    changes = [(target, target.begin(now, state))]
    if world.rng.random() < 0.5:
        data = encode("COPY", source.key, target.key, "REPLACE")
    else:
        data = encode("RENAME", source.key, target.key)
        changes.append((source, source.begin(now, NOTHING)))
    try:
        replies = yield Ask(port, data, 1)
    except LostError:
        replies = LOST
    if replies in ([1], [b"OK"]):
        for register, change in changes:
            register.done(change, time.monotonic(), who=port.who)
        world.counts.moved += 1
        world.count(port.who)
    else:
        yield from _write_over(world, [source, target], replies)
    target.is_busy = False


def _write_over(world: World, registers: list[Register], replies: list[Any]) -> Steps:
    """Write directly, after what was sent has been executed or never will be."""
    if replies[:1] != LOST and not any(is_away(reply) for reply in replies):
        world.blame(registers[0], f"a write was answered {replies!r}")
    world.mark(f"{registers[0].key!r} in {registers[0].db}, {registers[0].last.number}: {str(replies)[:120]}")
    world.counts.unknown += 1
    yield from world.settle()
    for register in registers:
        yield from write_directly(world, register)


def write_directly(world: World, register: Register) -> Steps:
    """Make what a key holds known again."""
    commands, state = build(world.rng, world.rng.choice(register.families), register.key, world.serial())
    change = register.begin(time.monotonic(), state, lifetime_s=FOREVER)
    words = [("MULTI",), ("DEL", register.key), *commands, ("EXEC",)]
    replies = yield from ask(world.direct[register.db], b"".join(encode(*each) for each in words), len(words))
    if any(has_error(reply) for reply in replies):
        world.blame(register, f"a direct write was answered {replies!r}")
    register.done(change, time.monotonic(), who=-1)


def flusher(world: World, port: Port, pause_s: float) -> Actor:
    """Delete a whole database now and then."""
    registers = world.registers[port.db]
    while not world.is_stopping:
        yield from world.rest(pause_s * (0.5 + world.rng.random()))
        if world.is_stopping:
            return
        yield from world.hold(port.db)
        now = time.monotonic()
        changes = [register.begin(now, NOTHING) for register in registers]
        try:
            replies = yield Ask(port, encode("FLUSHDB"), 1)
        except LostError:
            replies = LOST
        if replies == [b"OK"]:
            end = time.monotonic()
            for register, change in zip(registers, changes, strict=True):
                register.done(change, end, who=port.who)
            world.counts.flushes += 1
        else:
            world.counts.unknown += 1
            yield from world.settle()
            for register in registers:
                yield from write_directly(world, register)
        world.let_go(port.db)
