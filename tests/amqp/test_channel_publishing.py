"""proxy/amqp/channel.py with a scripted broker, publishing: cancellation, odd confirmations, none taken."""

from __future__ import annotations

import pytest
import trio
from pamqp import body as content_body
from pamqp import commands, header

from proxy.amqp import channel as channel_module
from proxy.amqp import confirms
from proxy.amqp.channel import Channel, Outgoing
from proxy.errors import ConnectionLostError, PublishRefusedError

from .scripted_broker import Peer, content, opened, piece

NOTHING = commands.Basic.Properties()


async def confirming(channel: Channel, peer: Peer) -> None:
    """Put a channel in confirm mode."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer, commands.Confirm.Select, commands.Confirm.SelectOk())
        assert await channel.publish_all([]) == []


async def read_message(peer: Peer) -> bytes:
    """Read a message that is published; return its body."""
    await peer.expect(commands.Basic.Publish)
    _, head = await peer.receive()
    assert isinstance(head, header.ContentHeader)
    data = b""
    while len(data) < head.body_size:
        _, part = await peer.receive()
        assert isinstance(part, content_body.ContentBody)
        data += part.value
    return data


async def test_publish_that_a_living_broker_does_not_confirm_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of it is unknown. While the broker says that it takes nothing, that is no reason."""
    monkeypatch.setattr(channel_module, "CONFIRM_S", 0.1)
    async with opened() as (channel, peer):
        await confirming(channel, peer)
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                with pytest.raises(ConnectionLostError, match="has confirmed nothing"):
                    await channel.publish_all([Outgoing("x", "k", b"1", NOTHING)])
                nursery.cancel_scope.cancel()

            nursery.start_soon(publish)
            await read_message(peer)
            await peer.send(commands.Connection.Blocked("low on memory"))
            with trio.move_on_after(0.5):
                await trio.sleep_forever()
            assert not nursery.cancel_scope.cancel_called
            await peer.send(commands.Connection.Unblocked())
            await trio.sleep(5)
            pytest.fail("it waits for ever")


async def test_cancelled_publish_leaves_no_half_message() -> None:
    """Whoever is cancelled while megabytes are being written breaks nothing: the next message follows whole."""
    large = bytes(8 << 20)
    async with opened() as (channel, peer):
        await confirming(channel, peer)
        with trio.move_on_after(0.05) as scope:
            await channel.publish("", "q", large, NOTHING)
        found = []

        async def confirm_both() -> None:
            found.extend([await read_message(peer), await read_message(peer)])
            await peer.send(commands.Basic.Ack(2, True), channel=1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(confirm_both)
            await channel.publish("", "q", b"small", NOTHING)

    assert scope.cancelled_caught
    assert found == [large, b"small"]


async def test_nack_of_broker_is_a_refusal() -> None:
    """A message that the broker could not store raises, one that it could does not."""
    async with opened() as (channel, peer):
        await confirming(channel, peer)
        await peer.send(commands.Basic.Nack(1, False, False), commands.Basic.Ack(9, False), channel=1)  # none is there
        async with trio.open_nursery() as nursery:

            async def confirm() -> None:
                await read_message(peer)
                await read_message(peer)
                await peer.send(commands.Basic.Ack(2, False), commands.Basic.Nack(1, False, False), channel=1)

            nursery.start_soon(confirm)
            first, second = await channel.publish_all(
                [Outgoing("", "q", b"1", NOTHING), Outgoing("", "q", b"2", NOTHING)]
            )

    assert isinstance(first, PublishRefusedError)
    assert second is None


async def test_returned_message_is_told_by_what_it_is() -> None:
    """A message that comes back among others for the same key is found by its body."""
    async with opened() as (channel, peer):
        await confirming(channel, peer)
        messages = [Outgoing("x", "k", b"%d" % number, NOTHING, mandatory=True) for number in range(3)]
        async with trio.open_nursery() as nursery:

            async def confirm() -> None:
                for _ in messages:
                    await read_message(peer)
                await peer.send(commands.Basic.Return(312, "NO_ROUTE", "x", "k"), channel=1)
                await peer.send_raw(content(1) + piece(b"1"))
                await peer.send(commands.Basic.Ack(3, True), channel=1)

            nursery.start_soon(confirm)
            outcomes = await channel.publish_all(messages)

    assert [outcome is None for outcome in outcomes] == [True, False, True]


async def test_unconfirmed_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more are on their way than may be; the rest follows the confirmations."""
    monkeypatch.setattr(confirms, "MOST_UNCONFIRMED", 2)
    async with opened() as (channel, peer):
        await confirming(channel, peer)
        outcomes = []

        async def publish() -> None:
            outcomes.extend(await channel.publish_all([Outgoing("", "q", b"x", NOTHING) for _ in range(5)]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish)
            for tag in (2, 4, 5):
                for _ in range(2 if tag < 5 else 1):
                    await read_message(peer)
                with trio.move_on_after(0.02) as more:
                    await peer.receive()
                assert more.cancelled_caught
                await peer.send(commands.Basic.Ack(tag, True), channel=1)

    assert outcomes == [None] * 5


async def test_lost_connection_ends_publishers() -> None:
    """Whoever waits for a confirmation that will not come is told."""
    async with opened() as (channel, peer):
        await confirming(channel, peer)
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await read_message(peer)
                await peer.stream.aclose()

            nursery.start_soon(leave)
            with pytest.raises(ConnectionLostError):
                await channel.publish("", "q", b"x", NOTHING)


async def test_blocked_publisher_is_told_when_connection_is_lost() -> None:
    """Waiting for a broker that lacks memory ends with the connection."""
    async with opened() as (channel, peer):
        await confirming(channel, peer)
        await peer.send(commands.Connection.Blocked("low on memory"))
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await trio.testing.wait_all_tasks_blocked(0.02)
                await peer.stream.aclose()

            nursery.start_soon(leave)
            with pytest.raises(ConnectionLostError):
                await channel.publish("", "q", b"x", NOTHING)


async def test_stopped_flow_makes_publishers_wait() -> None:
    """Channel.Flow is answered and obeyed."""
    async with opened() as (channel, peer):
        await confirming(channel, peer)
        await peer.send(commands.Channel.Flow(False), channel=1)
        stopped = await peer.expect(commands.Channel.FlowOk)
        with trio.move_on_after(0.05) as scope:
            await channel.publish("", "q", b"x", NOTHING)
        await peer.send(commands.Channel.Flow(True), channel=1)
        started = await peer.expect(commands.Channel.FlowOk)

    assert scope.cancelled_caught
    assert (stopped.active, started.active) == (False, True)
