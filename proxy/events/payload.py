"""From the bytes of a body to JSON: how it is packed, and what is refused as JSON.

Owns the bounds. What can be read in two ways is refused: a name that stands twice, NaN, what is no UTF-8.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import Any, Final, NoReturn

BODY_MAX_BYTES: Final = 16 * 1024 * 1024
"""How large a body may be, unpacked. A message of the broker is bounded alike."""

VALUES_MAX: Final = 500_000
"""How many values its JSON may have, about. Nobody else is served while it is read: a second for the worst of them."""

# What publishers put there that changes nothing: some libraries name the charset, others how mail would carry it.
_AS_IT_IS: Final = frozenset({"", "identity", "utf-8", "utf8", "us-ascii", "ascii", "7bit", "8bit", "binary"})
_GZIP: Final = frozenset({"gzip", "x-gzip"})
_GZIP_FRAMED: Final = zlib.MAX_WBITS | 16
_MEMBERS_MAX: Final = 64  # what is left is copied after each of them; a million empty ones would take minutes


def read_json(body: bytes) -> object:
    """Read JSON. Raises ValueError with the reason, as a sentence about the body."""
    if not body:
        raise ValueError("there is no body")
    # Before it is read: 16 MiB of brackets take ten seconds, and 32 KiB of gzip unpack to that.
    if len(body) > VALUES_MAX and sum(map(body.count, (b",", b"[", b"{"))) > VALUES_MAX:
        raise ValueError(f"the body is JSON of more than {VALUES_MAX} values; send it in parts")
    try:
        # surrogatepass: half a pair is refused where it is in the way, with the name of the field.
        return _DECODER.decode(body.decode("utf-8", "surrogatepass").removeprefix("\ufeff"))
    except UnicodeDecodeError as exc:
        raise ValueError(f"the body is no JSON (no UTF-8 at byte {exc.start})") from None
    except json.JSONDecodeError as exc:
        raise ValueError(f"the body is no JSON ({exc.msg}, line {exc.lineno} column {exc.colno})") from None
    except _RefusedError as exc:
        raise ValueError(str(exc)) from None
    except RecursionError:
        raise ValueError("the body is no JSON that is sane (nested too deep)") from None
    except ValueError:  # a number of more digits than Python converts
        raise ValueError("the body is no JSON that is sane (a number of thousands of digits)") from None


def unpack(body: bytes, encoding: str) -> bytes:
    """Undo a content encoding: none, or gzip. Raises ValueError with the reason, as a sentence about the body."""
    name = encoding.strip().lower()
    if name in _AS_IT_IS:
        unpacked = body
    elif name in _GZIP:
        unpacked = _gunzip(body)
    else:
        raise ValueError(f"the body is packed as {encoding[:32]!r}; gzip or none is wanted")
    if len(unpacked) > BODY_MAX_BYTES:
        raise ValueError(f"the body is of more than {BODY_MAX_BYTES >> 20} MiB")
    return unpacked


def _gunzip(body: bytes) -> bytes:
    """Unpack one member after another, no further than a byte beyond the bound."""
    parts: list[bytes] = []
    room = BODY_MAX_BYTES + 1
    for _ in range(_MEMBERS_MAX):
        if not body or room <= 0:
            return b"".join(parts)
        member = zlib.decompressobj(_GZIP_FRAMED)
        try:
            part = member.decompress(body, room)
        except zlib.error:
            raise ValueError("the body is no gzip, though it says so") from None
        parts.append(part)
        room -= len(part)
        if not member.eof and room > 0:
            raise ValueError("the body's gzip ends too early")
        body = member.unused_data
    raise ValueError(f"the body is of more than {_MEMBERS_MAX} gzip members")


class _RefusedError(ValueError):
    """JSON that is read differently by each reader."""


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _RefusedError(f"the body names {twice[:32]!r} twice in one object")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusedError(f"the body is no JSON ({name} is no number of JSON)")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)
