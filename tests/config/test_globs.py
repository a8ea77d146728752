"""How a glob falls into parts. That keys are taken as Redis takes them is shown in tests/values."""

from __future__ import annotations

import pytest

from proxy.config.globs import EVERY_BYTE, Part, Sort, parse_glob


def literal(text: bytes) -> tuple[Part, ...]:
    """Return the parts of a text without wildcards."""
    return tuple(Part(Sort.LITERAL, frozenset({byte})) for byte in text)


STAR = Part(Sort.STAR, EVERY_BYTE)
ANY = Part(Sort.ANY, EVERY_BYTE)


@pytest.mark.parametrize(
    ("glob", "parts"),
    [
        (b"", ()),
        (b"a:", literal(b"a:")),
        (b"a*", (*literal(b"a"), STAR)),
        (b"***?**", (STAR, ANY, STAR)),
        (rb"\*\a\\", literal(b"*a\\")),
        (b"]^-!", literal(b"]^-!")),
        (b"[ab]c", (Part(Sort.SET, frozenset(b"ab")), *literal(b"c"))),
        (b"[a-c]", (Part(Sort.SET, frozenset(b"abc")),)),
        (b"[c-a]", (Part(Sort.SET, frozenset(b"abc")),)),
        (b"[-a]", (Part(Sort.SET, frozenset(b"-a")),)),
        (rb"[\]\-]", (Part(Sort.SET, frozenset(b"]-")),)),
        (rb"[a-\]]", (Part(Sort.SET, frozenset(range(ord("\\"), ord("a") + 1))), *literal(b"]"))),
        (b"[^a]", (Part(Sort.SET, EVERY_BYTE - frozenset(b"a")),)),
    ],
)
def test_parse_glob_falls_into_parts(glob: bytes, parts: tuple[Part, ...]) -> None:
    """Each byte, wildcard and set is one part, stars in a row are one."""
    assert parts == parse_glob(glob)


@pytest.mark.parametrize(
    ("glob", "accepts"),
    [
        (b"[ab", b"ab"),
        (b"[", b""),
        (b"[^", EVERY_BYTE),
        (b"[]", b""),
        (b"[^]", EVERY_BYTE),
        (b"[!a]", b"!a"),
        (b"[\\", b"\\"),
        (b"\\", b"\\"),
        (b"[0--]", b"0/.-"),
    ],
)
def test_parse_glob_odd_one_is_read_as_redis_does(glob: bytes, accepts: bytes | frozenset[int]) -> None:
    """What can hardly be meant still means what it means to a server: the part has the bytes, and mostly a flaw."""
    (part,) = parse_glob(glob)

    assert frozenset(accepts) == part.accepts
    assert bool(part.flaw) == (glob != b"[0--]")
