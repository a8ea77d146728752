"""Values are opened in what a link receives, wherever the chunks end."""

from __future__ import annotations

import random

import pytest

from proxy.values.compression import compressor
from proxy.values.envelope import MAGIC, Codec, Header, wrap
from proxy.values.stream import StreamOpener, is_sealed
from proxy.wire.reply import FrameScanner

VALUE = b'{"a": "' + b"abc" * 20 + b'"}'
DICTIONARY = b'{"a": "abcabcabcabc"}' * 3
LZ4 = wrap(VALUE, 3, codec=Codec.LZ4, body=compressor(Codec.LZ4)(VALUE))
ZSTD = wrap(VALUE, 0, codec=Codec.ZSTD, body=compressor(Codec.ZSTD)(VALUE))
WITH = wrap(VALUE, 4, codec=Codec.LZ4, body=compressor(Codec.LZ4, DICTIONARY)(VALUE), dictionary=9)
PLAIN = wrap(b"a\r\n$5\r\nb", 5)
OWN = wrap(MAGIC + b"mine", 0)
DAMAGED = LZ4[:-1] + b"?"


def bulk(value: bytes) -> bytes:
    """Write a bulk string."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


# (what Redis sends, what is passed on)
STREAMS = [
    (bulk(LZ4), bulk(VALUE)),
    (bulk(ZSTD), bulk(VALUE)),
    (bulk(PLAIN), bulk(b"a\r\n$5\r\nb")),
    (bulk(OWN), bulk(MAGIC + b"mine")),
    (bulk(wrap(b"", 1)), bulk(b"")),
    (b"*3\r\n$-1\r\n%b$0\r\n\r\n" % bulk(LZ4), b"*3\r\n$-1\r\n%b$0\r\n\r\n" % bulk(VALUE)),
    (b"*3\r\n%b$-1\r\n%b" % (bulk(WITH), bulk(b"plain")), b"*3\r\n%b$-1\r\n%b" % (bulk(VALUE), bulk(b"plain"))),
    (b"%%1\r\n+k\r\n*2\r\n:1\r\n~1\r\n%b" % bulk(LZ4), b"%%1\r\n+k\r\n*2\r\n:1\r\n~1\r\n%b" % bulk(VALUE)),
    (b"|1\r\n+ttl\r\n:3600\r\n" + bulk(LZ4) + b"_\r\n", b"|1\r\n+ttl\r\n:3600\r\n" + bulk(VALUE) + b"_\r\n"),
    (b">2\r\n+a\r\n%b*1\r\n%b" % (bulk(LZ4), bulk(b"$")), b">2\r\n+a\r\n%b*1\r\n%b" % (bulk(VALUE), bulk(b"$"))),
    (b"+OK\r\n" + bulk(b"x\r\n" + bulk(LZ4)) + bulk(LZ4), b"+OK\r\n" + bulk(b"x\r\n" + bulk(LZ4)) + bulk(VALUE)),
    (b"=%d\r\ntxt:%b\r\n" % (len(LZ4) + 4, LZ4), b"=%d\r\ntxt:%b\r\n" % (len(LZ4) + 4, LZ4)),
    (b"+$\r\n-ERR $3\r\n,1.5\r\n(12\r\n#t\r\n_\r\n$-1\r\n*-1\r\n*0\r\n", b"+$\r\n-ERR $3\r\n,1.5\r\n(12\r\n#t\r\n_\r\n"
     b"$-1\r\n*-1\r\n*0\r\n"),
    (bulk(DAMAGED) + bulk(MAGIC) + bulk(MAGIC + b"x") + bulk(MAGIC[:3]), bulk(DAMAGED) + bulk(MAGIC)
     + bulk(MAGIC + b"x") + bulk(MAGIC[:3])),
    (bulk(b"") + bulk(b"\xf7") + bulk(b"$12\r") + bulk(WITH), bulk(b"") + bulk(b"\xf7") + bulk(b"$12\r") + bulk(VALUE)),
    (b"+\xf7 " + LZ4.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n:1\r\n",
     b"+\xf7 " + LZ4.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n:1\r\n"),
]  # fmt: skip
ALL = (b"".join(sent for sent, _ in STREAMS), b"".join(expected for _, expected in STREAMS))


class Linked:
    """An opener and the scanner of its link, which scans what is passed on."""

    def __init__(self, dictionaries: dict[int, bytes] | None = None) -> None:
        self.headers: list[tuple[Header, int]] = []
        self.dictionaries = {9: DICTIONARY} if dictionaries is None else dictionaries
        self.opener = StreamOpener(self.dictionaries, lambda header, size: self.headers.append((header, size)))
        self.scanner = FrameScanner()
        self.passed: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Receive a chunk; return what is passed on."""
        data = self.opener.open(self.scanner, data)
        pos = 0
        while pos < len(data):
            pos = self.scanner.scan(data, pos)
            if pos < 0:
                break
        self.passed.append(data)
        return data

    def all(self) -> bytes:
        """Return all that was passed on."""
        return b"".join(self.passed)


@pytest.mark.parametrize(("sent", "expected"), STREAMS, ids=range(len(STREAMS)))
def test_open_every_split_opens_every_value(sent: bytes, expected: bytes) -> None:
    """In two chunks, whatever the byte between them, and byte by byte."""
    for split in range(len(sent) + 1):
        link = Linked()
        link.feed(sent[:split])
        link.feed(sent[split:])
        assert expected == link.all(), split
    link = Linked()
    for at in range(len(sent)):
        link.feed(sent[at : at + 1])

    assert expected == link.all()
    assert not link.scanner.busy


def test_open_random_chunks_of_a_long_stream_opens_every_value() -> None:
    """Many replies in a row, cut at random: state carries over from each chunk to the next."""
    rng = random.Random(6)
    sent, expected = (part * 3 for part in ALL)
    for _ in range(300):
        link = Linked()
        at = 0
        while at < len(sent):
            size = rng.choice([1, 2, 7, 30, 200, 900])
            link.feed(sent[at : at + size])
            at += size
        assert expected == link.all()


def test_open_nothing_to_open_passes_the_same_object() -> None:
    """Replies without envelopes cost a search, not a copy."""
    link = Linked()
    data = bulk(b"hello" * 100) + b"+OK\r\n"

    assert link.feed(data) is data


def test_open_tells_of_each_value() -> None:
    """Its header, and what it takes stored; nothing of one that is damaged."""
    link = Linked()
    link.feed(bulk(LZ4) + bulk(DAMAGED) + bulk(PLAIN))

    assert [(3, len(LZ4)), (5, len(PLAIN))] == [(header.version, size) for header, size in link.headers]


def test_open_what_comes_before_a_value_passes_at_once() -> None:
    """Only the value that is not whole is held back."""
    link = Linked()

    assert b"+OK\r\n*2\r\n:1\r\n" == link.feed(b"+OK\r\n*2\r\n:1\r\n" + bulk(LZ4)[:30])
    assert b"" == link.feed(bulk(LZ4)[30:40])
    assert bulk(VALUE) == link.feed(bulk(LZ4)[40:])


@pytest.mark.parametrize("shown", [0, 1, 3])
def test_open_large_value_that_is_no_envelope_streams(shown: int) -> None:
    """A chunk that ends before the magic could be seen holds a value back no longer than until it can."""
    link = Linked()
    body = MAGIC[:shown] + b"x" * 100_000
    sent = bulk(body)
    cut = sent.index(b"\n") + 1 + shown

    link.feed(sent[:cut])
    link.feed(sent[cut : cut + 2_000])

    assert sent[: cut + 2_000] == link.all()


def test_open_header_without_end_is_not_held() -> None:
    """A `$` and digits for ever is no RESP: it is left to the link to say so."""
    link = Linked()
    passed = link.feed(b"+\xf7\r\n$" + b"1" * 5_000)

    assert len(passed) == 5_005


def test_open_unknown_dictionary_waits_and_keeps_order() -> None:
    """Everything from that value on waits; once it is known all goes on as it came."""
    link = Linked({})

    assert b"+a\r\n" == link.feed(b"+a\r\n" + bulk(WITH) + b"+b\r\n")
    assert link.opener.waits_for == 9
    assert b"" == link.feed(b"+c\r\n" + bulk(LZ4)[:9])
    assert link.opener.waits_for == 9
    link.dictionaries[9] = DICTIONARY
    assert bulk(VALUE) + b"+b\r\n+c\r\n" == link.feed(b"")
    assert link.opener.waits_for == 0
    assert bulk(VALUE) == link.feed(bulk(LZ4)[9:])


def test_open_dictionary_given_up_passes_the_value_as_it_is() -> None:
    """What needs a dictionary that nobody has is damaged, now and later; what follows it is not."""
    link = Linked({})
    link.feed(bulk(WITH) + bulk(LZ4))
    link.opener.give_up(9)

    assert bulk(WITH) + bulk(VALUE) == link.feed(b"")
    assert bulk(WITH) == link.feed(bulk(WITH))
    assert link.opener.waits_for == 0


def test_open_dictionary_that_comes_after_all_is_used() -> None:
    """Given up is not for ever: a dictionary that is known later opens what needs it."""
    link = Linked({})
    link.feed(bulk(WITH))
    link.opener.give_up(9)
    link.feed(b"")
    link.dictionaries[9] = DICTIONARY

    assert bulk(VALUE) == link.feed(bulk(WITH))


def test_open_no_resp_passes_on() -> None:
    """Whoever scans it says what is wrong."""
    opener = StreamOpener({}, lambda _header, _size: None)
    data = b"$?\r\n" + LZ4 + b"\r\n"

    assert data == opener.open(FrameScanner(), data)


def test_is_sealed_is_a_bulk_string_with_the_magic() -> None:
    """Nothing else is: not a plain value, not an array, not a nil, not an error."""
    assert is_sealed(bulk(DAMAGED))
    for frame in (bulk(b"x"), bulk(b""), b"*1\r\n" + bulk(LZ4), b"$-1\r\n", b"-ERR\r\n", b"+OK\r\n", b"_\r\n"):
        assert not is_sealed(frame)
