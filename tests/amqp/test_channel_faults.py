"""proxy/amqp/channel.py with a scripted broker: cancellation, late answers, odd messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
import trio
from pamqp import commands, frame

from proxy.amqp import channel as channel_module
from proxy.amqp import deliveries
from proxy.amqp.channel import Channel
from proxy.amqp.connection import METHODS_A_TURN
from proxy.amqp.deliveries import Consumer
from proxy.errors import ChannelClosedError, ConnectionLostError, ConsumerCancelledError

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
