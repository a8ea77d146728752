r"""The inputs that are kept: `corpus/TARGET.jsonl`, one a line, as a JSON text whose characters are the bytes.

Owns the files, and how few inputs they need: the shortest ones that together take every step that all of them take,
each made shorter as long as it still takes what it is kept for.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

from .lines import Step

FOLDER: Final = Path(__file__).parent / "corpus"
_TRIES: Final = 48  # to make one shorter

Steps = Callable[[bytes], Awaitable[frozenset[Step]]]
"""Says which steps an input takes."""


def load(name: str) -> list[bytes]:
    """Return what is kept for a target; nothing where there is no file."""
    path = FOLDER / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line).encode("latin-1") for line in path.read_text().splitlines()]


def save(name: str, inputs: Iterable[bytes]) -> Path:
    """Write what is kept for a target, the shortest first."""
    path = FOLDER / f"{name}.jsonl"
    ordered = sorted(set(inputs), key=lambda one: (len(one), one))
    path.write_text("".join(f"{json.dumps(one.decode('latin-1'))}\n" for one in ordered))
    return path


async def minimise(
    inputs: Iterable[bytes], steps_of: Steps, is_late: Callable[[], bool] = lambda: False
) -> list[bytes]:
    """Return few and short inputs that take the same steps together; once it is late, few ones as they are."""
    kept: list[bytes] = []
    taken: set[Step] = set()
    for one in sorted(set(inputs), key=lambda one: (len(one), one)):
        new = await steps_of(one) - taken
        if new:
            shorter = await shrink(one, partial(_takes, steps_of, new), tries=0 if is_late() else _TRIES)
            taken |= new if shorter is one else await steps_of(shorter)
            kept.append(shorter)
    return kept


async def _takes(steps_of: Steps, wanted: frozenset[Step], data: bytes) -> bool:
    return wanted <= await steps_of(data)


async def shrink(data: bytes, is_enough: Callable[[bytes], Awaitable[bool]], *, tries: int) -> bytes:
    """Return a shorter input that is still enough, found in so many tries: piece after piece is left out."""
    size = len(data) // 2
    while size and tries > 0:
        at = 0
        while at < len(data) and tries > 0:
            shorter = data[:at] + data[at + size :]
            tries -= 1
            if await is_enough(shorter):
                data = shorter
            else:
                at += size
        size -= max(size // 3, 1)
    return data
