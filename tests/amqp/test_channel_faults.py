"""proxy/amqp/channel.py with a scripted broker: cancellation, late answers, odd confirmations, odd messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
from pamqp import body as content_body
from pamqp import commands, frame, header

from proxy.amqp import channel as channel_module
from proxy.amqp import confirms, deliveries
from proxy.amqp.channel import Channel, Outgoing
from proxy.amqp.connection import METHODS_A_TURN
from proxy.amqp.deliveries import Consumer
from proxy.errors import ChannelClosedError, ConnectionLostError, ConsumerCancelledError, PublishRefusedError

from .scripted_broker import Peer, content, delivery, linked, opened, piece

NOTHING = commands.Basic.Properties()


async def cancelled_in(call: Callable[[], Awaitable[object]], peer: Peer, kind: type) -> None:
    """Begin a call, and cancel it once the broker has the question."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await peer.expect(kind, channel=1)
        nursery.cancel_scope.cancel()


async def consumer_of(channel: Channel, peer: Peer) -> Consumer:
    """Begin to consume."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer, commands.Basic.Consume, commands.Basic.ConsumeOk("respite-1"))
        return await channel.consume("q")


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


async def test_late_reply_of_cancelled_call_goes_to_nobody_else() -> None:
    """The next call of the same kind gets its own reply."""
    async with opened() as (channel, peer):
        await cancelled_in(lambda: channel.declare_queue("first"), peer, commands.Queue.Declare)
        async with trio.open_nursery() as nursery:
            first, second = commands.Queue.DeclareOk("first", 1, 1), commands.Queue.DeclareOk("second", 2, 2)
            nursery.start_soon(peer.answer, commands.Queue.Declare, first, second)
            state = await channel.declare_queue("second")

    assert state.name == "second"


async def test_call_that_a_living_broker_does_not_answer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats come, an answer does not: whoever waits connects anew. A late reply goes to nobody else."""
    monkeypatch.setattr(channel_module, "CALL_S", 0.1)
    async with opened() as (channel, peer):
        with pytest.raises(ConnectionLostError, match=r"has not answered within 0\.1 s"):
            await channel.declare_queue("first")
        async with trio.open_nursery() as nursery:
            first, second = commands.Queue.DeclareOk("first", 1, 1), commands.Queue.DeclareOk("second", 2, 2)
            await peer.expect(commands.Queue.Declare)
            nursery.start_soon(peer.answer, commands.Queue.Declare, first, second)
            monkeypatch.setattr(channel_module, "CALL_S", 30.0)
            assert (await channel.declare_queue("second")).name == "second"


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


async def test_message_for_cancelled_get_goes_back() -> None:
    """A message that nobody waits for any more is put back, not lost."""
    async with opened() as (channel, peer):
        await cancelled_in(lambda: channel.get("q"), peer, commands.Basic.Get)
        await peer.send(commands.Basic.GetOk(7, False, "x", "k", 0), channel=1)
        await peer.send_raw(content(3) + piece(b"abc"))
        nack = await peer.expect(commands.Basic.Nack)

    assert (nack.delivery_tag, nack.requeue, nack.multiple) == (7, True, False)


async def test_late_consumer_is_cancelled() -> None:
    """A consumer that was begun for nobody takes no messages away."""
    async with opened() as (channel, peer):
        await cancelled_in(lambda: channel.consume("q"), peer, commands.Basic.Consume)
        await peer.send(commands.Basic.ConsumeOk("respite-1"), channel=1)
        await peer.send_raw(delivery(1, b"abc"))
        cancel = await peer.expect(commands.Basic.Cancel)
        nack = await peer.expect(commands.Basic.Nack)

    assert (cancel.consumer_tag, cancel.nowait) == ("respite-1", True)
    assert (nack.delivery_tag, nack.requeue) == (1, True)


async def test_cancelled_open_closes_the_channel() -> None:
    """Its number is free once the broker has said so."""
    async with linked() as (connection, peer):
        await cancelled_in(connection.channel, peer, commands.Channel.Open)
        await peer.expect(commands.Channel.Close, channel=1)
        await peer.send(commands.Channel.OpenOk(), commands.Channel.CloseOk(), channel=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer, commands.Channel.Open, commands.Channel.OpenOk())
            await trio.testing.wait_all_tasks_blocked()
            channel = await connection.channel()

    assert channel.number in {1, 2}


async def test_cancelled_receive_loses_nothing() -> None:
    """What comes after a cancelled wait is there for the next."""
    async with opened() as (channel, peer):
        consumer = await consumer_of(channel, peer)
        with trio.move_on_after(0.01):
            await consumer.receive(1)
        await peer.send_raw(delivery(1, b"abc"))
        (found,) = await consumer.receive(1)

    assert found.body == b"abc"


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


async def test_acknowledgements_of_one_step_go_in_one_write() -> None:
    """What is acknowledged together is one packet, also many times."""
    async with opened() as (channel, peer):
        for tag in range(1, 101):
            channel.ack(tag, multiple=tag == 100)
        channel.nack(101, requeue=False)
        data = await peer.stream.receive_some(65536)

    assert len(data) == 101 * 21
    assert frame.unmarshal(data[-42:-21])[2]["multiple"] is True  # type: ignore[index]
    assert frame.unmarshal(data[-21:])[2]["requeue"] is False  # type: ignore[index]


async def test_both_sides_closing_frees_the_number_once_both_are_done() -> None:
    """A close of the broker that crosses ours is answered, and the number waits for the answer to ours."""
    async with linked() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer, commands.Channel.Open, commands.Channel.OpenOk())
        channel = await connection.channel()
        nursery.start_soon(channel.close)
        await peer.expect(commands.Channel.Close)
        await peer.send(commands.Channel.Close(406, "crossing", 0, 0), channel=1)
        await peer.expect(commands.Channel.CloseOk, channel=1)

        async def serve() -> None:
            await peer.answer(commands.Channel.Open, commands.Channel.OpenOk(), channel=2)
            await peer.send(commands.Channel.CloseOk(), channel=1)

        nursery.start_soon(serve)
        second = await connection.channel()

    assert second.number == 2


async def test_message_on_its_way_to_a_closing_channel_is_let_be() -> None:
    """What the broker sent before it saw our close neither arrives nor is an error."""
    async with linked() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer, commands.Channel.Open, commands.Channel.OpenOk())
        channel = await connection.channel()
        consumer = await consumer_of(channel, peer)
        nursery.start_soon(channel.close)
        await peer.expect(commands.Channel.Close)
        await peer.send_raw(delivery(1, b"abc"))
        await peer.send(commands.Channel.CloseOk(), channel=1)
        with pytest.raises(ChannelClosedError):
            await consumer.receive(1)
        await channel.close()
        nursery.start_soon(peer.answer, commands.Channel.Open, commands.Channel.OpenOk())
        again = await connection.channel()

    assert again.number == 1


async def test_size_that_is_claimed_takes_no_memory_and_no_message() -> None:
    """A body said to have 2**62 bytes is a message that never ends, and its pieces are let go as they come."""
    async with opened() as (channel, peer):
        consumer = await consumer_of(channel, peer)
        await peer.send(commands.Basic.Deliver("respite-1", 1, False, "x", "k"), channel=1)
        await peer.send_raw(content(1 << 62) + 20 * piece(bytes(100_000)))
        await peer.send(commands.Connection.Blocked("a sign that all was read"))
        pending = channel._content
        await trio.testing.wait_all_tasks_blocked(0.05)

    assert consumer.ready == 0
    assert pending is None or not pending.body()


async def test_more_than_may_wait_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded where nobody receives: what is too much goes back, and comes again when there is room."""
    monkeypatch.setattr(deliveries, "MAX_WAITING_BYTES", 5000)
    async with opened() as (channel, peer):
        consumer = await consumer_of(channel, peer)
        await peer.send_raw(delivery(1, bytes(3000)) + delivery(2, bytes(3000)))
        nack = await peer.expect(commands.Basic.Nack)
        (first,) = await consumer.receive(10)
        await peer.send_raw(delivery(3, bytes(9000)))
        (third,) = await consumer.receive(10)

    assert (nack.delivery_tag, nack.requeue) == (2, True)
    assert (first.tag, third.tag) == (1, 3)


async def test_odd_properties_are_left_out_and_the_message_arrives() -> None:
    """A timestamp that no calendar has and headers of unknown types cost themselves, not the message."""
    flags = (0x8000 | 0x2000 | 0x40).to_bytes(2, "big")
    table = b"\x00\x00\x00\x04\x01a?\x00"
    raw = b"\x00\x3c\x00\x00" + (3).to_bytes(8, "big") + flags + b"\x02t\xff" + table + b"\xff" * 8
    async with opened() as (channel, peer):
        consumer = await consumer_of(channel, peer)
        await peer.send(commands.Basic.Deliver("respite-1", 1, False, "x", "k"), channel=1)
        await peer.send_raw(b"\x02\x00\x01" + len(raw).to_bytes(4, "big") + raw + b"\xce" + piece(b"abc"))
        (found,) = await consumer.receive(1)

    assert (found.body, found.properties.headers, found.properties.timestamp) == (b"abc", {}, None)
    assert found.properties.content_type == "t\udcff"


async def test_properties_that_are_cut_short_reject_the_message_only() -> None:
    """A message whose properties cannot be read is rejected; the connection and the next message are fine."""
    raw = b"\x00\x3c\x00\x00" + (3).to_bytes(8, "big") + b"\x80\x00\xff"
    async with opened() as (channel, peer):
        consumer = await consumer_of(channel, peer)
        await peer.send(commands.Basic.Deliver("respite-1", 1, False, "x", "k"), channel=1)
        await peer.send_raw(b"\x02\x00\x01" + len(raw).to_bytes(4, "big") + raw + b"\xce" + piece(b"abc"))
        await peer.send_raw(delivery(2, b"next"))
        nack = await peer.expect(commands.Basic.Nack)
        (found,) = await consumer.receive(1)

    assert (nack.delivery_tag, nack.requeue) == (1, False)
    assert found.body == b"next"
    assert "cut short" in consumer.refusal


async def test_backlog_leaves_turns_to_others() -> None:
    """While many small messages come in one read, others run every few of them."""
    async with opened() as (channel, peer):
        consumer = await consumer_of(channel, peer)
        seen = [0]
        await peer.send_raw(b"".join(delivery(tag, b"{}") for tag in range(1, 201)))
        with trio.fail_after(10):
            while consumer.ready < 200:
                await trio.lowlevel.checkpoint()
                seen.append(consumer.ready)

    steps = [after - before for before, after in pairwise(seen)]
    assert max(steps) <= 2 * METHODS_A_TURN  # trio shuffles who runs: two turns of the reader may meet


async def test_consumer_that_broker_cancels_is_acknowledged_and_ends() -> None:
    """Basic.Cancel of the broker gets its answer where one is wanted."""
    async with opened() as (channel, peer):
        consumer = await consumer_of(channel, peer)
        await peer.send(commands.Basic.Cancel("respite-1", False), channel=1)
        answer = await peer.expect(commands.Basic.CancelOk)
        with pytest.raises(ConsumerCancelledError):
            await consumer.receive(1)

    assert answer.consumer_tag == "respite-1"
