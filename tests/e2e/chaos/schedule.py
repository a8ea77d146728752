"""What falls when: the same for the same seed, and nothing else is left to chance.

A fault begins every `every_s` and lasts a part of that time, so that what comes after it shows before the next.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import attrs

from .faults import FAULTS, NEEDS_BROKER, NEEDS_NAMESPACE, Order, choose

WARM_UP_S = 2.0


@attrs.frozen
class Plan:
    """How a run goes. `only` names the kinds of faults; none of them means all that this place allows."""

    kind: str = "redis7"
    seconds: float = 60.0
    every_s: float = 10.0
    seed: int = 1
    has_broker: bool = True
    only: tuple[str, ...] = ()
    fallbacks: frozenset[str] = frozenset({"stale", "memory"})
    actors: int = 6  # clients that do everything, a kind after the other
    pause_s: float = 0.06  # of each of them, at most, between two moves

    def __str__(self) -> str:
        words = [f"--kind {self.kind} --seconds {self.seconds:g} --every {self.every_s:g} --seed {self.seed}"]
        words += [] if self.has_broker else ["--no-broker"]
        words += [f"--only '{','.join(self.only)}'"] if self.only else []
        words += [f"--without {name}" for name in ("stale", "memory") if name not in self.fallbacks]
        return f"python -m tests.e2e.chaos {' '.join(words)}"


def names_for(plan: Plan, *, is_in_namespace: bool) -> list[str]:
    """Return the kinds of faults of a run."""
    missing = (frozenset() if plan.has_broker else NEEDS_BROKER) | (frozenset() if is_in_namespace else NEEDS_NAMESPACE)
    return [name for name in plan.only or FAULTS if name not in missing]


def orders_of(plan: Plan, names: Sequence[str]) -> Iterator[Order]:
    """Return the faults of a run, the first after a short while."""
    rng = random.Random(plan.seed)
    chosen = choose(rng, list(names))
    at_s = WARM_UP_S
    while at_s + plan.every_s * 0.7 <= plan.seconds:
        longest_s = min(0.4 * plan.every_s, 4.0)
        yield Order(at_s, next(chosen), rng.randrange(2), round(rng.uniform(0.1, 1.0) * longest_s, 3))
        at_s += plan.every_s
