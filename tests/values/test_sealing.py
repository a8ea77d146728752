"""What is stored for a value: itself, an envelope around it, or its compressed self."""

from __future__ import annotations

import gzip
import json
import random
import time
from typing import Any

import attrs
import pytest

from proxy.config.model import ClassSettings, Compression
from proxy.values.clock import HybridClock
from proxy.values.compression import FIRST_REST_S, TRIES
from proxy.values.dictionary import ENOUGH_SAMPLES, SAMPLE_EVERY, WINDOW, Dictionaries, id_of
from proxy.values.envelope import MAGIC, Codec, open_value, read_header
from proxy.values.rules import ClassRules, Rules
from proxy.values.sealing import (
    COMPRESSED_TO_BYTES,
    DICTIONARY_FROM_BYTES,
    DICTIONARY_TO_BYTES,
    WRAPPED_TO_BYTES,
    Sealer,
    is_number_like,
)

DEFAULTS = Compression(10 * 1024, 0.1, 1.0, "lz4")
LARGE = json.dumps([{"id": number, "state": "open", "owner": "somebody"} for number in range(400)]).encode()
SMALL = b'{"id": 4711, "state": "open", "owner": "somebody", "text": "a few words"}' * 2
DICTIONARY = b'{"id": , "state": "open", "owner": "somebody", "text": "a few words"}'


def rules_of(**settings: Any) -> ClassRules:
    """Make a class."""
    return Rules([ClassSettings("c", ("*",), **settings)]).classes[0]


COMPRESS = rules_of(compress=True)
VERSION = rules_of(version=True)
BOTH = rules_of(compress=True, version=True)
LEARNS = rules_of(dictionary=True)
ALL = rules_of(compress=True, dictionary=True)
NOTHING = rules_of()


def sealer(settings: Compression = DEFAULTS, *, anchored: bool = True) -> Sealer:
    """Make one whose clock knows the time."""
    clock = HybridClock(lambda: 100.0)
    if anchored:
        clock.anchor(1_700_000_000_000_000, 100.0, 100.0)
    made = Sealer(clock, Dictionaries())
    made.configure(settings)
    return made


def with_dictionary(settings: Compression = DEFAULTS, codec: Codec = Codec.LZ4) -> Sealer:
    """Make one that has learnt a dictionary, in use from 1.0 on."""
    made = sealer(settings)
    made.dictionaries.learn(id_of(DICTIONARY), "c", codec, DICTIONARY, 0.0)
    return made


def seal(made: Sealer, rules: ClassRules | None, value: bytes, now: float = 1.0, *, envelopes: bool = True) -> bytes:
    """Seal, and see that what comes out is the value again."""
    stored = made.seal(rules, value, now, envelopes=envelopes)
    if stored is not value:
        assert value == open_value(stored, made.dictionaries.known)[0]
    return stored


@pytest.mark.parametrize("value", [b"", b"x", SMALL, LARGE, b"12"])
@pytest.mark.parametrize("rules", [None, NOTHING])
def test_seal_no_class_that_asks_is_itself(rules: ClassRules | None, value: bytes) -> None:
    """Not a byte changes, and nothing is copied."""
    assert seal(sealer(), rules, value) is value


@pytest.mark.parametrize("rules", [COMPRESS, VERSION, BOTH, ALL])
def test_seal_no_envelopes_written_is_itself(rules: ClassRules) -> None:
    """The first step of a roll-out and the last of a roll-back."""
    assert seal(with_dictionary(), rules, LARGE, envelopes=False) is LARGE


@pytest.mark.parametrize("rules", [None, NOTHING, COMPRESS, VERSION, BOTH, ALL])
@pytest.mark.parametrize("envelopes", [True, False])
@pytest.mark.parametrize("value", [MAGIC, MAGIC + b"x", MAGIC + LARGE])
def test_seal_what_begins_as_an_envelope_is_always_wrapped(
    rules: ClassRules | None, envelopes: bool, value: bytes
) -> None:
    """Else what a client wrote would be opened when it is read."""
    stored = seal(sealer(), rules, value, envelopes=envelopes)
    header = read_header(stored)

    assert stored is not value
    assert header.codec is Codec.PLAIN
    assert bool(header.version) is (envelopes and rules is not None and rules.version)


def test_seal_what_only_begins_like_the_magic_is_itself() -> None:
    """Three of its four bytes are anybody's."""
    assert seal(sealer(), None, MAGIC[:3]) == MAGIC[:3]
    assert seal(sealer(), COMPRESS, MAGIC[:3] + b"w") == MAGIC[:3] + b"w"


def test_seal_version_is_that_of_the_clock_and_rises() -> None:
    """Each value has a later one; its body is the value as it is."""
    made = sealer()
    first, second = (read_header(seal(made, VERSION, value)) for value in (b"a", b""))

    assert (1_700_000_000_000 << 16) <= first.version < second.version
    assert first.codec is second.codec is Codec.PLAIN


def test_seal_version_clock_knows_no_time_is_none() -> None:
    """Until Redis has been asked there is no version: a small value stays plain, a large one is compressed."""
    made = sealer(anchored=False)

    assert seal(made, BOTH, SMALL) is SMALL
    assert read_header(seal(made, BOTH, LARGE)).version == 0


NUMBERS = [b"0", b"-1", b"9223372036854775807", b"3.14", b"-0.5", b"1e5", b"1E+5", b".5", b"5.", b"+7", b"inf", b"-INF"]
NUMBERS += [b"007", b"0x1F", b"infinity", b"1" * 400]
NO_NUMBERS = [
    b"",
    b"-",
    b".",
    b"1 ",
    b" 1",
    b"1a",
    b"1.2.3",
    b"2024-01-01",
    b"1,5",
    b"e5",
    b"nan",
    b"1\n",
    b"abc",
    b"i",
]
NO_NUMBERS += [b"1e", b"+", b"1" * 6_000]


@pytest.mark.parametrize("value", NUMBERS)
def test_is_number_like_takes_what_increments(value: bytes) -> None:
    """INCR and INCRBYFLOAT find it as they wrote it, or would have."""
    assert is_number_like(value)
    assert seal(sealer(attrs.evolve(DEFAULTS, min_bytes=1)), BOTH, value) is value


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_is_number_like_leaves_the_rest(value: bytes) -> None:
    """What neither takes may be wrapped."""
    assert not is_number_like(value)
    assert seal(sealer(), VERSION, value) != value


def test_seal_large_value_is_compressed() -> None:
    """From min_bytes on, with lz4 and no version."""
    made = sealer()
    stored = seal(made, COMPRESS, LARGE)

    assert (0, Codec.LZ4, 0, len(LARGE)) == read_header(stored)[:4]
    assert len(stored) < len(LARGE) / 3
    assert (1, 1, len(LARGE)) == (
        made.figures.tried,
        made.figures.compressed,
        pytest.approx(made.figures.saved_bytes + len(stored), abs=5),
    )


def test_seal_below_min_bytes_is_itself() -> None:
    """The byte that is missing decides; with a version it is wrapped and not compressed."""
    made = sealer(attrs.evolve(DEFAULTS, min_bytes=len(LARGE)))

    assert seal(made, COMPRESS, LARGE[1:]) == LARGE[1:]
    assert read_header(seal(made, BOTH, LARGE[1:])).codec is Codec.PLAIN
    assert read_header(seal(made, COMPRESS, LARGE)).codec is Codec.LZ4


def test_seal_without_compress_is_never_compressed() -> None:
    """A class that wants versions only has plain bodies."""
    assert read_header(seal(sealer(), VERSION, LARGE)).codec is Codec.PLAIN


@pytest.mark.parametrize(("min_saving", "codec"), [(0.40, Codec.LZ4), (0.60, Codec.PLAIN)])
def test_seal_saving_less_than_asked_is_not_kept(min_saving: float, codec: Codec) -> None:
    """What is half noise saves half: enough for one setting, not for the other."""
    value = random.Random(3).randbytes(10_000) + bytes(10_000)

    assert read_header(seal(sealer(attrs.evolve(DEFAULTS, min_saving=min_saving)), BOTH, value)).codec is codec


def test_seal_saving_pays_for_the_envelope() -> None:
    """Without a version there would be none: a value that is smaller by less than a header stays as it is."""
    value = random.Random(3).randbytes(100) + bytes(30)
    made = sealer(Compression(1, 0.0, 1.0, "lz4"))

    assert seal(made, COMPRESS, value) is value
    assert read_header(seal(made, BOTH, value)).codec is Codec.LZ4


def test_seal_zstd_where_it_is_the_codec() -> None:
    """It saves more, and who wants it says so."""
    made = sealer(attrs.evolve(DEFAULTS, codec="zstd"))
    stored = seal(made, COMPRESS, LARGE)

    assert read_header(stored).codec is made.dictionaries.codec is Codec.ZSTD
    assert len(stored) < len(seal(sealer(), COMPRESS, LARGE))


def test_seal_compressed_format_is_not_tried() -> None:
    """A picture costs no attempt, and is no reason to give a class up."""
    made = sealer()
    value = gzip.compress(random.Random(1).randbytes(20_000))
    for _ in range(2 * TRIES):
        assert seal(made, COMPRESS, value) is value

    assert (0, 2 * TRIES) == (made.figures.tried, made.figures.skipped_format)
    assert seal(made, COMPRESS, LARGE) is not LARGE


def test_seal_huge_value_is_not_compressed() -> None:
    """Nobody waits for it; with a version it is wrapped."""
    value = bytes(COMPRESSED_TO_BYTES + 1)

    assert seal(sealer(), COMPRESS, value) is value
    assert read_header(seal(sealer(), BOTH, value)).codec is Codec.PLAIN
    assert read_header(seal(sealer(), COMPRESS, value[1:])).codec is Codec.LZ4


def test_seal_value_that_could_not_be_handed_on_is_stored_as_it_is() -> None:
    """Opened, it would have to wait for its client as a whole, and a client is closed for which so much waits."""
    value = bytes(WRAPPED_TO_BYTES + 1)

    assert seal(sealer(), BOTH, value) is value
    assert read_header(seal(sealer(), BOTH, value[1:])).version


def test_seal_class_that_never_compresses_is_left_alone_for_a_while() -> None:
    """After many failures nothing of it is tried, then a few are; other classes are not held to it."""
    made = sealer()
    noise = random.Random(2).randbytes(20_000)
    for _ in range(TRIES):
        assert seal(made, COMPRESS, noise) is noise
    assert TRIES == made.figures.tried
    assert seal(made, COMPRESS, LARGE) is LARGE
    assert (TRIES, 1) == (made.figures.tried, made.figures.given_up)
    assert seal(made, attrs.evolve(COMPRESS, name="other"), LARGE) is not LARGE

    assert seal(made, COMPRESS, LARGE, 1.0 + FIRST_REST_S) is not LARGE
    assert seal(made, COMPRESS, LARGE, 1.0 + FIRST_REST_S) is not LARGE


def test_configure_anew_forgets_what_did_not_pay() -> None:
    """With other settings it may."""
    made = sealer()
    noise = random.Random(2).randbytes(20_000)
    for _ in range(TRIES):
        seal(made, COMPRESS, noise)
    made.configure(DEFAULTS)

    assert seal(made, COMPRESS, LARGE) is not LARGE


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
@pytest.mark.parametrize("rules", [LEARNS, ALL])
def test_seal_small_value_uses_the_dictionary_of_its_class(rules: ClassRules, codec: Codec) -> None:
    """Far below min_bytes, from when it is in use on; a class without one stays as it was."""
    made = with_dictionary(codec=codec)
    assert seal(made, rules, SMALL, 0.9) is SMALL
    stored = seal(made, rules, SMALL)

    assert (0, codec, id_of(DICTIONARY), len(SMALL)) == read_header(stored)[:4]
    assert len(stored) < 0.6 * len(SMALL)
    assert seal(made, attrs.evolve(rules, name="other"), SMALL) is SMALL
    assert seal(made, COMPRESS, SMALL) is SMALL


def test_seal_dictionary_within_its_sizes() -> None:
    """Tiny values are not worth it, large ones do without."""
    made = with_dictionary()
    tiny, smallest = DICTIONARY[-DICTIONARY_FROM_BYTES + 1 :], DICTIONARY[-DICTIONARY_FROM_BYTES:]
    long = (LARGE * 9)[:DICTIONARY_TO_BYTES]

    assert seal(made, LEARNS, tiny) is tiny
    assert read_header(seal(made, LEARNS, smallest)).dictionary
    assert read_header(seal(made, ALL, long)).dictionary
    assert not read_header(seal(made, ALL, long + b" ")).dictionary
    assert seal(made, LEARNS, long + b" ") == long + b" "


def test_seal_offers_samples_and_learns() -> None:
    """From small writes to a dictionary that makes them smaller."""
    made = sealer()
    values = [json.dumps({"id": n, "state": "open", "text": f"{n * n:x} words {n}" * 9}).encode() for n in range(2_000)]
    for value in values[: ENOUGH_SAMPLES * SAMPLE_EVERY]:
        assert seal(made, LEARNS, value) is value
    found = made.dictionaries.due(1.0)

    assert found is not None
    assert ("c", ENOUGH_SAMPLES) == (found[0], len(found[1]))
    assert set(found[1]) <= set(values)


def test_seal_pictures_and_numbers_are_no_samples() -> None:
    """There is nothing to learn from what is compressed already, nor from numbers."""
    made = sealer()
    for value in (gzip.compress(random.Random(1).randbytes(5_000)), b"1" * 300):
        for _ in range(ENOUGH_SAMPLES * SAMPLE_EVERY):
            seal(made, LEARNS, value)

    assert made.dictionaries.due(1.0) is None


def test_seal_dictionary_that_stopped_paying_is_found_out() -> None:
    """Values that it no longer helps are left alone, and a new one is due."""
    made = with_dictionary()
    rng = random.Random(5)
    for number in range(2 * WINDOW):
        made.seal(LEARNS, rng.randbytes(400), 1.0 + number / 1000, envelopes=True)
    for number in range(ENOUGH_SAMPLES * SAMPLE_EVERY):
        made.seal(LEARNS, rng.randbytes(400), 4.0 + number / 1000, envelopes=True)

    assert made.figures.given_up > WINDOW
    assert made.dictionaries.due(9.0) is not None


def test_seal_dictionary_that_pays_less_than_it_did_is_found_out() -> None:
    """Every third value still gets smaller: none is given up, and a better dictionary is due."""
    made = with_dictionary()
    rng = random.Random(5)
    for _ in range(WINDOW):
        made.seal(LEARNS, SMALL, 1.0, envelopes=True)
    for number in range(3 * ENOUGH_SAMPLES * SAMPLE_EVERY):
        made.seal(LEARNS, SMALL if number % 3 == 0 else rng.randbytes(400), 1.0, envelopes=True)

    assert made.figures.given_up == 0
    assert made.dictionaries.due(9.0) is not None


def test_seal_new_dictionary_is_tried_though_the_old_one_did_not_pay() -> None:
    """Patience is lost with one of them, not with the class."""
    made = with_dictionary()
    rng = random.Random(5)
    for _ in range(TRIES + 1):
        made.seal(LEARNS, rng.randbytes(400), 1.0, envelopes=True)
    assert made.figures.given_up == 1
    newer = DICTIONARY + b"!"
    made.dictionaries.learn(id_of(newer), "c", Codec.LZ4, newer, 1.0)

    assert read_header(seal(made, LEARNS, SMALL, 2.0)).dictionary == id_of(newer)


@pytest.mark.parametrize(
    ("rules", "value", "codec"),
    [
        *((VERSION, b"", Codec.PLAIN), (VERSION, b"12", Codec.PLAIN), (NOTHING, LARGE, Codec.PLAIN)),
        *((COMPRESS, LARGE, Codec.LZ4), (COMPRESS, SMALL, Codec.PLAIN), (LEARNS, SMALL, Codec.LZ4)),
        (COMPRESS, MAGIC + LARGE, Codec.PLAIN),
    ],
)
def test_seal_as_is_an_envelope_with_that_version(rules: ClassRules, value: bytes, codec: Codec) -> None:
    """Whoever chose the version must find it; the body is what the class says."""
    made = with_dictionary()
    opened, header = open_value(made.seal_as(rules, value, 77, 1.0), made.dictionaries.known)

    assert (value, 77, codec) == (opened, header.version, header.codec)


def test_seal_small_value_of_a_compressing_class_costs_next_to_nothing() -> None:
    """0.6 us were measured; ten times that is a decision made in the wrong order."""
    made = sealer()
    took = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(10_000):
            made.seal(COMPRESS, SMALL, 1.0, envelopes=True)
        took.append((time.perf_counter() - began) / 10_000)

    assert min(took) < 6e-6
