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
        ttl = "10m"
        adaptive_ttl = true
        ttl_when_missing = "set"
        min_ttl = "5s"
        max_ttl = 7200
        compress = true
        dictionary = true
        version = true
        tags = ["t-{1}"]
        invalidates = ["é:{1}:*", "tag:x", '\\*']
        """)

    assert settings.classes == (
        ClassSettings("z-1", ("z*", r"\*:[^a]?"), l1=False, recompute_lease_s=10.0),
        ClassSettings(
            *("A_2", ("é*",), True, 0.25, 1.0, "stale", 600.0, "on", "set", 5.0, 7200.0, True, True, True),
            tags=("t-{1}",),
            invalidates=("é:{1}:*", "tag:x", r"\*"),
        ),
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
        *(("while_recomputed", "true"), ("ttl", "0"), ("ttl", "'400d'"), ("ttl", "'-1s'"), ("adaptive_ttl", "1")),
        *(("adaptive_ttl", "'on'"), ("adaptive_ttl", "'true'"), ("ttl_when_missing", "true"), ("min_ttl", "0")),
        *(("max_ttl", "0"), ("max_ttl", "true"), ("compress", "'lz4'"), ("dictionary", "1"), ("version", "2")),
        *(("tags", "'t'"), ("tags", "['']"), ("tags", "['t', 't']"), ("tags", "[1]"), ("tags", f"['{'x' * 513}']")),
        *(("invalidates", "'k'"), ("invalidates", "['']"), ("invalidates", "['k', 'k']"), ("invalidates", "[['k']]")),
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


def test_load_class_that_is_served_in_an_outage_and_never_kept_is_refused(fail: Fail) -> None:
    """What is served while Redis is away is what L1 held: with l1 = false there is none."""
    problems = fail(GOOD + 'l1 = false\nstale_if_error = "30s"')

    assert ["class.a.stale_if_error"] == list(problems)
    assert "l1 = true" in problems["class.a.stale_if_error"].allowed


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
        ("ttl_when_missing = 'set'", "ttl_when_missing", "'set' needs a ttl"),
        ("ttl_when_missing = 'set'\nadaptive_ttl = true", "ttl_when_missing", "'set' needs a ttl"),
        ("min_ttl = '2m'\nmax_ttl = '90s'", "min_ttl", "at most max_ttl (90s)"),
        ("tags = ['x', 't-{2}']", "tags", "'t-{2}': 'a*' has no {2}"),
        ("invalidates = ['k:{2}']", "invalidates", "'k:{2}': 'a*' has no {2}"),
        ("invalidates = ['ok:{1}', 'k:{3}:*']", "invalidates", "'k:{3}:*': 'a*' has no {3}"),
        ("invalidates = ['tag:{2}']", "invalidates", "'tag:{2}': 'a*' has no {2}"),
    ],
)
def test_load_keys_of_a_class_that_disagree_are_reported(fail: Fail, text: str, key: str, words: str) -> None:
    """A key that would be without effect is not ignored; it is said at one of the two, once."""
    problems = fail(GOOD + text)

    assert [f"class.a.{key}"] == list(problems)
    assert words in problems[f"class.a.{key}"].allowed


def test_load_capture_must_be_in_every_glob_of_the_class(fail: Fail) -> None:
    """Of keys that one of the globs takes nobody could say what {1} is; that glob is named."""
    (problem,) = fail("[[class]]\nname = 'a'\nmatch = ['a:*', '[ab]?', 'c']\ntags = ['t-{1}']").values()

    assert problem.path == "class.a.tags"
    assert "'t-{1}': 'c' has no {1}" in problem.allowed


def test_load_capture_of_every_kind_of_wildcard_passes(load: Load) -> None:
    """A star, a ? and brackets each are one, and stars in a row are one together."""
    text = "[[class]]\nname = 'a'\nmatch = ['**?[ab]', 'x*:*:*']\ntags = ['{3}-{1}']\ninvalidates = ['{2}:*']"

    assert load(text).classes[0].tags == ("{3}-{1}",)


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("tags", "t-{x}", "a { itself is {{"),
        ("tags", "t-{0}", "a { itself is {{"),
        ("tags", "t-{", "a { itself is {{"),
        ("tags", "t-{01}", "a { itself is {{"),
        ("tags", "{100}", "a { itself is {{"),
        ("invalidates", "user:{id}", "a { itself is {{"),
        ("invalidates", "tag:", "a tag has a name"),
        ("invalidates", "k:[{1}]", "neither in brackets nor behind a"),
        ("invalidates", "k:[^a{1}", "neither in brackets nor behind a"),
        ("invalidates", "k:\\{1}", "neither in brackets nor behind a"),
        ("invalidates", "k:[ab", "[ab is never closed"),
        ("invalidates", "k:{1}\\", "escapes nothing"),
        ("invalidates", "k[!a]", "write [^a]"),
    ],
)
def test_load_template_that_can_hardly_be_meant_is_explained(fail: Fail, key: str, text: str, words: str) -> None:
    """What would drop something else than was meant is refused, with what to write instead."""
    problems = fail(GOOD + f"{key} = ['ok', '{text}']")

    assert [f"class.a.{key}"] == list(problems)
    assert repr(text) in problems[f"class.a.{key}"].allowed
    assert words in problems[f"class.a.{key}"].allowed


@pytest.mark.parametrize(("written", "read"), [("true", "on"), ("false", "off"), ("'report'", "report")])
def test_load_adaptive_ttl_is_a_switch_with_a_third_position(load: Load, written: str, read: str) -> None:
    """As TOML has it, true and false are no texts; settings know one word for each."""
    assert read == load(GOOD + f"adaptive_ttl = {written}").classes[0].adaptive_ttl


@pytest.mark.parametrize("text", ["min_ttl = 5\nmax_ttl = 5", "min_ttl = 5", "ttl = 1\nttl_when_missing = 'set'"])
def test_load_ttls_that_agree_pass(load: Load, text: str) -> None:
    """A single TTL for all keys of a class, one bound without the other, a TTL for writes without one."""
    assert load(GOOD + text).classes


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
        offline = "never"
        password = "hunter2"
        """)

    assert {
        *("l1.max_age", "class[1].name", "class[1].match", "class[1].l1"),
        *("class.b.offline", "class.b.password"),
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
