"""Messages of the broker, whatever their publishers put into them, and bodies posted to the admin port.

What must hold: a message is an Event or an EventError, whose text is one printable line; what it names is text that can
be sent on; `explain` says the same; nothing packed becomes more than its bound.
"""

from __future__ import annotations

import gzip
import json
import random
from typing import Any, Final

from proxy.config.event_templates import parse_key, parse_pattern, parse_text
from proxy.config.model import EventRule
from proxy.events import cloudevents, event, mapping, payload, templates, topics, versions
from proxy.events.event import Event, EventError, parse_event
from proxy.events.mapping import Mapper
from proxy.events.message import Message
from proxy.events.templates import NAMES_MAX
from proxy.events.versions import VERSION_MAX, moment_of, version_of

from ..target import Target, expect

_RULES: Final = (
    EventRule(
        "ticket.*",
        keys=(parse_key("ticket:{body.id}"),),
        patterns=(parse_pattern("list:{body.items[].id}:{body.items[].kind}:*"),),
        tags=(parse_text("t-{headers.tenant}"),),
        version=parse_text("{body.at}"),
        then_publish=parse_text("queue-{body.queues}"),
    ),
    EventRule("#.deleted", keys=(parse_key("{routing_key.1}:{routing_key.2}"),)),
    EventRule("deep.#", patterns=(parse_pattern('{body["a b"][0].c[].d[][1]}:{body}'),)),
)
_MAPPER: Final = Mapper(_RULES)
_BODIES: Final = (
    b'{"keys": ["ticket:7"], "version": 1732272000000, "seq": 3, "publisher": "p", "at": "2024-11-22T10:40:00Z"}',
    b'{"patterns": ["a*"], "tags": ["t"], "db": 1, "id": "x"}',
    b'{"id": 7, "items": [{"id": 1, "kind": "x"}, {"id": 2, "kind": "y"}], "at": 1732272000000, "queues": ["a", "b"]}',
    b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"keys": ["k"]}}',
    b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data_base64": "eyJ0YWdzIjpbInQiXX0="}',
    b'{"a b": [{"c": [{"d": [[1, 2]]}]}]}',
    b"",
)


def _packed(content_type: str, encoding: str, routing_key: str, headers: object, body: bytes) -> bytes:
    head = "\n".join((content_type, encoding, routing_key, json.dumps(headers)))
    return head.encode() + b"\n" + body


def _message(data: bytes) -> Message:
    """Read what the first four lines say of a message; the rest is its body."""
    lines = data.split(b"\n", 4) + [b""] * 4
    content_type, encoding, routing_key, written, body = lines[:5]
    try:
        headers = json.loads(written)
    except (ValueError, RecursionError):
        headers = None
    if not isinstance(headers, dict):
        headers = {"tenant": written.decode("utf-8", "surrogateescape"), "raw": bytearray(written)}
    return Message(
        body,
        routing_key.decode("utf-8", "surrogateescape"),
        headers,
        content_type.decode("utf-8", "surrogateescape"),
        encoding.decode("utf-8", "surrogateescape"),
        "m-1",
    )


def _expect_reason(exc: EventError) -> None:
    text = str(exc)
    expect(text.isprintable() and 0 < len(text) <= 400, "a reason that is no line", text)


def _expect_sound(found: Event) -> None:
    for text in (found.id, found.publisher, found.trace, *found.then_publish):
        text.encode()
    expect(all(isinstance(one, bytes) for one in (*found.keys, *found.patterns, *found.tags)), "a name is no bytes")
    expect(len(found.keys) + len(found.patterns) + len(found.tags) <= NAMES_MAX, "too many names")
    expect(found.version is None or 0 < found.version <= VERSION_MAX, "a version of no time", found.version)
    expect(found.at_ms is None or type(found.at_ms) is int, "no moment", found.at_ms)
    hash(found)


def _run(data: bytes) -> None:
    message = _message(data)
    found: Event | None = None
    try:
        found = _MAPPER.map(message)
        _expect_sound(found)
    except EventError as exc:
        _expect_reason(exc)
    explained = _MAPPER.explain(message)
    json.dumps(explained, allow_nan=False)
    expect(bool(explained["taken_for"]) is (found is not None), "explained as something else", explained)
    try:
        _expect_sound(parse_event(message.body))
    except EventError as exc:
        _expect_reason(exc)
    _moment(message.body[:64].decode("utf-8", "surrogateescape"))


def _moment(text: str) -> None:
    number: Any = int(text) if text.isascii() and text.isdecimal() else text
    for value in (text, number):
        moment_of(value)
        try:
            version = version_of(value)
        except ValueError as exc:
            expect(str(exc).startswith("is "), "a reason that begins otherwise", str(exc))
        else:
            expect(version is None or 0 < version <= VERSION_MAX, "no version", version)


def _make(rng: random.Random) -> bytes:
    body = rng.choice(_BODIES)
    encoding = rng.choice(("", "gzip", "utf-8", "x"))
    return _packed(
        rng.choice(
            ("", "application/json", "application/cloudevents+json; charset=x", "application/cloudevents-batch")
        ),
        encoding,
        rng.choice(("", "ticket.updated", "user.9.deleted", "deep.a.b", "a..b")),
        rng.choice(({}, {"tenant": "7"}, {"cloudEvents:specversion": "1.0", "ce-id": "1", "cloudEvents_time": "x"})),
        gzip.compress(body, mtime=0) if encoding == "gzip" else body,
    )


EVENTS: Final = Target(
    "events",
    _run,
    [cloudevents, event, mapping, payload, templates, topics, versions],
    [_packed("", "", "ticket.a", {"tenant": "7"}, body) for body in _BODIES]
    + [
        _packed("", "gzip", "x", {}, gzip.compress(b'{"keys": ["k"]}', mtime=0)),
        _packed("", "gzip", "x", {}, gzip.compress(b"[" * 100_000, mtime=0)),
        _packed("", "gzip", "x", {}, gzip.compress(bytes(64 << 20), mtime=0)),
    ],
    (
        *(b'"keys"', b'"tags"', b'"patterns"', b'"db"', b'"seq"', b'"version"', b'"at"', b'"id"', b'"publisher"'),
        *(b'"specversion": "1.0"', b'"data"', b'"data_base64"', b'"time"', b'"key"', b'"tag"', b"gzip", b"identity"),
        *(b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"true", b"NaN", b"Infinity", b"-0", b"1e400", b"\\ud800"),
        *(b"\\u0000", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"1732272000000", b"113526177792007577", b"1" * 30),
        *(b'"2024-11-22T10:40:00Z"', b"2024-02-30", b"T24:00", b"+01:00", b"-99:99", b"0000-00-00", b".123456789"),
        *(b"\x1f\x8b\x08\0\0\0\0\0", gzip.compress(b"", mtime=0), b"cloudEvents:", b"application/cloudevents+json"),
        *(b"ticket.", b".deleted", b"deep.", b'"items"', b'"kind"', b'"a b"', b'"c"', b'"d"', b"[[", b'{"a":'),
    ),
    _make,
    max_bytes=600,
)
