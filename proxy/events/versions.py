"""What publishers write for a version, brought to the form that envelopes have (values.clock).

    1732272000000               milliseconds            that whole millisecond
    "2024-11-22T10:40:00Z"      ISO 8601, with offset   all of what it leaves open: here that whole second
    113526177792000007          a version               itself
    0                           none                    None

A text may be cut short, as most clocks' texts are: the change itself came at any moment of what it names. The end of
that is taken, so that a value from before the change is never held to be newer: a moment too much is dropped, none too
little. For the same reason what is likely no such number is refused and not taken for an ancient one, which would
change nothing, silently: seconds, microseconds, a time that was never set, a time of no known zone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from proxy.values.clock import VERSION_BITS

VERSION_MAX: Final = (1 << 63) - 1
"""The highest version: Redis replies with signed integers."""

WANTED: Final = "is a whole number of milliseconds since 1970, an ISO 8601 time with its offset, or a version"

_MS_END: Final = 1 << 48  # below are milliseconds, as for RESPITE SETV; a version of 1971 and after is above
_WHOLE_MS: Final = (1 << VERSION_BITS) - 1
_TIMES_FROM_MS: Final = 100_000_000_000  # 1973: earlier ones are another unit, or a time that was never set
_SECONDS_FROM: Final = 1_000_000_000  # 2001 in seconds; smaller numbers may be somebody's own counter
_EXACT_FLOAT: Final = 1 << 53
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_ISO: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?(?: ?([Zz]|[+-]\d\d(?::?\d\d)?))?", re.ASCII
)


def version_of(value: object) -> int | None:
    """Return the version that a number or text means, None for 0. Raises ValueError: what it is instead, from "is"."""
    if isinstance(value, str):
        text = value.strip()
        if not (text.isascii() and text.isdecimal()):
            return _version_of_time(text)
        value = int(text) if len(text) <= 20 else -1
    elif isinstance(value, float) and value.is_integer() and abs(value) < _EXACT_FLOAT:
        value = int(value)
    if type(value) is not int or not 0 <= value <= VERSION_MAX:
        raise ValueError(WANTED)
    if value < _MS_END:
        if _SECONDS_FROM <= value < _TIMES_FROM_MS:
            raise ValueError(f"is {value}, which looks like seconds; milliseconds since 1970 are wanted")
        return _end_of(value) if value else None
    if value >> VERSION_BITS < _TIMES_FROM_MS:
        raise ValueError(f"is {value}, which looks like microseconds; milliseconds since 1970 are wanted")
    return value


def moment_of(value: object) -> int | None:
    """Return the moment that a number of milliseconds or an ISO 8601 text means, in milliseconds since 1970.

    None for whatever else: a time that only feeds figures spoils no event.
    """
    if isinstance(value, str):
        try:
            return _times_of(value.strip())[0]
        except ValueError:
            return None
    return value if type(value) is int and _TIMES_FROM_MS <= value < _MS_END else None


def _version_of_time(text: str) -> int:
    _, last_ms = _times_of(text)
    if last_ms < _TIMES_FROM_MS:
        raise ValueError(f"is {text[:40]!r}, a time that was never set")
    return _end_of(last_ms)


def _end_of(ms: int) -> int:
    version = ms << VERSION_BITS | _WHOLE_MS
    if version > VERSION_MAX:
        raise ValueError(f"is {ms} milliseconds since 1970, which is past the year 6429")
    return version


def _times_of(text: str) -> tuple[int, int]:
    """Return the first and the last millisecond of what a time names."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError(WANTED)
    day, minute, second, fraction, offset = found.groups()
    if offset is None:
        raise ValueError(f"is {text[:40]!r}, of no known zone; end it with Z or an offset such as +01:00")
    offset = "+00:00" if offset in "Zz" else offset
    try:
        moment = datetime.fromisoformat(f"{day}T{minute}:{second or '00'}{offset}")
    except ValueError:
        raise ValueError(f"is {text[:40]!r}, a time that there is not") from None
    first_ms = (moment - _EPOCH) // _MS
    if second is None:
        return first_ms, first_ms + 59_999
    digits = (fraction or "")[:3]
    first_ms += int(digits.ljust(3, "0"))
    return first_ms, first_ms + 10 ** (3 - len(digits)) - 1
