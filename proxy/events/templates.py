"""What a template of [[event]] becomes for a message: one text, or one for each element of the lists it goes through.

    "a:{body.items[].id}:{body.items[].kind}:{body.tenants}"      items {1, x} {2, y}      tenants  t u
       a:1:x:t   a:1:x:u   a:2:y:t   a:2:y:u       places inside one list go together, lists of their own multiply

Owns how a value becomes text, and which it does not: what is not there, is null, is empty or is no single value is an
EventError that names the place. A list where a value is wanted stands for each of its elements. How a template is
written and read is in `config/event_templates.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

import attrs

from proxy.config.event_templates import EACH, EventTemplate, Reference
from proxy.events.event import EventError
from proxy.events.topics import words_of

NAMES_MAX: Final = 10_000
"""How many names an event may have, all of its lists multiplied."""

TEXT_MAX: Final = 16 * 1024 * 1024
"""How many characters a template may become: a long text, once for each element of a list."""

_SPECIAL: Final = re.compile(r"[*?\[\]\\]")

Path = tuple[str | int, ...]
"""The way to a value, each element of a list by its place."""

_Chosen = Mapping[Path, int]
"""Of which list which element is being written out."""


@attrs.frozen
class Unreadable:
    """A body that is no JSON, and why. A rule that needs nothing of it takes its message all the same."""

    reason: str


@attrs.frozen
class Source:
    """What the references of a template point into."""

    routing_key: str
    headers: Mapping[str, object]
    body: object | Unreadable


def expand(template: EventTemplate, source: Source, *, is_glob: bool = False) -> list[str]:
    """Return the texts a template becomes, in the order of the lists; none if one of those is empty.

    In a glob, what stood in the message stands for itself. Raises EventError.
    """
    if plain := _plainly(template, source, is_glob=is_glob):
        return [plain]
    nothing: _Chosen = {}
    texts = [("", nothing)]
    for piece in template.pieces:
        if isinstance(piece, str):
            texts = [(text + piece, chosen) for text, chosen in texts]
            continue
        longer: list[tuple[str, _Chosen]] = []
        size = 0
        for text, chosen in texts:
            for value, chosen_now in _values(piece, source, chosen):
                longer.append((text + (_escape(value) if is_glob else value), chosen_now))
                size += len(longer[-1][0])
                if len(longer) > NAMES_MAX or size > TEXT_MAX:
                    raise EventError(f"`{template.text}` becomes more than {NAMES_MAX} names, or {TEXT_MAX} characters")
        texts = longer
    return [text for text, _ in texts]


def _plainly(template: EventTemplate, source: Source, *, is_glob: bool) -> str:
    """Return the one text of a template that goes through no list and finds texts and whole numbers; else "".

    Says nothing of what is wrong, the long way does. It is what nearly all events need, in a third of the time.
    """
    parts = []
    for piece in template.pieces:
        if isinstance(piece, str):
            parts.append(piece)
            continue
        if piece.source == "routing_key":
            return ""
        value: object = source.body if piece.source == "body" else source.headers
        for step in piece.path:
            if type(value) is not dict:
                return ""
            value = value.get(step)
        if not value or type(value) not in {str, int}:
            return ""
        parts.append(_escape(str(value)) if is_glob else str(value))
    return "".join(parts)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text)


def _values(reference: Reference, source: Source, chosen: _Chosen) -> Iterator[tuple[str, _Chosen]]:
    """Yield the texts at a place, each with the elements that were chosen on the way."""
    if reference.source == "routing_key":
        yield _part_of_key(reference, source.routing_key), chosen
        return
    root: object = source.headers
    if reference.source == "body":
        if isinstance(source.body, Unreadable):
            raise EventError(source.body.reason)
        root = source.body
    for value, path, chosen_now in _walk(root, (reference.source,), (*reference.path, EACH), chosen):
        yield _text_of(value, path), chosen_now


def _walk(
    value: object, path: Path, steps: Sequence[str | int | object], chosen: _Chosen
) -> Iterator[tuple[object, Path, _Chosen]]:
    """Yield the values that the steps lead to. The last of them is into each element, if there is a list at all."""
    for number, step in enumerate(steps):
        if step is EACH:
            rest = steps[number + 1 :]
            if not isinstance(value, list):
                if rest:
                    raise EventError(f"`{shown(path)}` is {_kind(value)} where a list is wanted")
                break
            if path in chosen:
                value, path = value[chosen[path]], (*path, chosen[path])
                continue
            for at, element in enumerate(value):
                yield from _walk(element, (*path, at), rest, {**chosen, path: at})
            return
        value, path = _step(value, path, step), (*path, _plain(step))
    yield value, path, chosen


def _step(value: object, path: Path, step: object) -> object:
    if isinstance(value, Mapping) and isinstance(step, str):
        if step in value:
            return value[step]
    elif isinstance(value, list) and isinstance(step, int):
        if step < len(value):
            return value[step]
    elif isinstance(value, list):
        raise EventError(f"`{shown(path)}` is a list; each element of it is `{shown(path)}[]`")
    elif value is not None:
        raise EventError(f"`{shown(path)}` is {_kind(value)}; there is no `{shown((*path, _plain(step)))}`")
    raise EventError(f"`{shown((*path, _plain(step)))}` is not there")


def _plain(step: object) -> str | int:
    assert isinstance(step, (str, int))
    return step


def _part_of_key(reference: Reference, routing_key: str) -> str:
    if not reference.path:
        part, name = routing_key, "`routing_key`"
    else:
        words = words_of(routing_key)
        number = _plain(reference.path[0])
        assert isinstance(number, int)
        if number > len(words):
            raise EventError(f"`routing_key.{number}` is not there: {routing_key!r} has {len(words)} words")
        part, name = words[number - 1], f"`routing_key.{number}`"
    if not part:
        raise EventError(f"{name} is empty")
    return part


def _text_of(value: object, path: Path) -> str:
    match value:
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case int() | Decimal():
            text = str(value)
        case float() if math.isfinite(value):
            text = repr(value)
        case bytes() | bytearray():
            text = bytes(value).decode("utf-8", "surrogateescape")
        case datetime():  # what a header of AMQP's type T is read as
            text = value.isoformat()
        case _:
            raise EventError(f"`{shown(path)}` is {_kind(value)} where a text or number is wanted")
    if not text:
        raise EventError(f"`{shown(path)}` is empty")
    return text


def shown(path: Path) -> str:
    """Write a path as templates do."""
    first, *others = path
    return str(first) + "".join(f"[{step}]" if isinstance(step, int) else f".{step[:40]}" for step in others)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case Mapping():
            return "an object"
        case list():
            return "a list"
        case str():
            return "a text"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case _:
            return "something else"
