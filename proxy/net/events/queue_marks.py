"""What all sidecars know of the broker's queues: which have been there, and which were made anew with a flush to come.

    not there --> noted in Redis, if it has been known --> made --> what was lost with it is flushed --> note removed

Owns these marks. The note comes before the queue: a sidecar that is killed between the two, or before its flush is
done, leaves it to the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from proxy.core.coordinator import is_away
from proxy.wire.encode import command
from proxy.wire.reply import elements

KNOWN_KEY: Final = b"respite:queues"
OWED_KEY: Final = b"respite:queues:lost"

_GONE: Final = "return redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 and redis.call('SADD', KEYS[2], ARGV[1])"
_OWES: Final = "return {redis.call('SADD', KEYS[1], ARGV[1]), redis.call('SISMEMBER', KEYS[2], ARGV[1])}"

Ask = Callable[[int, bytes], Awaitable[bytes]]


class QueueMarks:
    """Read and set the marks. `ask` sends a command to a database."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def gone(self, queue: str) -> bool:
        """Note that a queue is gone, which is about to be made; False: Redis could not be told."""
        reply = await self._ask(0, command("EVAL", _GONE, 2, KNOWN_KEY, OWED_KEY, _name(queue)))
        return not is_away(reply)

    async def owes(self, queue: str) -> bool | None:
        """Remember a queue that is there; return whether what was lost with the last one is still to be flushed.

        None: Redis does not tell.
        """
        reply = await self._ask(0, command("EVAL", _OWES, 2, KNOWN_KEY, OWED_KEY, _name(queue)))
        return elements(reply)[1] == b":1\r\n" if reply[:1] == b"*" else None

    async def flushed(self, queue: str) -> None:
        """Take the note away. Where Redis cannot be told, it is flushed once more."""
        await self._ask(0, command("SREM", OWED_KEY, _name(queue)))


def _name(queue: str) -> bytes:
    return queue.encode("utf-8", "replace")
