"""`respite events`: what an event would drop, or why it would be a dead letter; wrong patterns to watch."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli.main import cli

from .typing_in import type_in

_CONFIG = """
[[class]]
name = "tickets"
match = ["ticket:*"]
version = true
[[class]]
name = "lists"
match = ["list:*"]
[[event]]
routing_key = "ticket.*"
keys = ["ticket:{body.id}", "list:{headers.queue}", "plain"]
patterns = ["lists:{body.queueId}:*"]
tags = ["ticket-{body.id}"]
version = "{body.updatedAt}"
"""
_BODY = b'{"id": 7, "queueId": "a*b", "updatedAt": "2024-11-22T10:40:00.000Z"}'


@pytest.fixture
def config(tmp_path: Path) -> str:
    """Write a configuration with classes and a rule; return where."""
    path = tmp_path / "respite.toml"
    path.write_text(_CONFIG)
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Write an event that the rule takes; return where."""
    path = tmp_path / "event.json"
    path.write_bytes(_BODY)
    return str(path)


def test_event_of_a_rule_shows_names_classes_and_version(config: str, file: str) -> None:
    """Each key with its class; what a version spares is said, and where there is none."""
    result = type_in("events", "test", file, "--routing-key", "ticket.new", "--header", "queue=8", "-c", config)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "taken for  rule 1 (ticket.*)",
        "key        ticket:7  class tickets",
        "key        list:8    class lists, without versions: it goes anyway",
        "key        plain     no class",
        "glob       lists:a\\*b:*",
        "tag        ticket-7",
        f"version    {1732272000000 << 16 | 0xFFFF}, of 2024-11-22T10:40:00.000Z; keys whose value is newer stay",
    ]


def test_event_json_is_what_the_mapper_says_and_the_classes(config: str, file: str) -> None:
    """A script reads the same, with the class of each key."""
    result = type_in(
        "events", "test", file, "--routing-key", "ticket.new", "--header", "queue=8", "-c", config, "--json"
    )

    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (facts["keys"], facts["classes"]) == (["ticket:7", "list:8", "plain"], ["tickets", "lists", None])
    assert facts["reason"] == ""


def test_event_that_lacks_a_field_is_exit_code_1_with_the_reason(config: str, file: str) -> None:
    """What would be a dead letter is so here, in words and in JSON."""
    words = ("events", "test", file, "--routing-key", "ticket.new", "-c", config)

    result, as_json = type_in(*words), type_in(*words, "--json")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("respite: it would be a dead letter: ")
    assert "queue" in result.stderr
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["reason"] in result.stderr


def test_native_event_comes_by_stdin_without_a_routing_key() -> None:
    """A dash is stdin; an event that names its keys needs no rule."""
    result = CliRunner().invoke(cli, ["events", "test", "-"], input=b'{"keys": ["a"], "tags": ["t"], "db": 2}')

    assert (result.exit_code, result.stdout.splitlines()) == (
        0,
        ["taken for  native event", "key        a  no class", "tag        t", "database   2"],
    )


def test_cloud_event_is_told_by_its_content_type() -> None:
    """--content-type says how the body is to be read."""
    body = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"keys": ["a"]}}
    words = ["events", "test", "-", "--content-type", "application/cloudevents+json"]
    result = CliRunner().invoke(cli, words, input=json.dumps(body))

    assert result.exit_code == 0
    assert result.stdout.startswith("taken for  CloudEvent")


def test_packed_event_is_told_by_its_content_encoding() -> None:
    """The body of a dead letter comes as it was published, packed where it was."""
    body = gzip.compress(b'{"keys": ["a"]}')
    result = CliRunner().invoke(cli, ["events", "test", "-", "--content-encoding", "gzip"], input=body)

    assert result.exit_code == 0
    assert result.stdout.startswith("taken for  native event")


@pytest.mark.parametrize("pattern", ["ticket*", "a.**.b", "x" * 300, ""])
def test_tail_of_a_pattern_that_takes_nothing_is_a_wrong_usage(pattern: str) -> None:
    """It would watch for ever and show nothing."""
    result = type_in("events", "tail", "--amqp", "amqp://127.0.0.1:1", "--routing-key", pattern)

    assert result.exit_code == 2
    assert "--routing-key: " in result.stderr


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 100_000, b'{"keys": 3}', b'{"keys": ["\x1b]0;x\x07"]}'])
def test_bytes_of_any_kind_never_crash_nor_reach_the_terminal_raw(body: bytes) -> None:
    """Whatever is in the file: words and an exit code, and no control character."""
    result = CliRunner().invoke(cli, ["events", "test", "-"], input=body)

    assert result.exit_code in {0, 1}
    assert isinstance(result.exception, SystemExit | None)
    assert result.output.replace("\n", "").isprintable()


def test_names_that_are_control_characters_are_shown_escaped() -> None:
    """A key may be any bytes; the terminal must not take them for commands."""
    result = CliRunner().invoke(cli, ["events", "test", "-"], input=json.dumps({"keys": ["\x1b[2J", "\udcff"]}))

    assert result.exit_code == 0
    assert "\\x1b[2J" in result.stdout
    assert "\\xff" in result.stdout


def test_many_names_are_counted_and_not_listed() -> None:
    """The first fifty are named."""
    keys = [f"k{number}" for number in range(1000)]
    result = CliRunner().invoke(cli, ["events", "test", "-"], input=json.dumps({"keys": keys}))

    lines = result.stdout.splitlines()
    assert len(lines) == 52
    assert lines[-1].strip() == "and 950 keys more"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("events test", "Missing argument"),
        ("events test no-such-file", "No such file"),
        ("events test .", "directory"),
        ("events test - --header x", "NAME=VALUE"),
        ("events test - --header =x", "NAME=VALUE"),
        ("events test - -c no-such.toml", "cannot be read"),
        ("events tail", "no broker is configured"),
        ("events tail --amqp http://h", "amqp.url"),
        ("dlq list", "no broker is configured"),
        ("dlq list --limit 0", "--limit"),
        ("dlq show", "Missing argument"),
        ("dlq show one --amqp amqp://h", "names no letter"),
        ("dlq list 0", "names no letter"),
        ("dlq list 3-2", "names no letter"),
        ("dlq list 1-999999999", "names no letter"),
        ("dlq replay --amqp amqp://h", "no letter is named"),
        ("dlq replay 1 --all --amqp amqp://h", "two selections"),
        ("dlq drop --yes --amqp amqp://h", "no letter is named"),
        ("dlq drop ABCDEF0123", "names no letter"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_wrong(words: str, why: str) -> None:
    """Nothing is asked of a broker before the words make sense."""
    result = type_in(*words.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


@pytest.mark.parametrize(
    "words", ["events tail", "dlq list", "dlq show 1", "dlq replay --all", "dlq drop 1", "dlq drop --all --yes --json"]
)
def test_commands_without_a_broker_say_so_in_one_line(words: str) -> None:
    """Where no broker answers: one line with what was tried and what to do, exit code 1."""
    result = type_in(*words.split(), "--amqp", "amqp://127.0.0.1:1")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("respite: no broker could be asked; no connection to amqp://127.0.0.1:1")
