"""What `respite check` warns of."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from proxy.config.alert_conditions import parse_condition
from proxy.config.globs import Part
from proxy.config.load import default_settings
from proxy.config.model import AlertRule, ClassSettings, Settings
from proxy.values import dependents_advice
from proxy.values.advice import warnings
from proxy.values.overlapping import Places


def with_classes(*globs: tuple[str, ...]) -> Settings:
    """Make settings with a class a, b, c .. for each list of globs."""
    classes = tuple(ClassSettings(chr(ord("a") + number), match) for number, match in enumerate(globs))
    return attrs.evolve(default_settings(), classes=classes)


def test_warnings_of_the_defaults_are_none() -> None:
    """There is nothing to say about a file that says nothing."""
    assert warnings(default_settings()) == ()


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ([("x:*",), ("x:*",)], "class.b can never match: all its keys go to class.a, above it"),
        ([("x*",), ("x:y*",)], "class.b can never match: all its keys go to class.a, above it"),
        ([("*",), ("x", "y*")], "class.b can never match: all its keys go to class.a, above it"),
        (
            [("x*",), ("y*",), ("y1", "x1")],
            "class.c can never match: all its keys go to class.b and class.a, above it",
        ),
        (
            [("x[0-4]*",), ("x[5-9]*",), ("x[0-9]*",)],
            "class.c can never match: all its keys go to several classes together, above it",
        ),
        ([("x*",), ("y*", "x:1")], "class.b.match: 'x:1' can never match: all its keys go to class.a, above it"),
    ],
)
def test_warnings_class_that_can_never_match_is_named_with_who_takes_its_keys(
    globs: list[tuple[str, ...]], expected: str
) -> None:
    """The same glob, a wider one, several together, and one glob of a class that lives."""
    assert (expected,) == warnings(with_classes(*globs))


def test_warnings_each_class_has_its_own_in_the_order_of_the_file() -> None:
    """Every doubt is said, not the first."""
    found = warnings(with_classes(("*",), ("x",), ("y", "z")))

    assert [text.partition(" ")[0] for text in found] == ["class.b", "class.c"]


@pytest.mark.parametrize("globs", [[("x:y*",), ("x*",)], [("x*",), ("y*",)], [("x", "x*")], [("?*",), ("*",)]])
def test_warnings_none_when_every_class_has_keys_left(globs: list[tuple[str, ...]]) -> None:
    """The special above the general, strangers side by side, and one class that says a thing twice."""
    assert warnings(with_classes(*globs)) == ()


def test_warnings_many_classes_are_judged_in_a_blink() -> None:
    """A configuration with hundreds of globs is no reason to wait."""
    classes = tuple(
        ClassSettings(f"c{number}", (f"kind{number}:*", f"list:{number}:*:page:*", f"*:{number}x"))
        for number in range(100)
    )
    began = time.monotonic()

    assert warnings(attrs.evolve(default_settings(), classes=classes)) == ()
    assert time.monotonic() - began < 20.0


def with_rules(*classes: ClassSettings) -> Settings:
    """Make settings with these classes."""
    return attrs.evolve(default_settings(), classes=classes)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"ttl_s": 60.0}, "class.a.ttl has no effect"),
        ({"ttl_s": 60.0, "max_ttl_s": 50.0}, "class.a.ttl has no effect"),
        ({"ttl_s": 60.0, "max_ttl_s": 59.0, "adaptive_ttl": "on"}, "class.a.ttl is 1m, above max_ttl (59s)"),
        ({"ttl_s": 1.0, "min_ttl_s": 2.0, "ttl_when_missing": "set"}, "class.a.ttl is 1s, below min_ttl (2s)"),
    ],
)
def test_warnings_base_ttl_that_nothing_comes_of_is_named(said: dict[str, Any], words: str) -> None:
    """A TTL that was written down and is never given is a surprise."""
    (found,) = warnings(with_rules(ClassSettings("a", ("a*",), **said)))

    assert words in found


@pytest.mark.parametrize(
    "said",
    [
        {"ttl_s": 60.0, "adaptive_ttl": "report"},
        {"ttl_s": 60.0, "ttl_when_missing": "set", "min_ttl_s": 60.0, "max_ttl_s": 60.0},
        {"max_ttl_s": 5.0},
        {"adaptive_ttl": "on"},
    ],
)
def test_warnings_none_for_ttls_that_are_in_use(said: dict[str, Any]) -> None:
    """What has its effect needs no word."""
    assert warnings(with_rules(ClassSettings("a", ("a*",), **said))) == ()


LISTS = ClassSettings("lists", ("list:*",), version=True, tags=("queue-{1}",))
OLD = ClassSettings("old", ("old:*",), tags=("old-{1}",))


@pytest.mark.parametrize(
    ("invalidates", "late"),
    [
        ("list:{1}:*", ""),
        ("list:[ab]", ""),
        ("tag:queue-{1}", ""),
        ("tag:queue-x", ""),
        ("old:{1}", ""),  # a key is dropped in the same batch, whatever it holds
        ("other", ""),
        ("old:{1}:*", "class.old"),
        ("tag:old-{1}", "class.old"),
        ("other:*", "no class"),
        ("l*", "no class"),
        ("o*", "class.old, no class"),
        ("[lo]*:{1}", "class.old, no class"),
    ],
)
def test_warnings_dependency_that_is_found_by_scan_is_named_with_whose_keys(invalidates: str, late: str) -> None:
    """Only values with a version can be dropped all at once; of which class the others are is said."""
    writer = ClassSettings("writer", ("w:[0-9]",), invalidates=(invalidates,))

    found = warnings(with_rules(LISTS, OLD, writer))

    if late:
        assert found == (
            f"class.writer.invalidates: {invalidates!r} is for keys without version = true, too ({late}): "
            "those are found by SCAN later, not at once",
        )
    else:
        assert found == ()


def test_warnings_capture_in_a_dependency_is_as_narrow_as_its_wildcard() -> None:
    """Of w:[0-9] the keys list:0:* to list:9:* are dropped, and all of these have versions."""
    digits = ClassSettings("digits", ("list:[0-9]:*",), version=True)
    narrow = ClassSettings("writer", ("w:[0-9]",), invalidates=("list:{1}:*",))

    assert warnings(with_rules(digits, narrow)) == ()
    assert len(warnings(with_rules(digits, attrs.evolve(narrow, match=("w:*",))))) == 1


def test_warnings_keys_that_a_class_above_takes_are_not_those_of_the_one_below() -> None:
    """The special class has versions, the general one need not."""
    general = ClassSettings("general", ("l*",))
    writer = ClassSettings("writer", ("w:*",), invalidates=("list:{1}:*",))

    assert warnings(with_rules(LISTS, general, writer)) == ()
    assert "class.general" in warnings(with_rules(attrs.evolve(LISTS, match=("list:a*",)), general, writer))[0]


@pytest.mark.parametrize("invalidates", ["tag:nope-{1}", "tag:queue", "tag:queue-*x"])
def test_warnings_tag_that_no_class_carries_is_named(invalidates: str) -> None:
    """A slip in a tag drops nothing, without a word; a tag is no glob."""
    lists = attrs.evolve(LISTS, match=("list:[0-9]",))
    writer = ClassSettings("writer", ("w:*",), invalidates=(invalidates,))

    found = [text for text in warnings(with_rules(lists, writer)) if "drops nothing" in text]

    # Another key w:*x could be, but list:[0-9] never carries queue-*x.
    assert found == [f"class.writer.invalidates: {invalidates!r} drops nothing: no class has such a tag among its tags"]


@pytest.mark.parametrize(
    ("match", "invalidates", "example"),
    [
        ("user:*:name", "user:{1}:*", "user:1:name"),
        ("user:*", "user:*", "user:1"),
        ("user:*", "tag:user-{1}", "user:1"),
        ("user:[a-c]", "user:?", "user:a"),
    ],
)
def test_warnings_write_that_drops_itself_is_named_with_an_example(match: str, invalidates: str, example: str) -> None:
    """What was written a moment ago is older than the fence that follows it: such a class could never keep a value."""
    one = ClassSettings("a", (match,), version=True, tags=("user-{1}",), invalidates=(invalidates,))

    (found,) = (text for text in warnings(with_rules(one)) if "just written" in text)

    assert found.startswith(f"class.a.invalidates: {invalidates!r} drops what was just written, too")
    assert repr(example) in found


@pytest.mark.parametrize("invalidates", ["user:{1}:*", "user:{1}", "tag:all"])
def test_warnings_none_where_a_write_leaves_itself_alone(invalidates: str) -> None:
    """What lies below a key, the key itself by name, and what others are tagged with."""
    other = ClassSettings("other", ("other",), version=True, tags=("all",))
    one = ClassSettings("a", ("user:*",), version=True, tags=("user-{1}",), invalidates=(invalidates,))

    assert warnings(with_rules(other, one)) == ()


def test_warnings_key_of_another_class_is_no_example() -> None:
    """Of the keys of a class, those that one above takes are not asked whether their write drops itself."""
    above = ClassSettings("above", ("user:1",), version=True)
    below = ClassSettings("below", ("user:*",), version=True, invalidates=("user:[0-9]",))

    assert warnings(with_rules(above, below)) == ()
    assert "just written" in warnings(with_rules(below))[0]


def test_warnings_many_dependencies_are_judged_in_a_blink() -> None:
    """A hundred classes that all drop things of one another are no reason to wait."""
    classes = tuple(
        ClassSettings(
            f"c{number}",
            (f"kind{number}:*", f"list:{number}:*:page:*"),
            version=True,
            tags=(f"t{number}-{{1}}",),
            invalidates=(f"list:{(number + 1) % 100}:{{1}}:page:*", f"tag:t{(number + 2) % 100}-{{1}}"),
        )
        for number in range(100)
    )
    began = time.monotonic()

    assert warnings(with_rules(*classes)) == ()
    assert time.monotonic() - began < 20.0


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (
            AlertRule("hit rate lwo", enabled=False),
            "alert.hit rate lwo turns off nothing: no alert at hand has that name; did you mean 'hit rate low'?",
        ),
        (AlertRule("mine", enabled=False), "alert.mine turns off nothing: no alert at hand has that name"),
        (AlertRule("hit rate low", enabled=False), ""),
        (AlertRule("mine", when=parse_condition("clients > 9"), enabled=False), ""),
    ],
)
def test_warnings_alert_that_is_turned_off_and_not_there_is_named(rule: AlertRule, expected: str) -> None:
    """The one that was meant goes on; a rule of one's own may rest for a while."""
    settings = attrs.evolve(default_settings(), alerts=(rule,))

    assert warnings(settings) == ((expected,) if expected else ())


def test_warnings_of_many_classes_look_at_each_dependency_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand classes are checked within seconds: what is dear is done once a dependency, not once a pair."""
    made: list[Places] = []

    class Counted(Places):
        def __init__(self, parts: Sequence[Part]) -> None:
            made.append(self)
            super().__init__(parts)

    monkeypatch.setattr(dependents_advice, "Places", Counted)
    classes = tuple(
        ClassSettings(f"c{number}", (f"n{number}:*",), tags=(f"t{number}",), invalidates=(f"l{number}:*", "tag:t0"))
        for number in range(40)
    )

    found = warnings(attrs.evolve(default_settings(), classes=classes))

    assert len(found) == 81  # each glob and each tag is dropped later, and a write to the first class drops itself
    assert len(made) == 80
