"""How often keys are read, L1's hits included, and what that makes of the TTLs of writes.

Owns the counting and the figures; the arithmetic is `values.ttl`'s. A hit is not told of: it counts itself in its
entry's `uses` as ever. They are looked at when a decision is due (the write has not dropped the entry yet), and when a
read misses, before a new entry takes the place of what is there:

    uses    9    10 .. 14 | 14 .. 31
            ^ mark: the miss, and what the entry inherits of earlier lives (cache.memory)
                          ^ looked at: 5 hits, counted as if they had come evenly between the mark and `used_at`

It is an estimate, and of this worker's reads: uses of an entry that a foreign change or the eviction has ended go
uncounted, and so does what other workers and other sidecars answer. A key counts the same in all databases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import attrs

from proxy.cache.entry import Entry, ReplyEntry
from proxy.cache.frequency import Frequency, Mark, Marks
from proxy.cache.l1 import L1
from proxy.cache.memory import USES_MAX
from proxy.values.rules import ClassRules
from proxy.values.ttl import Decision, Thresholds, decide
from proxy.wire.encode import bulk

_BORN: Final = 1  # uses an entry begins with, for the read that missed: that one is counted where it misses
_EVEN: Final = 0.5  # a random number that makes no jitter
_NOBODYS_MS: Final = 60_000  # stands for the app's TTL where only the tier is asked for


@attrs.define
class TtlFigures:
    """Counted by one worker since it started."""

    hot: int = 0
    warm: int = 0
    cold: int = 0
    changed: int = 0  # writes that got another TTL than the app asked for
    would_change: int = 0  # .. that would have got one, by classes that only report
    left: int = 0  # writes of such classes that carry no TTL, or one that has run out
    at_min: int = 0  # TTLs that ran into a bound of their class
    at_max: int = 0


class _Found(NamedTuple):
    """What L1 has of a key."""

    uses: int  # of all its entries
    hits: int  # those of them since the mark of the key
    since: float  # when the hits came
    until: float
    is_over: bool  # whether an entry of GET is there that is not served any more
    bequest: int  # what entries of other replies leave to the next ones, should they go now


_NOTHING: Final = _Found(0, 0, 0.0, 0.0, is_over=False, bequest=0)


class Lifetimes:
    """Decide about TTLs. One a worker; `thresholds` may be set at any time. `random` gives 0.0 to below 1.0."""

    def __init__(self, thresholds: Thresholds, l1: L1, random: Callable[[], float]) -> None:
        self._thresholds = thresholds
        self._l1 = l1
        self._random = random
        self._frequency = Frequency(thresholds.window_s)
        self._marks = Marks()
        self._began_at: float | None = None
        self.counted = TtlFigures()

    @property
    def thresholds(self) -> Thresholds:
        """What hot and warm mean."""
        return self._thresholds

    @thresholds.setter
    def thresholds(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._frequency.window_s = thresholds.window_s

    def count(self, key: bytes, now: float) -> None:
        """Count a read of a key that L1 does not answer. Its reply may become an entry, with uses to begin with."""
        raw = bulk(key)
        found = self._harvest(key, raw, now)
        self._frequency.count(key, now)
        level, bequest = found.uses, 0
        if not found.bequest:
            mark = self._marks.find(key)
            bequest = mark.bequest if mark is not None else 0
        if not found.is_over:  # else that entry is replaced, and its uses stay
            level += _BORN + self._inherited(raw)
        self._marks.put(key, Mark(now, level + bequest, bequest))

    def decide_for(self, rules: ClassRules, key: bytes, asked_ms: int | None, now: float) -> Decision:
        """Decide about the TTL of a write of a key. Ask before L1 drops the key.

        `asked_ms`: what the app asks for, None for none; never for a write that keeps the TTL the key has.
        """
        reads = 0.0
        if rules.ttl.adaptive != "off":
            found = self._harvest(key, bulk(key), now)
            reads = self._frequency.reads(key, now)
            if found.uses:
                self._marks.put(key, Mark(now, found.uses, found.bequest))
        decision = decide(rules.ttl, self._thresholds, asked_ms=asked_ms, reads=reads, random=self._random())
        self._note(decision, asked_ms, is_report=rules.ttl.adaptive == "report")
        return decision

    def reads(self, key: bytes, now: float) -> float:
        """Return the reads of a key in the window, changing nothing."""
        found = self._look(key, bulk(key), now)
        start = now - self._thresholds.window_s
        if found.until > found.since:
            share = max(0.0, found.until - max(found.since, start)) / (found.until - found.since)
        else:
            share = float(found.until > start)
        return self._frequency.reads(key, now) + found.hits * share

    def figures(self) -> dict[str, Any]:
        """Return the figures for the report."""
        counted = self.counted
        return {
            "decided_total": {"hot": counted.hot, "warm": counted.warm, "cold": counted.cold},
            "changed_total": counted.changed,
            "would_change_total": counted.would_change,
            "left_total": counted.left,
            "at_min_total": counted.at_min,
            "at_max_total": counted.at_max,
            "keys_counted": len(self._frequency),
        }

    def explain(self, rules: ClassRules, key: bytes, now: float) -> dict[str, Any]:
        """Return what a decision about a key would rest on now, and what it would be, jitter left out.

        For a write that asks for the class's base; without a base only the tier can be told.
        """
        ttl, thresholds = rules.ttl, self._thresholds
        reads = self.reads(key, now)
        base_ms = None if ttl.base_s is None else round(ttl.base_s * 1000)
        asked_ms = _NOBODYS_MS if base_ms is None else base_ms
        found = decide(ttl, thresholds, asked_ms=asked_ms, reads=reads, random=_EVEN)
        return {
            "adaptive": ttl.adaptive,
            "when_missing": ttl.when_missing,
            "window_s": thresholds.window_s,
            "warm_above": thresholds.warm_above,
            "hot_above": thresholds.hot_above,
            "jitter": thresholds.jitter,
            "reads": round(reads, 1),
            "tier": found.tier,
            "base_s": ttl.base_s,
            "min_s": ttl.min_s,
            "max_s": ttl.max_s,
            "bounded": "" if base_ms is None else found.bounded,
            "would_be_ms": None if base_ms is None else found.would_be_ms,
        }

    # -- what L1 has answered -----------------------------------------------------------------------------------------

    def _entries(self, raw: bytes) -> Iterator[Entry]:
        for namespace in self._l1.namespaces.values():
            entry = namespace.resident.get(raw)
            if entry is not None:
                yield entry
            if namespace.heads:
                yield from namespace.replies_of(raw)

    def _harvest(self, key: bytes, raw: bytes, now: float) -> _Found:
        """Count the hits since the mark of a key. The mark is the caller's to move."""
        if self._began_at is None:
            self._began_at = now
        found = self._look(key, raw, now)
        if found.hits:
            self._frequency.add(key, found.hits, found.since, found.until, now)
        return found

    def _look(self, key: bytes, raw: bytes, now: float) -> _Found:
        uses = count = bequest = 0
        until = 0.0
        is_over = False
        for entry in self._entries(raw):
            count += 1
            uses += entry.uses
            until = max(until, entry.used_at)
            if not isinstance(entry, ReplyEntry):
                is_over = is_over or (entry.ends_at if entry.deadline < 0 else entry.deadline) <= now
            elif entry.uses > 1:  # else L1 does not remember it when it goes
                bequest += min(entry.uses, USES_MAX)
        if not count:
            return _NOTHING
        mark = self._marks.find(key)
        if mark is not None:
            return _Found(uses, max(0, uses - mark.level), mark.at, until, is_over, bequest)
        # Older than the memory of marks, or than this: what it can have inherited is taken off, and it is taken to be
        # no older than is known.
        since = self._marks.lost_at(key) or self._began_at or 0.0
        return _Found(uses, max(0, uses - count * (_BORN + USES_MAX)), since, until, is_over, bequest)

    def _inherited(self, raw: bytes) -> int:
        """Return the uses that L1 remembers of a GET of a key, and will give to its next entry."""
        memory = self._l1.groups.of(raw).memory
        past = memory.recall(raw)
        if past is None:
            return 0
        memory.remember(raw, *past)  # recalled is forgotten: put it back as it was
        return past[0]

    # -- figures ------------------------------------------------------------------------------------------------------

    def _note(self, decision: Decision, asked_ms: int | None, *, is_report: bool) -> None:
        counted = self.counted
        tier = decision.tier
        if tier == "hot":
            counted.hot += 1
        elif tier == "warm":
            counted.warm += 1
        elif tier == "cold":
            counted.cold += 1
        if decision.would_be_ms is None:
            counted.left += 1
            return
        counted.changed += decision.ttl_ms is not None
        counted.would_change += is_report and decision.would_be_ms != asked_ms
        counted.at_min += decision.bounded == "min"
        counted.at_max += decision.bounded == "max"
