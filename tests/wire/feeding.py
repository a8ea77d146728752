"""Feed request bytes in pieces, the way a client connection does, and note what was read from them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import attrs

from proxy.errors import ProtocolError
from proxy.wire.request import Assembler, Limits, Request, RequestParser


@attrs.frozen
class Reading:
    """What was read: the words of every request, the bytes to forward, and how it ended.

    `error` is "" when nothing was wrong; `held_bytes` is what waits for more, and 0 after an error.
    """

    requests: tuple[tuple[bytes, ...], ...]
    raw: bytes
    error: str = ""
    held_bytes: int = 0


def _reading(requests: list[Request], error: str, held_bytes: int) -> Reading:
    words = tuple(tuple(bytes(word) for word in args) for args, _ in requests)
    return Reading(words, b"".join(bytes(raw) for _, raw in requests), error, 0 if error else held_bytes)


def assemble(pieces: Iterable[bytes], limits: Limits | None = None, *, authenticated: bool = True) -> Reading:
    """Read with an Assembler alone."""
    assembler = Assembler(limits or Limits(), authenticated=authenticated)
    requests: list[Request] = []
    try:
        for piece in pieces:
            assembler.feed(piece)
            while (request := assembler.next()) is not None:
                requests.append(request)
    except ProtocolError as refused:
        return _reading(requests, str(refused), 0)
    return _reading(requests, "", assembler.held_bytes)


def read(pieces: Iterable[bytes], parser: RequestParser | None = None) -> Reading:
    """Read with the parser, and with an Assembler whatever the parser leaves, until that has nothing left."""
    parser = parser or RequestParser()
    assembler: Assembler | None = None
    requests: list[Request] = []
    try:
        for piece in pieces:
            rest = piece
            if assembler is None:
                rest = piece[parser.parse(piece, requests) :]
                if not rest:
                    continue
                assembler = Assembler(Limits())
            assembler.feed(rest)
            while (request := assembler.next()) is not None:
                requests.append(request)
            if not assembler.held_bytes:
                assembler = None
    except ProtocolError as refused:
        return _reading(requests, str(refused), 0)
    return _reading(requests, "", assembler.held_bytes if assembler is not None else 0)


def singly(data: bytes) -> list[bytes]:
    """Cut into single bytes."""
    return [data[at : at + 1] for at in range(len(data))]


def every_split(data: bytes) -> Iterator[list[bytes]]:
    """Cut in two, at every place."""
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut into pieces of random sizes."""
    pieces = []
    at = 0
    while at < len(data):
        size = rng.choice((1, 1, 2, 3, 5, 8, 13, 50, 1000))
        pieces.append(data[at : at + size])
        at += size
    return pieces
