"""Lua that opens envelopes inside Redis: the same values as our own opening, and nothing made of what is none."""

from __future__ import annotations

import random

import lz4.block
import pytest

from proxy.errors import CROWDED
from proxy.values.compression import compressor
from proxy.values.envelope import HAS_ZSTD, Codec, wrap
from proxy.values.opening import MOST_BYTES, open_in_place, run_plain

from ..e2e.raw import RawClient

LENGTHS = (1, 2, 14, 15, 16, 18, 19, 20, 127, 128, 255, 269, 270, 271, 525, 4095, 4096, 4097, 4111, 16_383, 16_384)
TEXT = b'{"id": 7, "name": "a name that comes again", "other": "a name that comes again"}' * 9


def ask(client: RawClient, raw: bytes) -> bytes:
    """Send a command of ours."""
    client.send(raw)
    return client.frame()


def packed(value: bytes, version: int = 5) -> bytes:
    """Wrap a value, compressed."""
    return wrap(value, version, codec=Codec.LZ4, body=lz4.block.compress(value, store_size=False))


def bulk_of(reply: bytes) -> bytes:
    """Return what a bulk reply holds."""
    return reply[reply.index(b"\n") + 1 : -2]


@pytest.mark.parametrize("length", [*LENGTHS, MOST_BYTES])
def test_open_in_place_gives_the_value_whatever_it_is_made_of(client: RawClient, length: int) -> None:
    """Runs, noise, words that come again, near and far; the key lives as long as before."""
    rng = random.Random(length)
    far = rng.randbytes(max(length // 2, 1))
    for value in (
        b"a" * length,
        rng.randbytes(length),
        (b"abcdefgh" * length)[:length],
        bytes(rng.choices(b"ab", k=length)),
        (far + far)[:length],
        (TEXT * (length // len(TEXT) + 1))[:length],
    ):
        for stored in (packed(value), packed(value, 0), wrap(value, 7), wrap(value, 0)):
            client.command("SET", "k", stored, "PX", 100_000)
            assert ask(client, open_in_place([b"k"])) == b":0\r\n"
            assert bulk_of(client.command("GET", "k")) == value
            assert int(client.command("PTTL", "k")[1:]) > 90_000


def test_open_in_place_of_the_empty_value(client: RawClient) -> None:
    """It has no body."""
    client.command("SET", "k", wrap(b"", 7))
    assert ask(client, open_in_place([b"k"])) == b":0\r\n"
    assert client.command("GET", "k") == b"$0\r\n\r\n"


def test_open_in_place_leaves_what_is_no_envelope(client: RawClient) -> None:
    """Plain values, other types, no key."""
    client.command("FLUSHALL")
    client.command("SET", "plain", "x")
    client.command("RPUSH", "list", "x")

    assert ask(client, open_in_place([b"plain", b"list", b"none"])) == b":0\r\n"
    assert client.command("GET", "plain") == b"$1\r\nx\r\n"
    assert client.command("DBSIZE") == b":2\r\n"


def test_open_in_place_leaves_what_it_cannot_open_and_says_how_many(client: RawClient) -> None:
    """A dictionary, another codec, too large; beside one that it can."""
    dictionary = TEXT[:100]
    body = compressor(Codec.LZ4, dictionary)(TEXT)
    stored = {
        b"dictionary": wrap(TEXT, 5, codec=Codec.LZ4, body=body, dictionary=3),
        b"large": packed(b"x" * (MOST_BYTES + 1)),
        b"zstd": wrap(TEXT, 5, codec=Codec.ZSTD, body=compressor(Codec.ZSTD)(TEXT) if HAS_ZSTD else b"x"),
    }
    for key, value in (*stored.items(), (b"fine", packed(TEXT))):
        client.command("SET", key, value)

    assert ask(client, open_in_place([*stored, b"fine"])) == b":3\r\n"
    assert [bulk_of(client.command("GET", key)) for key in (*stored, b"fine")] == [*stored.values(), TEXT]


def test_open_in_place_of_damaged_bytes_ends_and_leaves_them_or_a_value_as_long_as_it_says(client: RawClient) -> None:
    """No error reaches the queue of a client, no loop has no end."""
    rng = random.Random(7)
    refused = 0
    for _ in range(1500):
        stored = bytearray(packed(TEXT))
        for _ in range(rng.randrange(1, 4)):
            stored[rng.randrange(4, len(stored))] = rng.randrange(256)
        if rng.random() < 0.3:
            del stored[rng.randrange(4, len(stored)) :]
        client.command("SET", "k", bytes(stored))
        left = ask(client, open_in_place([b"k"]))
        if left == b":1\r\n":
            assert bulk_of(client.command("GET", "k")) == bytes(stored)
            refused += 1
        else:
            assert left == b":0\r\n"
    assert 200 < refused < 1400


@pytest.mark.parametrize(
    "words",
    [
        *(("STRLEN", "k"), ("GETRANGE", "k", "3", "9"), ("APPEND", "k", "more"), ("SETRANGE", "k", "5", "\r\n")),
        *(("GETBIT", "k", "9"), ("SETBIT", "k", "9", "1"), ("BITCOUNT", "k"), ("BITPOS", "k", "1", "x")),
        ("BITFIELD", "k", "OVERFLOW", "FAIL", "INCRBY", "u2", "0", "9", "GET", "u4", "8"),
        *(("LCS", "k", "l"), ("LCS", "k", "l", "LEN"), ("LCS", "k", "l", "IDX"), ("LCS", "k", "list")),
        *(("BITOP", "NOT", "k", "l"), ("SETRANGE", "list", "0", "x"), ("APPEND", "list", "x"), ("PFCOUNT", "k")),
    ],
)
@pytest.mark.parametrize("protocol", [2, 3])
def test_run_plain_answers_as_the_command_on_a_plain_value(
    client: RawClient, words: tuple[str, ...], protocol: int
) -> None:
    """Frame by frame, errors of the command and nulls inside a list among them, and does the same to the keys."""
    client.command("HELLO", str(protocol))
    seen = []
    for is_wrapped in (False, True):
        client.command("FLUSHALL")
        for key, value in (("k", TEXT), ("l", b"a name that is another")):
            client.command("SET", key, packed(value) if is_wrapped else value)
        client.command("RPUSH", "list", "x")
        raw = run_plain([b"k", b"l"], [word.encode() for word in words], protocol)
        reply = ask(client, raw) if is_wrapped else client.command(*words)
        seen.append((reply, client.command("GET", "k"), client.command("GET", "l")))
    client.command("HELLO", "2")

    assert seen[0][1:] == seen[1][1:]
    (direct, *_), (ours, *_) = seen
    assert direct == ours or (direct[:1] == ours[:1] == b"%" and sorted(direct) == sorted(ours))  # a map has no order


def test_run_plain_runs_nothing_where_it_cannot_open(client: RawClient) -> None:
    """The value stays as it is: who asked looks again."""
    stored = packed(b"x" * (MOST_BYTES + 1))
    client.command("SET", "k", stored)

    assert ask(client, run_plain([b"k"], [b"APPEND", b"k", b"y"], 2)) == CROWDED
    assert bulk_of(client.command("GET", "k")) == stored
