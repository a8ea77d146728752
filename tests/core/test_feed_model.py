"""The change feed against a model that keeps everything: whatever happens in whatever order.

For each subscriber: nothing twice, everything in order, and nothing missing that it was not told of.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from proxy.core.feed.feed import Subscription

from .feeding import FeedWorld, take

KEYS = [b"a:1", b"a:2", b"b:1", b"b:2", b"c"]
CHANNELS = ["a:1", "a:2", "b:1", "c", "a:*", "b:*", "*:1", "*"]
BUFFER_BYTES = 3000
"""A dozen messages: much of what is not taken at once is lost."""

MATCHES: dict[str, Callable[[bytes], bool]] = {
    "a:*": lambda key: key.startswith(b"a:"),
    "b:*": lambda key: key.startswith(b"b:"),
    "*:1": lambda key: key.endswith(b":1"),
    "*": lambda _: True,
}


def is_about(channel: str, key: bytes) -> bool:
    """Say whether a channel is told of a key, in the plainest way."""
    return MATCHES[channel](key) if channel in MATCHES else channel.encode() == key


@attrs.define(eq=False)
class Client:
    """One who listens, and what has happened for him: (number of the change, channel)."""

    subscription: Subscription
    channels: set[str]
    owed: list[tuple[int, str]] = attrs.field(factory=list)
    is_lost: bool = False
    """Anything may be missing that was owed up to now."""


class Model:
    """A feed and its clients, of which some are away with a cursor."""

    def __init__(self) -> None:
        self.world = FeedWorld(buffer_bytes=BUFFER_BYTES)
        self.clients: list[Client] = []
        self.away: list[tuple[str, Client]] = []
        self.versions = itertools.count(1)

    def listen(self, channels: set[str]) -> None:
        """Have one more listen."""
        self.clients.append(Client(self.world.subscribe(*sorted(channels)), channels))

    def change(self, keys: list[bytes]) -> None:
        """Have keys change; the version tells which change a message is of."""
        number = next(self.versions)
        self.world.now_ms = number
        self.world.change(*keys)
        for client in [*self.clients, *(client for _, client in self.away)]:
            client.owed += [(number, one) for one in CHANNELS if self._hears(client, one, keys)]

    @staticmethod
    def _hears(client: Client, channel: str, keys: list[bytes]) -> bool:
        return channel in client.channels and any(is_about(channel, key) for key in keys)

    def take(self, client: Client, most: int) -> None:
        """Have one take some, and hold it against what is owed."""
        for message in take(client.subscription, most):
            if message["type"] == "lost":
                client.is_lost = True
                if message["count"] is not None:
                    self._drop_oldest(client, message["count"])
                continue
            self._tick_off(client, message)
        if not client.subscription.has_more:
            assert not client.owed or client.is_lost, "something is missing that nobody has told"
            client.owed.clear()
            client.is_lost = False

    @staticmethod
    def _drop_oldest(client: Client, count: int) -> None:
        """Forget what was dropped: so many, and each was older in its channel than what is left."""
        assert 0 < count <= len(client.owed)

    @staticmethod
    def _tick_off(client: Client, message: dict[str, Any]) -> None:
        owed = (message["version"], message["channel"])
        assert owed in client.owed, "told twice, too late, or never owed"
        before = [one for one in client.owed[: client.owed.index(owed)] if one[0] < owed[0]]
        assert not before or client.is_lost, "out of order, or something is missing"
        client.owed = [one for one in client.owed if one not in before and one != owed]

    def leave(self, client: Client) -> None:
        """Have one go away, with his cursor."""
        self.clients.remove(client)
        self.away.append((client.subscription.cursor, client))
        client.subscription.close()

    def come_back(self, cursor: str, client: Client) -> None:
        """Have one come back."""
        self.away.remove((cursor, client))
        client.subscription = self.world.feed.subscribe(sorted(client.channels), cursor)
        client.is_lost |= not client.subscription.begin()
        self.clients.append(client)


@pytest.mark.parametrize("seed", range(4))
def test_everybody_is_told_everything_once_in_order_or_told_that_it_is_lost(seed: int) -> None:
    """Publish, take a little, leave, come back with a cursor, in any order, with a buffer that is far too small."""
    for number in range(40):
        play(random.Random(seed * 1000 + number), steps=80)


def play(rng: random.Random, steps: int) -> None:
    """Do anything to a model, and see in the end that nobody is owed anything."""
    model = Model()
    for _ in range(steps):
        act = rng.choice(["change"] * 5 + ["take"] * 3 + ["listen", "leave", "return"])
        if act == "change":
            model.change(rng.sample(KEYS, rng.randint(1, 3)))
        elif act == "listen" or not (model.clients or model.away):
            model.listen(set(rng.sample(CHANNELS, rng.randint(1, 4))))
        elif act == "return" and model.away:
            model.come_back(*rng.choice(model.away))
        elif model.clients and act == "leave":
            model.leave(rng.choice(model.clients))
        elif model.clients:
            model.take(rng.choice(model.clients), rng.randint(1, 6))
    for cursor, client in list(model.away):
        model.come_back(cursor, client)
    for client in model.clients:
        while client.subscription.has_more:
            model.take(client, 5)
        model.take(client, 5)
        assert not client.owed


def test_model_notices_a_message_too_many() -> None:
    """Without this, the test above could pass by being blind."""
    model = Model()
    model.listen({"a:1"})
    (client,) = model.clients
    model.world.change(b"a:1")

    with pytest.raises(AssertionError, match="never owed"):
        model.take(client, 5)


def test_model_notices_a_message_that_is_missing() -> None:
    """In the end, and in between."""
    model = Model()
    model.listen({"a:1"})
    (client,) = model.clients
    client.owed.append((1, "a:1"))

    with pytest.raises(AssertionError, match="missing"):
        model.take(client, 5)
