"""Keys that writes of others drop by glob or tag: such a fence comes with every write, a walk through L1 must not.

    published    the entry is marked with how many fences had come by then; it never passes for a hit at one look
    read         looked at: has one come since that covers it? then it is dropped, else served

Owns the marks. So a fence of that kind costs L1 nothing when it is set, and its keys cost more a hit. The mark stands
in the entry's deadline, which no other entry has below 0: it takes no memory of its own. An entry that nobody reads
while its fence is in force goes by the push of the sweep that removes it from Redis, before the fence is lifted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from proxy.cache.entry import Entry
from proxy.config.globs import parse_glob
from proxy.values.covering import is_covered
from proxy.values.fences import Fence, Fences
from proxy.values.rules import ClassRules, Rules
from proxy.wire.encode import unbulk

SPARE: Final = 1_000  # numbers of fences that are lifted, besides as many as there are fences


class FencedKeys:
    """Which entries are watched, and which fences have come since they were published. One a worker, while needed."""

    def __init__(self, rules: Rules, fences: Fences) -> None:
        self._globs = rules.fenced
        expression = b"|".join(b"(?:" + glob.expression + b")" for glob in self._globs)
        self._takes: Callable[[bytes], object] = re.compile(expression, re.DOTALL).match
        self._find: Callable[[bytes], ClassRules | None] = rules.find
        self._fences = fences
        self._count = 0  # of fences that have come
        self._numbers: dict[int, int] = {}  # version of a fence -> which one it was

    def hold(self, fence: Fence) -> bool:
        """Take note of a fence; return whether every key it covers is watched, so that no walk is needed."""
        self._count += 1
        self._numbers[fence.version] = self._count
        if len(self._numbers) > 2 * len(self._fences) + SPARE:
            in_force = {one.version for one in self._fences}
            self._numbers = {version: number for version, number in self._numbers.items() if version in in_force}
        if fence.kind == "tag":
            return True
        text = fence.text
        if any(glob.raw == glob.prefix + b"*" and text.startswith(glob.prefix) for glob in self._globs):
            return True
        return is_covered(parse_glob(text), [glob.parts for glob in self._globs])

    def mark(self, entry: Entry) -> None:
        """Mark an entry that is published, if it is to be watched."""
        if self._takes(unbulk(entry.key)) is not None:
            entry.deadline = -1.0 - self._count

    def has_gone(self, entry: Entry) -> bool:
        """Return whether a fence that covers a marked entry has come since it was published."""
        if not len(self._fences):
            return False
        key = unbulk(entry.key)
        version = self._fences.version_over(entry.namespace.scope.db, key, self._find(key))
        # Versions of one Redis rise: the newest fence is the one that came last. One that is not numbered is new.
        return version > 0 and self._numbers.get(version, self._count + 1) > -1.0 - entry.deadline
