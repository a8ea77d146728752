"""Open envelopes inside Redis, in Lua: for commands that must not be parted from it by anybody who writes meanwhile.

    in a queue of MULTI    open_in_place(keys), then the command, when EXEC runs them
    at once                run_plain(keys, command): both in one script

Plain bodies are opened, and LZ4 up to MOST_BYTES: that takes milliseconds in Lua, and everybody waits. Checksums are
not looked at: who uses this has had the values opened and checked a moment before, and is only guarded against what was
written since. What is compressed with zstd or a dictionary, or is larger, cannot be opened here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.errors import CROWDED
from proxy.values.envelope import MAGIC
from proxy.wire.encode import command

MOST_BYTES: Final = 64 * 1024

_OPEN: Final = (
    f"local MOST_BYTES, AT_ONCE = {MOST_BYTES}, 4096"
    + """
local function grown(stored, at, length)
  if length < 15 then return length, at end
  local more
  repeat
    more = string.byte(stored, at)
    length, at = length + more, at + 1
  until more < 255
  return length, at
end
local function lz4(stored, at, size)
  local out, made, last = {}, 0, #stored
  while at <= last do
    local token = string.byte(stored, at)
    local literals, length, low, high
    literals, at = grown(stored, at + 1, math.floor(token / 16))
    if at + literals - 1 > last or made + literals > size then return nil end
    for from = at, at + literals - 1, AT_ONCE do
      local bytes = {string.byte(stored, from, math.min(from + AT_ONCE, at + literals) - 1)}
      for one = 1, #bytes do out[made + one] = bytes[one] end
      made = made + #bytes
    end
    at = at + literals
    if at > last then break end
    low, high = string.byte(stored, at, at + 1)
    length, at = grown(stored, at + 2, token % 16)
    local offset = low + high * 256
    length = length + 4
    if offset == 0 or offset > made or made + length > size then return nil end
    for one = made + 1, made + length do out[one] = out[one - offset] end
    made = made + length
  end
  if made ~= size then return nil end
  local pieces = {}
  for from = 1, made, AT_ONCE do
    pieces[#pieces + 1] = string.char(unpack(out, from, math.min(from + AT_ONCE - 1, made)))
  end
  return table.concat(pieces)
end
local function opened(stored)
  local format, flags = string.byte(stored, 5, 6)
  local codec = flags % 16
  if format ~= 1 or flags >= 64 or math.floor(flags / 16) % 2 == 1 or codec > 1 then return nil end
  local size, factor, at, byte = 0, 1, 15, nil
  repeat
    byte = string.byte(stored, at)
    size, factor, at = size + byte % 128 * factor, factor * 128, at + 1
  until byte < 128
  at = at + 4
  if codec == 1 then return size <= MOST_BYTES and lz4(stored, at, size) or nil end
  local body = string.sub(stored, at)
  return #body == size and body or nil
end
local left = 0
for _, key in ipairs(KEYS) do
  if redis.pcall('GETRANGE', key, 0, 3) == ARGV[1] then
    local is_right, value = pcall(opened, redis.call('GET', key))
    if is_right and value then
      redis.call('SET', key, value, 'KEEPTTL')
    else
      left = left + 1
    end
  end
end
"""
)

_OPEN_IN_PLACE: Final = _OPEN + "return left\n"

_RUN_PLAIN: Final = (
    _OPEN
    + f"""
if left > 0 then return redis.error_reply('{CROWDED[1:-2].decode()}') end
if ARGV[2] == '3' then redis.setresp(3) end
return redis.pcall(unpack(ARGV, 3))
"""
)


def open_in_place(keys: Sequence[bytes]) -> bytes:
    """Make keys hold the values that their envelopes hold, keeping the TTL: how many could not be opened."""
    return command("EVAL", _OPEN_IN_PLACE, len(keys), *keys, MAGIC)


def run_plain(keys: Sequence[bytes], words: Sequence[bytes], protocol: int) -> bytes:
    """Run a command on keys that hold plain values by then: its reply, or CROWDED where one cannot be opened.

    Of the commands that look at bytes only LCS answers otherwise in RESP3; elsewhere Lua would lose a null in a list.
    """
    resp = 3 if protocol == 3 and bytes(words[0]).upper() == b"LCS" else 2
    return command("EVAL", _RUN_PLAIN, len(keys), *keys, MAGIC, resp, *words)
