"""Whether some globs take every key that another one takes.

Walks the other glob from part to part, over every byte that makes a difference, and keeps which parts of the covering
globs the key so far could have reached:

    a:b*  against  a*  and  b*          "a" -> {a*: *}     ":" -> {a*: *}     "b" -> {a*: *}     end -> taken

Where it can end and none of the others can, a key has been found that they leave. Exact, but for the empty key of `**`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.config.globs import EVERY_BYTE, Part, Sort

# Globs made to be hard reach exponentially many states; those that people write, some dozens.
STATES_MAX: Final = 5_000


def is_covered(parts: Sequence[Part], by: Sequence[Sequence[Part]]) -> bool:
    """Say whether every key that the glob of `parts` takes is also taken by one of `by`.

    False also when it could not be decided within STATES_MAX steps: to be told nothing is better than a wrong word.
    """
    others = _Positions(by)
    letters = _letters([*by, parts])
    end = len(parts)
    start = (0, others.start)
    seen, todo = {start}, [start]
    while todo:
        at, reached = todo.pop()
        is_star = at < end and parts[at].sort is Sort.STAR
        if reached & others.takes_all:
            continue
        if at == end and not reached & others.ends:
            return False
        following = [(at + 1, reached)] if is_star else []
        if at < end:
            after = at if is_star else at + 1
            following += [(after, others.step(reached, byte)) for byte in letters if byte in parts[at].accepts]
        for one in following:
            if one not in seen:
                if len(seen) >= STATES_MAX:
                    return False
                seen.add(one)
                todo.append(one)
    return True


class _Positions:
    """Sets of positions in several globs at once, each set the bits of one number.

    `start` is where they begin, `ends` where they may end, `takes_all` a last star: whatever follows is taken.
    """

    def __init__(self, globs: Sequence[Sequence[Part]]) -> None:
        self._stars = self.start = self.ends = self.takes_all = 0
        self._takers = [0] * 256
        bit = 1
        for parts in globs:
            self.start |= bit
            for part in parts:
                if part.sort is Sort.STAR:
                    self._stars |= bit
                else:
                    for byte in part.accepts:
                        self._takers[byte] |= bit
                bit <<= 1
            self.ends |= bit
            self.takes_all |= (bit >> 1) & self._stars
            bit <<= 1
        self.start = self._past_stars(self.start)

    def step(self, reached: int, byte: int) -> int:
        """Take one byte: a star stays where it is, any other part that takes it is left behind."""
        return self._past_stars((reached & self._stars) | (reached & self._takers[byte]) << 1)

    def _past_stars(self, reached: int) -> int:
        # Stars never stand in a row, so one step is enough.
        return reached | (reached & self._stars) << 1


def _letters(globs: Sequence[Sequence[Part]]) -> list[int]:
    """Return one byte of each sort that the globs tell apart."""
    sets = {part.accepts for parts in globs for part in parts}
    singles = frozenset().union(*(one for one in sets if len(one) == 1))
    sets = {one for one in sets if 1 < len(one) < len(EVERY_BYTE)}  # mostly there are none
    rest = EVERY_BYTE - singles
    if not sets:
        return [*singles, *sorted(rest)[:1]]
    kinds = {tuple(byte in one for one in sets): byte for byte in rest}
    return [*singles, *kinds.values()]
