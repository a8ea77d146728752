"""How long blocking commands ask Redis to wait: where in their words each of them says so, and in which unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

FOREVER: Final = float("inf")
_LAST: Final = -1
_WAITS: Final[Mapping[bytes, tuple[int, float]]] = {
    **dict.fromkeys((b"BLPOP", b"BRPOP", b"BRPOPLPUSH", b"BLMOVE", b"BZPOPMIN", b"BZPOPMAX"), (_LAST, 1.0)),
    **dict.fromkeys((b"BLMPOP", b"BZMPOP"), (1, 1.0)),
    **dict.fromkeys((b"WAIT", b"WAITAOF"), (_LAST, 0.001)),
}
"""Name -> the place of the number, and how many seconds its unit is."""
_WIDTHS: Final = {b"GROUP": 3, b"COUNT": 2, b"BLOCK": 2, b"CLAIM": 2}
"""Options of XREAD and XREADGROUP, and how many words each is: names among them may be like those of others."""


def waits_s(name: bytes, args: Sequence[bytes]) -> float:
    """Return for how many seconds a command may block; infinity where it is for ever, or not known."""
    place = _WAITS.get(name)
    if place is not None and len(args) > max(place[0], 1):
        return _seconds(args[place[0]], place[1])
    at, found = 1, FOREVER
    while at + 1 < len(args) and (option := bytes(args[at]).upper()) != b"STREAMS":
        if option == b"BLOCK":
            found = _seconds(args[at + 1], 0.001)
        at += _WIDTHS.get(option, 1)
    return found


def _seconds(word: bytes, unit_s: float) -> float:
    try:
        found = float(bytes(word)) * unit_s
    except ValueError:
        return 0.0  # Redis says so at once
    if found == 0:
        return FOREVER
    return found if found > 0 else 0.0  # nor is it any time if it is no number
