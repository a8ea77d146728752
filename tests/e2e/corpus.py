"""The corpus of the differential test: the state a case starts from, its samples, the wrong arguments made of them.

A case is one command of the server's own COMMAND list, or a sample of a command that this server lacks: then both
sides answer that they do not know it. Everything is decided by the command list and a seed, nothing by the replies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from . import samples_collections, samples_server, samples_sorted, samples_strings
from .words import Line, Words, words

SETUP: tuple[Line, ...] = (
    "SELECT 0",
    "FLUSHALL",
    "SET str hello",
    "SET str2 yellow",
    "SET num 10",
    "SET big 9223372036854775807",
    "SET flt 3.5",
    "SET empty ''",
    "SET bits '\\xff\\x0f'",
    "SET bin 'a\\x00\\xff\\x0d\\x0a$3\\x0d\\x0ab'",
    "SET exp x",
    "EXPIREAT exp 4102444800",
    "RPUSH list a b c b",
    "SADD iset 1 2 3 4",
    "SADD iset2 3 4 5",
    "SADD one m",
    "ZADD zset 1 a 2 b 3 c",
    "ZADD zset2 5 b 6 c 7 d",
    "ZADD lex 0 a 0 b 0 c",
    "ZADD zone 1 a",
    "HSET hash f v n 5 d 1.5",
    "HSET hash1 f v",
    "PFADD hll a b c",
    "GEOADD geo 12.49 41.90 Roma 9.19 45.46 Milano",
    "XADD stream 1-1 f v",
    "XADD stream 2-1 f v g w",
    "XGROUP CREATE stream grp 0",
)

PROBED_KEYS = ("str", "str2", "num", "flt", "empty", "bits", "bin", "exp", "list", "new", "dest", "a", "b", "copy1")
"""Keys that another connection reads after every command, so that whatever writes them finds them in L1."""

TYPED_KEYS = (b"str", b"num", b"list", b"iset", b"zset", b"hash", b"stream", b"none")

SAMPLES: Mapping[str, tuple[Line, ...]] = {
    **samples_strings.KEYS,
    **samples_strings.STRINGS,
    **samples_strings.BITS,
    **samples_collections.LISTS,
    **samples_collections.SETS,
    **samples_collections.HASHES,
    **samples_sorted.ZSETS,
    **samples_sorted.GEO,
    **samples_sorted.STREAMS,
    **samples_sorted.VECTORS,
    **samples_server.CONNECTION,
    **samples_server.SCRIPTS,
    **samples_server.ADMIN,
    **samples_server.CLUSTER,
}

CONTAINERS = frozenset({"acl", "client", "cluster", "command", "config", "memory", "object", "xinfo"})
"""Commands whose unknown sub-commands are tried."""

UNMUTATED = frozenset({"debug", "failover", "migrate", "replicaof", "shutdown", "slaveof"})
"""Commands whose wrong arguments might do what they say: their samples are all that is sent."""


@attrs.frozen
class Command:
    """What the server's COMMAND says: name (`config|get` for a sub-command), arity, first key (0 = none)."""

    name: str
    arity: int
    first_key: int

    @property
    def spoken(self) -> Words:
        """The words that name it."""
        return tuple(self.name.upper().encode().split(b"|"))


@attrs.frozen
class Case:
    """Commands that run one after another from the state of SETUP."""

    name: str
    commands: tuple[Words, ...]


def build(commands: Mapping[str, Command], *, only_in_flows: frozenset[str]) -> Iterator[Case]:
    """Make the cases for a server; of the commands `only_in_flows`, which change the connection, only arity errors."""
    for name in sorted({*SAMPLES, *commands}):
        command = commands.get(name, Command(name, 0, 0))
        samples = [words(line) for line in SAMPLES.get(name, ())]
        if name.startswith("cluster|") and not samples:
            samples = [command.spoken + (b"1",) * (abs(command.arity) - len(command.spoken))]
        wrong = [] if name in UNMUTATED else [*_bad_arity(command)]
        if name not in UNMUTATED and name not in only_in_flows:
            wrong += [*_bad_words(command, samples)]
        yield Case(name, (*samples, *dict.fromkeys(wrong)))


def _bad_arity(command: Command) -> Iterator[Words]:
    spoken = command.spoken
    for count in range(len(spoken), abs(command.arity)):
        yield spoken + (b"x",) * (count - len(spoken))
    if command.arity > 0:
        yield spoken + (b"x",) * (command.arity + 1 - len(spoken))
    if len(spoken) == 1 and command.name in CONTAINERS:
        yield (spoken[0], b"NOSUCH")
        yield (spoken[0], b"NOSUCH", b"a", b"b")


def _bad_words(command: Command, samples: list[Words]) -> Iterator[Words]:
    own = [sample for sample in samples if _is_call_of(sample, command)]
    first_word = len(command.spoken)
    for sample in own[:2]:
        if len(sample) > first_word:
            yield sample[:-1]
        yield (*sample, b"extra")
        yield (*sample, b"extra", b"more")
        for index in range(first_word, len(sample)):
            yield (*sample[:index], b"notanumber", *sample[index + 1 :])
            yield (*sample[:index], b"", *sample[index + 1 :])
        if 0 < command.first_key < len(sample):
            for key in TYPED_KEYS:
                yield (*sample[: command.first_key], key, *sample[command.first_key + 1 :])
    for sample in own[:1]:
        yield tuple(word.lower() for word in sample[:first_word]) + sample[first_word:]


def _is_call_of(sample: Words, command: Command) -> bool:
    spoken = command.spoken
    return len(sample) > len(spoken) - 1 and tuple(word.upper() for word in sample[: len(spoken)]) == spoken
