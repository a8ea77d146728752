"""What the classes say to L1: which keys it may hold, how stale they may get, who may make a missing value anew.

Owns the meaning of `[[class]]` and `l1.scope` for L1; which class a key has is `values.rules`'.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from proxy.config.model import ClassSettings
from proxy.values.rules import ClassRules, Rules
from proxy.wire.encode import unbulk


class Policy:
    """The classes in force. Keys are given as bulk strings."""

    __slots__ = ("_find", "_keeps_others", "classes", "has_fallbacks", "prefixes", "rules", "scope", "tightest_s")

    def __init__(self, classes: Sequence[ClassSettings] = (), scope: Literal["all", "classes"] = "all") -> None:
        self.classes = tuple(classes)
        self.scope = scope
        self.rules = rules = Rules(classes)
        self._find = rules.find
        self._keeps_others = scope == "all"
        bounds = [one.max_staleness_s for one in classes if one.l1 and one.max_staleness_s is not None]
        self.tightest_s = min(bounds, default=None)
        self.has_fallbacks = any(one.has_fallback for one in rules.classes)
        # Redis takes no prefix for every prefix.
        self.prefixes = rules.prefixes() if scope == "classes" and rules.prefixes() != (b"",) else ()

    @property
    def is_needed(self) -> bool:
        """Return whether any key is treated otherwise than the rest."""
        return bool(self.classes) or not self._keeps_others

    def find(self, key: bytes) -> ClassRules | None:
        """Return the class of a key."""
        return self._find(unbulk(key))

    def class_of(self, key: bytes) -> str | None:
        """Return the name of the class of a key."""
        rules = self._find(unbulk(key))
        return None if rules is None else rules.name

    def may_keep(self, key: bytes) -> bool:
        """Return whether L1 may hold replies about a key."""
        rules = self._find(unbulk(key))
        return self._keeps_others if rules is None else rules.l1

    def max_staleness_s(self, key: bytes) -> float | None:
        """Return the bound of the key's class, None where l1.max_staleness holds."""
        rules = self._find(unbulk(key))
        return None if rules is None else rules.max_staleness_s

    def recompute(self, key: bytes) -> ClassRules | None:
        """Return the class of a key whose missing values are made anew under a lease, else None."""
        rules = self._find(unbulk(key))
        return rules if rules is not None and rules.recompute_lease_s > 0 else None
