"""Requests are read as Redis reads them, however they are cut, and never at the price of memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from proxy.errors import ProtocolError
from proxy.wire.commands import CommandTable
from proxy.wire.request import LARGE_BYTES, Assembler, Limits, Request, RequestParser, split_inline

from ..e2e.raw import encode
from .feeding import Reading, assemble, every_split, read, singly

PIPELINE = b"".join(
    [
        encode("PING"),
        encode("SET", "key", b"a\r\n*1\r\n$4\r\nPING\r\n"),
        b"  ECHO 'in line'  \r\n",
        encode("MGET", *range(12)),
        b"*0\r\n*-1\r\n\r\n",
        encode("SET", "", ""),
        b"GET x\n",
    ]
)
PIPELINE_WORDS = (
    (b"PING",),
    (b"SET", b"key", b"a\r\n*1\r\n$4\r\nPING\r\n"),
    (b"ECHO", b"in line"),
    (b"MGET", *(b"%d" % n for n in range(12))),
    (b"SET", b"", b""),
    (b"GET", b"x"),
)
HUGE_HEADS = (
    b"*1000000000\r\n",
    b"*10000000\r\n",
    b"~10000000\r\n",
    b">10000000\r\n",
    b"%10000000\r\n",
    b"|10000000\r\n",
    b"$1000000000\r\n",
)


def peak_of(action: Callable[[], object]) -> int:
    """Measure how many bytes an action holds at its height, above what was held before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = action()
        peak = tracemalloc.get_traced_memory()[1] - before
        del result
        return peak
    finally:
        tracemalloc.stop()


def expected_reading() -> Reading:
    """Say what the pipeline holds; whatever form a command came in, an array of bulk strings is forwarded."""
    return Reading(PIPELINE_WORDS, b"".join(encode(*words) for words in PIPELINE_WORDS))


@pytest.mark.parametrize("how", [assemble, read])
def test_request_whole_chunk_gives_every_command(how: Callable[[list[bytes]], Reading]) -> None:
    """A chunk with every form of command gives each of them, and canonical bytes to forward."""
    assert expected_reading() == how([PIPELINE])


@pytest.mark.parametrize("how", [assemble, read])
def test_request_byte_by_byte_gives_the_same(how: Callable[[list[bytes]], Reading]) -> None:
    """Single bytes give what the whole gives."""
    assert expected_reading() == how(singly(PIPELINE))


@pytest.mark.parametrize("how", [assemble, read])
def test_request_every_split_gives_the_same(how: Callable[[list[bytes]], Reading]) -> None:
    """Wherever a chunk ends, the same commands are read."""
    for pieces in every_split(PIPELINE):
        assert expected_reading() == how(pieces), pieces[0]


def test_parser_canonical_commands_are_taken_whole() -> None:
    """Arrays of bulk strings need no Assembler, whatever their words hold, in short chunks and in long ones."""
    for data in (
        encode("SET", "k", b"\r\n\0\xff*99\r\n<td>2024</td>~1|") + encode("GET", "k") + encode(*range(99)),
        encode("SET", "k", "x" * 5000) * 3,
        encode("GET", "k") * 300,
    ):
        requests: list[Request] = []

        taken = RequestParser().parse(data, requests)

        assert len(data) == taken
        assert data == b"".join(bytes(raw) for _, raw in requests)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"PING\r\n", 0),
        (b"*0\r\n", 0),
        (b"*-1\r\n", 0),
        (b"*1\r\n$4\r\nPING\r", 0),
        (b"*1\r\n$4\r\nPING\r\nPING\r\n", 14),
        (b"*1\r\n$4\r\nPING\r\n*0\r\n*1\r\n$4\r\nPING\r\n", 14),
        (b"*1\r\n$4\r\nPINGxx", 0),
        (b"*1\r\n$04\r\nPING\r\n", 0),
        (b"*01\r\n$4\r\nPING\r\n", 0),
        (b"*2\r\n$4\r\nPING\r\n:1\r\n", 0),
        (b"*2\r\n$4\r\nPING\r\n+a\r\n", 0),
        (b"*2\r\n$4\r\nPING\r\n$-1\r\n", 0),
        (b"*2\r\n$4\r\nPING\r\n_\r\n", 0),
        (b"*2\r\n$4\r\nPING\r\n=5\r\ntxt:a\r\n", 0),
        (b"*2\r\n$4\r\nPING\r\n*1\r\n$1\r\na\r\n", 0),
        (b"~1\r\n$4\r\nPING\r\n", 0),
        (b">1\r\n$4\r\nPING\r\n", 0),
        (b"%1\r\n$4\r\nPING\r\n$1\r\na\r\n", 0),
        (b"|1\r\n$1\r\na\r\n$1\r\nb\r\n*1\r\n$4\r\nPING\r\n", 0),
        (b"#f\r\n*1\r\n$4\r\nPING\r\n", 0),
        (b"*1\r\n$4\r\nPING\r\n#f\r\n*1\r\n$4\r\nPING\r\n", 14),
        (b"*1\r\n$4\r\nPING\r\n-ERR x\r\n", 14),
        # Lengths that make up for each other: the whole has the right size, each part the wrong one.
        (b"*2\r\n$4\r\nPING\r\n:12345\r\n*1\r\n$10\r\n", 0),
        (b"*2\r\n$4\r\nPING\r\n+$1\r\n*1\r\n$4\r\nPING\r\n", 0),
    ],
)
def test_parser_stops_at_what_is_not_canonical(data: bytes, expected: int) -> None:
    """Only an array of bulk strings, byte for byte, may go on a link that others share."""
    requests: list[Request] = []

    taken = RequestParser().parse(data, requests)

    assert expected == taken
    assert data[:taken] == b"".join(bytes(raw) for _, raw in requests)
    assert all(args for args, _ in requests)
    large = encode("SET", "k", "x" * 5000)  # the same bytes, behind so many that the careful way is taken
    assert len(large) + expected == RequestParser().parse(large + data, [])


def test_parser_after_garbage_starts_afresh() -> None:
    """What one client sent leaves nothing behind in the parser that serves the next."""
    parser = RequestParser()
    half = b"*2\r\n$4\r\nPING\r\n"
    for garbage in (half, b"*1\r\n$4\r\nPI", b"garbage\r\n", b":5\r\n" + half, b"#f\r\n" + half, b"*5\r\n*1\r\n"):
        assert len(encode("GET", "k")) * 2 > parser.parse(garbage, [])
        requests: list[Request] = []
        assert len(encode("GET", "k")) == parser.parse(encode("GET", "k"), requests)
        assert [([b"GET", b"k"], encode("GET", "k"))] == requests


@pytest.mark.parametrize("head", HUGE_HEADS)
@pytest.mark.parametrize(
    "before",
    [b"", b"*1\r\n", b"*2\r\n$4\r\nPING\r\n", b"*2\r\n$1\r\naXX", encode("PING"), encode("SET", "k", "x" * 5000)],
)
def test_request_huge_announcement_takes_no_memory(before: bytes, head: bytes) -> None:
    """A head may announce what it likes, alone or inside a command: memory is taken as bytes arrive."""
    data = before + head
    for way in (assemble, read):
        assert peak_of(lambda way=way: way([data])) < 300_000, way  # type: ignore[misc]


def test_assembler_many_words_announced_hold_only_what_came() -> None:
    """A command that announces a million words holds those that have arrived."""
    pieces = [b"*1000000\r\n", b"$1\r\na\r\n" * 10]

    assert peak_of(lambda: assemble(pieces)) < 10_000


def test_assembler_large_value_is_held_once() -> None:
    """A value of 32 MiB that arrives in pieces is held once: its word and its request are views of what arrived."""
    size = 32 * 1024 * 1024
    chunk = b"v" * 65536
    assembler = Assembler(Limits())

    def arrive() -> Request:
        assembler.feed(b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % size)
        for _ in range(size // len(chunk)):
            assembler.feed(chunk)
            assert assembler.next() is None
        assembler.feed(b"\r\n$2\r\nEX\r\n$2\r\n10\r\n")
        request = assembler.next()
        assert request is not None
        assert size == len(request[0][2])
        return request

    assert peak_of(arrive) < size * 1.25


def test_assembler_words_behind_a_large_one_may_come_later() -> None:
    """A large value does not keep the rest of its command from arriving, and it is whole in the end."""
    value = bytes(range(256)) * (LARGE_BYTES // 256 + 1)
    data = encode("SET", "k", value, "EX", "10", value, "x") + encode("PING")
    expected = assemble([data])
    assert (b"SET", b"k", value, b"EX", b"10", value, b"x") == expected.requests[0]

    for step in (1000, 4096, 65536, len(value) + 30):
        assert expected == assemble([data[at : at + step] for at in range(0, len(data), step)])


def test_assembler_large_request_is_a_view_and_stays_as_it_was() -> None:
    """The bytes of a large request are not changed by what is read after it."""
    value = b"v" * (LARGE_BYTES + 1)
    assembler = Assembler(Limits())
    assembler.feed(encode("SET", "k", value) + b"*1\r\n$4\r\nPI")
    request = assembler.next()
    assert request is not None

    assembler.feed(b"NG\r\n" + encode("SET", "k", b"w" * (LARGE_BYTES + 1)))

    assert assembler.next() == ([b"PING"], encode("PING"))
    assert assembler.next() is not None
    args, raw = request
    assert isinstance(raw, memoryview)
    assert encode("SET", "k", value) == raw
    assert [b"SET", b"k", value] == args


def test_assembler_large_command_name_can_be_looked_up() -> None:
    """A name of a hundred kilobytes is a command nobody knows, like any other."""
    data = encode("x" * 100_000, "y" * 100_000)
    assembler = Assembler(Limits())
    assembler.feed(data)

    request = assembler.next()

    assert request is not None
    assert isinstance(request[0][0], bytes)
    assert hash(request[0][0])
    assert CommandTable.builtin().find(request[0]).name == b""


@pytest.mark.parametrize(
    "piece", [b"NG\r\nPI", b"0\r\n*", b"\n\r", b"1\r\n$4\r\nPING\r\n*", b"x" * 50_000 + b"\n", b"1\r\n\r\nPING\r\n*"]
)
def test_assembler_that_always_holds_a_bit_does_not_grow(piece: bytes) -> None:
    """A client whose chunks always end inside a command costs no more after 400 kilobytes of them."""
    assembler = Assembler(Limits())
    chunk = piece * (50_000 // len(piece))

    def arrive() -> None:
        for _ in range(8):
            assembler.feed(chunk)
            try:
                while assembler.next() is not None:
                    pass
            except ProtocolError:
                return

    assert peak_of(arrive) < 250_000


def test_assembler_held_bytes_are_those_of_the_unfinished_command() -> None:
    """What is held is counted from where the unfinished command begins, whatever came before it."""
    assembler = Assembler(Limits())
    for piece, expected in (
        (encode("PING"), 0),
        (b"*0\r\n", 0),
        (b"\r\n", 0),
        (encode("PING") + b"*2\r\n", 4),
        (b"$4\r\nPI", 10),
        (b"NG\r\n$1\r\n", 18),
        (b"x\r\nPI", 2),
        (b"NG\n", 0),
    ):
        assembler.feed(piece)
        while assembler.next() is not None:
            pass
        assert expected == assembler.held_bytes, piece


LIMITS = Limits(bulk_bytes=1000, request_bytes=3000)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"*2\r\n$3\r\nGET\r\n$1000\r\n" + b"x" * 1000 + b"\r\n", ""),
        (b"*2\r\n$3\r\nGET\r\n$1001\r\n", "Protocol error: invalid bulk length"),
        (b"*4\r\n" + (b"$900\r\n" + b"x" * 900 + b"\r\n") * 3 + b"$900\r\n", "Protocol error: request too large"),
        (b"*4194304\r\n", ""),
        (b"*4194305\r\n", "Protocol error: invalid multibulk length"),
        (b"*" + b"1" * 65536, "Protocol error: too big mbulk count string"),
        (b"*" + b"1" * 65535, ""),
        (b"*1\r\n$" + b"1" * 65536, "Protocol error: too big bulk count string"),
        (b"x" * 65537, "Protocol error: too big inline request"),
        (b"x" * 65536, ""),
        (b"x" * 65536 + b"\r\n", ""),
    ],
)
def test_assembler_at_its_limits(data: bytes, expected: str) -> None:
    """The last size inside a limit is read; the first beyond it is refused, before its bytes have come."""
    assert expected == assemble([data], LIMITS).error


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encode(*range(10)), ""),
        (b"*11\r\n", "Protocol error: unauthenticated multibulk length"),
        (encode("AUTH", "x" * 16384), ""),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", "Protocol error: unauthenticated bulk length"),
    ],
)
def test_assembler_before_auth_takes_little(data: bytes, expected: str) -> None:
    """Before AUTH a command has ten words at most, of 16 KiB each; afterwards the usual limits hold."""
    assert expected == assemble([data], authenticated=False).error
    assert assemble([data], authenticated=True).error == ""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", []),
        (b" \t ", []),
        (b"SET k v", [b"SET", b"k", b"v"]),
        (b"  SET\t\tk \v\f v  ", [b"SET", b"k", b"v"]),
        (b"ECHO a\vb\fc", [b"ECHO", b"a\vb\fc"]),
        (b"ECHO \vx\v", [b"ECHO", b"x\v"]),
        (b'ECHO ""', [b"ECHO", b""]),
        (b"ECHO ''", [b"ECHO", b""]),
        (b"ECHO 'a b'", [b"ECHO", b"a b"]),
        (b'ECHO "a b"', [b"ECHO", b"a b"]),
        (b"ECHO 'it\\'s' x", [b"ECHO", b"it's", b"x"]),
        (b"ECHO '\\n\\x41\\\"'", [b"ECHO", b'\\n\\x41\\"']),
        (b'ECHO "\\n\\r\\t\\b\\a\\\\\\"\\q"', [b"ECHO", b'\n\r\t\b\a\\"q']),
        (b'ECHO "\\x41\\xfF\\x4g\\x"', [b"ECHO", b"A\xffx4gx"]),
        (b"ECHO a'b c'", [b"ECHO", b"ab c"]),
        (b'ECHO a"b"\v', [b"ECHO", b"ab"]),
        (b"ECHO a\\n", [b"ECHO", b"a\\n"]),
        (b"ECHO \xff\x80\x01", [b"ECHO", b"\xff\x80\x01"]),
    ],
)
def test_split_inline_words_are_those_of_redis(line: bytes, expected: list[bytes]) -> None:
    """Quotes, escapes and spaces mean what they mean to Redis' sdssplitargs."""
    assert expected == split_inline(line)


@pytest.mark.parametrize(
    "line", [b"'", b'"', b"ECHO 'a", b'ECHO "a', b"ECHO 'a'b", b'ECHO "a"b', b'ECHO "a\\', b'ECHO "a\\"', b"a'b'c"]
)
def test_split_inline_unbalanced_quotes_are_refused(line: bytes) -> None:
    """A quote that is not closed, or closed in the middle of a word, is an error in Redis' words."""
    with pytest.raises(ProtocolError, match=r"^Protocol error: unbalanced quotes in request$"):
        split_inline(line)


def test_assembler_inline_with_a_nul_waits_like_redis() -> None:
    """Redis looks for the end of a line no further than a NUL: such a line is never a command."""
    assert Reading(((b"PING",),), encode("PING"), "", 14) == assemble([b"PING\r\nFLUSHALL\0x\r\nPI"])
    assert assemble([b"a\0\n" + b"x" * 65536]).error == "Protocol error: too big inline request"
