"""What a fence does to L1: everything it covers is dropped, before any reader is answered from it.

    put --> flights of covered keys revoked; only keys that are watched: nothing more (core.fenced)
                                             few entries: all looked at, at once
                                             many: L1 hidden from hits, `turn` by turn looked at, then shown again

Owns the walk. While it lasts, who asks for an entry looks at that one first (`Engine.held`): nothing covered is served
from the moment a fence is known, and nothing else is fetched anew. What Redis holds is looked after by
`core.values.Values.purge`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from proxy.cache.entry import Entry, Namespace
from proxy.core.engine import Engine
from proxy.core.fenced import FencedKeys
from proxy.values.fences import Fence, Fences
from proxy.values.rules import ClassRules, Rules
from proxy.wire.encode import unbulk

AT_ONCE: Final = 240
"""So many entries are looked at in one go, a block: about a millisecond if the fence covers them all (6 us each to be
dropped, 2 to be looked at), in which nobody else is served."""

Find = Callable[[bytes], ClassRules | None]


class Fencing:
    """Put fences in force for L1. One a worker; `fences` are all that are in force."""

    def __init__(self, engine: Engine, fences: Fences) -> None:
        self.engine = engine
        self.fences = fences
        self.find: Find = lambda _key: None  # the class of a key
        self.fenced: FencedKeys | None = None
        self.has_pushes = True  # Redis tells of what sweeps remove: what is watched is gone before its fence is lifted
        self.on_walk: Callable[[], None] = lambda: None  # `turn` is to be called until it returns False
        self._walked = Fences()  # what this walk is about
        self._next = Fences()  # came meanwhile: the walk after it
        self._places: list[tuple[Namespace, int]] = []  # namespaces still to be looked at, and how many of their blocks
        engine.is_fenced = self.is_fenced

    def take(self, rules: Rules) -> None:
        """Follow these classes from now on; L1 is empty, or they are the same."""
        self.find = rules.find
        self.fenced = self.engine.fenced = FencedKeys(rules, self.fences) if rules.fenced else None

    @property
    def is_walking(self) -> bool:
        """Return whether `turn` has something to do."""
        return bool(self._places)

    def put(self, fences: Sequence[Fence]) -> None:
        """Put fences in force; those known already change nothing."""
        news = [one for one in fences if self.fences.put(one.db, one.kind, one.text, one.version)]
        if not news:
            return
        self._revoke(news)
        if not self.engine.outage.remains.is_empty:
            self.engine.outage.remains.drop_covered(news)
        # All are told: an entry that is watched may be behind a fence that covers others, too.
        walked = [one for one in news if self.fenced is None or not self.fenced.hold(one) or not self.has_pushes]
        for one in walked:
            self._next.put(one.db, one.kind, one.text, one.version)
        if self.is_walking or not walked:
            return
        self._begin()
        if len(self.engine.l1) <= AT_ONCE:
            while self.turn():
                pass
        else:
            self.engine.l1.hide(hidden=True)
            self.on_walk()

    def turn(self) -> bool:
        """Look at some more entries; return whether there are others."""
        seen = 0
        while self._places and seen < AT_ONCE:
            namespace, blocks = self._places.pop()
            # From the last block on down: what moves, moves from the end to a place that is still to be looked at.
            at = min(blocks, len(namespace.blocks)) - 1
            if at < 0:
                continue
            if at:
                self._places.append((namespace, at))
            entries = namespace.blocks[at].entries
            seen += len(entries)
            for key in {entry.key for entry in entries}:
                if self._covers(self._walked, namespace.scope.db, key):
                    self.engine.drop(key)
        while not self._places:
            self._walked = Fences()
            if not len(self._next):
                self.engine.l1.hide(hidden=False)
                break
            self._begin()  # where no namespace is left there is nothing to look at
        return bool(self._places)

    def is_fenced(self, entry: Entry) -> bool:
        """Return whether an entry that may not have been looked at yet is covered."""
        db = entry.namespace.scope.db
        return self._covers(self._walked, db, entry.key) or self._covers(self._next, db, entry.key)

    def _begin(self) -> None:
        self._walked, self._next = self._next, Fences()
        self._places = [(namespace, len(namespace.blocks)) for namespace in self.engine.l1.namespaces.values()]

    def _revoke(self, news: Sequence[Fence]) -> None:
        """Let no read that was under way when the fences came fill L1, nor serve the last value of what is gone."""
        fences = Fences()
        for one in news:
            fences.put(one.db, one.kind, one.text, one.version)
        for namespace in self.engine.l1.namespaces.values():
            db = namespace.scope.db
            for key in {flight.key for flight in namespace.flights.values()}:
                if self._covers(fences, db, key):
                    self.engine.drop(key)
        self.engine.recomputes.forget_covered(lambda db, key: self._covers(fences, db, key))

    def _covers(self, fences: Fences, db: int, key: bytes) -> bool:
        if not len(fences):
            return False
        name = unbulk(key)
        return fences.version_over(db, name, self.find(name)) > 0
