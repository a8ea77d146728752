"""What was written and what came of it: every id that was sent, and whether it must, may or must not be there.

Structures grow by ids that nobody uses twice: a list, a stream, the fields of a hash, a counter. Registers hold a
number that one client raises; after an outcome nobody knows it takes a new key, so that each value has one meaning.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterable

import attrs


@attrs.define(eq=False)
class Claim:
    """The ids sent to one structure."""

    key: str
    acked: set[str] = attrs.field(factory=set)
    unknown: set[str] = attrs.field(factory=set)
    refused: set[str] = attrs.field(factory=set)

    def note(self, ident: str, how: str) -> None:
        """Note how the writing of an id ended: "" is acknowledged."""
        (self.acked if not how else self.refused if how == "refused" else self.unknown).add(ident)

    def judge(self, found: Iterable[str]) -> list[str]:
        """Return what is wrong with what is there in the end."""
        counts = Counter(found)
        lost = sorted(self.acked - counts.keys())
        doubled = sorted(ident for ident, count in counts.items() if count > 1)
        refused = sorted(self.refused & counts.keys())
        known = self.acked | self.unknown | self.refused
        alien = sorted(counts.keys() - known)
        return [
            f"{self.key}: {len(idents)} of {len(known)} {what}: {idents[:5]}"
            for what, idents in (
                ("acknowledged and lost", lost),
                ("there twice", doubled),
                ("refused and there", refused),
                ("never written", alien),
            )
            if idents
        ]

    def judge_count(self, found: int) -> list[str]:
        """Return what is wrong with a counter that each id raised by one."""
        low, high = len(self.acked), len(self.acked) + len(self.unknown)
        return [] if low <= found <= high else [f"{self.key}: {found}, must be {low} to {high}"]


@attrs.define(eq=False)
class Register:
    """One key whose number one client raises."""

    key: str
    proxy: int
    sent: int = 0
    acked: deque[tuple[float, int]] = attrs.field(factory=lambda: deque([(0.0, 0)], maxlen=4000))

    def floor(self, before: float) -> int:
        """Return the highest number that was acknowledged by then."""
        for at, number in reversed(tuple(self.acked)):  # at once: others add to it
            if at <= before:
                return number
        return 0

    def raised(self, number: int) -> None:
        """Note that a number has been acknowledged."""
        self.acked.append((time.monotonic(), number))


@attrs.define(eq=False)
class Claims:
    """All structures and registers of a run, by key."""

    lists: dict[str, Claim] = attrs.field(factory=dict)
    streams: dict[str, Claim] = attrs.field(factory=dict)
    hashes: dict[str, Claim] = attrs.field(factory=dict)
    counters: dict[str, Claim] = attrs.field(factory=dict)
    jobs: Claim = attrs.field(factory=lambda: Claim("jobs"))
    popped: list[str] = attrs.field(factory=list)
    lost_pops: int = 0  # pops of unknown outcome: each may have taken one
    told: dict[str, tuple[float, float]] = attrs.field(factory=dict)  # key: written from, acknowledged at
    registers: dict[str, Register] = attrs.field(factory=dict)  # by owner and place
    reads: int = 0
    stale: int = 0
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def of(self, table: dict[str, Claim], key: str) -> Claim:
        """Return the claim on a key of one of the tables."""
        with self._lock:
            return table.setdefault(key, Claim(key))

    def writes(self) -> tuple[int, int, int]:
        """Return how many ids were acknowledged, of unknown outcome, refused."""
        every = [*self.lists.values(), *self.streams.values(), *self.hashes.values(), *self.counters.values()]
        every.append(self.jobs)
        return (
            sum(len(claim.acked) for claim in every),
            sum(len(claim.unknown) for claim in every),
            sum(len(claim.refused) for claim in every),
        )
