"""From the server's commands and somebody's rules to the commands that are his."""

from __future__ import annotations

import pytest

from proxy.config.command_words import CommandRule, read_command_rules
from proxy.core.rights.narrowing import narrow, strangers
from proxy.wire.commands import CommandSpec, CommandTable, Kind

Rules = tuple[CommandRule, ...]


def _spec(name: str, kind: Kind, categories: str, **subcommands: str) -> CommandSpec:
    """Return a command; `subcommands` are their categories by name."""
    subs = {
        word.upper().encode(): _spec(f"{name}|{word}".upper(), kind, f"{categories} {words}")
        for word, words in subcommands.items()
    }
    told = frozenset(word.encode() for word in categories.split())
    return CommandSpec(name.upper().encode(), kind, subcommands=subs, categories=told)


TABLE = CommandTable(
    [
        _spec("get", Kind.GET, "read string fast"),
        _spec("set", Kind.WRITE, "write string"),
        _spec("keys", Kind.READ, "read dangerous"),
        _spec("flushall", Kind.WRITE_ALL, "write dangerous"),
        _spec("config", Kind.READ, "slow", get="admin dangerous", set="admin dangerous", help=""),
        _spec("hello", Kind.SESSION, "connection"),
        _spec("client", Kind.SESSION, "connection", kill="admin dangerous", id=""),
        CommandSpec(b"RESPITE", Kind.RESPITE),
    ]
)
LINES = ("get", "set", "keys", "flushall", "config", "config get", "config set", "client kill", "client id", "nosuch")


def _allowed(rules: Rules, table: CommandTable = TABLE) -> set[str]:
    narrowed = narrow(table, rules)
    return {line for line in LINES if narrowed.find(line.encode().split()).kind is not Kind.DENIED}


ALL = set(LINES)
CONFIG = {"config", "config get", "config set"}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], ALL),
        (["-flushall"], ALL - {"flushall"}),
        (["-FlushAll"], ALL - {"flushall"}),
        (["-@dangerous"], ALL - {"keys", "flushall", "config get", "config set", "client kill", "nosuch"}),
        (["-@dangerous", "+keys"], ALL - {"flushall", "config get", "config set", "client kill", "nosuch"}),
        (["-config"], ALL - CONFIG),
        (["-config|set"], ALL - {"config set"}),
        (["-config", "+config|get"], (ALL - CONFIG) | {"config get"}),
        (["+get"], {"get"}),
        (["+@read"], {"get", "keys"}),
        (["+@read", "-@dangerous"], {"get"}),
        (["+@all", "-get"], ALL - {"get"}),
        (["-@all"], set()),
        (["+nosuch"], {"nosuch"}),
        (["-nosuch"], ALL - {"nosuch"}),
        (["+client|id", "+set"], {"client id", "set"}),
    ],
)
def test_narrow_the_last_rule_that_takes_a_command_has_it(rules: list[str], expected: set[str]) -> None:
    """Names, subcommands and categories, in any case; from nothing where the first rule allows, else from all."""
    assert _allowed(read_command_rules(rules)) == expected


@pytest.mark.parametrize("rules", [["+get"], ["-@all"], ["-@connection"], ["-hello"]])
def test_narrow_leaves_what_makes_somebody_somebody(rules: list[str]) -> None:
    """Redis asks no right for AUTH, HELLO, QUIT and RESET either."""
    assert narrow(TABLE, read_command_rules(rules)).find([b"HELLO", b"3"]).kind is Kind.SESSION


def test_narrow_leaves_respite_to_rights_of_its_own() -> None:
    """How much of it is somebody's is not a matter of categories."""
    assert narrow(TABLE, read_command_rules(["-@all"])).find([b"RESPITE"]).kind is Kind.RESPITE


def test_narrow_denied_subcommand_of_a_server_that_does_not_tell_them_is_denied() -> None:
    """Six columns of COMMAND say nothing of subcommands; so is the first argument of a command that has none."""
    table = CommandTable([CommandSpec(b"CONFIG", Kind.READ), CommandSpec(b"SELECT", Kind.SESSION)])

    narrowed = narrow(table, read_command_rules(["-config|set", "-select|7"]))

    kinds = [narrowed.find(line.split()).kind for line in (b"CONFIG set x", b"config GET", b"select 7", b"SELECT 8")]
    assert kinds == [Kind.DENIED, Kind.READ, Kind.DENIED, Kind.SESSION]


@pytest.mark.parametrize(("rules", "expected"), [(["-@dangerous"], set()), (["+@read"], set()), (["+get"], {"get"})])
def test_narrow_without_categories_nothing_slips_through(rules: list[str], expected: set[str]) -> None:
    """Until the server has told its commands, what is denied by category is everything; names are known at once."""
    builtin = CommandTable.builtin()

    assert _allowed(read_command_rules(rules), builtin) & {"get", "flushall", "nosuch"} == expected


def test_narrow_without_rules_shares_the_table() -> None:
    """What costs nobody anything: the spellings it remembers are remembered once."""
    assert narrow(TABLE, ()) is TABLE


def test_strangers_are_the_words_that_are_about_no_command() -> None:
    """A slip of the pen denies nothing, and must be told of."""
    rules = read_command_rules(
        ["-flushal", "-get", "-config|set", "-config|sett", "-@danger", "-@dangerous", "+respite"]
    )

    assert strangers(TABLE, rules) == ["flushal", "config|sett", "@danger"]
