"""What those who watch for changes hear besides the pushes of Redis: why a key changed, and what no push says.

    respite:events  channel   {"events": [[key, version, gone], ..], "db": n}     keys that events named
                              {"quiet": [key, ..]}                                keys that fences have told of already
                              {"channels": [..], "keys": [..], "patterns": [..], "tags": [..], "version": v, "db": n}
                              {"token": t}                                        a mark between two messages

Owns these forms. `gone`, 1 or 0: Redis had the key, so a push of it follows; and one follows for each quiet key. Both
are published by the script that unlinks the keys: what Redis pushes in broadcast mode comes at the end of a turn of its
loop, so the message is always before it. Keys are hex, versions decimal strings, "" for none. A message may come from
anybody who may publish: what is not understood is None. Nobody need listen, nor be allowed to publish: then changes are
told without their cause.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from proxy.values.clock import VERSION_END
from proxy.wire.encode import command

CHANNEL: Final = b"respite:events"

PUBLISH: Final = f"redis.pcall('PUBLISH', '{CHANNEL.decode()}', "
"""How a script begins to publish; whoever may not, goes on."""

IS_HEARD: Final = f"""
local is_heard = (redis.pcall('PUBSUB', 'NUMSUB', '{CHANNEL.decode()}')[2] or 1) ~= 0
"""
"""Whether anybody would hear it; a third of what a script costs goes into the message. Who may not ask, publishes."""

_DB_MAX: Final = 1 << 31
_LISTS: Final = ("channels", "keys", "patterns", "tags")
_HEX: Final = re.compile(r"([0-9a-f]{2})*")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,19}|")


@attrs.frozen
class KeyTold:
    """A key that an event named. `version` 0: it had none."""

    key: bytes
    version: int
    was_there: bool


@attrs.frozen
class EventsTold:
    """Keys of one database that events named."""

    db: int
    keys: tuple[KeyTold, ...]


@attrs.frozen
class QuietTold:
    """Keys whose pushes are to be passed over: all that they say has been told."""

    keys: tuple[bytes, ...]


@attrs.frozen
class ChannelsTold:
    """Channels that are to be told of an event besides those of its keys, and what it named."""

    channels: tuple[bytes, ...]
    keys: tuple[bytes, ...]
    patterns: tuple[bytes, ...]
    tags: tuple[bytes, ...]
    version: int
    db: int


@attrs.frozen
class TokenTold:
    """A mark that somebody has set."""

    token: str


Told = EventsTold | QuietTold | ChannelsTold | TokenTold


def event_part(key: bytes, version: int | None) -> str:
    """Return a key of an event, for a script that adds whether it was there and a closing bracket."""
    return f'["{key.hex()}","{version or ""}",'


def tell_events(db: int, keys: Iterable[bytes]) -> bytes:
    """Tell that events, or those who are as good as one, named keys that were not there."""
    return _publish({"events": [[key.hex(), "", 0] for key in keys], "db": db})


def tell_channels(told: ChannelsTold) -> bytes:
    """Tell channels of an event."""
    lists = {name: [one.hex() for one in getattr(told, name)] for name in _LISTS}
    return _publish({**lists, "version": str(told.version or ""), "db": told.db})


def tell_token(token: str) -> bytes:
    """Set a mark."""
    return _publish({"token": token})


def parse_told(payload: bytes) -> Told | None:
    """Read a message of the channel; None for anything that is not understood, or not wholly."""
    try:
        message = json.loads(payload)
        if not isinstance(message, dict):
            return None
        if "events" in message:
            return EventsTold(_db(message["db"]), tuple(_key(*_list(item, 3)) for item in _list(message["events"])))
        if "quiet" in message:
            return QuietTold(_names(message["quiet"]))
        if "channels" in message:
            channels, keys, patterns, tags = (_names(message[name]) for name in _LISTS)
            return ChannelsTold(channels, keys, patterns, tags, _version(message["version"]), _db(message["db"]))
        if "token" in message:
            return TokenTold(_text(message["token"]))
    # A message of ours never nests; one made to exhaust the stack is one more that is not understood.
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def _publish(content: dict[str, Any]) -> bytes:
    return command("PUBLISH", CHANNEL, json.dumps(content, separators=(",", ":")))


def _key(key: Any, version: Any, was_there: Any) -> KeyTold:
    if was_there not in (0, 1):
        raise ValueError("neither there nor not")
    return KeyTold(_name(key), _version(version), bool(was_there))


def _names(items: Any) -> tuple[bytes, ...]:
    return tuple(map(_name, _list(items)))


def _name(item: Any) -> bytes:
    if not _HEX.fullmatch(_text(item)):
        raise ValueError("not hex")
    return bytes.fromhex(item)


def _version(item: Any) -> int:
    if not _VERSION.fullmatch(_text(item)) or int(item or 0) >= VERSION_END:
        raise ValueError("not a version")
    return int(item or 0)


def _db(item: Any) -> int:
    if type(item) is not int or not 0 <= item < _DB_MAX:
        raise ValueError("not a database")
    return item


def _list(item: Any, size: int | None = None) -> Sequence[Any]:
    if not isinstance(item, list) or (size is not None and len(item) != size):
        raise ValueError("not such a list")
    return item


def _text(item: Any) -> str:
    if not isinstance(item, str):
        raise TypeError("not a text")
    return item
