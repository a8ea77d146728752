r"""Open enveloped values in what a link receives, before anything else sees it.

    recv -> [..$300\r\n<magic><header><body>\r\n..] --StreamOpener--> [..$2048\r\n<value>\r\n..] -> slots

Owns the bytes of an envelope that has not arrived whole; everything else passes on at once. Whoever reads a reply - a
client, L1, a comparison - finds plain values, whatever the command and at any depth. A blob that begins with the magic
and does not check out passes as it is: in a key of another type it may be anybody's data, and who knows that it is none
says that it is damaged (`is_sealed`), unless it is what a client wrote, wrapped as anything else (`Lookalikes`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from proxy.errors import DamagedValueError, UnknownDictionaryError
from proxy.values.envelope import MAGIC, Header, open_value
from proxy.wire.reply import FrameScanner

_FIRST: Final = MAGIC[:1]  # one byte that no UTF-8 text has: the search for it is ten times that for the whole magic
_TAIL_BYTES: Final = 24
_CUT: Final = re.compile(
    rb"\$[0-9]*\r?\Z|\$[0-9]+\r\n" + b"(?:%b)?" % b"|".join(re.escape(MAGIC[:size]) for size in (1, 2, 3)) + rb"\Z"
)
_BLOBS: Final = b"$=!"
_LOOKALIKES_MAX: Final = 10_000


class Lookalikes:
    """Values that begin with the magic and came out of an envelope: who wrote them meant them so.

    The latest of them, by their hash; shared by the links of a worker, who hand a reply on as soon as it is opened.
    """

    def __init__(self) -> None:
        self._hashes: dict[int, None] = {}

    def add(self, value: bytes) -> None:
        """Remember one."""
        if len(self._hashes) >= _LOOKALIKES_MAX:
            del self._hashes[next(iter(self._hashes))]
        self._hashes[hash(value)] = None

    def has(self, frame: bytes) -> bool:
        """Return whether a reply (one bulk string) is such a value."""
        return bool(self._hashes) and hash(frame[frame.find(b"\n") + 1 : -2]) in self._hashes


class StreamOpener:
    """Open what passes on one link. `dictionaries` are the bytes of all that are known, by id.

    `on_open` hears of each value: its header, and how many bytes it took stored. `waits_for` is the id of a dictionary
    that is not known (0 = none): until it is, or is given up (`give_up`), everything from its value on is held back.
    `lookalikes` gets those that begin as envelopes do themselves.
    """

    __slots__ = ("_dictionaries", "_given_up", "_held", "_lookalikes", "_need", "_on_open", "_size", "waits_for")

    def __init__(
        self,
        dictionaries: Mapping[int, bytes],
        on_open: Callable[[Header, int], None],
        lookalikes: Lookalikes | None = None,
    ) -> None:
        self.waits_for = 0
        self._dictionaries = dictionaries
        self._on_open = on_open
        self._lookalikes = lookalikes or Lookalikes()
        self._held: list[bytes] = []  # from the `$` of a blob on that has not come whole
        self._size = 0
        self._need = 0  # bytes that must be held before it is worth another look
        self._given_up: set[int] = set()

    def open(self, scanner: FrameScanner, data: bytes) -> bytes:
        """Return what may be passed on: `data` with its values opened, less what is held back.

        `scanner` is the link's: it says inside of what the last chunk ended.
        """
        if self._held:
            self._held.append(data)
            self._size += len(data)
            if self._size < self._need:
                return b""
            data = b"".join(self._held)
            self._held.clear()
            self._size = 0
        elif data.find(_FIRST) < 0 and (data.find(b"$", -_TAIL_BYTES) < 0 or not _CUT.search(data[-_TAIL_BYTES:])):
            return data
        return self._open(scanner, data)

    def give_up(self, dictionary: int) -> None:
        """Wait for a dictionary no more: nobody has it, and what needs it is damaged."""
        self.waits_for = 0
        self._given_up.add(dictionary)

    def _open(self, scanner: FrameScanner, data: bytes) -> bytes:
        self.waits_for = 0
        out: list[bytes] = []
        start = 0  # of what has not been passed on
        size = len(data)
        pos = scanner.offset_of_next_header(data)
        while pos < size:
            end_of_line = data.find(b"\n", pos)
            if end_of_line < 0:
                if data[pos] == 0x24 and size - pos <= _TAIL_BYTES:  # longer is no length: the link will say so
                    self._hold(data[pos:], 0)
                    size = pos
                break
            if data[pos] not in _BLOBS:
                pos = end_of_line + 1
                continue
            try:
                length = int(data[pos + 1 : end_of_line])
            except ValueError:
                break  # no RESP: the link will say so
            body = end_of_line + 1
            end = body + length + 2 if length >= 0 else body
            if data[pos] == 0x24 and length > len(MAGIC) and data.startswith(MAGIC[: max(size - body, 0)], body):
                if end > size:
                    # Up to the magic it may be any value, which nobody is to wait for.
                    self._hold(data[pos:], end - pos if size - body >= len(MAGIC) else body + len(MAGIC) - pos)
                    size = pos
                    break
                try:
                    value = self._value(data[body : body + length])
                except UnknownDictionaryError as exc:
                    self.waits_for = exc.id
                    self._hold(data[pos:], 0)
                    size = pos
                    break
                if value is not None:
                    out += (data[start:pos], b"$%d\r\n" % len(value), value, b"\r\n")
                    start = end
            pos = end
        if not out:
            return data if size == len(data) else data[:size]
        out.append(data[start:size])
        return b"".join(out)

    def _value(self, stored: bytes) -> bytes | None:
        try:
            value, header = open_value(stored, self._dictionaries)
        except UnknownDictionaryError as exc:
            if exc.id in self._given_up:
                return None
            raise
        except DamagedValueError:
            return None
        self._on_open(header, len(stored))
        if value.startswith(MAGIC):
            self._lookalikes.add(value)
        return value

    def _hold(self, data: bytes, need: int) -> None:
        self._held.append(data)
        self._size = len(data)
        self._need = need


def is_sealed(frame: bytes) -> bool:
    """Return whether a reply is one bulk string that begins with the magic: behind a StreamOpener, a damaged value."""
    return frame.startswith(MAGIC, frame.find(b"\n") + 1) and frame[:1] == b"$"
