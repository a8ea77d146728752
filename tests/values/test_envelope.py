"""Envelopes: their bytes, what is read back, and that what is damaged is never a value."""

from __future__ import annotations

import random
import tracemalloc

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import DamagedValueError, UnknownDictionaryError
from proxy.values import envelope
from proxy.values.compression import compressor
from proxy.values.envelope import (
    MAGIC,
    MAX_HEADER_BYTES,
    MAX_RAW_BYTES,
    Codec,
    DictionaryBytes,
    open_value,
    read_header,
    wrap,
)

TEXT = b'{"id": 17, "state": "open", "owner": "somebody"}'
DICTIONARY = DictionaryBytes(b'", "owner": "somebody"}{"id": , "state": "open' * 4)
KNOWN = {9: DICTIONARY}


def sealed(value: bytes, codec: Codec, *, version: int = 0, dictionary: int = 0) -> bytes:
    """Seal as Respite does."""
    if codec is Codec.PLAIN:
        return wrap(value, version)
    body = compressor(codec, KNOWN[dictionary] if dictionary else b"")(value)
    return wrap(value, version, codec=codec, body=body, dictionary=dictionary)


KINDS = [(Codec.PLAIN, 0), *((codec, known) for codec in (Codec.LZ4, Codec.ZSTD) for known in (0, 9))]


def test_wrap_plain_is_these_bytes() -> None:
    """The format is for ever: values that were written once are opened by every later version."""
    assert bytes.fromhex("f7b25276 01 00 0000000000000000 03 892f3950") + b"abc" == wrap(b"abc", 0)


def test_wrap_version_and_dictionary_are_these_bytes() -> None:
    """A version sets a flag and its eight bytes, a dictionary another flag and four bytes before the checksum."""
    expected = bytes.fromhex("f7b25276 01 31 0102030405060708 ac02 00000009 7dc83554")

    assert expected + b"body" == wrap(b"x" * 300, 0x0102030405060708, codec=Codec.LZ4, body=b"body", dictionary=9)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_wrap_any_length_is_read_back(size: int) -> None:
    """Each length of the length itself, at both of its ends."""
    value = bytes(size)
    data = wrap(value, 7)
    header = read_header(data[:MAX_HEADER_BYTES])

    assert (7, Codec.PLAIN, 0, size) == header[:4]
    assert (value, header) == open_value(data, {})


@pytest.mark.parametrize(("codec", "dictionary"), KINDS)
@given(value=st.binary(max_size=300), version=st.integers(0, 2**64 - 1))
def test_open_value_gives_back_what_was_wrapped(codec: Codec, dictionary: int, value: bytes, version: int) -> None:
    """Whatever the value, the codec, the version and the dictionary."""
    opened, header = open_value(sealed(value, codec, version=version, dictionary=dictionary), KNOWN)

    assert value == opened
    assert (version, codec, dictionary, len(value)) == header[:4]


@pytest.mark.parametrize(("codec", "dictionary"), KINDS)
def test_open_value_cut_anywhere_is_damaged(codec: Codec, dictionary: int) -> None:
    """No beginning of an envelope is taken for one; nor is one with a byte too many."""
    data = sealed(TEXT, codec, version=5, dictionary=dictionary)

    for size in range(len(data)):
        with pytest.raises(DamagedValueError):
            open_value(data[:size], KNOWN)
    with pytest.raises(DamagedValueError):
        open_value(data + b"\0", KNOWN)


@pytest.mark.parametrize(("codec", "dictionary"), KINDS)
def test_open_value_any_bit_turned_never_gives_another_value(codec: Codec, dictionary: int) -> None:
    """A bit that turned over is noticed, or it was one of the version, which has no checksum."""
    data = sealed(TEXT, codec, version=5, dictionary=dictionary)

    for bit in range(8 * len(data)):
        turned = bytearray(data)
        turned[bit // 8] ^= 1 << bit % 8
        try:
            opened, _ = open_value(bytes(turned), KNOWN)
        except DamagedValueError:
            continue
        assert opened == TEXT
        assert 6 <= bit // 8 < 14 or codec is not Codec.PLAIN  # a match that could as well lie elsewhere


def test_open_value_garbage_behind_the_magic_is_damaged() -> None:
    """Bytes that only begin as an envelope raise what is expected of them, and nothing else."""
    rng = random.Random(4)
    for _ in range(3_000):
        head = bytes([1, rng.choice([0, 1, 2, 0x11, 0x12, 0x20, 0x21, 0x22, 0x31, 0x32, rng.randrange(256)])])
        data = MAGIC + head + (bytes(8) if head[1] < 0x20 else b"") + rng.randbytes(rng.randrange(60))
        with pytest.raises(DamagedValueError):
            open_value(data, KNOWN)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xf7\xb2Rw" + wrap(b"a", 0)[4:], "not an envelope"),
        (MAGIC + b"\x02" + wrap(b"a", 0)[5:], "format 2"),
        (MAGIC + b"\x01\x03" + wrap(b"a", 0)[6:], "flags 0x03"),
        (MAGIC + b"\x01\x40" + wrap(b"a", 0)[6:], "flags 0x40"),
        (MAGIC + b"\x01\x20" + wrap(b"a", 0)[6:], "contradicts"),
        (MAGIC + b"\x01\x00" + wrap(b"a", 1)[6:], "contradicts"),
        (MAGIC + b"\x01\x10" + bytes(8) + b"\x01" + b"\0\0\0\x09" + bytes(4) + b"a", "cannot use"),
        (MAGIC + b"\x01\x11" + bytes(8) + b"\x01" + bytes(8) + b"a", "cannot use"),
        (MAGIC + b"\x01\x00" + bytes(8) + b"\x81\x00" + bytes(4) + b"a", "length cannot be right"),
        (MAGIC + b"\x01\x00" + bytes(8) + b"\x81\x80\x80\x80\x02" + bytes(4) + b"a", "length cannot be right"),
        (MAGIC + b"\x01\x00" + bytes(8) + b"\xff\xff\xff\xff\xff\x01" + bytes(4) + b"a", "length cannot be right"),
        (wrap(b"abc", 0, body=b"abd"), "checksum"),
        (wrap(b"abc", 0, body=b"ab"), "not as long"),
    ],
)
def test_open_value_damaged_says_why(data: bytes, why: str) -> None:
    """Who finds it reads what is wrong with it."""
    with pytest.raises(DamagedValueError, match=why):
        open_value(data, {})


def test_open_value_dictionary_not_known_says_which() -> None:
    """It is to be fetched, which is no damage yet; one that is lost is."""
    data = sealed(TEXT, Codec.LZ4, dictionary=9)

    with pytest.raises(UnknownDictionaryError) as unknown:
        open_value(data, {})
    assert unknown.value.id == 9
    with pytest.raises(DamagedValueError, match="lost") as lost:
        open_value(data, {9: b""})
    assert not isinstance(lost.value, UnknownDictionaryError)


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
def test_open_value_another_dictionary_is_damaged_never_wrong(codec: Codec) -> None:
    """Bytes that are not those the value was compressed with give an error."""
    value = b'{"id": 17, "state": "open", "owner": "somebody"}' * 2
    data = sealed(value, codec, dictionary=9)

    with pytest.raises(DamagedValueError):
        open_value(data, {9: DictionaryBytes(DICTIONARY[::-1])})


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
def test_open_value_claim_no_body_could_fill_takes_no_memory(codec: Codec) -> None:
    """A few bytes that say they are half a gigabyte are refused before anything is made for them."""
    body = lz4.block.compress(b"a" * 100, store_size=False)
    data = wrap(b"a" * 100, 0, codec=codec, body=body)
    lying = data[:14] + b"\x80\x80\x80\x80\x02" + data[15:]
    tracemalloc.start()
    try:
        with pytest.raises(DamagedValueError, match="longer than its body"):
            open_value(lying, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 100_000


def test_open_value_zstd_frame_that_says_another_length_is_damaged() -> None:
    """The frame's own length is not believed when it is not that of the envelope."""
    body = zstandard.ZstdCompressor().compress(bytes(32_000_000))
    data = wrap(bytes(10_000), 0, codec=Codec.ZSTD, body=body)
    tracemalloc.start()
    try:
        with pytest.raises(DamagedValueError, match="not as long"):
            open_value(data, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


def test_open_value_longest_run_of_each_codec_opens() -> None:
    """What the growth of a body is held to is more than any codec reaches."""
    value = bytes(8 * 1024 * 1024)

    for codec in (Codec.LZ4, Codec.ZSTD):
        assert value == open_value(sealed(value, codec), {})[0]


def test_open_value_zstd_not_installed_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another sidecar compressed cannot be opened without the extra, and the error says so."""
    data = sealed(TEXT, Codec.ZSTD)
    monkeypatch.setattr(envelope, "HAS_ZSTD", False)

    with pytest.raises(DamagedValueError, match="not installed"):
        open_value(data, {})


def test_limits_are_those_of_redis() -> None:
    """512 MB, and the longest header is that of such a value."""
    assert MAX_RAW_BYTES == 512 * 1024 * 1024
    assert len(MAGIC) + 2 + 8 + 5 + 4 + 4 == MAX_HEADER_BYTES
