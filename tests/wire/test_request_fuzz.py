"""Any bytes at all: the parser and the Assembler agree, cuts change nothing, and only ProtocolError comes out."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ProtocolError
from proxy.wire.encode import bulk
from proxy.wire.request import Request, RequestParser, is_bulk, split_inline

from ..e2e.raw import encode
from .feeding import Reading, assemble, cut, every_split, read, singly

FRAGMENTS = (
    *(b"*1\r\n", b"*2\r\n", b"*3\r\n", b"*0\r\n", b"*-1\r\n", b"*12\r\n", b"*100\r\n", b"*99999\r\n", b"*01\r\n"),
    *(b"$4\r\n", b"$3\r\n", b"$0\r\n", b"$1\r\n", b"$-1\r\n", b"$04\r\n", b"$", b"*", b"$100000\r\n", b"$10\r\n"),
    *(b"PING\r\n", b"PING", b"GET\r\n", b"a\r\n", b"\r\n", b"\n", b"\r", b"\0", b" ", b"'", b'"', b"\\x41", b"\xff"),
    *(b":1\r\n", b"+OK\r\n", b"-ERR\r\n", b"=4\r\n", b"_\r\n", b"#f\r\n", b"#t\r\n", b",1.5\r\n", b"(12\r\n"),
    *(b"~1\r\n", b">1\r\n", b"%1\r\n", b"|1\r\n", b"~99999\r\n", b">12345\r\n", b"|54321\r\n", b"~", b">", b"|"),
    *(b"*\r\n", b"!3\r\n", b"\v"),
    encode("PING"),
    encode("SET", "k", "v"),
    encode("SET", "", b"\r\n*1\r\n$4\r\nPING\r\n"),
    encode("GET", b"\0\xff"),
    encode(*range(12)),
    b"ECHO 'a b' \"\\x41\"\r\n",
    b"GET k\n",
)

near_resp = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=6)), max_size=12).map(b"".join)
commands = st.lists(
    st.lists(st.binary(max_size=40), min_size=1, max_size=5).map(lambda words: encode(*words)), min_size=1, max_size=6
).map(b"".join)


def expect_forwardable(reading: Reading) -> None:
    """Check that what goes upstream are arrays of bulk strings, of the words that were read, and nothing else."""
    assert b"".join(encode(*words) for words in reading.requests) == reading.raw
    assert all(reading.requests), "a request without words"


def damaged(rng: random.Random) -> bytes:
    """Make a pipeline and damage a few of its bytes, drop some, double some, or cut it short."""
    data = bytearray(b"".join(rng.choice(FRAGMENTS) for _ in range(rng.randrange(1, 10))))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.choice(b"\r\n\0$*:~>%|0123456789-'\"a\xff")
            case 1:
                del data[at]
            case 2:
                data[at:at] = data[at : at + rng.randrange(1, 9)]
            case _:
                del data[at + 1 :]
        if not data:
            data += b"*"
    return bytes(data)


@settings(max_examples=600, deadline=None)
@given(near_resp)
def test_request_any_bytes_parser_and_assembler_agree(data: bytes) -> None:
    """What the fast parser takes and leaves amounts to what the exact reader makes of the same bytes."""
    expected = assemble([data])

    assert expected == read([data])
    expect_forwardable(expected)


@settings(max_examples=300, deadline=None)
@given(near_resp, st.integers(min_value=0))
def test_request_any_bytes_any_cuts_change_nothing(data: bytes, seed: int) -> None:
    """Where chunks end changes neither the commands nor the error."""
    expected = assemble([data])
    pieces = cut(data, random.Random(seed))

    assert expected == read(pieces)
    assert expected == assemble(pieces)
    assert expected == read(singly(data))


@settings(max_examples=60, deadline=None)
@given(near_resp)
def test_request_any_bytes_every_split_changes_nothing(data: bytes) -> None:
    """There is no byte at which a chunk must not end."""
    expected = assemble([data])

    for pieces in every_split(data):
        assert expected == read(pieces)


@settings(max_examples=200, deadline=None)
@given(commands, near_resp)
def test_parser_takes_all_canonical_commands_before_anything_else(good: bytes, rest: bytes) -> None:
    """Whole canonical commands are taken whatever follows them: one bad byte costs nobody the commands before it."""
    requests: list[Request] = []
    count = len(assemble([good]).requests)

    RequestParser().parse(good + rest, requests)

    expected = assemble([good + rest])
    assert expected == read([good + rest])
    assert count <= len(expected.requests)


def test_request_seeded_damage_parser_and_assembler_agree() -> None:
    """Ten thousand damaged pipelines, read by one parser as by all clients, give what the exact reader gives."""
    rng = random.Random(2)
    parser = RequestParser()
    errors = set()
    for _ in range(10_000):
        data = damaged(rng)
        expected = assemble([data])
        errors.add(expected.error.partition(", got")[0])

        assert expected == read([data], parser), data
        assert expected == read(cut(data, rng), parser), data
        expect_forwardable(expected)
    assert {
        "",
        "Protocol error: expected '$'",
        "Protocol error: invalid bulk length",
        "Protocol error: invalid multibulk length",
        "Protocol error: unbalanced quotes in request",
    } == errors


def test_request_seeded_damage_in_long_chunks_parser_and_assembler_agree() -> None:
    """The same behind and before so many good commands that heads are checked one by one."""
    rng = random.Random(3)
    good = encode("SET", "k", "x" * 3000) * 2
    for _ in range(1500):
        data = good + damaged(rng) + good

        assert assemble([data]) == read([data]), data


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=60))
def test_split_inline_any_bytes_gives_words_or_refuses(line: bytes) -> None:
    """A line gives words or the one error; what Redis would quote comes back as it was."""
    try:
        words = split_inline(line)
    except ProtocolError:
        assert b"'" in line or b'"' in line
        return
    quoted = b" ".join(b'"%b"' % b"".join(b"\\x%02x" % byte for byte in word) for word in words)
    assert words == split_inline(quoted)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(bulk), near_resp))
def test_is_bulk_any_bytes_only_one_canonical_bulk_passes(raw: bytes) -> None:
    """Bytes pass if they are what `bulk` writes, and then only."""
    head, _, rest = raw.partition(b"\r\n")
    expected = raw == bulk(rest[:-2]) and head == b"$%d" % (len(rest) - 2)

    assert expected == is_bulk(raw)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (bulk(b""), True),
        (bulk(b"a" * 10), True),
        (bulk(b"a" * 99_999), True),
        (bulk(b"\r\n"), True),
        (b"", False),
        (b"$", False),
        (b"$\r\n\r\n", False),
        (b"$01\r\na\r\n", False),
        (b"$00\r\n\r\n", False),
        (b"$+1\r\na\r\n", False),
        (b"$ 1\r\na\r\n", False),
        (b"$-1\r\n", False),
        (b"$1\r\na\r\n\n", False),
        (b"$1\r\nab\n", False),
        (b"$1\r\na\r", False),
        (b"=1\r\na\r\n", False),
        (b"\xb2\r\na\r\n", False),
        (b"$\xb2\r\naa\r\n", False),
    ],
)
def test_is_bulk_passes_one_canonical_bulk_string(raw: bytes, expected: bool) -> None:
    """No leading zero, no sign, no byte too many or too few."""
    assert expected == is_bulk(raw)
