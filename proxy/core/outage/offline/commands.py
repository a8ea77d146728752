"""The table of commands that are done in memory while Redis is away: what runs each, and what may be said twice.

`run` is what a client sees: the bytes Redis 7 would answer. What is not in the table is not done in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from proxy.core.outage.offline import hashes, lives, strings
from proxy.core.outage.offline.store import NoRoomError, RefusedError, Store

Runner = Callable[[Store, list[bytes], int], bytes]


@attrs.frozen
class Offline:
    """One command."""

    run: Runner
    arity: int
    """As COMMAND has it: how many words, or, below 0, at least how many."""
    is_read: bool = False
    is_repeatable: bool = False
    """Whether doing it again where it may have been done already leaves the same behind, and says the same.

    DEL, HDEL and HSET may count otherwise the second time; what they leave behind is the same.
    """
    every_word: bool = False
    """Whether all its words are keys; else the first is, and of MSET every other."""


_READS: Final[Mapping[bytes, Offline]] = {
    b"GET": Offline(strings.get, 2, is_read=True),
    b"MGET": Offline(strings.mget, -2, is_read=True, every_word=True),
    b"STRLEN": Offline(strings.strlen, 2, is_read=True),
    b"EXISTS": Offline(strings.exists, -2, is_read=True, every_word=True),
    b"TYPE": Offline(strings.type_, 2, is_read=True),
    b"HGET": Offline(hashes.hget, 3, is_read=True),
    b"HMGET": Offline(hashes.hmget, -3, is_read=True),
    b"HGETALL": Offline(hashes.hgetall, 2, is_read=True),
    b"HKEYS": Offline(hashes.hkeys, 2, is_read=True),
    b"HVALS": Offline(hashes.hvals, 2, is_read=True),
    b"HLEN": Offline(hashes.hlen, 2, is_read=True),
    b"HEXISTS": Offline(hashes.hexists, 3, is_read=True),
    b"HSTRLEN": Offline(hashes.hstrlen, 3, is_read=True),
    **dict.fromkeys((b"TTL", b"PTTL"), Offline(lives.ttl, 2, is_read=True)),
    **dict.fromkeys((b"EXPIRETIME", b"PEXPIRETIME"), Offline(lives.expiretime, 2, is_read=True)),
}
_WRITES: Final[Mapping[bytes, Offline]] = {
    b"SET": Offline(strings.set_, -3, is_repeatable=True),
    **dict.fromkeys((b"SETEX", b"PSETEX"), Offline(strings.setex, 4, is_repeatable=True)),
    b"SETNX": Offline(strings.setnx, 3),
    b"MSET": Offline(strings.mset, -3, is_repeatable=True),
    b"GETSET": Offline(strings.getset, 3),
    b"GETDEL": Offline(strings.getdel, 2),
    b"GETEX": Offline(strings.getex, -2),
    b"APPEND": Offline(strings.append, 3),
    **dict.fromkeys((b"INCR", b"DECR"), Offline(strings.incr, 2)),
    **dict.fromkeys((b"INCRBY", b"DECRBY"), Offline(strings.incr, 3)),
    b"INCRBYFLOAT": Offline(strings.incrbyfloat, 3),
    **dict.fromkeys((b"DEL", b"UNLINK"), Offline(strings.remove, -2, is_repeatable=True, every_word=True)),
    **dict.fromkeys((b"HSET", b"HMSET"), Offline(hashes.hset, -4, is_repeatable=True)),
    b"HSETNX": Offline(hashes.hsetnx, 4),
    b"HDEL": Offline(hashes.hdel, -3, is_repeatable=True),
    b"HINCRBY": Offline(hashes.hincrby, 4),
    b"HINCRBYFLOAT": Offline(hashes.hincrbyfloat, 4),
    **dict.fromkeys((b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT"), Offline(lives.expire, -3)),
    b"PERSIST": Offline(lives.persist, 2),
}
COMMANDS: Final[Mapping[bytes, Offline]] = {**_READS, **_WRITES}
"""By name, in upper case."""
_GIVE_VALUES: Final = frozenset([b"GETSET", b"GETDEL", b"GETEX"])
_BRIEF: Final = _WRITES.keys() - _GIVE_VALUES


def keys_of(name: bytes, args: list[bytes]) -> list[bytes]:
    """Return the keys of a command of the table, as often as it names them."""
    if COMMANDS[name].every_word:
        return args[1:]
    return args[1::2] if name == b"MSET" else args[1:2]


def may_repeat(name: bytes, args: list[bytes]) -> bool:
    """Return whether a command whose outcome is unknown may be done (again) in memory."""
    if not COMMANDS[name].is_repeatable:
        return False
    # What SET answers, and whether it sets at all, is another matter the second time with one of these.
    return name != b"SET" or not {b"NX", b"XX", b"GET"} & {word.upper() for word in args[3:]}


def is_brief(name: bytes, args: Sequence[bytes]) -> bool:
    """Return whether a command is a write of the table whose reply is never a value: one line, or one number."""
    if name not in _BRIEF:
        return False
    return name != b"SET" or len(args) < 4 or not any(len(word) == 3 and word.upper() == b"GET" for word in args[3:])


def run(store: Store, name: bytes, args: list[bytes], protocol: int) -> bytes:
    """Return the reply to a command of the table, Redis' errors included.

    Raises NoRoomError and UnsureError, and then has changed nothing.
    """
    offline = COMMANDS[name]
    arity = offline.arity
    if len(args) != arity if arity > 0 else len(args) < -arity:
        return b"-ERR wrong number of arguments for '%b' command\r\n" % name.lower()
    try:
        return offline.run(store, args, protocol)
    except NoRoomError:
        raise
    except RefusedError as exc:
        return exc.reply
