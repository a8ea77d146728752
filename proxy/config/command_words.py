"""How commands are named where the configuration says who may run what: a command, one subcommand, a category.

    "flushall"      a command with all its subcommands
    "config|set"    one subcommand (or, of a command that has none, its first argument)
    "@dangerous"    a category, as the server's COMMAND tells them; "@all" is everything

Only the words; whether the server has such a command is found out when it has told its commands (core.rights).
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from proxy.config.kinds import Kind, read_texts

_WORD: Final = re.compile(r"@[a-z]+|[a-z0-9._:-]+(\|[a-z0-9._:-]+)?")
_EXAMPLES: Final = '"flushall", "config|set" or "@dangerous"'


@attrs.frozen
class CommandRule:
    """One word of a list: commands that are allowed, or denied. Of several rules the last that takes one has it."""

    allows: bool
    word: str  # in lower case


def command_list() -> Kind:
    """Accept a list of names of commands, subcommands and categories, in any case; read as lower case."""

    def read(value: object) -> tuple[str, ...]:
        words = tuple(word.lower() for word in read_texts(value))
        for word in words:
            _check(word)
        if len(set(words)) != len(words):
            raise ValueError("one stands twice")
        return words

    return Kind(f"a list of commands, such as {_EXAMPLES}", read)


def read_command_rules(value: object) -> tuple[CommandRule, ...]:
    """Read ["+@read", "-keys"]; raise ValueError.

    What comes first says where it begins: "+get" from nothing, "-keys" from all.
    """
    rules = []
    for text in read_texts(value):
        sign, word = text[:1], text[1:].lower()
        if sign not in ("+", "-"):
            raise ValueError(f"{text!r} begins with neither + nor -")
        _check(word)
        rules.append(CommandRule(sign == "+", word))
    if rules:
        rules.insert(0, CommandRule(not rules[0].allows, "@all"))
    return tuple(rules)


def _check(word: str) -> None:
    if not _WORD.fullmatch(word):
        raise ValueError(f"{word!r} is no name of a command, such as {_EXAMPLES}")
