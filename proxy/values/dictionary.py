"""Dictionaries for small values: those that are known, the one a class uses, and the samples for the next.

    small writes --sample--> [samples] --due--> trained elsewhere --> hash in Redis, announced --learn--> used

Owns what this worker knows of them. One that is learnt is used only a second later: by then every other worker has it,
or will ask for it. None is forgotten for good here: what is no longer known is fetched again by its id, and in Redis
they stay, because a value may need any of them. Those in use are put back there when they are gone: flushed, evicted.
"""

from __future__ import annotations

from collections import deque
from typing import Final
from zlib import crc32

import attrs

from proxy.values.compression import Compress, compressor
from proxy.values.envelope import HAS_ZSTD, Codec, DictionaryBytes

USED_AFTER_S: Final = 1.0
KNOWN_MAX: Final = 256
"""Of 16 to 64 KiB each, so 16 MiB at worst."""

SAMPLE_EVERY: Final = 4
SAMPLE_EVERY_LATER: Final = 64
"""While there is a dictionary, what it would be replaced by is gathered slowly."""

SAMPLE_MAX_BYTES: Final = 8 * 1024
SAMPLES_MAX: Final = 2_000
SAMPLES_MAX_BYTES: Final = 1024 * 1024
"""A class. More takes training longer and finds nothing more."""

ENOUGH_SAMPLES: Final = 400
ENOUGH_BYTES: Final = 64 * 1024
AGAIN_AFTER_S: Final = 300.0
AGAIN_AFTER_MAX_S: Final = 86_400.0
"""Training again: after 5 minutes the first time, at last once a day. Each one that pays is one more in Redis."""

WINDOW: Final = 1_000
"""So many values say what a dictionary saves."""

LEAST_SAVING: Final = 0.10
LOST_SAVING: Final = 0.15
"""A dictionary that saves so much less of its values than at its best has grown old."""


@attrs.frozen
class Dictionary:
    """One dictionary, and what uses it."""

    id: int
    codec: Codec
    data: DictionaryBytes
    compress: Compress = attrs.field(eq=False, repr=False)


@attrs.frozen
class Stored:
    """A dictionary as the hash in Redis has it."""

    id: int
    class_name: str
    codec: Codec
    data: bytes


def id_of(data: bytes) -> int:
    """Return the id of a dictionary: the checksum of its bytes, never 0."""
    return crc32(data) or 1


def stored(class_name: str, codec: Codec, data: bytes) -> tuple[bytes, bytes]:
    """Return field and value of a dictionary in the hash."""
    return b"%d" % id_of(data), b"%b\0%d\0%b" % (class_name.encode(), codec, data)


def parse_stored(field: bytes, value: bytes) -> Stored | None:
    """Read a field of the hash; None for what is not a dictionary, or not the one that the field says."""
    name, _, rest = value.partition(b"\0")
    codec, _, data = rest.partition(b"\0")
    if not data or field != b"%d" % id_of(data) or codec not in (b"1", b"2"):
        return None
    return Stored(id_of(data), name.decode("utf-8", "replace"), Codec(int(codec)), data)


@attrs.define
class _OfClass:
    """What is known of one class."""

    current: Dictionary | None = None
    coming: Dictionary | None = None
    coming_at: float = 0.0
    writes: int = 0
    samples: deque[bytes] = attrs.Factory(deque)
    sample_bytes: int = 0
    due_at: float = 0.0
    wait_s: float = AGAIN_AFTER_S
    values: int = 0  # of the window that is under way ..
    raw_bytes: int = 0
    stored_bytes: int = 0
    best_saving: float = 0.0  # .. and the best one of the current dictionary
    is_old: bool = False

    def newest(self) -> Dictionary | None:
        return self.coming or self.current

    def has_enough(self) -> bool:
        # Of large values there is never room for so many.
        size = self.sample_bytes
        return (size >= ENOUGH_BYTES and len(self.samples) >= ENOUGH_SAMPLES) or size >= SAMPLES_MAX_BYTES // 2


class Dictionaries:
    """All that are known, by id and by class. `codec` is what new ones are to be made for."""

    def __init__(self) -> None:
        self.known: dict[int, bytes] = {}
        """Their bytes, for whoever opens values; b"" for one that is known to be lost."""
        self.codec = Codec.LZ4
        self._classes: dict[str, _OfClass] = {}

    def learn(self, dictionary: int, class_name: str, codec: Codec, data: bytes, now: float) -> None:
        """Know a dictionary from now on; the class uses it after a second.

        Bytes that are not those of the id count as lost. A class stays with one for `codec` rather than take another.
        """
        if id_of(data) != dictionary:
            self.lost(dictionary)
            return
        is_news = not self.known.get(dictionary)
        held = DictionaryBytes(data)
        if is_news:
            self._know(dictionary, held)
        if codec is Codec.ZSTD and not HAS_ZSTD:
            return
        found = self._of(class_name)
        newest = found.newest()
        if newest is not None and (newest.id == dictionary or (newest.codec is self.codec and codec is not self.codec)):
            return
        found.coming = Dictionary(dictionary, codec, held, compressor(codec, held))
        found.coming_at = now + USED_AFTER_S
        found.samples.clear()
        found.sample_bytes = 0

    def lost(self, dictionary: int) -> None:
        """Take note that nobody has a dictionary: what was compressed with it is damaged. One that is known stays."""
        if not self.known.get(dictionary):
            self._know(dictionary, b"")

    def in_use(self) -> list[tuple[str, Dictionary]]:
        """Return, with their classes, those that values are compressed with, or will be in a moment."""
        return [
            (name, one)
            for name, found in self._classes.items()
            for one in (found.current, found.coming)
            if one is not None
        ]

    def current(self, class_name: str, now: float) -> Dictionary | None:
        """Return the one that values of a class are to be compressed with."""
        found = self._classes.get(class_name)
        if found is None:
            return None
        if found.coming is not None and now >= found.coming_at:
            found.current, found.coming = found.coming, None
            found.values = found.raw_bytes = found.stored_bytes = 0
            found.best_saving, found.is_old = 0.0, False
        return found.current

    def used(self, class_name: str, raw_bytes: int, stored_bytes: int) -> None:
        """Take note of what the current dictionary has done for a value."""
        found = self._classes[class_name]
        found.values += 1
        found.raw_bytes += raw_bytes
        found.stored_bytes += stored_bytes
        if found.values >= WINDOW:
            saving = 1 - found.stored_bytes / found.raw_bytes
            found.best_saving = max(found.best_saving, saving)
            found.is_old = saving < max(LEAST_SAVING, found.best_saving - LOST_SAVING)
            found.values = found.raw_bytes = found.stored_bytes = 0

    def sample(self, class_name: str, value: bytes) -> None:
        """Offer a small value that was written: every so many are kept, the latest of them."""
        found = self._of(class_name)
        found.writes += 1
        has_one = found.current is not None and not found.is_old
        if found.writes % (SAMPLE_EVERY_LATER if has_one else SAMPLE_EVERY):
            return
        taken = value[:SAMPLE_MAX_BYTES]
        found.samples.append(taken)
        found.sample_bytes += len(taken)
        while len(found.samples) > SAMPLES_MAX or found.sample_bytes > SAMPLES_MAX_BYTES:
            found.sample_bytes -= len(found.samples.popleft())

    def due(self, now: float) -> tuple[str, list[bytes]] | None:
        """Return a class that needs a dictionary, and samples to train it with; None when there is no such class.

        It is not returned again soon, whatever becomes of it.
        """
        for name, found in self._classes.items():
            newest = found.newest()
            if (
                now >= found.due_at
                and found.has_enough()
                and (newest is None or newest.codec is not self.codec or (found.is_old and found.coming is None))
            ):
                found.due_at = now + found.wait_s
                return name, list(found.samples)
        return None

    def trained(self, class_name: str, data: bytes | None, now: float) -> None:
        """Take note of what training has brought; one that paid (not None) is learnt when it lies in Redis."""
        found = self._of(class_name)
        found.due_at = now + found.wait_s
        found.wait_s = min(2 * found.wait_s, AGAIN_AFTER_MAX_S)
        if data is None:
            found.samples.clear()
            found.sample_bytes = 0

    def _of(self, class_name: str) -> _OfClass:
        found = self._classes.get(class_name)
        if found is None:
            found = self._classes[class_name] = _OfClass()
        return found

    def _know(self, dictionary: int, data: bytes) -> None:
        self.known[dictionary] = data
        if len(self.known) > KNOWN_MAX:
            in_use = {one.id for found in self._classes.values() for one in (found.current, found.coming) if one}
            in_use.add(dictionary)
            oldest = next((one for one in self.known if one not in in_use), None)
            if oldest is not None:
                del self.known[oldest]
