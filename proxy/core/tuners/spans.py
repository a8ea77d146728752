"""What tuning looks at: counters at a moment, and what they came to between two.

Only sums and differences; what follows from them is each tuner's own.
"""

from __future__ import annotations

from typing import Final

import attrs

from proxy.core.engine import Engine
from proxy.core.values import Values

READS_MIN: Final = 200
"""Fewer reads in a span say nothing about shares of them."""
WRITTEN_MIN_BYTES: Final = 64 << 10
DECIDED_MIN: Final = 20


@attrs.frozen
class Tiers:
    """A count for each tier of TTLs by access frequency."""

    hot: int = 0
    warm: int = 0
    cold: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.hot + self.warm + self.cold

    def since(self, before: Tiers) -> Tiers:
        """Return what was counted since."""
        return Tiers(self.hot - before.hot, self.warm - before.warm, self.cold - before.cold)


@attrs.frozen
class Small:
    """Values below the size from which they are compressed, but of half that size at least; some are tried out."""

    seen_bytes: int = 0
    tried: int = 0
    tried_bytes: int = 0
    saved_bytes: int = 0
    seconds: float = 0.0


@attrs.frozen
class Moment:
    """Counters since the start, and what L1 holds, at `at` seconds of the worker's clock."""

    at: float
    reads: int = 0
    hits: int = 0
    flushes: int = 0
    is_serving: bool = True
    l1_bytes: int = 0
    l1_max_bytes: int = 0
    evictions: int = 0
    evictions_unused: int = 0
    refusals: int = 0
    returns: int = 0
    more_hits: tuple[int, ...] = (0, 0, 0)  # with each of the rooms of cache.ghost
    written_bytes: int = 0
    saved_bytes: int = 0
    compress_tried: int = 0
    out_of_time: int = 0
    small: Small = Small()
    decided: Tiers = Tiers()
    missing: Tiers = Tiers()


def take_moment(engine: Engine, values: Values, small: Small, missing: Tiers) -> Moment:
    """Read the counters of a worker."""
    l1, stats, sealed, decided = engine.l1, engine.stats, values.sealer.figures, values.lifetimes.counted
    return Moment(
        at=engine.now,
        reads=stats.hits + stats.misses,
        hits=stats.hits,
        flushes=stats.flushes,
        is_serving=l1.serving,
        l1_bytes=l1.bytes,
        l1_max_bytes=l1.max_bytes,
        evictions=l1.admission.evictions,
        evictions_unused=l1.admission.evictions_unused,
        refusals=l1.admission.refusals,
        returns=l1.admission.returns,
        more_hits=l1.ghosts.hits() if l1.ghosts is not None else (0, 0, 0),
        written_bytes=sealed.written_bytes,
        saved_bytes=sealed.saved_bytes,
        compress_tried=sealed.tried,
        out_of_time=sealed.out_of_time,
        small=small,
        decided=Tiers(decided.hot, decided.warm, decided.cold),
        missing=missing,
    )


@attrs.frozen
class Span:
    """What happened between two moments; a share is None where too little did."""

    before: Moment
    after: Moment

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.after.at - self.before.at

    @property
    def reads(self) -> int:
        """Reads that L1 could have answered."""
        return self.after.reads - self.before.reads

    @property
    def hit_rate(self) -> float | None:
        """Share of the reads that L1 answered; None, too, where it was emptied or not served."""
        is_whole = self.after.is_serving and self.before.is_serving and self.after.flushes == self.before.flushes
        return (self.after.hits - self.before.hits) / self.reads if is_whole and self.reads >= READS_MIN else None

    @property
    def more_hits(self) -> tuple[int, ...]:
        """Reads that would have been hits besides, with each of the rooms of cache.ghost."""
        return tuple(after - before for after, before in zip(self.after.more_hits, self.before.more_hits, strict=True))

    @property
    def evictions(self) -> int:
        """Entries evicted."""
        return self.after.evictions - self.before.evictions

    @property
    def evictions_unused(self) -> int:
        """Those of them that were never hit."""
        return self.after.evictions_unused - self.before.evictions_unused

    @property
    def refusals(self) -> int:
        """Keys that were not let in."""
        return self.after.refusals - self.before.refusals

    @property
    def returns(self) -> int:
        """Keys that had not been let in, and came back."""
        return self.after.returns - self.before.returns

    @property
    def written_bytes(self) -> int:
        """Bytes of values written, of classes with envelopes."""
        return self.after.written_bytes - self.before.written_bytes

    @property
    def saved_share(self) -> float | None:
        """Share of those bytes that compressing saved."""
        saved = self.after.saved_bytes - self.before.saved_bytes
        return saved / self.written_bytes if self.written_bytes >= WRITTEN_MIN_BYTES else None

    @property
    def compress_tried(self) -> int:
        """Values that were compressed, or tried to be."""
        return self.after.compress_tried - self.before.compress_tried

    @property
    def out_of_time(self) -> int:
        """Values that were not, for want of time."""
        return self.after.out_of_time - self.before.out_of_time

    @property
    def small(self) -> Small:
        """Values that were too small to be compressed."""
        new, old = self.after.small, self.before.small
        return Small(
            new.seen_bytes - old.seen_bytes,
            new.tried - old.tried,
            new.tried_bytes - old.tried_bytes,
            new.saved_bytes - old.saved_bytes,
            new.seconds - old.seconds,
        )

    @property
    def decided(self) -> Tiers:
        """Writes of adaptive classes by tier."""
        return self.after.decided.since(self.before.decided)

    @property
    def missing(self) -> Tiers:
        """Reads that found nothing, of keys that had been read before, by the tier of the key."""
        return self.after.missing.since(self.before.missing)

    @property
    def found_share(self) -> float | None:
        """Share of the reads that did not find nothing in that way."""
        return 1 - self.missing.total / self.reads if self.reads >= READS_MIN else None

    @property
    def mixed_share(self) -> float | None:
        """Share of the decided writes that are not of the most frequent tier."""
        decided = self.decided
        if decided.total < DECIDED_MIN:
            return None
        return 1 - max(decided.hot, decided.warm, decided.cold) / decided.total
