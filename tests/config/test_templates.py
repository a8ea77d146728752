"""How a template of `tags` and `invalidates` is read."""

from __future__ import annotations

import re

import pytest

from proxy.config.templates import Pieces, captures_of, highest_capture, parse_dependency, parse_template


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ticket-{1}", (b"ticket-", 1)),
        ("{2}{1}", (2, 1)),
        ("a", (b"a",)),
        ("", ()),
        ("cart:{{{1}}:x", (b"cart:{", 1, b"}:x")),
        ("{{1}", (b"{1}",)),
        ("é{99}}", ("é".encode(), 99, b"}")),
        (r"\*[{{", (rb"\*[{",)),
    ],
)
def test_parse_template_gives_texts_and_numbers(text: str, pieces: Pieces) -> None:
    """Two { are one, so that a hash tag can be written; a } is only ever itself, and so is what a glob would read."""
    assert pieces == parse_template(text)


@pytest.mark.parametrize("text", ["{", "{a}", "{0}", "{1", "{}", "{-1}", "{1 }", "{100}"])
def test_parse_template_with_a_brace_that_is_no_capture_is_refused(text: str) -> None:
    """A slip is not taken for a text."""
    with pytest.raises(ValueError, match=re.escape("a { itself is {{")):
        parse_template(text)


@pytest.mark.parametrize(
    ("text", "kind", "pieces"),
    [
        ("list:{1}", "key", (b"list:", 1)),
        (r"a\*\?\[\\b", "key", (rb"a*?[\b",)),
        (r"\tag:x", "key", (b"tag:x",)),
        ("list:{1}:*", "glob", (b"list:", 1, b":*")),
        (r"\tag:?", "glob", (rb"\tag:?",)),
        ("a[bc]{1}", "glob", (b"a[bc]", 1)),
        (r"[\]]{1}", "glob", (rb"[\]]", 1)),
        ("tag:queue-{1}", "tag", (b"queue-", 1)),
        (r"tag:\*", "tag", (rb"\*",)),
        ("tag:tag:", "tag", (b"tag:",)),
        ("tags:x", "key", (b"tags:x",)),
    ],
)
def test_parse_dependency_knows_keys_globs_and_tags_apart(text: str, kind: str, pieces: Pieces) -> None:
    """A wildcard makes a glob; a key has its escapes taken out, a glob keeps them, a tag has none."""
    assert (kind, pieces) == parse_dependency(text)


def test_highest_capture_is_that_of_all_pieces() -> None:
    """It is what the globs of a class must have."""
    assert highest_capture((b"9", 2, b"", 11, 1)) == 11
    assert highest_capture((b"9",)) == 0


def test_captures_of_counts_as_a_key_is_captured() -> None:
    """Literal bytes are no captures, escaped wildcards are literal, stars in a row are one."""
    assert [1, 3, 0] == [len(captures_of(glob)) for glob in (b"a**", b"?*[a-c]", rb"a\*")]
