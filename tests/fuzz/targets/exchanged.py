"""What proxies tell each other: through Redis, where anybody may write, and over the socket pair of a supervisor.

What must hold: what is not understood is nothing, whatever it is; what is understood is written again as it was; a
channel between processes that is handed nonsense ends, or goes on, and is never stuck.
"""

from __future__ import annotations

import json
import pickle
import socket
import struct
from contextlib import suppress
from typing import Any, Final

import attrs
import structlog
import trio

from proxy.events.notices import Entry
from proxy.net.events import notice_store
from proxy.net.events.notice_store import _entry
from proxy.supervisor import channel
from proxy.supervisor.channel import Channel, NoAnswerError
from proxy.values import changes, fences, telling
from proxy.values.changes import FencesSet, FencesSwept, KeysChanged, announce_keys, parse_change
from proxy.values.fences import field_of, parse_fence, parse_field
from proxy.values.telling import parse_told
from proxy.wire.reply import ReplyError, frames

from ...wire.feeding import cut
from ..target import Target, dice, expect
from .replies import TOKENS as REPLY_TOKENS

_FENCE: Final = field_of(0, "glob", b"a*").hex().encode()
_JSON_TOKENS: Final = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"null",
        b"true",
        b"NaN",
        b"1e9",
        b"-1",
        b"0",
        b"4294967296",
        b"\\ud800",
    ),
    *(b'"fences"', b'"swept"', b'"keys"', b'"db"', b'"dictionary"', b'"class"', b'"events"', b'"quiet"', b'"token"'),
    *(b'"channels"', b'"patterns"', b'"tags"', b'"version"', b'"113526177792007577"', b'"ff"', b'"FF"', b'""', b"\xff"),
    *(_FENCE, b'["%b","7"]' % _FENCE, b"0:glob:", b"0:tag:", b"99999999999:glob:", b"[" * 200, b"18446744073709551615"),
)


def _changed(data: bytes) -> None:
    change = parse_change(data)
    match change:
        case KeysChanged(db, keys):
            payload = announce_keys(db, keys).split(b"\r\n")[-2]
            expect(parse_change(payload) == change, "told again, it is another change", change)
        case FencesSet(found) | FencesSwept(found):
            for one in found:
                again = parse_fence(field_of(one.db, one.kind, one.text), b"%d" % one.version)
                expect(again == one, "stored again, it is another fence", one)
    told = parse_told(data)
    expect(told is None or attrs.has(type(told)), "told something that is nothing", told)
    field, _, version = data.partition(b"=")
    parsed = parse_field(field)
    expect(parsed is None or field_of(*parsed) == field, "a field with two names", field, parsed)
    parse_fence(field, version)


CHANGES: Final = Target(
    "changes",
    _changed,
    [changes, fences, telling],
    [
        b'{"fences":[["%b","113526177792007577"]]}' % _FENCE,
        b'{"swept":[["%b","7"]]}' % _FENCE,
        b'{"keys":["6b","ff"],"db":3}',
        b'{"dictionary":7,"class":"c"}',
        b'{"events":[["6b","7",1],["ff","",0]],"db":0}',
        b'{"quiet":["6b"]}',
        b'{"channels":["6b"],"keys":[],"patterns":["ff"],"tags":[],"version":"7","db":1}',
        b'{"token":"x"}',
        b"0:glob:a*=113526177792007577",
    ],
    _JSON_TOKENS,
)


def _noticed(data: bytes) -> None:
    """Read entries of the outbox as the relay does: a stream that anybody may have written to."""
    try:
        parts = frames(data)
    except ReplyError:
        return
    if b"".join(parts) != data:
        return
    for part in parts:
        try:
            entry = _entry(0, part)
        except (ValueError, ReplyError):  # not the shape of an entry: that is Redis' word, which is trusted
            continue
        expect(isinstance(entry, Entry) and entry.at_ms >= 0, "no entry", entry)
        entry.topic.encode()


NOTICES: Final = Target(
    "notices",
    _noticed,
    [notice_store],
    [
        b"*2\r\n$3\r\n1-0\r\n*4\r\n$1\r\nc\r\n$1\r\nx\r\n$1\r\ne\r\n$2\r\n{}\r\n",
        b"*2\r\n$3\r\n1-0\r\n*-1\r\n",
        b"*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nz\r\n$1\r\n\xff\r\n",
    ],
    (*REPLY_TOKENS, b"$1\r\nc\r\n", b"$1\r\ne\r\n", b"*4\r\n", b"-0", b"1732272000000-1", b"\xff"),
)


async def _echo(*arguments: object) -> object:
    return arguments


def _framed(line: bytes) -> bytes:
    """Make the message of a line: what it says as JSON, or else the line, pickled; `!` before it, bytes as they are."""
    if line.startswith(b"!"):
        return line[1:]
    value: Any = line
    with suppress(ValueError, RecursionError):
        value = json.loads(line)
    body = pickle.dumps(value)
    return struct.pack("!I", len(body)) + body


async def _chat(data: bytes) -> None:
    """Say lines to one end of a channel, and nothing more; it must have answered what it was asked, and ended."""
    ours, theirs = socket.socketpair()
    said = b"".join(map(_framed, data.split(b"\n")))
    end = Channel(theirs, {"echo": _echo})
    with structlog.testing.capture_logs():
        async with trio.SocketStream(trio.socket.from_stdlib_socket(ours)) as peer, trio.open_nursery() as nursery:
            nursery.start_soon(_ask, end)
            nursery.start_soon(_say, peer, cut(said, dice(data)))
            await end.run()
            nursery.cancel_scope.cancel()
    expect(not end.is_open, "it has not ended")


async def _ask(end: Channel) -> None:
    try:
        await end.ask("what", 7)
    except NoAnswerError as exc:
        expect(str(exc), "no reason")


async def _say(peer: trio.SocketStream, pieces: list[bytes]) -> None:
    try:
        for piece in pieces:
            await peer.send_all(piece)
        await peer.send_eof()
        while await peer.receive_some():
            pass
    except trio.BrokenResourceError:
        return


CHANNEL: Final = Target(
    "channel",
    _chat,
    [channel],
    [
        b'["ask", 1, "echo", [1, 2]]',
        b'["answer", 1, "x"]\n["failed", 1, "words"]',
        b'["ask", 1, "nothing", []]\n["ask", [], [], 7]',
        b"!\0\0\0\0",
        b"!\xff\xff\xff\xff",
        b"!\0\0\0\5abcde",
        b"7\nnull\n[]",
    ],
    (
        *(b'["ask", ', b'["answer", ', b'["failed", ', b"1, ", b'"echo", ', b"[]", b"[1]", b"{}", b"null", b"]", b"\n"),
        *(b"!", b"!\0\0\0\1", b"!\0\0\0\1.", b"!\0\0\0\4\x80\4N.", b'""', b'{"1": 2}', b"1.5", b"x", b"-1"),
    ),
    max_bytes=300,
    short_inputs=40,
)
