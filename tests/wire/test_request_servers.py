"""Requests and their errors, compared with real servers: the same bytes, the same words."""

from __future__ import annotations

import random
import socket

import hiredis
import pytest

from proxy.errors import ProtocolError
from proxy.wire.encode import error
from proxy.wire.request import Assembler, Limits, split_inline

from ..e2e.raw import encode
from ..e2e.servers import Server

GARBAGE = (
    *(b"*\r\n", b"*a\r\n", b"*01\r\n", b"*+1\r\n", b"* 1\r\n", b"*1 \r\n", b"*-0\r\n", b"*1\n\r\n", b"*1.0\r\n"),
    *(b"*2147483648\r\n", b"*9223372036854775808\r\n", b"*-9223372036854775808\r\nPING\r\n"),
    *(b"*-1\r\nPING\r\n", b"*-5\r\nPING\r\n", b"*0\r\nPING\r\n", b"\r\n\n\r\nPING\n", b" \t \r\nPING\r\n", b"PING"),
    *(b"*1\r\n$-1\r\n", b"*1\r\n$a\r\n", b"*1\r\n$\r\n", b"*1\r\n$04\r\nPING\r\n", b"*1\r\n$+4\r\nPING\r\n"),
    *(b"*1\r\n$536870913\r\n", b"*1\r\n$536870912\r\n", b"*1\r\n$9223372036854775808\r\n", b"*1\r\n$-2147483648\r\n"),
    *(b"*1\r\n:4\r\n", b"*1\r\n+PING\r\n", b"*1\r\n=4\r\nPING\r\n", b"*1\r\n*1\r\n$4\r\nPING\r\n", b"*1\r\nPING\r\n"),
    *(b"*1\r\n\r\n", b"*1\r\n\n\r\n", b"*1\r\n\r\r\n", b"*1\r\n$4\r\nPINGxx", b"*1\r\n$4\r\nPING\n\r"),
    *(b"'PING\r\n", b'PING"\r\n', b"PING '\\'\r\n", b"PING\r\n'\r\nPING\r\n", b'"PING\\"\r\n'),
    *(b"a" * 65537, b"*" + b"1" * 65536, b"*" + b"1" * 65535, b"*1\r\n$" + b"1" * 65536, b"*1\r\n$" + b"1" * 65535),
    *(b"PING\0\r\n", b"PI\0NG\r\nPING\r\n", b"\0\r\n", b"PING\r\n\0PING\r\n", b"\x16\x03\x01\x02\0\x01\0\r\n\n"),
    b"*1\r\n$4\r\nPING\r\n" * 3 + b"*1\r\n:1\r\n" + b"*1\r\n$4\r\nPING\r\n",
)
VALKEY_DIFFERS = {
    # Redis takes any two bytes for the end of a line, and so do we; Valkey 9 refuses what is not CR LF.
    b"*1\r\n$4\r\nPINGxx": b"-ERR Protocol error: invalid CRLF in request\r\n",
    b"*1\r\n$4\r\nPING\n\r": b"-ERR Protocol error: invalid CRLF in request\r\n",
    # Valkey 9 has a reader of inline words of its own. It takes quotes that Redis calls unbalanced, and loses \xff.
    b"PING '\\'\r\n": b"$1\r\n\\\r\n",
    b'"PING\\"\r\n': b"-ERR unknown command",
}
"""What Valkey 9 answers instead. Whatever is behind us, we follow Redis."""

WORD_BYTES = b"abx0149 \t\v\f\x01'\"\\nrtfq\xff\x80"


def ours(data: bytes) -> bytes:
    """Answer as Redis answers: every command is a PING, then the error."""
    assembler = Assembler(Limits())
    assembler.feed(data)
    replies = b""
    try:
        while (request := assembler.next()) is not None:
            assert request[0] == [b"PING"]
            replies += b"+PONG\r\n"
    except ProtocolError as refused:
        replies += error(f"ERR {refused}")
    return replies


def theirs(server: Server, data: bytes) -> bytes:
    """Send bytes and nothing more; read all that comes until the server closes."""
    with server.connect() as client:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
        return client.until_closed(5)


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:30]))
def test_assembler_garbage_gets_the_words_of_the_server(server: Server, data: bytes) -> None:
    """The same bytes get the same answers and the same error line, byte for byte, or the same silence."""
    expected = theirs(server, data)
    if server.kind.is_valkey and data in VALKEY_DIFFERS:
        assert VALKEY_DIFFERS[data] in expected
        return

    assert expected == ours(data)


def test_assembler_any_byte_instead_of_a_bulk_is_named_as_the_server_names_it(server: Server) -> None:
    """The byte that stands where `$` should is given back as it is: also a line break, and what is no UTF-8."""
    for byte in range(1, 256):
        if byte != 0x24:
            data = b"*1\r\n%b1\r\n" % bytes((byte,))
            assert theirs(server, data) == ours(data), byte


def test_assembler_sizes_between_ours_and_redis_are_refused_by_us_alone(server: Server) -> None:
    """Redis waits for two thousand million words; we refuse more than four million at once."""
    data = b"*2147483647\r\n"

    assert theirs(server, data) == b""
    assert ours(data) == b"-ERR Protocol error: invalid multibulk length\r\n"


def test_split_inline_random_lines_are_split_as_the_server_does(server: Server) -> None:
    """Two thousand random lines of quotes, escapes and odd bytes give the words that the server reads from them."""
    rng = random.Random(4)
    alphabet = bytes(set(WORD_BYTES) - set(b"'\"\xff")) if server.kind.is_valkey else WORD_BYTES
    refused: list[bytes] = []
    for _ in range(2000):
        line = bytes(rng.choice(alphabet) for _ in range(rng.randrange(1, 14)))
        try:
            expected = split_inline(line)
        except ProtocolError:
            refused.append(line)
        else:
            assert [b"first", *expected] == _words_of(server, line), line
    for line in refused[:50]:
        expected_error = b"-ERR Protocol error: unbalanced quotes in request\r\n"
        assert expected_error == theirs(server, b"ECHO " + line + b"\r\n"), line
    assert server.kind.is_valkey or 500 < len(refused) < 1500


def _words_of(server: Server, line: bytes) -> list[bytes]:
    """Let the server read a line behind a first word."""
    with server.connect() as client:
        client.send(b"DEL words\r\nRPUSH words first " + line + b"\r\n" + encode("LRANGE", "words", 0, -1))
        client.frames(2)
        reader = hiredis.Reader()
        reader.feed(client.frame())
        words: list[bytes] = reader.gets()
        return words
