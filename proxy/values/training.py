"""Train a dictionary from sampled values.

    samples --four of five--> dictionary --the fifth, held back--> saves enough?  its bytes, else None

Owns how it is built: by zstd's trainer where that is installed (its result serves LZ4, too), else by the builder below.
To be run in a thread of its own, for a second or less; shares nothing with anybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from operator import sub
from typing import Final

from proxy.values.compression import compressor
from proxy.values.dictionary import LEAST_SAVING
from proxy.values.envelope import HAS_ZSTD, MAX_HEADER_BYTES, Codec

if HAS_ZSTD:
    import zstandard

LZ4_BYTES: Final = 16 * 1024
"""LZ4 reads its dictionary anew for each value, and keeps 4,096 places of it: twice as much finds 1 % more of 1 kB
messages and costs a quarter more time, 64 KiB 2 % more at twice the time."""

ZSTD_BYTES: Final = 64 * 1024
"""One for zstd is prepared once, and its size costs nothing later."""

FEWEST_SAMPLES: Final = 20
HOLD_BACK_EVERY: Final = 5

_GRAM: Final = 6  # bytes that are counted together; with 8 the result is 2 % worse, with 10 4 %
_PIECE: Final = 48  # what is taken over at once: a few fields of a record, half a sentence
_PASSES: Final = 4  # so often each stretch is asked for a piece, if each time it has a good one
_PASSES_MAX: Final = 12
_BUILD_MAX_BYTES: Final = 256 * 1024  # half a second; twice as much finds little more


def train(samples: list[bytes], codec: Codec) -> bytes | None:
    """Return a dictionary for values like these; None when it would not save enough of those it has not seen."""
    if len(samples) < FEWEST_SAMPLES:
        return None
    held_back = samples[::HOLD_BACK_EVERY]
    seen = [sample for place, sample in enumerate(samples) if place % HOLD_BACK_EVERY]
    size = ZSTD_BYTES if codec is Codec.ZSTD else LZ4_BYTES
    data = trained(seen, size) if HAS_ZSTD else build(seen, size)
    if not data or saving(data, held_back, codec) < LEAST_SAVING:
        return None
    return data


def saving(data: bytes, values: Iterable[bytes], codec: Codec) -> float:
    """Return the share of their bytes that a dictionary saves, headers taken off."""
    compress = compressor(codec, data)
    raw = stored = 0
    for value in values:
        raw += len(value)
        stored += min(len(value), len(compress(value)) + MAX_HEADER_BYTES)
    return 1 - stored / raw if raw else 0.0


def trained(samples: list[bytes], size: int) -> bytes:
    """Let zstd choose; b"" when it finds nothing."""
    try:
        return zstandard.train_dictionary(size, [*samples]).as_bytes()
    except zstandard.ZstdError:
        return b""


def build(samples: list[bytes], size: int) -> bytes:
    """Gather pieces whose grams occur in most samples, the best last, where LZ4 looks first and keeps most places.

    The method is that of zstd's "cover": the samples are cut into stretches, the best piece of each is taken, again and
    again until there are enough; what a piece holds counts no more once it has been taken.
    """
    samples = _some(samples)
    counts: Counter[bytes] = Counter()
    for sample in samples:
        counts.update({sample[at : at + _GRAM] for at in range(len(sample) - _GRAM + 1)})
    grams = {gram: count for gram, count in counts.items() if count > 1}
    everything = b"".join(samples)
    stretch = max(len(everything) * _PASSES * _PIECE // size, _PIECE)
    pieces: list[tuple[int, bytes]] = []
    wanted = size
    for _ in range(_PASSES_MAX):
        before = wanted
        for start in range(0, len(everything), stretch):
            score, piece = _best_piece(everything[start : start + stretch], grams)
            if score and wanted > 0:
                pieces.append((score, piece))
                wanted -= len(piece)
        if wanted <= 0 or wanted == before:
            break
    return b"".join(piece for _, piece in sorted(pieces))[-size:]


def _some(samples: list[bytes]) -> list[bytes]:
    """Return samples from all over the list, as many as may be looked at."""
    every = max(1, -(-sum(map(len, samples)) // _BUILD_MAX_BYTES))
    return samples[::every]


def _best_piece(text: bytes, grams: dict[bytes, int]) -> tuple[int, bytes]:
    """Return the piece of a text whose grams count most, and how much; what it holds counts no more. 0 = there is none.

    In one line each on purpose: these loops are where the time goes.
    """
    counted = [grams.get(text[at : at + _GRAM], 0) for at in range(len(text) - _GRAM + 1)]
    sums = [0, *accumulate(counted)]
    width = min(_PIECE - _GRAM + 1, len(counted))
    scores = list(map(sub, sums[width:], sums))
    score = max(scores, default=0)
    if not score:
        return 0, b""
    start = scores.index(score)
    end = start + width
    while not counted[start]:
        start += 1
    while not counted[end - 1]:
        end -= 1
    for at in range(start, end):
        grams.pop(text[at : at + _GRAM], None)
    return score, text[start : end + _GRAM - 1]
