"""An event: which keys, globs and tags are out of date, and since which version.

Owns the form of a native event, whether it comes from the broker or is posted to the admin port. A field that is
nearly one of ours is taken for misspelt and refused; any other is let be. Source: INTERFACE.md section 5.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import attrs

from proxy.events.payload import read_json
from proxy.events.versions import moment_of, version_of

EVENT_FIELDS: Final = frozenset({"keys", "patterns", "tags", "db", "id", "publisher", "seq", "version", "at"})
NUMBER_END: Final = 1 << 53
"""`db` and `seq` are below: larger numbers are not the same to every reader of JSON, nor to Lua."""

_LONGEST_MISSPELT: Final = 16
_LOOKED_AT: Final = 64  # fields that are none of ours, each 20 us; an object with more is no event that somebody wrote
_TRACE_MOST: Final = 128  # characters; the form of today has 55, and one of tomorrow may have more


class EventError(ValueError):
    """A message is no event that could be acted on; the text says why.

    The text is a line of printable characters, at most 400: it goes into headers of dead letters, and into logs.
    """

    def __init__(self, reason: str) -> None:
        line = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in reason[:400])
        super().__init__(line if len(line) <= 400 else f"{line[:397]}...")


@attrs.frozen
class Event:
    """What is to be dropped: keys, whatever a glob takes, whatever carries a tag."""

    keys: tuple[bytes, ...] = ()
    patterns: tuple[bytes, ...] = ()
    tags: tuple[bytes, ...] = ()
    db: int | None = None
    """None: the one that clients begin in."""
    version: int | None = None
    """A version as envelopes have it (values.clock); values that are newer stay. None: whatever is stored goes."""
    id: str = ""
    publisher: str = ""
    seq: int | None = None
    """Rises by one for each event of the publisher, whatever queue it comes through."""
    at_ms: int | None = None
    """When it was published, in milliseconds since 1970, where that is known."""
    then_publish: tuple[str, ...] = ()
    """Push channels to be told besides the keys' own."""
    trace: str = ""
    """The traceparent that came with it, as it was written, "" for none. Source: W3C Trace Context."""


def parse_event(body: bytes) -> Event:
    """Read an event. Raises EventError for what is none, names nothing, or is misspelt; more fields are let be.

    A byte of a key that is no UTF-8 is written as Python does (surrogateescape), so that any key can be named.
    """
    try:
        event = read_json(body)
    except ValueError as exc:
        raise EventError(str(exc)) from None
    return event_of(event)


def event_of(event: object, *, message_id: str = "", publisher: str = "", at_ms: int | None = None) -> Event:
    """Read an event that is parsed JSON, as `parse_event` does. The rest is what holds where it says nothing itself.

    `version` becomes one as envelopes have it, None where it is 0; of `at`, a moment that cannot be read is let be.
    """
    if not isinstance(event, dict):
        raise EventError("the body is no JSON object")
    for name in islice((name for name in event if name not in EVENT_FIELDS), _LOOKED_AT):
        if meant := len(name) <= _LONGEST_MISSPELT and _meant_by(name):
            raise EventError(f"an event has no `{name}`; did you mean `{meant}`?")
    keys, patterns, tags = _names(event, "keys"), _names(event, "patterns"), _names(event, "tags")
    if not (keys or patterns or tags):
        raise EventError("it names nothing: one of `keys`, `patterns` and `tags` is wanted")
    if b"" in patterns or b"" in tags:
        raise EventError("a pattern or tag of no characters takes nothing")
    version = event.get("version")
    if version is not None:
        try:
            version = version_of(version)
        except ValueError as exc:
            raise EventError(f"`version` {exc}") from None
    at = event.get("at")
    said_at_ms = None if at is None else moment_of(at)
    return Event(
        keys,
        patterns,
        tags,
        _number(event, "db"),
        version,
        _text(event, "id") or message_id,
        _text(event, "publisher") or publisher,
        _number(event, "seq"),
        at_ms if said_at_ms is None else said_at_ms,
    )


def with_trace(event: Event, traceparent: object) -> Event:
    """Return an event as part of the trace that a header names; what is none, or absurdly long, is let be."""
    if not isinstance(traceparent, str) or not 0 < len(traceparent) <= _TRACE_MOST:
        return event
    return attrs.evolve(event, trace=traceparent)


@lru_cache(maxsize=1024)
def _meant_by(name: str) -> str:
    """Return the field that a name nearly is, "" for none. Publishers send the same few names again and again."""
    return "".join(difflib.get_close_matches(name, EVENT_FIELDS - {"at"}, 1, 0.75))


def _number(event: Mapping[str, Any], field: str) -> int | None:
    number = event.get(field)
    if number is None:
        return None
    if type(number) is not int or not 0 <= number < NUMBER_END:
        raise EventError(f"`{field}` is a whole number from 0, below 2 to the power of 53")
    return number


def _text(event: Mapping[str, Any], field: str) -> str:
    text = event.get(field)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise EventError(f"`{field}` is a string")
    # Half a surrogate pair is no text: it could be neither logged nor sent.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _names(event: Mapping[str, Any], field: str) -> tuple[bytes, ...]:
    if field not in event:
        return ()
    names = event[field]
    if not isinstance(names, list):
        raise EventError(f"`{field}` is a list of strings")
    try:
        raw = [name.encode("utf-8", "surrogateescape") for name in names]
    except AttributeError:  # of JSON, a string alone has it
        raise EventError(f"`{field}` is a list of strings") from None
    except UnicodeEncodeError:
        raise EventError(f"`{field}` holds half a surrogate pair, which is no text") from None
    return tuple(raw) if len(raw) < 2 else tuple(dict.fromkeys(raw))
