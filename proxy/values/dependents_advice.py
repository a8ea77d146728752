"""What is doubtful about `invalidates`: what is dropped late, what is never there, and a write that drops itself.

A template is looked at as a glob: each capture becomes the wildcard that it captures, so that `list:{1}:*` of the class
`ticket:[0-9]` is judged as `list:[0-9]:*`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from proxy.config.globs import Part, Sort, parse_glob
from proxy.config.model import ClassSettings
from proxy.config.templates import Pieces, captures_of, parse_dependency, parse_template
from proxy.values.covering import is_covered
from proxy.values.dependencies import tags_of
from proxy.values.globs import compile_glob
from proxy.values.overlapping import Places
from proxy.values.rules import Rules

Parts = tuple[Part, ...]


@attrs.frozen
class _Class:
    """A class whose keys may be dropped: its globs, the shapes of its tags, and what classes before it take."""

    name: str
    has_version: bool
    globs: tuple[Parts, ...]
    tags: tuple[Parts, ...]
    taken: tuple[Parts, ...]


def doubtful_dependencies(classes: Sequence[ClassSettings]) -> Iterator[str]:
    """Yield a sentence for each doubt, in the order of the file."""
    known = _known(classes)
    rules = Rules(classes)
    for one in classes:
        for number, text in enumerate(one.invalidates):
            path = f"class.{one.name}.invalidates: {text!r}"
            kind, pieces = parse_dependency(text)
            shapes = [_shape(pieces, glob, is_glob=kind == "glob") for glob in one.match]
            if kind == "tag":
                met = [Places(shape) for shape in shapes]
                late = [other for other in known if _meet(met, other.tags)]
                if not late:
                    yield f"{path} drops nothing: no class has such a tag among its tags"
                without = [f"class.{other.name}" for other in late if not other.has_version]
            else:
                without = _without_version(shapes, known) if kind == "glob" else []
            if without:
                yield (
                    f"{path} is for keys without version = true, too ({', '.join(without)}): "
                    f"those are found by SCAN later, not at once"
                )
            if example := _drops_itself(rules, one, number):
                yield f"{path} drops what was just written, too: a write to {example!r} would leave nothing"


def _known(classes: Sequence[ClassSettings]) -> list[_Class]:
    known: list[_Class] = []
    taken: tuple[Parts, ...] = ()
    for one in classes:
        globs = tuple(parse_glob(glob.encode()) for glob in one.match)
        tags = tuple(_shape(parse_template(tag), glob, is_glob=False) for tag in one.tags for glob in one.match)
        known.append(_Class(one.name, one.version, globs, tags, taken))
        taken += globs
    return known


def _without_version(shapes: Sequence[Parts], known: Sequence[_Class]) -> list[str]:
    """Name the classes without versions that have keys of a glob; and no class, if it takes keys of none."""
    met = [(shape, Places(shape)) for shape in shapes]
    found = [
        f"class.{other.name}"
        for other in known
        if not other.has_version
        and any(_reaches(shape, places, glob, other.taken) for shape, places in met for glob in other.globs)
    ]
    for shape, places in met:
        # Only those that have keys of it: whether some globs cover another one is dear to say for hundreds of them.
        every = [glob for other in known for glob in other.globs if places.meet(glob)]
        if not is_covered(shape, every):
            return [*found, "no class"]
    return found


def _reaches(shape: Parts, places: Places, glob: Parts, taken: Sequence[Parts]) -> bool:
    """Return whether a glob, which has these places, may have keys of another that no class before that takes."""
    if not places.meet(glob):
        return False
    here = Places(glob)
    before = [other for other in taken if here.meet(other) and places.meet(other)]
    return not (is_covered(shape, before) or is_covered(glob, before))


def _meet(some: Sequence[Places], others: Sequence[Parts]) -> bool:
    return any(one.meet(other) for one in some for other in others)


def _shape(pieces: Pieces, glob: str, *, is_glob: bool) -> Parts:
    """Return the glob of all that a template becomes for the keys of `glob`; stars may stand in a row."""
    wildcards = captures_of(glob.encode())
    parts: list[Part] = []
    for piece in pieces:
        if isinstance(piece, int):
            parts.append(wildcards[piece - 1])
        elif is_glob:
            parts += parse_glob(piece)
        else:
            parts += [Part(Sort.LITERAL, frozenset({byte})) for byte in piece]
    return tuple(parts)


def _drops_itself(rules: Rules, one: ClassSettings, number: int) -> str:
    """Return a key of the class whose write drops the key itself, "" for none of those that were tried."""
    for glob in one.match:
        key = _example(glob)
        found = rules.find(key)
        if found is None or found.name != one.name:
            continue
        dependency = found.invalidates[number]
        dropped = dependency.expand(found.captures(key))
        if (dependency.kind == "glob" and compile_glob(dropped).matches(key)) or (
            dependency.kind == "tag" and dropped in tags_of(found, key)
        ):
            return key.decode(errors="replace")
    return ""


def _example(glob: str) -> bytes:
    """Return a key that a glob takes, no two of its wildcards taking the same where that can be."""
    key = b""
    wildcards = 0
    for part in parse_glob(glob.encode()):
        wildcards += part.sort is not Sort.LITERAL
        wanted = ord("0") + wildcards % 10
        key += bytes([wanted if wanted in part.accepts else min(part.accepts, default=0)])
    return key
