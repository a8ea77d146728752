"""Which class a key has: the first whose globs take it.

    find(key) -- remembered? --> ClassRules or None                       one look-up in a dictionary
                     | no
                     v
    all globs of all classes as one regular expression, a group a class   once a key, then remembered

Owns the memory of keys, which is bounded in keys and in bytes. Knows nothing of L1: what a class means there is
decided by who asks. A changed configuration is a new `Rules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal

import attrs

from proxy.config.model import ClassSettings
from proxy.values.dependencies import Dependency, Template, compile_dependency, compile_template
from proxy.values.globs import Glob, compile_glob
from proxy.values.ttl import TtlRules

REMEMBERED_KEYS: Final = 16_384
"""How many keys are remembered, those of no class among them; full, the memory begins anew.

With keys of 30 bytes a full memory is 1.6 MB, in the worst case 5.3; to empty it takes 0.3 ms. Beginning anew is
cheaper than any order of use: a look-up stays one look-up (30 ns), and a key that comes back costs 1 us (60 globs).
"""

REMEMBERED_KEY_BYTES: Final = 256
"""A longer key is judged each time: what is remembered belongs to clients, and they must not choose its size."""


OWN_KEYS: Final = b"respite:"
"""What keys begin with that are Respite's own records in Redis; no class has them, not even that of the glob *."""


@attrs.frozen
class ClassRules:
    """What a class says about its keys; for the meaning of each see `ClassSettings`."""

    name: str
    l1: bool
    max_staleness_s: float | None
    recompute_lease_s: float
    while_recomputed: Literal["wait", "stale"]
    globs: tuple[Glob, ...]
    compress: bool
    dictionary: bool
    version: bool
    has_envelope: bool
    """Any of these three: values of its keys may be wrapped."""
    ttl: TtlRules
    has_ttl: bool
    """Whether a TTL of one of its keys could be changed, or counted as one that would be."""
    tags: tuple[Template, ...]
    invalidates: tuple[Dependency, ...]
    does_more: bool
    """Whether a write of one of its keys may do more than wrap its value: another TTL, other keys dropped."""
    stale_if_error_s: float = 0
    offline: Literal["fail", "memory"] = "fail"

    @property
    def has_fallback(self) -> bool:
        """Return whether a command of one of its keys may be answered while Redis is away."""
        return self.stale_if_error_s > 0 or self.offline == "memory"

    def captures(self, key: bytes) -> tuple[bytes, ...]:
        """Return what the wildcards of the first glob that takes the key took; () for a key of another class."""
        for glob in self.globs:
            found = glob.captures(key)
            if found is not None:
                return found
        return ()


class Rules:
    """The classes of a configuration, in its order.

    `find(key)` returns the class of a key, None for a key of no class, and for one of ours, whatever the globs say.
    """

    __slots__ = ("_prefixes", "classes", "fenced", "find", "has_dependencies", "has_envelopes", "has_tags", "has_ttl")

    find: Callable[[bytes], ClassRules | None]

    def __init__(self, classes: Sequence[ClassSettings]) -> None:
        self.classes = tuple(map(_compile_class, classes))
        self.has_envelopes: Final = any(one.has_envelope for one in self.classes)
        self.has_ttl: Final = any(one.has_ttl for one in self.classes)
        self.has_dependencies: Final = any(one.invalidates for one in self.classes)
        self.has_tags: Final = any(one.tags for one in self.classes)
        self.fenced: Final = tuple(_fenced(self.classes))
        self._prefixes = _without_overlaps(glob.prefix for one in self.classes if one.l1 for glob in one.globs)
        # An attribute, not a method: bound straight to the dictionary, a remembered key costs no Python call.
        self.find = _Remembered(self.classes).__getitem__ if self.classes else _no_class

    @property
    def is_active(self) -> bool:
        """Return whether any class asks for more than where its keys are kept: envelopes, TTLs, dependencies, tags."""
        return self.has_envelopes or self.has_ttl or self.has_dependencies or self.has_tags

    def prefixes(self) -> tuple[bytes, ...]:
        """Return what the keys of the classes in L1 begin with, as CLIENT TRACKING BCAST PREFIX wants it.

        Sorted, none the beginning of another. (b"",), every key, when one of their globs begins with a wildcard; ()
        when no class is in L1.
        """
        return self._prefixes


def _fenced(classes: Sequence[ClassRules]) -> Iterator[Glob]:
    """Yield globs that take every key behind a fence that a write of some class sets, and perhaps others."""
    for one in classes:
        if one.tags:
            yield from one.globs
        for dependency in one.invalidates:
            if dependency.kind == "glob":
                pieces = dependency.template.pieces
                yield compile_glob(b"".join(b"*" if isinstance(piece, int) else piece for piece in pieces))


class _Remembered(dict[bytes, ClassRules | None]):
    """Keys and their classes; a key that is not there is judged and kept."""

    __slots__ = ("_classes", "_match")

    def __init__(self, classes: Sequence[ClassRules]) -> None:
        super().__init__()
        self._classes: Final = (None, *classes)
        groups = (b"(" + b"|".join(glob.expression for glob in one.globs) + b")" for one in classes)
        self._match: Final = re.compile(b"(?!%b)(?:%b)" % (OWN_KEYS, b"|".join(groups)), re.DOTALL).match

    def __missing__(self, key: bytes) -> ClassRules | None:
        found = self._match(key)
        rules = self._classes[(found and found.lastindex) or 0]
        if len(key) <= REMEMBERED_KEY_BYTES:
            if len(self) >= REMEMBERED_KEYS:
                self.clear()
            self[key] = rules
        return rules


def _no_class(_key: bytes) -> None:
    return None


def _compile_class(settings: ClassSettings) -> ClassRules:
    ttl = TtlRules(
        settings.ttl_s, settings.adaptive_ttl, settings.ttl_when_missing, settings.min_ttl_s, settings.max_ttl_s
    )
    return ClassRules(
        settings.name,
        settings.l1,
        settings.max_staleness_s,
        settings.recompute_lease_s,
        settings.while_recomputed,
        tuple(compile_glob(glob.encode()) for glob in settings.match),
        compress=settings.compress,
        dictionary=settings.dictionary,
        version=settings.version,
        has_envelope=settings.compress or settings.dictionary or settings.version,
        ttl=ttl,
        has_ttl=ttl.has_effect,
        tags=tuple(map(compile_template, settings.tags)),
        invalidates=tuple(map(compile_dependency, settings.invalidates)),
        does_more=ttl.has_effect or bool(settings.invalidates),
        stale_if_error_s=settings.stale_if_error_s if settings.l1 else 0,
        offline=settings.offline,
    )


def _without_overlaps(prefixes: Iterable[bytes]) -> tuple[bytes, ...]:
    """Sort, and drop each that begins with another: Redis refuses prefixes that overlap."""
    kept: list[bytes] = []
    for prefix in sorted(set(prefixes)):
        # Sorted, what begins with a prefix comes right behind it and before all others.
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return tuple(kept)
