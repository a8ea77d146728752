r"""Which fences are in force, and which of them a key is behind.

    a fence: "what matches this glob, or bears this tag, and is not newer than V, is gone"

    list:7:*         by its prefix: list:7:                                     one look-up a length of prefix
    page:1           by the whole key                                           one look-up
    list:*:7:*:de    by prefix list: and suffix :de, each :7: between     two look-ups, the rest where they hit
    tag queue-7      by the tag                                                 one look-up a tag of the key

Owns the index. Every command asks it for its keys while any fence is in force, so what it costs goes by how many
shapes of globs there are, hardly by how many globs. How fences are set, stored and announced is `values/changes.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Literal, cast

import attrs

from proxy.config.globs import Sort, parse_glob
from proxy.values.clock import VERSION_END
from proxy.values.dependencies import tags_of
from proxy.values.globs import compile_glob
from proxy.values.rules import REMEMBERED_KEY_BYTES, REMEMBERED_KEYS, ClassRules

FenceKind = Literal["glob", "tag"]

FENCES_MAX: Final = 10_000
"""How many fences may be in force at once. What comes beyond is refused where it is set; what was set is held."""

_PLAIN: Final = re.compile(rb"([^*?[\\]*)(\*?)", re.DOTALL)
_FIELD: Final = re.compile(rb"(0|[1-9][0-9]{0,8}):(glob|tag):(.*)", re.DOTALL)
_VERSION: Final = re.compile(rb"[1-9][0-9]{0,19}")


@attrs.frozen
class Fence:
    """What matches a glob or bears a tag, and is not newer than `version`, is gone."""

    db: int
    kind: FenceKind
    text: bytes
    version: int


def field_of(db: int, kind: FenceKind, text: bytes) -> bytes:
    """Return the field that a fence has in the hash `respite:fences`: `0:glob:ticket:*`. Its value is the version."""
    return b"%d:%b:%b" % (db, kind.encode(), text)


def parse_field(field: bytes) -> tuple[int, FenceKind, bytes] | None:
    """Undo `field_of`; None for what is no such field."""
    found = _FIELD.fullmatch(field)
    if found is None:
        return None
    return int(found[1]), cast("FenceKind", found[2].decode()), found[3]


def parse_fence(field: bytes, version: bytes) -> Fence | None:
    """Read a field of `respite:fences` with its value; None for what was not written by us."""
    parsed = parse_field(field)
    if parsed is None or not _VERSION.fullmatch(version):
        return None
    number = int(version)
    return Fence(*parsed, number) if number < VERSION_END else None


class Fences:
    """The fences in force, of all databases."""

    __slots__ = ("_dbs", "versions")

    def __init__(self) -> None:
        self.versions: dict[tuple[int, FenceKind, bytes], int] = {}  # all in force; the same object for good
        self._dbs: dict[int, _Index] = {}

    def __len__(self) -> int:
        return len(self.versions)

    def __iter__(self) -> Iterator[Fence]:
        return iter([Fence(*what, version) for what, version in self.versions.items()])

    def put(self, db: int, kind: FenceKind, text: bytes, version: int) -> bool:
        """Put a fence in force; False where the same is, with this version or a newer one."""
        what = (db, kind, text)
        known = self.versions.get(what, 0)
        if version <= known:
            return False
        self.versions[what] = version
        index = self._dbs.get(db)
        if index is None:
            index = self._dbs[db] = _Index()
        index.put(kind, text, version)
        return True

    def remove(self, db: int, kind: FenceKind, text: bytes, version: int) -> None:
        """Lift a fence, unless it has been set anew, with a newer version."""
        what = (db, kind, text)
        known = self.versions.get(what, 0)
        if not known or known > version:
            return
        del self.versions[what]
        self._dbs[db].remove(kind, text)
        if self._dbs[db].is_empty:
            del self._dbs[db]

    def clear(self) -> None:
        """Lift all fences."""
        self.versions.clear()
        self._dbs.clear()

    def version_over(self, db: int, key: bytes, rules: ClassRules | None) -> int:
        """Return the version of the newest fence that a key is behind, 0 for none; `rules` are those of its class."""
        index = self._dbs.get(db)
        if index is None:
            return 0
        newest = index.keys.get(key, 0)
        # A key that is shorter than the prefixes is looked up whole, and cannot be there.
        for length, prefixes in index.prefixes.items():
            if (version := prefixes.get(key[:length], 0)) > newest:
                newest = version
        if index.patterns and (version := index.pattern_over(key)) > newest:
            newest = version
        if index.tags and rules is not None and rules.tags:
            for tag in tags_of(rules, key):
                if (version := index.tags.get(tag, 0)) > newest:
                    newest = version
        return newest


class _Index:
    """The fences of one database, by what is looked up for a key."""

    __slots__ = ("_remembered", "keys", "patterns", "prefixes", "tags")

    def __init__(self) -> None:
        self.keys: dict[bytes, int] = {}  # globs without a wildcard
        self.prefixes: dict[int, dict[bytes, int]] = {}  # those with a star at the end and no other: by length, prefix
        self.patterns: _Patterns = {}  # all others
        self.tags: dict[bytes, int] = {}
        self._remembered: dict[bytes, int] = {}  # what `patterns` say of keys, until one more is put or lifted

    def pattern_over(self, key: bytes) -> int:
        version = self._remembered.get(key)
        if version is None:
            version = _newest_pattern(self.patterns, key)
            if len(key) <= REMEMBERED_KEY_BYTES:
                if len(self._remembered) >= REMEMBERED_KEYS:
                    self._remembered.clear()
                self._remembered[key] = version
        return version

    @property
    def is_empty(self) -> bool:
        return not (self.keys or self.prefixes or self.patterns or self.tags)

    def put(self, kind: FenceKind, text: bytes, version: int) -> None:
        plain = _PLAIN.fullmatch(text)
        if kind == "tag":
            self.tags[text] = version
        elif plain is None:
            self._remembered.clear()
            _put_pattern(self.patterns, text, version)
        elif plain[2]:
            self.prefixes.setdefault(len(plain[1]), {})[plain[1]] = version
        else:
            self.keys[text] = version

    def remove(self, kind: FenceKind, text: bytes) -> None:
        plain = _PLAIN.fullmatch(text)
        if kind == "tag":
            del self.tags[text]
        elif plain is None:
            self._remembered.clear()
            _remove_pattern(self.patterns, text)
        elif plain[2]:
            prefixes = self.prefixes[len(plain[1])]
            del prefixes[plain[1]]
            if not prefixes:
                del self.prefixes[len(plain[1])]
        else:
            del self.keys[text]


class _Pattern:
    """A glob that has to be matched. Compiled when a key first gets as far: that takes longer than all the rest."""

    __slots__ = ("_matches", "text", "version")

    def __init__(self, text: bytes, version: int) -> None:
        self.text = text
        self.version = version
        self._matches: Callable[[bytes], bool] | None = None

    def matches(self, key: bytes) -> bool:
        if self._matches is None:
            self._matches = compile_glob(self.text).matches
        return self._matches(key)


# How many literal bytes a glob begins with, ends with, and has in its longest run between; by these,
# prefix -> suffix -> run between -> text -> pattern.
_Shape = tuple[int, int, int]
_Patterns = dict[_Shape, dict[bytes, dict[bytes, dict[bytes, dict[bytes, _Pattern]]]]]


def _newest_pattern(patterns: _Patterns, key: bytes) -> int:
    """Return the version of the newest pattern that takes the key, 0 for none."""
    newest = 0
    size = len(key)
    for (head, tail, between), by_prefix in patterns.items():
        by_suffix = by_prefix.get(key[:head])
        if by_suffix is None:
            continue
        by_run = by_suffix.get(key[size - tail :])
        if by_run is None:
            continue
        places = range(head, size - tail - between + 1)
        if len(by_run) <= _FEW_RUNS:
            found = [run for run in by_run if run in key]
        else:
            found = [run for run in {key[at : at + between] for at in places} if run in by_run]
        for run in found:
            for pattern in by_run[run].values():
                if pattern.version > newest and pattern.matches(key):
                    newest = pattern.version
    return newest


_FEW_RUNS: Final = 8  # to search a key for one takes as long as to look up three places of it


def _put_pattern(patterns: _Patterns, text: bytes, version: int) -> None:
    prefix, suffix, run = _literals(text)
    by_prefix = patterns.setdefault((len(prefix), len(suffix), len(run)), {})
    by_text = by_prefix.setdefault(prefix, {}).setdefault(suffix, {}).setdefault(run, {})
    known = by_text.get(text)
    if known is None:
        by_text[text] = _Pattern(text, version)
    else:
        known.version = version


def _remove_pattern(patterns: _Patterns, text: bytes) -> None:
    prefix, suffix, run = _literals(text)
    shape = (len(prefix), len(suffix), len(run))
    by_prefix = patterns[shape]
    by_suffix = by_prefix[prefix]
    by_run = by_suffix[suffix]
    by_text = by_run[run]
    del by_text[text]
    # What is empty goes: it would be looked at for each key.
    if not by_text:
        del by_run[run]
    if not by_run:
        del by_suffix[suffix]
    if not by_suffix:
        del by_prefix[prefix]
    if not by_prefix:
        del patterns[shape]


def _literals(text: bytes) -> tuple[bytes, bytes, bytes]:
    """Return what every key that the glob takes begins with, ends with, and holds between the two."""
    runs = [bytearray()]
    for part in parse_glob(text):
        if part.sort is Sort.LITERAL:
            runs[-1] += bytes(part.accepts)
        else:
            runs.append(bytearray())
    prefix, *between = map(bytes, runs)
    suffix = between.pop() if between else b""
    return prefix, suffix, max(between, key=len, default=b"")
