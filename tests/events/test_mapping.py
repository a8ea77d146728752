"""From a message to the event it is."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.event_templates import parse_key, parse_pattern, parse_text
from proxy.config.model import EventRule
from proxy.events.event import Event, EventError
from proxy.events.mapping import Mapper
from proxy.events.message import Message

AT_MS = 1732272000123
TICKETS = EventRule(
    "ticket.*",
    keys=(parse_key("ticket:{body.id}"), parse_key("ticket:{body.id}:full")),
    patterns=(parse_pattern("tickets:list:{body.queueId}:*"),),
    tags=(parse_text("ticket-{body.id}"),),
    version=parse_text("{body.updatedAt}"),
    then_publish=parse_text("queue-{body.queueId}"),
)
DELETED = EventRule("#.deleted", keys=(parse_key("{routing_key.1}:{routing_key.2}"),))
RULES = (TICKETS, DELETED)
TICKET: dict[str, Any] = {"id": 7, "queueId": "q*", "updatedAt": "2024-11-22T10:40:00.123Z"}
BY_RULE = Event(
    (b"ticket:7", b"ticket:7:full"),
    (rb"tickets:list:q\*:*",),
    (b"ticket-7",),
    version=AT_MS << 16 | 0xFFFF,
    then_publish=("queue-q*",),
)


def _message(body: object, routing_key: str = "ticket.updated", **more: Any) -> Message:
    return Message(json.dumps(body).encode(), routing_key, **more)


def test_map_native_event_takes_what_is_missing_from_the_message() -> None:
    """The message's id and time are the event's, where that says nothing of them."""
    message = _message({"keys": ["k"]}, message_id="m-1", published_at_ms=AT_MS)

    assert Mapper(RULES).map(message) == Event((b"k",), id="m-1", at_ms=AT_MS)


def test_map_by_rule_fills_every_template() -> None:
    """A body that names nothing itself is what the rule of its routing key makes of it; values stand for themselves."""
    assert Mapper(RULES).map(_message(TICKET)) == BY_RULE


def test_map_by_rule_takes_the_first_that_fits() -> None:
    """`ticket.deleted` fits both rules, and the first is asked; what only the second takes goes there."""
    mapper = Mapper(RULES)

    assert mapper.explain(_message(TICKET, "ticket.deleted"))["taken_for"] == "rule 1 (ticket.*)"
    assert mapper.explain(_message(TICKET, "user.9.deleted"))["taken_for"] == "rule 2 (#.deleted)"


@pytest.mark.parametrize("body", [b"", b"\xff\x00", b"[", b"7", gzip.compress(b"{}", mtime=0)])
def test_map_by_rule_of_routing_keys_takes_any_body(body: bytes) -> None:
    """A rule that needs nothing of the body works for bodies that are no JSON."""
    assert Mapper(RULES).map(Message(body, "user.9.deleted")).keys == (b"user:9",)


def test_map_gzip_body_is_unpacked() -> None:
    """A packed body is the body."""
    message = Message(gzip.compress(b'{"keys": ["k"]}', mtime=0), content_encoding="gzip")

    assert Mapper().map(message).keys == (b"k",)


def test_map_by_rule_with_an_empty_list_names_nothing() -> None:
    """A change of no items is an event with nothing to do, not a mistake."""
    rule = EventRule("#", keys=(parse_key("i:{body.items[].id}"),), version=parse_text("{body.items[].v}"))

    assert Mapper([rule]).map(_message({"items": []})) == Event()


def test_map_by_rule_of_many_versions_takes_the_newest() -> None:
    """Of the versions of a list the newest drops whatever any other would have."""
    rule = EventRule("#", keys=(parse_key("i:{body[].id}"),), version=parse_text("{body[].v}"))
    event = Mapper([rule]).map(_message([{"id": 1, "v": AT_MS}, {"id": 2, "v": AT_MS + 5}, {"id": 3, "v": 9}]))

    assert event == Event((b"i:1", b"i:2", b"i:3"), version=AT_MS + 5 << 16 | 0xFFFF)


def test_map_by_rule_with_a_header_for_a_version_reads_it() -> None:
    """A version may come from anywhere in the message."""
    rule = EventRule("#", tags=(parse_text("t"),), version=parse_text("{headers.at}"))

    assert Mapper([rule]).map(_message(None, headers={"at": AT_MS})).version == AT_MS << 16 | 0xFFFF


@pytest.mark.parametrize(
    ("body", "routing_key", "words"),
    [
        (
            TICKET | {"id": None},
            "ticket.x",
            r"`body.id` is null where .*; `keys` of \[\[event\]\] 1 \(ticket.\*\) needs it",
        ),
        ({"id": 7}, "ticket.x", "`body.queueId` is not there; `patterns` of"),
        ({"id": 7, "queueId": 1}, "ticket.x", "`body.updatedAt` is not there; `version` of"),
        (TICKET | {"updatedAt": 1732272000}, "ticket.x", "`{body.updatedAt}` is 1732272000, which looks like seconds"),
        (TICKET | {"id": "\ud800"}, "ticket.x", "half a surrogate pair"),
        ([], "ticket.x", "`body` is a list; each element of it is `body\\[\\]`; `keys` of"),
        (TICKET, "order.x", r"no keys, patterns or tags; and no \[\[event\]\] takes the routing key 'order.x'"),
        ({"keys": ["k"], "tag": ["t"]}, "ticket.x", "did you mean `tags`"),
        ({"keys": [f"k:{n}" for n in range(10_001)]}, "", "more than 10000 keys"),
    ],
)
def test_map_of_what_cannot_be_acted_on_says_why(body: object, routing_key: str, words: str) -> None:
    """A message that is no event is refused with the field, and the rule that needs it."""
    with pytest.raises(EventError, match=words):
        Mapper(RULES).map(_message(body, routing_key))


def test_map_object_with_tags_of_its_own_goes_by_the_rule_too() -> None:
    """A ticket that has tags is no native event: its keys are dropped, and whatever carries those tags besides."""
    event = Mapper(RULES).map(_message(TICKET | {"id": "7", "tags": ["vip", "ticket-7"]}))

    assert event.keys == BY_RULE.keys
    assert event.tags == (b"ticket-7", b"vip")
    assert (event.patterns, event.version, event.then_publish) == (
        BY_RULE.patterns,
        BY_RULE.version,
        BY_RULE.then_publish,
    )


def test_map_object_with_tags_that_are_no_names_goes_by_the_rule() -> None:
    """Tags of another shape than ours are the publisher's own business, and so are those beside a number for an id."""
    assert Mapper(RULES).map(_message(TICKET | {"tags": [{"name": "vip"}]})) == BY_RULE
    assert Mapper(RULES).map(_message(TICKET | {"tags": ["vip"]})) == BY_RULE


def test_map_object_with_tags_that_lacks_a_field_of_the_rule_is_refused() -> None:
    """A ticket that cannot be understood is not taken for the tags it happens to have."""
    with pytest.raises(EventError, match=r"`body\.id` is not there"):
        Mapper(RULES).map(_message({"ticketId": 7, "tags": ["vip"]}))


@pytest.mark.parametrize("routing_key", ["ticket.updated", "elsewhere"])
def test_map_native_event_of_tags_alone_is_native(routing_key: str) -> None:
    """An event with nothing but fields of ours is native, also where a rule takes its routing key and fails."""
    message = _message({"id": "e", "tags": ["t"], "publisher": "p", "seq": 3}, routing_key)

    assert Mapper(RULES).map(message) == Event(tags=(b"t",), id="e", publisher="p", seq=3)


def test_map_native_event_with_a_rule_for_its_routing_key_is_native() -> None:
    """A rule for every routing key changes nothing for events that name keys, nor their version."""
    rule = EventRule("#", keys=(parse_key("other:{body.id}"),))

    assert Mapper([rule]).map(_message({"id": "e", "keys": ["k"], "version": AT_MS, "trace": 1})) == Event(
        (b"k",), id="e", version=AT_MS << 16 | 0xFFFF
    )


def test_take_replaces_the_rules() -> None:
    """After a reload the new rules hold, also for routing keys that were seen before."""
    mapper = Mapper([DELETED])
    assert mapper.map(_message({}, "user.9.deleted")).keys == (b"user:9",)

    mapper.take([TICKETS, EventRule("user.#", keys=(parse_key("u:{routing_key.2}"),))])

    assert mapper.map(_message({}, "user.9.deleted")).keys == (b"u:9",)


def test_map_of_many_routing_keys_forgets_some() -> None:
    """Routing keys with ids in them do not pile up."""
    mapper = Mapper([DELETED])
    for number in range(10_000):
        mapper.map(_message({}, f"user.{number}.deleted"))

    assert len(mapper._number_of) <= 4096


def test_explain_says_what_it_would_drop() -> None:
    """Everything of the event is told in texts and numbers that JSON can hold."""
    explained = Mapper(RULES).explain(_message(TICKET, message_id="m"))

    assert json.loads(json.dumps(explained)) == {
        "taken_for": "rule 1 (ticket.*)",
        "reason": "",
        "keys": ["ticket:7", "ticket:7:full"],
        "patterns": [r"tickets:list:q\*:*"],
        "tags": ["ticket-7"],
        "db": None,
        "version": AT_MS << 16 | 0xFFFF,
        "version_at": "2024-11-22T10:40:00.123Z",
        "id": "m",
        "publisher": "",
        "seq": None,
        "at_ms": None,
        "then_publish": ["queue-q*"],
    }


def test_explain_says_why_nothing_would_be_dropped() -> None:
    """What is no event has the same facts, all of them empty, and the reason."""
    explained = Mapper(RULES).explain(_message({}, "order.x"))

    assert (explained["taken_for"], explained["keys"]) == ("", [])
    assert "takes the routing key 'order.x'" in explained["reason"]


_FIELDS = ["keys", "patterns", "tags", "id", "queueId", "updatedAt", "version", "seq", "data"]
_NAMES = st.sampled_from(_FIELDS) | st.text()
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=12,
)
_HEADERS = st.dictionaries(
    st.sampled_from(["cloudEvents:specversion", "cloudEvents:time", "ce-id", "x"]) | st.text(),
    _VALUES | st.binary() | st.datetimes() | st.decimals(),
    max_size=4,
)
_RULES = (
    TICKETS,
    EventRule(
        "#",
        keys=(parse_key("{body.data[].id}:{body.tags}:{headers.x}"), parse_key("{body.id}")),
        version=parse_text("{body.version}"),
        then_publish=parse_text("{routing_key.1}"),
    ),
)


def _maps_or_says_why(message: Message) -> None:
    mapper = Mapper(_RULES)
    explained = mapper.explain(message)
    json.dumps(explained)
    try:
        event = mapper.map(message)
    except EventError as exc:
        assert explained["reason"] == str(exc) != ""  # noqa: PT017
        assert str(exc).encode().decode().isprintable()  # noqa: PT017
    else:
        assert explained["reason"] == ""
        assert event.version is None or 0 < event.version < 1 << 63
        for text in (event.id, event.publisher, *event.then_publish):
            assert text.encode() is not None


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "utf-8", "x"]), st.sampled_from(["ticket.a", "", "b"]))
def test_map_of_any_bytes_is_an_event_or_a_reason(body: bytes, encoding: str, routing_key: str) -> None:
    """No body is a crash."""
    _maps_or_says_why(Message(body, routing_key, content_encoding=encoding))


@settings(deadline=None)
@given(_VALUES, _HEADERS, st.sampled_from(["ticket.a", "", "b"]), st.sampled_from(["", "application/cloudevents+json"]))
def test_map_of_any_json_is_an_event_or_a_reason(
    body: object, headers: dict[str, Any], routing_key: str, content_type: str
) -> None:
    """No JSON and no header is a crash, whatever a rule looks for in it."""
    _maps_or_says_why(Message(json.dumps(body).encode(), routing_key, headers, content_type))


@settings(deadline=None)
@given(_VALUES, st.sampled_from(["1.0", "1.1"]))
def test_map_of_any_cloud_event_is_an_event_or_a_reason(data: object, version: str) -> None:
    """No data of a CloudEvent is a crash."""
    body = {"specversion": version, "id": data, "source": data, "time": data, "data": data}
    _maps_or_says_why(_message(body))


@settings(deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_map_of_broken_surroundings_is_an_event_or_a_reason(head: bytes, tail: bytes) -> None:
    """A native event that was cut into or added to is one, or says why not."""
    _maps_or_says_why(Message(head + b'{"keys": ["k"], "version": 12}' + tail))
