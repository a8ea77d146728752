"""How a body is compressed, and when trying is a waste.

Owns the choice of codec and its parameters, and the memory of what has not paid. What is worth it is said by who asks;
how a body is opened again is the envelope's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
import lz4.block

from proxy.values.envelope import HAS_ZSTD, Codec

if HAS_ZSTD:
    import zstandard

SAVED_UP_S: Final = 0.5
"""So much of the past counts for what may be spent at once."""

Compress = Callable[[bytes], bytes]

ZSTD_LEVEL: Final = 3
"""Of 1 kB messages level 6 saves 1 % more and costs twice the time; level 1 saves 4 % less."""

TRIES: Final = 32
"""So many values in a row that did not get smaller, and the rest of their sort are believed to be like them."""

TRIES_AGAIN: Final = 4
"""As many are tried when the time of leaving them alone is over."""

FIRST_REST_S: Final = 10.0
LAST_REST_S: Final = 600.0
"""What changes in an app is noticed ten minutes later; until then 4 tries of 30 us in ten minutes cost nothing."""


def compressor(codec: Codec, dictionary: bytes = b"") -> Compress:
    """Return what makes the body of an envelope from a value, with a dictionary or (b"") without.

    Not to be used by two threads at once. For one dictionary it is worth keeping.
    """
    if codec is Codec.LZ4:
        if dictionary:
            return partial(lz4.block.compress, store_size=False, dict=dictionary)
        return partial(lz4.block.compress, store_size=False)
    assert codec is Codec.ZSTD
    assert HAS_ZSTD
    # The envelope has a checksum and the dictionary's id; the length stays, it is what opening holds the frame to.
    options = zstandard.ZstdCompressionParameters.from_level(
        ZSTD_LEVEL, write_content_size=True, write_checksum=False, write_dict_id=False
    )
    if not dictionary:
        return zstandard.ZstdCompressor(compression_params=options).compress
    loaded = zstandard.ZstdCompressionDict(dictionary)
    loaded.precompute_compress(level=ZSTD_LEVEL)
    return zstandard.ZstdCompressor(compression_params=options, dict_data=loaded).compress


@attrs.define
class Patience:
    """Whether values of one sort are worth another try.

    Values that never pay are left alone, each time for twice as long; one that pays ends that.
    """

    _failed: int = 0  # in a row
    _rests_until: float = 0.0
    _rest_s: float = 0.0  # the last one; 0 before the first

    def is_resting(self, now: float) -> bool:
        """Return whether they are left alone for now."""
        return now < self._rests_until

    def paid(self) -> None:
        """Take note of one that got smaller."""
        if self._failed:
            self._failed = 0
            self._rest_s = 0.0

    def failed(self, now: float) -> None:
        """Take note of one that did not."""
        self._failed += 1
        if self._failed >= TRIES:
            self._rest_s = min(2 * self._rest_s, LAST_REST_S) if self._rest_s else FIRST_REST_S
            self._rests_until = now + self._rest_s
            self._failed = TRIES - TRIES_AGAIN


@attrs.define
class Allowance:
    """How much time compressing may take: a share of all time, and at once what was not used of the last half second.

    An app that writes without a pause must not become slower by more than that; one that pauses never notices.
    """

    share: float = 1.0
    _left_s: float = 0.0
    _counted_at: float = 0.0

    def has_some(self, now: float) -> bool:
        """Return whether any is left."""
        if now == self._counted_at:
            return self._left_s > 0 or self.share >= 1
        self._left_s = min(self._left_s + (now - self._counted_at) * self.share, SAVED_UP_S * self.share)
        self._counted_at = now
        return self._left_s > 0 or self.share >= 1

    def spend(self, seconds: float) -> None:
        """Take note of time that was spent."""
        self._left_s -= seconds
