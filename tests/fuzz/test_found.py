"""What the fuzzer has found once, and what became of it: each of these inputs made a reader do what it must not."""

from __future__ import annotations

import struct

import pytest

from proxy.amqp.fields import read_timestamp, write_table
from proxy.config.endpoint import parse_endpoint
from proxy.wire.commands import CommandTable
from proxy.wire.reads import is_nothing
from proxy.wire.reply import ReplyError, elements, frames

from .fuzzer import try_once
from .targets import TARGETS

FOUND = [
    # HEAD, then no request at all: the refusal was sent without its body, and h11 ended the connection in its place.
    ("http", b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nG\r\n\r\n"),
    # The mechanisms of a broker that are no UTF-8 come as bytes, and could not be named in the refusal.
    (
        "amqp-handshake",
        b"\x01\0\0\0\0\0\x1a\0\x0a\0\x0a\0\x09\0\0\0\0\0\0\0\x03\xff\xfe\xfd\0\0\0\x05en_US\xce",
    ),
    # A password stood in a problem: in the name of a table, and in the reason for refusing a value. A key of no name.
    ("toml", b'[[alert]]\nname="://u:hunter2@h"\ni=""'),
    ("toml", b'[[event]]\nrouting_key="://u:hunter2@h "'),
    ("toml", b"y=9\n''=0\n[[a]]"),
    # A bound of hours was written with an exponent, which no condition takes.
    ("templates", b"latency_p99>9223"),
    # A timestamp of the year 5553, which came in milliseconds, went on as seconds, and was read as 1970 then.
    ("amqp-fields", b"\0\x40\0\0\x66\xfe\x99\x99\x9a\0"),
    # Bytes that are no pickle, and an answer whose number is none, ended whoever held the channel.
    ("channel", b"!\0\0\0\0"),
    ("channel", b"!\0\0\0\5abcde"),
    ("channel", b'["answer", [], 7]'),
    # A socket with no place in the file system that could be known.
    ("templates", b"unix:x"),
    ("templates", b"unix::/y"),
    # An array whose head ends without a carriage return.
    ("replies", b"*1\n:0\r\n"),
]


@pytest.mark.parametrize(("name", "data"), FOUND, ids=range(len(FOUND)))
def test_found_input_is_read(name: str, data: bytes) -> None:
    """What was found is mended."""
    try_once(TARGETS[name], data)


def test_frames_cut_short_are_refused() -> None:
    """Somebody who splits what is not whole is told; he went round in circles, and took memory for each."""
    with pytest.raises(ReplyError, match="cut short"):
        frames(b"+OK\r\n$3\r\nab")
    with pytest.raises(ReplyError):
        elements(b"*2\r\n$3\r\n11\r\n")


def test_is_nothing_head_without_carriage_return_is_judged() -> None:
    """A frame that the splitter takes can be looked into."""
    assert is_nothing(b"*1\n:0\r\n")
    assert not is_nothing(b"*1\n:7\r\n")


def test_unix_socket_without_an_absolute_path_is_refused() -> None:
    """A path that begins nowhere would be looked for wherever the proxy was started."""
    for url in ("unix:x", "unix:x/y", "unix::/y"):
        with pytest.raises(ValueError, match="absolute path"):
            parse_endpoint(url)
    assert parse_endpoint("unix:/run/x.sock") == parse_endpoint("unix:///run/x.sock")


def test_timestamp_far_ahead_is_written_as_it_came() -> None:
    """Both forms are told apart by their size, in both directions."""
    far = read_timestamp(struct.pack(">Q", 113_071_000_000_000), 0)
    assert far is not None
    assert far.year == 5553

    assert write_table({"t": far}).endswith(struct.pack(">Q", 113_071_000_000_000))


@pytest.mark.parametrize("step", [0, -1])
def test_command_with_a_step_to_nowhere_has_keys_anywhere(step: int) -> None:
    """No client is closed for what a server says of its commands, and no write of a key is overlooked."""
    six = [b"odd", -2, [b"write"], 1, -1, step]
    spec = [
        *(b"flags", [b"RW"]),
        *(b"begin_search", [b"type", b"index", b"spec", [b"index", 1]]),
        *(b"find_keys", [b"type", b"range", b"spec", [b"lastkey", -1, b"keystep", step, b"limit", 0]]),
    ]
    for row in (six, [*six, [], [], [spec], []]):
        finder = CommandTable.from_reply([row]).find([b"odd"]).keys
        assert finder is not None
        assert {b"a", b"b"} <= set(finder([b"odd", b"a", b"b"]))
