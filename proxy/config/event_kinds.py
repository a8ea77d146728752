"""The kinds of value that only [amqp] and [[event]] have, as `kinds.py` has those of the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeGuard

from proxy.config.endpoint import AmqpEndpoint, parse_amqp_url
from proxy.config.event_templates import EACH, EventTemplate, parse_key, parse_pattern, parse_text
from proxy.config.kinds import Kind, glob_flaws, is_list, is_text, read_texts
from proxy.config.topics import check_topic

# Retry queues are named after the queue: with what they add, it is still a short string of AMQP, 255 bytes.
_NAME_BYTES_MAX: Final = 200
# What the broker itself owns; it refuses to have a queue or an exchange declared under such a name.
_RESERVED: Final = "amq."
_BUILT_IN_EXCHANGE: Final = "amq.topic"
# As many as a glob of a class may have.
_TEMPLATE_BYTES_MAX: Final = 512


def broker_urls() -> Kind:
    """Accept the URL of a broker, a list of those of one cluster, or "" for none."""

    def read(value: object) -> tuple[AmqpEndpoint, ...]:
        if value == "":
            return ()
        urls = read_texts(value if is_list(value) else [value])
        if not urls:
            raise ValueError('"" is no broker, an empty list may be a slip')
        brokers = tuple(parse_amqp_url(url) for url in urls)
        if len({(broker.host, broker.port) for broker in brokers}) != len(brokers):
            raise ValueError("an address is named twice")
        if len({broker.vhost for broker in brokers}) > 1:
            raise ValueError("brokers of one cluster have the queue in the same vhost")
        return brokers

    return Kind('an amqp:// or amqps:// URL, a list of them for one cluster, or "" for no broker', read)


def exchange_name() -> Kind:
    """Accept the name of a topic exchange: ours, or the one that every broker has."""
    return _name("exchange", _BUILT_IN_EXCHANGE)


def queue_name() -> Kind:
    """Accept the name of a queue, short enough for others to be named after it."""
    return _name("queue")


def _name(what: str, *built_in: str) -> Kind:
    def read(value: object) -> str:
        if not is_text(value) or not 1 <= len(value.encode()) <= _NAME_BYTES_MAX or not value.isprintable():
            raise ValueError
        if value.startswith(_RESERVED) and value not in built_in:
            raise ValueError(f"names that begin with {_RESERVED} are the broker's own")
        return value

    return Kind(f"the name of a {what}, 1 to {_NAME_BYTES_MAX} printable bytes", read)


def topic() -> Kind:
    """Accept a topic pattern."""

    def read(value: object) -> str:
        if not is_text(value):
            raise ValueError
        return check_topic(value)

    return Kind('a topic pattern, such as "ticket.*" or "#"', read)


def topics() -> Kind:
    """Accept a list of topic patterns, at least one."""

    def read(value: object) -> tuple[str, ...]:
        found = read_texts(value)
        if not found:
            raise ValueError('without one no event comes; ["#"] has them all come')
        return _distinct(tuple(map(check_topic, found)))

    return Kind('a list of topic patterns, such as ["ticket.*"] or ["#"]', read)


def scopes() -> Kind:
    """Accept a table from globs over publishers to globs over keys."""

    def read(value: object) -> tuple[tuple[str, tuple[str, ...]], ...]:
        if not _is_table(value):
            raise ValueError
        return tuple((_glob(publisher), _keys_of(publisher, globs)) for publisher, globs in value.items())

    return Kind('a table of publishers and the globs of their keys, such as { "orders-*" = ["order:*"] }', read)


def _is_table(value: object) -> TypeGuard[Mapping[str, object]]:
    return isinstance(value, dict)


def _keys_of(publisher: str, globs: object) -> tuple[str, ...]:
    if not is_list(globs) or not globs or not all(map(is_text, globs)):
        raise ValueError(f"of {publisher!r} a list of globs is wanted, at least one")
    return _distinct(tuple(map(_glob, read_texts(globs))))


def _glob(text: str) -> str:
    if flaw := next(glob_flaws(text), ""):
        raise ValueError(flaw)
    return text


def keys() -> Kind:
    """Accept a list of templates of keys."""
    return _templates('a list of keys, such as ["ticket:{body.id}"]', parse_key)


def patterns() -> Kind:
    """Accept a list of templates of globs."""
    return _templates('a list of globs, such as ["list:{body.queueId}:*"]', parse_pattern)


def tags() -> Kind:
    """Accept a list of templates of tags."""
    return _templates('a list of tags, such as ["ticket-{body.id}"]', parse_text)


def _templates(allowed: str, parse: Callable[[str], EventTemplate]) -> Kind:
    def read(value: object) -> tuple[EventTemplate, ...]:
        return tuple(parse(_sized(text)) for text in _distinct(read_texts(value)))

    return Kind(allowed, read)


def version() -> Kind:
    """Accept a template that becomes one version, or "" for none."""

    def read(value: object) -> EventTemplate | None:
        template = _optional(value)
        if template is not None:
            if not template.references:
                raise ValueError("a version that is the same for all events makes all but the first of them old")
            if any(EACH in reference.path for reference in template.references):
                raise ValueError("an event has one version; [] would make many of it")
        return template

    return Kind('a template of the version, such as "{body.updatedAt}", or "" for none', read)


def channel() -> Kind:
    """Accept a template of push channels, or "" for none."""
    return Kind('a template of a push channel, such as "queue:{body.queueId}", or "" for none', _optional)


def _optional(value: object) -> EventTemplate | None:
    if not is_text(value):
        raise ValueError
    return parse_text(_sized(value)) if value else None


def _sized(text: str) -> str:
    if not text or len(text.encode()) > _TEMPLATE_BYTES_MAX:
        raise ValueError(f"each has from 1 to {_TEMPLATE_BYTES_MAX} bytes")
    return text


def _distinct(texts: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(texts)) != len(texts):
        raise ValueError("one stands twice")
    return texts
