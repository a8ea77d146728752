"""From a message to the event it is: a CloudEvent, a native event, or what an [[event]] rule makes of it.

    message --unpack, JSON--> body --CloudEvent? its data--> keys or patterns in it? ---------------> native
                                                             tags alone, and no rule takes the key --> native
                                                             a rule takes the routing key ----------> its templates

Owns the order in which a message is taken for one or the other, and what it is told that it is none. An object with
`tags` and nothing else of ours is as well something of the publisher's own, such as a ticket with its tags: where a
rule takes its routing key the rule holds, and the tags are dropped besides; too much is safe, too little is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from proxy.config.event_templates import EventTemplate
from proxy.config.model import EventRule
from proxy.events.cloudevents import CloudEvent, cloud_event_of
from proxy.events.event import EVENT_FIELDS, Event, EventError, event_of, with_trace
from proxy.events.message import Message
from proxy.events.payload import read_json, unpack
from proxy.events.templates import NAMES_MAX, Source, Unreadable, expand
from proxy.events.topics import takes
from proxy.events.versions import version_of
from proxy.values.clock import VERSION_BITS

# Routing keys whose rule is remembered. More, and they are forgotten at once: publishers that put ids into routing
# keys have no use for it, all others few of them.
_REMEMBERED: Final = 4096
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@attrs.frozen
class _Around:
    """What the message around a body says, where that says nothing itself."""

    routing_key: str
    headers: Mapping[str, object]
    id: str
    publisher: str
    at_ms: int | None


class Mapper:
    """Says which event a message is. Of the rules, the first whose pattern takes the routing key holds."""

    def __init__(self, rules: Sequence[EventRule] = ()) -> None:
        self.take(rules)

    def take(self, rules: Sequence[EventRule]) -> None:
        """Go by these rules from now on."""
        self._rules = tuple(rules)
        self._number_of: dict[str, int] = {}

    def map(self, message: Message) -> Event:
        """Return what a message makes wrong. Raises EventError, with a reason for people, and nothing else.

        A rule whose lists are empty makes an event that names nothing: there is nothing to do, which is no mistake.
        """
        return self._read(message)[0]

    def explain(self, message: Message) -> dict[str, Any]:
        """Say what a message is taken for and makes wrong: "taken_for" is "" where it is nothing, and "reason" why.

        Names are texts, bytes that are no UTF-8 in them are escaped; "version_at" is the moment of the version.
        """
        try:
            event, taken_for = self._read(message)
            reason = ""
        except EventError as exc:
            event, taken_for, reason = Event(), "", str(exc)
        facts: dict[str, Any] = {"taken_for": taken_for, "reason": reason}
        facts |= {name: [_shown(one) for one in getattr(event, name)] for name in ("keys", "patterns", "tags")}
        facts |= {name: getattr(event, name) for name in ("db", "version", "id", "publisher", "seq", "at_ms")}
        at = None if event.version is None else _EPOCH + timedelta(milliseconds=event.version >> VERSION_BITS)
        facts["version_at"] = at and at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {**facts, "then_publish": list(event.then_publish)}

    def _read(self, message: Message) -> tuple[Event, str]:
        body: object | Unreadable
        try:
            body = read_json(unpack(message.body, message.content_encoding))
        except ValueError as exc:
            body = Unreadable(str(exc))
        cloud = cloud_event_of(message, body)
        if cloud is None:
            around = _Around(message.routing_key, message.headers, message.message_id, "", message.published_at_ms)
            event, taken_for = self._taken(body, around)
        else:
            around = _around(cloud, message)
            event, taken_for = self._taken(cloud.data, around)
            taken_for = f"CloudEvent, {taken_for}"
        if len(event.keys) + len(event.patterns) + len(event.tags) > NAMES_MAX:
            raise EventError(f"it names more than {NAMES_MAX} keys, patterns and tags; send it in parts")
        return with_trace(event, around.headers.get("traceparent")), taken_for

    def _taken(self, body: object | Unreadable, around: _Around) -> tuple[Event, str]:
        fields = body if isinstance(body, dict) else {}
        if "keys" in fields or "patterns" in fields:
            return _native(fields, around), "native event"
        number = self._find(around.routing_key)
        if "tags" not in fields:
            if number == 0:
                raise EventError(self._why_nothing(body, around.routing_key))
            return self._by_rule(number, body, around)
        if number == 0:
            return _native(fields, around), "native event"
        try:
            event, taken_for = self._by_rule(number, body, around)
        except EventError:
            if fields.keys() - EVENT_FIELDS:
                raise
            return _native(fields, around), "native event"
        try:
            own = _native(fields, around)
        except EventError:
            return event, taken_for
        tags = tuple(dict.fromkeys(event.tags + own.tags))
        merged = attrs.evolve(own, keys=event.keys, patterns=event.patterns, tags=tags, version=event.version)
        return attrs.evolve(merged, then_publish=event.then_publish), f"{taken_for} and its own tags"

    def _find(self, routing_key: str) -> int:
        """Return the number of the rule that takes a routing key, from 1; 0 for none."""
        number = self._number_of.get(routing_key)
        if number is None:
            taking = (at for at, rule in enumerate(self._rules, 1) if takes(rule.routing_key, routing_key))
            number = next(taking, 0)
            if len(self._number_of) >= _REMEMBERED:
                self._number_of.clear()
            self._number_of[routing_key] = number
        return number

    def _by_rule(self, number: int, body: object | Unreadable, around: _Around) -> tuple[Event, str]:
        rule = self._rules[number - 1]
        name = f"[[event]] {number} ({rule.routing_key})"
        source = Source(around.routing_key, around.headers, body)
        part = ""
        try:
            part = "keys"
            keys = _names(rule.keys, source)
            part = "patterns"
            patterns = _names(rule.patterns, source, is_glob=True)
            part = "tags"
            tags = _names(rule.tags, source)
            part = "version"
            version = None if rule.version is None else _version(rule.version, source)
            part = "then_publish"
            channels = () if rule.then_publish is None else _channels(rule.then_publish, source)
        except EventError as exc:
            raise EventError(f"{exc}; `{part}` of {name} needs it") from None
        event = Event(keys, patterns, tags, None, version, around.id, around.publisher, None, around.at_ms, channels)
        return event, f"rule {number} ({rule.routing_key})"

    def _why_nothing(self, body: object | Unreadable, routing_key: str) -> str:
        what = (
            body.reason if isinstance(body, Unreadable) else "it is no native event: it has no keys, patterns or tags"
        )
        return f"{what}; and no [[event]] takes the routing key {routing_key!r:.100}"


def _around(cloud: CloudEvent, message: Message) -> _Around:
    """Return what holds for the data of a CloudEvent: its attributes are headers too, by their bare names."""
    at_ms = cloud.at_ms
    return _Around(
        message.routing_key,
        {**cloud.attributes, **message.headers},
        cloud.id or message.message_id,
        cloud.source,
        message.published_at_ms if at_ms is None else at_ms,
    )


def _native(fields: dict[str, object], around: _Around) -> Event:
    return event_of(fields, message_id=around.id, publisher=around.publisher, at_ms=around.at_ms)


def _names(templates: Iterable[EventTemplate], source: Source, *, is_glob: bool = False) -> tuple[bytes, ...]:
    names: dict[bytes, None] = {}
    for template in templates:
        for text in expand(template, source, is_glob=is_glob):
            try:
                names[text.encode("utf-8", "surrogateescape")] = None
            except UnicodeEncodeError:
                raise EventError(f"`{template.text}` becomes half a surrogate pair, which is no text") from None
    return tuple(names)


def _channels(template: EventTemplate, source: Source) -> tuple[str, ...]:
    channels = dict.fromkeys(expand(template, source))
    return tuple(channel.encode("utf-8", "replace").decode() for channel in channels)


def _version(template: EventTemplate, source: Source) -> int | None:
    """Return the newest version that a template becomes: it takes with it whatever an older one would."""
    try:
        versions = [version_of(text) for text in expand(template, source)]
    except EventError:
        raise
    except ValueError as exc:
        raise EventError(f"`{template.text}` {exc}") from None
    return None if None in versions else max((version for version in versions if version is not None), default=None)


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
