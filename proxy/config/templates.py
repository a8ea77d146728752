r"""Templates, as `tags` and `invalidates` of a class hold them: a text in which {1} is what the first wildcard took.

    "list:{2}:*"  --parse_template-->  b"list:"  2  b":*"       and {{ is a { itself

Reading refuses what can hardly have been meant; that {2} exists is held against the globs of the class in
`classes.py`. What a template becomes for a key is in `values/dependencies.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

from proxy.config.globs import Part, Sort, parse_glob

Pieces = tuple[bytes | int, ...]
"""A template, read: texts, and numbers of captures from 1."""

TAG: Final = "tag:"

_MARK: Final = re.compile(r"\{\{|\{(?:([1-9][0-9]?)\})?")
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_ANYTHING: Final = b"x"  # stands for what a capture took, while a glob is looked at


def parse_template(text: str) -> Pieces:
    """Read a template. Raises ValueError with the reason."""
    pieces: list[bytes | int] = []
    literal = b""
    at = 0
    for mark in _MARK.finditer(text):
        literal += text[at : mark.start()].encode()
        at = mark.end()
        if mark[1]:
            if literal:
                pieces.append(literal)
                literal = b""
            pieces.append(int(mark[1]))
        elif mark[0] == "{{":
            literal += b"{"
        else:
            raise ValueError(f"{text!r}: {{1}} is what the first wildcard took, {{2}} the second; a {{ itself is {{{{")
    literal += text[at:].encode()
    if literal:
        pieces.append(literal)
    return tuple(pieces)


def parse_dependency(text: str) -> tuple[Literal["key", "glob", "tag"], Pieces]:
    r"""Read an entry of `invalidates`: "tag:NAME", else a glob if it holds a wildcard, else a key.

    Of a key, the escapes are taken out: `\*` is a * itself, and `\tag:x` a key that begins with tag:. Raises
    ValueError with the reason.
    """
    if text.startswith(TAG):
        pieces = parse_template(text.removeprefix(TAG))
        if not pieces:
            raise ValueError(f"{text!r}: a tag has a name")
        return "tag", pieces
    pieces = parse_template(text)
    for number, piece in enumerate(pieces):
        before = parse_glob(_example(pieces[:number]))
        if isinstance(piece, int) and before and before[-1].flaw:
            raise ValueError(rf"{text!r}: a capture stands neither in brackets nor behind a \; a {{ itself is {{{{")
    parts = parse_glob(_example(pieces))
    if flaw := next((part.flaw for part in parts if part.flaw), ""):
        raise ValueError(f"{text!r}: {flaw}")
    if any(part.sort is not Sort.LITERAL for part in parts):
        return "glob", pieces
    return "key", tuple(piece if isinstance(piece, int) else _ESCAPED.sub(rb"\1", piece) for piece in pieces)


def captures_of(glob: bytes) -> tuple[Part, ...]:
    """Return the wildcards of a glob: {1} is what the first of them took."""
    return tuple(part for part in parse_glob(glob) if part.sort is not Sort.LITERAL)


def highest_capture(pieces: Sequence[bytes | int]) -> int:
    """Return the highest number among the captures of a template, 0 for none."""
    return max((piece for piece in pieces if isinstance(piece, int)), default=0)


def _example(pieces: Sequence[bytes | int]) -> bytes:
    return b"".join(_ANYTHING if isinstance(piece, int) else piece for piece in pieces)
