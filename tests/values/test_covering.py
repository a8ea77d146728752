"""Whether globs take all keys of another one, held to trying every key."""

from __future__ import annotations

import itertools
import random
import time

import pytest

from proxy.config.globs import parse_glob
from proxy.values.covering import is_covered
from proxy.values.globs import compile_glob


def covered(glob: bytes, *by: bytes) -> bool:
    """Ask for globs as they are written."""
    return is_covered(parse_glob(glob), [parse_glob(one) for one in by])


@pytest.mark.parametrize(
    ("glob", "by"),
    [
        *((b"a", [b"a"]), (b"a:b*", [b"a*"]), (b"a*", [b"*"]), (b"[a-c]", [b"[a-f]"]), (b"a[bc]", [b"a?"])),
        *((b"?", [b"*"]), (b"??*", [b"?*"]), (b"*a*b*", [b"*a*"]), (b"a*b*c", [b"a*c"]), (b"a*", [b"x", b"a**"])),
        *((b"a?", [b"a[a-z]", b"a[^a-z]"]), (b"*", [b"?*", b""]), (b"a[0-9]*", [b"a[0-4]*", b"a[5-9]*"])),
        *((rb"\*", [b"*"]), (rb"\*a", [rb"[*]a"]), (b"ab*", [b"*b*"]), (b"*?", [b"?*"]), (b"[]", [b"x"])),
        (b"?*", [b"?", b"??", b"???*"]),
    ],
)
def test_is_covered_when_every_key_is_taken(glob: bytes, by: list[bytes]) -> None:
    """The same glob, a wider one, and several that only together are wider."""
    assert covered(glob, *by)


@pytest.mark.parametrize(
    ("glob", "by"),
    [
        *((b"a", []), (b"a*", [b"a:b*"]), (b"*", [b"?*"]), (b"?", [b"a", b"[^ab]"]), (b"a*", [rb"a\*"])),
        *((b"*a*", [b"*a"]), (b"a*c", [b"a*b*c"]), (b"*", [b"a*", b"[^a]?*"]), (b"a[0-9]", [b"a[0-8]"])),
        *((b"??", [b"?"]), (b"[^a]", [b"b"]), (b"[\xc3]", [b"c"])),
    ],
)
def test_is_covered_not_when_a_key_is_left(glob: bytes, by: list[bytes]) -> None:
    """One key that none of the others takes is enough."""
    assert not covered(glob, *by)


def test_is_covered_is_what_trying_every_key_says() -> None:
    """For random globs over three letters, the answer is that of all keys up to seven letters."""
    rng = random.Random(8)
    keys = [bytes(key) for length in range(8) for key in itertools.product(b"abx", repeat=length)]
    answers = {True: 0, False: 0}
    for _ in range(250):
        # Four parts at most: a key that tells such globs apart is no longer than seven letters, or there is none.
        glob = random_glob(rng, 4)
        by = [random_glob(rng, 3) for _ in range(rng.randrange(1, 4))]
        compiled, others = compile_glob(glob), [compile_glob(one) for one in by]
        left = [key for key in keys if compiled.matches(key) and not any(one.matches(key) for one in others)]

        answer = covered(glob, *by)
        assert answer == (not left), (glob, by, left[:1])
        answers[answer] += 1
    assert min(answers.values()) > 25


def random_glob(rng: random.Random, parts: int) -> bytes:
    """Make a glob that stands for what three letters can tell apart."""
    return b"".join(rng.choices((b"*", b"?", b"[ab]", b"[^a]", b"a", b"b"), k=rng.randrange(1, parts + 1)))


HARD = (b"*a" + b"?" * 40, b"*[^a]" + b"?" * 40)
"""Together they take every key of 41 bytes and more; to see it, 2 ** 40 sets of positions must be looked at."""


def test_is_covered_question_made_to_be_hard_is_given_up() -> None:
    """What nobody would wait for is answered with no, which warns of nothing."""
    began = time.monotonic()

    assert not covered(b"?" * 41 + b"*", *HARD)
    assert time.monotonic() - began < 20.0


def test_is_covered_last_star_ends_the_search() -> None:
    """Where a star at the end takes whatever follows, hard globs beside it do not matter."""
    assert covered(b"b*", *HARD, b"b*")
    assert covered(b"?*", *HARD, b"*")
