"""The ways to write: what is sent to make or to change a value, and the states that a key goes through.

`build` makes a value out of nothing, `change` alters a part of one. `wrap` sends either: as it is, in a transaction,
or in a script that declares its key or does not. Every written element carries a serial, a new one for each move.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import attrs
import hiredis

from ..raw import Arg, encode
from .oracle import FOREVER
from .states import FIRST, LAST, NOTHING, PLACE_DEGREES, TYPES, State

TOO_LARGE = 120_000
"""Size of the largest values: larger than what L1 takes."""

SCRIPT = "for _, words in ipairs(cjson.decode(ARGV[1])) do redis.call(unpack(words)) end return 'done'"

Command = tuple[Arg, ...]
Made = tuple[list[Command], State]
"""Commands, and the state that they lead to."""


@attrs.frozen
class Move:
    """One way to write: the bytes, how many replies, the states gone through, and how long the last one lives."""

    data: bytes
    count: int
    states: tuple[State, ...]
    lifetime_s: float = FOREVER

    def is_done(self, replies: list[Any]) -> bool:
        """Tell whether the replies say that all of it has happened."""
        return len(replies) == self.count and replies[-1] is not None and not any(has_error(reply) for reply in replies)

    def is_torn(self, replies: list[Any]) -> bool:
        """Tell whether the replies say that MULTI was refused, and yet something of its queue has been run."""
        is_transaction = self.data.startswith(encode("MULTI")) and has_error(replies[0])
        return is_transaction and not all(has_error(reply) for reply in replies)


def has_error(reply: Any) -> bool:
    """Tell whether a reply is an error or has one in it."""
    return isinstance(reply, hiredis.ReplyError) or (isinstance(reply, list) and any(map(has_error, reply)))


def element(key: bytes, serial: int) -> bytes:
    """Return an element that tells which write of which key it is from."""
    return b"%b:%d" % (key, serial)


def build(rng: Random, family: str, key: bytes, serial: int) -> Made:
    """Make a whole value, of a size that depends on the serial; the key must not exist, unless it is for a string."""
    mine = element(key, serial)
    extra = [b"x%d" % number for number in range(serial % 4)]
    if TYPES[family] == b"string":
        if family == "counter":
            mine = b"%d" % (serial * 1000)
        elif family == "large":
            mine = (mine + b"|").ljust((5_000, TOO_LARGE - 40_000, TOO_LARGE)[serial % 3], b".")
        return [(rng.choice(("SET", "MSET")), key, mine)], State(b"string", mine)
    if family == "hash":
        fields = dict.fromkeys([FIRST, b"a", *extra, LAST], mine)
        words: list[Arg] = [word for item in fields.items() for word in item]
        return [("HSET", key, *words)], State(b"hash", fields)
    if family == "list":
        items = tuple(mine + b"." + name for name in [FIRST, *extra])
        return [("RPUSH", key, *items)], State(b"list", items)
    if family == "set":
        members = frozenset([mine, *(b"m%d" % number for number in range(serial % 4))])
        return [("SADD", key, *members)], State(b"set", members)
    if family == "stream":
        entries = tuple((b"%d-%d" % (serial, number), mine) for number in range(1, 2 + serial % 4))
        return [("XADD", key, entry_id, FIRST, mine) for entry_id, _ in entries], State(b"stream", entries)
    return _build_sorted(family, key, serial, extra)


def _build_sorted(family: str, key: bytes, serial: int, extra: list[bytes]) -> Made:
    if family == "geo":
        places = {LAST: 0, FIRST: 1 + serial % 40} | {name: 41 + 3 * at for at, name in enumerate(extra)}
        words: list[Arg] = [word for name, place in places.items() for word in _position(name, place)]
        return [("GEOADD", key, *words)], State(b"zset", places)
    if family == "lex":
        names = [b"a%d" % (serial % 10), FIRST + b"%d" % serial, *extra, LAST]
        scores: dict[bytes, float] = dict.fromkeys(names, 0.0)
    else:
        scores = {FIRST: float(serial), b"a": float(serial % 10), LAST: 5.5}
        scores |= {name: float((serial + 3 * at) % 10) for at, name in enumerate(extra)}
    words = [word for name, score in scores.items() for word in (score, name)]
    return [("ZADD", key, *words)], State(b"zset", scores)


def _position(name: bytes, place: int) -> tuple[Arg, ...]:
    return (round(place * PLACE_DEGREES, 3), 0, name)


def change(rng: Random, family: str, key: bytes, serial: int, value: Any) -> Made:
    """Change a part of a value that is there and stays long enough."""
    return CHANGES[family](rng, key, element(key, serial), serial, value)


def _change_string(rng: Random, key: bytes, mine: bytes, _: int, value: Any) -> Made:
    kind = rng.randrange(3)
    if kind == 0 and len(value) < 60:
        return [("APPEND", key, b"+" + mine)], State(b"string", value + b"+" + mine)
    if kind == 1:
        return [("SETRANGE", key, 0, mine)], State(b"string", mine + value[len(mine) :])
    # The first bit of no element is set, so this makes what no other write does.
    flipped = bytes([value[0] ^ 0x80]) + value[1:]
    return [("SETBIT", key, 0, flipped[0] >> 7)], State(b"string", flipped)


def _change_counter(_: Random, key: bytes, __: bytes, ___: int, value: Any) -> Made:
    return [("INCR", key)], State(b"string", b"%d" % (int(value) + 1))


def _change_hash(rng: Random, key: bytes, mine: bytes, _: int, value: Any) -> Made:
    kind = rng.randrange(4)
    if kind == 0 and b"x1" in value:
        return [("HDEL", key, "x1")], State(b"hash", {name: value[name] for name in value if name != b"x1"})
    if kind == 1:
        return [("HSET", key, FIRST, mine, "a", mine)], State(b"hash", value | {FIRST: mine, b"a": mine})
    field = rng.choice((FIRST, b"a", b"x1"))
    return [("HSET", key, field, mine)], State(b"hash", value | {field: mine})


def _change_list(rng: Random, key: bytes, mine: bytes, _: int, value: Any) -> Made:
    kind = rng.randrange(6)
    if kind == 0:
        return [("LPUSH", key, mine)], State(b"list", (mine, *value))
    if kind == 1:
        return [("LSET", key, -1, mine)], State(b"list", (*value[:-1], mine))
    if kind == 2 and len(value) > 1:
        return [("LPOP", key)], State(b"list", value[1:])
    if kind == 3 and len(value) > 2:
        return [("LTRIM", key, -2, -1)], State(b"list", value[-2:])
    if kind == 4 and len(value) > 1:
        return [("LREM", key, 0, value[0])], State(b"list", tuple(item for item in value if item != value[0]))
    return [("RPUSH", key, mine), ("LTRIM", key, -5, -1)], State(b"list", (*value, mine)[-5:])


def _change_set(rng: Random, key: bytes, mine: bytes, _: int, value: Any) -> Made:
    if len(value) > 2 and rng.random() < 0.6:
        member = rng.choice(sorted(value))
        return [("SREM", key, member)], State(b"set", value - {member})
    return [("SADD", key, mine)], State(b"set", value | {mine})


def _change_zset(rng: Random, key: bytes, _: bytes, serial: int, value: Any) -> Made:
    kind = rng.randrange(4)
    if kind == 0 and b"x1" in value:
        return [("ZREM", key, "x1")], State(b"zset", {name: value[name] for name in value if name != b"x1"})
    if kind == 1:
        return [("ZINCRBY", key, 1, "a")], State(b"zset", value | {b"a": value[b"a"] + 1})
    scores = {FIRST: float(serial)} | ({b"x1": float(serial % 10)} if kind == 2 else {})
    words = [word for name, score in scores.items() for word in (score, name)]
    return [("ZADD", key, *words)], State(b"zset", value | scores)


def _change_lex(rng: Random, key: bytes, _: bytes, serial: int, value: Any) -> Made:
    if len(value) > 2 and rng.random() < 0.5:
        member = min(value)
        return [("ZREM", key, member)], State(b"zset", {name: 0.0 for name in value if name != member})
    member = rng.choice((b"a%d", b"v%d")) % serial
    return [("ZADD", key, 0, member)], State(b"zset", value | {member: 0.0})


def _change_geo(rng: Random, key: bytes, _: bytes, serial: int, value: Any) -> Made:
    if b"x1" in value and rng.random() < 0.3:
        return [("ZREM", key, "x1")], State(b"zset", {name: value[name] for name in value if name != b"x1"})
    place = 1 + serial % 40
    return [("GEOADD", key, *_position(FIRST, place))], State(b"zset", value | {FIRST: place})


def _change_stream(rng: Random, key: bytes, mine: bytes, serial: int, value: Any) -> Made:
    kind = rng.randrange(3)
    if kind == 0 and len(value) > 1:
        return [("XDEL", key, value[0][0])], State(b"stream", value[1:])
    if len(value) > 6 or (kind == 1 and len(value) > 2):
        return [("XTRIM", key, "MAXLEN", 2)], State(b"stream", value[-2:])
    entry_id = b"%d-1" % serial
    return [("XADD", key, entry_id, FIRST, mine)], State(b"stream", (*value, (entry_id, mine)))


CHANGES: dict[str, Callable[[Random, bytes, bytes, int, Any], Made]] = {
    "string": _change_string,
    "large": _change_string,
    "counter": _change_counter,
    "hash": _change_hash,
    "list": _change_list,
    "set": _change_set,
    "zset": _change_zset,
    "lex": _change_lex,
    "geo": _change_geo,
    "stream": _change_stream,
}


def choose_move(rng: Random, families: tuple[str, ...], key: bytes, serial: int, last: State, *, lasts: bool) -> Move:
    """Choose how to write a key; `lasts` says that it certainly holds `last` until then."""
    family = rng.choice(families)
    if lasts and TYPES[family] == last.type and rng.random() < 0.6:
        commands, state = change(rng, family, key, serial, last.value)
        return _wrap(rng, commands, (state,), key)
    if rng.random() < 0.12:
        return Move(encode(rng.choice(("DEL", "UNLINK")), key), 1, (NOTHING,))
    commands, state = build(rng, family, key, serial)
    lifetime_ms = rng.choice((30, 100, 400)) if rng.random() < 0.25 else 0
    if state.type == b"string" and rng.random() < 0.5:
        if lifetime_ms:
            return Move(encode("SET", key, state.value, "PX", lifetime_ms), 1, (state,), lifetime_ms / 1000)
        if rng.random() < 0.2:
            return Move(encode("SETEX", key, 1, state.value), 1, (state,), 1.0)
        return Move(encode(*commands[0]), 1, (state,))
    if len(commands) == 1 and not lifetime_ms and rng.random() < 0.4:
        # The two are seen one by one: between them there is nothing.
        return Move(encode("DEL", key) + encode(*commands[0]), 2, (NOTHING, state))
    if lifetime_ms:
        commands.append(("PEXPIRE", key, lifetime_ms))
    return _wrap(rng, [("DEL", key), *commands], (state,), key, lifetime_ms / 1000 if lifetime_ms else FOREVER)


def _wrap(
    rng: Random, commands: list[Command], states: tuple[State, ...], key: bytes, lives_s: float = FOREVER
) -> Move:
    """Send commands so that they happen at once: one alone, in a transaction, or in a script."""
    kind = rng.random()
    if len(commands) == 1 and kind < 0.5:
        return Move(encode(*commands[0]), 1, states, lives_s)
    if kind < 0.7:
        queued = b"".join(encode(*command) for command in [("MULTI",), *commands, ("EXEC",)])
        return Move(queued, len(commands) + 2, states, lives_s)
    text = json.dumps([[*_words(command)] for command in commands])
    declared: tuple[Arg, ...] = (1, key) if kind < 0.8 else (0,)
    return Move(encode("EVAL", SCRIPT, *declared, text), 1, states, lives_s)


def _words(command: Command) -> Iterator[str]:
    return (word.decode("latin-1") if isinstance(word, bytes) else str(word) for word in command)
