"""Dictionaries are trained by zstd's trainer or by our own, and only kept when they save."""

from __future__ import annotations

import json
import random
import time

import pytest

from proxy.values import training
from proxy.values.compression import compressor
from proxy.values.envelope import Codec
from proxy.values.training import LZ4_BYTES, ZSTD_BYTES, build, saving, train


def messages(count: int, seed: int = 1) -> list[bytes]:
    """Make small records that share their form and some of their words."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randrange(2, 9))) for _ in range(400)]
    made = []
    for _ in range(count):
        text = " ".join(rng.choices(words, [1 / (rank + 1) for rank in range(400)], k=rng.randrange(5, 60)))
        made.append(json.dumps({"id": rng.getrandbits(50), "from": rng.choice(words), "text": text}).encode())
    return made


MESSAGES = messages(1_000)
NOISE = [random.Random(number).randbytes(300) for number in range(400)]


@pytest.mark.parametrize("codec", [Codec.LZ4, Codec.ZSTD])
def test_train_saves_what_it_has_not_seen(codec: Codec) -> None:
    """Values that came later are much smaller with it than without, headers and all."""
    data = train(MESSAGES[:800], codec)
    assert data is not None
    later = MESSAGES[800:]

    assert len(data) <= (ZSTD_BYTES if codec is Codec.ZSTD else LZ4_BYTES)
    assert saving(data, later, codec) > 0.3
    assert saving(data, later, codec) > saving(b"", later, codec) + 0.15


def test_train_without_zstd_is_as_good_for_lz4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder that everybody has is no worse than zstd's, within a twentieth."""
    with_zstd = train(MESSAGES[:800], Codec.LZ4)
    monkeypatch.setattr(training, "HAS_ZSTD", False)
    without = train(MESSAGES[:800], Codec.LZ4)
    assert with_zstd is not None
    assert without is not None
    later = MESSAGES[800:]

    assert saving(without, later, Codec.LZ4) > saving(with_zstd, later, Codec.LZ4) - 0.05


@pytest.mark.parametrize("has_zstd", [True, False])
@pytest.mark.parametrize(
    "samples",
    [
        *(NOISE, MESSAGES[:10], [], [b""] * 500, [b"a"] * 500, [b'{"a": %d}' % number for number in range(500)]),
        [b'{"state": "open", "owner": %d}' % (number**3) for number in range(1_000)],
    ],
    ids=["noise", "few", "none", "empty", "one byte", "tiny", "no larger than a header"],
)
def test_train_what_would_not_pay_is_none(
    samples: list[bytes], has_zstd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in common, too few of them, or so small that the header eats what is saved."""
    monkeypatch.setattr(training, "HAS_ZSTD", has_zstd)

    assert train(samples, Codec.LZ4) is None


def test_train_is_judged_by_values_it_was_not_made_from() -> None:
    """Random values that a dictionary holds whole look wonderful to it; the next ones are all different."""
    samples = [NOISE[number % 3 + (10 if number % 5 else 0)] for number in range(500)]
    data = build(samples, 4096)

    assert saving(data, samples, Codec.LZ4) > 0.5
    assert train(samples, Codec.LZ4) is None


def test_build_fills_its_size_and_takes_nothing_twice() -> None:
    """Room in a dictionary is dear: the same piece again would be wasted."""
    data = build(MESSAGES, 4096)

    assert 3_000 < len(data) <= 4096
    assert len(compressor(Codec.LZ4)(data)) > 0.6 * len(data)


def test_build_takes_only_what_occurs_again() -> None:
    """What one sample alone has would fill the dictionary for nothing."""
    assert build(NOISE, 4096) == b""


def test_build_best_pieces_are_last() -> None:
    """LZ4 keeps the place it has seen last, and a match near by costs it no more than one far away."""
    data = build(MESSAGES, LZ4_BYTES)
    first, last = data[: LZ4_BYTES // 2], data[LZ4_BYTES // 2 :]

    assert saving(last, MESSAGES[:200], Codec.LZ4) > saving(first, MESSAGES[:200], Codec.LZ4)


def test_build_same_samples_same_bytes() -> None:
    """Its id is the checksum of its bytes: two sidecars that saw the same agree."""
    assert build(MESSAGES, 4096) == build(list(MESSAGES), 4096)


def test_build_however_much_there_is_takes_seconds_at_most() -> None:
    """A part of the samples is looked at, from all over them."""
    many = MESSAGES * 20 + messages(500, seed=2) * 10
    began = time.process_time()
    data = build(many, LZ4_BYTES)

    assert time.process_time() - began < 10
    assert saving(data, messages(100, seed=2), Codec.LZ4) > saving(
        build(MESSAGES, LZ4_BYTES), messages(100, seed=2), Codec.LZ4
    )
