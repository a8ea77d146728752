"""Make RESP values as raw frames, as a server could send them, for tests of whatever splits them."""

from __future__ import annotations

import random

from hypothesis import strategies as st

NESTED_MAX = 4


def blob(kind: bytes, value: bytes) -> bytes:
    """Write a value with a length."""
    return b"%b%d\r\n%b\r\n" % (kind, len(value), value)


def aggregate(kind: bytes, frames: list[bytes], per_count: int = 1) -> bytes:
    """Write an array, set, push, map or attribute of frames."""
    return b"%b%d\r\n%b" % (kind, len(frames) // per_count, b"".join(frames))


def random_frame(rng: random.Random, depth: int = 0) -> bytes:
    """Make one frame of any type, nested at random; a push only on the outside."""
    kind = rng.choice(b"+-:_#,($$$$=!NA" + (b"" if depth >= NESTED_MAX else b"**%~|>"))
    match chr(kind):
        case "+" | "-" | ":" | "," | "(":
            return b"%c%b\r\n" % (kind, rng.choice((b"", b"OK", b"0", b"-17", b"ERR no such thing", b"inf", b"$3")))
        case "_":
            return b"_\r\n"
        case "#":
            return rng.choice((b"#t\r\n", b"#f\r\n"))
        case "$" | "=" | "!":
            size = rng.choice((0, 1, 2, 3, 10, 300))
            return blob(b"%c" % kind, bytes(rng.choice(b"a\r\n*$+1\0\xff") for _ in range(size)))
        case "N":
            return b"$-1\r\n"
        case "A":
            return b"*-1\r\n"
        case ">" if depth:
            return b"*0\r\n"
    frames = [random_frame(rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 2, 3)))]
    match chr(kind):
        case "%":
            return aggregate(b"%", frames * 2, 2)
        case "|":
            return aggregate(b"|", frames * 2, 2) + random_frame(rng, depth + 1)
        case _:
            return aggregate(b"%c" % kind, frames)


frames = st.integers(min_value=0, max_value=2**32).map(lambda seed: random_frame(random.Random(seed)))
