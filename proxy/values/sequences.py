"""Which numbers of a publisher have come, on any sidecar: what is missing for too long is a gap.

    numbers   1 2 3 _ _ 6 7 _ 9        wanted: 4        pending: 6-7 (hole before it seen at t1), 9-9 (t2)
    offered   to one sidecar, which has `lease_ms` to make up for 4..8 (those that are old enough), then close it
    closed    wanted: 10               never closed, because it died: offered to the next who asks

    respite:sequences         hash   publisher -> wanted, until when its gap is offered, pending ranges
    respite:sequences:seen    zset   publishers by when they were heard of last: the longest silent is forgotten first
    respite:sequences:holes   zset   publishers with a hole, by when it was seen

Owns these forms and the scripts; times are the server's. The first numbers that are seen of a publisher set its mark:
what came before is not missed. A publisher that begins to count anew needs another name: lower numbers are taken for
ones that came twice. Numbers come in any order, and as often as they like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from proxy.wire.encode import command
from proxy.wire.reply import elements, text

SEQUENCES_KEYS: Final = (b"respite:sequences", b"respite:sequences:seen", b"respite:sequences:holes")
NUMBER_MAX: Final = (1 << 53) - 2
"""Numbers in Lua are doubles: what is higher is not noted."""
NAME_MAX_BYTES: Final = 1024
"""Of a publisher; one with a longer name is not noted."""
PUBLISHERS_MAX: Final = 10_000
PENDING_MAX: Final = 1_000
"""Ranges that are pending for a publisher. With more, all that is missing counts as lost at once."""
LIFE_MS: Final = 86_400_000
GRACE_MS: Final = 2_000
LEASE_MS: Final = 10_000
TAKEN_MAX: Final = 100
"""Publishers whose gaps are taken in one go."""

_STATE: Final = """
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function state_of(name)
  local kept = redis.call('HGET', KEYS[1], name)
  local wanted, offered, rest = string.match(kept or '', '^(%d+) (%d+) (.*)$')
  if not wanted then return nil end
  local ranges = {}
  for first, last, seen in string.gmatch(rest, '(%d+)-(%d+)-(%d+)') do
    ranges[#ranges + 1] = {tonumber(first), tonumber(last), tonumber(seen)}
  end
  return tonumber(wanted), tonumber(offered), ranges
end
local function merged(wanted, ranges)
  table.sort(ranges, function(one, other) return one[1] < other[1] end)
  local left = {}
  for _, range in ipairs(ranges) do
    local last = left[#left]
    if range[1] <= wanted then
      wanted = math.max(wanted, range[2] + 1)
    elseif last and range[1] <= last[2] + 1 then
      last[2], last[3] = math.max(last[2], range[2]), math.min(last[3], range[3])
    else
      left[#left + 1] = range
    end
  end
  for at = #left - 1, 1, -1 do
    left[at][3] = math.min(left[at][3], left[at + 1][3])
  end
  return wanted, left
end
local function keep(name, wanted, offered, ranges)
  local parts = {}
  for at, range in ipairs(ranges) do
    parts[at] = string.format('%.0f-%.0f-%.0f', range[1], range[2], range[3])
  end
  redis.call('HSET', KEYS[1], name, string.format('%.0f %.0f ', wanted, offered) .. table.concat(parts, ','))
  if ranges[1] then
    redis.call('ZADD', KEYS[3], math.max(ranges[1][3], offered), name)
  else
    redis.call('ZREM', KEYS[3], name)
  end
end
"""
"""A hole is known since the first number above it came: hence the least time of its range and all that are higher."""

_NOTE: Final = (
    _STATE
    + """
local function forget(names)
  for _, name in ipairs(names) do
    redis.call('HDEL', KEYS[1], name)
    redis.call('ZREM', KEYS[2], name)
    redis.call('ZREM', KEYS[3], name)
  end
end
for at = 4, #ARGV, 2 do
  local name = ARGV[at]
  local new = {}
  for first, last in string.gmatch(ARGV[at + 1], '(%d+)-(%d+)') do
    new[#new + 1] = {tonumber(first), tonumber(last), now_ms}
  end
  local was, offered, ranges = state_of(name)
  if not was then was, offered, ranges = new[1][1], 0, {} end
  for _, range in ipairs(new) do ranges[#ranges + 1] = range end
  local wanted
  wanted, ranges = merged(was, ranges)
  if wanted ~= was then offered = 0 end
  if #ranges > tonumber(ARGV[2]) then
    local last = ranges[#ranges]
    last[3] = 0
    ranges = {last}
  end
  keep(name, wanted, offered, ranges)
  redis.call('ZADD', KEYS[2], now_ms, name)
end
local life_ms, too_many = tonumber(ARGV[3]), redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[1])
if too_many > 0 then forget(redis.call('ZRANGE', KEYS[2], 0, too_many - 1)) end
forget(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms - life_ms, 'LIMIT', 0, 100))
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, life_ms) end
return now_ms
"""
)

_TAKE: Final = (
    _STATE
    + """
local grace_ms, lease_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now_ms - grace_ms, 'LIMIT', 0, tonumber(ARGV[3]))) do
  local wanted, _, ranges = state_of(name)
  local to = nil
  for _, range in ipairs(ranges or {}) do
    if range[3] <= now_ms - grace_ms then to = range[1] - 1 end
  end
  if to then
    keep(name, wanted, now_ms + lease_ms - grace_ms, ranges)
    found[#found + 1] = name
    found[#found + 1] = string.format('%.0f', wanted)
    found[#found + 1] = string.format('%.0f', to)
  else
    redis.call('ZREM', KEYS[3], name)
  end
end
return found
"""
)

_CLOSE: Final = (
    _STATE
    + """
for at = 1, #ARGV, 2 do
  local wanted, _, ranges = state_of(ARGV[at])
  if wanted then
    wanted, ranges = merged(math.max(wanted, tonumber(ARGV[at + 1]) + 1), ranges)
    keep(ARGV[at], wanted, 0, ranges)
  end
end
return 'OK'
"""
)


@attrs.frozen
class Missing:
    """What is missing of a publisher: from one number to another, not all between them."""

    publisher: bytes
    first: int
    last: int


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as ranges, both ends included, in order."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def note(numbers: Mapping[bytes, Iterable[int]]) -> bytes:
    """Take note of numbers that have come, by publisher; none above NUMBER_MAX."""
    words = [
        word
        for name, some in numbers.items()
        if (ranges := ranges_of(some))
        for word in (name, ",".join([f"{first}-{last}" for first, last in ranges]))
    ]
    return command("EVAL", _NOTE, 3, *SEQUENCES_KEYS, PUBLISHERS_MAX, PENDING_MAX, LIFE_MS, *words)


def take_holes(grace_ms: int = GRACE_MS, lease_ms: int = LEASE_MS) -> bytes:
    """Take the gaps that have stood for longer than the grace; nobody else is given them until the lease is over.

    Which they are, in `parse_holes`' form. They are to be closed (`close_holes`) once they are made up for.
    """
    return command("EVAL", _TAKE, 3, *SEQUENCES_KEYS, grace_ms, lease_ms, TAKEN_MAX)


def parse_holes(reply: bytes) -> list[Missing]:
    """Read the reply to `take_holes`."""
    words = [text(frame) for frame in elements(reply)]
    return [Missing(words[at], int(words[at + 1]), int(words[at + 2])) for at in range(0, len(words), 3)]


def close_holes(gaps: Sequence[Missing]) -> bytes:
    """Miss these numbers no more."""
    words = [word for gap in gaps for word in (gap.publisher, gap.last)]
    return command("EVAL", _CLOSE, 3, *SEQUENCES_KEYS, *words)
