"""Times and sizes as people write them: "250ms", "64MiB".

Owns both directions, so that a message quotes a limit in the form the operator would write. Knows no key.
"""

from __future__ import annotations

import math
import re
from typing import TypeGuard

# Only what cannot be misread: Redis' own "64mb" means 1024-based, elsewhere it means 1000-based, so it is refused.
_SECONDS_PER = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES_PER = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_BYTES_PER_LOWER = {unit.lower(): factor for unit, factor in _BYTES_PER.items()}

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", re.ASCII)


def is_whole(value: object) -> TypeGuard[int]:
    """Say whether a TOML value is a whole number; to Python, true and false are numbers too."""
    return isinstance(value, int) and not isinstance(value, bool)


def parse_seconds(value: object) -> float:
    """Read a time: "250ms", "10s", "5m", "1h", "1d", or a plain number of seconds.

    Returns seconds, finite and never negative. Raises ValueError with the reason.
    """
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value)
        if match is None or match[2] not in _SECONDS_PER:
            raise ValueError(f"a time is a number and one of {', '.join(_SECONDS_PER)}")
        return float(match[1]) * _SECONDS_PER[match[2]]
    if not (is_whole(value) or isinstance(value, float)):
        raise ValueError("a time is a text such as '250ms', or a number of seconds")
    if not math.isfinite(value) or value < 0:
        raise ValueError("a time is finite and not negative")
    return float(value)


def parse_bytes(value: object) -> int:
    """Read a size: "64MiB", "1.5GiB", "512B", or a plain whole number of bytes.

    Returns bytes, never negative. Raises ValueError with the reason.
    """
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value)
        if match is None or match[2].lower() not in _BYTES_PER_LOWER:
            raise ValueError(f"a size is a number and one of {', '.join(_BYTES_PER)}")
        return int(float(match[1]) * _BYTES_PER_LOWER[match[2].lower()])
    if not is_whole(value):
        raise ValueError("a size is a text such as '64MiB', or a whole number of bytes")
    if value < 0:
        raise ValueError("a size is not negative")
    return value


def format_seconds(seconds: float) -> str:
    """Write a time with the largest unit that keeps it whole: 300.0 is "5m", 0.25 is "250ms"."""
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count = seconds / _SECONDS_PER[unit]
        # 1e-9 of slack: 0.25 / 1e-3 is not exactly 250 in binary.
        if abs(count - round(count)) < 1e-9 * count:
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def format_bytes(size: int) -> str:
    """Write a size with the largest unit that keeps it whole: 67108864 is "64MiB", 1500 is "1500B"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _BYTES_PER[unit] and size % _BYTES_PER[unit] == 0:
            return f"{size // _BYTES_PER[unit]}{unit}"
    return f"{size}B"
