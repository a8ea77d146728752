"""What classes mean for commands: what is stored instead of what a client wrote, and what else must happen.

    a write  --rewrite--> sealed values, a TTL by access frequency --> Redis
             --dependents--> what it drops besides, before its reply is given
    a command that looks at bytes --bare_keys--> its keys are unwrapped first (core.plain)
    a key that a fence covers --purge--> what is older than the fence is gone before the command comes to it

Asked by the pipeline only while some class asks for any of this: else nothing here costs anything. What a class says is
`values.rules`', opening is the links' (values.stream).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import attrs

from proxy.core.value_slots import PurgeSlot, judged
from proxy.values.dependencies import Dependents, dependents_of
from proxy.values.dictionary import Dictionaries
from proxy.values.envelope import MAGIC, Header
from proxy.values.fences import Fences
from proxy.values.rules import REMEMBERED_KEY_BYTES, Rules
from proxy.values.scripts import purge
from proxy.values.sealing import Sealer
from proxy.values.stream import Lookalikes, is_sealed
from proxy.values.writes import LIFE_ONLY, asked_ms, parse, rewrite
from proxy.wire.byte_commands import BYTE_COMMANDS, MOVES
from proxy.wire.commands import WHOLE_READS, CommandSpec, Kind
from proxy.wire.encode import command, count, unbulk
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.core.lifetimes import Lifetimes
    from proxy.core.notices import Notices
    from proxy.core.slots import Link

PURGED_MAX: Final = 65_536  # keys remembered that need no second purge; full, the memory begins anew
_CARRIERS: Final = frozenset(
    [b"SET", b"SETEX", b"PSETEX", b"SETNX", b"GETSET", b"MSET", b"MSETNX", b"MSETEX"]
)  # of whole string values

LOOKING: Final = BYTE_COMMANDS.keys() | MOVES
_VALUED: Final = LOOKING | _CARRIERS | {b"GETDEL", b"GETEX"}  # with keys of a class, they need more than to be sent

Invalidate = Callable[[Dependents, int, Callable[[Any], None]], None]
"""(what, database, then): drop it in both tiers; `then` gets a result whose `error` is "" when all is done."""


class Concern(Enum):
    """What is to be done about a command."""

    NONE = 0
    READ = 1  # its reply may hold a value that is damaged, and that is all
    ALL = 2  # what `core.value_commands` says


NONE: Final = Concern.NONE  # to look up a member of an enum takes 0.1 us before Python 3.12
READ: Final = Concern.READ
ALL: Final = Concern.ALL


@attrs.define
class ValueFigures:
    """Counted by one worker since it started."""

    sealed: int = 0
    opened: int = 0
    damaged: int = 0
    purged: int = 0
    unwrapped: int = 0
    dependents: int = 0
    raw_bytes: int = 0  # of what was opened, as clients have it
    stored_bytes: int = 0  # .. and as Redis has it


class Values:
    """The value layer of one worker."""

    def __init__(self, engine: Engine, sealer: Sealer, fences: Fences, lifetimes: Lifetimes) -> None:
        self.engine = engine
        self.sealer = sealer
        self.fences = fences
        self._in_force = fences.versions
        self.lifetimes = lifetimes
        self.writes_envelopes = True  # rollout.write_envelopes
        self.figures = ValueFigures()
        self.lookalikes = Lookalikes()
        self.notices: Notices | None = None  # amqp.publish_changes
        self.invalidate: Invalidate = lambda what, db, then: then(None)
        self.link: Callable[[int], Link | None] = lambda _db: None  # of the proxy's own user, to a database
        self._purged: dict[tuple[int, bytes], int] = {}
        self.take(Rules(()))

    def take(self, rules: Rules) -> None:
        """Follow these classes from now on."""
        self.rules = rules
        self._find = rules.find

    @property
    def dictionaries(self) -> Dictionaries:
        """The dictionaries that values are compressed with."""
        return self.sealer.dictionaries

    def concern(self, spec: CommandSpec, args: Sequence[bytes]) -> Concern:
        """Return what is to be done about a command: the keys of a class, or a value that looks like an envelope."""
        name = spec.name
        if name == b"GET" and len(args) == 2:
            rules = self._find(bytes(args[1]))
            if rules is None:
                return NONE
            return ALL if self._in_force or rules.does_more else READ
        finder = spec.every_key
        if finder is None:
            return NONE
        find, is_of_class, does_more = self._find, False, bool(self._in_force)
        for key in finder(args):
            rules = find(bytes(key))
            if rules is not None:
                is_of_class = True
                does_more = does_more or rules.does_more
        if name in _CARRIERS and any(arg[:4] == MAGIC for arg in args[2:]):
            return ALL
        if not is_of_class:
            return NONE
        if does_more or name in _VALUED or spec.kind is Kind.SCRIPT:
            return ALL
        return READ if spec.kind in WHOLE_READS else NONE

    def send_write(self, sent: list[Raw], spec: CommandSpec, args: list[bytes], raw: Raw, *, in_effect: bool) -> bool:
        """Append to `sent` what a write is sent as, if that is all to be done; in pieces, to be joined with the rest.

        False: it is not, see `core.value_commands`. The short way of the hot path for a SET of a key and a value;
        what it stores is what `rewrite` would store.
        """
        if spec.name != b"SET" or len(args) != 3:
            if self.concern(spec, args) is ALL:
                return False
            sent.append(raw)
            return True
        key, value = args[1], args[2]
        if key.__class__ is not bytes or value.__class__ is not bytes:  # asked first: two calls of bytes() cost 0.1 us
            key, value = bytes(key), bytes(value)
        rules = self._find(key)
        if rules is None:
            if value[:4] != MAGIC:
                sent.append(raw)
                return True
        elif self._in_force or rules.does_more:
            return False
        parts = self.sealer.parts(rules, value, self.engine.now, envelopes=in_effect and self.writes_envelopes)
        if parts is None:
            sent.append(raw)
            return True
        self.figures.sealed += 1
        head, body = parts
        size = len(head) + len(body)
        sent += b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b" % (len(key), key, size, head), body, b"\r\n"
        return True

    def bare_keys(self, spec: CommandSpec, args: Sequence[bytes], *, moved: bool = False) -> list[bytes]:
        """Return the keys of a command that must hold plain values when it runs.

        `moved`: also those whose value is carried to another key that may hold an envelope.
        """
        name = spec.name
        if name not in LOOKING and spec.kind is not Kind.SCRIPT:
            return []
        finder = BYTE_COMMANDS.get(name)
        if finder is not None:
            keys = finder(args)
        elif spec.kind is Kind.SCRIPT and spec.every_key is not None:
            keys = spec.every_key(args)
        elif len(args) > 2:  # one that moves a value
            to = self._find(bytes(args[2]))
            keys = args[1:2] if moved or to is None or not to.has_envelope else ()
        else:
            return []
        return list(dict.fromkeys(key for key in map(bytes, keys) if self.has_envelope(key)))

    def has_envelope(self, key: bytes) -> bool:
        """Return whether values of a key are wrapped."""
        rules = self._find(key)
        return rules is not None and rules.has_envelope

    def rewrite(
        self,
        spec: CommandSpec,
        args: list[bytes],
        raw: Raw,
        now: float,
        *,
        in_effect: bool,
        sealed: dict[bytes, tuple[bytes, bytes]] | None = None,
    ) -> Raw:
        """Return what is sent instead of a write: its values sealed, its TTL as the class has it.

        `in_effect`: whether the client's connection is one for which classes have an effect; for another one, only what
        would be taken for an envelope is put into one. `sealed` gets what was: key -> (what is stored, the value).
        """
        write = parse(spec.name, args)
        if write is None:
            return raw
        envelopes = in_effect and self.writes_envelopes
        values: dict[int, bytes] = {}
        for key, at in zip(write.keys, write.value_at, strict=False):
            value = bytes(args[at])
            stored = self.sealer.seal(self._find(key), value, now, envelopes=envelopes)
            if stored is not value:
                values[at] = stored
                if sealed is not None:
                    sealed[key] = stored, value
        ttl_ms: int | None = None
        now_ms = self.sealer.clock.now_ms()
        rules = self._find(write.keys[0]) if in_effect else None
        if rules is not None and rules.has_ttl:
            if write.is_read:
                self.lifetimes.count(write.keys[0], now)
            if (
                not write.keep_ttl
                and (write.ttl_at or write.value_at)
                and all(self._find(key) is rules for key in write.keys[1:])  # one TTL for all of them
            ):
                asked = asked_ms(write, args, now_ms)
                ttl_ms = self.lifetimes.decide_for(rules, write.keys[0], asked, now).ttl_ms
        if not values and ttl_ms is None:
            return raw
        self.figures.sealed += len(values)
        return command(*rewrite(write, args, values, ttl_ms, now_ms))

    def dependents(self, spec: CommandSpec, args: Sequence[bytes]) -> Dependents | None:
        """Return what a write drops besides its own keys, None when nothing."""
        if not self.rules.has_dependencies or spec.keys is None:
            return None
        if spec.name in LIFE_ONLY and not self._ends(spec, args):
            return None
        found: Dependents | None = None
        for key in map(bytes, spec.keys(args)):
            found = union(found, self.dependents_of(key))
        return found

    def dropped(self, spec: CommandSpec, args: Sequence[bytes], db: int) -> dict[int, Dependents]:
        """Return what a write of a session in a database drops besides its own keys, by database."""
        found = self.dependents(spec, args)
        return {} if found is None else dict.fromkeys(_written_in(spec.name, args, db), found)

    def _ends(self, spec: CommandSpec, args: Sequence[bytes]) -> bool:
        """Return whether a command that says how long a key lives deletes it: its moment has passed, or may have."""
        write = parse(spec.name, args)
        if write is None or not write.ttl_at:
            return False
        asked = asked_ms(write._replace(keep_ttl=False), args, self.sealer.clock.now_ms())
        return asked is not None and asked <= 0

    def dependents_of(self, key: bytes) -> Dependents | None:
        """Return what a write of a key drops besides, None when nothing."""
        rules = self._find(key)
        return dependents_of(rules, key) if rules is not None and rules.invalidates else None

    def purge(self, link: Link, keys: Sequence[bytes], db: int) -> bool:
        """Have Redis drop, ahead of what is submitted next, what fences say is gone of these keys.

        Returns whether there is anything to be dropped.
        """
        if not len(self.fences):
            return False
        due: list[tuple[bytes, int]] = []
        for key in keys:
            version = self.fences.version_over(db, key, self._find(key))
            if version and self._purged.get((db, key), 0) < version:
                due.append((key, version))
        if due:
            link.submit(purge(due), PurgeSlot(self, due, db))
        return bool(due)

    def purged(self, versions: Sequence[tuple[bytes, int]], db: int, gone: int) -> None:
        """Remember that Redis has dropped `gone` of them: what is written from now on is newer."""
        self.figures.purged += gone
        if len(self._purged) + len(versions) > PURGED_MAX:
            self._purged.clear()
        for key, version in versions:
            if len(key) <= REMEMBERED_KEY_BYTES:  # clients must not choose how much memory is taken
                self._purged[db, key] = version

    def forget_purged(self) -> None:
        """Purge again what comes: the server may be another one, or may have gone back."""
        self._purged.clear()

    def opened(self, header: Header, stored_bytes: int) -> None:
        """Take note of a value that a link has opened."""
        figures = self.figures
        figures.opened += 1
        figures.stored_bytes += stored_bytes
        figures.raw_bytes += header.raw_length
        if header.version:
            self.sealer.clock.observe(header.version)

    @property
    def looks_at_reads(self) -> bool:
        """Whether `before_read` may have something to do."""
        return len(self.fences) > 0 or self.rules.has_ttl

    def before_read(self, link: Link, keys: Sequence[bytes], db: int) -> None:
        """Count a read that L1 does not answer; have Redis drop first what fences say is gone."""
        if len(self.fences):
            self.purge(link, keys, db)
        if self.rules.has_ttl:
            for key in keys:
                rules = self._find(key)
                if rules is not None and rules.has_ttl:
                    self.lifetimes.count(key, self.engine.now)

    def judge(self, key: bytes, frame: bytes) -> bytes:
        """Return what is handed out of a key (as a bulk string): its value's frame, or the error for a damaged one."""
        return judged(self, unbulk(key), frame) if is_sealed(frame) else frame


def _written_in(name: bytes, args: Sequence[bytes], db: int) -> Iterator[int]:
    """Yield the databases in which a command changes keys. Source: Redis documentation, COPY and MOVE."""
    to: int | None = None
    if name == b"MOVE" and len(args) > 2:
        to = count(bytes(args[2]))
    elif name == b"COPY":
        options = [bytes(word).upper() for word in args[3:]]
        to = count(options[options.index(b"DB") + 1]) if b"DB" in options[:-1] else None
    if to is None or name == b"MOVE":
        yield db
    if to is not None:
        yield to


def union(one: Dependents | None, other: Dependents | None) -> Dependents | None:
    """Return what both name."""
    if one is None or other is None:
        return one or other
    return Dependents(
        tuple(dict.fromkeys(one.keys + other.keys)),
        tuple(dict.fromkeys(one.globs + other.globs)),
        tuple(dict.fromkeys(one.tags + other.tags)),
    )
