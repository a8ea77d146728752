"""What a compiled glob knows besides which keys it takes, which is held to real servers in `test_globs_redis.py`."""

from __future__ import annotations

import random
import re

import pytest

from proxy.config.globs import Sort
from proxy.values.globs import compile_glob


@pytest.mark.parametrize(
    ("glob", "prefix"),
    [
        *((b"", b""), (b"*", b""), (b"?a", b""), (b"[a]b", b""), (b"a:*", b"a:"), (b"a:[bc]*", b"a:"), (b"a?", b"a")),
        *((b"lock", b"lock"), (rb"\*\[x:*", b"*[x:"), (b"a\\", b"a\\"), (b"\xff\x00*", b"\xff\x00"), (b"a:[", b"a:")),
    ],
)
def test_glob_prefix_is_all_that_stands_before_a_wildcard(glob: bytes, prefix: bytes) -> None:
    """Escapes are resolved: a prefix is bytes of keys, not of globs."""
    assert prefix == compile_glob(glob).prefix


@pytest.mark.parametrize(
    ("glob", "key", "captures"),
    [
        (b"ticket:*", b"ticket:7", (b"7",)),
        (b"ticket:*", b"ticket:", (b"",)),
        (b"*", b"\n\xff", (b"\n\xff",)),
        (b"*", b"", (b"",)),
        (b"**", b"ab", (b"ab",)),
        (b"lock", b"lock", ()),
        (b"a:*:*", b"a:1:2:3", (b"1", b"2:3")),
        (b"*:*:z", b"a:b:z:c:z", (b"a", b"b:z:c")),
        (b"*a*a*", b"aaa", (b"", b"", b"a")),
        (b"u[0-9]?:*", b"u17:x", (b"1", b"7", b"x")),
        (b"u*[0-9][a]", b"u11a", (b"1", b"1", b"a")),
        (rb"\*?", b"*?", (b"?",)),
        (b"*?", b"abc", (b"ab", b"c")),
        (b"*[ab]*[cd]*", b"xbycz", (b"x", b"b", b"y", b"c", b"z")),
    ],
)
def test_glob_captures_are_what_the_wildcards_took(glob: bytes, key: bytes, captures: tuple[bytes, ...]) -> None:
    """Each ?, bracket and star has a capture; a star takes as little as it can, the last one the rest."""
    assert captures == compile_glob(glob).captures(key)


@pytest.mark.parametrize(
    ("glob", "key"), [(b"a:*", b"b:1"), (b"?", b""), (b"**", b""), (b"a", b"a\n"), (b"a:*:z", b"a:z")]
)
def test_glob_captures_of_another_key_are_none(glob: bytes, key: bytes) -> None:
    """No captures and a key that the glob does not take are two things."""
    assert compile_glob(glob).captures(key) is None


def test_glob_captures_and_literals_give_the_key_again() -> None:
    """Whatever the glob and the key: putting the captures where the wildcards are makes the key."""
    rng = random.Random(5)
    taken = 0
    for _ in range(20_000):
        glob = compile_glob(bytes(rng.choices(b"**?aabb[]^\\-", k=rng.randrange(1, 9))))
        key = bytes(rng.choices(b"aaabb*[]\\\n", k=rng.randrange(9)))
        captures = glob.captures(key)
        if captures is None:
            continue
        taken += 1
        rest = iter(captures)
        again = [bytes(part.accepts) if part.sort is Sort.LITERAL else next(rest) for part in glob.parts]

        assert key == b"".join(again), glob.raw
        assert next(rest, None) is None
        for part, piece in zip(glob.parts, again, strict=True):
            assert part.sort is Sort.STAR or (len(piece) == 1 and piece[0] in part.accepts)
        assert key.startswith(glob.prefix)
    assert taken > 500


def test_glob_expression_takes_what_the_glob_takes() -> None:
    """The form without groups, of which the rules make one expression for all classes, decides the same."""
    rng = random.Random(6)
    taken = 0
    for _ in range(20_000):
        glob = compile_glob(bytes(rng.choices(b"**?aabb[]^\\-", k=rng.randrange(9))))
        key = bytes(rng.choices(b"aaabb*[]\\\n", k=rng.randrange(9)))
        found = re.match(glob.expression, key, re.DOTALL) is not None

        assert found == glob.matches(key), (glob.raw, key)
        taken += found
    assert taken > 500


def test_glob_many_stars_and_a_long_key_take_no_longer_than_a_reading() -> None:
    """A key made to be hard is searched once a star: with backtracking this test would not end."""
    glob = compile_glob(b"*[ab]?" * 60 + b"*z")

    assert not glob.matches(b"a" * 200_000)
    assert re.match(glob.expression, b"a" * 200_000, re.DOTALL) is None
    assert glob.matches(b"a" * 200_000 + b"z")
