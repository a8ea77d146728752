"""Which lines an input reaches: steps from line to line in the modules of a target, and about how often each is taken.

Owns the trace. Traced, Python takes several times as long, so that who asks traces a sample of the inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

_LINE_BITS: Final = 16
_OFTEN_BITS: Final = 3
_OFTEN: Final = 6  # 32 times and more are one

Step = int
"""One step: the number of its function here, the two lines, and how often: once, 2 or 3 times, 4 to 7 times, and on."""


class Lines:
    """Steps that inputs took: `seen` by any of them, `last` by the last one that was traced."""

    def __init__(self, modules: Sequence[ModuleType]) -> None:
        self.seen: set[Step] = set()
        self.last: frozenset[Step] = frozenset()
        self._files = {module.__file__ for module in modules}
        # By the id of the code, which is held so that no other gets it; number 0: not of interest.
        self._numbers: dict[int, tuple[CodeType, int]] = {}
        self._counts: dict[int, int] = {}

    @property
    def files(self) -> set[str]:
        """The files that had a step."""
        numbers = {step >> (2 * _LINE_BITS + _OFTEN_BITS) for step in self.seen}
        return {code.co_filename for code, number in self._numbers.values() if number in numbers}

    @contextmanager
    def trace(self) -> Iterator[None]:
        """Note what the block does, in this thread."""
        self._counts = {}
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)
            self.last = frozenset(
                step << _OFTEN_BITS | min(count.bit_length(), _OFTEN) for step, count in self._counts.items()
            )
            self.seen |= self.last

    def _enter(self, frame: FrameType, _event: str, _arg: Any) -> Any:
        code = frame.f_code
        found = self._numbers.get(id(code))
        if found is None:
            if code.co_filename[:1] == "<":  # made while running: there may be ever more of it
                return None
            number = len(self._numbers) + 1 if code.co_filename in self._files else 0
            found = self._numbers[id(code)] = (code, number)
        if not found[1]:
            return None
        counts = self._counts
        base = found[1] << 2 * _LINE_BITS
        last = 0

        def local(frame: FrameType, event: str, _arg: Any) -> Any:
            nonlocal last
            if event == "line":
                line = frame.f_lineno
                step = base | last << _LINE_BITS | line
                counts[step] = counts.get(step, 0) + 1
                last = line
            return local

        return local
