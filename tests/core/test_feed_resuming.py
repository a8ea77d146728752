"""The change feed: what is said where something is missing, how one resumes, and what must be watched."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.config.model import ClassSettings
from proxy.values.rules import Rules

from .feeding import EPOCH, FeedWorld, keys_of, take

TICKETS = ClassSettings("tickets", ("ticket:*",), tags=("queue-{1}",))


def fill(world: FeedWorld, key: bytes, count: int) -> None:
    """Have a key change often."""
    for _ in range(count):
        world.change(key)


def test_slow_subscriber_loses_the_oldest_and_is_told_how_many() -> None:
    """The buffer is bounded; who reads in time loses nothing."""
    world = FeedWorld(buffer_bytes=64 << 10)
    slow, quick = world.subscribe("k"), world.subscribe("k")
    heard = 0
    for _ in range(1000):
        world.change(b"k")
        heard += len(take(quick))

    first, *rest = take(slow, 2000)

    assert 1000 == heard
    assert {"type": "lost", "count": 1000 - len(rest)} == first
    assert 100 < len(rest) < 500
    assert world.feed.report()["lost_total"] == first["count"]
    assert world.feed.report()["buffered_bytes"] <= 64 << 10


def test_loss_in_several_channels_is_told_as_one_number() -> None:
    """What was dropped in each of them."""
    world = FeedWorld(buffer_bytes=64 << 10)
    subscription = world.subscribe("a", "b")
    for _ in range(500):
        world.change(b"a")
        world.change(b"b")

    first, *rest = take(subscription, 2000)

    assert 1000 == first["count"] + len(rest)


def resume(world: FeedWorld, cursor: str, *channels: str) -> tuple[bool, list[dict[str, Any]]]:
    """Come back with a cursor: whether nothing is missing, and what is told."""
    subscription = world.feed.subscribe(channels, cursor)
    return subscription.begin(), take(subscription)


def test_resume_goes_on_behind_the_last_message_that_was_taken() -> None:
    """Whatever was not taken, and what has come since."""
    world = FeedWorld()
    subscription = world.subscribe("a", "b")
    world.change(b"a")
    world.change(b"b")
    subscription.take(1)
    cursor = subscription.cursor
    subscription.close()
    world.change(b"a")

    is_complete, messages = resume(world, cursor, "a", "b")

    assert is_complete
    assert ["b", "a"] == keys_of(messages)


def test_cursor_of_who_has_everything_is_the_present() -> None:
    """Though his channels have been quiet for long: what others were told does not keep him back."""
    world = FeedWorld(buffer_bytes=64 << 10)
    quiet, busy = world.subscribe("a"), world.subscribe("b")
    fill(world, b"b", 1000)
    cursor = quiet.cursor
    quiet.close()

    assert (True, []) == resume(world, cursor, "a")
    assert busy.has_more


@pytest.mark.parametrize(
    "cursor", ["x", f"{EPOCH}-", f"other-{1}", f"{EPOCH}-99", f"{EPOCH}-{'9' * 30}", f"{EPOCH}-1٣"]
)
def test_resume_with_a_cursor_of_another_life_says_that_anything_may_be_missing(cursor: str) -> None:
    """A proxy that was restarted does not know what happened before."""
    world = FeedWorld()
    world.subscribe("a")

    is_complete, (message,) = resume(world, cursor, "a")

    assert not is_complete
    assert ("lost", None) == (message["type"], message["count"])


def test_resume_of_a_channel_that_nobody_watched_meanwhile_is_not_complete() -> None:
    """It was not there when the cursor was given out."""
    world = FeedWorld()
    world.subscribe("a")
    cursor = world.feed.cursor
    world.change(b"a")

    assert not resume(world, cursor, "a", "b")[0]


def test_resume_behind_what_is_kept_tells_the_loss_and_the_rest() -> None:
    """Better some of it than none."""
    world = FeedWorld(buffer_bytes=64 << 10)
    world.subscribe("a")
    cursor = world.feed.cursor
    fill(world, b"a", 1000)

    is_complete, messages = resume(world, cursor, "a")

    assert not is_complete
    assert None is messages[0]["count"]
    assert 100 < len(messages) < 500


def test_channel_stays_watched_for_a_minute_after_the_last_one_has_gone() -> None:
    """So a reload of the page finds nothing missing; then it is let go."""
    world = FeedWorld()
    world.subscribe("a").close()
    cursor = world.feed.cursor
    world.now_ms += 59_000
    world.feed.tick()
    world.change(b"a")
    is_complete, messages = resume(world, cursor, "a")
    world.feed.subscribe(["a"]).close()

    assert (True, ["a"]) == (is_complete, keys_of(messages))


def test_channel_that_nobody_comes_back_to_is_let_go() -> None:
    """It is watched no longer, and who comes back later is told so."""
    world = FeedWorld()
    world.subscribe("a").close()
    cursor = world.feed.cursor
    assert world.feed.interest.is_wanted

    world.now_ms += 61_000
    world.feed.tick()

    assert not world.feed.interest.is_wanted
    assert not resume(world, cursor, "a")[0]


def test_channel_of_who_polls_stays_until_he_must_have_come_back() -> None:
    """Twice the longest that he was told to wait."""
    world = FeedWorld(poll_max_s=300.0)
    world.subscribe("a", poll=True).close()
    cursor = world.feed.cursor
    world.now_ms += 599_000
    world.feed.tick()

    assert resume(world, cursor, "a")[0]


def test_gap_is_told_to_all_who_listen_to_keys_and_to_who_resumes_before_it() -> None:
    """Changes may have been missed: once each, however many channels."""
    world = FeedWorld()
    keys, own = world.subscribe("a", "b*", "tag:t"), world.subscribe("respite:figures")
    cursor = world.feed.cursor

    world.feed.gap("the link was lost")

    lost = {"type": "lost", "count": None, "why": "the link was lost"}
    assert ([lost], []) == (take(keys), take(own))
    assert (True, [lost]) == resume(world, cursor, "a")


def test_subscription_is_watched_once_its_keys_are() -> None:
    """Who is greeted then has missed nothing, and is told nothing."""
    world = FeedWorld(is_watched=False)
    subscription = world.feed.subscribe(["a:1"])
    calls: list[bool] = []
    subscription.on_watched = lambda: calls.append(subscription.is_watched)
    before = subscription.is_watched

    world.feed.watched([b"b"])
    world.feed.watched([b"a"])

    assert (False, [True], True) == (before, calls, subscription.begin())
    assert [] == take(subscription)


def test_who_was_greeted_before_is_told_when_his_channel_is_watched_at_last() -> None:
    """Of what changed between nobody has heard."""
    world = FeedWorld(is_watched=False)
    subscription, other = world.subscribe("a:1"), world.subscribe("b")

    world.feed.watched([b"a"])

    (message,) = take(subscription)
    assert ("lost", None, "a:1") == (message["type"], message["count"], message["channel"])
    assert [] == take(other)


def test_who_takes_up_another_channel_goes_on_as_soon_as_that_is_watched() -> None:
    """Those who listen already wait for it as those do who have just come."""
    world = FeedWorld(is_watched=False)
    world.feed.watched([b"a"])
    subscription = world.subscribe("a:1")
    subscription.add(["b:1"])
    calls: list[bool] = []
    subscription.on_watched = lambda: calls.append(subscription.is_watched)
    before = subscription.is_watched

    world.feed.watched([b"a", b"b"])

    assert (False, [True]) == (before, calls)


def test_new_subscriber_of_a_watched_channel_is_watched_at_once() -> None:
    """Nothing has to be asked for."""
    world = FeedWorld(is_watched=False)
    world.feed.watched([b"a"])

    assert [True, False, True] == [world.subscribe(name).is_watched for name in ("a:*", "b", "respite:alerts")]


def test_nothing_is_watched_while_the_link_is_away() -> None:
    """Who comes meanwhile waits; the gap that follows tells those who did not."""
    world = FeedWorld()
    subscription = world.subscribe("a")
    world.feed.watched(None)

    assert not subscription.is_watched
    assert not world.feed.subscribe(["a"]).is_watched


def test_deaf_feed_tells_who_listens_and_who_comes() -> None:
    """Redis tells of no changes: events still come, and nobody waits for more."""
    world = FeedWorld(is_watched=False)
    before = world.subscribe("a")
    world.feed.deafen("no tracking")
    world.feed.deafen("no tracking")
    after = world.feed.subscribe(["a"])

    assert after.is_watched
    assert not after.begin()
    assert [["no tracking"], ["no tracking"]] == [[one["why"] for one in take(some)] for some in (before, after)]


def test_interest_is_what_channels_begin_with() -> None:
    """A tag: what the classes begin with that may bear it; a tag of no class is only heard of in fences."""
    world = FeedWorld(TICKETS, ClassSettings("x", ("x:*",), tags=("other",)))

    world.subscribe("user:1", "user:12", "list:*:a", "tag:queue-9", "tag:none", "respite:figures")

    assert (b"list:", b"ticket:", b"user:1") == world.feed.interest.prefixes


def test_interest_of_a_tag_that_no_class_has_is_in_fences_alone() -> None:
    """No key is watched for it."""
    world = FeedWorld(TICKETS)
    calls: list[int] = []
    world.feed.on_interest = lambda: calls.append(1)

    world.subscribe("tag:none")

    assert ((), True, 1) == (world.feed.interest.prefixes, world.feed.interest.is_wanted, len(calls))


def test_new_classes_change_which_tags_keys_bear_and_what_is_watched() -> None:
    """A tag channel whose keys are not watched yet is told once they are."""
    world = FeedWorld(is_watched=False)
    subscription = world.subscribe("tag:queue-1")
    world.feed.watched([])
    take(subscription)

    world.feed.take(world.settings, Rules([TICKETS]))
    world.feed.watched(world.feed.interest.prefixes)
    world.change(b"ticket:1")

    assert (b"ticket:",) == world.feed.interest.prefixes
    assert [("lost", None), ("update", "write")] == [
        (message["type"], message.get("cause")) for message in take(subscription)
    ]
