"""Readers with a mistake in each, for the tests of the fuzzer."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from .target import Target, expect

_HELD: Final[list[bytes]] = []


def _deep(data: bytes) -> None:
    """Fail behind steps that chance alone does not take together."""
    for at, wanted in enumerate(b"bug"):
        if data[at : at + 1] != b"%c" % wanted:
            return
        _STEPS[at]()
    raise RuntimeError("behind three steps")


_STEPS: Final = (
    lambda: "one",
    lambda: "two",
    lambda: "three",
)


def _endless(data: bytes) -> None:
    while b"~" in data:
        pass


async def _waiting(data: bytes) -> None:
    """Wait for what never comes."""
    if b"~" in data:
        await trio.sleep_forever()


def _hoarding(data: bytes) -> None:
    if b"~" in data:
        expect(b"x" * (64 << 20), "no memory")


def _growing(data: bytes) -> None:
    _HELD.append(bytes(16 * 1024) + data)


def _pairs(data: bytes) -> None:
    """Take two bytes at a time, and stumble over the last one of an odd number."""
    for at in range(0, len(data), 2):
        data[at + 1]


def _planted(name: str, run: Callable[[bytes], Awaitable[None] | None], seed: bytes) -> Target:
    return Target(name, run, [sys.modules[__name__]], [seed], [b"~", b"x"], slow_s=0.1)


DEEP: Final = Target("deep", _deep, [sys.modules[__name__]], [b"xxxx"], [bytes((letter,)) for letter in range(97, 121)])
ENDLESS: Final = _planted("endless", _endless, b"xx~xx")
WAITING: Final = _planted("waiting", _waiting, b"xx~xx")
HOARDING: Final = _planted("hoarding", _hoarding, b"xx~xx")
GROWING: Final = _planted("growing", _growing, b"x")
PAIRS: Final = _planted("pairs", _pairs, b"abcdefg")
FINE: Final = _planted("fine", lambda data: None, b"x")


def forget() -> None:
    """Let go of what GROWING holds."""
    _HELD.clear()
