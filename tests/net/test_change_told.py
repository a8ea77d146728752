"""What goes through a proxy, and what its events do, is told to those who listen: on every proxy, once."""

from __future__ import annotations

import attrs
import pytest
import structlog
import trio

from proxy.config.model import ClassSettings
from proxy.events.event import Event
from proxy.events.sink import Applied, Failed
from proxy.net.events.event_sink import EventSink, make_event_sink
from proxy.values.clock import version_at

from ..e2e.servers import Server
from .conftest import Serve
from .driver import Client, make_settings, within
from .peer import Peer
from .watching import Watching, quiet

CLASSES = (
    ClassSettings("tickets", ("ticket:*",), version=True, tags=("queue-{1}",), invalidates=("summary:{1}",)),
    ClassSettings("lists", ("list:*",), version=True, invalidates=("lists:*", "tag:queue-{1}")),
)


@attrs.frozen
class Told:
    """A proxy with a client and its sink, and a watch of the same Redis."""

    client: Client
    sink: EventSink
    watching: Watching


@pytest.fixture
async def told(redis: Server, serve: Serve, nursery: trio.Nursery) -> Told:
    """Start them."""
    proxy = await serve(redis, attrs.evolve(make_settings(l1={"touch_rate": 0}), classes=CLASSES))
    watching = Watching(redis.url, *CLASSES)
    nursery.start_soon(watching.watch.run)
    client = await proxy.connect()
    await client.command("PING")
    return Told(client, make_event_sink(proxy.worker), watching)


async def test_write_through_a_proxy_is_told_soon(told: Told) -> None:
    """Less than 10 ms is the aim; here only that it comes, with a version that is not below the value's."""
    listener = await told.watching.listen("ticket:7")

    await told.client.command("SET", "ticket:7", "x")
    version = int((await told.client.command("RESPITE", "VERSION", "ticket:7"))[1:])
    (message,) = await listener.told()

    assert message["version"] >= version >> 16


async def test_write_is_told_with_what_it_makes_wrong_besides(told: Told) -> None:
    """Keys that were there, keys that were not, what fences take; each once."""
    listener = await told.watching.listen("summary:*")
    fenced = await told.watching.listen("lists:*", "tag:queue-1")

    await told.client.command("SET", "ticket:1", "x")
    absent = await listener.causes()
    await told.client.command("SET", "summary:1", "x")
    await listener.told()
    await told.client.command("SET", "ticket:1", "y")
    present = await listener.causes()
    await fenced.told(2)
    await told.client.command("SET", "list:1", "x")
    globs = [str(message.get("patterns", message.get("tags"))) for message in await fenced.told(2)]

    await quiet()
    assert ([("event", ["summary:1"])], [("write", ["summary:1"])]) == (absent, present)
    assert ["['lists:*']", "['queue-1']"] == sorted(globs)
    assert [] == listener.take()


async def test_event_is_told_on_every_proxy(told: Told) -> None:
    """Keys that are in no tier as well; one that is older than the value changes nothing, and is not told."""
    listener = await told.watching.listen("ticket:*", "tag:queue-9")
    await told.client.command("SET", "ticket:1", "x")
    await told.client.command("SET", "ticket:2", "x")
    await listener.told(2)

    old = Event((b"ticket:2",), version=version_at(1_000_000))
    outcomes = await within(
        told.sink.apply([Event((b"ticket:1", b"ticket:3")), old, Event(tags=(b"queue-9",))]), "applied"
    )
    messages = await listener.told(3)

    assert [True, True, True] == [isinstance(one, Applied) for one in outcomes]
    assert {("event", "ticket:1"), ("event", "ticket:3")} == {
        (one["cause"], key) for one in messages for key in one["keys"]
    }
    assert {("ticket:*", ("queue-9",)), ("tag:queue-9", ("queue-9",))} == {
        (one["channel"], tuple(one["tags"])) for one in messages if "tags" in one
    }


async def test_event_with_a_pattern_is_told_and_its_sweep_is_not(told: Told) -> None:
    """The sweeper removes the bodies in its own time; subscribers have heard of it long before."""
    listener = await told.watching.listen("ticket:1", "ticket:2")
    for name in ("ticket:1", "ticket:2"):
        await told.client.command("SET", name, "x")
    await listener.told(2)

    await within(told.sink.apply([Event(patterns=(b"ticket:*",))]), "applied")
    sweeper = told.client
    with trio.fail_after(5):
        while await sweeper.command("DBSIZE") != b":0\r\n" and b"ticket" in await sweeper.command("KEYS", "*"):
            await trio.sleep(0.02)

    await quiet()
    assert [("event", ["ticket:1"]), ("event", ["ticket:2"])] == sorted(await listener.causes(2))


async def test_channel_of_a_rule_is_told_with_what_the_event_named(told: Told) -> None:
    """`then_publish` of [[event]]: besides the keys' own channels, and not where nothing was changed."""
    named, key = await told.watching.listen("tickets:4"), await told.watching.listen("ticket:7")
    await told.client.command("SET", "ticket:8", "x")
    event = Event((b"ticket:7",), (b"p:*",), (b"t",), then_publish=("tickets:4",), version=version_at(5_000_000))
    old = Event((b"ticket:8",), then_publish=("tickets:4",), version=version_at(1_000_000))

    await within(told.sink.apply([event, old]), "applied")
    (message,) = await named.told()

    assert (["ticket:7"], ["p:*"], ["t"]) == (message["keys"], message["patterns"], message["tags"])
    assert ("event", 5000, "tickets:4") == (message["cause"], message["version"], message["channel"])
    assert [("event", ["ticket:7"])] == await key.causes()
    await quiet()
    assert [] == named.take()


async def test_channel_that_could_not_be_told_fails_its_event(peer: Peer, serve: Serve) -> None:
    """It comes again: nothing it does is done twice by that."""
    proxy = await serve(peer)
    sink = make_event_sink(proxy.worker)
    peer.on("EVAL", b"$1\r\n-\r\n")
    peer.on("PUBLISH", b"-READONLY You can't write against a read only replica.\r\n")

    (outcome,) = await within(sink.apply([Event((b"k",), then_publish=("c",))]), "applied")
    peer.on("PUBLISH", b"-NOPERM no\r\n")
    (refused,) = await within(sink.apply([Event((b"k",), then_publish=("c",))]), "applied")

    assert isinstance(outcome, Failed)
    assert outcome.is_away
    assert isinstance(refused, Applied)


async def test_channels_that_may_not_be_told_are_said_once(peer: Peer, serve: Serve) -> None:
    """Not for every event; again once it has been allowed and is not any more."""
    proxy = await serve(peer)
    sink = make_event_sink(proxy.worker)
    peer.on("EVAL", b"$1\r\n-\r\n")
    with structlog.testing.capture_logs() as logs:
        for reply in (b"-NOPERM no\r\n", b":0\r\n", b"-NOPERM no\r\n"):
            peer.on("PUBLISH", reply)
            await within(sink.apply([Event((b"k",), then_publish=("c",))] * 3), "applied")

    said = [one["event"] for one in logs if one["log_level"] == "warning"]
    assert ["channels of then_publish could not be told"] * 2 == said


async def test_respite_invalidate_is_told_as_an_event(told: Told) -> None:
    """Whatever is there."""
    listener = await told.watching.listen("k*")
    await told.client.command("SET", "k1", "x")
    await listener.told()

    reply = await told.client.command("RESPITE", "INVALIDATE", "KEY", "k1", "k2")
    keys = await listener.causes()
    await told.client.command("RESPITE", "INVALIDATE", "MATCH", "k*")
    (fence,) = await listener.told()

    assert b":1\r\n" == reply
    assert [("event", ["k1", "k2"])] == keys
    assert ["k*"] == fence["patterns"]
