"""The envelope around a stored value: how it is written, read and opened.

    magic   format flags  version    raw length  [dictionary]  checksum of the body
    f7b25276  01    fl    8 bytes    varint       4 bytes      raw value, 4    to the end

    flags: low 4 bits the codec, 0x10 a dictionary follows, 0x20 it has a version; the rest are 0

Owns the format. Numbers are big endian, the varint is LEB128 in its shortest form. Whether a value is wrapped, and how
its body came to be, is not decided here. What is read is a claim: no length in it makes memory be taken that its body
could not fill, and what comes out is handed on only if length and checksum agree.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

import lz4.block
import xxhash

from proxy.errors import DamagedValueError, UnknownDictionaryError

try:
    import zstandard
except ImportError:  # an extra: without it, values that others compressed with zstd cannot be opened
    HAS_ZSTD = False
else:
    HAS_ZSTD = True

MAGIC: Final = b"\xf7\xb2Rv"  # no UTF-8 text holds f7 at all, and no compressed format we know begins so
FORMAT: Final = 1
MAX_RAW_BYTES: Final = 512 * 1024 * 1024  # what Redis takes as one value (proto-max-bulk-len)
MAX_HEADER_BYTES: Final = 27

_CODEC: Final = 0x0F
_HAS_DICTIONARY: Final = 0x10
_HAS_VERSION: Final = 0x20
_FLAGS: Final = _CODEC | _HAS_DICTIONARY | _HAS_VERSION
_HEAD: Final = struct.Struct(">4sBBQ")
_SHORT: Final = struct.Struct(">4sBBQHI")  # with a raw length of two bytes, and the checksum
_LONG: Final = struct.Struct(">4sBBQHBI")  # .. of three bytes
_SUM: Final = struct.Struct(">I")
_SUM_MAX: Final = 0xFFFFFFFF
_BOTH: Final = struct.Struct(">II")

# The most that a byte of body can become: a run of LZ4 grows by 255 a byte, a block of zstd is 128 KiB from 4 bytes.
_LZ4_GROWTH: Final = 255
_ZSTD_GROWTH: Final = 32 * 1024


class Codec(IntEnum):
    """How a body is compressed; the numbers are part of the format."""

    PLAIN = 0
    LZ4 = 1
    ZSTD = 2


_CODECS: Final = tuple(Codec)
_PLAIN, _LZ4, _ = _CODECS  # to look up a member of an enum takes 0.1 us before Python 3.12
_CODEC_MAX: Final = max(_CODECS)


class Header(NamedTuple):
    """What an envelope says of its value. A tuple: twice as quick to make as a frozen class, and made once a read."""

    version: int  # 0 = none
    codec: Codec
    dictionary: int  # 0 = none
    raw_length: int  # what it claims
    body_at: int  # where the body begins
    checksum: int  # of the raw value


class DictionaryBytes(bytes):
    """The bytes of a dictionary that remember what was made of them: a zstd one takes longer to load than to use."""

    _loaded: Any = None

    def decompressor(self) -> Any:
        """Return the zstd decompressor that uses them."""
        if self._loaded is None:
            self._loaded = _decompressor(bytes(self))
        return self._loaded


def checksum_of(value: bytes) -> int:
    """Return the low half of the value's XXH3, 64 bits: of a large one several times as fast as zlib's crc32."""
    return xxhash.xxh3_64_intdigest(value) & _SUM_MAX


def wrap(
    value: bytes, version: int, *, codec: Codec = Codec.PLAIN, body: bytes | None = None, dictionary: int = 0
) -> bytes:
    """Put a value into an envelope. `body` is the value compressed with `codec`; version and dictionary 0 = none."""
    return header_of(value, version, codec=codec, dictionary=dictionary) + (value if body is None else body)


def header_of(value: bytes, version: int, *, codec: Codec = Codec.PLAIN, dictionary: int = 0) -> bytes:
    """Return what stands before the body in the envelope of a value: a large body need not be copied for it."""
    size = len(value)
    flags = codec | _HAS_VERSION if version else codec
    if 0x80 <= size < 0x20_0000 and not dictionary:  # most: all of it in one go, 0.5 us sooner
        checksum = xxhash.xxh3_64_intdigest(value) & _SUM_MAX
        low = (size & 0x7F | 0x80) << 8 | size >> 7 & 0x7F
        if size < 0x4000:
            return _SHORT.pack(MAGIC, FORMAT, flags, version, low, checksum)
        return _LONG.pack(MAGIC, FORMAT, flags, version, low | 0x80, size >> 14, checksum)
    length = _varint(size)
    if dictionary:
        tail = _BOTH.pack(dictionary, checksum_of(value))
        flags |= _HAS_DICTIONARY
    else:
        tail = _SUM.pack(checksum_of(value))
    return b"".join((_HEAD.pack(MAGIC, FORMAT, flags, version), length, tail))


def mark_of(value: bytes) -> bytes:
    """Return what tells a value from others in the header of its envelope: its length, and its checksum."""
    return header_of(value, 0)[_HEAD.size :]


def read_header(data: bytes) -> Header:
    """Read the header of an envelope, of which `data` need hold no more than `MAX_HEADER_BYTES`.

    Raises DamagedValueError for what is none. What it says of the body has not been checked.
    """
    try:
        magic, number, flags, version = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise DamagedValueError("not an envelope")
        if number != FORMAT:
            raise DamagedValueError(f"of format {number}, which is not known")
        codec = flags & _CODEC
        if flags > _FLAGS or codec > _CODEC_MAX:
            raise DamagedValueError(f"with flags {flags:#04x}, which are not known")
        if (version != 0) is not (flags & _HAS_VERSION != 0):
            raise DamagedValueError("its version contradicts its flags")
        at = _HEAD.size
        raw_length = data[at]
        at += 1
        if raw_length > 0x7F:
            raw_length, at = _read_varint(data, raw_length & 0x7F, at)
        if flags & _HAS_DICTIONARY:
            dictionary, checksum = _BOTH.unpack_from(data, at)
            if not dictionary or not codec:
                raise DamagedValueError("with a dictionary that it cannot use")
            return Header(version, _CODECS[codec], dictionary, raw_length, at + 8, checksum)
        (checksum,) = _SUM.unpack_from(data, at)
        return Header(version, _CODECS[codec], 0, raw_length, at + 4, checksum)
    except (struct.error, IndexError):
        raise DamagedValueError("its header is cut short") from None


def open_value(data: bytes, dictionaries: Mapping[int, bytes]) -> tuple[bytes, Header]:
    """Take the value out of its envelope.

    `dictionaries` are the known ones by id; one of no bytes is known to be lost. Raises DamagedValueError, and
    UnknownDictionaryError for an id that is not there.
    """
    header = read_header(data)
    codec = header.codec
    body = data[header.body_at :]
    if codec is _PLAIN:
        value = body
    else:
        dictionary: bytes | None = None
        if header.dictionary:
            dictionary = dictionaries.get(header.dictionary)
            if dictionary is None:
                raise UnknownDictionaryError(header.dictionary)
            if not dictionary:
                raise DamagedValueError(f"dictionary {header.dictionary} is lost")
        value = (_open_lz4 if codec is _LZ4 else _open_zstd)(body, header.raw_length, dictionary)
    if len(value) != header.raw_length:
        raise DamagedValueError("it is not as long as it says")
    if checksum_of(value) != header.checksum:
        raise DamagedValueError("its checksum is wrong")
    return value, header


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, number: int, at: int) -> tuple[int, int]:
    """Read the rest of a number whose first 7 bits are known: the number, and where what follows begins."""
    for shift in (7, 14, 21, 28):
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte <= 0x7F:
            if not byte or number > MAX_RAW_BYTES:
                break
            return number, at
    raise DamagedValueError("its length cannot be right")


def _open_lz4(body: bytes, raw_length: int, dictionary: bytes | None) -> bytes:
    if raw_length > len(body) * _LZ4_GROWTH:
        raise DamagedValueError("it says that it is longer than its body can become")
    try:
        opened: bytes = (
            lz4.block.decompress(body, uncompressed_size=raw_length)
            if dictionary is None
            else lz4.block.decompress(body, uncompressed_size=raw_length, dict=dictionary)
        )
    except (lz4.block.LZ4BlockError, ValueError):
        raise DamagedValueError("its body is no LZ4 block") from None
    return opened


def _open_zstd(body: bytes, raw_length: int, dictionary: bytes | None) -> bytes:
    if not HAS_ZSTD:
        raise DamagedValueError("compressed with zstd, which is not installed")
    if raw_length > len(body) * _ZSTD_GROWTH:
        raise DamagedValueError("it says that it is longer than its body can become")
    try:
        # The frame has a length of its own, which the decompressor believes.
        if zstandard.frame_content_size(body) != raw_length:
            raise DamagedValueError("it is not as long as it says")
        loaded = dictionary.decompressor() if isinstance(dictionary, DictionaryBytes) else _decompressor(dictionary)
        opened: bytes = loaded.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError:
        raise DamagedValueError("its body is no zstd frame") from None
    return opened


def _decompressor(dictionary: bytes | None) -> Any:
    if dictionary is None:
        return zstandard.ZstdDecompressor()
    return zstandard.ZstdDecompressor(dict_data=zstandard.ZstdCompressionDict(dictionary))
