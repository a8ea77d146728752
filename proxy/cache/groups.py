"""What L1 learns by class of keys: how much idle time says, and who went.

    sessions that end       p -> 2      as LRU: who has been idle has gone
    steady popularity       p -> 0.4    as LFU: who was read often will be

Owns the groups: the keys of each class are one, those of no class another. What is held is shared by all; a group has
no room of its own. It learns from what comes back: each eviction is by one of two rules at random, drawn for each
group, p a little above or below its middle. A key that is read again soon after it was evicted speaks against its
rule, and the middle of its group moves away from that one.

Where p differs, idle times compare only at one age: what is idle for a fraction of it is worth more where p is large,
and what is idle for longer, less. That age is the one at which entries go (`Groups.age_s`): there all groups weigh
alike, so that none has an advantage where it is decided who goes.

Each group remembers who went by itself: the many keys of a scan would else push out what is remembered of others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.cache.memory import STEEP, Memory

GROUPS_MAX: Final = 32
"""Each takes 4 KiB at least, and a little time of every eviction; further classes are with the keys of none."""
IDLE_POWERS: Final = (0.4, 2.0)
"""Between which the power of the idle time is learnt, beginning at 0.8."""
IDLE_SPREAD: Final = 0.3
"""How far the two rules are from their middle: nearer, their difference drowns in noise."""
IDLE_STEP: Final = 0.1
REGRETS: Final = 32
"""So many more keys must come back to one rule than to the other before the middle moves: with 16 it wanders."""
_AGES: Final = 64
"""Evictions over which the age at which entries go is averaged."""

ClassOf = Callable[[bytes], str | None]
"""Names the class of a key (a bulk string); None for a key of none."""


class Group:
    """What is learnt of the keys of one class. `count` is how many entries of theirs are held."""

    __slots__ = ("_regret", "count", "idle_power", "memory", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.count = 0
        self.memory = Memory()
        self.idle_power = 0.8
        self._regret = 0

    def learn(self, how: int) -> None:
        """Note that a key came back which a rule evicted; move away from the rule to which more come back."""
        self._regret += 1 if how == STEEP else -1
        if abs(self._regret) >= REGRETS:
            low, high = IDLE_POWERS
            step = -IDLE_STEP if self._regret > 0 else IDLE_STEP
            self.idle_power = min(high, max(low, self.idle_power + step))
            self._regret = 0


class Groups:
    """The groups of one L1. `all` has a group at its number; the first is that of keys of no class."""

    __slots__ = ("_by_name", "_class_of", "age_s", "all")

    def __init__(self, class_of: ClassOf | None = None) -> None:
        self._class_of = class_of
        self.all = [Group(0)]
        self._by_name: dict[str | None, Group] = {None: self.all[0]}
        self.age_s = 0.0  # how long entries are idle when they go; 0.0 until one has gone

    def of(self, key: bytes) -> Group:
        """Return the group of a key, made on first need."""
        if self._class_of is None:
            return self.all[0]
        name = self._class_of(key)
        found = self._by_name.get(name)
        if found is None:
            if len(self.all) < GROUPS_MAX:
                self.all.append(Group(len(self.all)))
                found = self.all[-1]
            else:
                found = self.all[0]
            self._by_name[name] = found
        return found

    def went(self, idle_s: float) -> None:
        """Note how long an entry was idle that was just not worth keeping."""
        self.age_s += (idle_s - self.age_s) / _AGES if self.age_s else idle_s

    @property
    def cells(self) -> int:
        """How many cells all their memories have."""
        return sum(len(group.memory) for group in self.all)
