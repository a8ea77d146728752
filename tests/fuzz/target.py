"""What the fuzzer aims at: one reader of bytes, what it is fed with, and what must hold whatever comes.

Owns the form of a target. One is a pure function of its bytes: what else it needs (where to cut, say) it derives from
them, so that an input that fails once fails always.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import ModuleType
from typing import Final

import attrs

from ..wire.feeding import cut, singly

_SINGLY_BELOW: Final = 48
_SINGLY_SHARE: Final = 0.04


class BrokenRuleError(AssertionError):
    """A reader of ours took an input, and made of it what must not be."""


def _as_it_is(data: bytes) -> bytes:
    return data


@attrs.frozen
class Target:
    """One reader.

    `run` raises for an input that it finds something wrong with, whatever it raises; if it returns an awaitable, that
    is awaited, under a trio clock that does not wait. `modules` are those whose lines count. `tokens` are what inputs
    are made of, `make` builds a whole one that is valid, or nearly, `repair` puts lengths and checksums right again.
    """

    name: str
    run: Callable[[bytes], Awaitable[None] | None]
    modules: Sequence[ModuleType]
    seeds: Sequence[bytes]
    tokens: Sequence[bytes]
    make: Callable[[random.Random], bytes] | None = None
    repair: Callable[[bytes], bytes] = _as_it_is
    max_bytes: int = 512
    """No input is longer: what a parser does wrong, it does with few bytes."""
    jump_bytes: int = 32 << 20
    """How much memory one input may take."""
    slow_s: float = 1.0
    """How long an input may be worked on."""
    short_inputs: int = 100
    """How many inputs `make test` tries, besides those of the corpus."""


def dice(data: bytes) -> random.Random:
    """Return the chance that belongs to an input."""
    return random.Random(zlib.crc32(data))


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Yield the ways in which an input arrives in pieces: at random, and byte by byte where that is not dear."""
    rng = dice(data)
    yield cut(data, rng)
    if len(data) < _SINGLY_BELOW or rng.random() < _SINGLY_SHARE:
        yield singly(data)


def expect(is_so: object, rule: str, *facts: object) -> None:
    """Raise BrokenRuleError with the rule and the facts, unless it is so."""
    if not is_so:
        raise BrokenRuleError(": ".join([rule, *(f"{fact!r:.300}" for fact in facts)]))
