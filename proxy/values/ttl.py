"""How long a value lives: what its class says, how often it is read, and what the app asked for.

Owns the arithmetic of one decision. Knows no clock, no counter and no command: it is handed the reads, and what comes
out is written into the app's own words by who asked (values.writes).

    reads > hot_above    min(base / 2, hot)     hot data is renewed often        |
    reads > warm_above   base                                                    |> the class's bounds, then jitter
    else                 max(base * 2, cold)    cold data is kept                |

The base is the class's `ttl`, without one the TTL that the app asks for. Where adaptive TTLs are off or only reported,
the app's own TTL stands, and only bounds that the class names change it.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import attrs

Tier = Literal["hot", "warm", "cold", ""]
Bound = Literal["min", "max", ""]

LEAST_MS: Final = 1000
"""What stands for a `min_ttl` left out, for a base above it: Redis' own smallest unit for most apps."""

MOST_BASES: Final = 2
"""What stands for a `max_ttl` left out: so many times the base. Else cold data of a 30 s class would live an hour."""


@attrs.frozen
class TtlRules:
    """What a class says about TTLs; None where it says nothing."""

    base_s: float | None = None
    adaptive: Literal["off", "on", "report"] = "off"
    when_missing: Literal["leave", "set"] = "leave"
    min_s: float | None = None
    max_s: float | None = None

    @property
    def has_effect(self) -> bool:
        """Return whether any write could be changed, or counted as one that would be."""
        sets = self.when_missing == "set" and self.base_s is not None
        return self.adaptive != "off" or sets or self.min_s is not None or self.max_s is not None


@attrs.frozen
class Thresholds:
    """From how many reads in the window a key is warm or hot, and what that means; the same for all classes."""

    window_s: float = 60.0
    warm_above: int = 5
    hot_above: int = 10
    hot_s: float = 300.0
    cold_s: float = 3600.0
    jitter: float = 0.05


class Decision(NamedTuple):
    """What becomes of the TTL of one write, with the inputs. A plain tuple: built for each write of a class."""

    ttl_ms: int | None = None
    """The new one; None leaves the write as it is."""
    tier: Tier = ""
    """"" where adaptive TTLs are off, or the write is left alone."""
    reads: float = 0.0
    """In the window."""
    base_ms: int | None = None
    """What the tier was applied to."""
    bounded: Bound = ""
    """Which bound of the class the tier's TTL ran into."""
    would_be_ms: int | None = None
    """What it is, or with adaptive TTLs on would be; None for a write that is left alone in any case."""


def decide(rules: TtlRules, thresholds: Thresholds, *, asked_ms: int | None, reads: float, random: float) -> Decision:
    """Decide about one write.

    `asked_ms` is the TTL that the app gives the value, None for none (never ask for a write that keeps the TTL the
    key has); one that has run out already is left alone. `random` is at least 0 and below 1.
    """
    if asked_ms is None:
        if rules.when_missing == "leave" or rules.base_s is None:
            return Decision(reads=reads)
    elif asked_ms <= 0:
        return Decision(reads=reads)
    base_ms = asked_ms if rules.base_s is None else round(rules.base_s * 1000)
    assert base_ms is not None  # one of the two is there
    spread = thresholds.jitter
    if rules.adaptive != "on":
        if asked_ms is None:
            ttl_ms, bounded = _bound(base_ms, rules, 1, None, spread * (2 * random - 1))
        else:
            ttl_ms, bounded = _bound(asked_ms, rules, 1, None, 0.0)
        left = None if ttl_ms == asked_ms else ttl_ms
        if rules.adaptive == "off":
            return Decision(left, "", reads, base_ms, bounded, ttl_ms)
    tier, wanted_ms = _tier(thresholds, base_ms, reads)
    would_be_ms, bounded = _bound(
        wanted_ms, rules, min(LEAST_MS, base_ms), MOST_BASES * base_ms, spread * (2 * random - 1)
    )
    if rules.adaptive == "on":
        left = None if would_be_ms == asked_ms else would_be_ms
    return Decision(left, tier, reads, base_ms, bounded, would_be_ms)


def _tier(thresholds: Thresholds, base_ms: int, reads: float) -> tuple[Tier, float]:
    if reads > thresholds.hot_above:
        return "hot", min(base_ms / 2, thresholds.hot_s * 1000)
    if reads > thresholds.warm_above:
        return "warm", base_ms
    return "cold", max(base_ms * 2, thresholds.cold_s * 1000)


def _bound(wanted_ms: float, rules: TtlRules, least_ms: int, most_ms: int | None, jitter: float) -> tuple[int, Bound]:
    """Keep a TTL within the class's bounds, or within those that stand for them; return which one it ran into.

    `jitter` is the share to add, or to take off. At a bound it goes the way that is free: what all ran into the same
    bound must not all end in the same moment, and a bound that a class names is never passed.
    """
    if rules.min_s is not None:
        least_ms = round(rules.min_s * 1000)
    if rules.max_s is not None:
        most_ms = round(rules.max_s * 1000)
        least_ms = min(least_ms, most_ms)
    elif most_ms is not None:
        most_ms = max(most_ms, least_ms)
    bounded: Bound = ""
    ttl_ms = wanted_ms
    if ttl_ms < least_ms:
        ttl_ms, bounded = least_ms, "min"
    elif most_ms is not None and ttl_ms > most_ms:
        ttl_ms, bounded = most_ms, "max"
    if jitter:
        moved = ttl_ms * (1 + jitter)
        if moved < least_ms or (most_ms is not None and moved > most_ms):
            moved = ttl_ms * (1 - jitter)
        if moved >= least_ms and (most_ms is None or moved <= most_ms):
            ttl_ms = moved
    return max(1, round(ttl_ms)), bounded
