"""What is done to stored values inside Redis, in one step: Lua that compares before it changes.

Owns the scripts, and how each is called. They are sent whole (EVAL) each time: on a link that may be new nobody knows
which of them the server remembers, and a call costs it some microseconds either way. None of them opens a compressed
body; what must be opened is fetched, opened here, and put back if nobody has written meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from proxy.values.clock import AHEAD_MAX_MS
from proxy.values.envelope import MAGIC
from proxy.values.telling import IS_HEARD, PUBLISH, event_part
from proxy.wire.encode import command

CLOCK_KEY: Final = b"respite:clock"
"""Where the highest version is kept that is known to have been in use: what is newer than all of them is above it."""

ARITHMETIC: Final = """
local CLOCK_LIFE_MS = 7200000
local function is_later(ms, fraction, than_ms, than_fraction)
  return ms > than_ms or (ms == than_ms and fraction > than_fraction)
end
local function carried(ms, fraction)
  return ms + math.floor(fraction / 65536), fraction % 65536
end
local function now()
  local time = redis.call('TIME')
  local us = tonumber(time[2])
  return tonumber(time[1]) * 1000 + math.floor(us / 1000), math.floor(us % 1000 * 65536 / 1000)
end
local function split(text)
  if #text > 20 or not string.match(text, '^%d+$') then return 0, 0 end
  local high, low = tonumber(string.sub(text, 1, -8)) or 0, tonumber(string.sub(text, -7))
  local rest = high % 65536 * 10000000 + low
  local ms = math.floor(high / 65536) * 10000000 + math.floor(rest / 65536)
  if ms >= 140737488355328 then return 0, 0 end
  return ms, rest % 65536
end
local function decimal(ms, fraction)
  local low = ms % 10000000 * 65536 + fraction
  local high = math.floor(ms / 10000000) * 65536 + math.floor(low / 10000000)
  return string.format('%.0f%07.0f', high, low % 10000000)
end
local function clock_of(key)
  local text = redis.pcall('GET', key)
  if type(text) ~= 'string' then return 0, 0 end
  local ms, fraction = split(text)
  local left_ms = tonumber(redis.pcall('PTTL', key)) or -1
  local age_ms = left_ms < 0 and 0 or CLOCK_LIFE_MS - left_ms
  return carried(ms, fraction + age_ms * 32768 + 4096)
end
"""
"""Versions in Lua, where numbers are doubles: never as one, but as milliseconds and fraction, or as a decimal string.

What is no version, or does not fit a signed integer as replies have it, counts as 0.

A proxy that has seen a version ahead of the server goes on from there, one a write, without telling. So the clock key
is taken to have run on at half the speed of time: 32 million writes a second, and 4096 within a millisecond. The lead
over the server, at most an hour, is made up at the other half, which is how long the key lives.
"""

HEX: Final = """
local function hex(text)
  return (string.gsub(text, '.', function(byte) return string.format('%02x', string.byte(byte)) end))
end
"""

_HEAD: Final = """
local function version_of(stored)
  if string.sub(stored, 1, 4) ~= ARGV[1] or #stored < 14 then return nil end
  local a, b, c, d, e, f, g, h = string.byte(stored, 7, 14)
  return ((a * 256 + b) * 256 + c) * 256 + d, ((e * 256 + f) * 256 + g) * 256 + h
end
local function head_of(key)
  local head = redis.pcall('GETRANGE', key, 0, 13)
  if type(head) == 'table' then return '' end
  return head
end
"""

_PEEK: Final = """
local found = {}
for at, key in ipairs(KEYS) do
  found[at] = false
  local head = redis.pcall('GETRANGE', key, 0, 3)
  if head == ARGV[1] then
    local stored = redis.call('GET', key)
    found[at] = {stored, redis.sha1hex(stored)}
  end
end
return found
"""

_SWAP: Final = """
local stored = redis.pcall('GET', KEYS[1])
if type(stored) == 'string' and redis.sha1hex(stored) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
  return 1
end
return 0
"""

_PURGE: Final = (
    _HEAD
    + """
local gone = 0
for at, key in ipairs(KEYS) do
  local high, low = version_of(head_of(key))
  local to_high, to_low = tonumber(ARGV[2 * at]), tonumber(ARGV[2 * at + 1])
  if high and (high > 0 or low > 0) and (high < to_high or (high == to_high and low <= to_low)) then
    gone = gone + redis.call('UNLINK', key)
  end
end
return gone
"""
)

_SWEEP: Final = (
    _HEAD
    + """
local quiet = {}
for at, key in ipairs(KEYS) do
  local high, low = version_of(head_of(key))
  local to_high, to_low = tonumber(ARGV[2 * at]), tonumber(ARGV[2 * at + 1])
  if not high or high < to_high or (high == to_high and low <= to_low) then
    if redis.call('UNLINK', key) == 1 then quiet[#quiet + 1] = ARGV[2 * #KEYS + 1 + at] end
  end
end
if #quiet > 0 then """
    + PUBLISH
    + """'{"quiet":[' .. table.concat(quiet, ',') .. ']}') end
return #quiet
"""
)

_DROP_OLDER: Final = (
    _HEAD
    + IS_HEARD
    + """
local now_ms = nil
local function is_to_come(high, low)
  if not now_ms then
    local time = redis.pcall('TIME')
    now_ms = time[2] and tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) or math.huge
  end
  return high * 65536 + math.floor(low / 65536) > now_ms
end
local found, told = {}, {}
for at, key in ipairs(KEYS) do
  local to_high, to_low = tonumber(ARGV[2 * at]), tonumber(ARGV[2 * at + 1])
  local high, low
  if to_high < 4294967296 then high, low = version_of(head_of(key)) end
  if high and (high > to_high or (high == to_high and low > to_low)) and not is_to_come(high, low) then
    found[at] = 'n'
  else
    found[at] = redis.call('UNLINK', key) == 1 and 'g' or '-'
    if is_heard then told[#told + 1] = ARGV[2 * #KEYS + 2 + at] .. (found[at] == 'g' and '1]' or '0]') end
  end
end
if #told > 0 then """
    + PUBLISH
    + """'{"events":[' .. table.concat(told, ',') .. '],"db":' .. ARGV[2 * #KEYS + 2] .. '}') end
return table.concat(found)
"""
)

_FACTS: Final = (
    HEX
    + """
local head = redis.pcall('GETRANGE', KEYS[1], 0, 31)
if type(head) == 'table' then return {redis.call('TYPE', KEYS[1]).ok} end
return {redis.call('TYPE', KEYS[1]).ok, hex(head), redis.call('STRLEN', KEYS[1]), redis.call('PTTL', KEYS[1])}
"""
)

_SETV: Final = (
    ARITHMETIC
    + _HEAD
    + """
local new_high, new_low = version_of(ARGV[2])
local new_ms, new_fraction = new_high * 65536 + math.floor(new_low / 65536), new_low % 65536
local now_ms, now_fraction = now()
if new_ms > now_ms + tonumber(ARGV[4]) then
  return redis.error_reply('ERR respite: the version is more than an hour ahead of the server')
end
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'none' and kind ~= 'string' then
  return redis.error_reply('WRONGTYPE Operation against a key holding the wrong kind of value')
end
local high, low = version_of(head_of(KEYS[1]))
if high and (high > new_high or (high == new_high and low >= new_low)) then return 0 end
if ARGV[3] == '' then
  redis.call('SET', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
if is_later(new_ms, new_fraction, now_ms, now_fraction) and redis.pcall('SELECT', 0).ok then
  if is_later(new_ms, new_fraction, clock_of(ARGV[5])) then
    redis.pcall('SET', ARGV[5], decimal(new_ms, new_fraction), 'PX', CLOCK_LIFE_MS)
  end
end
return 1
"""
)


_SETTLE: Final = (
    _HEAD
    + """
local function mark_of(key)
  local head = redis.call('GETRANGE', key, 0, 26)
  local at = 15
  while (string.byte(head, at) or 0) > 127 do at = at + 1 end
  local from = math.floor(string.byte(head, 6) / 16) % 2 == 1 and at + 5 or at + 1
  return string.sub(head, 15, at) .. string.sub(head, from, from + 3)
end
local kind = redis.call('TYPE', KEYS[1]).ok
local high, low = version_of(kind == 'string' and head_of(KEYS[1]) or '')
if high and high + low == 0 then high = nil end
if high then
  local to_high, to_low = tonumber(ARGV[2]), tonumber(ARGV[3])
  local sure_high, sure_low = tonumber(ARGV[10]), tonumber(ARGV[11])
  if high ~= tonumber(ARGV[4]) or low ~= tonumber(ARGV[5]) then
    if high > to_high or (high == to_high and low > to_low) then return 'older' end
    if ARGV[12] ~= '' and (high > sure_high or (high == sure_high and low > sure_low))
      and mark_of(KEYS[1]) ~= ARGV[12] then return 'older' end
  end
elseif ARGV[8] ~= '' then
  local held = kind == 'string' and redis.sha1hex(redis.call('GET', KEYS[1])) or kind
  if held ~= ARGV[8] and held ~= ARGV[9] then
    redis.call('UNLINK', KEYS[1])
    return 'deleted'
  end
end
if ARGV[7] == 'gone' then
  redis.call('UNLINK', KEYS[1])
  return 'deleted'
end
if ARGV[7] == '' then
  redis.call('SET', KEYS[1], ARGV[6])
elseif ARGV[7] == 'keep' then
  redis.call('SET', KEYS[1], ARGV[6], 'KEEPTTL')
else
  redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[7])
end
return 'written'
"""
)


@attrs.frozen
class Settlement:
    """What a key came to hold while Redis was away.

    `stored` is what is to be stored, None for no key; it replaces only a value whose version is `since` or lower, or
    `told`: what Redis may have heard of already. Where what is stored has no version and `base` is not "", it is
    replaced only if it is the string with that SHA-1 in hex ("none": no key), or the one with that of `told_digest`;
    else it is deleted. A value whose version is above `sure` stays as well where its `mark` (see
    `envelope.mark_of`) is another than this, unless that is b"": it is not what ours was made from.
    """

    key: bytes
    stored: bytes | None
    since: int
    told: int = 0
    life: int | str = ""
    """How long it lives in ms, "" for ever, "keep" for as long as what is there."""
    base: str = ""
    told_digest: str = ""
    sure: int = 0
    mark: bytes = b""


def settle(one: Settlement) -> bytes:
    """Bring a key to what it came to hold elsewhere: "written", "deleted", or "older": Redis has something newer."""
    stored, life = (b"", "gone") if one.stored is None else (one.stored, one.life)
    since, told, sure = ((version >> 32, version & 0xFFFFFFFF) for version in (one.since, one.told, one.sure))
    more = (stored, life, one.base, one.told_digest, *sure, one.mark)
    return command("EVAL", _SETTLE, 1, one.key, MAGIC, *since, *told, *more)


def peek(keys: Sequence[bytes]) -> bytes:
    """Ask for those of the keys that hold an envelope: for each {value, digest of the stored bytes}, or nil."""
    return command("EVAL", _PEEK, len(keys), *keys, MAGIC)


def swap(key: bytes, digest: bytes, value: bytes) -> bytes:
    """Store a value, keeping the TTL, if the key still holds the bytes of that digest: 1, else 0."""
    return command("EVAL", _SWAP, 1, key, digest, value)


def purge(versions: Sequence[tuple[bytes, int]]) -> bytes:
    """Unlink those of the keys whose value has this version or an older one, not those without: how many."""
    return _remove(_PURGE, versions)


def sweep(versions: Sequence[tuple[bytes, int]]) -> bytes:
    """Unlink those of the keys whose value has this version, an older one or none: how many.

    Who watches for changes is told not to tell of them: the fences that they are behind have been told.
    """
    return _remove(_SWEEP, versions, *(f'"{key.hex()}"' for key, _ in versions))


def drop_older(db: int, versions: Sequence[tuple[bytes, int | None]]) -> bytes:
    """Unlink those of the keys whose value has this version, an older one or none; all, where the version is None.

    Who watches for changes is told of those whose value is not newer, whether they were there or not.

    A string, one byte a key: `g` it is gone, `n` its value is newer and stays, `-` there was none. A value whose
    version is ahead of the server's time goes as well: it got it from a clock that was dragged ahead (RESPITE SETV), so
    it says nothing of when the value was read.
    """
    words = [
        half
        for _, version in versions
        for half in ((1 << 32, 0) if version is None else (version >> 32, version & 0xFFFFFFFF))
    ]
    parts = [event_part(key, version) for key, version in versions]
    return command("EVAL", _DROP_OLDER, len(versions), *(key for key, _ in versions), MAGIC, *words, db, *parts)


def _remove(script: str, versions: Sequence[tuple[bytes, int]], *more: str) -> bytes:
    words = [half for _, version in versions for half in (version >> 32, version & 0xFFFFFFFF)]
    return command("EVAL", script, len(versions), *(key for key, _ in versions), MAGIC, *words, *more)


def facts(key: bytes, *, read_only: bool = False) -> bytes:
    """Ask what a key holds: its type, and of a string the first 32 stored bytes in hex, how many it has, its PTTL.

    `read_only` is for servers from 7 on, and asks for no right to write the key.
    """
    return command("EVAL_RO" if read_only else "EVAL", _FACTS, 1, key, MAGIC)


def set_newer(key: bytes, stored: bytes, ttl_ms: int | None) -> bytes:
    """Store an envelope over a value with an older version, or without: 1, else 0.

    Refused with an error where the version is more than AHEAD_MAX_MS ahead of the server. One that is ahead at all is
    noted in the clock key of database 0, so that a fence set from now on is above it, if the user may write that key.
    """
    life = "" if ttl_ms is None else ttl_ms
    return command("EVAL", _SETV, 1, key, MAGIC, stored, life, AHEAD_MAX_MS, CLOCK_KEY)
