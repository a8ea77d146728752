"""From the server's commands and the rules of somebody to the commands that are his: a table with the others denied.

    rules  +@read  -keys                     the last that takes a command has it
    table  get: GET   keys: READ             as the server told
        -> get: GET   keys: DENIED           as this user has it

So nothing is asked for each command: it is looked up in another table. Only judges; what becomes of a command that is
denied is `core.pipeline`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from proxy.config.command_words import CommandRule
from proxy.wire.commands import UNKNOWN, CommandSpec, CommandTable, Kind

Rules = tuple[CommandRule, ...]

ALWAYS: Final = frozenset([b"AUTH", b"HELLO", b"QUIT", b"RESET"])
"""What Redis asks no right for: without them nobody could become, or stop being, somebody."""

_APART: Final = (Kind.FORBIDDEN, Kind.RESPITE)  # no command of Redis: closed without a word, and has rights of its own


def may_run(rules: Rules, spec: CommandSpec, container: CommandSpec | None = None) -> bool:
    """Return whether rules let a command be run, `container` being the command it is a subcommand of.

    Of a command of which the server tells none, every category that is denied takes it, and none that is allowed: so
    are those before it has told its commands, and those of a module that it has loaded since.
    """
    allowed = True
    for rule in rules:
        if takes(rule, spec) or (container is not None and takes(rule, container)):
            allowed = rule.allows
    return allowed or (spec if container is None else container).name in ALWAYS


def takes(rule: CommandRule, spec: CommandSpec) -> bool:
    """Return whether a rule is about a command."""
    word = rule.word.encode()
    if word == b"@all":
        return True
    if word.startswith(b"@"):
        return not rule.allows if spec.categories is None else word[1:] in spec.categories
    return word.upper() == spec.name


def narrow(table: CommandTable, rules: Rules) -> CommandTable:
    """Return what somebody with these rules has of a table."""
    if not rules:
        return table
    specs = {spec.name: _narrowed(spec, rules) for spec in table}
    for spec in _named(rules, specs):
        specs.setdefault(spec.name, spec)
    narrowed = CommandTable(specs.values(), table.refused)
    if not may_run(rules, narrowed.unknown):
        narrowed.unknown = _denied(narrowed.unknown)
    return narrowed


def strangers(table: CommandTable, rules: Rules) -> list[str]:
    """Return the words of rules that are about no command of the server: a slip of the pen denies nothing."""
    specs = [one for spec in table for one in (spec, *spec.subcommands.values()) if one.categories is not None]
    return [rule.word for rule in rules if rule.word != "respite" and not any(takes(rule, spec) for spec in specs)]


def _narrowed(spec: CommandSpec, rules: Rules) -> CommandSpec:
    """Return a command and its subcommands as they are under rules."""
    if spec.kind in _APART:
        return spec
    subcommands = dict(spec.subcommands)
    for rule in rules:  # first arguments, and what a server before 7 does not tell
        name, _, word = rule.word.upper().encode().partition(b"|")
        if word and name == spec.name and word not in subcommands:
            subcommands[word] = attrs.evolve(spec, name=rule.word.upper().encode(), subcommands={})
    judged = {word: one if may_run(rules, one, spec) else _denied(one) for word, one in subcommands.items()}
    # Most are as they were: made anew, those of a few hundred users take seconds.
    is_same = judged.keys() == spec.subcommands.keys() and all(judged[word] is subcommands[word] for word in judged)
    found = spec if is_same else attrs.evolve(spec, subcommands=judged)
    return found if may_run(rules, spec) else _denied(found)


def _denied(spec: CommandSpec) -> CommandSpec:
    """Return a command of which nothing is left but its name: whoever asks for its keys finds none."""
    return CommandSpec(spec.name, Kind.DENIED, spec.arity, subcommands=spec.subcommands, categories=spec.categories)


def _named(rules: Rules, known: dict[bytes, CommandSpec]) -> Iterator[CommandSpec]:
    """Yield the commands that are named and that the server did not tell of: hidden, or not heard yet."""
    for rule in rules:
        name = rule.word.upper().encode()
        if b"|" not in name and not name.startswith(b"@") and name not in known and name != b"RESPITE":
            spec = attrs.evolve(UNKNOWN, name=name)
            yield spec if may_run(rules, spec) else _denied(spec)
