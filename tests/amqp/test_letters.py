"""Dead letters: what is read from a message, and with what it is sent again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp.commands import Basic

from proxy.amqp.deliveries import Delivery
from proxy.amqp.letters import Selection, fresh_headers, message_of, read_letter


def _delivery(headers: dict[str, Any] | None = None, body: bytes = b"{}", **properties: Any) -> Delivery:
    return Delivery(1, False, "", "dead", body, Basic.Properties(headers=headers, **properties))


_OURS = {
    "respite-reason": "the body is no JSON",
    "respite-routing-key": "ticket.updated",
    "respite-exchange": "events",
    "respite-attempt": 5,
}
_BY_BROKER = {
    "x-death": [
        {"reason": "maxlen", "queue": "q", "exchange": "", "routing-keys": ["q"], "count": 1},
        {"reason": "expired", "queue": "q.retry", "exchange": "events", "routing-keys": ["ticket.created"], "count": 3},
    ],
    "x-first-death-queue": "q.retry",
    "x-last-death-reason": "maxlen",
}


def test_letter_we_buried_says_what_it_was_and_why_it_died() -> None:
    """Our headers stand above the queue's name, which is the routing key a dead letter comes with."""
    letter = read_letter(3, _delivery(_OURS))

    assert (letter.number, letter.reason, letter.exchange, letter.attempts) == (3, "the body is no JSON", "events", 5)
    assert letter.message.routing_key == "ticket.updated"


def test_letter_the_broker_buried_is_read_from_its_notes() -> None:
    """The latest death is the reason; the first one knows how the message was published."""
    letter = read_letter(1, _delivery(_BY_BROKER))

    assert letter.reason == "the broker: maxlen in the queue q"
    assert (letter.exchange, letter.message.routing_key, letter.attempts) == ("events", "ticket.created", None)


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"x-death": 3},
        {"x-death": []},
        {"x-death": [3, None]},
        {"x-death": [{"routing-keys": 1}]},
        {"x-death": [{"routing-keys": [], "reason": b"\xff"}]},
        {"respite-attempt": "five", "respite-reason": 7, "respite-routing-key": b"\xff", "respite-exchange": None},
    ],
)
def test_letter_with_odd_headers_is_a_letter(headers: dict[str, Any] | None) -> None:
    """Whatever somebody put there, it can be looked at and sent again."""
    letter = read_letter(1, _delivery(headers))

    assert letter.reason
    assert isinstance(letter.message.routing_key, str)
    assert isinstance(fresh_headers(letter)["respite-routing-key"], str)


def test_letter_whose_content_did_not_come_says_so() -> None:
    """What could not be taken is its reason: there is no body to look at."""
    letter = read_letter(1, Delivery(1, False, "", "dead", b"", Basic.Properties(), 0, "it has too many bytes"))

    assert (letter.fault, letter.reason) == ("it has too many bytes", "it has too many bytes")


def test_fresh_headers_keep_the_publisher_s_and_forget_earlier_lives() -> None:
    """Attempts, reason and the broker's notes go; where it was published first stays."""
    headers = _OURS | _BY_BROKER | {"respite-due-at-ms": 1, "CC": ["other"], "x-mine": 1, "h": b"\xff"}

    assert fresh_headers(read_letter(1, _delivery(headers))) == {
        "respite-routing-key": "ticket.updated",
        "respite-exchange": "events",
        "x-mine": 1,
        "h": b"\xff",
    }


def test_id_is_the_same_wherever_the_letter_lies() -> None:
    """Neither its place nor the broker's counting of deliveries changes an id; what it says does."""
    one = read_letter(1, _delivery(_OURS))

    assert read_letter(9, _delivery(_OURS | {"x-delivery-count": 2})).id == one.id
    others = [
        _delivery(_OURS, body=b"{} "),
        _delivery(_OURS | {"h": 1}),
        _delivery(_OURS, message_id="m"),
        _delivery(_OURS | {"respite-reason": "another"}),
    ]
    assert len({one.id, *(read_letter(1, other).id for other in others)}) == 5


@pytest.mark.parametrize(
    ("headers", "timestamp", "expected"),
    [
        ({"timestamp_in_ms": 1732272000123}, datetime(2024, 1, 1, tzinfo=UTC), 1732272000123),
        ({"timestamp_in_ms": "x"}, datetime(2024, 11, 22, 10, 40, tzinfo=UTC), 1732272000000),
        (None, datetime(2024, 11, 22, 10, 40), 1732272000000),
        (None, None, None),
        ({"timestamp_in_ms": 1732272000}, datetime(2024, 11, 22, 10, 40, tzinfo=UTC), 1732272000000),
        ({"timestamp_in_ms": -1}, datetime(1970, 1, 1, tzinfo=UTC), None),
    ],
)
def test_message_knows_when_it_was_published(
    headers: dict[str, Any] | None, timestamp: datetime | None, expected: int | None
) -> None:
    """Milliseconds stand above seconds; a moment without a zone is UTC; what was never set is none."""
    assert message_of(_delivery(headers, timestamp=timestamp)).published_at_ms == expected


def test_selection_of_places_ends_at_the_last_of_them() -> None:
    """No further than needed is looked; an id may lie anywhere."""
    letter = read_letter(3, _delivery(_OURS))

    assert Selection(frozenset({2, 3})).last(10) == 3
    assert Selection(frozenset({2, 30})).last(10) == 10
    assert Selection(frozenset({2}), frozenset({letter.id})).last(10) == 10
    assert Selection().takes(letter)
    assert Selection(frozenset({3})).takes(letter)
    assert Selection(ids=frozenset({letter.id})).takes(letter)
    assert not Selection(frozenset({2})).takes(letter)
