"""The command table: what each command is, which keys it writes, and where it may travel.

Arity, flags and key positions come from the upstream's own COMMAND reply (modules and new versions included); the
refinements add what no server says: which commands change the state of their connection. Nothing here looks at a
session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

import attrs

from proxy.wire.reads import FIELD_EXPIRY, READS, CachedRead

KeyFinder = Callable[[Sequence[bytes]], Sequence[bytes]]
"""From the words of a command to the keys it may write."""


class Kind(IntEnum):
    """Where a command goes. The order is that of the checks on the hot path: the common ones first."""

    READ = 0  # shared link, changes nothing
    WRITE = 1  # shared link, changes the keys its finder names
    GET = 2  # may be answered from L1
    MGET = 3
    CACHED = 4  # may be answered from L1: what else the allow-list names (wire.reads)
    WRITE_ALL = 5  # shared link, may change any key
    FIELD_EXPIRY = 6  # a write that may let fields of a hash expire by themselves
    SESSION = 7  # HELLO AUTH SELECT CLIENT RESET QUIT: the session's own
    RESPITE = 8
    ONCE = 9  # a pinned link for this one command: it may hang behind what it is meant to end, or push
    BLOCKING = 10  # a pinned link until the reply, however long
    MULTI = 11  # a pinned link until EXEC or DISCARD
    WATCH = 12
    SUBSCRIBE = 13  # a pinned link until the last subscription ends
    STICKY = 14  # a pinned link until RESET or the end
    STREAM = 15  # MONITOR, PSYNC: a pinned link, bytes forwarded as they are, until the end
    UNKNOWN = 16  # not in the table
    SCRIPT = 17  # a pinned link while replies are owed: behind a script that does not end, only BUSY must wait
    FORBIDDEN = 18  # POST, Host: a browser was made to talk to us; Redis closes the connection without a word
    DENIED = 19  # nowhere: those who asked for it may not run it here


READ_KINDS: Final = (Kind.GET, Kind.MGET, Kind.CACHED)  # may be answered from L1
WHOLE_READS: Final = (Kind.GET, Kind.MGET)  # .. and their replies are values, whole

# What goes upstream together: commands of one lane that follow each other are sent, and answered, in one piece.
# Plain numbers: compared for every command, and before Python 3.12 it takes 0.1 us to look up a member of an enum.
LANE_NONE: Final = 0  # none of these: dealt with one by one
LANE_READ: Final = 1
LANE_EFFECT: Final = 2  # writes that name no keys
LANE_WRITE: Final = 3  # writes of named keys
LANE_CACHED: Final = 4  # reads that L1 may answer
LANE_FALLBACK: Final = 5  # writes of named keys that may be taken in memory (core.outage.fallbacks says which)
_LANES: Final = {Kind.WRITE: LANE_WRITE, Kind.GET: LANE_CACHED, Kind.MGET: LANE_CACHED, Kind.CACHED: LANE_CACHED}


@attrs.frozen(slots=True)
class CommandSpec:
    """One command (or subcommand). `keys` is None when it writes no key that can be named."""

    name: bytes
    kind: Kind
    arity: int = -1
    is_write: bool = False  # its effect may have been applied although no reply came
    blocks_if: bytes = b""  # it blocks only when this word is among its arguments
    keys: KeyFinder | None = None
    every_key: KeyFinder | None = None  # what it reads, too; None when it names no key
    read: CachedRead | None = None  # how L1 keeps its replies, None where it does not
    categories: frozenset[bytes] | None = None  # as the server tells them, without @; None where it does not
    subcommands: Mapping[bytes, CommandSpec] = attrs.field(factory=dict)
    lane: int = attrs.field(init=False)

    @lane.default
    def _lane(self) -> int:
        if self.kind is Kind.READ:
            return LANE_EFFECT if self.is_write else LANE_READ
        return _LANES.get(self.kind, LANE_NONE)

    @property
    def may_write_undeclared(self) -> bool:
        """Return whether it may write keys that it does not name: a script."""
        return self.kind is Kind.SCRIPT and self.is_write

    def may_block(self, args: Sequence[bytes]) -> bool:
        """Return whether the word that makes it block is among its arguments, in any case."""
        word = self.blocks_if
        return any(len(arg) == len(word) and bytes(arg).upper() == word for arg in args)


def _first_argument(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:2]


def _every_argument(args: Sequence[bytes]) -> Sequence[bytes]:
    return args[1:]


_REFINED: Final[Mapping[bytes, Kind]] = {
    **dict.fromkeys((b"HELLO", b"AUTH", b"SELECT", b"CLIENT", b"RESET", b"QUIT"), Kind.SESSION),
    **dict.fromkeys((b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"), Kind.SUBSCRIBE),
    **dict.fromkeys((b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"), Kind.SUBSCRIBE),
    **dict.fromkeys((b"BLPOP", b"BRPOP", b"BLMOVE", b"BRPOPLPUSH", b"BZPOPMIN", b"BZPOPMAX"), Kind.BLOCKING),
    **dict.fromkeys((b"BLMPOP", b"BZMPOP", b"WAIT", b"WAITAOF"), Kind.BLOCKING),
    **dict.fromkeys((b"MONITOR", b"SYNC", b"PSYNC"), Kind.STREAM),
    **dict.fromkeys((b"READONLY", b"READWRITE", b"ASKING", b"REPLCONF"), Kind.STICKY),
    **dict.fromkeys((b"FLUSHALL", b"FLUSHDB", b"SWAPDB"), Kind.WRITE_ALL),
    **dict.fromkeys((b"DEBUG", b"SHUTDOWN", b"FAILOVER"), Kind.ONCE),
    **dict.fromkeys((b"POST", b"HOST:"), Kind.FORBIDDEN),
    **dict.fromkeys((b"EVAL", b"EVALSHA", b"FCALL", b"EVAL_RO", b"EVALSHA_RO", b"FCALL_RO"), Kind.SCRIPT),
    b"MULTI": Kind.MULTI,
    b"WATCH": Kind.WATCH,
    b"GET": Kind.GET,
    b"MGET": Kind.MGET,
    b"RESPITE": Kind.RESPITE,
}
_REFINED_SUBCOMMANDS: Final[Mapping[bytes, Kind]] = {
    b"SCRIPT|KILL": Kind.ONCE,  # on a shared link it would wait behind the script it is to kill
    b"FUNCTION|KILL": Kind.ONCE,
    b"SCRIPT|DEBUG": Kind.STICKY,
    b"ACL|SETUSER": Kind.WRITE_ALL,  # what a user may read has changed: L1 starts again
    b"ACL|DELUSER": Kind.WRITE_ALL,
    b"ACL|LOAD": Kind.WRITE_ALL,
    b"CONFIG|SET": Kind.WRITE_ALL,
}
_SCRIPTS: Final = frozenset([b"EVAL", b"EVALSHA", b"FCALL"])  # their key specs say which, no flag says that they write
_PUBLISHES: Final = frozenset([b"PUBLISH", b"SPUBLISH"])  # no flag says that repeating them would do harm
_BLOCKS_IF: Final = {b"XREAD": b"BLOCK", b"XREADGROUP": b"BLOCK"}
_WRITE_FLAGS: Final = frozenset(["RW", "OW", "RM"])
UNKNOWN: Final = CommandSpec(b"", Kind.UNKNOWN, is_write=True, keys=_every_argument)


class CommandTable:
    """Look commands up by the words a client sent, in any case."""

    __slots__ = ("_specs", "by_word", "refused", "unknown")

    CACHED_WORDS: Final = 4096  # spellings remembered; clients use a handful

    def __init__(self, specs: Iterable[CommandSpec], refused: Mapping[str, str] | None = None) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self.refused = refused or {}  # commands that were to be cached and cannot be -> why
        self.unknown = UNKNOWN  # what `find` returns where there is none
        self.by_word: dict[bytes, CommandSpec] = {}  # as clients spell them; none that has subcommands

    def __len__(self) -> int:
        return len(self._specs)

    def find(self, args: Sequence[bytes]) -> CommandSpec:
        """Return the spec of a command, or of its subcommand where it has some; `unknown` when there is none."""
        word = bytes(args[0])
        spec = self.by_word.get(word)
        if spec is not None:
            return spec
        spec = self._specs.get(word.upper())
        if spec is None:
            return self.unknown
        if spec.subcommands:
            return spec.subcommands.get(bytes(args[1]).upper(), spec) if len(args) > 1 else spec
        if len(self.by_word) < self.CACHED_WORDS:
            self.by_word[word] = spec
        return spec

    @classmethod
    def builtin(cls) -> CommandTable:
        """Return what is known with no upstream: enough to keep a shared link clean until COMMAND has answered."""
        specs = [CommandSpec(name, kind, keys=_every_argument) for name, kind in _REFINED.items()]
        return cls([*specs, CommandSpec(b"EXEC", Kind.READ), CommandSpec(b"DISCARD", Kind.READ)])

    @classmethod
    def from_reply(cls, rows: Sequence[Sequence[Any]], also_cached: Iterable[str] = ()) -> CommandTable:
        """Build from a decoded COMMAND reply (RESP2 or RESP3, six columns or ten).

        `also_cached` names reads of modules that L1 may keep; those that are no reads of single keys are `refused`.
        Source: Redis documentation, COMMAND.
        """
        specs = {spec.name: spec for spec in map(_from_row, rows)}
        refused = {}
        by_name = {_bytes(row[0]).upper(): row for row in rows}
        for wanted in also_cached:
            name = wanted.upper().encode()
            found = _module_read(by_name.get(name))
            if isinstance(found, str):
                refused[wanted] = found
            else:
                specs[name] = attrs.evolve(specs[name], kind=Kind.CACHED, read=found)
        for name, kind in _REFINED_SUBCOMMANDS.items():  # six columns say nothing about subcommands
            parent, _, word = name.partition(b"|")
            spec = specs.get(parent)
            if spec is not None and word not in spec.subcommands:
                subcommand = attrs.evolve(spec, name=name, kind=kind, subcommands={})
                specs[parent] = attrs.evolve(spec, subcommands={**spec.subcommands, word: subcommand})
        specs[b"RESPITE"] = CommandSpec(b"RESPITE", Kind.RESPITE)
        for name, kind in _REFINED.items():
            if kind in (
                Kind.SESSION,
                Kind.STREAM,
                Kind.FORBIDDEN,
            ):  # a renamed or hidden one is still dangerous on a shared link
                specs.setdefault(name, CommandSpec(name, kind))
        return cls(specs.values(), refused)

    def __iter__(self) -> Iterator[CommandSpec]:
        return iter(self._specs.values())


def _module_read(row: Sequence[Any] | None) -> CachedRead | str:
    """Return how L1 may keep the replies of a command it does not know, or why it may not."""
    if row is None:
        return "the server has no such command"
    if "readonly" not in {_text(flag) for flag in row[2]}:
        return "the server does not call it a read"
    first, last, step = int(row[3]), int(row[4]), int(row[5])
    if first != 1 or (last != 1 and step != 1):
        return "its keys are not its first arguments"
    if last == 1:
        return CachedRead()
    return CachedRead(join="list", tail=max(0, -last - 1)) if last < 0 else "it has several keys"


def _from_row(row: Sequence[Any]) -> CommandSpec:
    name = _bytes(row[0]).upper()
    flags = {_text(flag) for flag in row[2]}
    subcommands = {spec.name.partition(b"|")[2]: spec for spec in map(_from_row, row[9])} if len(row) > 9 else {}
    if _REFINED.get(name) is Kind.SESSION:
        subcommands = {word: attrs.evolve(spec, kind=Kind.SESSION) for word, spec in subcommands.items()}
    finder = _finder(row, flags)
    every = _finder(row, flags | {"write"}, reads_too=True)
    writes = bool(flags & {"write", "may_replicate"}) or name in _SCRIPTS or name in _PUBLISHES
    return CommandSpec(
        name=name,
        kind=_kind(name, flags, finder),
        arity=int(row[1]),
        read=READS.get(name),
        is_write=writes,
        blocks_if=_BLOCKS_IF.get(name, b""),
        keys=finder,
        every_key=every,
        subcommands=subcommands,
        categories=frozenset(_bytes(word).lstrip(b"@").lower() for word in row[6]) if len(row) > 6 else None,
    )


def _kind(name: bytes, flags: set[str], finder: KeyFinder | None) -> Kind:
    refined = _REFINED.get(name) or _REFINED_SUBCOMMANDS.get(name)
    if refined is not None:
        return refined
    if "blocking" in flags and name not in _BLOCKS_IF:
        return Kind.BLOCKING
    if name in READS:
        return Kind.CACHED
    if finder is not None:
        return Kind.FIELD_EXPIRY if name in FIELD_EXPIRY else Kind.WRITE
    if "write" in flags and not name.startswith(b"FUNCTION|"):
        return Kind.WRITE_ALL
    return Kind.READ


def _finder(row: Sequence[Any], flags: set[str], *, reads_too: bool = False) -> KeyFinder | None:
    """Return how to find the keys this command may write, or names at all; None when it names none."""
    name = _bytes(row[0]).upper()
    may_write = bool(flags & {"write", "may_replicate"}) or name in _SCRIPTS
    if len(row) > 8:
        specs = [_mapping(spec) for spec in row[8]]
        writing = [spec for spec in specs if _WRITE_FLAGS & {_text(flag) for flag in spec.get("flags", ())}]
        specs = (writing if not reads_too else []) or (
            specs if may_write else []
        )  # XREADGROUP writes, and its keys are called read-only
        if not specs:
            return None
        finders = [_spec_finder(spec) for spec in specs]
        if any(finder is None for finder in finders):
            return _every_argument
        known = [finder for finder in finders if finder is not None]
        return known[0] if len(known) == 1 else lambda args: [key for finder in known for key in finder(args)]
    if not may_write:
        return None
    first, last, step = int(row[3]), int(row[4]), int(row[5])
    if "movablekeys" in flags or (first and step < 1):  # a step to nowhere: whatever it means, no key is to be missed
        return _every_argument
    return _range(first, last - first if last >= 0 else last, step, 0) if first else None


def _spec_finder(spec: Mapping[str, Any]) -> KeyFinder | None:
    """Return the finder of one key specification; None where the server says it is incomplete.

    Source: Redis documentation, key specifications.
    """
    begin, find = _mapping(spec["begin_search"]), _mapping(spec["find_keys"])
    begin_spec, find_spec = _mapping(begin.get("spec", ())), _mapping(find.get("spec", ()))
    flags = {_text(flag) for flag in spec.get("flags", ())}
    begin_type, find_type = _text(begin["type"]), _text(find["type"])
    if "incomplete" in flags or "unknown" in (begin_type, find_type):
        return None
    if int(find_spec.get("keystep", 1)) < 1:
        return None
    if begin_type == "index" and find_type == "range":
        index = int(begin_spec["index"])
        return _range(index, int(find_spec["lastkey"]), int(find_spec["keystep"]), int(find_spec["limit"]))
    locate = _locator(begin_type, begin_spec)
    if find_type == "range":
        last, step, limit = int(find_spec["lastkey"]), int(find_spec["keystep"]), int(find_spec["limit"])
        if begin_type == "keyword" and last == 0 and int(begin_spec["startfrom"]) > 0:
            return _behind_each(_bytes(begin_spec["keyword"]).upper(), int(begin_spec["startfrom"]))

        def by_range(args: Sequence[bytes]) -> Sequence[bytes]:
            at = locate(args)
            return _range(at, last, step, limit)(args) if at else ()

        return by_range
    number_at, first, step = int(find_spec["keynumidx"]), int(find_spec["firstkey"]), int(find_spec["keystep"])

    def by_number(args: Sequence[bytes]) -> Sequence[bytes]:
        at = locate(args)
        try:
            count = int(bytes(args[at + number_at])) if at else 0
        except (ValueError, IndexError):
            return ()  # Redis will refuse it
        return args[at + first : at + first + max(count, 0) * step : step]

    return by_number


def _locator(kind: str, spec: Mapping[str, Any]) -> Callable[[Sequence[bytes]], int]:
    if kind == "index":
        index = int(spec["index"])
        return lambda args: index if index < len(args) else 0
    keyword, start = _bytes(spec["keyword"]).upper(), int(spec["startfrom"])

    def by_keyword(args: Sequence[bytes]) -> int:
        places = range(start, len(args)) if start > 0 else range(len(args) + start, 0, -1)
        return next((at + 1 for at in places if at < len(args) and bytes(args[at]).upper() == keyword), 0)

    return by_keyword


def _behind_each(keyword: bytes, start: int) -> KeyFinder:
    """Return a finder of the word behind each `keyword`: of GEORADIUS .. STORE a STORE b, Redis writes the last."""

    def behind_each(args: Sequence[bytes]) -> Sequence[bytes]:
        return [args[at + 1] for at in range(start, len(args) - 1) if bytes(args[at]).upper() == keyword]

    return behind_each


def _range(first: int, last: int, step: int, limit: int) -> KeyFinder:
    """Return a finder of every `step`-th word from `first`; `last` counts from `first`, below 0 from the end."""
    if first == 1 and last == 0:
        return _first_argument

    def by_range(args: Sequence[bytes]) -> Sequence[bytes]:
        if last >= 0:
            return args[first : first + last + 1 : step]
        end = len(args) + last + 1
        if limit > 1:
            end = first + (end - first) // limit
        return args[first:end:step]

    return by_range


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a RESP3 map, or RESP2's flat list, with text keys."""
    pairs = value.items() if isinstance(value, dict) else zip(value[::2], value[1::2], strict=True)
    return {_text(key): item for key, item in pairs}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
