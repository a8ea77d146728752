"""Stored values: envelopes as anybody may have written them, and as they pass in a link's stream.

What must hold: what comes out is as long as it says and has its checksum, else DamagedValueError; no claim makes memory
be taken that the body could not fill; what was sealed opens; a stream is opened the same wherever its chunks end.
"""

from __future__ import annotations

import random
import re
from typing import Final, Literal

from proxy.config.model import ClassSettings, Compression
from proxy.errors import DamagedValueError
from proxy.values import compression, dictionary, envelope, formats, sealing, stream
from proxy.values.clock import HybridClock
from proxy.values.compression import compressor
from proxy.values.dictionary import Dictionaries, parse_stored, stored
from proxy.values.envelope import (
    MAGIC,
    MAX_RAW_BYTES,
    Codec,
    DictionaryBytes,
    Header,
    checksum_of,
    header_of,
    open_value,
    read_header,
    wrap,
)
from proxy.values.rules import Rules
from proxy.values.sealing import Sealer
from proxy.values.stream import StreamOpener, is_sealed
from proxy.wire.encode import bulk
from proxy.wire.reply import FrameScanner, ReplyError, frames

from ..target import Target, cuts, expect
from .replies import TOKENS as REPLY_TOKENS

_VALUE: Final = b'{"a": "' + b"abc" * 20 + b'"}'
_DICTIONARY: Final = b'{"a": "abcabcabcabc"}' * 3
_KNOWN: Final = {9: DictionaryBytes(_DICTIONARY), 10: b""}
"""By id; 9 is known, 10 is known to be lost, every other one not known."""

_ENVELOPES: Final = (
    wrap(_VALUE, 3, codec=Codec.LZ4, body=compressor(Codec.LZ4)(_VALUE)),
    wrap(_VALUE, 0, codec=Codec.ZSTD, body=compressor(Codec.ZSTD)(_VALUE)),
    wrap(_VALUE, 4, codec=Codec.LZ4, body=compressor(Codec.LZ4, _DICTIONARY)(_VALUE), dictionary=9),
    wrap(_VALUE, 4, codec=Codec.ZSTD, body=compressor(Codec.ZSTD, _DICTIONARY)(_VALUE), dictionary=9),
    wrap(_VALUE, 4, codec=Codec.LZ4, body=b"x", dictionary=10),
    wrap(_VALUE, 4, codec=Codec.LZ4, body=b"x", dictionary=11),
    wrap(b"a\r\n$5\r\nb", 5),
    wrap(MAGIC + b"mine", 0),
    wrap(b"", 1),
    wrap(b"\0" * 100_000, 1, codec=Codec.LZ4, body=compressor(Codec.LZ4)(b"\0" * 100_000)),
    wrap(b"\0" * 100_000, 1, codec=Codec.ZSTD, body=compressor(Codec.ZSTD)(b"\0" * 100_000)),
)
_TOKENS: Final = (
    *(
        MAGIC,
        MAGIC + b"\1",
        b"\x80\x01",
        b"\xff\xff\xff\xff\x7f",
        b"\x80\0",
        b"\xff\xff\x03",
        b"\x28\xb5\x2f\xfd",
    ),
    *(b"\1\0", b"\1\x11", b"\1\x12", b"\1\x20", b"\1\x21", b"\1\x22", b"\1\x31", b"\1\x32", b"\1\x40", b"\0\0\0\x09"),
    *(b"\xff\xff\xff\xff\1", b"\xff" * 8, b"\0" * 8, b"\x1f\xff\xff\xff\xff"),
)


def _open(data: bytes) -> None:
    try:
        value, header = open_value(data, _KNOWN)
    except DamagedValueError:
        return
    expect(len(value) == header.raw_length <= max(len(data) * (32 << 10), 1), "a claim was believed", header)
    expect(checksum_of(value) == header.checksum, "what was damaged is handed on", header)
    expect(read_header(data) == header == read_header(data[: envelope.MAX_HEADER_BYTES]), "two headers of one", header)
    again, plain = open_value(wrap(value, header.version), _KNOWN)
    expect(again == value and plain.version == header.version, "a value is another once it is wrapped again", header)


def _right(data: bytes) -> bytes:
    """Put length and checksum of an envelope right, as somebody would who makes one to be believed."""
    try:
        header = read_header(data)
    except DamagedValueError:
        return data
    body = data[header.body_at :]
    value = body
    if header.codec is not Codec.PLAIN:
        known = _KNOWN.get(header.dictionary, b"") if header.dictionary else None
        opener = envelope._open_lz4 if header.codec is Codec.LZ4 else envelope._open_zstd
        try:
            value = opener(body, min(header.raw_length, 1 << 20), known or None)
        except DamagedValueError:
            return data
    if len(value) > MAX_RAW_BYTES:
        return data
    return header_of(value, header.version, codec=header.codec, dictionary=header.dictionary) + body


ENVELOPE: Final = Target(
    "envelope",
    _open,
    [envelope],
    _ENVELOPES,
    _TOKENS,
    repair=_right,
    jump_bytes=64 << 20,
)


_ODD_HEAD: Final = re.compile(rb"\$(?!-?[0-9]+\r\n)[-0-9+_ \t\r\x0b\x0c]+\n")
"""Lengths that `int` reads and no Redis writes: it is not worth its time to refuse them where replies are split."""


def _passed(pieces: list[bytes]) -> tuple[bytes, list[Header], bool]:
    """Return what a link is handed of a stream, which values were opened, and whether all of it was RESP."""
    headers: list[Header] = []
    opener = StreamOpener(_KNOWN, lambda header, _: headers.append(header))
    scanner = FrameScanner()
    out = b""
    for piece in pieces:
        rest = piece
        while True:
            try:
                data = opener.open(scanner, rest)
                _scan(scanner, data)
            except (ReplyError, ValueError):
                return out, headers, False
            out += data
            if not opener.waits_for:
                break
            opener.give_up(opener.waits_for)  # as a link does, once what came before has landed
            rest = b""
    return out, headers, True


def _scan(scanner: FrameScanner, data: bytes) -> None:
    pos = 0
    while 0 <= pos < len(data):
        pos = scanner.scan(data, pos)


def _stream(data: bytes) -> None:
    if _ODD_HEAD.search(data):
        return
    whole, headers, is_resp = _passed([data])
    for pieces in cuts(data):
        part, found, is_whole = _passed(pieces)
        expect(is_resp is is_whole, "a stream ends by how it is cut", pieces)
        if not is_resp:
            continue
        expect(whole.startswith(part) or part.startswith(whole), "cut, something else passes", whole, part, pieces)
        expect(headers[: len(found)] == found[: len(headers)], "cut, other values are opened", headers, found)
    if not is_resp:
        return
    for frame in _whole_frames(whole):
        is_sealed(frame)


def _whole_frames(data: bytes) -> list[bytes]:
    scanner = FrameScanner()
    pos = 0
    while pos < len(data):
        end = scanner.scan(data, pos)
        if end < 0:
            break
        pos = end
    return frames(data[:pos])


def _blob(rng: random.Random) -> bytes:
    one = rng.choice((*_ENVELOPES[:9], b"", MAGIC, MAGIC + b"x", b"plain", _VALUE))
    return bulk(one) if rng.random() < 0.9 else b"=%d\r\ntxt:%b\r\n" % (len(one) + 4, one)


def _replies(rng: random.Random) -> bytes:
    blobs = [_blob(rng) for _ in range(rng.randrange(1, 4))]
    head = rng.choice((b"", b"*%d\r\n" % len(blobs), b">%d\r\n" % len(blobs), b"+OK\r\n", b"|1\r\n+a\r\n:1\r\n"))
    return head + b"".join(blobs)


STREAM: Final = Target(
    "stream",
    _stream,
    [stream, envelope],
    [bulk(one) for one in _ENVELOPES[:9]] + [b"*2\r\n%b$-1\r\n" % bulk(_ENVELOPES[0])],
    (*REPLY_TOKENS, *_TOKENS, *(bulk(one) for one in _ENVELOPES[:3])),
    _replies,
)


_CLASSES: Final = Rules(
    [
        ClassSettings("compressed", ("*",), compress=True),
        ClassSettings("versioned", ("*",), version=True),
        ClassSettings("all", ("*",), compress=True, dictionary=True, version=True),
    ]
).classes
_NOW: Final = 10.0


def _sealer(codec: Literal["lz4", "zstd"]) -> Sealer:
    clock = HybridClock(lambda: 100.0)
    clock.anchor(1_700_000_000_000_000, 100.0, 100.0)
    made = Sealer(clock, Dictionaries())
    made.configure(Compression(16, 0.0, 1.0, codec))
    kind = Codec.LZ4 if codec == "lz4" else Codec.ZSTD
    made.dictionaries.learn(dictionary.id_of(_DICTIONARY), "all", kind, _DICTIONARY, 0.0)
    return made


_SEALERS: Final = (_sealer("lz4"), _sealer("zstd"))


def _seal(data: bytes) -> None:
    """Seal a value in every way there is: what comes back is the value. And read it as a stored dictionary."""
    for sealer in _SEALERS:
        known = sealer.dictionaries.known
        sealer._patiences.clear()  # what earlier inputs have not saved must not change what becomes of this one
        for rules in _CLASSES:
            sealed = sealer.seal(rules, data, _NOW, envelopes=True)
            if sealed is data:
                expect(not data.startswith(MAGIC), "what looks like an envelope went in without one")
            else:
                expect(open_value(sealed, known)[0] == data, "a sealed value opens as another", rules.name)
            opened, header = open_value(sealer.seal_as(rules, data, 7, _NOW), known)
            expect(opened == data and header.version == 7, "a value with a version opens as another", rules.name)
    field, _, value = data.partition(b"=")
    found = parse_stored(field, value)
    if found is not None:
        expect(stored(found.class_name, found.codec, found.data)[0] == field, "a dictionary under another id", found)


SEALING: Final = Target(
    "sealing",
    _seal,
    [sealing, compression, formats, dictionary],
    [
        *(_VALUE, b"12", b"-1.5e3", b"inf", MAGIC + b"x", _ENVELOPES[0], b"\x1f\x8b\x08rest", b"x" * 300),
        b"%b=%b" % stored("c", Codec.LZ4, b"data"),
    ],
    (*_TOKENS, b"0", b"1", b"e", b".", b"-", b"+", b"inf", b"nan", b"PK\x03\x04", b"\xff\xd8\xff", b"abc" * 20, b" "),
    max_bytes=400,
)
