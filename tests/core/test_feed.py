"""The change feed: who is told what, and in which order."""

from __future__ import annotations

import pytest

from proxy.config.model import ClassSettings
from proxy.core.feed.channels import CHANNEL_MAX_BYTES, GLOB_MAX_BYTES, OWN_KEPT
from proxy.core.feed.feed import CHANNELS_MAX, KEYS_A_MESSAGE, OWN_CHANNELS, FeedError

from .feeding import NOW_MS, FeedWorld, keys_of, take

TICKETS = ClassSettings("tickets", ("ticket:*",), tags=("queue-{1}",))


def test_update_has_the_form_of_the_contract() -> None:
    """INTERFACE section 6: type, channel, keys, cause, version in milliseconds, and the moment."""
    world = FeedWorld()
    subscription = world.subscribe("ticket:7")

    world.change(b"ticket:7")

    at = "2027-01-15T08:00:00.000Z"
    head = {"type": "update", "channel": "ticket:7", "keys": ["ticket:7"], "cause": "write"}
    assert [{**head, "version": NOW_MS, "at": at}] == take(subscription)


def test_update_names_database_and_what_a_fence_takes_where_that_is_known() -> None:
    """A glob says more than the keys that it may have been about, and Redis names the database of some changes."""
    world = FeedWorld()
    subscription = world.subscribe("ticket:*")

    world.change(cause="event", patterns=(b"ticket:1*",), db=3)

    (message,) = take(subscription)
    assert ([], ["ticket:1*"], 3) == (message["keys"], message["patterns"], message["db"])


def test_key_that_is_no_text_is_named_as_events_name_it() -> None:
    """A byte that is no UTF-8 comes back as the byte that it was."""
    world = FeedWorld()
    subscription = world.subscribe("a\udcff", '"\\\\')

    world.change(b"a\xff")
    world.change(b'"\\')

    assert ["a\udcff", '"\\'] == keys_of(take(subscription))


@pytest.mark.parametrize(
    ("channel", "key", "is_told"),
    [
        *(("a", b"a", True), ("a", b"ab", False), ("a*", b"ab", True), ("a*", b"b", False), ("*", b"x", True)),
        *(("a:*:z", b"a:1:z", True), ("a:*:z", b"a:1:y", False), ("a:*b*", b"a:xbx", True), ("a:*b*", b"a:xx", False)),
        *((r"a\*", b"a*", True), (r"a\*", b"ab", False), ("a[12]", b"a2", True), ("a?", b"a", False)),
        *(("tag:queue-1", b"ticket:1", True), ("tag:queue-1", b"ticket:2", False), ("tag:queue-1", b"x:1", False)),
    ],
)
def test_change_of_a_key_reaches_the_channels_it_is_about(channel: str, key: bytes, *, is_told: bool) -> None:
    """The key itself, globs that take it, and the tags of its class."""
    world = FeedWorld(TICKETS)
    subscription = world.subscribe(channel)

    world.change(key)

    assert ([key.decode()] if is_told else []) == keys_of(take(subscription))


@pytest.mark.parametrize(
    ("channel", "patterns", "tags", "is_told"),
    [
        *(("ticket:1", ["ticket:*"], [], True), ("ticket:1", ["ticket:2*"], [], False)),
        *(("ticket:1*", ["ticket:*"], [], True), ("ticket:1*", ["*:12"], [], True), ("a*", ["b*"], [], False)),
        *(("tag:queue-1", ["ticket:*"], [], True), ("tag:queue-1", ["x:*"], [], False), ("tag:no", ["*"], [], False)),
        *(("tag:queue-1", [], ["queue-1"], True), ("tag:queue-1", [], ["queue-2"], False)),
        *(("ticket:1", [], ["queue-1"], True), ("ticket:2", [], ["queue-1"], False), ("x", [], ["queue-1"], False)),
        *(("ticket:*", [], ["queue-1"], True), ("x:*", [], ["queue-1"], False), ("ticket:*", [], ["no"], False)),
    ],
)
def test_fence_reaches_the_channels_it_may_be_about(
    channel: str, patterns: list[str], tags: list[str], *, is_told: bool
) -> None:
    """Keys that it takes, globs that have a key with it in common, and tags that such a key may bear."""
    world = FeedWorld(TICKETS)
    subscription = world.subscribe(channel)

    world.change(cause="event", patterns=tuple(map(str.encode, patterns)), tags=tuple(map(str.encode, tags)))

    assert is_told == bool(take(subscription))


def test_flush_reaches_all_channels_over_keys() -> None:
    """Everything has changed; a channel of one key says so of the key."""
    world = FeedWorld()
    subscription = world.subscribe("a", "b*", "tag:t", "respite:figures")

    world.change(cause="flush")

    assert [("a", ["a"]), ("tag:t", []), ("b*", [])] == [(one["channel"], one["keys"]) for one in take(subscription)]


def test_records_of_respite_itself_are_not_told() -> None:
    """They change with every fence, and are nobody's business."""
    world = FeedWorld()
    subscription = world.subscribe("*")

    world.change(b"respite:clock", b"a")

    assert ["a"] == keys_of(take(subscription))


def test_channels_of_a_rule_are_told_instead_of_those_of_the_keys() -> None:
    """Those of the keys hear of it when the keys change."""
    world = FeedWorld()
    named, key = world.subscribe("tickets:1", "tag:t"), world.subscribe("ticket:7")

    world.change(b"ticket:7", cause="event", channels=(b"tickets:1", b"tag:t"))

    assert ["ticket:7", "ticket:7"] == keys_of(take(named))
    assert [] == take(key)


def test_many_keys_are_told_in_messages_of_bounded_size() -> None:
    """A pipeline of writes to thousands of keys is one push of Redis."""
    world = FeedWorld()
    subscription = world.subscribe("k*")
    keys = [b"k%d" % number for number in range(2 * KEYS_A_MESSAGE + 1)]

    world.change(*keys)

    messages = take(subscription)
    assert [KEYS_A_MESSAGE, KEYS_A_MESSAGE, 1] == [len(message["keys"]) for message in messages]
    assert [key.decode() for key in keys] == keys_of(messages)


def test_take_gives_no_more_than_asked_and_the_rest_in_order() -> None:
    """Messages of several channels come in the order in which they happened."""
    world = FeedWorld()
    subscription = world.subscribe("a", "b", "c")
    names = [b"a", b"b", b"a", b"c", b"b"]

    for name in names:
        world.change(name)

    taken = [take(subscription, 2), take(subscription, 2), take(subscription, 2)]
    assert [2, 2, 1] == [len(one) for one in taken]
    assert [name.decode() for name in names] == keys_of([message for one in taken for message in one])
    assert not subscription.has_more


def test_on_ready_is_called_once_until_everything_is_taken() -> None:
    """Who delivers is woken once, and goes on by himself while there is more."""
    world = FeedWorld()
    subscription = world.subscribe("a", "b")
    calls: list[int] = []
    subscription.on_ready = lambda: calls.append(1)

    for _ in range(3):
        world.change(b"a", b"b")
    subscription.take(2)
    world.change(b"a")
    before = len(calls)
    subscription.take(100)
    world.change(b"b")

    assert (1, 2) == (before, len(calls))


def test_one_message_is_encoded_once_for_all_who_listen() -> None:
    """Whoever delivers can frame it once, too."""
    world = FeedWorld()
    one, other = world.subscribe("a"), world.subscribe("a")

    world.change(b"a")

    assert one.take(1)[0] is other.take(1)[0]


# -- who may listen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "why"),
    [
        ([], "at least one"),
        (["a", ""], "has a name"),
        (["tag:"], "has a name"),
        (["é" * (CHANNEL_MAX_BYTES // 2) + "x"], "at most"),
        (["respite:outbox"], "only"),
        (["*a" * 9], r"8 \*"),
        (["[ab]x" * 9], r"8 \["),
        (["a" * GLOB_MAX_BYTES + "*"], "128 bytes"),
        ([str(number) for number in range(CHANNELS_MAX + 1)], "at most"),
    ],
)
def test_subscribe_to_what_is_no_channel_is_refused(channels: list[str], why: str) -> None:
    """With the reason; nothing is left of the attempt."""
    world = FeedWorld()

    with pytest.raises(FeedError, match=why) as caught:
        world.feed.subscribe(channels)

    assert not caught.value.is_full
    assert (0, 0) == (world.feed.subscribers, world.feed.report()["channels"])


def test_subscribe_beyond_the_most_is_refused_until_one_goes() -> None:
    """A limit that is reached is not for good."""
    world = FeedWorld(max_subscribers=2)
    first = world.subscribe("a")
    world.subscribe("a")

    with pytest.raises(FeedError) as caught:
        world.subscribe("a")
    first.close()
    first.close()

    assert caught.value.is_full
    assert world.subscribe("a").has_more is False


def test_closed_subscription_is_told_nothing_more() -> None:
    """And costs nothing more."""
    world = FeedWorld()
    subscription = world.subscribe("a")
    calls: list[int] = []
    subscription.on_ready = lambda: calls.append(1)

    subscription.close()
    world.change(b"a")

    assert ([], []) == (calls, take(subscription))


def test_add_and_remove_change_what_is_heard() -> None:
    """From that moment on; a refused addition changes nothing."""
    world = FeedWorld()
    subscription = world.subscribe("a")

    subscription.add(["b", "a"])
    with pytest.raises(FeedError):
        subscription.add(["c", ""])
    world.change(b"a", b"b", b"c")
    subscription.remove(["a", "x"])
    heard = keys_of(take(subscription))
    world.change(b"a", b"b", b"c")

    assert (["b"], ["b"]) == (heard, keys_of(take(subscription)))
    assert ("b",) == subscription.channels


# -- our own channels, and polling -------------------------------------------------------------------------------------


def test_tell_reaches_who_listens_to_the_own_channel() -> None:
    """With what was told as `data`; without anybody nothing is kept."""
    world = FeedWorld()
    world.feed.tell("respite:figures", {"hit_rate": 0.5})
    subscription = world.subscribe(*OWN_CHANNELS)

    world.feed.tell("respite:figures", {"hit_rate": 0.9})

    (message,) = take(subscription)
    assert ("report", "respite:figures", {"hit_rate": 0.9}) == (message["type"], message["channel"], message["data"])


def test_own_channel_keeps_little() -> None:
    """Of figures the newest count; a dashboard that sleeps fills no memory."""
    world = FeedWorld()
    subscription = world.subscribe("respite:figures")

    for number in range(OWN_KEPT + 5):
        world.feed.tell("respite:figures", {"number": number})

    first, *rest = take(subscription)
    assert (5, OWN_KEPT, OWN_KEPT + 4) == (first["count"], len(rest), rest[-1]["data"]["number"])


def test_poll_after_is_short_while_something_moves_and_grows_when_quiet() -> None:
    """From push.poll_min to push.poll_max: half as long as nothing has moved."""
    world = FeedWorld(poll_min_s=10.0, poll_max_s=60.0)
    world.subscribe("a", "b")
    seen = []
    for quiet_s in (0, 19, 21, 60, 119, 1000):
        world.change(b"a")
        world.now_ms += quiet_s * 1000
        seen.append(world.feed.poll_after(["a", "b"]))
    world.change(b"b")

    assert [10.0, 10.0, 10.5, 30.0, 59.5, 60.0] == seen
    assert 10.0 == world.feed.poll_after(["a", "b"]) == world.feed.poll_after(["unknown"])
