"""How the messages of the change feed are written: JSON, an object a message.

    {"type": "update", "channel": c, "keys": [..], "cause": why, "version": ms, "at": "..Z"}
        with "patterns" or "tags" where a fence told it: keys that these take may have changed; "db" where it is known
    {"type": "report", "channel": "respite:figures", "at": "..Z", "data": {..}}           our own channels
    {"type": "lost", "count": n}                 so many messages were dropped, for they were not taken in time
    {"type": "lost", "count": null, "why": s}    anything may have changed unseen: what is shown is to be fetched anew;
        with "channel" where that holds for one of them alone

Keys are texts; a byte that is no UTF-8 is written as events have it (surrogateescape). A version is milliseconds since
1970, by the server's clock: a JSON number that is exact everywhere, browsers included. Source: INTERFACE section 6.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

from proxy.values.clock import VERSION_BITS

if TYPE_CHECKING:
    from proxy.core.feed.feed import Change


def head_of(channel: str) -> bytes:
    """Return how every update of a channel begins."""
    return b'{"type":"update","channel":%b,"keys":' % _quote(channel)


def body_of(change: Change) -> bytes:
    """Return how an update ends, the same in every channel."""
    parts = [
        b',"cause":"%b","version":%d,"at":"%b"'
        % (change.cause.encode(), change.version >> VERSION_BITS, moment(change.at_ms).encode())
    ]
    if change.patterns:
        parts.append(b',"patterns":' + names(change.patterns))
    if change.tags:
        parts.append(b',"tags":' + names(change.tags))
    if change.db is not None:
        parts.append(b',"db":%d' % change.db)
    return b"".join([*parts, b"}"])


def names(raw: Sequence[bytes]) -> bytes:
    """Return keys, globs or tags as a list of texts."""
    return b"[%b]" % b",".join([_quote(one.decode("utf-8", "surrogateescape")) for one in raw])


def report_of(channel: str, at_ms: int, data: Mapping[str, Any]) -> bytes:
    """Return a message of one of our own channels."""
    return dump({"type": "report", "channel": channel, "at": moment(at_ms), "data": data})


def lost(count: int | None, why: str = "", channel: str = "") -> bytes:
    """Return the message that says how much was lost, None: nobody knows what; in one `channel`, "" in any."""
    about = {name: text for name, text in (("why", why), ("channel", channel)) if text}
    return dump({"type": "lost", "count": count, **about})


def dump(message: Mapping[str, Any]) -> bytes:
    """Return a message as JSON, in ASCII and without blanks."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False, default=str).encode()


def moment(at_ms: int) -> str:
    """Return a moment as ISO 8601, in UTC and to the millisecond."""
    return f"{_second(at_ms // 1000)}.{at_ms % 1000:03}Z"


@lru_cache(maxsize=16)  # thousands of messages are of the same second
def _second(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _quote(text: str) -> bytes:
    return encode_basestring_ascii(text).encode()
