"""Globs of clients, of classes and of channels, and keys that they are held against.

What must hold: a glob takes the keys that Redis' own way of matching takes, byte by byte; what its wildcards took gives
the key again; no key is searched for long; a glob that covers another takes its keys, and two that share a key overlap.
"""

from __future__ import annotations

import random
import re
from typing import Final

from proxy.config import globs
from proxy.config.globs import Sort, parse_glob
from proxy.core.feed import channels
from proxy.core.feed.channels import FeedError, read_channel
from proxy.values import covering, fences, overlapping
from proxy.values import globs as matching
from proxy.values.covering import is_covered
from proxy.values.fences import Fences
from proxy.values.globs import Glob, compile_glob
from proxy.values.overlapping import do_overlap

from ..target import Target, expect

_PIECES: Final = (
    *(b"*", b"**", b"?", b"[", b"]", b"[^", b"\\", b"-", b"[a-c]", b"[^b]", b"[]", b"[^]", b"[c-a]", b"[a-", b"[\\]]"),
    *(b"[\\", b"[a-\\]", b"[^\0]", b"[\x80-\xff]", b"a", b"b", b"c", b"ab", b"\\*", b"\\a", b"\n", b"\0", b"\xc3\xa9"),
    *(b"\1", b"tag:", b"respite:", b"[!a]", b"^", b"!"),
)


def _takes(glob: Glob, key: bytes) -> bool:
    """Decide as a reader would: hold all places of the glob that the key so far may have come to."""
    if [part.sort for part in glob.parts] == [Sort.STAR]:
        return glob.raw == b"*" or bool(key)
    parts = glob.parts
    places = {0}
    for byte in (*key, None):
        todo = list(places)
        while todo:  # a star may take nothing
            at = todo.pop()
            if at < len(parts) and parts[at].sort is Sort.STAR and at + 1 not in places:
                places.add(at + 1)
                todo.append(at + 1)
        if byte is not None:
            places = {
                at if parts[at].sort is Sort.STAR else at + 1
                for at in places
                if at < len(parts) and byte in parts[at].accepts
            }
    return len(parts) in places


def _run(data: bytes) -> None:
    """Read a line as a glob, the second as another one, the rest as a key; lines end with byte 1."""
    lines = [*data.split(b"\1", 2), b"", b""]
    one, other = compile_glob(lines[0]), compile_glob(lines[1])
    key = lines[2]
    for glob in (one, other):
        _judge(glob, key)
    # Two wildcards and more, and nothing else, do not take the empty key that * takes; `is_covered` leaves that out.
    is_quirk = not key and len(other.raw) > 1 and not other.raw.strip(b"*")
    if not is_quirk and is_covered(one.parts, [other.parts]):
        expect(not one.matches(key) or other.matches(key), "it is covered, and its key is not taken", one, other, key)
    if not do_overlap(one.parts, other.parts):
        expect(not (one.matches(key) and other.matches(key)), "they share a key, and do not overlap", one, other, key)
    _fence(one, other, key)
    try:
        kind, raw, _ = read_channel(lines[0].decode("utf-8", "surrogateescape"))
    except FeedError as exc:
        expect(str(exc), "no reason")
    else:
        expect(kind != "key" or compile_glob(lines[0]).matches(raw), "a channel that does not take its key", raw)


def _judge(glob: Glob, key: bytes) -> None:
    expected = _takes(glob, key)
    expect(glob.matches(key) is expected, "it takes other keys than it should", glob.raw, key, expected)
    found = re.match(glob.expression, key, re.DOTALL) is not None
    expect(found is expected, "its expression takes other keys", glob.raw, key, expected)
    expect(parse_glob(glob.raw) == glob.parts, "it is read in two ways", glob.raw)
    captures = glob.captures(key)
    expect((captures is not None) is expected, "captures of a key that it does not take", glob.raw, key)
    if captures is not None:
        rest = iter(captures)
        pieces = [bytes(part.accepts) if part.sort is Sort.LITERAL else next(rest) for part in glob.parts]
        expect(b"".join(pieces) == key and next(rest, None) is None, "captures of another key", glob.raw, key)
        expect(key.startswith(glob.prefix), "a prefix that the key has not", glob.raw, key)


def _fence(one: Glob, other: Glob, key: bytes) -> None:
    held = Fences()
    held.put(0, "glob", one.raw, 7)
    held.put(0, "glob", other.raw, 9)
    version = 9 if other.matches(key) else 7 if one.matches(key) else 0
    if b"**" not in one.raw + other.raw or key:
        expect(held.version_over(0, key, None) == version, "a fence for other keys", one.raw, other.raw, key, version)
    held.remove(0, "glob", other.raw, 9)
    held.remove(0, "glob", one.raw, 9)
    expect(len(held) == 0 and held.version_over(0, key, None) == 0, "a fence that stays", one.raw)


def _make(rng: random.Random) -> bytes:
    lines = [b"".join(rng.choices(_PIECES[:-6], k=rng.randrange(7))) for _ in range(2)]
    return b"\1".join((*lines, bytes(rng.choices(b"aaabbbcc*?[]^\\-!\0\n\x80\xc3\xff", k=rng.randrange(10)))))


GLOBS: Final = Target(
    "globs",
    _run,
    [globs, matching, covering, overlapping, fences, channels],
    [b"ticket:*\1ticket:7*\1ticket:7", b"*a*a*\1?b\1aaa", b"[a-c][^b]\1[]\1ab", b"\\*\1**\1", b"tag:x", b"*[ab]" * 16],
    _PIECES,
    _make,
    max_bytes=96,
)
