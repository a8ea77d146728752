"""Every command of COMMAND sees and leaves plain values, whatever the values of its keys are stored as.

The walk of the differential test once more, with all keys in a class: on one side bare values, on the other one
envelopes with a plain body, or with a compressed one. Replies, values and TTLs must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from . import corpus
from . import test_differential_commands as differential
from .conftest import kind_or_skip
from .exceptions import MASKED, NOT_SENT, Masked, kind
from .flow_list import spoken_commands
from .raw import encode_all, tree
from .targets import Target, running_pair
from .test_differential_commands import (
    Delivery,
    Pair,
    Side,
    ask_commands,
    compare,
    send_pipelined,
    send_split,
)
from .words import Words, words

VERSIONED: Mapping[str, Any] = {"class": [{"name": "all", "match": ["*"], "version": True}]}
COMPRESSED: Mapping[str, Any] = {
    "compression": {"min_bytes": "100B"},
    "class": [{"name": "all", "match": ["*"], "version": True, "compress": True}],
}
STORED = {"versioned": VERSIONED, "compressed": COMPRESSED}
LONG = ("str", "str2", "bits", "bin", "exp")  # keys whose values are made long enough to be compressed
TIMES = 60
AS_STORED = "what is said of the bytes as they are stored"
STORED_FORMS: Mapping[str, Masked] = {
    "dump": Masked(kind, AS_STORED),
    "memory|usage": Masked(kind, AS_STORED),
    "object|encoding": Masked(kind, AS_STORED),
}
OF_THE_SERVER = ("acl", "client", "cluster", "command", "config", "debug", "function", "info", "latency", "pubsub")


@pytest.mark.long("valkey9")
@pytest.mark.parametrize(
    ("name", "stored", "protocol", "deliver"),
    [
        ("redis7", "versioned", 2, send_split),
        ("redis7", "compressed", 3, send_pipelined),
        ("valkey9", "versioned", 3, send_pipelined),
        ("valkey9", "compressed", 2, send_split),
    ],
)
def test_command_on_values_in_envelopes_answers_as_redis(
    name: str, stored: str, protocol: int, deliver: Delivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command, sensible and wrong; `make soak` sends them in every way."""
    assert_walk_is_the_same(name, stored, (protocol, deliver), monkeypatch)


def lengthened(line: Words) -> Words:
    """Repeat the value of a SET, if it is one of those that are to be long."""
    if line[0] == b"SET" and line[1].decode() in LONG:
        return (*line[:2], line[2] * TIMES, *line[3:])
    return line


def reads_or_writes_keys(case: corpus.Case) -> bool:
    """Return whether a case is about data: the others are walked without classes, and cost as much again."""
    return case.name.split("|")[0] not in OF_THE_SERVER


def assert_walk_is_the_same(
    name: str, stored: str, sent: tuple[int, Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run all cases on two servers of a kind, bare and in envelopes; compare replies, then values and TTLs."""
    monkeypatch.setattr(differential, "MASKED", {**MASKED, **STORED_FORMS})
    if stored == "compressed":
        monkeypatch.setattr(differential, "SETUP", [lengthened(words(line)) for line in corpus.SETUP])
    with running_pair(kind_or_skip(name), settings=STORED[stored]) as pair:
        found = walk(pair, *sent)
        respite = pair[1].respite
        assert respite is None or respite.stats()["values"]["opened_total"] > 100
    assert not found, f"{len(found)} differences\n" + "\n".join(found[:60])


def walk(pair: Pair, protocol: int, deliver: Delivery) -> list[str]:
    """Run all cases that are about data on both sides and list what differs."""
    sides = [Side(target, protocol) for target in pair]
    found: list[str] = []
    commands = {name: command for name, command in ask_commands(pair[0]).items() if name not in NOT_SENT}
    for case in corpus.build(commands, only_in_flows=spoken_commands() - corpus.SAMPLES.keys()):
        if not reads_or_writes_keys(case):
            continue
        direct, proxied = (side.run(case.commands, deliver) for side in sides)
        new = compare(case, direct, proxied)
        states = [strings_of(target) for target in pair]
        if not new and not same(*states):
            new = [f"{case.name}: equal replies, but the data differ: {diff(*states)}"]
        if new:
            for side in sides:
                side.close()
        found += new
    for side in sides:
        side.close()
    return found


State = dict[bytes, tuple[bytes, bytes, int]]
"""Key -> its type, its value if it is a string, its TTL in milliseconds or -1."""


def strings_of(target: Target) -> State:
    """Read all keys of database 0 through the target."""
    with target.connect() as client:
        keys = sorted(node.own.split(b"\r\n", 1)[1][:-2] for node in tree(client.command("KEYS", "*")).children)
        client.send(encode_all([(word, key) for key in keys for word in ("TYPE", "GET", "PTTL")]))
        replies = iter(client.frames(3 * len(keys)))
        return {key: (next(replies), next(replies), int(next(replies)[1:])) for key in keys}


def same(one: State, other: State) -> bool:
    """Compare, TTLs to two seconds."""
    return one.keys() == other.keys() and all(
        one[key][:2] == other[key][:2] and abs(one[key][2] - other[key][2]) < 2000 for key in one
    )


def diff(one: State, other: State) -> str:
    """Show what differs."""
    return repr({key: (one.get(key), other.get(key)) for key in {*one, *other} if one.get(key) != other.get(key)})[:600]
