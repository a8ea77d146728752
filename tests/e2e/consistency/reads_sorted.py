"""The reads of sorted sets that L1 may serve: by rank, by score, by name, by place. See reads.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

from ..raw import Arg
from .reads import (
    COMMON_READS,
    HASH_READS,
    LIST_READS,
    SET_READS,
    STREAM_READS,
    STRING_READS,
    Maker,
    Read,
    cut,
    plain,
    read,
)
from .states import EMPTY, FIRST, LAST, PLACE_DEGREES, TYPES, State

MEMBERS = (FIRST, b"a", b"x1", LAST)
EARTH_RADIUS_M = 6372797.560856
"""As Redis has it."""
LEX_LIMIT = 5
PLACE_M = EARTH_RADIUS_M * math.radians(PLACE_DEGREES)


def ranked(value: Any) -> list[tuple[bytes, float]]:
    """Return members and scores in the order of a sorted set."""
    return sorted(value.items(), key=lambda item: (item[1], item[0]))


def number(reply: Any) -> float | None:
    """Return a double of RESP3, or the string that stands for it in RESP2."""
    return None if reply is None else float(reply)


def _pairs(reply: Any) -> list[tuple[bytes, float]]:
    """Return members and scores: pairs in RESP3, one after the other in RESP2."""
    items = reply if reply and isinstance(reply[0], list) else zip(reply[::2], reply[1::2], strict=True)
    return [(member, float(score)) for member, score in items]


def zcard(_: Random, key: bytes, __: Any) -> Read:
    """ZCARD."""
    return read("zset", "ZCARD", key, then=len)


def zcount(rng: Random, key: bytes, _: Any) -> Read:
    """ZCOUNT: scores below ten are the serial's last digit."""
    low, high = rng.choice(((0, 4), (3, 9)))
    return read(
        "zset", "ZCOUNT", key, low, high, then=lambda value: sum(low <= score <= high for score in value.values())
    )


def zscore(rng: Random, key: bytes, _: Any) -> Read:
    """ZSCORE, ZMSCORE."""
    member = rng.choice(MEMBERS)
    if rng.random() < 0.5:
        return read("zset", "ZSCORE", key, member, then=lambda value: value.get(member), view=number)
    return read(
        "zset",
        *("ZMSCORE", key, *MEMBERS),
        then=lambda value: [value.get(member) for member in MEMBERS],
        view=lambda reply: [number(score) for score in reply],
    )


def zrank(rng: Random, key: bytes, _: Any) -> Read:
    """ZRANK, ZREVRANK."""
    member = rng.choice((b"a", b"x1", LAST))
    step = rng.choice((1, -1))

    def rank(value: Any) -> int | None:
        names = [name for name, _ in ranked(value)][::step]
        return names.index(member) if member in names else None

    return read("zset", "ZRANK" if step == 1 else "ZREVRANK", key, member, then=rank)


def zrange(rng: Random, key: bytes, _: Any) -> Read:
    """ZRANGE and ZREVRANGE by rank, with scores or without."""
    start, stop = rng.choice(((0, -1), (0, 1), (-2, -1)))
    step, words = rng.choice(((1, ("ZRANGE",)), (-1, ("ZREVRANGE",)), (-1, ("ZRANGE", "REV"))))
    return _ranges(
        rng, words[0], key, start, stop, *words[1:], then=lambda value: cut(ranked(value)[::step], start, stop)
    )


def zrangebyscore(rng: Random, key: bytes, _: Any) -> Read:
    """ZRANGEBYSCORE, ZREVRANGEBYSCORE, ZRANGE BYSCORE: scores above 2, the lowest or the highest of them."""
    limit: tuple[Arg, ...] = rng.choice(((), ("LIMIT", 0, 2)))
    kind = rng.randrange(4)
    words: tuple[Arg, ...] = (
        ("ZRANGEBYSCORE", key, "(2", "+inf"),
        ("ZRANGE", key, "(2", "+inf", "BYSCORE"),
        ("ZREVRANGEBYSCORE", key, "+inf", "(2"),
        ("ZRANGE", key, "+inf", "(2", "BYSCORE", "REV"),
    )[kind]

    def find(value: Any) -> list[tuple[bytes, float]]:
        found = [item for item in ranked(value) if item[1] > 2][:: -1 if kind >= 2 else 1]
        return found[:2] if limit else found

    return _ranges(rng, *words, *limit, then=find)


def _ranges(rng: Random, *words: Arg, then: Callable[[Any], list[tuple[bytes, float]]]) -> Read:
    if rng.random() < 0.5:
        return read("zset", *words, "WITHSCORES", then=then, view=_pairs)
    return read("zset", *words, then=lambda value: [member for member, _ in then(value)])


def zrangebylex(rng: Random, key: bytes, _: Any) -> Read:
    """ZRANGEBYLEX, ZREVRANGEBYLEX, ZRANGE BYLEX, ZLEXCOUNT, in sets whose scores are all the same."""
    low, high = rng.choice(((b"a", b"b"), (b"a", b"z"), (FIRST, b"w")))
    bounds = b"[" + low, b"(" + high
    kind = rng.randrange(5)
    if kind == 0:
        return read("lex", "ZLEXCOUNT", key, *bounds, then=lambda value: len(_named(value, low, high)))
    words: tuple[Arg, ...] = (
        ("ZRANGEBYLEX", key, *bounds),
        ("ZRANGE", key, *bounds, "BYLEX"),
        ("ZREVRANGEBYLEX", key, *bounds[::-1]),
        ("ZRANGE", key, *bounds[::-1], "BYLEX", "REV", "LIMIT", 0, LEX_LIMIT),
    )[kind - 1]
    step, most = (1, 1, -1, -1)[kind - 1], LEX_LIMIT if kind == 4 else None
    return read("lex", *words, then=lambda value: _named(value, low, high)[::step][:most])


def _named(value: Any, low: bytes, high: bytes) -> list[bytes]:
    return sorted(member for member in value if low <= member < high)


def geopos(_: Random, key: bytes, __: Any) -> Read:
    """GEOPOS."""
    return read(
        "geo",
        *("GEOPOS", key, *MEMBERS),
        then=lambda value: [value.get(member) for member in MEMBERS],
        view=lambda reply: [None if at is None else round(float(at[0]) / PLACE_DEGREES) for at in reply],
    )


def geohash(_: Random, key: bytes, __: Any) -> Read:
    """GEOHASH."""
    return read(
        "geo",
        *("GEOHASH", key, *MEMBERS),
        then=lambda value: [value.get(member) for member in MEMBERS],
        view=lambda reply: [None if text is None else _place(text) for text in reply],
    )


def _place(text: bytes) -> int:
    """Return the place of a geohash: every other bit, the first one included, halves the longitudes."""
    low, high = -180.0, 180.0
    for at in range(5 * 10):  # the eleventh character is padding
        bit = b"0123456789bcdefghjkmnpqrstuvwxyz".index(text[at // 5]) >> (4 - at % 5) & 1
        if at % 2 == 0:
            middle = (low + high) / 2
            low, high = (middle, high) if bit else (low, middle)
    return round(low / PLACE_DEGREES)


def geodist(rng: Random, key: bytes, _: Any) -> Read:
    """GEODIST from the member that stays."""
    member = rng.choice((FIRST, b"x1"))
    return read(
        "geo",
        *("GEODIST", key, LAST, member),
        then=lambda value: abs(value[member] - value[LAST]) if member in value else None,
        view=lambda reply: None if reply is None else round(float(reply) / PLACE_M),
    )


def geosearch(rng: Random, key: bytes, _: Any) -> Read:
    """GEOSEARCH, GEORADIUS_RO, GEORADIUSBYMEMBER_RO: who is near place 0, the nearest first."""
    places = rng.choice((20, 60))
    radius_m = (places + 0.5) * PLACE_M
    by_radius = ("BYRADIUS", radius_m, "m")
    words: tuple[Arg, ...] = rng.choice(
        (
            ("GEOSEARCH", key, "FROMLONLAT", 0, 0, *by_radius, "ASC"),
            ("GEOSEARCH", key, "FROMMEMBER", LAST, *by_radius, "ASC"),
            ("GEOSEARCH", key, "FROMLONLAT", 0, 0, "BYBOX", 2 * radius_m, 1000, "m", "ASC"),
            ("GEORADIUS_RO", key, 0, 0, radius_m, "m", "ASC"),
            ("GEORADIUSBYMEMBER_RO", key, LAST, radius_m, "m", "ASC"),
        )
    )
    return read("geo", *words, then=lambda value: [name for name, place in ranked(value) if place <= places])


ZSET_READS: tuple[Maker, ...] = (zcard, zcount, zscore, zscore, zrank, zrange, zrange, zrangebyscore, zrangebyscore)
LEX_READS: tuple[Maker, ...] = (zcard, zrangebylex, zrangebylex)
GEO_READS: tuple[Maker, ...] = (zcard, geopos, geohash, geodist, geosearch, geosearch)

READS: dict[str, tuple[Maker, ...]] = {
    "string": STRING_READS,
    "large": STRING_READS,
    "counter": STRING_READS,
    "hash": HASH_READS,
    "list": LIST_READS,
    "set": SET_READS,
    "stream": STREAM_READS,
    "zset": ZSET_READS,
    "lex": LEX_READS,
    "geo": GEO_READS,
}


def choose_read(rng: Random, families: tuple[str, ...], key: bytes, state: State) -> Read:
    """Choose a read for a key: mostly of the type that it may have just now."""
    fitting = [family for family in families if TYPES[family] == state.type]
    family = rng.choice(fitting if fitting and rng.random() < 0.8 else families)
    value = state.value if state.type == TYPES[family] else EMPTY[family]
    maker = rng.choice(COMMON_READS if rng.random() < 0.08 else READS[family])
    return maker(rng, key, value)


def whole(family: str, key: bytes) -> Read:
    """Read all that there is of a value."""
    name = TYPES[family].decode()
    if family == "geo":
        words: tuple[Arg, ...] = ("GEOSEARCH", key, "FROMLONLAT", 0, 0, "BYRADIUS", 10_000, "km", "ASC", "WITHCOORD")
        return read("geo", *words, then=plain, view=_places)
    if name == "zset":
        return read(family, "ZRANGE", key, 0, -1, "WITHSCORES", then=ranked, view=_pairs)
    makers = {"string": STRING_READS[0], "hash": HASH_READS[4], "set": SET_READS[1]}
    if name in makers:
        return makers[name](Random(0), key, EMPTY[family])
    if name == "list":
        return read("list", "LRANGE", key, 0, -1, then=list)
    return read(
        "stream", "XRANGE", key, "-", "+", then=list, view=lambda reply: [(item[0], item[1][1]) for item in reply]
    )


def _places(reply: Any) -> dict[bytes, int]:
    return {name: round(float(at[0]) / PLACE_DEGREES) for name, at in reply}
