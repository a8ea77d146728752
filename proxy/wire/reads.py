"""Which reads L1 may answer, and why the others are never answered from it.

Owns the allow-list: a read is on it when its reply depends on one key alone (or falls apart into such replies), and on
nothing else: not on the time, on chance, on a cursor. What is not listed is not cached. `conf/commands.md` shows
the verdict on every command of the servers we know; its test walks their COMMAND replies.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, Literal

import attrs

Join = Literal["", "list", "sum"]


@attrs.frozen(slots=True)
class CachedRead:
    """How replies of one command are kept. Its first key is its first argument.

    `join`: how the replies for single keys make up the reply for several: "" takes one key only, "list" makes an array
    of one-element arrays, "sum" adds numbers. `sole`: only a missing key gets the reply of a missing key. `negative`: a
    reply that looks like nothing is what a missing key gets, so it may be kept for one. `fields`: the reply may change
    when a field of a hash expires by itself. `unordered`: its elements, so many each time, stand in an order that means
    nothing: a hash table that is being made larger moves them without a change, also by reads.
    """

    join: Join = ""
    tail: int = 0  # words behind the last key that belong to each of them: the path of JSON.MGET
    sole: bool = False
    negative: bool = True
    fields: bool = False
    unordered: int = 0

    def may_be_missing(self, reply: bytes) -> bool:
        """Return whether a missing key would have got this reply."""
        if self.sole:
            return len(reply) <= _SOLE_NOTHING_MAX and reply in _SOLE_NOTHING  # not to hash a large value for nothing
        return self.negative and is_nothing(reply)


_SOLE_NOTHING: Final = frozenset([b"$-1\r\n", b"_\r\n", b":0\r\n", b"+none\r\n"])
_SOLE_NOTHING_MAX: Final = max(map(len, _SOLE_NOTHING))
_PLAIN: Final = CachedRead()
_HASH: Final = CachedRead(fields=True)
GET_READ: Final = CachedRead(sole=True)

READS: Final[Mapping[bytes, CachedRead]] = {
    **dict.fromkeys((b"STRLEN", b"GETRANGE", b"SUBSTR", b"GETBIT", b"BITCOUNT", b"BITFIELD_RO"), _PLAIN),
    b"BITPOS": CachedRead(negative=False),  # 0 may be a place in the value, or that there is none
    b"EXISTS": CachedRead(join="sum", sole=True),
    b"TYPE": CachedRead(sole=True),
    **dict.fromkeys((b"HGET", b"HMGET", b"HLEN", b"HEXISTS", b"HSTRLEN"), _HASH),
    **dict.fromkeys((b"HKEYS", b"HVALS"), CachedRead(fields=True, unordered=1)),
    b"HGETALL": CachedRead(fields=True, unordered=2),
    **dict.fromkeys((b"LINDEX", b"LLEN", b"LPOS", b"LRANGE"), _PLAIN),
    **dict.fromkeys((b"SCARD", b"SISMEMBER", b"SMISMEMBER"), _PLAIN),
    b"SMEMBERS": CachedRead(unordered=1),
    **dict.fromkeys((b"ZCARD", b"ZCOUNT", b"ZLEXCOUNT", b"ZMSCORE", b"ZRANK", b"ZREVRANK", b"ZSCORE"), _PLAIN),
    **dict.fromkeys((b"ZRANGE", b"ZRANGEBYLEX", b"ZRANGEBYSCORE"), _PLAIN),
    **dict.fromkeys((b"ZREVRANGE", b"ZREVRANGEBYLEX", b"ZREVRANGEBYSCORE"), _PLAIN),
    **dict.fromkeys((b"XLEN", b"XRANGE", b"XREVRANGE"), _PLAIN),
    **dict.fromkeys((b"GEODIST", b"GEOHASH", b"GEOPOS", b"GEOSEARCH"), _PLAIN),
    **dict.fromkeys((b"GEORADIUS_RO", b"GEORADIUSBYMEMBER_RO"), _PLAIN),
}

FIELD_EXPIRY: Final = frozenset([b"HEXPIRE", b"HPEXPIRE", b"HEXPIREAT", b"HPEXPIREAT", b"HSETEX", b"HGETEX"])
"""Commands that can give a field of a hash an end of its own, which PTTL of the key does not tell."""

_TIME: Final = "its reply changes with the time"
_CHANCE: Final = "its reply is drawn by chance"
_CURSOR: Final = "its reply depends on a cursor, and on all keys or members"
_SEVERAL: Final = "one reply made from several keys"
NEVER: Final[Mapping[bytes, str]] = {
    **dict.fromkeys((b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME"), _TIME),
    **dict.fromkeys((b"HTTL", b"HPTTL", b"HEXPIRETIME", b"HPEXPIRETIME"), _TIME),
    **dict.fromkeys((b"OBJECT", b"XPENDING", b"XINFO", b"MEMORY"), _TIME),
    **dict.fromkeys((b"RANDOMKEY", b"SRANDMEMBER", b"HRANDFIELD", b"ZRANDMEMBER", b"LOLWUT"), _CHANCE),
    **dict.fromkeys((b"SCAN", b"HSCAN", b"SSCAN", b"ZSCAN", b"KEYS", b"DBSIZE", b"CLUSTERSCAN"), _CURSOR),
    **dict.fromkeys((b"SDIFF", b"SINTER", b"SINTERCARD", b"SUNION", b"LCS", b"XREAD"), _SEVERAL),
    **dict.fromkeys((b"ZDIFF", b"ZINTER", b"ZINTERCARD", b"ZUNION"), _SEVERAL),
    b"SORT_RO": "it may read keys that it does not name (BY, GET)",
    b"PFCOUNT": "it may write what it has counted",
    b"TOUCH": "what it does in Redis is its purpose",
    b"DUMP": "how a value is stored may change without a word",
    **dict.fromkeys((b"EVAL_RO", b"EVALSHA_RO", b"FCALL_RO"), "it may read keys that it does not declare"),
}

_NOTHING: Final = frozenset(
    [b"$-1\r\n", b"*-1\r\n", b"_\r\n", b":0\r\n", b"$0\r\n\r\n", b"*0\r\n", b"%0\r\n", b"~0\r\n", b"+none\r\n"]
)
_NOTHING_MAX: Final = max(map(len, _NOTHING))
_NOTHINGS: Final = (b"$-1\r\n", b"_\r\n", b":0\r\n", b"*-1\r\n")


def is_nothing(reply: bytes) -> bool:
    """Return whether a reply is what reads of a missing key get: nil, 0, empty, none, or an array of nils or zeros."""
    if len(reply) <= _NOTHING_MAX and reply in _NOTHING:
        return True
    if reply[:1] != b"*":
        return False
    start = reply.find(b"\n") + 1
    count = int(reply[1:start])
    return any(reply[start : start + len(each)] == each and reply[start:] == each * count for each in _NOTHINGS)


def verdict(name: bytes, flags: Collection[str]) -> str:
    """Return whether L1 keeps replies of a command, and why not, for people; "" for a read that nobody has judged.

    `flags` are those of COMMAND.
    """
    read = READS.get(name)
    if name == b"GET" or (read is not None and not read.join):
        return "cached"
    if name == b"MGET" or read is not None:
        return "cached, key by key"
    if name in NEVER:
        return f"never: {NEVER[name]}"
    if {"write", "may_replicate"} & set(flags):
        return "never: it writes"
    return "" if "readonly" in flags else "never: it is not a read of keys"
