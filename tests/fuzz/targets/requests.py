"""Requests of clients: the fast parser, the walk and the Assembler read one thing, however it is cut.

What must hold: what goes on to a link that others share is an array of bulk strings and nothing else; no reader takes
more, less or other words than the exact one; only ProtocolError comes out, with the same words wherever chunks end.
"""

from __future__ import annotations

import random
from typing import Final

from proxy.wire import request
from proxy.wire.encode import command
from proxy.wire.request import Limits, Request, RequestParser, walk

from ...wire.feeding import Reading, assemble, cut, every_split, read
from ..target import Target, cuts, dice, expect

TOKENS: Final = (
    *(b"*1\r\n", b"*2\r\n", b"*3\r\n", b"*0\r\n", b"*-1\r\n", b"*12\r\n", b"*100\r\n", b"*99999\r\n", b"*01\r\n"),
    *(b"*1000000000\r\n", b"*4194305\r\n", b"$4\r\n", b"$0\r\n", b"$1\r\n", b"$-1\r\n", b"$04\r\n", b"$", b"*"),
    *(b"$536870913\r\n", b"PING\r\n", b"PING", b"GET\r\n", b"a\r\n", b"\r\n", b"\n", b"\r", b"\0", b" ", b"'", b'"'),
    *(b"\\x41", b"\\n", b"\\", b":1\r\n", b"+OK\r\n", b"-ERR\r\n", b"=4\r\n", b"_\r\n", b"#f\r\n", b",1.5\r\n"),
    *(b"(12\r\n", b"~1\r\n", b">1\r\n", b"%1\r\n", b"|1\r\n", b"~99999\r\n", b">12345\r\n", b"|", b"!3\r\n", b"\v"),
    *(command("PING"), command("SET", "k", b"\r\n*1\r\n$4\r\nPING\r\n"), b"ECHO 'a b' \"\\x41\"\r\n", b"GET k\n"),
)
_SEEDS: Final = (
    command("GET", "k"),
    command("SET", "k", "v") + b"PING\r\n" + command("MGET", *range(12)),
    command("PING") * 30,
    b"set 'a b' \"c\\x41\\n\"\r\n\r\nget k\n",
)
_TIGHT: Final = Limits(bulk_bytes=64, request_bytes=200)
_PARSER: Final = RequestParser()
_SPLIT_BELOW: Final = 20
_TIGHT_SHARE: Final = 0.3


def _make(rng: random.Random) -> bytes:
    words = [bytes(rng.choices(b"\r\n*$0123 ab\0\xff", k=rng.randrange(9))) for _ in range(rng.randrange(1, 8))]
    return command(*words) + rng.choice(TOKENS)


def _expect_forwardable(reading: Reading) -> None:
    expect(b"".join(command(*words) for words in reading.requests) == reading.raw, "other bytes are forwarded", reading)
    expect(all(reading.requests), "a request without words", reading)


def _run(data: bytes) -> None:
    expected = assemble([data])
    _expect_forwardable(expected)
    expect(read([data], _PARSER) == expected, "the parser reads something else", expected)
    for pieces in cuts(data):
        expect(read(pieces, _PARSER) == expected, "cut in pieces, the parser reads something else", expected, pieces)
        expect(assemble(pieces) == expected, "cut in pieces, something else is read", expected, pieces)
    if len(data) < _SPLIT_BELOW:
        for halves in every_split(data):
            expect(read(halves, _PARSER) == expected, "split, the parser reads something else", expected, halves)
    walked: list[Request] = []
    taken = walk(data, walked)
    expect(b"".join(bytes(raw) for _, raw in walked) == data[:taken], "the walk forwards other bytes", walked)
    words = tuple(tuple(args) for args, _ in walked)
    expect(words == expected.requests[: len(words)], "the walk reads something else", words, expected)
    pieces = cut(data, dice(data))
    for authenticated in (True, False) if dice(data).random() < _TIGHT_SHARE else ():
        tight = assemble([data], _TIGHT, authenticated=authenticated)
        _expect_forwardable(tight)
        expect(tight.requests == expected.requests[: len(tight.requests)], "limits change what is read", tight)
        expect(
            tight == assemble(pieces, _TIGHT, authenticated=authenticated), "limits go by how it is cut", tight, pieces
        )


REQUESTS: Final = Target("requests", _run, [request], _SEEDS, TOKENS, _make)
