"""Which channels a change is told in, and what must be watched for them.

    key      by the key | by what each glob begins with, ends with and holds between | by the tags of its class
    glob     of a fence: keys that it takes, globs that take a key it takes, tags that such a key may bear
    tag      of a fence: the tag, keys that bear it, globs that take a key that may bear it

What a fence is about is not known key by key: a channel hears of it if it may be meant. Owns the index, and the memory
of what was asked last, which begins anew with each channel that comes or goes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import attrs

from proxy.config.globs import EVERY_BYTE, Part, Sort
from proxy.core.feed.channels import Channel
from proxy.values.dependencies import Template, tags_of
from proxy.values.globs import Glob, compile_glob
from proxy.values.overlapping import Places, do_overlap
from proxy.values.rules import ClassRules, Rules

PREFIXES_MAX: Final = 32
"""What Redis compares each changed key with, one after the other: more prefixes would be dearer than more keys."""

_REMEMBERED: Final = 8192
_FEW: Final = 8  # to search a key for one takes as long as to look up some places of it
_LONG: Final = 1024  # bytes of a key that has more places than there are channels
_PARTS_SEEN: Final = 32  # of a glob, where it is asked what it has in common with another: behind them may be anything
_ANYTHING: Final = (Part(Sort.STAR, EVERY_BYTE),)


@attrs.frozen
class Interest:
    """What must be watched: keys that begin with one of `prefixes`, none the beginning of another, b"" all keys.

    `is_wanted` False: nobody listens to anything. True without prefixes: only events and fences matter.
    """

    prefixes: tuple[bytes, ...] = ()
    is_wanted: bool = False


# The literal bytes that a glob begins with, ends with, and the longest run of them between; and how many these are.
_Literals = tuple[bytes, bytes, bytes]
_Shape = tuple[int, int, int]


class ChannelIndex:
    """The channels over keys, by what is looked up for a change."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._keys: dict[bytes, tuple[Channel, ...]] = {}  # several, where one name of it is escaped
        self._tags: dict[bytes, Channel] = {}
        self._globs: dict[str, tuple[Channel, Glob, Places]] = {}
        self._patterns: dict[_Shape, dict[_Literals, dict[str, tuple[Channel, Glob]]]] = {}
        self._of_key: dict[bytes, tuple[Channel, ...]] = {}
        self._of_fence: dict[tuple[str, bytes], tuple[Channel, ...]] = {}
        self._may_bear: dict[bytes, tuple[ClassRules, ...]] = {}

    def take(self, rules: Rules) -> None:
        """Go by these classes from now on."""
        self._rules = rules
        self._may_bear.clear()
        self._forget()

    def add(self, channel: Channel) -> None:
        """Take up a channel of a key, a glob or a tag."""
        if channel.glob is not None:
            self._globs[channel.name] = (channel, channel.glob, Places(_beginning(channel.glob)))
            shape, literals = _literals(channel.glob)
            by_literals = self._patterns.setdefault(shape, {})
            by_literals.setdefault(literals, {})[channel.name] = (channel, channel.glob)
        elif channel.kind == "tag":
            self._tags[channel.raw] = channel
        else:
            self._keys[channel.raw] = (*self._keys.get(channel.raw, ()), channel)
        self._forget()

    def remove(self, channel: Channel) -> None:
        """Let go of a channel."""
        if channel.glob is not None:
            del self._globs[channel.name]
            shape, literals = _literals(channel.glob)
            by_literals = self._patterns[shape]
            del by_literals[literals][channel.name]
            # What is empty goes: it would be looked at for each key.
            if not by_literals[literals]:
                del by_literals[literals]
            if not by_literals:
                del self._patterns[shape]
        elif channel.kind == "tag":
            del self._tags[channel.raw]
        elif left := tuple(one for one in self._keys[channel.raw] if one is not channel):
            self._keys[channel.raw] = left
        else:
            del self._keys[channel.raw]
        self._forget()

    def channels(self) -> Iterator[Channel]:
        """Yield all channels."""
        for channels in self._keys.values():
            yield from channels
        yield from self._tags.values()
        yield from (channel for channel, _, _ in self._globs.values())

    def of_key(self, key: bytes) -> tuple[Channel, ...]:
        """Return the channels in which a change of a key is told."""
        found = self._of_key.get(key)
        if found is None:
            found = tuple(dict.fromkeys(self._find_key(key)))
            if len(self._of_key) >= _REMEMBERED:
                self._of_key.clear()
            self._of_key[key] = found
        return found

    def of_name(self, name: bytes) -> tuple[Channel, ...]:
        """Return the channels that are told what is told in a channel of this name."""
        if name.startswith(b"tag:"):
            channel = self._tags.get(name.removeprefix(b"tag:"))
            return () if channel is None else (channel,)
        return self.of_key(name)

    def of_glob(self, text: bytes) -> tuple[Channel, ...]:
        """Return the channels that a fence of a glob may be about."""
        return self._remembered("glob", text, self._find_glob)

    def of_tag(self, tag: bytes) -> tuple[Channel, ...]:
        """Return the channels that a fence of a tag may be about."""
        return self._remembered("tag", tag, self._find_tag)

    def interest(self) -> Interest:
        """Return what must be watched for all channels."""
        prefixes = {prefix for channel in self.channels() for prefix in self.prefixes_of(channel)}
        return Interest(merge_prefixes(prefixes), is_wanted=bool(self._keys or self._tags or self._globs))

    def prefixes_of(self, channel: Channel) -> list[bytes]:
        """Return what the keys begin with that a channel is about; of a tag: those of the classes that may bear it."""
        if channel.glob is not None:
            return [channel.glob.prefix]
        if channel.kind == "tag":
            return [glob.prefix for rules in self._bearers(channel.raw) for glob in rules.globs]
        return [channel.raw]

    # -- within ------------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._of_key.clear()
        self._of_fence.clear()

    def _find_key(self, key: bytes) -> Iterator[Channel]:
        yield from self._keys.get(key, ())
        for shape, by_literals in self._patterns.items():
            for literals in _literals_in(key, shape, by_literals):
                for channel, glob in by_literals[literals].values():
                    if glob.matches(key):
                        yield channel
        if self._tags:
            yield from (self._tags[tag] for tag in self._tags_of(key) if tag in self._tags)

    def _tags_of(self, key: bytes) -> tuple[bytes, ...]:
        rules = self._rules.find(key) if self._rules.has_tags else None
        return () if rules is None else tags_of(rules, key)

    def _remembered(self, kind: str, text: bytes, find: Callable[[bytes], Iterator[Channel]]) -> tuple[Channel, ...]:
        found = self._of_fence.get((kind, text))
        if found is None:
            found = tuple(dict.fromkeys(find(text)))
            if len(self._of_fence) >= _REMEMBERED:
                self._of_fence.clear()
            self._of_fence[kind, text] = found
        return found

    def _find_glob(self, text: bytes) -> Iterator[Channel]:
        fence = compile_glob(text)
        for key, channels in self._keys.items():
            if fence.matches(key):
                yield from channels
        yield from self._overlapping([fence])
        if not self._tags:
            return
        reached = {rules.name for rules in self._rules.classes if any(_may_overlap(one, fence) for one in rules.globs)}
        for tag, channel in self._tags.items():
            if any(rules.name in reached for rules in self._bearers(tag)):
                yield channel

    def _find_tag(self, tag: bytes) -> Iterator[Channel]:
        if tag in self._tags:
            yield self._tags[tag]
        bearers = self._bearers(tag)
        if not bearers:
            return
        for key, channels in self._keys.items():
            if tag in self._tags_of(key):
                yield from channels
        yield from self._overlapping([glob for rules in bearers for glob in rules.globs])

    def _overlapping(self, fences: Sequence[Glob]) -> Iterator[Channel]:
        """Yield the channels of globs that may take a key which one of these takes."""
        others = [(fence.prefix, _beginning(fence)) for fence in fences]
        for channel, glob, places in self._globs.values():
            if any(_begin_alike(glob.prefix, prefix) and places.meet(parts) for prefix, parts in others):
                yield channel

    def _bearers(self, tag: bytes) -> tuple[ClassRules, ...]:
        """Return the classes of which a key may bear the tag."""
        found = self._may_bear.get(tag)
        if found is None:
            found = tuple(one for one in self._rules.classes if any(_may_become(each, tag) for each in one.tags))
            if len(self._may_bear) >= _REMEMBERED:
                self._may_bear.clear()
            self._may_bear[tag] = found
        return found


def merge_prefixes(prefixes: Iterable[bytes], most: int = PREFIXES_MAX) -> tuple[bytes, ...]:
    """Return at most so many prefixes, none the beginning of another, that take at least what the given ones take.

    Where there are too many, those become one that have most in common.
    """
    kept = _without_overlaps(prefixes)
    if len(kept) <= most:
        return tuple(kept)
    common = [_common_length(one, other) for one, other in pairwise(kept)]
    # Sorted, neighbours have most in common: cut where they have least.
    cuts = sorted(sorted(range(len(common)), key=common.__getitem__)[: most - 1])
    merged, start = [], 0
    for end in [*cuts, len(common)]:
        length = min(common[start:end], default=len(kept[start]))
        merged.append(kept[start][:length])
        start = end + 1
    return tuple(_without_overlaps(merged))


def do_cover(prefixes: Sequence[bytes], wanted: Iterable[bytes]) -> bool:
    """Say whether whatever begins with one of `wanted` also begins with one of `prefixes`."""
    covering = tuple(prefixes)
    return all(one.startswith(covering) for one in wanted)


def _without_overlaps(prefixes: Iterable[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    for prefix in sorted(set(prefixes)):
        # Sorted, what begins with a prefix comes right behind it and before all others.
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept


def _common_length(one: bytes, other: bytes) -> int:
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))


def _may_overlap(one: Glob, other: Glob) -> bool:
    return _begin_alike(one.prefix, other.prefix) and do_overlap(_beginning(one), _beginning(other))


def _begin_alike(one: bytes, other: bytes) -> bool:
    return one.startswith(other) or other.startswith(one)


def _beginning(glob: Glob) -> tuple[Part, ...]:
    """Return parts that take all that the glob takes, so few that thousands of globs are soon gone through."""
    return glob.parts if len(glob.parts) <= _PARTS_SEEN else (*glob.parts[:_PARTS_SEEN], *_ANYTHING)


def _may_become(template: Template, tag: bytes) -> bool:
    """Say whether captures could make a template a tag: each literal is sought once, from where the last one ended."""
    runs = [b""]
    for piece in template.pieces:
        if isinstance(piece, int):
            runs.append(b"")
        else:
            runs[-1] += piece
    first, *between = runs
    if not between:
        return tag == first
    at, end = len(first), len(tag) - len(last := between.pop())
    if not (tag.startswith(first) and tag.endswith(last)):
        return False
    for run in between:
        found = tag.find(run, at, max(at, end))
        if found < 0:
            return False
        at = found + len(run)
    return at <= end


def _literals_in(key: bytes, shape: _Shape, known: Collection[_Literals]) -> list[_Literals]:
    """Return those that a key begins with, ends with and holds between: by search, or by as many look-ups as places."""
    head, tail, between = shape
    end = len(key) - tail
    if end < head + between:
        return []
    prefix, suffix = key[:head], key[end:]
    if not between:
        return [(prefix, suffix, b"")] if (prefix, suffix, b"") in known else []
    if len(known) <= _FEW or len(key) > _LONG:
        return [one for one in known if one[0] == prefix and one[1] == suffix and key.find(one[2], head, end) >= 0]
    runs = {key[at : at + between] for at in range(head, end - between + 1)}
    return [(prefix, suffix, run) for run in runs if (prefix, suffix, run) in known]


def _literals(glob: Glob) -> tuple[_Shape, _Literals]:
    """Return what every key that the glob takes begins with, ends with, and holds between the two."""
    runs = [bytearray()]
    for part in glob.parts:
        if part.sort is Sort.LITERAL:
            runs[-1] += bytes(part.accepts)
        else:
            runs.append(bytearray())
    prefix, *between = map(bytes, runs)
    suffix = between.pop()
    run = max(between, key=len, default=b"")
    return (len(prefix), len(suffix), len(run)), (prefix, suffix, run)
