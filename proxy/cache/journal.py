"""What happened to keys lately: why one was stale, or a miss.

Owns one ring for all keys, bounded, so that remembering costs a call and an append, and no look-up; only EXPLAIN
goes through it. A long key is noted by its beginning and its hash: clients must not choose how much memory is taken.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

EVENTS_MAX: Final = 20_000
EVENTS_MIN: Final = 500
"""Of a small L1: the memory they take is a part of its bound."""
SHOWN_MAX: Final = 32
NAME_MAX: Final = 128
_BEGINNING: Final = 64

FILL: Final = "fill"
REFUSED: Final = "refused publish"
PUSH: Final = "push"
WRITE: Final = "own write"
EXPIRED: Final = "expired"
EVICTED: Final = "evicted"
HEALED: Final = "healed"
FLUSH: Final = "flush of everything"
LINK_LOST: Final = "flush of what one link fed"
EVERY_KEY: Final = b""
ENDS: Final = frozenset([PUSH, WRITE, EXPIRED, EVICTED, HEALED, FLUSH, LINK_LOST])
"""Why something is in L1 no more."""
LOOKED_AT: Final = 2000
"""So many of the last events are gone through for those that ended something: some 0.1 ms."""


class Journal:
    """The last events of all keys; keys are bulk strings."""

    __slots__ = ("_events",)

    def __init__(self) -> None:
        self._events: deque[tuple[float, str, bytes]] = deque(maxlen=EVENTS_MAX)

    def note(self, event: tuple[float, str, bytes]) -> None:
        """Add (seconds, what, key)."""
        if len(event[2]) > NAME_MAX:
            event = (event[0], event[1], _short_of(event[2]))
        self._events.append(event)

    def limit(self, events: int) -> int:
        """Keep no more than so many, within `EVENTS_MIN` .. `EVENTS_MAX`; return how many it is."""
        events = max(EVENTS_MIN, min(EVENTS_MAX, events))
        self._events = deque(self._events, maxlen=events)
        return events

    def of(self, key: bytes) -> list[tuple[float, str]]:
        """Return the last events of a key, the oldest first; what befell all keys is among them."""
        name = _short_of(key) if len(key) > NAME_MAX else key
        found = [(at, what) for at, what, about in self._events if about in (name, EVERY_KEY)]
        return found[-SHOWN_MAX:]

    def ends(self, most: int) -> list[tuple[float, str, bytes]]:
        """Return what of late ended entries, the newest first: (seconds, what, key), key b"" for all of them."""
        last = islice(reversed(self._events), LOOKED_AT)
        return list(islice((event for event in last if event[1] in ENDS), most))


def _short_of(key: bytes) -> bytes:
    """Return what stands for a long key; its hash is known already, to find it in L1."""
    return b"%b..%x\r\n" % (key[: key.index(b"\n") + 1 + _BEGINNING], hash(key) & 0xFFFFFFFFFFFFFFFF)
