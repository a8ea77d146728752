"""How [[class]] is read, and what is said about one that is wrong."""

from __future__ import annotations

import attrs
import pytest

from proxy.config.classes import CLASSES
from proxy.config.kinds import Kind
from proxy.config.model import ClassSettings

from .conftest import Fail, Load

GOOD = "[[class]]\nname = 'a'\nmatch = ['a*']\n"


def test_load_classes_keep_the_order_of_the_file(load: Load) -> None:
    """The first that takes a key has it, so order is meaning."""
    settings = load("""
        [[class]]
        name = "z-1"
        match = ["z*", '\\*:[^a]?']
        l1 = false
        recompute_lease = "10s"
        [[class]]
        name = "A_2"
        match = ["é*"]
        max_staleness = "250ms"
        recompute_lease = 1
        while_recomputed = "stale"
        """)

    assert settings.classes == (
        ClassSettings("z-1", ("z*", r"\*:[^a]?"), l1=False, recompute_lease_s=10.0),
        ClassSettings("A_2", ("é*",), max_staleness_s=0.25, recompute_lease_s=1.0, while_recomputed="stale"),
    )


def test_load_without_classes_there_are_none(load: Load) -> None:
    """A file without a class, and one with an empty array, are the same."""
    assert () == load("").classes == load("class = []").classes


def test_class_left_out_keys_have_the_defaults_of_model_and_table(load: Load) -> None:
    """Somebody who makes a class by hand gets what the file gives: the two say the same."""
    fields = [field.name for field in attrs.fields(ClassSettings)]

    assert load(GOOD).classes == (ClassSettings("a", ("a*",)),)
    assert fields == [key.field for key in CLASSES.keys]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("name", "''"), ("name", "'a b'"), ("name", "'a.b'"), ("name", "'é'"), ("name", "3"), ("name", "['a']")),
        *(("name", f"'{'x' * 65}'"), ("match", "'a*'"), ("match", "[]"), ("match", "[1]"), ("match", "['a', ['b']]")),
        *(("match", "['']"), ("match", f"['{'x' * 513}']"), ("match", "['a', 'a']"), ("match", "['[']")),
        *(("l1", "1"), ("max_staleness", "0"), ("max_staleness", "'2h'"), ("max_staleness", "''")),
        *(("recompute_lease", "'1ms'"), ("recompute_lease", "-1"), ("while_recomputed", "'fail'")),
        ("while_recomputed", "true"),
    ],
)
def test_load_wrong_value_in_a_class_is_reported_with_what_is_allowed(fail: Fail, key: str, value: str) -> None:
    """One problem, at the path of the key, by the name of the class or, if that is what is wrong, by its number."""
    written = {"name": "'b'", "match": "['b*']"} | {key: value}

    problems = fail(GOOD + "[[class]]\n" + "\n".join(f"{name} = {text}" for name, text in written.items()))

    (allowed,) = [one.kind.allowed for one in CLASSES.keys if one.path == key and isinstance(one.kind, Kind)]
    path = "class[2].name" if key == "name" else f"class.b.{key}"
    assert [path] == list(problems)
    assert problems[path].allowed.startswith(allowed)


@pytest.mark.parametrize(
    ("glob", "words"),
    [
        ("user:[ab", "[ab is never closed"),
        ("user:[", "[ is never closed"),
        ("[^", "[^ is never closed"),
        ("[a-]", "makes a range up to the ]"),
        ("[a-]]", "makes a range up to the ]"),
        ("a[]", "[] takes no byte at all"),
        ("a[^]", "[^] takes any byte; write ?"),
        ("[!a-c]*", "write [^a-c], or"),
        ("[é]", "[é] takes one byte"),
        ("a\\", "escapes nothing"),
    ],
)
def test_load_glob_that_can_hardly_be_meant_is_explained(fail: Fail, glob: str, words: str) -> None:
    """Redis takes them all without a word; here each is refused, with what to write instead."""
    (problem,) = fail(f"[[class]]\nname = 'a'\nmatch = ['ok*', '{glob}']").values()

    assert problem.path == "class.a.match"
    assert repr(glob) in problem.allowed
    assert words in problem.allowed


def test_load_every_wrong_glob_of_a_class_is_explained_at_once(fail: Fail) -> None:
    """A list is mended in one go."""
    (problem,) = fail("[[class]]\nname = 'a'\nmatch = ['[', '[]x', 'fine']").values()

    assert "never closed" in problem.allowed
    assert "no byte at all" in problem.allowed


@pytest.mark.parametrize("glob", ["*", "**", "a[-b]c[d]", r"\[a\]", "[a-c0-9]", "[c-a]", r"[\]]", r"[\!]", "x!", "é?"])
def test_load_glob_that_may_be_meant_passes(load: Load, glob: str) -> None:
    """What is only unusual is left to the operator."""
    assert load(f"[[class]]\nname = 'a'\nmatch = ['{glob}']").classes[0].match == (glob,)


def test_load_second_class_of_a_name_is_refused_by_its_number(fail: Fail) -> None:
    """Two of a name could not be told apart anywhere; the second is the one to rename, and all its faults show."""
    problems = fail(GOOD + "[[class]]\nname = 'a'\nmatch = 3\n")

    assert ["class[2].name", "class[2].match"] == list(problems)
    assert "no other one has" in problems["class[2].name"].allowed


def test_load_class_without_name_and_globs_says_that_both_are_needed(fail: Fail) -> None:
    """What has no default must be there."""
    problems = fail(GOOD + "[[class]]\n")

    assert ["class[2].name", "class[2].match"] == list(problems)
    assert all(problem.allowed.startswith("needed: ") for problem in problems.values())


@pytest.mark.parametrize("key", sorted(CLASSES.later))
def test_load_key_of_a_later_class_is_refused_as_such(fail: Fail, key: str) -> None:
    """What the documentation knows of a class and this version lacks is neither ignored nor called unknown."""
    problems = fail(GOOD + f"{key} = 1")

    assert [f"class.a.{key}"] == list(problems)
    assert "does not have it yet" in problems[f"class.a.{key}"].allowed


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("matches", "class.match"),
        ("max_stale", "class.max_staleness"),
        ("recompute_leases", "class.recompute_lease"),
        ("max_age", "l1.max_age"),
        ("zzz", ""),
    ],
)
def test_load_unknown_key_of_a_class_names_the_nearest_known_one(fail: Fail, key: str, nearest: str) -> None:
    """A slip finds its way home, and so does a key of another table."""
    problems = fail(GOOD + f"{key} = 1")

    assert [f"class.a.{key}"] == list(problems)
    assert problems[f"class.a.{key}"].allowed == "no such key"
    assert nearest == problems[f"class.a.{key}"].nearest


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("l1 = false\nmax_staleness = 1", "max_staleness", "no effect with l1 = false"),
        ("while_recomputed = 'stale'", "while_recomputed", "needs a recompute_lease"),
        ("while_recomputed = 'stale'\nrecompute_lease = 1\nl1 = false", "while_recomputed", "needs l1 = true"),
        ("while_recomputed = 'stale'\nl1 = false", "while_recomputed", "needs l1 = true"),
    ],
)
def test_load_keys_of_a_class_that_disagree_are_reported(fail: Fail, text: str, key: str, words: str) -> None:
    """A key that would be without effect is not ignored; it is said at one of the two, once."""
    problems = fail(GOOD + text)

    assert [f"class.a.{key}"] == list(problems)
    assert words in problems[f"class.a.{key}"].allowed


def test_load_problems_of_several_classes_and_keys_come_all_at_once(fail: Fail) -> None:
    """Classes are no exception to the rule that a file is mended in one go; a secret stays one."""
    problems = fail("""
        l1.max_age = "soon"
        [[class]]
        match = ["["]
        l1 = 2
        [[class]]
        name = "b"
        match = ["b"]
        ttl = "1m"
        password = "hunter2"
        """)

    assert {
        *("l1.max_age", "class[1].name", "class[1].match", "class[1].l1"),
        *("class.b.ttl", "class.b.password"),
    } == set(problems)
    assert "hunter2" not in str(problems)


@pytest.mark.parametrize(
    "text", ["[class]\nname = 'a'", "[class.a]\nmatch = ['a']", "class = 'a'", "class = ['a', {}]"]
)
def test_load_class_that_is_no_array_of_tables_is_one_problem(fail: Fail, text: str) -> None:
    """One bracket too few is said as such, not key by key."""
    problems = fail(text)

    assert ["class"] == list(problems)
    assert "each headed [[class]]" in problems["class"].allowed
