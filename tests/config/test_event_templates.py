"""How a template of [[event]] is read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.event_templates import EACH, Reference, Step, parse_key, parse_pattern, parse_text


def _body(*path: Step) -> Reference:
    return Reference("body", path)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("ticket:{body.id}", ("ticket:", _body("id"))),
        ("{body.a.b}{body.c}", (_body("a", "b"), _body("c"))),
        ("{body.items[].id}", (_body("items", EACH, "id"),)),
        ("{body[][0].é-1_$:@}", (_body(EACH, 0, "é-1_$:@"),)),
        ('{body["a.b"]["c}[]"].0}', (_body("a.b", "c}[]", "0"),)),
        ("{body}", (_body(),)),
        ("{headers.x-tenant}", (Reference("headers", ("x-tenant",)),)),
        ('{headers["a.b"].c[]}', (Reference("headers", ("a.b", "c", EACH)),)),
        ("{routing_key}/{routing_key.2}", (Reference("routing_key"), "/", Reference("routing_key", (2,)))),
        ("cart:{{{body.id}}}:x", ("cart:{", _body("id"), "}:x")),
        ("{{a}}", ("{a}",)),
        ("a", ("a",)),
        (r"\*?[", (r"\*?[",)),
    ],
)
def test_parse_text_gives_texts_and_places(text: str, pieces: tuple[str | Reference, ...]) -> None:
    """Texts stand for themselves, {...} for a place of the message, two braces for one."""
    template = parse_text(text)

    assert pieces == template.pieces
    assert text == template.text
    assert tuple(piece for piece in pieces if isinstance(piece, Reference)) == template.references


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "a { is never closed"),
        ("a{body.id", "a { is never closed"),
        ('{body["a]}', "a { is never closed"),
        ("body.id}", "a } closes nothing"),
        ("{body.id}}", "a } closes nothing"),
        ("{}", "is no place of a message"),
        ("{1}", "is no place of a message"),
        ("{id}", "is no place of a message"),
        ("{ body.id }", "is no place of a message"),
        ("{data.id}", "is no place of a message"),
        ("{bodyid}", "a step is"),
        ("{body.}", "a step is"),
        ("{body.a b}", "a step is"),
        ("{body.a[*]}", "a step is"),
        ("{body.a[-1]}", "a step is"),
        ('{body[""]}', "a step is"),
        ("{headers}", "a header has a name"),
        ("{headers[0]}", "a header has a name"),
        ("{headers[].a}", "a header has a name"),
        ("{routing_key.0}", "{routing_key.1} the first"),
        ("{routing_key.a}", "{routing_key.1} the first"),
        ("{routing_key[1]}", "{routing_key.1} the first"),
        ("{{body.id}}", "stands in single braces"),
        ("a{{ headers.x }}b", "stands in single braces"),
    ],
)
def test_parse_text_that_can_hardly_be_meant_is_explained(text: str, words: str) -> None:
    """A slip is not taken for a text; what to write instead is said."""
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_text(text)


@pytest.mark.parametrize("text", ["list:{body.id}:*", r"a\*{body.id}", "[ab]{body.id}?", "a*{{[^c]}}"])
def test_parse_pattern_keeps_the_text_of_a_glob(text: str) -> None:
    """The texts of a pattern are parts of a glob, escapes and all."""
    template = parse_pattern(text)

    assert parse_text(text) == template


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k:[{body.id}]", "neither in brackets nor behind a"),
        ("k:[^a{body.id}", "neither in brackets nor behind a"),
        ("k:\\{body.id}", "neither in brackets nor behind a"),
        ("k:[ab", "[ab is never closed"),
        ("k:{body.id}\\", "escapes nothing"),
        ("k[!a]", "write [^a]"),
    ],
)
def test_parse_pattern_that_can_hardly_be_meant_is_explained(text: str, words: str) -> None:
    """What would drop something else than was meant is refused."""
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_pattern(text)


def test_parse_key_takes_the_escapes_out() -> None:
    """A key holds what is escaped, not the escape."""
    assert parse_key(r"a\*\?\[\\b{body.id}\x").pieces == (r"a*?[\b", _body("id"), "x")


@pytest.mark.parametrize("text", ["list:{body.id}:*", "a?", "[ab]{body.id}"])
def test_parse_key_that_is_a_glob_is_sent_to_patterns(text: str) -> None:
    """A glob among keys would silently drop nothing."""
    with pytest.raises(ValueError, match="is a glob, which belongs into patterns"):
        parse_key(text)


@given(st.text(alphabet='{}[]".ab1 \\*headersbodyrouting_k', max_size=30))
def test_parse_any_text_gives_a_template_or_a_reason(text: str) -> None:
    """Nothing that an operator writes makes reading fail in another way, and every reason has words."""
    for parse in (parse_text, parse_pattern, parse_key):
        try:
            read = parse(text).text
        except ValueError as exc:
            read = text if len(str(exc)) > 20 else ""
        assert text == read


@given(st.text(st.characters(exclude_characters="or")))  # of body, headers and routing_key none can be written
def test_parse_text_with_its_braces_doubled_is_that_text(text: str) -> None:
    """Whatever a text holds, it can be written."""
    assert parse_text(text.replace("{", "{{").replace("}", "}}")).pieces == ((text,) if text else ())
