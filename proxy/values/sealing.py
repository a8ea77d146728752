"""Seal a value on its way to Redis: wrap it, compress it, or leave it as it is.

    value --> looks like an envelope?  always wrapped, or it could not be told from one
          --> of no class that asks, a number, compressed already, small?  as it is
          --> dictionary of the class, or its codec --> saves enough?  envelope with the body compressed
                                                    --> else  envelope with the plain body, if it has a version

Owns these decisions and the memory of classes that never get smaller. Opening is `values.stream`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from proxy.values.compression import Allowance, Patience, compressor
from proxy.values.dictionary import Dictionaries
from proxy.values.envelope import HAS_ZSTD, MAGIC, Codec, header_of, wrap
from proxy.values.formats import is_compressed

if TYPE_CHECKING:
    from proxy.config.model import Compression
    from proxy.values.clock import HybridClock
    from proxy.values.rules import ClassRules

ENVELOPE_BYTES: Final = 24
"""What the header takes, more or less; a saving must pay for it where the value needs no envelope otherwise."""

DICTIONARY_FROM_BYTES: Final = 64
"""Below it the header is most of what a dictionary could save."""

DICTIONARY_TO_BYTES: Final = 64 * 1024
"""Above it a value has enough in itself that repeats, and LZ4 looks back no further."""

COMPRESSED_TO_BYTES: Final = 16 * 1024 * 1024
"""A longer value is not compressed: everybody waits while it is, 40 ms for so much JSON, and again for each reader."""

WRAPPED_TO_BYTES: Final = 32 * 1024 * 1024
"""A longer value is stored as it is, without a version. An envelope is opened as a whole, and its value must fit what
may wait for a client (listen.output_buffer_limit); a plain one streams."""

NUMBER_MAX_BYTES: Final = 5 * 1024  # what Redis reads as one (MAX_LONG_DOUBLE_CHARS)
_NUMBER: Final = re.compile(
    rb"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|0x[0-9a-f]*\.?[0-9a-f]*(?:p[+-]?[0-9]+)?|inf(?:inity)?)",
    re.IGNORECASE,
).fullmatch
_NUMBER_FIRST: Final = frozenset(b"0123456789+-.iI")


def is_number_like(value: bytes) -> bool:
    """Return whether INCR or INCRBYFLOAT take a value: such a one is never wrapped, so that they stay Redis' own."""
    return 0 < len(value) < NUMBER_MAX_BYTES and value[0] in _NUMBER_FIRST and _NUMBER(value) is not None


@attrs.define
class SealFigures:
    """Counted since the start."""

    tried: int = 0
    compressed: int = 0
    skipped_format: int = 0
    """Compressed before they came here."""
    out_of_time: int = 0
    """Stored as they are because compressing had taken its share of the time."""
    given_up: int = 0
    """Not tried because others of their class did not get smaller."""
    saved_bytes: int = 0
    written_bytes: int = 0
    """Of all values of classes with envelopes, as the app wrote them."""


class Sealer:
    """Seals values. `clock` is asked for versions, `dictionaries` for what classes have learnt.

    `timer` tells how long compressing takes, in seconds; without one it takes none.
    """

    def __init__(
        self, clock: HybridClock, dictionaries: Dictionaries, timer: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.clock = clock
        self._timer = timer
        self._allowance = Allowance()
        self.dictionaries = dictionaries
        self.figures = SealFigures()
        self.min_bytes = 10 * 1024
        self.on_small: Callable[[bytes], None] | None = None  # told of values that are too small to be compressed
        self._kept_share = 0.9  # a body longer than this share of its value is not worth it
        self._codec = Codec.LZ4
        self._compress = compressor(Codec.LZ4)
        self._patiences: dict[tuple[str, int], Patience] = {}  # of a class, with a dictionary or (0) without

    def configure(self, settings: Compression) -> None:
        """Take the settings of compression, now or when they have changed."""
        self.min_bytes = settings.min_bytes
        self._kept_share = 1 - settings.min_saving
        self._allowance.share = settings.time_share
        self._codec = Codec.ZSTD if settings.codec == "zstd" and HAS_ZSTD else Codec.LZ4
        self._compress = compressor(self._codec)
        self.dictionaries.codec = self._codec
        self._patiences.clear()

    def seal(self, rules: ClassRules | None, value: bytes, now: float, *, envelopes: bool) -> bytes:
        """Return what is stored for a value; the value itself, the same object, when nothing is to be done.

        `envelopes`: whether any are written that need not be.
        """
        parts = self.parts(rules, value, now, envelopes=envelopes)
        return value if parts is None else b"".join(parts)

    def parts(
        self, rules: ClassRules | None, value: bytes, now: float, *, envelopes: bool
    ) -> tuple[bytes, bytes] | None:
        """Return header and body of the envelope of a value, None when it is stored as it is; as `seal` decides."""
        asks = envelopes and rules is not None and rules.has_envelope
        if value[:4] == MAGIC:
            return header_of(value, self.clock.next() if asks and rules is not None and rules.version else 0), value
        if not asks:
            return None
        assert rules is not None
        size = len(value)
        self.figures.written_bytes += size
        is_small = size < self.min_bytes and not rules.dictionary
        if is_small:
            if self.on_small is not None and rules.compress:
                self.on_small(value)
            if not rules.version:
                return None
        if is_number_like(value) or size > WRAPPED_TO_BYTES:
            return None
        version = self.clock.next() if rules.version else 0
        parts = None if is_small else self._compressed(rules, value, version, now)
        if parts is None and version:
            parts = header_of(value, version), value
        return parts

    def seal_as(self, rules: ClassRules, value: bytes, version: int, now: float) -> bytes:
        """Return an envelope with a version that was chosen elsewhere, whatever the value looks like."""
        self.figures.written_bytes += len(value)
        parts = None if value[:4] == MAGIC else self._compressed(rules, value, version, now)
        return wrap(value, version) if parts is None else b"".join(parts)

    def try_out(self, value: bytes) -> tuple[int, float]:
        """Return how many bytes compressing a value would save, 0 where it would not be, and the seconds."""
        if is_compressed(value) or is_number_like(value):
            return 0, 0.0
        began = self._timer()
        stored = len(self._compress(value)) + ENVELOPE_BYTES
        saved = len(value) - stored if stored <= len(value) * self._kept_share else 0
        return saved, self._timer() - began

    def _compressed(self, rules: ClassRules, value: bytes, version: int, now: float) -> tuple[bytes, bytes] | None:
        """Return header and body with the value compressed, None where that is not possible or does not pay."""
        size = len(value)
        may_plain = rules.compress and self.min_bytes <= size <= COMPRESSED_TO_BYTES
        may_dictionary = rules.dictionary and DICTIONARY_FROM_BYTES <= size <= DICTIONARY_TO_BYTES
        if not may_plain and not may_dictionary:
            return None
        if is_compressed(value):
            self.figures.skipped_format += 1
            return None
        dictionary = None
        if may_dictionary:
            self.dictionaries.sample(rules.name, value)
            dictionary = self.dictionaries.current(rules.name, now)
        if dictionary is None and not may_plain:
            return None
        patience = self._patience(rules.name, 0 if dictionary is None else dictionary.id)
        if patience.is_resting(now):
            self.figures.given_up += 1
            if dictionary is not None:
                self.dictionaries.used(rules.name, size, size)
            return None
        if not self._allowance.has_some(now):
            self.figures.out_of_time += 1
            return None
        self.figures.tried += 1
        began = self._timer()
        body = self._compress(value) if dictionary is None else dictionary.compress(value)
        self._allowance.spend(self._timer() - began)
        stored = len(body) if version else len(body) + ENVELOPE_BYTES
        if dictionary is not None:
            self.dictionaries.used(rules.name, size, min(stored, size))
        if stored > size * self._kept_share:
            patience.failed(now)
            return None
        patience.paid()
        self.figures.compressed += 1
        self.figures.saved_bytes += size - stored
        if dictionary is None:
            return header_of(value, version, codec=self._codec), body
        return header_of(value, version, codec=dictionary.codec, dictionary=dictionary.id), body

    def _patience(self, class_name: str, dictionary: int) -> Patience:
        found = self._patiences.get((class_name, dictionary))
        if found is None:
            found = self._patiences[class_name, dictionary] = Patience()
        return found
