r"""What a write drops besides its own keys, and which tags a key carries.

    match = "ticket:*"     invalidates = ["list:{1}:*", "tag:queue-{1}"]     tags = ["ticket-{1}"]
    a write to ticket:7*   drops   list:7\*:* (a glob) and queue-7* (a tag);   the key carries ticket-7*

Owns how a template becomes bytes. In a glob, what a capture took is escaped: a client that writes a key named
`ticket:*` drops what belongs to that key, and no more. How it is dropped is decided elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import attrs

from proxy.config.templates import Pieces, parse_dependency, parse_template

if TYPE_CHECKING:
    from proxy.values.rules import ClassRules

_SPECIAL: Final = re.compile(rb"[*?[\]\\]")


class Template:
    """A compiled template: `pieces` are texts, and numbers of captures from 1."""

    __slots__ = ("_constant", "pieces")

    def __init__(self, pieces: Pieces) -> None:
        self.pieces: Final = pieces
        self._constant: Final = (
            None if any(isinstance(piece, int) for piece in pieces) else b"".join(map(bytes, pieces))
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.pieces == other.pieces

    def __hash__(self) -> int:
        return hash(self.pieces)

    def __repr__(self) -> str:
        return f"Template({self.pieces!r})"

    def expand(self, captures: Sequence[bytes]) -> bytes:
        """Return the text for what the wildcards of a key's glob took, as `ClassRules.captures` has it."""
        if self._constant is not None:
            return self._constant
        return b"".join([captures[piece - 1] if isinstance(piece, int) else piece for piece in self.pieces])


def compile_template(text: str) -> Template:
    """Compile a template, one of `tags`. Raises ValueError with the reason."""
    return Template(parse_template(text))


@attrs.frozen
class Dependency:
    """One entry of `invalidates`: what its template becomes is a key, a glob or a tag."""

    kind: Literal["key", "glob", "tag"]
    template: Template

    def expand(self, captures: Sequence[bytes]) -> bytes:
        """Return what is dropped; in a glob, what a capture took stands for itself."""
        if self.kind == "glob":
            captures = [_escape(capture) for capture in captures]
        return self.template.expand(captures)


def compile_dependency(text: str) -> Dependency:
    """Compile an entry of `invalidates`. Raises ValueError with the reason."""
    kind, pieces = parse_dependency(text)
    return Dependency(kind, Template(pieces))


@attrs.frozen
class Dependents:
    """What a write drops besides its own keys."""

    keys: tuple[bytes, ...] = ()
    globs: tuple[bytes, ...] = ()
    tags: tuple[bytes, ...] = ()


def dependents_of(rules: ClassRules, key: bytes) -> Dependents:
    """Return what a write to a key of the class drops besides; never the key itself, which has just been written."""
    found: dict[str, dict[bytes, None]] = {"key": {}, "glob": {}, "tag": {}}
    captures = rules.captures(key)
    for one in rules.invalidates:
        found[one.kind][one.expand(captures)] = None
    found["key"].pop(key, None)
    return Dependents(tuple(found["key"]), tuple(found["glob"]), tuple(found["tag"]))


def tags_of(rules: ClassRules, key: bytes) -> tuple[bytes, ...]:
    """Return the tags that a key of the class carries."""
    if not rules.tags:
        return ()
    captures = rules.captures(key)
    return tuple(dict.fromkeys([one.expand(captures) for one in rules.tags]))


def _escape(capture: bytes) -> bytes:
    return _SPECIAL.sub(rb"\\\g<0>", capture)
