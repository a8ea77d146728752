"""From the bytes of a body to JSON."""

from __future__ import annotations

import gzip
import zlib

import pytest

from proxy.events.payload import BODY_MAX_BYTES, VALUES_MAX, read_json, unpack


@pytest.mark.parametrize(
    ("body", "value"),
    [(b'{"a": [1, "\xc3\xa4"]}', {"a": [1, "ä"]}), (b"\xef\xbb\xbf{}", {}), (b" 7 ", 7), (b'"\\ud800"', "\ud800")],
)
def test_read_json_reads_utf8(body: bytes, value: object) -> None:
    """JSON of any kind is read, with the mark some editors put in front or without."""
    assert read_json(body) == value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "there is no body"),
        (b"{", "no JSON .*line 1 column 2"),
        (b'{"a": "\xff"}', "no UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "no UTF-8"),
        (b'{"v": NaN}', "NaN is no number"),
        (b'{"v": -Infinity}', "-Infinity is no number"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b"9" * 10_000, "thousands of digits"),
        (b'{"x": {"keys": ["a"], "keys": ["b"]}}', "names 'keys' twice"),
        (b"[" + b"[]," * (VALUES_MAX // 2) + b"1]", "more than 500000 values"),
    ],
)
def test_read_json_of_what_each_reads_differently_says_why(body: bytes, words: str) -> None:
    """What is no JSON, or means something else to another reader, is refused with the place."""
    with pytest.raises(ValueError, match=words):
        read_json(body)


def test_read_json_of_a_long_text_is_read() -> None:
    """Not bytes are counted, but what takes time to read."""
    assert len(str(read_json(b'"%b"' % (b"x" * 4 * VALUES_MAX)))) == 4 * VALUES_MAX


@pytest.mark.parametrize("encoding", ["", "identity", "UTF-8", "binary"])
def test_unpack_of_what_is_not_packed_is_the_body(encoding: str) -> None:
    """Libraries that name the charset where the packing belongs are understood."""
    assert unpack(b"{}", encoding) == b"{}"


@pytest.mark.parametrize(
    "body", [gzip.compress(b"{} ", mtime=0), gzip.compress(b"{", mtime=0) + gzip.compress(b"} ", mtime=0)]
)
@pytest.mark.parametrize("encoding", ["gzip", "GZip", "x-gzip"])
def test_unpack_gzip_is_what_was_packed(body: bytes, encoding: str) -> None:
    """A packed body is read, in one part or several."""
    assert unpack(body, encoding) == b"{} "


@pytest.mark.parametrize(
    ("body", "encoding", "words"),
    [
        (b"{}", "br", "packed as 'br'"),
        (b"{}", "gzip", "no gzip"),
        (zlib.compress(b"{}"), "gzip", "no gzip"),
        (gzip.compress(b"{}", mtime=0)[:-1], "gzip", "ends too early"),
        (gzip.compress(b"{}", mtime=0) + b"rest", "gzip", "no gzip"),
        (gzip.compress(b"", mtime=0) * 65, "gzip", "gzip members"),
        (gzip.compress(bytes(BODY_MAX_BYTES + 1), mtime=0), "gzip", "more than 16 MiB"),
        (gzip.compress(bytes(BODY_MAX_BYTES), mtime=0) + gzip.compress(b"1", mtime=0), "gzip", "more than 16 MiB"),
        (bytes(BODY_MAX_BYTES + 1), "", "more than 16 MiB"),
    ],
)
def test_unpack_of_what_it_says_it_is_not_says_why(body: bytes, encoding: str, words: str) -> None:
    """Packing that is unknown, broken, or swells beyond the bound is refused."""
    with pytest.raises(ValueError, match=words):
        unpack(body, encoding)


def test_unpack_gzip_of_just_the_bound_is_read() -> None:
    """The bound itself is allowed."""
    assert len(unpack(gzip.compress(bytes(BODY_MAX_BYTES), mtime=0), "gzip")) == BODY_MAX_BYTES
