"""Every command that may look at the bytes of a string is on the list, or has an excuse; and its keys are found."""

from __future__ import annotations

from typing import Any

import hiredis
import pytest

from proxy.wire.byte_commands import BYTE_COMMANDS, MOVES
from proxy.wire.commands import CommandTable, Kind

from ..e2e.corpus import SAMPLES
from ..e2e.servers import REQUIRED_KINDS, Server, find_kind
from ..e2e.words import words

OTHER_TYPES = frozenset(["@hash", "@list", "@set", "@sortedset", "@stream", "@geo", "@pubsub", "@transaction"])
"""Commands of these categories refuse strings, or look at no value."""

WHOLE = "it hands the value over whole: that is opened on the way"
WRITES = "it writes a value whole"
KEY_ONLY = "it is about the key, not its value"
STORED = "it carries the value as it is stored"
EXCUSED: dict[bytes, str] = {
    **dict.fromkeys((b"GET", b"MGET", b"GETDEL", b"GETEX", b"GETSET"), WHOLE),
    **dict.fromkeys((b"SETEX", b"PSETEX", b"SETNX", b"MSET", b"MSETNX", b"MSETEX"), WRITES),
    **dict.fromkeys((b"DEL", b"UNLINK", b"EXISTS", b"TOUCH", b"TYPE", b"TTL", b"PTTL", b"PERSIST"), KEY_ONLY),
    **dict.fromkeys((b"EXPIRE", b"PEXPIRE", b"EXPIREAT", b"PEXPIREAT", b"EXPIRETIME", b"PEXPIRETIME"), KEY_ONLY),
    b"CLUSTERSCAN": KEY_ONLY,
    **dict.fromkeys((b"DUMP", b"RESTORE", b"RESTORE-ASKING", b"MIGRATE", b"MOVE"), STORED),
    **dict.fromkeys(
        (b"INCR", b"DECR", b"INCRBY", b"DECRBY", b"INCRBYFLOAT"),
        "it takes the value for a number, which is never wrapped",
    ),
}
OF_NO_SERVER_HERE = frozenset([b"DIGEST", b"DELEX", b"STRALGO"])
"""Redis 8.4 brings the first two; the last went with 7.0."""


def decode(frame: bytes) -> Any:
    """Decode a reply."""
    reader = hiredis.Reader()
    reader.feed(frame)
    return reader.gets()


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Any]]:
    """Ask each kind of server for its commands."""
    found = {}
    for kind in REQUIRED_KINDS:
        with Server(find_kind(kind)) as running, running.connect() as client:
            found[kind] = decode(client.command("COMMAND"))
    return found


@pytest.fixture(scope="module")
def table(server: Server) -> CommandTable:
    """Build the table of a real server."""
    with server.connect() as client:
        return CommandTable.from_reply(decode(client.command("COMMAND")))


def of_strings(rows: list[Any]) -> set[bytes]:
    """Name the commands that have keys and may find strings under them."""
    return {
        row[0].upper()
        for row in rows
        if row[8] and not OTHER_TYPES & {word if isinstance(word, str) else word.decode() for word in row[6]}
    }


@pytest.mark.parametrize("kind", REQUIRED_KINDS)
def test_every_command_that_may_find_strings_is_listed_or_excused(rows: dict[str, list[Any]], kind: str) -> None:
    """Scripts are unwrapped for by their kind; all others by name. A new command of a new server fails here."""
    table = CommandTable.from_reply(rows[kind])
    scripts = {name for name in of_strings(rows[kind]) if table.find([name]).kind is Kind.SCRIPT}
    assert len(scripts) >= 6

    assert of_strings(rows[kind]) - scripts - BYTE_COMMANDS.keys() - MOVES == EXCUSED.keys() & of_strings(rows[kind])


def test_list_and_excuses_name_commands_that_exist(rows: dict[str, list[Any]]) -> None:
    """What no server has is a slip of the pen; nothing is listed and excused."""
    known = set().union(*map(of_strings, rows.values()))

    assert set(EXCUSED) <= known
    assert (BYTE_COMMANDS.keys() | MOVES) - known == OF_NO_SERVER_HERE
    assert not (BYTE_COMMANDS.keys() | MOVES) & EXCUSED.keys()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *(("STRLEN k", "k"), ("GETRANGE k 0 1", "k"), ("SUBSTR k 0 1", "k"), ("GETBIT k 1", "k"), ("BITCOUNT k", "k")),
        *(("BITPOS k 1", "k"), ("BITFIELD_RO k GET u8 0", "k"), ("BITFIELD k GET u8 0", "k"), ("APPEND k x", "k")),
        *(("SETRANGE k 0 x", "k"), ("SETBIT k 1 1", "k"), ("PFADD k a b", "k"), ("PFDEBUG GETREG k", "k")),
        *(("PFCOUNT k l m", "k l m"), ("PFMERGE d k l", "d k l"), ("LCS k l", "k l"), ("LCS k l LEN", "k l")),
        *(
            ("BITOP AND d k l", "k l"),
            ("BITOP NOT d k", "k"),
            ("BITOP AND", ""),
            ("DELIFEQ k v", "k"),
            ("DIGEST k", "k"),
        ),
        *(("STRALGO LCS KEYS k l LEN", "k l"), ("STRALGO LCS IDX keys k l", "k l"), ("STRALGO LCS STRINGS k l", "")),
        *(("SET k v", ""), ("SET k v NX", ""), ("SET k v EX 5 IFEQ w", "k"), ("SET k v ifne w", "k")),
        *(
            ("SET k IFEQ", ""),
            ("SET k If EX 5", ""),
            ("SET", ""),
            ("DELEX k", ""),
            ("DELEX k IFDEQ 0", "k"),
            ("STRLEN", ""),
        ),
    ],
)
def test_finder_names_the_keys_whose_bytes_are_looked_at(line: str, expected: str) -> None:
    """Of a command that compares only where it does; of BITOP not the key that is written."""
    args = line.encode().split()

    assert expected.encode().split() == list(BYTE_COMMANDS[args[0]](args))


# -- every key a command names -----------------------------------------------------------------------------------------

NAMES_MORE = frozenset([b"SORT", b"SORT_RO", b"MIGRATE", b"EVAL"])
"""Their keys are described incompletely: every argument is taken for one. EVAL: where the number of keys is wrong."""


def test_every_key_is_what_the_server_finds(server: Server, table: CommandTable) -> None:
    """Read or written, for every sample of every command."""
    compared = 0
    with server.connect() as client:
        for lines in SAMPLES.values():
            for line in lines:
                args = words(line)
                named = decode(client.command("COMMAND", "GETKEYS", *args))
                if not isinstance(named, list):
                    continue
                spec = table.find(args)
                found = list(spec.every_key(args)) if spec.every_key is not None else []
                compared += 1
                assert set(named) <= set(found), args
                if spec.name not in NAMES_MORE:
                    assert sorted(named) == sorted(found), args
    assert compared > 700


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *(("GET k", "k"), ("MGET a b", "a b"), ("SET k v", "k"), ("MSET a 1 b 2", "a b"), ("COPY a b", "a b")),
        *(("BITOP AND d a b", "d a b"), ("EVAL s 2 a b c", "a b"), ("EVAL_RO s 1 a b", "a"), ("FCALL f 1 a b", "a")),
        *(("OBJECT ENCODING k", "k"), ("MEMORY USAGE k", "k"), ("XREAD STREAMS a b 0 0", "a b"), ("GET", "")),
        *(("EVAL s 0", ""), ("EVAL s x a", ""), ("WATCH a b", "a b"), ("ZUNION 2 a b", "a b")),
    ],
)
def test_every_key_of_a_line(table: CommandTable, line: str, expected: str) -> None:
    """Also of subcommands, and of lines that Redis will refuse."""
    args = words(line)
    finder = table.find(args).every_key

    assert finder is not None
    assert expected.encode().split() == list(finder(args))


@pytest.mark.parametrize("line", ["PING", "PUBLISH c m", "FLUSHALL", "CONFIG GET x", "NONSENSE k", "MULTI", "SCAN 0"])
def test_every_key_of_what_names_none_is_none(table: CommandTable, line: str) -> None:
    """None, so that nobody asks for the keys of every PING."""
    assert table.find(words(line)).every_key is None


def test_every_key_of_six_columns_is_found() -> None:
    """Redis 6 says where keys begin and end, for reads and writes alike."""
    table = CommandTable.from_reply(
        [
            [b"get", 2, [b"readonly"], 1, 1, 1],
            [b"mget", -2, [b"readonly"], 1, -1, 1],
            [b"mset", -3, [b"write"], 1, -1, 2],
            [b"zunion", -3, [b"readonly", b"movablekeys"], 0, 0, 0],
            [b"ping", -1, [], 0, 0, 0],
        ]
    )

    def every(line: str) -> list[bytes] | None:
        args = line.encode().split()
        finder = table.find(args).every_key
        return None if finder is None else list(finder(args))

    assert (every("GET k"), every("MGET a b"), every("MSET a 1 b 2")) == ([b"k"], [b"a", b"b"], [b"a", b"b"])
    assert every("ZUNION 2 a b") == [b"2", b"a", b"b"]
    assert every("PING") is None
