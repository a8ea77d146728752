"""Globs decide as real servers do: the same keys, for thousands of globs made to be awkward."""

from __future__ import annotations

import platform
import random
from collections.abc import Iterator

import pytest

from proxy.values.globs import compile_glob

from ..e2e.raw import RawClient
from ..e2e.servers import REQUIRED_KINDS, Server, find_kind

# What globs are made of, awkward pieces far more often than in life; what keys are made of lies within their reach.
PIECES = (
    *(b"*", b"*", b"**", b"?", b"[", b"]", b"[^", b"^", b"\\", b"-", b"!", b"[a-c]", b"[^b]", b"[]", b"[^]", b"[c-a]"),
    *(b"[a-]", b"[-a]", b"[\\]]", b"[\\-a]", b"[a\\-c]", b"[\\", b"[a-\\]", b"[^a-", b"[ab]", b"[^\x00]", b"[\x01-a]"),
    *(
        b"[\x80-\xff]",
        b"[\xff-\xc3]",
        b"\xc3\xa9",
        b"\xff",
        b"\x00",
        b"\n",
        b"a",
        b"a",
        b"b",
        b"c",
        b"ab",
        b"\\*",
        b"\\a",
    ),
)
# From ASCII to beyond, a server goes by whether its `char` is signed: it is where we say so.
MIXED_RANGES = (b"[\x00-\xff]", b"[\xff-\x00]", b"[b-\xc3]") if platform.machine() in {"x86_64", "AMD64"} else ()
LETTERS = b"aaabbbccc*?[]^\\-!\x00\n\x7f\x80\xc3\xa9\xff"
CURSOR_ZERO = b"*2\r\n$1\r\n0\r\n"
PREFIX = b"user:{1}."


def random_glob(rng: random.Random) -> bytes:
    """Make a glob of up to six pieces, some behind a prefix that keys have too."""
    glob = b"".join(rng.choices(PIECES + MIXED_RANGES, k=rng.randrange(7)))
    return PREFIX + glob if rng.random() < 0.1 else glob


def random_keys(rng: random.Random) -> list[bytes]:
    """Make different keys: the empty one, every single byte, and short ones of letters that globs speak of."""
    keys = {b"", *(bytes([byte]) for byte in range(256))}
    while len(keys) < 700:
        key = bytes(rng.choices(LETTERS, k=rng.randrange(1, 7)))
        keys.add(PREFIX + key if rng.random() < 0.1 else key)
    return sorted(keys)


@pytest.fixture(scope="module", params=REQUIRED_KINDS)
def client(request: pytest.FixtureRequest) -> Iterator[RawClient]:
    """Connect to a server of its own, of each kind."""
    with Server(find_kind(request.param)) as server, server.connect() as connection:
        yield connection


def listed(frame: bytes) -> set[bytes]:
    """Return the bulk strings of a flat array, which may hold line ends themselves."""
    assert frame[:1] == b"*", frame
    found = set()
    at = frame.index(b"\r\n") + 2
    while at < len(frame):
        begin = frame.index(b"\r\n", at) + 2
        end = begin + int(frame[at + 1 : begin - 2])
        found.add(frame[begin:end])
        at = end + 2
    return found


@pytest.mark.long("valkey9")
def test_glob_random_ones_take_the_keys_that_a_server_lists(client: RawClient) -> None:
    """For 4,000 globs and 700 keys, what KEYS lists and what the glob takes is the same."""
    rng = random.Random(3)
    keys = random_keys(rng)
    assert client.command("MSET", *(word for key in keys for word in (key, b""))) == b"+OK\r\n"
    globs = [random_glob(rng) for _ in range(4000)]
    sizes = []

    for glob in globs:
        expected = listed(client.command("KEYS", glob))
        compiled = compile_glob(glob)
        actual = {key for key in keys if compiled.matches(key)}

        sizes.append(len(expected))
        assert expected == actual, f"{glob!r}: {sorted(expected ^ actual)[:5]}"
    # Neither all nor nothing: the globs do tell keys apart.
    assert sum(0 < size < len(keys) for size in sizes) > 2000


def test_glob_scan_match_lists_the_same(client: RawClient) -> None:
    """SCAN MATCH, which a sweep would use, goes by the same globs."""
    rng = random.Random(4)
    keys = random_keys(rng)
    assert client.command("FLUSHALL") == b"+OK\r\n"
    assert client.command("MSET", *(word for key in keys for word in (key, b""))) == b"+OK\r\n"

    for glob in (random_glob(rng) for _ in range(500)):
        # A COUNT beyond the number of keys visits all of them in one go: the cursor that comes first is 0.
        frame = client.command("SCAN", 0, "MATCH", glob, "COUNT", 100_000)
        assert frame.startswith(CURSOR_ZERO), glob
        compiled = compile_glob(glob)
        assert listed(frame.removeprefix(CURSOR_ZERO)) == {key for key in keys if compiled.matches(key)}, glob
