"""A message as the broker handed it over, whatever carried it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class Message:
    """One message. Header values are what AMQP tables hold: str, bytes, int, float, bool, None, lists, dicts."""

    body: bytes
    routing_key: str = ""
    headers: Mapping[str, Any] = attrs.field(factory=dict)
    content_type: str = ""
    content_encoding: str = ""
    message_id: str = ""
    published_at_ms: int | None = None
    """When the publisher says it was sent, in milliseconds since 1970."""
