"""What holds a session to a connection of its own, and when that ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.core.pinning import ACKS, MESSAGES, Pinning, push_kind
from proxy.wire.encode import array, bulk, integer

from ..e2e.servers import REQUIRED_KINDS, Server, find_kind


@pytest.fixture(scope="module", params=REQUIRED_KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Run each kind that is always there."""
    with Server(find_kind(request.param)) as running:
        yield running


def ack(kind: bytes, name: bytes | None, count: int, protocol: int = 2) -> bytes:
    """Write an acknowledgement as Redis does."""
    frame = array([bulk(kind), b"$-1\r\n" if name is None else bulk(name), integer(count)])
    return frame if protocol == 2 else b">" + frame[1:]


def subscribed(*names: bytes, family: bytes = b"") -> Pinning:
    """Make a state with subscriptions."""
    state = Pinning()
    for name in names:
        state.acknowledged(ack(family + b"subscribe", name, 1))
    return state


def test_pinning_fresh_link_holds_nobody() -> None:
    """A link on which nothing was done holds nothing, and can be used again."""
    state = Pinning()

    assert state.is_free
    assert not state.used
    assert not state.outlives_drain


@pytest.mark.parametrize(
    ("name", "outlives"),
    [("multi", False), ("watching", False), ("tracking", True), ("sticky", True), ("stream", True)],
)
def test_pinning_each_state_holds_the_link(name: str, outlives: bool) -> None:
    """Each of them alone keeps the session on its link; a transaction has an end that a drain can wait for."""
    state = Pinning()
    setattr(state, name, True)

    assert not state.is_free
    assert outlives == state.outlives_drain


@pytest.mark.parametrize("name", ["once", "used"])
def test_pinning_what_has_no_state_holds_nothing(name: str) -> None:
    """A single reply that is awaited, or a link that must not be used again, does not hold the session."""
    state = Pinning()
    setattr(state, name, True)

    assert state.is_free
    assert not state.outlives_drain


def test_pinning_subscription_holds_until_the_last_has_ended() -> None:
    """The link is free again when no channel and no pattern is left."""
    state = subscribed(b"a", b"b")
    state.acknowledged(ack(b"psubscribe", b"p*", 3))
    for kind, name in ((b"unsubscribe", b"a"), (b"punsubscribe", b"p*"), (b"unsubscribe", b"b")):
        assert state.subscribed
        assert not state.is_free
        assert state.outlives_drain
        state.acknowledged(ack(kind, name, 0))

    assert not state.subscribed
    assert state.is_free


def test_pinning_subscriber_in_a_transaction_may_finish_it() -> None:
    """A drain waits for the transaction of a subscriber."""
    state = subscribed(b"a")
    state.multi = True

    assert not state.outlives_drain


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("kind", sorted(ACKS))
def test_acknowledged_every_kind_is_known_in_both_protocols(kind: bytes, protocol: int) -> None:
    """An acknowledgement is one whatever its type byte, and changes its own family only."""
    state = Pinning()
    family = kind.removesuffix(b"subscribe").removesuffix(b"un")
    for other in (b"", b"p", b"s"):
        state.acknowledged(ack(other + b"subscribe", b"kept", 1))
        state.acknowledged(ack(other + b"subscribe", b"name", 2))

    assert kind == state.acknowledged(ack(kind, b"name", 1, protocol))

    expected = {other: {b"kept", b"name"} for other in (b"", b"p", b"s")}
    if b"unsub" in kind:
        expected[family] = {b"kept"}
    assert expected == state.subscriptions


def test_acknowledged_unsubscribe_of_nothing_changes_nothing() -> None:
    """An UNSUBSCRIBE with nothing to end is acknowledged with a nil; one of a name never asked for, with the name."""
    for frame in (
        ack(b"unsubscribe", None, 0),
        ack(b"unsubscribe", b"other", 1),
        b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n",
    ):
        state = subscribed(b"a")
        assert state.acknowledged(frame) == b"unsubscribe"
        assert state.subscriptions[b""] == {b"a"}


def test_acknowledged_names_are_any_bytes() -> None:
    """A channel may be called what it likes: nothing, a line break, what looks like RESP."""
    names = (b"", b"\r\n", b"$1\r\na\r\n", b"\xff\0", b"subscribe")
    state = subscribed(*names)
    assert set(names) == state.subscriptions[b""]

    for name in names:
        state.acknowledged(ack(b"unsubscribe", name, 0))

    assert state.is_free


@pytest.mark.parametrize(
    "frame",
    [
        array([bulk(b"message"), bulk(b"a"), bulk(b"subscribe")]),
        array([bulk(b"pmessage"), bulk(b"p"), bulk(b"a"), bulk(b"x")]),
        array([bulk(b"Subscribe"), bulk(b"a"), integer(1)]),
        array([bulk(b"pong"), bulk(b"")]),
        array([bulk(b""), bulk(b"a")]),
        array([]),
        array([integer(1)]),
        b"*-1\r\n",
        b"+subscribe\r\n",
        b"-ERR subscribe\r\n",
        b":1\r\n",
        b"$9\r\nsubscribe\r\n",
        b"*1\r\n+subscribe\r\n",
        b"_\r\n",
    ],
)
def test_acknowledged_anything_else_is_none(frame: bytes) -> None:
    """Messages, replies, errors and values change no subscription."""
    state = subscribed(b"a")

    assert state.acknowledged(frame) == b""
    assert state.subscriptions == {b"": {b"a"}}


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (array([bulk(b"message"), bulk(b"a"), bulk(b"x")]), b"message"),
        (b">2\r\n$10\r\ninvalidate\r\n_\r\n", b"invalidate"),
        (b">4\r\n$7\r\nmonitor\r\n", b"monitor"),
        (array([integer(1), bulk(b"message")]), b""),
        (b"+OK\r\n", b""),
        (b"*0\r\n", b""),
    ],
)
def test_push_kind_is_the_first_word(frame: bytes, expected: bytes) -> None:
    """The kind of a push is its first word, if that is a bulk string."""
    assert expected == push_kind(frame)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([b"SUBSCRIBE", b"a"], 1),
        ([b"subscribe", b"a", b"b", b"a"], 3),
        ([b"SUBSCRIBE"], 1),
        ([b"PSUBSCRIBE"], 1),
        ([b"UNSUBSCRIBE"], 2),
        ([b"unsubscribe", b"x"], 1),
        ([b"PUNSUBSCRIBE"], 1),
        ([b"SUNSUBSCRIBE"], 1),
    ],
)
def test_acks_expected_of_two_channels(words: list[bytes], expected: int) -> None:
    """A name each; without names as many as there are, and one when there is none, or an error."""
    state = subscribed(b"a", b"b")

    assert expected == state.acks_expected(words)


def test_end_multi_leaves_nothing_of_the_transaction() -> None:
    """EXEC and DISCARD end the WATCH too; what was queued is forgotten, subscriptions are not."""
    state = subscribed(b"a")
    state.multi = state.watching = state.queued_all = state.queued_unmatched = True
    state.queued = 3
    state.queued_keys.append(b"k")
    state.queued_changes.append((0, "db", 1))

    state.end_multi()

    expected = subscribed(b"a")
    assert expected == state


STEPS = (
    (b"SUBSCRIBE", b"a"),
    (b"SUBSCRIBE", b"a", b"b", b"b"),
    (b"PSUBSCRIBE", b"p*", b"q*"),
    (b"SSUBSCRIBE", b"s"),
    (b"UNSUBSCRIBE", b"a", b"nosuch"),
    (b"UNSUBSCRIBE",),
    (b"UNSUBSCRIBE",),
    (b"PUNSUBSCRIBE",),
    (b"SUNSUBSCRIBE",),
    (b"SUNSUBSCRIBE",),
)


@pytest.mark.parametrize("protocol", [2, 3])
def test_acks_are_as_many_as_a_real_server_sends(server: Server, protocol: int) -> None:
    """As many acknowledgements come as were expected, and the subscriptions counted are the server's."""
    state = Pinning()
    with server.connect() as client:
        client.command("HELLO", protocol)
        for words in STEPS:
            expected = state.acks_expected(words)
            client.send(array(map(bulk, words)))
            for frame in client.frames(expected):
                assert words[0].lower() == state.acknowledged(frame)
                family = words[0].lower().removesuffix(b"subscribe").removesuffix(b"un")
                counted = (
                    len(state.subscriptions.get(b"s", ()))
                    if family == b"s"
                    else len(state.subscriptions.get(b"", ())) + len(state.subscriptions.get(b"p", ()))
                )
                assert frame.endswith(integer(counted)), frame
            assert client.is_quiet(0.02)
    assert state.is_free


@pytest.mark.parametrize("protocol", [2, 3])
def test_messages_of_a_real_server_are_known(server: Server, protocol: int) -> None:
    """Messages of all three families, and no acknowledgement, are messages."""
    with server.connect() as client, server.connect() as publisher:
        client.command("HELLO", protocol)
        for words in ((b"SUBSCRIBE", b"c"), (b"PSUBSCRIBE", b"c*"), (b"SSUBSCRIBE", b"s")):
            assert push_kind(client.command(*words)) in ACKS
        publisher.command("PUBLISH", "c", "x")
        publisher.command("SPUBLISH", "s", "x")
        kinds = {push_kind(frame) for frame in client.frames(3)}

    assert kinds == {b"message", b"pmessage", b"smessage"} == MESSAGES - {b"invalidate"}


def test_acks_expected_of_an_error_is_one_reply(server: Server) -> None:
    """A SUBSCRIBE without names is answered by one error, and is no acknowledgement."""
    state = Pinning()
    with server.connect() as client:
        for name in (b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"):
            assert state.acks_expected([name]) == 1
            assert client.command(name)[:1] == b"-"
            assert client.is_quiet(0.02)
