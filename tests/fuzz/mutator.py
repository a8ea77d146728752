"""New inputs from old ones: bits, blocks, numbers, lengths, tokens, and pieces of other inputs.

Owns the ways to change one. Knows no format: numbers in ASCII and lengths in binary are found by how they look. All
chance comes from one seeded generator.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final

_DECIMALS: Final = re.compile(rb"-?[0-9]+")
_NUMBERS: Final = (
    *(b"0", b"1", b"-1", b"-0", b"00", b"9", b"10", b"99", b"100", b"255", b"256", b"1024", b"65535", b"65536"),
    *(b"2147483647", b"2147483648", b"4294967295", b"4294967296", b"-2147483649", b"9223372036854775807"),
    *(b"9223372036854775808", b"18446744073709551616", b"1" * 40, b"1_0", b"+1", b" 1", b"1.5", b"1e9", b"0x10"),
)
_BYTES: Final = b"\0\1\t\n\r \"'*?[\\]{}:,.\x7f\x80\xc3\xff"
_SIZES: Final = (1, 2, 4, 8)


class Mutator:
    """Makes inputs of at most `max_bytes`."""

    def __init__(self, rng: random.Random, tokens: Sequence[bytes], max_bytes: int) -> None:
        self._rng = rng
        self._tokens = tokens or (b"\0",)
        self._max_bytes = max_bytes
        self._ways: tuple[Callable[[bytearray], None], ...] = (
            *(self._flip, self._put_byte, self._put_token, self._put_token, self._insert_token, self._insert_token),
            *(self._number, self._number, self._length, self._drop, self._drop, self._double, self._move, self._nest),
        )

    def mutate(self, data: bytes, other: bytes) -> bytes:
        """Return `data` changed in one to some ways, perhaps with a piece of `other` in it."""
        rng = self._rng
        changed = bytearray(data)
        if other and rng.random() < 0.2:
            self._splice(changed, other)
        for _ in range(1 + int(rng.expovariate(0.8))):
            if not changed:
                changed += rng.choice(self._tokens)
            rng.choice(self._ways)(changed)
        return bytes(changed[: self._max_bytes])

    def _place(self, data: bytearray) -> int:
        return self._rng.randrange(len(data))

    def _block(self, data: bytearray) -> slice:
        """Choose a piece, mostly a short one."""
        start = self._place(data)
        return slice(start, start + 1 + int(self._rng.expovariate(0.15)))

    def _splice(self, data: bytearray, other: bytes) -> None:
        cut = self._rng.randrange(len(data) + 1)
        start = self._rng.randrange(len(other))
        if self._rng.random() < 0.5:
            data[cut:] = other[start:]
        else:
            data[cut:cut] = other[start : start + 1 + int(self._rng.expovariate(0.05))]

    def _flip(self, data: bytearray) -> None:
        data[self._place(data)] ^= 1 << self._rng.randrange(8)

    def _put_byte(self, data: bytearray) -> None:
        data[self._place(data)] = self._rng.choice(_BYTES) if self._rng.random() < 0.7 else self._rng.randrange(256)

    def _put_token(self, data: bytearray) -> None:
        at, token = self._place(data), self._rng.choice(self._tokens)
        data[at : at + len(token)] = token

    def _insert_token(self, data: bytearray) -> None:
        at = self._rng.randrange(len(data) + 1)
        data[at:at] = self._rng.choice(self._tokens)

    def _number(self, data: bytearray) -> None:
        """Change a number in ASCII: by one, to another, or into what only looks like one."""
        found = list(_DECIMALS.finditer(data))
        if not found:
            self._put_byte(data)
            return
        one = self._rng.choice(found)
        match self._rng.randrange(4):
            case 0:
                new = b"%d" % (int(one[0][:18]) + self._rng.choice((-2, -1, 1, 2)))
            case 1:
                new = b"%d" % self._rng.choice((len(data) - one.end(), max(len(data) - one.end() - 4, 0)))
            case 2:
                new = self._rng.choice((b"0", b"-", b"+", b"")) + one[0]
            case _:
                new = self._rng.choice(_NUMBERS)
        data[one.start() : one.end()] = new

    def _length(self, data: bytearray) -> None:
        """Write a number of some bytes, big endian, mostly one that has to do with what follows it."""
        size = self._rng.choice(_SIZES)
        at = self._place(data)
        rest = max(len(data) - at - size, 0)
        end = 1 << (8 * size)
        old = int.from_bytes(data[at : at + size], "big")
        number = self._rng.choice((rest, rest - 1, rest + 1, old - 1, old + 1, 0, end - 1, end >> 1, 0x7F, 0x80))
        data[at : at + size] = (number % end).to_bytes(size, "big")

    def _drop(self, data: bytearray) -> None:
        del data[self._block(data)]

    def _double(self, data: bytearray) -> None:
        piece = self._block(data)
        data[piece.start : piece.start] = data[piece]

    def _move(self, data: bytearray) -> None:
        piece = bytes(data[self._block(data)])
        at = self._rng.randrange(len(data) + 1)
        data[at : at + len(piece) * self._rng.randrange(2)] = piece

    def _nest(self, data: bytearray) -> None:
        """Repeat a token or a piece so often that what is counted, or stacked, is many."""
        piece = self._rng.choice(self._tokens) if self._rng.random() < 0.5 else bytes(data[self._block(data)])
        at = self._rng.randrange(len(data) + 1)
        data[at:at] = piece * min(1 << self._rng.randrange(1, 9), self._max_bytes // max(len(piece), 1) + 1)
