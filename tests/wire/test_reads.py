"""The allow-list: every command of the servers is judged, and what a missing key gets is told from what is there."""

from __future__ import annotations

import pytest

from proxy.wire.commands import CommandTable, Kind
from proxy.wire.reads import GET_READ, NEVER, READS, is_nothing, verdict

from . import command_docs


def test_every_command_of_the_servers_is_judged_and_documented() -> None:
    """No read is forgotten: each is cached, or never with a reason; conf/commands.md says the same."""
    found = command_docs.verdicts()

    assert {name for name, told in found.items() if not told} == set()
    assert command_docs.PATH.read_text(encoding="utf-8") == command_docs.text(found), (
        "python -m tests.wire.command_docs writes it anew"
    )


def test_lists_do_not_overlap() -> None:
    """A command is on one list."""
    assert not READS.keys() & NEVER.keys()


def test_verdict_on_a_read_that_nobody_judged_is_empty() -> None:
    """That is how a new one is noticed."""
    assert verdict(b"NEWREAD", ["readonly"]) == ""
    assert verdict(b"NEWWRITE", ["write"]) == "never: it writes"
    assert verdict(b"PING", ["fast"]) == "never: it is not a read of keys"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (b"$-1\r\n", True),
        (b"*-1\r\n", True),
        (b"_\r\n", True),
        (b":0\r\n", True),
        (b"$0\r\n\r\n", True),
        (b"*0\r\n", True),
        (b"%0\r\n", True),
        (b"~0\r\n", True),
        (b"+none\r\n", True),
        (b"*2\r\n$-1\r\n$-1\r\n", True),
        (b"*2\r\n:0\r\n:0\r\n", True),
        (b"*1\r\n*-1\r\n", True),
        (b"*2\r\n_\r\n_\r\n", True),
        (b":1\r\n", False),
        (b":-1\r\n", False),
        (b"$1\r\n0\r\n", False),
        (b"*2\r\n$-1\r\n$1\r\na\r\n", False),
        (b"*2\r\n$1\r\na\r\n$-1\r\n", False),
        (b"*2\r\n:0\r\n:1\r\n", False),
        (b"*2\r\n:0\r\n$-1\r\n", False),
        (b"+string\r\n", False),
        (b"#f\r\n", False),
    ],
)
def test_nothing_is_told_from_something(reply: bytes, expected: bool) -> None:
    """Nil, zero, empty and none are nothing; an array is when all of it is, and alike."""
    assert is_nothing(reply) is expected


class Unhashed(bytes):
    """A reply whose every byte must not be gone through."""

    def __hash__(self) -> int:
        raise AssertionError("a large reply was hashed")


def test_large_reply_is_told_from_nothing_without_being_read() -> None:
    """To look it up among what means nothing takes 2 us for 10 KiB."""
    value = Unhashed(b"$10000\r\n%b\r\n" % (b"x" * 10_000))

    assert not GET_READ.may_be_missing(value)
    assert not READS[b"HGET"].may_be_missing(value)


def test_an_empty_value_is_no_missing_key_to_get() -> None:
    """GET tells the two apart, STRLEN does not."""
    assert not GET_READ.may_be_missing(b"$0\r\n\r\n")
    assert GET_READ.may_be_missing(b"$-1\r\n")
    assert READS[b"STRLEN"].may_be_missing(b":0\r\n")
    assert not READS[b"BITPOS"].may_be_missing(b":0\r\n")


def _row(name: bytes, flags: list[bytes], first: int, last: int, step: int) -> list[object]:
    return [name, -2, flags, first, last, step]


ROWS = [
    _row(b"json.get", [b"readonly"], 1, 1, 1),
    _row(b"json.mget", [b"readonly"], 1, -2, 1),
    _row(b"json.set", [b"write"], 1, 1, 1),
    _row(b"ft.search", [b"readonly"], 0, 0, 0),
    _row(b"ts.mrange", [b"readonly"], 1, -1, 2),
    _row(b"two.read", [b"readonly"], 1, 2, 1),
]


def test_table_takes_module_reads_that_the_settings_name() -> None:
    """One key, or keys with words behind them that belong to each."""
    table = CommandTable.from_reply(ROWS, ["JSON.GET", "json.mget"])

    single, several = table.find([b"json.get"]), table.find([b"JSON.MGET"])
    assert (single.kind, several.kind) == (Kind.CACHED, Kind.CACHED)
    assert single.read is not None
    assert several.read is not None
    assert (single.read.join, several.read.join, several.read.tail) == ("", "list", 1)
    assert table.refused == {}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("JSON.SET", "the server does not call it a read"),
        ("FT.SEARCH", "its keys are not its first arguments"),
        ("TS.MRANGE", "its keys are not its first arguments"),
        ("TWO.READ", "it has several keys"),
        ("NO.SUCH", "the server has no such command"),
    ],
)
def test_table_refuses_to_cache_what_is_no_read_of_single_keys(name: str, why: str) -> None:
    """The operator's mistake is told, and changes nothing."""
    table = CommandTable.from_reply(ROWS, [name])

    assert table.refused == {name: why}
    assert table.find([name.encode()]).kind is not Kind.CACHED
