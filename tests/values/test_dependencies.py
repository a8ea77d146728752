"""What a write drops besides its own keys."""

from __future__ import annotations

import pytest

from proxy.config.model import ClassSettings
from proxy.values.dependencies import (
    Dependents,
    Template,
    compile_dependency,
    compile_template,
    dependents_of,
    tags_of,
)
from proxy.values.globs import compile_glob
from proxy.values.rules import ClassRules, Rules


def rules_of(match: str, *invalidates: str, tags: tuple[str, ...] = ()) -> ClassRules:
    """Return the rules of one class."""
    return Rules((ClassSettings("x", (match,), tags=tags, invalidates=invalidates),)).classes[0]


@pytest.mark.parametrize(
    ("text", "captures", "expected"),
    [
        ("ticket-{1}", (b"7",), b"ticket-7"),
        ("{2}:{1}:{2}", (b"a", b"b"), b"b:a:b"),
        ("plain", (), b"plain"),
        ("{{{1}}", (b"7",), b"{7}"),
        ("{1}", (b"{2}\x00\xff",), b"{2}\x00\xff"),
        ("{1}", (b"",), b""),
    ],
)
def test_expand_puts_captures_in_place(text: str, captures: tuple[bytes, ...], expected: bytes) -> None:
    """Any bytes, as often as they are named; what stands in a capture is not read again."""
    assert expected == compile_template(text).expand(captures)


def test_templates_that_say_the_same_are_equal() -> None:
    """Rules can be compared after a reload."""
    assert compile_template("a{1}") == Template((b"a", 1)) != compile_template("a{2}")
    assert len({compile_template("a{1}"), compile_template("a{1}"), compile_template("b")}) == 2
    assert compile_template("a") != b"a"
    assert repr(compile_template("a{1}")) == "Template((b'a', 1))"


def test_dependents_of_sorts_keys_globs_and_tags() -> None:
    """Each in its order, none twice: two entries may come to the same."""
    rules = rules_of("t:*:*", "k:{1}", "g:{2}:*", "tag:q-{1}", "k:7", "g:?", r"\*{1}", "tag:all")

    assert dependents_of(rules, b"t:7:8") == Dependents(
        keys=(b"k:7", b"*7"), globs=(b"g:8:*", b"g:?"), tags=(b"q-7", b"all")
    )


def test_dependents_of_class_without_any_are_none() -> None:
    """There is nothing to drop."""
    assert dependents_of(rules_of("t:*"), b"t:1") == Dependents() == Dependents((), (), ())


def test_dependents_of_key_never_name_the_key_itself() -> None:
    """It has just been written: a class whose keys drop one another does not drop what it was told to keep."""
    rules = rules_of("t:*", "t:1", "t:2", "t:{1}")

    assert dependents_of(rules, b"t:1").keys == (b"t:2",)
    assert dependents_of(rules, b"t:3").keys == (b"t:1", b"t:2")


@pytest.mark.parametrize("capture", [b"*", b"?", b"[a-z]", b"\\", b"a\\", b"]", b"[^x]", b"\n*", b"7", b"\xff[", b""])
def test_dependents_of_glob_takes_what_was_captured_for_itself(capture: bytes) -> None:
    """A client that writes a key with wildcards in its name drops what belongs to that key, and nobody else's."""
    rules = rules_of("t:*", "list:{1}:*")

    (raw,) = dependents_of(rules, b"t:" + capture).globs
    glob = compile_glob(raw)

    assert glob.matches(b"list:" + capture + b":1")
    assert not glob.matches(b"list:other:1")
    assert not any(part.flaw for part in glob.parts)


def test_expand_in_keys_and_tags_escapes_nothing() -> None:
    """They are names, not globs."""
    rules = rules_of("t:*", "k:{1}", "tag:{1}", tags=("t-{1}",))

    assert dependents_of(rules, b"t:[*\\") == Dependents(keys=(b"k:[*\\",), tags=(b"[*\\",))
    assert tags_of(rules, b"t:[*\\") == (b"t-[*\\",)


def test_captures_are_those_of_the_first_glob_that_takes_the_key() -> None:
    """A class of several globs has the same templates for all of them."""
    rules = Rules((ClassSettings("x", ("a:*", "*:b"), tags=("{1}",), invalidates=("k{1}",)),)).classes[0]

    assert tags_of(rules, b"a:b") == (b"b",)
    assert tags_of(rules, b"c:b") == (b"c",)
    assert dependents_of(rules, b"c:b").keys == (b"kc",)


def test_tags_of_are_named_once_each() -> None:
    """Two templates that come to the same are one tag; a class without tags has none."""
    assert tags_of(rules_of("*:*", tags=("{1}", "{2}", "x")), b"a:a") == (b"a", b"x")
    assert tags_of(rules_of("*:*"), b"a:a") == ()


@pytest.mark.parametrize("text", ["tag:", "[", "{x}"])
def test_compile_dependency_refuses_what_a_configuration_may_not_say(text: str) -> None:
    """Who makes classes by hand is told, too."""
    with pytest.raises(ValueError, match=r".+"):
        compile_dependency(text)
