"""What is heard of Redis and other proxies: once each, with the cause where something says it."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from proxy.core.feed.feed import Subscription
from proxy.core.feed.reader import KEYS_A_GO, PUSH_WITHIN_S, SAY_EVERY_S, ChangeReader
from proxy.errors import RemoteError
from proxy.values import changes, telling
from proxy.values.changes import announce_everything, announce_keys
from proxy.values.clock import VERSION_BITS
from proxy.values.telling import ChannelsTold, tell_channels, tell_events
from proxy.wire.reply import elements, text

from .feeding import FeedWorld, take

NOW_US = 1_900_000_000_000_000


class World(FeedWorld):
    """A reader in front of a feed, and one who listens to everything."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 50.0
        self.breaths = 0
        self.reader = ChangeReader(self.feed, lambda: NOW_US, lambda: self.now, self._breathe)
        self.reader.begin((b"k", b"m:"))
        self.all = self.subscribe("*")

    def _breathe(self) -> None:
        self.breaths += 1

    def push(self, *keys: bytes) -> None:
        """Have Redis push keys."""
        self.reader.hear([b"invalidate", list(keys)])

    def notify(self, what: bytes, key: bytes, db: int = 0) -> None:
        """Have Redis notify of an expiry or an eviction."""
        channel = b"__keyevent@%d__:%b" % (db, what)
        self.reader.hear([b"pmessage", b"__keyevent@*__:" + what, channel, key])

    def say(self, raw: bytes) -> None:
        """Have a proxy publish."""
        _, channel, payload = (text(word) for word in elements(raw))
        self.reader.hear([b"message", channel, payload])

    def event(self, key: bytes, version: int = 0, *, was_there: bool) -> None:
        """Have a script tell that an event named a key."""
        payload = f'{{"events":[{telling.event_part(key, version)}{int(was_there)}]],"db":2}}'
        self.reader.hear([b"message", telling.CHANNEL, payload.encode()])


def causes(subscription: Subscription) -> list[tuple[str, list[str]]]:
    """Take what was told, as (cause, keys)."""
    return [(message["cause"], message["keys"]) for message in take(subscription)]


def test_push_without_a_cause_is_a_write() -> None:
    """By whomever; its version is the latest that the server's time can be."""
    world = World()
    world.push(b"k1", b"m:2")

    (message,) = take(world.all)
    assert ("write", ["k1", "m:2"]) == (message["cause"], message["keys"])
    assert NOW_US // 1000 == message["version"]


def test_null_push_is_a_flush() -> None:
    """FLUSHALL and FLUSHDB, of which database is not said."""
    world = World()
    world.reader.hear([b"invalidate", None])

    assert [("flush", [])] == causes(world.all)


@pytest.mark.parametrize("frame", [[b"invalidate", 3], [b"invalidate", [None]], [b"invalidate"], [b"invalidate", b"k"]])
def test_push_that_is_not_understood_ends_the_link(frame: list[Any]) -> None:
    """It may be of a change, which would be missed."""
    with pytest.raises(RemoteError):
        World().reader.hear(frame)


@pytest.mark.parametrize("what", [b"expired", b"evicted"])
def test_push_after_a_notification_has_its_cause_once(what: bytes) -> None:
    """With the database; the next change of the key is one of its own."""
    world = World()
    world.notify(what, b"k1", 3)
    world.push(b"k1", b"k2")
    world.push(b"k1")

    told = take(world.all)
    assert [(what.decode(), ["k1"], 3), ("write", ["k2"], None), ("write", ["k1"], None)] == [
        (one["cause"], one["keys"], one.get("db")) for one in told
    ]


def test_event_of_a_key_that_was_there_is_told_at_once_and_its_push_is_not() -> None:
    """It is the same change; the next one is not."""
    world = World()
    world.event(b"k1", 5 << VERSION_BITS, was_there=True)
    (told,) = take(world.all)
    world.push(b"k1")
    world.push(b"k1")

    assert ("event", ["k1"], 5, 2) == (told["cause"], told["keys"], told["version"], told["db"])
    assert [("write", ["k1"])] == causes(world.all)


def test_event_of_a_key_that_was_not_there_keeps_no_later_change_from_being_told() -> None:
    """No push follows it, so the next one is of another change."""
    world = World()
    world.event(b"k1", was_there=False)
    world.say(tell_events(0, [b"k2"]))
    world.push(b"k1", b"k2")

    assert [("event", ["k1"]), ("event", ["k2"]), ("write", ["k1", "k2"])] == causes(world.all)


def test_swept_key_is_not_told_again() -> None:
    """The fence was, when it was set."""
    world = World()
    world.reader.hear([b"message", telling.CHANNEL, b'{"quiet":["6b31"]}'])
    world.push(b"k1")

    assert [] == causes(world.all)


def test_cause_that_no_push_followed_is_forgotten() -> None:
    """A later push is of another change, whether or not somebody has tidied up."""
    for tidies in (True, False):
        world = World()
        world.event(b"k1", was_there=True)
        world.notify(b"expired", b"k2")
        world.now += PUSH_WITHIN_S
        if tidies:
            world.reader.tidy()
        world.push(b"k1", b"k2")

        assert [("event", ["k1"]), ("write", ["k1", "k2"])] == causes(world.all)


def test_cause_of_a_key_that_is_not_pushed_is_not_kept() -> None:
    """No push of it will come; when it is watched later, its first change is a write."""
    world = World()
    world.event(b"x", was_there=True)
    world.notify(b"expired", b"y")
    world.reader.prefixes = (b"",)
    world.push(b"x", b"y")

    assert [("event", ["x"]), ("write", ["x", "y"])] == causes(world.all)


def test_fence_is_told_with_its_version() -> None:
    """Of a glob and of a tag, each for itself."""
    world = World()
    tag = world.subscribe("tag:t")
    fields = [[f"4:{what}".encode().hex(), str(9 << VERSION_BITS)] for what in ("glob:k*", "tag:t")]
    payload = ('{"fences":' + str(fields).replace("'", '"') + "}").encode()
    world.reader.hear([b"message", changes.CHANNEL, payload])

    (glob,), (told,) = take(world.all), take(tag)
    assert (["k*"], 9, 4, "event") == (glob["patterns"], glob["version"], glob["db"], glob["cause"])
    assert (["t"], "tag:t") == (told["tags"], told["channel"])


def test_channels_of_a_rule_are_told() -> None:
    """With what the event named; without a version, with one of now."""
    world = World()
    named = world.subscribe("tickets:1")
    world.say(tell_channels(ChannelsTold((b"tickets:1",), (b"k1",), (b"p*",), (b"t",), 0, 1)))

    (message,) = take(named)
    assert (["k1"], ["p*"], ["t"], NOW_US // 1000) == tuple(
        message[name] for name in ("keys", "patterns", "tags", "version")
    )


def test_announced_change_of_everything_is_a_flush() -> None:
    """A SWAPDB through a proxy, which Redis announces to nobody."""
    world = World()
    world.say(announce_everything())

    assert [("flush", [])] == causes(world.all)


def test_announced_keys_are_told_where_redis_pushes_nothing() -> None:
    """Where it does, the push is told."""
    world = World()
    world.say(announce_keys(0, [b"k1"]))
    before = causes(world.all)
    world.reader.is_deaf = True
    world.say(announce_keys(0, [b"k1"]))

    assert ([], [("event", ["k1"])]) == (before, causes(world.all))


def test_begin_forgets_what_was_said_on_the_link_before() -> None:
    """Its push was never heard, or has been."""
    world = World()
    world.event(b"k1", was_there=True)
    world.notify(b"expired", b"k2")
    world.reader.begin((b"k",))
    world.push(b"k1", b"k2")

    assert [("event", ["k1"]), ("write", ["k1", "k2"])] == causes(world.all)


def test_others_get_their_turn_while_much_is_told() -> None:
    """One push may be of thousands of keys."""
    world = World()
    world.push(*(b"k%d" % number for number in range(3 * KEYS_A_GO)))

    assert 4 == world.breaths


def test_message_that_is_not_understood_is_said_once_in_a_while() -> None:
    """Whoever may publish cannot fill the log."""
    world = World()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            for _ in range(100):
                world.reader.hear([b"message", telling.CHANNEL, b"["])
            world.now += SAY_EVERY_S / 2

    assert ["a message that is not understood"] * 2 == [one["event"] for one in logs]


def test_message_of_a_stranger_is_passed_over() -> None:
    """Anybody may publish."""
    world = World()
    for channel in (telling.CHANNEL, changes.CHANNEL, b"other"):
        world.reader.hear([b"message", channel, b"{}"])
    world.notify(b"renamed", b"k1")

    assert [] == causes(world.all)
