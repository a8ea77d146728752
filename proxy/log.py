"""Structured logs on stderr: an event name and key=value pairs, as text for people or JSON for machines.

Owns structlog's configuration and how a line looks. A line never holds a value of a user; a key is `bytes` and is cut
short wherever it appears, so that no caller can forget to. A log that cannot be written (a closed pipe, a full disk) is
dropped: the proxy does not stop serving because nobody reads what it says. Nor do strangers decide how much that is: of
lines that say the same, a second has so many and no more, and the next one tells how many were left out.
"""

from __future__ import annotations

import json
import os
import sys
from types import ModuleType
from typing import Any, Final, cast

# structlog prints tracebacks by rich where that is installed, and imports all of it: a seventh of our start and 3 MB of
# each worker, though we print none so. For the time of this import there is none.
_rich = sys.modules.get("rich")
sys.modules["rich"] = cast("ModuleType", None)

import structlog  # noqa: E402
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger  # noqa: E402

if _rich is None:
    del sys.modules["rich"]
else:
    sys.modules["rich"] = _rich

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS: Final = ("text", "json")

# Long enough to tell keys apart in practice, short enough that a 512 MiB key costs one line.
_KEY_LIMIT_BYTES: Final = 64
_COLOURS: Final = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_RESET: Final = "\x1b[0m"
SAME_A_SECOND: Final = 20
_SECOND: Final = len("2026-01-01T00:00:00")  # of the time of a line


def configure(level: str, format: str) -> None:  # noqa: A002 - the word users read in [log]
    """Set level ("debug", "info", "warning", "error") and format ("text", "json") of every logger, old and new.

    May be called again while running; loggers handed out before follow. Raises ValueError for an unknown word: the
    configuration has been judged before, so this is a caller's mistake.
    """
    if level not in LEVELS or format not in FORMATS:
        raise ValueError(f"no such log level or format: {level!r}, {format!r}")
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _Moderation(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, _render_json if format == "json" else _render_text],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_StderrLogger,
        # Not cached, so that a reload of log.level reaches loggers that exist. 2 us an event, and never one a request.
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """Make a logger whose lines carry `module=name`; costs nothing at import, follows every later `configure`."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name))


def say(line: str) -> None:
    """Print a line for people on stdout, or lose it, as a line of the log is lost."""
    try:
        print(line, flush=True)
    except OSError:
        # What is left in the buffer is written again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def short(key: bytes) -> str:
    """Show a key in a line: UTF-8 where it is, escapes where it is not, cut after 64 bytes with its full size."""
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in key[:_KEY_LIMIT_BYTES].decode("utf-8", "backslashreplace")
    )
    return text if len(key) <= _KEY_LIMIT_BYTES else f"{text}...({len(key)} bytes)"


class _Moderation:
    """Leave out what has been said often enough within a second: by module and event, whatever the values beside."""

    def __init__(self) -> None:
        self._said: dict[tuple[object, object], list[Any]] = {}  # (module, event) -> [second, lines]

    def __call__(self, _logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
        second = str(event_dict["time"])[:_SECOND]
        said = self._said.setdefault((event_dict.get("module"), event_dict["event"]), [second, 0])
        if said[0] != second:
            left_out = said[1] - SAME_A_SECOND
            said[:] = [second, 0]
            if left_out > 0:
                event_dict["left_out"] = left_out
        said[1] += 1
        if said[1] > SAME_A_SECOND:
            raise structlog.DropEvent
        return event_dict


class _StderrLogger:
    """Write finished lines to whatever sys.stderr is at that moment; never raise."""

    def __init__(self, *_args: object) -> None:
        pass

    def msg(self, message: str) -> None:
        """Write one line, or lose it."""
        try:
            # One write a line, so that lines of several processes on one pipe stay whole.
            sys.stderr.write(message + "\n")
            sys.stderr.flush()
        except (AttributeError, OSError, ValueError):  # no stderr at all, a closed pipe, a closed file
            return

    debug = info = warning = error = critical = msg


def _render_json(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> str:
    return json.dumps(event_dict, default=_plain)


def _render_text(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> str:
    time, level = event_dict.pop("time"), event_dict.pop("level")
    name, event = event_dict.pop("module", ""), event_dict.pop("event")
    trace = event_dict.pop("exception", "")
    pairs = "".join(f" {key}={_quoted(value)}" for key, value in event_dict.items())
    shown_level = f"{level:<7}"
    if _is_terminal():
        shown_level = f"{_COLOURS.get(level, '')}{shown_level}{_RESET}"
    line = f"{time} {shown_level} {name}: {_one_line(str(event))}{pairs}"
    return f"{line}\n{trace}" if trace else line


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # no stderr at all, a closed file
        return False


def _quoted(value: object) -> str:
    """Show one value so that the next pair is still found: quoted when it holds spaces, quotes or control bytes."""
    text = _plain(value)
    if text and text.isprintable() and not any(char in text for char in " \"'="):
        return text
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _plain(value: Any) -> str:
    return short(value) if isinstance(value, bytes) else str(value)
