"""CloudEvents 1.0: taken out of their envelope, whichever way they were put into the message.

    structured   content type application/cloudevents+json   body {"specversion", "id", "source", "type", "data": ..}
    binary       headers cloudEvents:id, cloudEvents_id       body the data itself

Source: CloudEvents 1.0.2, its JSON format 3, its AMQP binding 3. The attributes are held to no more than what is needed
here: an event without its source still says which keys are out of date. Two more habits are let pass: ce- before the
name of a header, as HTTP has it, and an envelope that is sent as plain JSON.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

import attrs

from proxy.events.event import EventError
from proxy.events.message import Message
from proxy.events.payload import read_json
from proxy.events.templates import Unreadable
from proxy.events.versions import moment_of

_STRUCTURED: Final = "application/cloudevents"
_JSON: Final = "application/cloudevents+json"
_PREFIXES: Final = ("cloudevents:", "cloudevents_", "ce-", "ce_")
_VERSION: Final = "specversion"
_DATA: Final = ("data", "data_base64")


@attrs.frozen
class CloudEvent:
    """What was in the envelope. `attributes` are the rest of it, by their names without a prefix."""

    attributes: Mapping[str, object]
    data: object | Unreadable

    @property
    def id(self) -> str:
        """The attribute `id`, "" where it is none."""
        return self._text("id")

    @property
    def source(self) -> str:
        """Who published it, "" where that is not said."""
        return self._text("source")

    @property
    def at_ms(self) -> int | None:
        """When it was published, in milliseconds since 1970."""
        return moment_of(self._text("time"))

    def _text(self, name: str) -> str:
        value = self.attributes.get(name, "")
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def cloud_event_of(message: Message, body: object | Unreadable) -> CloudEvent | None:
    """Return the CloudEvent that a message is, None when it is none. `body` is its body, read.

    Raises EventError for one that says that it is one and cannot be read as such.
    """
    if message.content_type[: len(_STRUCTURED)].lower() == _STRUCTURED:
        kind = message.content_type.partition(";")[0].strip().lower()
        if kind != _JSON:
            raise EventError(f"the body is {kind}; {_JSON}, one event a message, is wanted")
        if isinstance(body, Unreadable):
            raise EventError(body.reason)
        if not isinstance(body, dict):
            raise EventError("the body is no JSON object, and so no CloudEvent")
        return _opened(body)
    if message.headers and (attributes := _attributes_of(message.headers)) is not None:
        _check(attributes)
        return CloudEvent(attributes, body)
    if isinstance(body, dict) and _VERSION in body and (_DATA[0] in body or _DATA[1] in body):
        return _opened(body)
    return None


def _attributes_of(headers: Mapping[str, object]) -> dict[str, object] | None:
    """Return the attributes among the headers of a message in binary mode, None when there is no specversion."""
    attributes = {}
    for name, value in headers.items():
        lower = name.lower()
        for prefix in _PREFIXES:
            if lower.startswith(prefix):
                text = bytes(value).decode("utf-8", "replace") if isinstance(value, (bytes, bytearray)) else value
                attributes[lower.removeprefix(prefix)] = text
                break
    return attributes if _VERSION in attributes else None


def _opened(envelope: Mapping[str, object]) -> CloudEvent:
    _check(envelope)
    if all(name in envelope for name in _DATA):
        raise EventError("the CloudEvent has both `data` and `data_base64`")
    attributes = {name: value for name, value in envelope.items() if name not in _DATA}
    packed = envelope.get("data_base64")
    if packed is None:
        return CloudEvent(attributes, envelope.get("data"))
    try:
        # ValueError: a text with letters beyond ASCII; TypeError: no text.
        data = read_json(base64.b64decode(packed, validate=True))  # type: ignore[arg-type]
    except (TypeError, binascii.Error):
        return CloudEvent(attributes, Unreadable("`data_base64` of the CloudEvent is no base64"))
    except ValueError as exc:
        return CloudEvent(attributes, Unreadable(f"in `data_base64` of the CloudEvent, {exc}"))
    return CloudEvent(attributes, data)


def _check(attributes: Mapping[str, object]) -> None:
    version = attributes.get(_VERSION)
    if not isinstance(version, str) or not version.startswith("1."):
        raise EventError(f"the CloudEvent is of version {version!r:.20}; 1.0 is wanted")
