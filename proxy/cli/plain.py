"""Words for a terminal from what strangers sent: names, headers and bodies of events.

Owns that nothing in them is taken for a command by the terminal, and that no line runs on for ever.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from proxy.events.payload import read_json

_BODY_CHARS: Final = 16_384
_DUMPED_BYTES: Final = 512
_DUMP_WIDTH: Final = 16


def be_lenient() -> None:
    """Let what the terminal's alphabet lacks be escaped, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def printable(value: object) -> str:
    """Show a text, or bytes that may be one; what is no printable character is escaped."""
    text = bytes(value).decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else str(value)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shorten(text: str, width: int) -> str:
    """Cut a text to at most `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


def many(count: int, name: str) -> str:
    """Say how many."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def moment(ms: int | None) -> str:
    """Show a moment, in milliseconds since 1970; - for none, the number where it is out of every calendar."""
    if ms is None:
        return "-"
    try:
        at = datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return str(ms)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03} UTC"


def plain_json(value: object) -> Any:
    """Return what JSON can hold of a header: bytes, moments and decimals become texts."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {printable(name): plain_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(one) for one in value]
    return printable(value)


def body_lines(body: bytes) -> Iterator[str]:
    """Yield a body for people: JSON indented, other text as it is, anything else as bytes in hex; not without end."""
    text = _text_of(body)
    if text is None:
        yield from _dump(body[:_DUMPED_BYTES])
        left = len(body) - _DUMPED_BYTES
    else:
        yield from (printable(line.expandtabs()) for line in text[:_BODY_CHARS].splitlines())
        left = len(text[_BODY_CHARS:].encode("utf-8", "surrogatepass"))
    if left > 0:
        yield f"… and {left:,} bytes more"


def _text_of(body: bytes) -> str | None:
    try:
        return json.dumps(read_json(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):  # what is odd about it must be seen as it was sent
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _dump(raw: bytes) -> Iterator[str]:
    for at in range(0, len(raw), _DUMP_WIDTH):
        row = raw[at : at + _DUMP_WIDTH]
        chars = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{at:04x}  {row.hex(' '):{3 * _DUMP_WIDTH}} {chars}"
