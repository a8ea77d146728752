"""What proxies tell each other through Redis: fences set and swept, keys and everything changed, dictionaries learnt.

    respite:fences    hash       field of a fence -> version      all that are in force, for who starts or was away
    respite:clock     string     the highest version that is known to have been in use
    respite:changes   channel    {"fences": [[field, version], ..]}   {"swept": [[field, version], ..]}
                                 {"keys": [key, ..], "db": n}         {"dictionary": id, "class": name}
                                 {"all": 1}

Owns these forms, and the scripts that set and end fences. Fields and keys, which may hold any bytes, are hex in
messages, versions are decimal strings. The commands are for a link of database 0. A message may come from anybody who
may publish: what is not understood is None.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

import attrs

from proxy.values.clock import VERSION_BITS
from proxy.values.fences import FENCES_MAX, Fence, field_of, parse_fence
from proxy.values.scripts import ARITHMETIC, CLOCK_KEY, HEX
from proxy.wire.encode import command

FENCES_KEY: Final = b"respite:fences"
CHANNEL: Final = b"respite:changes"

_DB_MAX: Final = 1 << 31
_DICTIONARY_MAX: Final = 1 << 32
_FRACTION: Final = (1 << VERSION_BITS) - 1

_SET: Final = (
    ARITHMETIC
    + HEX
    + """
local ms, fraction = now()
local function past(other_ms, other_fraction)
  if is_later(other_ms, other_fraction, ms, fraction) then ms, fraction = other_ms, other_fraction end
end
past(clock_of(KEYS[2]))
past(tonumber(ARGV[3]), tonumber(ARGV[4]))
local new = 0
for at = 5, #ARGV do
  local known = redis.call('HGET', KEYS[1], ARGV[at])
  if known then past(split(known)) else new = new + 1 end
end
if redis.call('HLEN', KEYS[1]) + new > tonumber(ARGV[2]) then
  return redis.error_reply('ERR respite: too many fences are in force, try again when some are swept')
end
local version = decimal(ms, fraction + 1)
redis.call('SET', KEYS[2], version, 'PX', CLOCK_LIFE_MS)
local told = {}
for at = 5, #ARGV do
  redis.call('HSET', KEYS[1], ARGV[at], version)
  told[#told + 1] = '["' .. hex(ARGV[at]) .. '","' .. version .. '"]'
end
redis.call('PUBLISH', ARGV[1], '{"fences":[' .. table.concat(told, ',') .. ']}')
return version
"""
)

_END: Final = """
local ended = 0
for at = 3, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    ended = ended + redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return ended
"""


@attrs.frozen
class FencesSet:
    """Fences are in force from now on."""

    fences: tuple[Fence, ...]


@attrs.frozen
class FencesSwept:
    """What is behind these fences is gone: they are lifted, unless set anew."""

    fences: tuple[Fence, ...]


@attrs.frozen
class KeysChanged:
    """Copies of these keys are out of date."""

    db: int
    keys: tuple[bytes, ...]


@attrs.frozen
class EverythingChanged:
    """Copies of all keys are out of date."""


@attrs.frozen
class DictionaryAnnounced:
    """A dictionary has been stored, and will be used soon."""

    id: int
    class_name: str


Change = FencesSet | FencesSwept | KeysChanged | EverythingChanged | DictionaryAnnounced


def set_fences(db: int, globs: Sequence[bytes], tags: Sequence[bytes], least: int = 0) -> bytes:
    """Set fences for globs and tags, all with one new version, and tell everybody: the version, as a decimal string.

    The version is above the server's time, what `respite:clock` says, the fences that these take the place of, and
    `least`, the highest that the caller knows of. Refused with an error, all of them, where more than FENCES_MAX would
    be in force.
    """
    fields = [*(field_of(db, "glob", text) for text in globs), *(field_of(db, "tag", text) for text in tags)]
    bounds = (FENCES_MAX, least >> VERSION_BITS, least & _FRACTION)
    return command("EVAL", _SET, 2, FENCES_KEY, CLOCK_KEY, CHANNEL, *bounds, *dict.fromkeys(fields))


def end_fences(fences: Sequence[Fence]) -> bytes:
    """End fences behind which nothing is left, and tell everybody: how many; those set anew meanwhile stay."""
    fields = [(field_of(one.db, one.kind, one.text), one.version) for one in fences]
    message = _message({"swept": [[field.hex(), str(version)] for field, version in fields]})
    words = [word for field in fields for word in field]
    return command("EVAL", _END, 1, FENCES_KEY, CHANNEL, message, *words)


def announce_keys(db: int, keys: Sequence[bytes]) -> bytes:
    """Tell everybody that copies of keys are out of date."""
    return command("PUBLISH", CHANNEL, _message({"keys": [key.hex() for key in keys], "db": db}))


def announce_everything() -> bytes:
    """Tell everybody that copies of all keys are out of date."""
    return command("PUBLISH", CHANNEL, _message({"all": 1}))


def announce_dictionary(dictionary: int, class_name: str) -> bytes:
    """Tell everybody that a dictionary has been stored."""
    return command("PUBLISH", CHANNEL, _message({"dictionary": dictionary, "class": class_name}))


def parse_change(payload: bytes) -> Change | None:
    """Read a message of the channel; None for anything that is not understood, or not wholly."""
    try:
        message = json.loads(payload)
        if not isinstance(message, dict):
            return None
        if "fences" in message:
            return FencesSet(_fences(message["fences"]))
        if "swept" in message:
            return FencesSwept(_fences(message["swept"]))
        if "keys" in message:
            return KeysChanged(_number(message["db"], _DB_MAX), tuple(map(_bytes, _list(message["keys"]))))
        if message == {"all": 1}:
            return EverythingChanged()
        if "dictionary" in message:
            return DictionaryAnnounced(_number(message["dictionary"], _DICTIONARY_MAX), _text(message["class"]))
    # A message of ours never nests; one made to exhaust the stack is one more that is not understood.
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return None


def _message(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"))


def _fences(items: Any) -> tuple[Fence, ...]:
    return tuple(_fence(*_list(item, 2)) for item in _list(items))


def _fence(field: Any, version: Any) -> Fence:
    found = parse_fence(_bytes(field), _text(version).encode())
    if found is None:
        raise ValueError("not a fence")
    return found


def _list(item: Any, size: int | None = None) -> list[Any]:
    if not isinstance(item, list) or (size is not None and len(item) != size):
        raise ValueError("not such a list")
    return item


_HEX: Final = re.compile(r"([0-9a-f]{2})*")


def _bytes(item: Any) -> bytes:
    if not _HEX.fullmatch(_text(item)):
        raise ValueError("not hex")
    return bytes.fromhex(item)


def _text(item: Any) -> str:
    if not isinstance(item, str):
        raise TypeError("not a text")
    return item


def _number(item: Any, end: int) -> int:
    if type(item) is not int or not 0 <= item < end:
        raise ValueError("not such a number")
    return item
