"""What a request and its answer are, between the sockets and whoever decides.

Owns the shapes, and how a refusal is worded: JSON with `error`, what is wrong, and `help`, what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import trio

from proxy.config.model import PushToken
from proxy.core.feed.feed import Subscription
from proxy.log import short

JSON: Final = "application/json"


@attrs.frozen
class Request:
    """A whole request. Header names are lower case. `hurry` is set when its answer must not be waited for any more."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    hurry: trio.Event = attrs.field(factory=trio.Event, eq=False, repr=False)

    @property
    def path(self) -> str:
        """What is asked for, without its query. Raises ValueError where the target is no URL."""
        path = self.target.partition("?")[0]
        # The absolute form, which proxies send; RFC 9112 3.2.2.
        return urlsplit(path).path or "/" if "://" in path else path


@attrs.frozen
class Response:
    """A whole answer. `after`, if given, runs once the bytes are on their way: what ends the port is answered first."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    after: Callable[[], None] | None = None
    cache_control: str = "no-store"


class Kind(Enum):
    """How a stream's messages are framed."""

    WEBSOCKET = "WebSocket"
    EVENTS = "server-sent events"


@attrs.frozen
class Streaming:
    """An answer that goes on until one side ends it: `head` is sent, and the connection is the stream's.

    `may_hear` says of a channel whether the peer may listen to it, should it ask for more; `token` is the push token
    that it came with, None where it may hear everything.
    """

    kind: Kind
    head: bytes
    subscription: Subscription
    may_hear: Callable[[str], bool]
    token: PushToken | None = None


def refusal(status: int, error: str, help_text: str, **more: object) -> Response:
    """Make the answer to what cannot be served: what is wrong, what to do."""
    return in_json({"error": error, "help": help_text, **more}, status=status)


def in_json(body: Mapping[str, Any], *, status: int = 200) -> Response:
    """Make an answer of a body that JSON can say. Raises ValueError for NaN, a mistake to be seen in a test."""
    text = json.dumps(body, default=_as_text, allow_nan=False)
    return Response(status, JSON, text.encode() + b"\n")


def _as_text(value: object) -> str:
    return short(value) if isinstance(value, bytes) else str(value)
