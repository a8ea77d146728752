"""Every key of an [[event]], declared once, as `keys.py` declares the others, and what they must agree on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.config import event_kinds
from proxy.config.event_templates import EventTemplate
from proxy.config.key import Key, Tables
from proxy.config.kinds import Kind
from proxy.config.model import EventRule
from proxy.config.topics import word_count


def _key(path: str, kind: Kind, default: object, when: str, *, needed: bool = False) -> Key:
    return Key(path, path, kind, default, live=True, help=when, needed=needed)


def _drops_nothing(rule: EventRule) -> str:
    return (
        ""
        if rule.keys or rule.patterns or rule.tags
        else "one of keys, patterns and tags is needed, else it drops nothing"
    )


def _missing_word(pick: Callable[[EventRule], tuple[EventTemplate | None, ...]]) -> Callable[[EventRule], str]:
    """Make a check for words that no routing key of the rule has: its events would all end as dead letters."""

    def find_fault(rule: EventRule) -> str:
        words = word_count(rule.routing_key)
        for template in pick(rule):
            for reference in template.references if template is not None and words is not None else ():
                word = reference.path[0] if reference.source == "routing_key" and reference.path else 0
                if isinstance(word, int) and word > (words or 0):
                    return f"{template and template.text!r}: a routing key of {rule.routing_key!r} has no word {word}"
        return ""

    return find_fault


EVENTS: Final = Tables(
    allowed="any number of tables, each headed [[event]]",
    build=EventRule,
    keys=(
        _key(
            "routing_key",
            event_kinds.topic(),
            None,
            "Which events it is for, as bindings have it: words between dots, * is any word, # any number of them.",
            needed=True,
        ),
        _key(
            "keys",
            event_kinds.keys(),
            [],
            r"Set to the keys that such an event makes wrong; {body.id} is a field of its JSON body; \* is a * itself.",
        ),
        _key(
            "patterns",
            event_kinds.patterns(),
            [],
            "Set to globs over keys that it makes wrong; what a {...} becomes stands for itself, * and all.",
        ),
        _key(
            "tags",
            event_kinds.tags(),
            [],
            "Set to tags of classes whose keys it makes wrong.",
        ),
        _key(
            "version",
            event_kinds.version(),
            "",
            "Set to the field that says when it changed: ms since 1970 or ISO 8601; stored values that are newer stay.",
        ),
        _key(
            "then_publish",
            event_kinds.channel(),
            "",
            "Set to a push channel that is told of the event besides those of its keys.",
        ),
    ),
    agreements=(
        ("keys", _drops_nothing),
        ("keys", _missing_word(lambda rule: rule.keys)),
        ("patterns", _missing_word(lambda rule: rule.patterns)),
        ("tags", _missing_word(lambda rule: rule.tags)),
        ("version", _missing_word(lambda rule: (rule.version,))),
        ("then_publish", _missing_word(lambda rule: (rule.then_publish,))),
    ),
)
