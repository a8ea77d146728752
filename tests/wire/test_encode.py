"""What Respite writes itself is what Redis would have written."""

from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import encode
from proxy.wire.reply import elements, frame_end, text

from ..e2e.servers import Server


def decoded(raw: bytes) -> object:
    """Decode exactly one reply."""
    reader = hiredis.Reader()
    reader.feed(raw)
    value = reader.gets()
    assert reader.gets() is False
    assert len(raw) == frame_end(raw, 0)
    return value


@given(st.lists(st.one_of(st.binary(max_size=50), st.text(max_size=10), st.integers()), min_size=1, max_size=8))
def test_command_any_words_are_an_array_of_bulk_strings(words: list[bytes | str | int]) -> None:
    """Bytes go as they are, text as UTF-8, numbers as digits."""
    expected = [word if isinstance(word, bytes) else str(word).encode() for word in words]

    raw = encode.command(*words)

    assert expected == decoded(raw)
    assert raw == b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in expected)


def test_command_takes_views() -> None:
    """A large word that is a view of what arrived is sent like any other."""
    view = memoryview(bytearray(b"xvaluex"))[1:-1]

    assert encode.command("SET", b"k", view) == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n"


@given(st.binary(max_size=100))
def test_bulk_any_value_comes_back(value: bytes) -> None:
    """`unbulk` and `text` undo `bulk`."""
    raw = encode.bulk(value)

    assert value == encode.unbulk(raw) == text(raw) == decoded(raw)


@pytest.mark.parametrize("value", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_integer_comes_back(value: int) -> None:
    """Every integer of Redis is written in digits."""
    assert value == decoded(encode.integer(value))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (b"0", 0),
        (b"7", 7),
        (b"9" * 18, 10**18 - 1),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"01", None),
        (b" 1", None),
        (b"1\n", None),
        (b"1_0", None),
        (b"1.0", None),
        (b"\xc2\xb2", None),
        (b"9" * 19, None),
        (b"9" * 5000, None),
    ],
)
def test_count_takes_what_redis_takes(word: bytes, expected: int | None) -> None:
    """Digits without a sign, a space or a leading zero, and never an exception: also not for thousands of them."""
    assert expected == encode.count(word)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ERR no", b"-ERR no\r\n"),
        ("ERR two\r\nlines\n", b"-ERR two  lines \r\n"),
        ("ERR got '\udcff'", b"-ERR got '\xff'\r\n"),
        ("ERR caf\u00e9", b"-ERR caf\xc3\xa9\r\n"),
    ],
)
def test_error_is_one_line(said: str, expected: bytes) -> None:
    """Line breaks cannot end an error early, and a byte of a client that is no UTF-8 comes back as that byte."""
    assert expected == encode.error(said)


def test_array_of_frames_keeps_them_as_they_are() -> None:
    """Frames go into an array untouched, from a list or a generator."""
    frames = [b"+OK\r\n", encode.bulk(b"a"), encode.array([]), encode.NIL[3]]

    assert frames == elements(encode.array(frames)) == elements(encode.array(frame for frame in frames))
    assert encode.array([]) == b"*0\r\n"


def test_strings_are_an_array_of_bulk_strings() -> None:
    """Text and bytes alike."""
    assert encode.strings(["a", b"\xff", "\u00e9"]) == b"*3\r\n$1\r\na\r\n$1\r\n\xff\r\n$2\r\n\xc3\xa9\r\n"


@pytest.mark.parametrize("protocol", [2, 3])
def test_nil_and_text_for_people_are_those_of_the_server(server: Server, protocol: int) -> None:
    """A missing value, and a text like that of INFO, have the form that the server gives them in each protocol."""
    with server.connect() as client:
        client.command("HELLO", protocol)
        nil = client.command("GET", "missing")
        info = client.command("INFO", "server")

    assert nil == encode.bulk_or_nil(None, protocol)
    assert encode.bulk(b"x") == encode.bulk_or_nil(b"x", protocol)
    said = text(info).removeprefix(b"txt:").decode()
    assert info == encode.verbatim(said, protocol)


def test_constants_are_those_of_the_server(server: Server) -> None:
    """OK, PONG and RESET, byte for byte."""
    with server.connect() as client:
        for words, expected in (
            (("SELECT", 0), encode.OK),
            (("PING",), encode.PONG),
            (("RESET",), encode.RESET),
        ):
            assert expected == client.command(*words)
