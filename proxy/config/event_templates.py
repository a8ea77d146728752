r"""Templates of [[event]]: texts in which {...} is what stands at a place of the message.

    "list:{body.items[].id}:*"  --parse_pattern-->  "list:"  Reference("body", ("items", EACH, "id"))  ":*"

    {body.a.b}  {body.a[0]}  {body["odd name"]}   a field of the JSON body, however deep; {body} is all of it
    {body.a[].b}                                  of each element of a list: the template becomes many
    {headers.name}                                a header
    {routing_key}  {routing_key.2}                all of it, or its second word
    {{ and }}                                     braces themselves

Reading refuses what can hardly have been meant. What a template becomes for a message is in `events/templates.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import Final, Literal

import attrs

from proxy.config.globs import Sort, parse_glob


class Each(Enum):
    """The step into every element of a list, written []."""

    EACH = "[]"


EACH: Final = Each.EACH

Step = str | int | Literal[Each.EACH]
"""From a value to one inside it: a field by its name, an element by its place from 0, or each element."""


@attrs.frozen
class Reference:
    """A place of the message. Of the routing key the path is () for all of it, or (n,) for its word n, from 1."""

    source: Literal["body", "headers", "routing_key"]
    path: tuple[Step, ...] = ()


@attrs.frozen
class EventTemplate:
    """A template, read. `text` is how it was written; of a pattern, the texts among `pieces` are parts of a glob."""

    text: str
    pieces: tuple[str | Reference, ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        """The places it needs, in their order."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Reference))


_MARK: Final = re.compile(r'\{\{|\}\}|\{((?:"[^"]*"|[^{}"])*)\}|[{}]')
_REFERENCE: Final = re.compile(r"(body|headers|routing_key)(.*)", re.DOTALL)
_STEP: Final = re.compile(r'\.([^\s.\[\]{}"]+)|\[(?:([0-9]{1,5})|"([^"]+)")?\]')
_WORD: Final = re.compile(r"\.([1-9][0-9]{0,2})")
_DOUBLED: Final = re.compile(r"\{ *(body|headers|routing_key)\b[^{}]*\}")
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_ANYTHING: Final = "x"  # stands for what a reference will be, while a glob is looked at


def parse_text(text: str) -> EventTemplate:
    """Read a template whose texts stand for themselves: a tag, a version, a channel. Raises ValueError(reason)."""
    return EventTemplate(text, tuple(_merged(_pieces(text))))


def parse_pattern(text: str) -> EventTemplate:
    """Read a template of a glob; what a reference becomes shall stand for itself. Raises ValueError(reason)."""
    template = parse_text(text)
    for number, piece in enumerate(template.pieces):
        before = parse_glob(_example(template.pieces[:number]))
        if isinstance(piece, Reference) and before and before[-1].flaw:
            raise ValueError(rf"{text!r}: a {{...}} stands neither in brackets nor behind a \; a {{ itself is {{{{")
    if flaw := next((part.flaw for part in parse_glob(_example(template.pieces)) if part.flaw), ""):
        raise ValueError(f"{text!r}: {flaw}")
    return template


def parse_key(text: str) -> EventTemplate:
    r"""Read a template of a key, with the escapes taken out: `\*` is a * itself. A glob is refused: ValueError."""
    template = parse_pattern(text)
    if any(part.sort is not Sort.LITERAL for part in parse_glob(_example(template.pieces))):
        raise ValueError(
            rf"{text!r} is a glob, which belongs into patterns; in a key, a * itself is \*, a ? \?, a [ \["
        )
    pieces = (piece if isinstance(piece, Reference) else _ESCAPED.sub(r"\1", piece) for piece in template.pieces)
    return EventTemplate(text, tuple(pieces))


def _pieces(text: str) -> Iterator[str | Reference]:
    at = 0
    for mark in _MARK.finditer(text):
        yield text[at : mark.start()]
        at = mark.end()
        if mark[1] is not None:
            yield _reference(text, mark[1])
        elif mark[0] in {"{{", "}}"}:
            yield mark[0][0]
        elif mark[0] == "{":
            raise ValueError(f"{text!r}: a {{ is never closed; a {{ itself is {{{{")
        else:
            raise ValueError(f"{text!r}: a }} closes nothing; a }} itself is }}}}")
    yield text[at:]


def _merged(pieces: Iterator[str | Reference]) -> Iterator[str | Reference]:
    """Join texts that stand side by side, and leave out empty ones."""
    literal = ""
    for piece in pieces:
        if isinstance(piece, str):
            literal += piece
            continue
        yield from _literal(literal)
        literal = ""
        yield piece
    yield from _literal(literal)


def _literal(text: str) -> Iterator[str]:
    if doubled := _DOUBLED.search(text):
        raise ValueError(f"{{{doubled[0]}}} would be that very text; a place of the message stands in single braces")
    if text:
        yield text


def _reference(text: str, inner: str) -> Reference:
    found = _REFERENCE.fullmatch(inner)
    if found is None:
        raise ValueError(
            f"{text!r}: {{{inner}}} is no place of a message; it begins with body, headers or routing_key, such as "
            "{body.id}, {headers.tenant} or {routing_key.2}; a { itself is {{"
        )
    steps = found[2]
    if found[1] == "routing_key":
        word = _WORD.fullmatch(steps)
        if steps and word is None:
            raise ValueError(f"{text!r}: {{{inner}}}: of the routing key there are words, {{routing_key.1}} the first")
        return Reference("routing_key", (int(word[1]),) if word else ())
    path = tuple(_path(steps, f"{text!r}: {{{inner}}}"))
    if found[1] == "body":
        return Reference("body", path)
    if not path or not isinstance(path[0], str):
        raise ValueError(f"{text!r}: {{{inner}}}: a header has a name, such as {{headers.tenant}}")
    return Reference("headers", path)


def _path(steps: str, shown: str) -> Iterator[Step]:
    at = 0
    while at < len(steps):
        step = _STEP.match(steps, at)
        if step is None:
            raise ValueError(
                f'{shown}: a step is .name, ["any name"], [0] for the first of a list or [] for each of them'
            )
        at = step.end()
        name = step[1] or step[3]
        yield name or (int(step[2]) if step[2] else EACH)


def _example(pieces: tuple[str | Reference, ...]) -> bytes:
    return "".join(_ANYTHING if isinstance(piece, Reference) else piece for piece in pieces).encode()
