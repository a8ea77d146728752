"""The keys of L1 that are read most: for people who look, without a list that hits would have to keep.

Owns a roving look at L1, a slice a turn, and the best of the last round through it. A hit costs nothing for it; what
is shown is at most one round old: a second, or one for every 5,000 entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from typing import Any, Final

import attrs

from proxy.cache.entry import Entry, Namespace, ReplyEntry
from proxy.core.engine import Engine
from proxy.log import short
from proxy.wire.encode import unbulk

SLICE: Final = 256  # entries looked at a turn: some 30 us
ROUND_S: Final = 1.0  # no round is shorter: hits a second would be a matter of chance
SHOWN: Final = 20

Place = tuple[Namespace, bytes, bool]
"""Where an entry is: its namespace, and the key of a GET, or (True) the request of another read."""


@attrs.frozen
class Seen:
    """How an entry was used when it was looked at. `per_second`: hits since the round before."""

    place: Place
    uses: float
    at: float
    per_second: float


class Hottest:
    """Look at L1 in turns; show the entries with the most hits a second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._hand = engine.l1.walk(SLICE)
        self._began_at = 0.0
        self._round: list[Seen] = []
        self._last: dict[Place, Seen] = {}
        self._is_over = False

    def turn(self) -> None:
        """Look at the next slice."""
        now = self._engine.now
        if self._is_over and now - self._began_at < ROUND_S:
            return
        if self._is_over:
            self._last = {one.place: one for one in self._round}
            self._round, self._began_at, self._is_over = [], now, False
        looked_at = next(self._hand)
        self._is_over = not looked_at
        self._round = _best([*self._round, *(self._see(entry, now) for entry in looked_at if entry.uses > 1)])

    def _see(self, entry: Entry, now: float) -> Seen:
        place = _place(entry)
        before = self._last.get(place)
        # Fewer uses than before: it has been fetched anew in between.
        grown = entry.uses - before.uses if before is not None else 0.0
        since_s = now - before.at if before is not None else 0.0
        return Seen(place, entry.uses, now, grown / since_s if grown > 0 and since_s > 0 else 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row an entry, the hottest first. `name` is the key, cut short; `uses` is since it was fetched."""
        known = {**self._last, **{one.place: one for one in self._round}}
        return [_row(entry, one, self._engine.now) for one in _best(known.values()) if (entry := _find(one.place))]


def _best(seen: Iterable[Seen]) -> list[Seen]:
    return nlargest(SHOWN, seen, key=lambda one: (one.per_second, one.uses))


def _place(entry: Entry) -> Place:
    if isinstance(entry, ReplyEntry):
        return entry.namespace, entry.request, True
    return entry.namespace, entry.key, False


def _find(place: Place) -> Entry | None:
    namespace, id_, is_reply = place
    return namespace.replies.get(id_) if is_reply else namespace.resident.get(id_)


def _row(entry: Entry, seen: Seen, now: float) -> dict[str, Any]:
    command = entry.request.split(b"\r\n", 3)[2].upper() if isinstance(entry, ReplyEntry) else b"GET"
    return {
        "name": short(unbulk(entry.key)),
        "db": entry.namespace.scope.db,
        "command": command.decode("ascii", "replace"),
        "uses": int(entry.uses),
        "per_second": round(seen.per_second, 1),
        "reply_bytes": len(entry.reply),
        "idle_s": round(max(now - entry.used_at, 0.0), 3),
    }
