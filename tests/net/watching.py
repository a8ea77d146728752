"""A change watch in front of a real server, and subscribers that say what they were told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import trio

from proxy.config.load import default_settings
from proxy.config.model import ClassSettings, parse_endpoint
from proxy.core.feed.feed import Feed, Subscription
from proxy.net.changes.change_watch import ChangeWatch
from proxy.net.links.dial import Upstream
from proxy.values.rules import Rules

from .peer import until

SILENT_S = 0.6


class Listener:
    """One subscriber, and all that it has been told."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.messages: list[dict[str, Any]] = []

    def take(self) -> list[dict[str, Any]]:
        """Take what has come; return all so far."""
        self.messages += [json.loads(message) for message in self.subscription.take(100_000)]
        return self.messages

    @property
    def updates(self) -> list[tuple[str, list[str]]]:
        """The updates so far, as (cause, keys)."""
        return [(one["cause"], one["keys"]) for one in self.take() if one["type"] == "update"]

    @property
    def losses(self) -> list[str]:
        """Why something may have been missed, so far."""
        return [one.get("why", str(one["count"])) for one in self.take() if one["type"] == "lost"]

    async def told(self, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many messages since the last call, and return them; there are no more."""
        await until(lambda: len(self.take()) >= count, f"{count} messages, not {self.messages}")
        messages, self.messages = self.messages, []
        assert len(messages) == count, messages
        return messages

    async def causes(self, count: int = 1) -> list[tuple[str, list[str]]]:
        """Wait for so many updates, and return them as (cause, keys)."""
        return [(one.get("cause", one["type"]), one.get("keys", [])) for one in await self.told(count)]


class Watching:
    """A feed with its watch."""

    def __init__(self, url: str, *classes: ClassSettings) -> None:
        self.feed = Feed(default_settings().push, Rules(classes), now_ms=lambda: time.time_ns() // 1_000_000, epoch="e")
        self.watch = ChangeWatch(self.feed, Upstream(parse_endpoint(url), None, 2.0, 2.0), silent_s=SILENT_S)

    async def listen(self, *channels: str) -> Listener:
        """Listen; return once every change is heard of."""
        subscription = self.feed.subscribe(channels)
        await until(lambda: subscription.is_watched, f"{channels} are watched: {self.watch.report()}")
        subscription.begin()
        return Listener(subscription)

    async def reaches(self, state: str) -> None:
        """Wait for a state of the watch."""
        await until(lambda: self.watch.state == state, f"{state}, not {self.watch.report()}")


Watch = Callable[..., Watching]


async def quiet(seconds: float = 0.05) -> None:
    """Give what should not come the time to come."""
    await trio.sleep(seconds)
