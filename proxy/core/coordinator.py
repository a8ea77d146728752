"""What a batch of events comes to, and what became of each of them.

    events --refused at once: absurd version, a key of ours, too long a glob --> Failed
       |
       |   per database: key -> the newest version that any of them has     globs, tags
       v                                                                         v
    KeyParts, one EVAL each                                                  FenceParts, one EVAL each
       '--------------- replies, or why there are none --> outcomes --------------'

Owns the merging and the judgement; who sends the parts, and marks keys in L1 meanwhile, is `net.events`. A key that
several events name is asked for once: an event without a version wins over any, else the newest one does, and what it
finds newer than itself is newer than all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import attrs

from proxy.events.event import Event
from proxy.events.sink import Applied, Failed, Outcome
from proxy.values.rules import OWN_KEYS
from proxy.wire.reply import text

KEYS_A_CALL: Final = 256
"""Redis does nothing else meanwhile: about half a millisecond."""

FENCES_A_CALL: Final = 256

TEXT_MAX_BYTES: Final = 4096  # of a glob or a tag, as `net.values` has it: every proxy parses it, and keeps it
DB_MAX: Final = 1 << 31

_GONE, _NEWER = b"gn"

# Redis, or the way to it, is in a state that no event is to blame for. Redis 6 puts words of its own before what a
# command in a script says.
_AWAY: Final = re.compile(
    rb"-ERR (?:respite: upstream |max number of clients|Client sent AUTH|AUTH |invalid password)|"
    rb"(?:-|.*: -)(?:LOADING|MASTERDOWN|READONLY|BUSY|NOAUTH|WRONGPASS|MISCONF|NOREPLICAS|CLUSTERDOWN|DENIED) "
)
_SHORT: Final = re.compile(rb"(?:-|.*: -)OOM ")
_NO_DATABASE: Final = re.compile(rb"-ERR (?:DB index is out of range|invalid DB index)")
OUT_OF_RANGE: Final = "DB index is out of range"


def is_away(reply: bytes) -> bool:
    """Return whether an error says that Redis cannot serve anybody just now."""
    return _AWAY.match(reply) is not None


def is_short(reply: bytes) -> bool:
    """Return whether an error says that Redis has no memory for more."""
    return _SHORT.match(reply) is not None


def is_no_database(reply: bytes) -> bool:
    """Return whether an error says that the server has not so many databases."""
    return _NO_DATABASE.match(reply) is not None


def failure_of(reply: bytes) -> Failed:
    """Return what an error of Redis, or of the link to it, means for the events whose part it answers."""
    reason = text(reply).decode("utf-8", "replace")
    return Failed(reason, is_away(reply), is_no_database(reply), is_short(reply))


@attrs.define(eq=False)
class KeyPart:
    """Keys of one database that are dropped in one call. `entries` is filled by who marks them in L1."""

    db: int
    keys: list[bytes]
    versions: list[int | None]
    owners: list[tuple[int, ...]]
    """Which events name each key; first the one whose version it is."""
    entries: list[int] = attrs.field(factory=list)
    reply: bytes = b""

    @property
    def events(self) -> set[int]:
        """Which events it is of."""
        return {index for owners in self.owners for index in owners}

    @property
    def found(self) -> bytes | None:
        """What became of each key, a byte each; None where the call has failed."""
        found = text(self.reply) if self.reply[:1] == b"$" else b""
        return found if len(found) == len(self.keys) else None


@attrs.define(eq=False)
class FencePart:
    """Globs and tags of one database that are fenced in one call. `entries` is how many L1 dropped for it."""

    db: int
    globs: list[bytes] = attrs.field(factory=list)
    tags: list[bytes] = attrs.field(factory=list)
    events: set[int] = attrs.field(factory=set)
    entries: int = 0
    reply: bytes = b""


Part = KeyPart | FencePart


@attrs.define
class _Claim:
    """A key, and who wants it dropped."""

    version: int | None
    owners: tuple[int, ...]

    def join(self, index: int, version: int | None) -> None:
        if self.version is not None and (version is None or version > self.version):
            self.version = version
            self.owners = (index, *self.owners)
        else:
            self.owners = (*self.owners, index)


@attrs.define
class _Tally:
    """What became of one event so far."""

    is_old: bool
    keys: int = 0
    entries: int = 0
    fences: int = 0
    failed: Failed | None = None

    def fail(self, failed: Failed) -> None:
        """Take note of a failure. Of several, one that is final is told, else one that burns no attempt."""
        known = self.failed
        if known is None or (failed.is_final, failed.is_away) > (known.is_final, known.is_away):
            self.failed = failed

    def outcome(self) -> Outcome:
        return self.failed or Applied(self.keys, self.entries, self.fences, self.is_old)


class Batch:
    """Some events.

    `db` is meant by those that name none, `databases` is how many there are at most; `latest` the highest version that
    is believed, None any.
    """

    def __init__(self, events: Sequence[Event], *, db: int, latest: int | None = None, databases: int = DB_MAX) -> None:
        self._events = events
        self._db = db
        self._tallies = [_Tally(is_old=bool(event.keys) and not (event.patterns or event.tags)) for event in events]
        for event, tally in zip(events, self._tallies, strict=True):
            if reason := _refusal(event, latest, databases):
                tally.failed = Failed(reason, is_final=True)
        self.parts: list[Part] = self._plan(index for index, tally in enumerate(self._tallies) if not tally.failed)

    def split(self) -> list[Part]:
        """Take apart what has failed for what may be the fault of one event only: a part for each, to be sent instead.

        So an event whose key the user may not touch takes no other along.
        """
        doubtful = {
            part for part in self.parts if (error := error_of(part)) and not is_away(error) and len(part.events) > 1
        }
        indexes = sorted({index for part in doubtful for index in part.events})
        news = [single for index in indexes for single in self._plan((index,))]
        self.parts = [part for part in self.parts if part not in doubtful] + news
        return news

    def outcomes(self) -> list[Outcome]:
        """Return what became of each event, now that every part has its reply."""
        for part in self.parts:
            if error := error_of(part):
                failed = failure_of(error)
                for index in part.events:
                    self._tallies[index].fail(failed)
            elif isinstance(part, KeyPart):
                self._count(part)
            else:
                self._tallies[min(part.events)].entries += part.entries
        for event, tally in zip(self._events, self._tallies, strict=True):
            if event.patterns or event.tags:
                tally.fences = len(set(event.patterns)) + len(set(event.tags))
        return [tally.outcome() for tally in self._tallies]

    def _count(self, part: KeyPart) -> None:
        tallies = self._tallies
        found = part.found
        assert found is not None
        for what, owners, entries in zip(found, part.owners, part.entries or [0] * len(found), strict=True):
            first = tallies[owners[0]]
            first.entries += entries
            if what == _NEWER:
                continue
            first.keys += what == _GONE
            for index in owners:
                tallies[index].is_old = False

    def _plan(self, indexes: Iterable[int]) -> list[Part]:
        keys: dict[int, dict[bytes, _Claim]] = {}
        fences: dict[int, dict[tuple[str, bytes], list[int]]] = {}
        for index in indexes:
            event = self._events[index]
            db = self._db if event.db is None else event.db
            version = event.version
            if event.keys:
                claims = keys.setdefault(db, {})
                for key in event.keys:
                    claim = claims.get(key)
                    if claim is None:
                        claims[key] = _Claim(version, (index,))
                    else:
                        claim.join(index, version)
            if event.patterns or event.tags:
                texts = fences.setdefault(db, {})
                for kind, names in (("glob", event.patterns), ("tag", event.tags)):
                    for name in names:
                        texts.setdefault((kind, name), []).append(index)
        return [*_key_parts(keys), *_fence_parts(fences)]


def error_of(part: Part) -> bytes:
    """Return the error that a part was answered with, b"" for none."""
    is_done = part.found is not None if isinstance(part, KeyPart) else part.reply[:1] == b"$"
    if is_done:
        return b""
    return part.reply if part.reply[:1] in (b"-", b"!") else b"-ERR respite: Redis has not said what became of it\r\n"


def _refusal(event: Event, latest: int | None, databases: int) -> str:
    """Return why an event can never be made true, "" where it can."""
    if latest is not None and event.version is not None and event.version > latest:
        return "its version is more than an hour ahead of the server"
    if event.db is not None and event.db >= databases:
        return OUT_OF_RANGE
    for names in (event.patterns, event.tags):
        for name in names:
            if len(name) > TEXT_MAX_BYTES:
                return f"a glob or a tag has at most {TEXT_MAX_BYTES} bytes"
    for key in event.keys:
        if key.startswith(OWN_KEYS):
            return f"keys that begin with {OWN_KEYS.decode()} are Respite's own records"
    return ""


def _key_parts(keys: dict[int, dict[bytes, _Claim]]) -> Iterator[KeyPart]:
    for db, claims in keys.items():
        left = iter(claims.items())
        while some := list(islice(left, KEYS_A_CALL)):
            yield KeyPart(
                db,
                [key for key, _ in some],
                [claim.version for _, claim in some],
                [claim.owners for _, claim in some],
            )


def _fence_parts(fences: dict[int, dict[tuple[str, bytes], list[int]]]) -> Iterator[FencePart]:
    for db, texts in fences.items():
        left = iter(texts.items())
        while some := list(islice(left, FENCES_A_CALL)):
            part = FencePart(db)
            for (kind, name), indexes in some:
                (part.globs if kind == "glob" else part.tags).append(name)
                part.events.update(indexes)
            yield part
