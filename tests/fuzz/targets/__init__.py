"""What is fuzzed, by name."""

from __future__ import annotations

from typing import Final

from ..target import Target
from . import amqp, envelopes, events, exchanged, globs, replies, requests, settings, templates, web

_ALL: Final = (
    *(requests.REQUESTS, replies.REPLIES, replies.GREETING, envelopes.STREAM, envelopes.ENVELOPE, envelopes.SEALING),
    *(amqp.FRAMES, amqp.HANDSHAKE, amqp.FIELDS, events.EVENTS, web.HTTP, web.WEBSOCKET),
    *(settings.TOML, globs.GLOBS, templates.TEMPLATES, exchanged.CHANGES, exchanged.NOTICES, exchanged.CHANNEL),
)

TARGETS: Final[dict[str, Target]] = {target.name: target for target in _ALL}
