"""What a message means for keys, in words: what it is taken for, what it would drop, and in which class that is."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, Final

from proxy.cli.plain import many, printable, shorten
from proxy.config.model import Settings
from proxy.events.event import EventError
from proxy.events.mapping import Mapper
from proxy.events.message import Message
from proxy.values.rules import Rules

_NAMED: Final = 50
_NAMED_IN_A_LINE: Final = 5
_NAME_WIDTH: Final = 60


def explain(settings: Settings, message: Message) -> dict[str, Any]:
    """Return what the mapper says, with "classes": that of each key, null for a key of no class."""
    mapper = Mapper(settings.events)
    facts = mapper.explain(message)
    try:
        keys = mapper.map(message).keys
    except EventError:
        keys = ()
    rules = Rules(settings.classes)
    found = [rules.find(key) for key in keys]
    return facts | {"classes": [None if one is None else one.name for one in found]}


def meaning_lines(settings: Settings, message: Message) -> Iterator[str]:
    """Yield what a message means, a name a line; the first fifty of a kind."""
    facts = explain(settings, message)
    if facts["reason"]:
        yield f"no event: {printable(facts['reason'])}"
        return
    yield f"taken for  {printable(facts['taken_for'])}"
    versioned = {one.name for one in settings.classes if one.version}
    notes = [_class_note(name, versioned, facts["version"]) for name in facts["classes"]]
    yield from _names("key", facts["keys"], notes)
    yield from _names("glob", facts["patterns"], [""] * len(facts["patterns"]))
    yield from _names("tag", facts["tags"], [""] * len(facts["tags"]))
    if not (facts["keys"] or facts["patterns"] or facts["tags"]):
        yield "nothing    its lists are empty: there is nothing to drop"
    if facts["version"] is not None:
        yield f"version    {facts['version']}, of {facts['version_at']}; keys whose value is newer stay"
    for name, field in (("database", "db"), ("event id", "id"), ("publisher", "publisher"), ("number", "seq")):
        if facts[field] not in (None, ""):
            yield f"{name:9}  {printable(facts[field])}"
    for channel in facts["then_publish"]:
        yield f"tells      {printable(channel)}"


def meaning_in_a_line(facts: dict[str, Any]) -> str:
    """Say what the mapper's `explain` found, in one line."""
    if facts["reason"]:
        return f"no event: {shorten(printable(facts['reason']), 200)}"
    kinds = (("keys", "keys"), ("globs", "patterns"), ("tags", "tags"))
    parts = [f"{name} {_few(facts[field])}" for name, field in kinds if facts[field]]
    if facts["version_at"]:
        parts.append(f"of {facts['version_at']}")
    return " · ".join(parts) or "nothing to drop"


def _names(kind: str, names: Sequence[str], notes: Sequence[str]) -> Iterator[str]:
    width = min(max(map(len, names), default=0), _NAME_WIDTH)
    for name, note in list(zip(names, notes, strict=True))[:_NAMED]:
        yield f"{kind:9}  {printable(name):{width}}  {note}".rstrip()
    if len(names) > _NAMED:
        yield f"{'':9}  and {many(len(names) - _NAMED, kind)} more"


def _class_note(name: str | None, versioned: Container[str], version: int | None) -> str:
    if name is None:
        return "no class"
    return f"class {name}" + ("" if name in versioned or version is None else ", without versions: it goes anyway")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(shorten(printable(name), _NAME_WIDTH) for name in names[:_NAMED_IN_A_LINE])
    return shown if len(names) <= _NAMED_IN_A_LINE else f"{shown} and {len(names) - _NAMED_IN_A_LINE:,} more"
