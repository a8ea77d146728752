"""A dead letter, as people look at it: what it was, why it died, and how it is sent again.

Owns what is read from a message in the dead letter queue, and the headers that go when it gets a fresh start. Decides
only; `desk.py` fetches, acknowledges and publishes. Headers of ours come from who buried it (`retry.py`); what the
broker itself buried (a queue over its length, a body that was refused) says so in `x-death`.
Source: RabbitMQ, "Dead Letter Exchanges", effects on the message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC
from typing import Any, Final

import attrs
from pamqp.commands import Basic

from proxy.amqp.deliveries import Delivery
from proxy.events.message import Message
from proxy.events.versions import moment_of

REASON: Final = "respite-reason"
ROUTING_KEY: Final = "respite-routing-key"
EXCHANGE: Final = "respite-exchange"
ATTEMPT: Final = "respite-attempt"

_OURS: Final = "respite-"
# What earlier lives left behind: with our count of attempts it would be buried again at once, with the broker's notes
# it would be taken for a message that goes round in circles, and with CC it would go to more queues than one.
_HISTORY: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_COPIES: Final = frozenset({"CC", "BCC"})
ID_DIGITS: Final = 10
"""Of an id, in hex: of 10,000 letters, two that differ share one in one queue of 20,000."""


@attrs.frozen
class Letter:
    """A message of the dead letter queue. `message` is as it was first published, with the headers it has now."""

    number: int
    """Its place in the queue, from 1, the oldest first."""
    id: str
    """The same as long as it lies there, whatever goes from the queue before it; equal letters have one id."""
    reason: str
    exchange: str
    attempts: int | None
    """How often it was tried again; None where nobody counted."""
    size_bytes: int
    message: Message
    fault: str = ""
    """Why its content cannot be had here: too large, or damaged. Its body and headers are empty then."""


@attrs.frozen
class Selection:
    """Which letters are meant: by place or by id; with neither, all. Of these the first `most`, None for no bound."""

    numbers: frozenset[int] = frozenset()
    ids: frozenset[str] = frozenset()
    most: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Say whether a letter is meant; `most` is for who counts."""
        if not (self.numbers or self.ids):
            return True
        return letter.number in self.numbers or letter.id in self.ids

    def last(self, total: int) -> int:
        """Return the place after which no letter of a queue of `total` is meant."""
        return min(total, max(self.numbers)) if self.numbers and not self.ids else total


def message_of(delivery: Delivery) -> Message:
    """Return what a delivery carries."""
    properties = delivery.properties
    return Message(
        body=delivery.body,
        routing_key=delivery.routing_key,
        headers=properties.headers or {},
        content_type=properties.content_type or "",
        content_encoding=properties.content_encoding or "",
        message_id=properties.message_id or "",
        published_at_ms=_published_at_ms(properties),
    )


def read_letter(number: int, delivery: Delivery) -> Letter:
    """Read a message of the dead letter queue; every message is one."""
    headers = delivery.properties.headers or {}
    latest, first = _deaths(headers)
    keys = first.get("routing-keys")
    earlier = keys[0] if isinstance(keys, list) and keys else delivery.routing_key
    exchange = name_in(headers.get(EXCHANGE, first.get("exchange", delivery.exchange)))
    reason = delivery.fault or _text(headers.get(REASON)) or _broker_reason(latest)
    attempts = headers.get(ATTEMPT)
    message = attrs.evolve(message_of(delivery), routing_key=name_in(headers.get(ROUTING_KEY, earlier)))
    return Letter(
        number=number,
        id=_id_of(message, exchange, reason),
        reason=reason,
        exchange=exchange,
        attempts=attempts if isinstance(attempts, int) else None,
        size_bytes=len(delivery.body),
        message=message,
        fault=delivery.fault,
    )


def name_in(value: object) -> str:
    """Return a routing key or the name of an exchange that stands in a header, as those are read that do not."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes | bytearray) else _text(value)


def fresh_headers(letter: Letter) -> dict[str, Any]:
    """Return the headers of a letter that is sent again: its own, and where it was published first."""
    own = {
        name: value
        for name, value in letter.message.headers.items()
        if name not in _COPIES and not name.startswith((_OURS, *_HISTORY))
    }
    return own | {ROUTING_KEY: letter.message.routing_key, EXCHANGE: letter.exchange}


def _deaths(headers: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return what the broker noted when the message died the last time, and the first; it puts the latest in front."""
    deaths = headers.get("x-death")
    notes = [one for one in deaths if isinstance(one, dict)] if isinstance(deaths, list) else []
    return (notes[0], notes[-1]) if notes else ({}, {})


def _broker_reason(death: Mapping[str, Any]) -> str:
    if not death:
        return "unknown: whoever put it there gave no reason"
    return f"the broker: {_text(death.get('reason'))} in the queue {_text(death.get('queue'))}"


def _published_at_ms(properties: Basic.Properties) -> int | None:
    stamp, when = (properties.headers or {}).get("timestamp_in_ms"), properties.timestamp
    found = moment_of(stamp) if type(stamp) is int else None
    if found is None and when is not None:
        found = moment_of(int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000))
    return found


def _id_of(message: Message, exchange: str, reason: str) -> str:
    headers = sorted((name, repr(value)) for name, value in message.headers.items() if not name.startswith("x-"))
    digest = hashlib.blake2b(digest_size=ID_DIGITS // 2)
    for part in (message.routing_key, exchange, reason, message.message_id, headers, message.body):
        raw = part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogatepass")
        digest.update(b"%d:%b" % (len(raw), raw))
    return digest.hexdigest()


def _text(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    return "" if value is None else str(value)
