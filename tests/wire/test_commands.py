"""The command table: what the server says about its commands, and which keys a command may write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import hiredis
import pytest

from proxy.wire.commands import CommandSpec, CommandTable, Kind

from ..e2e.corpus import SAMPLES
from ..e2e.raw import RawClient
from ..e2e.servers import MissingServerError, Server, find_kind
from ..e2e.words import words

WRITTEN = {b"RW", b"OW", b"RM"}
MAY_NAME_MORE = {
    b"SORT": "where STORE stands is not said: every argument",
    b"MIGRATE": "its keys are described incompletely: every argument",
    b"BITFIELD": "whether it writes depends on its arguments",
    b"XREADGROUP": "it changes its consumer group, though its keys are called read-only",
    b"EVAL": "a number of keys that is wrong, which the server refuses",
}
BLOCKING = {
    *("BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "WAIT"),
}

REDIS_6: list[list[Any]] = [
    [b"get", 2, [b"readonly", b"fast"], 1, 1, 1],
    [b"set", -3, [b"write", b"denyoom"], 1, 1, 1],
    [b"mset", -3, [b"write", b"denyoom"], 1, -1, 2],
    [b"del", -2, [b"write"], 1, -1, 1],
    [b"rename", 3, [b"write"], 1, 2, 1],
    [b"bitop", -4, [b"write", b"denyoom"], 2, -1, 1],
    [b"zunionstore", -4, [b"write", b"denyoom", b"movablekeys"], 1, 1, 1],
    [b"eval", -3, [b"noscript", b"movablekeys"], 0, 0, 0],
    [b"xread", -4, [b"readonly", b"movablekeys"], 1, 1, 1],
    [b"xgroup", -2, [b"write", b"denyoom"], 2, 2, 1],
    [b"flushall", -1, [b"write"], 0, 0, 0],
    [b"publish", 3, [b"pubsub", b"fast", b"may_replicate"], 0, 0, 0],
    [b"blpop", -3, [b"write", b"noscript"], 1, -2, 1],
    [b"script", -2, [b"noscript", b"may_replicate"], 0, 0, 0],
    [b"acl", -2, [b"admin"], 0, 0, 0],
    [b"ping", -1, [b"stale", b"fast"], 0, 0, 0],
    [b"module.pop", -2, [b"write", b"blocking"], 1, 1, 1],
]


def decode(frame: bytes) -> Any:
    """Decode a reply; an error comes as an exception object."""
    reader = hiredis.Reader()
    reader.feed(frame)
    return reader.gets()


def rows_of(client: RawClient, protocol: int) -> list[list[Any]]:
    """Ask for COMMAND in a protocol."""
    client.command("HELLO", protocol)
    rows: list[list[Any]] = decode(client.command("COMMAND"))
    return rows


@pytest.fixture(scope="module")
def table(server: Server) -> CommandTable:
    """Build the table of a real server."""
    with server.connect() as client:
        return CommandTable.from_reply(rows_of(client, 2))


@pytest.fixture(scope="module")
def flags(server: Server) -> dict[str, set[str]]:
    """Collect the flags of every command and subcommand of a real server."""
    with server.connect() as client:
        return dict(_flags(rows_of(client, 2)))


def _flags(rows: list[list[Any]]) -> Iterator[tuple[str, set[str]]]:
    for row in rows:
        yield row[0].decode().upper(), {flag.decode() if isinstance(flag, bytes) else str(flag) for flag in row[2]}
        yield from _flags(row[9])


def find(table: CommandTable, line: str) -> CommandSpec:
    """Look up the command of a line."""
    return table.find(line.encode().split())


def keys(table: CommandTable, line: str) -> list[bytes]:
    """List the keys that a line may write."""
    args = words(line)
    spec = table.find(args)
    return list(spec.keys(args)) if spec.keys else []


def test_table_both_protocols_say_the_same(server: Server, table: CommandTable) -> None:
    """RESP3's maps and sets, and RESP2's flat lists, give the same commands, kinds and keys."""
    with server.connect() as client:
        other = CommandTable.from_reply(rows_of(client, 3))

    assert len(table) == len(other) > 200
    for lines in SAMPLES.values():
        for line in lines:
            args = words(line)
            one, two = table.find(args), other.find(args)
            assert (one.name, one.kind, one.arity, one.is_write) == (two.name, two.kind, two.arity, two.is_write)
            assert (one.keys and list(one.keys(args))) == (two.keys and list(two.keys(args))), args


def test_table_written_keys_are_those_the_server_names(server: Server, table: CommandTable) -> None:
    """For every sample of every command, what the server calls written is found; more only where it says too little."""
    compared = 0
    with server.connect() as client:
        for lines in SAMPLES.values():
            for line in lines:
                args = words(line)
                named = decode(client.command("COMMAND", "GETKEYSANDFLAGS", *args))
                if not isinstance(named, list):
                    continue
                compared += 1
                expected = [key for key, how in named if WRITTEN & set(how)]
                spec = table.find(args)
                found = list(spec.keys(args)) if spec.keys else []
                if spec.name in MAY_NAME_MORE:
                    assert set(expected) <= set(found), args
                else:
                    assert sorted(expected) == sorted(found), args
    assert compared > 700


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET k", b""),
        ("SET k v EX 10", b"k"),
        ("set k v", b"k"),
        ("DEL a b c", b"a b c"),
        ("MSET a 1 b 2 c 3", b"a b c"),
        ("MSETNX a 1 b 2", b"a b"),
        ("RENAME a b", b"a b"),
        ("COPY a b", b"b"),
        ("LMOVE a b LEFT RIGHT", b"a b"),
        ("BITOP AND d a b", b"d"),
        ("SINTERSTORE d a b", b"d"),
        ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", b"d"),
        ("ZRANGESTORE d s 0 -1", b"d"),
        ("LMPOP 2 a b LEFT COUNT 3", b"a b"),
        ("ZMPOP 3 a b c MIN", b"a b c"),
        ("BLMPOP 0 2 a b LEFT", b"a b"),
        ("BLPOP a b 0", b"a b"),
        ("EVAL s 2 a b c d", b"a b"),
        ("EVALSHA s 1 a b", b"a"),
        ("EVAL s 0 a b", b""),
        ("EVAL s x a b", b""),
        ("EVAL s -1 a b", b""),
        ("EVAL s 99999999999999999999 a b", b"a b"),
        ("EVAL s", b""),
        ("FCALL f 2 a b c", b"a b"),
        ("EVAL_RO s 1 a", b""),
        ("XADD s * f v", b"s"),
        ("XREADGROUP GROUP g c COUNT 1 STREAMS a b > >", b"a b"),
        ("XREADGROUP GROUP g c streams a >", b"a"),
        ("XREADGROUP GROUP g c", b""),
        ("XREAD STREAMS a 0", b""),
        ("XGROUP CREATE s g 0", b"s"),
        ("XGROUP HELP", b""),
        ("GEORADIUS g 1 1 10 m STORE d", b"g d"),
        ("GEORADIUS g 1 1 10 m STOREDIST d", b"g d"),
        ("GEOSEARCHSTORE d g FROMMEMBER m BYRADIUS 1 m", b"d"),
        ("PFCOUNT a b", b"a b"),
        ("PFMERGE d a", b"d"),
        ("SMOVE a b m", b"a b"),
        ("OBJECT ENCODING k", b""),
        ("PUBLISH c m", b""),
        ("FLUSHALL", b""),
        ("SET", b""),
    ],
)
def test_table_finds_the_keys_a_command_may_write(table: CommandTable, line: str, expected: bytes) -> None:
    """Keys are found wherever they stand: at an index, in steps, behind a count, behind a word, from the end."""
    found = keys(table, line)

    if line.startswith("GEORADIUS "):  # the server calls the source read-only; naming it too does no harm
        assert {b"d"} <= set(found) <= {b"g", b"d"}
    else:
        assert expected.split() == found


@pytest.mark.parametrize(
    "line", ["GEORADIUS g 1 1 10 m STORE a STORE d", "GEORADIUS g 1 1 1 m STORE a store b STORE d"]
)
def test_table_finds_a_key_behind_each_word_that_is_repeated(table: CommandTable, line: str) -> None:
    """Redis takes the last STORE, and says nothing of the others."""
    assert {b"a", b"d"} <= set(keys(table, line))


@pytest.mark.parametrize(
    "line", ["SORT l BY w GET o STORE d", "sort l store d", "MIGRATE h 1 k 0 10", "MIGRATE h 1 '' 0 10 KEYS k d"]
)
def test_table_incomplete_description_names_every_argument(table: CommandTable, line: str) -> None:
    """Where the server does not say which words are keys, each word is taken for one."""
    assert list(words(line)[1:]) == keys(table, line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET k", Kind.GET),
        ("gEt k", Kind.GET),
        ("MGET a b", Kind.MGET),
        ("STRLEN k", Kind.CACHED),
        ("EXEC", Kind.READ),
        ("SET k v", Kind.WRITE),
        ("XGROUP CREATE s g 0", Kind.WRITE),
        ("XGROUP HELP", Kind.READ),
        ("XINFO STREAM s", Kind.READ),
        ("EVAL s 0", Kind.SCRIPT),
        ("fcall_ro f 0", Kind.SCRIPT),
        ("FLUSHDB", Kind.WRITE_ALL),
        ("SWAPDB 0 1", Kind.WRITE_ALL),
        ("CONFIG SET a b", Kind.WRITE_ALL),
        ("config set a b", Kind.WRITE_ALL),
        ("CONFIG GET a", Kind.READ),
        ("CONFIG", Kind.READ),
        ("CONFIG NOSUCH", Kind.READ),
        ("ACL SETUSER u", Kind.WRITE_ALL),
        ("ACL WHOAMI", Kind.READ),
        ("FUNCTION LOAD x", Kind.READ),
        ("FUNCTION KILL", Kind.ONCE),
        ("SCRIPT KILL", Kind.ONCE),
        ("SCRIPT LOAD x", Kind.READ),
        ("SCRIPT DEBUG YES", Kind.STICKY),
        ("HELLO 3", Kind.SESSION),
        ("CLIENT ID", Kind.SESSION),
        ("CLIENT LIST", Kind.SESSION),
        ("CLIENT NOSUCH", Kind.SESSION),
        ("QUIT", Kind.SESSION),
        ("MULTI", Kind.MULTI),
        ("WATCH k", Kind.WATCH),
        ("SUBSCRIBE c", Kind.SUBSCRIBE),
        ("SUNSUBSCRIBE", Kind.SUBSCRIBE),
        ("MONITOR", Kind.STREAM),
        ("PSYNC ? -1", Kind.STREAM),
        ("READONLY", Kind.STICKY),
        ("DEBUG SLEEP 0", Kind.ONCE),
        ("RESPITE INFO", Kind.RESPITE),
        ("NOSUCH a b", Kind.UNKNOWN),
        ("POST / HTTP/1.1", Kind.FORBIDDEN),
        ("host: x", Kind.FORBIDDEN),
    ],
)
def test_table_kind_says_where_a_command_goes(table: CommandTable, line: str, expected: Kind) -> None:
    """Names are found in any case, subcommands under their own name, what is not there as unknown."""
    assert expected == find(table, line).kind


def test_table_every_blocking_command_blocks(table: CommandTable, flags: dict[str, set[str]]) -> None:
    """Whatever the server calls blocking holds a link of its own, at once or when it says BLOCK."""
    named = {name for name, says in flags.items() if "blocking" in says}

    assert {*named, *BLOCKING} >= {"BLPOP", "XREAD", "XREADGROUP", "BZMPOP"}
    for name in {*named, *BLOCKING}:
        spec = find(table, name)
        assert spec.kind is Kind.BLOCKING or spec.blocks_if == b"BLOCK", name


def test_table_every_write_drops_something(table: CommandTable, flags: dict[str, set[str]]) -> None:
    """Whatever the server calls a write names its keys, or drops all; only libraries of functions are no keys."""
    for name in (name for name, says in flags.items() if "write" in says):
        spec = find(table, name.replace("|", " "))
        assert spec.is_write, name
        assert spec.keys is not None or spec.kind is Kind.WRITE_ALL or name.startswith("FUNCTION|"), name


def test_table_what_has_an_effect_counts_as_a_write(table: CommandTable) -> None:
    """A PUBLISH or a script that was sent may have had its effect: it is never called safe to repeat."""
    for line in ("PUBLISH c m", "EVAL s 0", "EVALSHA s 0", "FCALL f 0", "SPUBLISH c m", "FUNCTION LOAD x"):
        assert find(table, line).is_write, line
    for line in ("GET k", "EVAL_RO s 0", "XREAD STREAMS a 0"):
        assert not find(table, line).is_write, line


@pytest.mark.parametrize(
    ("line", "kind", "expected"),
    [
        ("GET k", Kind.GET, b""),
        ("SET k v", Kind.WRITE, b"k"),
        ("MSET a 1 b 2", Kind.WRITE, b"a b"),
        ("DEL a b", Kind.WRITE, b"a b"),
        ("RENAME a b", Kind.WRITE, b"a b"),
        ("BITOP AND d a b", Kind.WRITE, b"d a b"),
        ("ZUNIONSTORE d 2 a b", Kind.WRITE, b"d 2 a b"),
        ("EVAL s 1 a", Kind.SCRIPT, b"s 1 a"),
        ("BLPOP a b 0", Kind.BLOCKING, b"a b"),
        ("XREAD BLOCK 0 STREAMS a 0", Kind.READ, b""),
        ("XGROUP CREATE s g 0", Kind.WRITE, b"s"),
        ("FLUSHALL", Kind.WRITE_ALL, b""),
        ("PUBLISH c m", Kind.READ, b""),
        ("PING", Kind.READ, b""),
        ("MODULE.POP k 0", Kind.BLOCKING, b"k"),
        ("HELLO", Kind.SESSION, b""),
        ("MONITOR", Kind.STREAM, b""),
        ("SCRIPT KILL", Kind.ONCE, b""),
        ("script debug yes", Kind.STICKY, b""),
        ("SCRIPT LOAD x", Kind.READ, b""),
        ("ACL SETUSER u", Kind.WRITE_ALL, b""),
        ("ACL WHOAMI", Kind.READ, b""),
    ],
)
def test_table_six_columns_are_enough(line: str, kind: Kind, expected: bytes) -> None:
    """Redis 6 says no more than the first, the last and the step of the keys, and nothing about subcommands."""
    table = CommandTable.from_reply(REDIS_6)

    assert kind is find(table, line).kind
    assert expected.split() == keys(table, line)


def test_table_real_redis_6_is_understood() -> None:
    """A real server with six or seven columns gives a table in which the common commands are what they are."""
    try:
        kind = find_kind("redis6")
    except MissingServerError as missing:
        pytest.skip(str(missing))
    with Server(kind) as server, server.connect() as client:
        table = CommandTable.from_reply(rows_of(client, 2))

    for line, expected in (("MSET a 1 b 2", b"a b"), ("SET k v", b"k"), ("XGROUP CREATE s g 0", b"s")):
        assert expected.split() == keys(table, line)
    for line, expected_kind in (("GET k", Kind.GET), ("BLPOP a 0", Kind.BLOCKING), ("SCRIPT KILL", Kind.ONCE)):
        assert expected_kind is find(table, line).kind


def test_builtin_table_keeps_shared_links_clean() -> None:
    """Before COMMAND has answered, what changes a connection is known; everything else is unknown, and a write."""
    table = CommandTable.builtin()

    for line, expected in (
        ("MULTI", Kind.MULTI),
        ("EXEC", Kind.READ),
        ("SELECT 1", Kind.SESSION),
        ("SUBSCRIBE c", Kind.SUBSCRIBE),
        ("BLPOP a 0", Kind.BLOCKING),
        ("MONITOR", Kind.STREAM),
        ("POST /", Kind.FORBIDDEN),
        ("SET k v", Kind.UNKNOWN),
    ):
        assert expected is find(table, line).kind
    assert find(table, "SET k v").is_write
    assert keys(table, "SET k v") == [b"k", b"v"]


@pytest.mark.parametrize("name", [b"hello", b"monitor", b"psync", b"client", b"auth"])
def test_table_hidden_command_is_still_dangerous(name: bytes) -> None:
    """A command that the server renamed away is not sent on a link that others share."""
    kind = CommandTable.from_reply(REDIS_6).find([name]).kind

    assert kind in (Kind.SESSION, Kind.STREAM)


def test_table_spellings_remembered_are_bounded(table: CommandTable) -> None:
    """A client that spells a command in ten thousand ways is understood each time, and costs no memory for it."""
    letters = b"georadiusbymember"
    for number in range(10_000):
        word = bytes(letter - 32 * (number >> at & 1) for at, letter in enumerate(letters))
        assert table.find([word]).name == b"GEORADIUSBYMEMBER"

    assert len(table.by_word) <= CommandTable.CACHED_WORDS


def test_table_large_words_may_be_views(table: CommandTable) -> None:
    """Large words come as memoryviews: keys and subcommands of a megabyte change nothing."""
    large: Sequence[Any] = [b"DEL", memoryview(bytearray(b"k" * 100_000)), b"x"]
    spec = table.find(large)

    assert spec.keys is not None
    assert [bytes(key) for key in spec.keys(large)] == [b"k" * 100_000, b"x"]
    config: Sequence[Any] = [b"CONFIG", memoryview(bytearray(b"x" * 100_000))]
    assert table.find(config).name == b"CONFIG"
    unknown: Sequence[Any] = [memoryview(bytearray(b"x" * 100_000))]
    assert table.find(unknown).kind is Kind.UNKNOWN
