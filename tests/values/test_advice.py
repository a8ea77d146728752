"""What `respite check` warns of."""

from __future__ import annotations

import time

import attrs
import pytest

from proxy.config.load import default_settings
from proxy.config.model import ClassSettings, Settings
from proxy.values.advice import warnings


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
