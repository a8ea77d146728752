"""What is compressed already is recognised, held to real files of each format; text never is."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib

import lz4.frame
import pytest
import zstandard

from proxy.values.formats import is_compressed

TEXT = b"some text that is long enough to be worth it" * 50


def zipped() -> bytes:
    """Make a zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", TEXT)
    return file.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        gzip.compress(TEXT, mtime=0),
        *(zlib.compress(TEXT, level) for level in (1, 6, 9)),
        bz2.compress(TEXT),
        lzma.compress(TEXT),
        zstandard.compress(TEXT),
        lz4.frame.compress(TEXT),
        zipped(),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"\xff\xd8\xff\xe0\0\x10JFIF",
        b"GIF89a\1\0\1\0",
        b"RIFF\x24\x10\0\0WEBPVP8 ",
        b"\0\0\0\x1cftypavif",
        b"\x1a\x45\xdf\xa3\x9f",
        b"7z\xbc\xaf\x27\x1c\0\4",
        b"wOF2\0\1\0\0",
        b"OggS\0\2",
    ],
    ids=lambda value: repr(value[:8]),
)
def test_is_compressed_takes_each_format(value: bytes) -> None:
    """By its first bytes alone."""
    assert is_compressed(value)
    assert is_compressed(value[:12])


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"x", b"x^2 + y", b"{}", b'{"a": 1}', b"[1, 2]", b"<html>", b"<?xml ", b"RIFF....WAVE", b"PK", b"PKW"),
        *(b"BZh", b"GIF", b"%PDF-1.7", b"GIF8", b"Rar!", b"\x80\x04\x95", b"\xac\xed\0\5sr", b"O:8:", b"a:1:{"),
        *("été".encode(), "日本語".encode(), "\N{BYTE ORDER MARK}{}".encode(), b"\0" * 20, b"\x93\xc0\xc0"),
    ],
)
def test_is_compressed_leaves_what_is_worth_a_try(value: bytes) -> None:
    """Text of any sort, and what languages and libraries write: pickle, Java, PHP, MessagePack."""
    assert not is_compressed(value)


def test_is_compressed_looks_at_the_beginning_only() -> None:
    """A picture inside of a document does not make it one."""
    assert not is_compressed(b'{"image": "' + gzip.compress(TEXT, mtime=0))
    assert not is_compressed(b"\n" + gzip.compress(TEXT, mtime=0))
