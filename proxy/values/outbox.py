"""What is done to the outbox inside Redis, in one step each: read by the relay, bounded, leased to one relay.

Owns the scripts. They come to the databases by SELECT, so that one link of database 0 serves for all of them; Redis
gives the link its own database back when a script ends. An outbox with nothing in it is deleted: clients count and list
the keys of their database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.wire.encode import command

GRACE_MS: Final = 25
"""A younger entry is not read yet: what announces a write that Redis refuses is withdrawn within a round trip."""

_READ: Final = """
local time = redis.call('TIME')
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local most, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = {}
for at = 4, #ARGV do
  if redis.pcall('SELECT', ARGV[at]).ok then
    local depth = redis.pcall('XLEN', KEYS[1])
    if type(depth) == 'number' then
      if depth < room then
        local missed = redis.pcall('HGETALL', KEYS[2])
        if not missed.err and #missed > 0 then
          for one = 1, #missed, 2 do
            local class = string.match(missed[one], '^%S*')
            redis.call('XADD', KEYS[1], '*', 'c', class, 'e', missed[one + 1])
          end
          redis.call('DEL', KEYS[2])
        end
      end
      if redis.call('XLEN', KEYS[1]) == 0 then redis.pcall('DEL', KEYS[1]) end
      local until_ms = string.format('%.0f', now_ms - tonumber(ARGV[3]))
      local entries = redis.call('XRANGE', KEYS[1], '-', until_ms, 'COUNT', most)
      local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
      local oldest_ms = first and math.max(now_ms - tonumber(string.match(first[1], '^%d+')), 0) or 0
      found[#found + 1] = {tonumber(ARGV[at]), depth, oldest_ms, entries}
    end
  end
end
return found
"""

_REMOVE: Final = """
if not redis.pcall('SELECT', ARGV[1]).ok then return 0 end
local gone = 0
for at = 2, #ARGV do gone = gone + redis.call('XDEL', KEYS[1], ARGV[at]) end
if redis.call('XLEN', KEYS[1]) == 0 then redis.call('DEL', KEYS[1]) end
return gone
"""

_LEASE: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def read(outbox: bytes, missed: bytes, dbs: Sequence[int], *, most: int, full_at: int) -> bytes:
    """Ask for {database, length, age of the oldest in ms, entries} of each database that can be asked.

    Where the length is below half of `full_at`, what is in the hash `missed` (class and database -> event) is moved in.
    """
    return command("EVAL", _READ, 2, outbox, missed, most, max(full_at // 2, 1), GRACE_MS, *dbs)


def remove(outbox: bytes, db: int, ids: Sequence[bytes]) -> bytes:
    """Remove entries of one database: how many were there."""
    return command("EVAL", _REMOVE, 1, outbox, db, *ids)


def lease(key: bytes, token: str, ttl_ms: int) -> bytes:
    """Take a lease or keep it: 1, 0 while somebody else has it."""
    return command("EVAL", _LEASE, 1, key, token, ttl_ms)


def release(key: bytes, token: str) -> bytes:
    """Give a lease back, if it is still this one's: 1, else 0."""
    return command("EVAL", _RELEASE, 1, key, token)
