"""CloudEvents, taken out of their envelope."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from proxy.config.event_templates import parse_key
from proxy.config.model import EventRule
from proxy.events.event import Event, EventError
from proxy.events.mapping import Mapper
from proxy.events.message import Message

AT_MS = 1732272000000
ENVELOPE: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "/tickets",
    "type": "ticket.updated",
    "subject": "7",
    "time": "2024-11-22T10:40:00Z",
}
STRUCTURED = "application/cloudevents+json"
RULES = (EventRule("ticket.*", keys=(parse_key("ticket:{body.id}"), parse_key("s:{headers.subject}"))),)


def _structured(content_type: str = STRUCTURED, **more: object) -> Message:
    return Message(json.dumps(ENVELOPE | more).encode(), "ticket.updated", content_type=content_type)


def _binary(body: bytes, prefix: str = "cloudEvents:", **more: object) -> Message:
    headers = {f"{prefix}{name}": value for name, value in (ENVELOPE | more).items()}
    return Message(body, "ticket.updated", headers, "application/json")


NATIVE = Event((b"k",), id="e-1", publisher="/tickets", at_ms=AT_MS)


@pytest.mark.parametrize(
    "message",
    [
        _structured(data={"keys": ["k"]}),
        _structured("Application/CloudEvents+JSON; charset=utf-8", data={"keys": ["k"]}),
        _structured("application/json", data={"keys": ["k"]}),
        _structured("", data={"keys": ["k"]}),
        _structured(data_base64=base64.b64encode(b'{"keys": ["k"]}').decode()),
        _structured(data={"keys": ["k"], "seq": None}, data_base64_=1),
        _binary(b'{"keys": ["k"]}'),
        _binary(b'{"keys": ["k"]}', "cloudEvents_"),
        _binary(b'{"keys": ["k"]}', "CLOUDEVENTS:"),
        _binary(b'{"keys": ["k"]}', "ce-"),
    ],
)
def test_map_cloud_event_of_a_native_one_is_that_event(message: Message) -> None:
    """In either mode the data is the event; id, publisher and time are those of the envelope."""
    assert Mapper().map(message) == NATIVE
    assert Mapper().explain(message)["taken_for"] == "CloudEvent, native event"


def test_map_cloud_event_says_of_itself_goes_first() -> None:
    """What the native event says itself goes before what its envelope says."""
    data = {"keys": ["k"], "id": "n", "publisher": "p", "seq": 4, "at": AT_MS + 1, "version": AT_MS}
    event = Mapper().map(_structured(data=data))

    assert event == Event((b"k",), version=AT_MS << 16 | 0xFFFF, id="n", publisher="p", seq=4, at_ms=AT_MS + 1)


@pytest.mark.parametrize("message", [_structured(data={"id": 9}), _binary(b'{"id": 9}', subject=b"7")])
def test_map_cloud_event_of_anything_else_goes_by_rules(message: Message) -> None:
    """To a rule the data is the body, and each attribute is a header of its bare name."""
    explained = Mapper(RULES).explain(message)

    assert (explained["keys"], explained["taken_for"]) == (["ticket:9", "s:7"], "CloudEvent, rule 1 (ticket.*)")
    assert (explained["id"], explained["publisher"], explained["at_ms"]) == ("e-1", "/tickets", AT_MS)


def test_map_cloud_event_without_data_goes_by_rules_that_need_none() -> None:
    """An event that is all attributes still names keys."""
    rules = (EventRule("#", keys=(parse_key("s:{headers.subject}"),)),)

    assert Mapper(rules).map(_structured()).keys == (b"s:7",)


def test_map_cloud_event_of_a_broken_time_is_one_of_unknown_time() -> None:
    """The time only feeds figures: the message's own stands in for it."""
    assert Mapper().map(_structured(data={"keys": ["k"]}, time="soon")).at_ms is None


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (_structured("application/cloudevents-batch+json"), "one event a message"),
        (_structured("application/cloudevents+avro"), "application/cloudevents[+]json, one event"),
        (Message(b"{", content_type=STRUCTURED), "the body is no JSON"),
        (Message(b"[]", content_type=STRUCTURED), "no JSON object"),
        (Message(b"{}", content_type=STRUCTURED), "version None; 1.0 is wanted"),
        (_structured(specversion="0.3", data={"keys": ["k"]}), "version '0.3'; 1.0 is wanted"),
        (_structured(specversion=1, data={"keys": ["k"]}), "version 1; 1.0 is wanted"),
        (_binary(b'{"keys": ["k"]}', specversion="2.0"), "version '2.0'; 1.0 is wanted"),
        (_structured(data={"keys": ["k"]}, data_base64="e30="), "both `data` and `data_base64`"),
        (_structured(data_base64="!"), "is no base64"),
        (_structured(data_base64="\u00e4"), "is no base64|beyond ASCII|ASCII"),
        (_structured(data_base64=7), "is no base64"),
        (_structured(data_base64="e30"), "is no base64"),
        (_structured(data_base64="ew=="), "in `data_base64` of the CloudEvent, the body is no JSON"),
        (_structured(data={"keys": "k"}), "`keys` is a list of strings"),
        (_structured(data={"id": 1}), "no .* takes the routing key 'ticket.updated'"),
        (_structured(data="{}"), "no .* takes the routing key"),
    ],
)
def test_map_cloud_event_that_cannot_be_read_says_why(message: Message, words: str) -> None:
    """An envelope that is broken, or holds nothing that can be acted on, is refused with the reason."""
    with pytest.raises(EventError, match=words):
        Mapper().map(message)
