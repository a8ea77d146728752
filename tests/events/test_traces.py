"""Which trace an event is part of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.config.event_templates import parse_key
from proxy.config.model import EventRule
from proxy.events.event import Event, with_trace
from proxy.events.mapping import Mapper
from proxy.events.message import Message

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BODY = b'{"keys": ["k"]}'
CLOUD = {"specversion": "1.0", "type": "t", "source": "s", "id": "1", "data": {"keys": ["k"]}}


@pytest.mark.parametrize(
    ("body", "given"),
    [
        (BODY, {"headers": {"traceparent": TRACE}}),
        (json.dumps(CLOUD | {"traceparent": TRACE}).encode(), {"content_type": "application/cloudevents+json"}),
        (
            BODY,
            {
                "headers": {
                    **{f"cloudEvents:{name}": CLOUD[name] for name in ("specversion", "type", "source", "id")},
                    "cloudEvents:traceparent": TRACE,
                }
            },
        ),
        (b'{"id": 7}', {"headers": {"traceparent": TRACE}, "routing_key": "ticket.changed"}),
    ],
    ids=["native", "CloudEvent", "CloudEvent in binary mode", "rule"],
)
def test_trace_is_that_of_the_message(body: bytes, given: dict[str, Any]) -> None:
    """In the header, or in the attribute that CloudEvents have for it; however the message is understood."""
    rule = EventRule("ticket.*", keys=(parse_key("ticket:{body.id}"),))

    assert Mapper([rule]).map(Message(body, **given)).trace == TRACE


@pytest.mark.parametrize("header", [None, "", 7, b"00-1", "0" * 129, ["00-1"]])
def test_header_that_is_no_trace_is_let_be(header: object) -> None:
    """It makes an event neither wrong nor another one."""
    headers = {} if header is None else {"traceparent": header}

    assert Mapper([]).map(Message(BODY, headers=headers)) == with_trace(Event((b"k",)), header) == Event((b"k",))
