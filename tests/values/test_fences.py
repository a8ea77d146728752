"""Which fences a key is behind: the index says what trying every fence says."""

from __future__ import annotations

import functools
import random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.model import ClassSettings
from proxy.values import fences as module
from proxy.values.fences import FENCES_MAX, Fence, FenceKind, Fences, field_of, parse_fence, parse_field
from proxy.values.globs import compile_glob
from proxy.values.rules import Rules

RULES = Rules((ClassSettings("tickets", ("ticket:*:*",), tags=("queue-{1}", "all")),))
TICKET = b"ticket:7:a"
PIECES = (b"*", b"*", b"?", b"[ab]", b"[^a]", b"\\*", b"\\", b"a", b"a", b"b", b":", b"ab", b"a:b", b"**", b"[")


def over(fences: Fences, key: bytes, db: int = 0) -> int:
    """Ask for a key of the class of tickets, or of none."""
    return fences.version_over(db, key, RULES.find(key))


compiled = functools.cache(compile_glob)


def by_trying(fences: Fences, key: bytes) -> int:
    """Try every glob."""
    return max((one.version for one in fences if compiled(one.text).matches(key)), default=0)


@pytest.mark.parametrize(
    ("glob", "behind", "free"),
    [
        *((b"list:*", b"list:7", b"lis"), (b"page:1", b"page:1", b"page:12"), (b"*", b"", None), (b"**", b"a", b"")),
        *((b"*:de", b"a:de", b"a:de:"), (b"a:*:de", b"a:b:de", b"a:de"), (b"a*a", b"aa", b"a"), (b"?", b"x", b"xx")),
        *((b"l:*:7:*:de", b"l:5:7:5:de", b"l:5:8:5:de"), (b"[ab]:?7*", b"b:77", b"c:77"), (rb"a\*", b"a*", b"ab")),
        *((b"l:*:7:*", b"l:7:7:", b"l:7:"), (b"a\xff\n*", b"a\xff\n\x00", b"a\xff"), (b"", b"", b"a")),
    ],
)
def test_version_over_key_that_the_glob_takes(glob: bytes, behind: bytes, free: bytes | None) -> None:
    """A key is behind a fence when KEYS would list it, and of its database."""
    fences = Fences()
    fences.put(0, "glob", glob, 9)

    assert 9 == over(fences, behind)
    assert free is None or 0 == over(fences, free)
    assert 0 == over(fences, behind, db=1)


def test_version_over_key_with_the_tag() -> None:
    """A tag covers the keys whose class gives it to them, and a key of no class never."""
    fences = Fences()
    fences.put(0, "tag", b"queue-7", 9)

    assert 9 == over(fences, TICKET)
    assert 0 == over(fences, b"ticket:8:a")
    assert 0 == over(fences, b"queue-7")
    assert 0 == over(fences, TICKET, db=1)


def test_version_over_several_is_the_newest() -> None:
    """Of all fences that cover a key, whatever their kind, the newest decides."""
    texts: list[tuple[FenceKind, bytes]] = [
        *(("glob", b"ticket:*"), ("glob", b"t*"), ("glob", TICKET), ("glob", b"*:a"), ("glob", b"t*:7:*")),
        *(("tag", b"queue-7"), ("tag", b"all"), ("glob", b"*cket*")),
    ]
    for newest in range(len(texts)):
        fences = Fences()
        for at, (kind, text) in enumerate(texts):
            fences.put(0, kind, text, 100 if at == newest else 10 + at)

            assert (100 if at >= newest else 10 + at) == over(fences, TICKET), texts[newest]


def test_put_says_whether_it_is_news() -> None:
    """The same fence with the same version or an older one is none, in its database."""
    fences = Fences()

    assert fences.put(0, "glob", b"a*b", 5)
    assert not fences.put(0, "glob", b"a*b", 5)
    assert not fences.put(0, "glob", b"a*b", 4)
    assert 5 == over(fences, b"ab")
    assert fences.put(0, "glob", b"a*b", 6)
    assert fences.put(0, "tag", b"a*b", 1)
    assert fences.put(1, "glob", b"a*b", 1)
    assert 6 == over(fences, b"ab")
    assert 3 == len(fences)


@pytest.mark.parametrize("text", [b"a", b"a*", b"a*b", b"*a*b*", b"**"])
def test_remove_only_what_is_not_newer(text: bytes) -> None:
    """A fence that was set anew while the old one was swept stays; one that is not there is nothing to be lifted."""
    fences = Fences()
    fences.put(0, "glob", text, 5)
    covered = text.replace(b"*", b"a")
    fences.remove(0, "glob", text, 4)
    fences.remove(0, "tag", text, 9)
    fences.remove(1, "glob", text, 9)

    assert 5 == over(fences, covered)
    fences.remove(0, "glob", text, 5)
    assert 0 == over(fences, covered)
    assert 0 == len(fences)
    fences.remove(0, "glob", text, 5)


def test_remove_by_a_newer_sweep_lifts_it() -> None:
    """A sweep that is newer than what is known here has swept that too."""
    fences = Fences()
    fences.put(0, "glob", b"a*b", 5)
    fences.remove(0, "glob", b"a*b", 7)

    assert 0 == over(fences, b"ab")


def test_remove_one_of_several_shows_the_next() -> None:
    """What was said of a key while the fence was in force is not remembered beyond."""
    fences = Fences()
    fences.put(0, "glob", b"a*b", 5)
    fences.put(0, "glob", b"*b", 6)
    assert 6 == over(fences, b"ab")
    fences.remove(0, "glob", b"*b", 6)

    assert 5 == over(fences, b"ab")


def test_remove_the_last_leaves_nothing_behind() -> None:
    """Prefixes, shapes and databases of lifted fences go too: they would be looked at for each key."""
    fences = Fences()
    texts: list[tuple[FenceKind, bytes]] = [
        *(("glob", b"a:*"), ("glob", b"b:*"), ("glob", b"a*b*c"), ("glob", b"a*b*d"), ("glob", b"a"), ("tag", b"a")),
    ]
    for db in range(3):
        for kind, text in texts:
            fences.put(db, kind, text, 5)
    for one in list(fences):
        fences.remove(*attrs.astuple(one))

    assert {} == fences._dbs


def test_clear_lifts_all() -> None:
    """Nothing is in force any more, and the same version is news again."""
    fences = Fences()
    fences.put(0, "glob", b"a*b", 5)
    assert 5 == over(fences, b"ab")
    fences.clear()

    assert (0, []) == (over(fences, b"ab"), list(fences))
    assert fences.put(0, "glob", b"a*b", 5)


def test_iter_gives_what_is_in_force_and_bears_changes() -> None:
    """Each fence once, with its newest version; who sweeps them may lift them meanwhile."""
    fences = Fences()
    fences.put(0, "glob", b"a*", 5)
    fences.put(3, "tag", b"t", 6)
    fences.put(0, "glob", b"a*", 7)

    assert [Fence(0, "glob", b"a*", 7), Fence(3, "tag", b"t", 6)] == list(fences)
    for one in fences:
        fences.remove(*attrs.astuple(one))
    assert not list(fences)


def test_what_was_set_is_held_beyond_the_bound() -> None:
    """The bound is for who sets fences: one that is in force in Redis must be in force here."""
    fences = Fences()
    for number in range(FENCES_MAX):
        fences.put(0, "tag", b"%d" % number, 1)

    assert fences.put(0, "glob", b"a*", 1)
    assert 1 == over(fences, b"ab")


@pytest.mark.parametrize("few_runs", [0, 8])
def test_version_over_random_fences_is_what_trying_each_says(monkeypatch: pytest.MonkeyPatch, few_runs: int) -> None:
    """For globs put, set anew and lifted at random, the index says for every key what trying each fence says."""
    monkeypatch.setattr(module, "_FEW_RUNS", few_runs)
    rng = random.Random(4)
    keys = [bytes(rng.choices(b"ab:*", k=rng.randrange(9))) for _ in range(300)]
    hits = 0
    for _ in range(60):
        fences = Fences()
        for version in range(1, rng.choice((3, 10, 60))):
            glob = b"".join(rng.choices(PIECES, k=rng.randrange(7)))
            fences.put(0, "glob", glob, version)
            if rng.random() < 0.3:
                one = rng.choice(list(fences))
                fences.remove(*attrs.astuple(one))
            key = rng.choice(keys)
            assert by_trying(fences, key) == fences.version_over(0, key, None)
        for key in keys:
            actual = fences.version_over(0, key, None)
            hits += actual > 0

            assert by_trying(fences, key) == actual, (key, list(fences))
    assert 2_000 < hits < 17_000  # neither all nor nothing


def test_version_over_many_runs_of_one_shape_are_told_apart() -> None:
    """Where globs differ only in what lies between their stars, the one that a key holds is found."""
    fences = Fences()
    for number in range(100, 1000):
        fences.put(0, "glob", b"list:*:%d:*" % number, number)

    assert 345 == over(fences, b"list:a:345:b")
    assert 678 == over(fences, b"list:345:678:67:9")
    assert 0 == over(fences, b"list:345:b:678")
    assert 0 == over(fences, b"lost:a:345:b")


def test_version_over_remembers_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is remembered is bounded in keys and in their length: clients choose them."""
    monkeypatch.setattr(module, "REMEMBERED_KEYS", 4)
    monkeypatch.setattr(module, "REMEMBERED_KEY_BYTES", 5)
    fences = Fences()
    fences.put(0, "glob", b"*:a", 5)
    for number in range(9):
        assert 5 == over(fences, b"%d:a" % number)
        assert 5 == over(fences, b"12345%d:a" % number)

    remembered = fences._dbs[0]._remembered
    assert 0 < len(remembered) <= 4
    assert max(map(len, remembered)) == 3


@given(st.integers(0, 10**9 - 1), st.sampled_from(["glob", "tag"]), st.binary(max_size=40))
def test_field_any_bytes_come_back(db: int, kind: FenceKind, text: bytes) -> None:
    """A field says database, kind and text, whatever bytes that is."""
    assert (db, kind, text) == parse_field(field_of(db, kind, text))


@pytest.mark.parametrize("field", [b"", b"0:glob", b"x:glob:a", b"-1:tag:a", b"00:tag:a", b"0:key:a", b"0:glo\nb:a"])
def test_parse_field_of_others_is_none(field: bytes) -> None:
    """What else may stand in the hash is passed over."""
    assert parse_field(field) is None


def test_field_reads_as_agreed() -> None:
    """People look at the hash too."""
    assert b"0:glob:ticket:*" == field_of(0, "glob", b"ticket:*")
    assert Fence(12, "tag", b"a:b\n", 77) == parse_fence(b"12:tag:a:b\n", b"77")


@pytest.mark.parametrize("version", [b"", b"0", b"-1", b" 1", b"1_0", b"01", b"1.5", b"%d" % (1 << 64), b"9" * 5000])
def test_parse_fence_without_a_version_is_none(version: bytes) -> None:
    """A version is a positive decimal number of 64 bits, written as we write it."""
    assert parse_fence(b"0:tag:a", version) is None
    assert parse_fence(b"0:tag:a", b"%d" % ((1 << 64) - 1)) is not None
