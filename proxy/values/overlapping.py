"""Whether there is a key that two globs both take.

Walks both globs at once, from pair of parts to pair of parts; a star may be left at any moment. There are no more pairs
than the product of their lengths, so this is exact and quick for every two globs.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.config.globs import Part, Sort


def do_overlap(one: Sequence[Part], other: Sequence[Part]) -> bool:
    """Return whether some key, be it the empty one, is taken by the globs of both."""
    seen, todo = {(0, 0)}, [(0, 0)]
    while todo:
        at, to = todo.pop()
        if at == len(one) and to == len(other):
            return True
        following = []
        if at < len(one) and one[at].sort is Sort.STAR:
            following.append((at + 1, to))
        if to < len(other) and other[to].sort is Sort.STAR:
            following.append((at, to + 1))
        if at < len(one) and to < len(other) and one[at].accepts & other[to].accepts:
            following.append((_after(one, at), _after(other, to)))
        for pair in following:
            if pair not in seen:
                seen.add(pair)
                todo.append(pair)
    return False


def _after(parts: Sequence[Part], at: int) -> int:
    return at if parts[at].sort is Sort.STAR else at + 1
