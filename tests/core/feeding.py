"""A change feed with a clock in the test's hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import attrs

from proxy.config.load import default_settings
from proxy.config.model import ClassSettings
from proxy.core.feed.feed import Cause, Change, Feed, Subscription
from proxy.values.clock import VERSION_BITS
from proxy.values.rules import Rules

NOW_MS = 1_800_000_000_000
EPOCH = "e1"


class FeedWorld:
    """A feed, whose keys are all watched unless the test says something else."""

    def __init__(self, *classes: ClassSettings, is_watched: bool = True, **settings: Any) -> None:
        self.now_ms = NOW_MS
        self.settings = attrs.evolve(default_settings().push, **settings)
        self.feed = Feed(self.settings, Rules(classes), now_ms=lambda: self.now_ms, epoch=EPOCH)
        if is_watched:
            self.feed.watched([b""])

    def subscribe(self, *channels: str, since: str = "", poll: bool = False) -> Subscription:
        """Listen, greeted at once."""
        subscription = self.feed.subscribe(channels, since, poll=poll)
        subscription.begin()
        return subscription

    def change(self, *keys: bytes, cause: Cause = "write", **more: Any) -> None:
        """Have keys change."""
        self.feed.publish(Change(keys, cause, self.now_ms << VERSION_BITS, self.now_ms, **more))


def take(subscription: Subscription, most: int = 1000) -> list[dict[str, Any]]:
    """Take messages, decoded."""
    return [json.loads(message) for message in subscription.take(most)]


def keys_of(messages: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys of updates, in their order."""
    return [key for message in messages if message["type"] == "update" for key in message["keys"]]
