"""Replies of a Redis: where each ends, with hiredis as the judge; and what a server says of itself.

What must hold: frames end where hiredis says, wherever chunks end; ReplyError is all that comes out of a splitter,
RemoteError all that comes of a greeting; whatever was split can be looked into.
"""

from __future__ import annotations

import random
import re
from typing import Final

import hiredis

from proxy.errors import RemoteError
from proxy.wire import commands, greeting, reads, reply
from proxy.wire.encode import bulk
from proxy.wire.greeting import read_greeting
from proxy.wire.reads import READS, is_nothing
from proxy.wire.reply import FrameScanner, ReplyError, elements, frames, text

from ...wire.feeding import singly
from ...wire.resp import random_frame
from ..target import Target, cuts, expect

TOKENS: Final = (
    *(b"+OK\r\n", b"-ERR x\r\n", b":1\r\n", b":-1\r\n", b"$-1\r\n", b"$0\r\n\r\n", b"$3\r\nabc\r\n", b"*-1\r\n"),
    *(b"*0\r\n", b"*1\r\n", b"*2\r\n", b"%1\r\n", b"~1\r\n", b">2\r\n", b"|1\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n"),
    *(b",inf\r\n", b"(123\r\n", b"=7\r\ntxt:abc\r\n", b"!5\r\nERR x\r\n", b"$?\r\n", b"*?\r\n", b";4\r\n", b".\r\n"),
    *(b"*1000000000\r\n", b"%-1\r\n", b"|-1\r\n", b">-1\r\n", b"$536870913\r\n", b"\r\n", b"\n", b"\r", b"$", b"*"),
)
_AGGREGATES: Final = b"*%~>|"
_MANY: Final = re.compile(rb"[*%~]\+?[0-9]{5}")  # hiredis makes lists that long before it has any of their elements
_BARE: Final = re.compile(rb"(?<!\r)\n")
"""What ends a line to us and not to hiredis; in a line of a Redis there is none."""


def _ends(pieces: list[bytes]) -> tuple[list[int], bool]:
    """Return where frames end, and whether that went on to the end of the data."""
    scanner = FrameScanner()
    ends: list[int] = []
    before = 0
    for piece in pieces:
        pos = 0
        while pos < len(piece):
            try:
                pos = scanner.scan(piece, pos)
            except ReplyError:
                return ends, False
            if pos < 0:
                break
            expect(pos <= len(piece), "a frame ends behind its chunk")
            ends.append(before + pos)
        before += len(piece)
    return ends, True


def _judged(data: bytes) -> tuple[list[int], int]:
    """Return where replies end by hiredis, and how far it has read before it found anything wrong."""
    reader = hiredis.Reader(notEnoughData=Ellipsis)
    ends = []
    for at, byte in enumerate(singly(data)):
        try:
            reader.feed(byte)
            while reader.gets() is not Ellipsis:
                ends.append(at + 1)
        except (hiredis.HiredisError, MemoryError, ValueError, TypeError):
            return ends, at
    return ends, len(data)


def _run(data: bytes) -> None:
    ends, is_resp = _ends([data])
    for pieces in cuts(data):
        expect(_ends(pieces) == (ends, is_resp), "frames go by how it is cut", ends, pieces)
    # An attribute is a reply of its own to hiredis, and a push inside of an array one of its elements.
    if b"|" not in data and b">" not in data and not _MANY.search(data):
        strict = _BARE.sub(b"x", data)
        judged, known_to = _judged(strict)
        by_us = [end for end in _ends([strict])[0] if end <= known_to]
        expect(by_us == judged, "hiredis reads something else", by_us, judged)
    if not ends:
        return
    whole = data[: ends[-1]]
    parts = frames(whole)
    expect(b"".join(parts) == whole, "frames are lost")
    for part in parts:
        _look_into(part)


def _look_into(frame: bytes) -> None:
    """Do with a frame what the proxy does with one that was split."""
    is_nothing(frame)
    for read in READS.values():
        read.may_be_missing(frame)
    if frame[0] in _AGGREGATES and frame[:2] not in {b"*-", b"%-", b"~-", b">-", b"|-"}:
        for part in elements(frame):
            expect(part, "an element of no bytes", frame)
    else:
        text(frame)


def _make(rng: random.Random) -> bytes:
    return b"".join(random_frame(rng) for _ in range(rng.randrange(1, 4)))


REPLIES: Final = Target(
    "replies",
    _run,
    [reply, reads],
    [
        b"+OK\r\n:1\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n_\r\n",
        b"|1\r\n+ttl\r\n:3\r\n$1\r\nx\r\n",
        b">2\r\n+a\r\n$1\r\nb\r\n+OK\r\n",
    ],
    TOKENS,
    _make,
)


_INFO: Final = bulk(b"# Server\r\nredis_version:7.0.15\r\nrun_id:abcdef0123456789\r\n")
_CLIENT: Final = bulk(b"id=7 addr=127.0.0.1:5 name= db=0")
_NAMES: Final = (
    b"get",
    b"set",
    b"eval",
    b"xread",
    b"json.get",
    b"client",
    b"client|id",
    b"zunionstore",
    b"function|load",
)
_FLAGS: Final = (b"readonly", b"write", b"movablekeys", b"blocking", b"may_replicate", b"fast")
_NUMBERS: Final = (b"0", b"1", b"-1", b"2", b"-2", b"3", b"99999999999")
_WORDS: Final = tuple(
    [name, *more]
    for name in (b"get", b"SET", b"", b"eval", b"xread", b"json.get", b"client", b"zunionstore")
    for more in ([], [b"k"], [b"ID", b"2"], [b"2", b"k", b"l"], [b"COUNT", b"9999999999", b"k"], [b"KEYS", b"-1"] * 9)
)


def _list(parts: list[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(parts), b"".join(parts))


def _map(pairs: dict[bytes, bytes]) -> bytes:
    return _list([part for name, value in pairs.items() for part in (bulk(name), value)])


def _number(rng: random.Random) -> bytes:
    return b":%b\r\n" % rng.choice(_NUMBERS)


def _spec(rng: random.Random) -> bytes:
    """Make a key specification."""
    begin, find = rng.choice((b"index", b"keyword", b"unknown")), rng.choice((b"range", b"keynum", b"unknown"))
    where = {b"index": _number(rng)} if begin == b"index" else {b"keyword": bulk(b"KEYS"), b"startfrom": _number(rng)}
    names = (b"lastkey", b"keystep", b"limit") if find == b"range" else (b"keynumidx", b"firstkey", b"keystep")
    return _map(
        {
            b"flags": _list([b"+%b\r\n" % rng.choice((b"RW", b"RO", b"OW", b"incomplete"))]),
            b"begin_search": _map({b"type": bulk(begin), b"spec": _map(where)}),
            b"find_keys": _map({b"type": bulk(find), b"spec": _map({name: _number(rng) for name in names})}),
        }
    )


def _row(rng: random.Random, depth: int = 0) -> bytes:
    """Make what COMMAND says of one command, in six columns or in ten."""
    flags = [b"+%b\r\n" % flag for flag in rng.sample(_FLAGS, rng.randrange(3))]
    columns = [bulk(rng.choice(_NAMES)), *(_number(rng) for _ in range(4))]
    columns.insert(2, _list(flags))
    if rng.random() < 0.7:
        inner = [_row(rng, depth + 1) for _ in range(rng.randrange(2))] if depth < 2 else []
        specs = [_spec(rng) for _ in range(rng.randrange(3))]
        columns += [_list([b"+@read\r\n"]), _list([]), _list(specs), _list(inner)]
    if rng.random() < 0.05:
        columns[rng.randrange(len(columns))] = random_frame(rng, 2)
    return _list(columns)


def _make_greeting(rng: random.Random) -> bytes:
    rows = _list([_row(rng) for _ in range(rng.randrange(4))])
    return b"".join(
        (_INFO, rows, rng.choice((b":7\r\n", b"-ERR x\r\n")), rng.choice((_CLIENT, b"-ERR y\r\n", b"_\r\n")))
    )


def _greet(data: bytes) -> None:
    """Read what a server answers, as the invalidation link splits it; and find the keys of what clients send."""
    try:
        parts = frames(data)
        found = read_greeting(parts, ("json.get", "get", "nothing"))
    except RemoteError:
        return
    for words in _WORDS:
        spec = found.table.find(words)
        for finder in (spec.keys, spec.every_key):
            if finder is not None:
                expect(all(key in words for key in finder(words)), "a key that nobody sent", words)


GREETING: Final = Target(
    "greeting",
    _greet,
    [greeting, commands],
    [
        *(_make_greeting(random.Random(seed)) for seed in range(8)),
        _INFO + _list([]) + b":7\r\n" + _CLIENT,
        b"-NOPERM x\r\n*0\r\n:7\r\n" + _CLIENT,
    ],
    (
        *TOKENS,
        *(b"+write\r\n", b"+readonly\r\n", b"+movablekeys\r\n", b"+blocking\r\n", b"$5\r\nflags\r\n"),
        *(b"valkey_version:9.1", b"redis_version:", b"7.", b"99999999999", b"\nrun_id:x", b"$3\r\nmsg\r\n", b"\xff"),
        *(b"$10\r\nkey_specs_\r\n", b"$12\r\nbegin_search\r\n", b"$5\r\nindex\r\n", b"$9\r\nfind_keys\r\n"),
        *(b"$5\r\nrange\r\n", b"$7\r\nlastkey\r\n", b"$7\r\nkeystep\r\n", b"$5\r\nlimit\r\n", b"$4\r\nspec\r\n"),
        *(b"$4\r\ntype\r\n", b"$7\r\nkeyword\r\n", b"$6\r\nkeynum\r\n"),
    ),
    _make_greeting,
    max_bytes=1024,
)
