"""proxy/amqp/connection.py, handshake.py, frames.py with a broker that breaks the rules, or breaks."""

from __future__ import annotations

import random

import pytest
import trio
from pamqp import commands, frame

from proxy.amqp.channel import Channel
from proxy.amqp.connection import connect
from proxy.config.model import AmqpEndpoint
from proxy.errors import AmqpError, BrokerRefusedError, ConnectionLostError

from .scripted_broker import Peer, content, delivery, linked, listening, opened, piece


async def refusal_of(endpoint: AmqpEndpoint, *, timeout_s: float = 5) -> AmqpError:
    """Return what connecting raises."""
    with pytest.raises(AmqpError) as caught:
        async with connect(endpoint, context=None, name="test", timeout_s=timeout_s):
            pass
    return caught.value


async def says(raw: bytes, peer: Peer) -> None:
    """Send bytes after the protocol header came, and stay."""
    await peer.stream.receive_some(8)
    await peer.send_raw(raw)
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMQP"),
        (b"AMQP\x00\x01\x00\x00", "another AMQP, version 1.0.0"),
        (b"\x01\x00\x00\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (b"\x01\x00\x00\x00\x00\x00\x04\x00\x63\x00\x63\xce", "cannot be read"),
        (b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a\xff", "does not end as one"),
        (frame.marshal(commands.Connection.Tune(), 0), "Connection.Tune where Connection.Start was due"),
        (frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 0), "a message while greeting"),
        (content(3, channel=0), "content while greeting"),
    ],
    ids=repr,
)
async def test_no_greeting_is_told_as_what_it_is(raw: bytes, words: str) -> None:
    """What comes instead of a greeting is named, at once."""
    async with listening(lambda peer: says(raw, peer)) as endpoint:
        error = await refusal_of(endpoint)

    assert isinstance(error, ConnectionLostError)
    assert words in str(error)


async def test_silent_server_is_given_up_in_time() -> None:
    """A server that says nothing costs the timeout, no more."""
    async with listening(lambda peer: says(b"", peer)) as endpoint:
        with trio.fail_after(2):
            error = await refusal_of(endpoint, timeout_s=0.2)

    assert isinstance(error, ConnectionLostError)
    assert "no answer within 0.2 s" in str(error)


async def test_broker_that_closes_on_login_is_a_refusal() -> None:
    """A broker that closes without a word after the password has refused it."""

    async def script(peer: Peer) -> None:
        await peer.start()

    async with listening(script) as endpoint:
        error = await refusal_of(endpoint)

    assert isinstance(error, BrokerRefusedError)


async def test_challenge_is_a_refusal() -> None:
    """A broker that wants more than a password is not one we can satisfy."""

    async def script(peer: Peer) -> None:
        await peer.start()
        await peer.send(commands.Connection.Secure("what is your quest?"))
        await trio.sleep_forever()

    async with listening(script) as endpoint:
        error = await refusal_of(endpoint)

    assert isinstance(error, BrokerRefusedError)


async def test_login_says_who_we_are() -> None:
    """The broker can show the name of the connection, and knows that we take cancellations and blocks."""
    answers = []

    async def script(peer: Peer) -> None:
        answers.append(await peer.start())

    async with listening(script) as endpoint:
        await refusal_of(endpoint)

    (answer,) = answers
    assert answer.response == "\0guest\0guest"
    assert answer.client_properties["connection_name"] == "test"
    capabilities = answer.client_properties["capabilities"]
    assert isinstance(capabilities, dict)
    assert capabilities["consumer_cancel_notify"] is True


async def test_frame_size_below_minimum_is_refused() -> None:
    """A broker that would take no frame to speak of is none."""

    async def script(peer: Peer) -> None:
        await peer.start()
        await peer.send(commands.Connection.Tune(0, 100, 0))
        await trio.sleep_forever()

    async with listening(script) as endpoint:
        error = await refusal_of(endpoint)

    assert "100 bytes" in str(error)


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (b"\x09\x00\x01\x00\x00\x00\x00\xce", 501, "does not speak AMQP"),
        (b"\x01\x00\x01\x00\x02\x00\x00", 501, "a frame of 131072 bytes"),
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x3c\xce", 501, "cannot be read"),
        (frame.marshal(commands.Queue.DeclareOk("q", 0, 0), 1), 503, "Queue.DeclareOk, which nobody asked for"),
        (frame.marshal(commands.Channel.CloseOk(), 1), 503, "Channel.CloseOk"),
        (frame.marshal(commands.Basic.GetOk(1, False, "x", "k", 0), 1), 503, "Basic.GetOk"),
        (frame.marshal(commands.Basic.Publish(0, "x", "k"), 1), 503, "Basic.Publish"),
        (frame.marshal(commands.Connection.OpenOk(), 0), 503, "channel 0"),
        (frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 0), 503, "a message on channel 0"),
        (frame.marshal(commands.Basic.Ack(1), 7), 504, "channel 7"),
        (piece(b"abc"), 505, "belongs to no message"),
        (content(3), 505, "belongs to no message"),
        (content(3, channel=0), 505, "content on channel 0"),
        (frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1) + piece(b"d"), 505, "before its header"),
        (frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1) + content(9) + content(9), 505, "second"),
        (frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1) + content(2) + piece(b"abc"), 501, "more"),
        (2 * frame.marshal(commands.Basic.Deliver("c", 1, False, "x", "k"), 1), 505, "within a message"),
        (b"\x02\x00\x01\x00\x00\x00\x01\x00\xce", 505, "belongs to no message"),
    ],
    ids=repr,
)
async def test_broken_rule_ends_connection_with_its_code(raw: bytes, code: int, words: str) -> None:
    """The broker is told what it did, and so is whoever waits."""
    async with opened() as (channel, peer):
        await peer.send_raw(raw)
        closed = await peer.expect(commands.Connection.Close)
        with pytest.raises(ConnectionLostError) as caught:
            channel.ack(1)

    assert (closed.reply_code, words in closed.reply_text) == (code, True), closed.reply_text
    assert words in str(caught.value)


@pytest.mark.parametrize("seed", range(20))
async def test_noise_never_raises_anything_else(seed: int) -> None:
    """Whatever bytes come, the connection ends as lost and nothing of ours breaks."""
    chance = random.Random(seed)
    starts = [b"", b"\x01\x00\x01\x00\x00\x00\x10\x00\x3c\x00\x3c", b"\x01\x00\x00\x00\x00\x00\x08\x00\x0a\x00\x32"]
    async with opened() as (channel, peer):
        await peer.send_raw(chance.choice(starts) + chance.randbytes(400))
        await peer.stream.send_eof()
        with pytest.raises(ConnectionLostError) as caught:
            await channel.declare_queue("q")

    assert "a fault of Respite" not in str(caught.value)


@pytest.mark.parametrize("kept", [1, 6, 7, 20, -1])
async def test_close_within_a_frame_is_a_loss(kept: int) -> None:
    """A connection that ends in the middle of a frame hands out nothing half."""
    async with opened() as (channel, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer, commands.Basic.Consume, commands.Basic.ConsumeOk("respite-1"))
            consumer = await channel.consume("q")
        await peer.send_raw(delivery(1, b"a message")[:kept])
        await peer.stream.aclose()
        with pytest.raises(ConnectionLostError):
            await consumer.receive(1)


async def test_message_byte_by_byte_is_whole() -> None:
    """Where reads end makes no difference."""
    async with opened() as (channel, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.answer, commands.Basic.Consume, commands.Basic.ConsumeOk("respite-1"))
            consumer = await channel.consume("q")
        for byte in delivery(1, b"a message"):
            await peer.send_raw(bytes((byte,)))
            await trio.testing.wait_all_tasks_blocked()
        (found,) = await consumer.receive(5)

    assert found.body == b"a message"


async def test_silence_ends_connection_after_two_heartbeats() -> None:
    """A peer that says nothing any more is taken for dead, though its socket is open."""
    async with linked(heartbeat_s=1) as (connection, _):
        began = trio.current_time()
        with trio.fail_after(10), pytest.raises(ConnectionLostError, match="silent for 2 s"):
            await connection.wait_closed()

    assert trio.current_time() - began > 1.4


async def test_heartbeats_are_sent_while_nothing_else_is() -> None:
    """The broker hears from us twice a heartbeat."""
    async with linked(heartbeat_s=1) as (_, peer):
        with trio.move_on_after(1.8):
            await peer.receive()

    assert peer.heartbeats >= 2


async def test_no_heartbeat_means_no_end() -> None:
    """With heartbeats off silence is no fault."""
    async with linked(heartbeat_s=0) as (connection, peer):
        with trio.move_on_after(0.3) as scope:
            await connection.wait_closed()

    assert scope.cancelled_caught
    assert peer.heartbeats == 0


async def test_broker_that_closes_in_order_is_answered() -> None:
    """Connection.Close gets its CloseOk, and its words reach everybody who waits."""
    async with linked() as (connection, peer):
        await peer.send(commands.Connection.Close(320, "CONNECTION_FORCED - going down", 0, 0))
        await peer.expect(commands.Connection.CloseOk)
        with pytest.raises(ConnectionLostError, match="going down"):
            await connection.channel()


async def test_broker_that_does_not_answer_farewell_is_left() -> None:
    """A close without CloseOk costs half a second."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await trio.sleep_forever()

    async with listening(script) as endpoint:
        async with connect(endpoint, context=None, name="test", timeout_s=5, heartbeat_s=0):
            began = trio.current_time()
        took = trio.current_time() - began

    assert 0.3 < took < 2


async def test_cancelled_user_still_sends_what_it_said() -> None:
    """An acknowledgement given before a cancellation goes out, and then the farewell, in order."""
    found = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(commands.Channel.Open, commands.Channel.OpenOk())
        found.extend([(await peer.receive())[1].name, (await peer.receive())[1].name])
        await peer.send(commands.Connection.CloseOk())

    async with listening(script) as endpoint:
        with trio.CancelScope() as scope:
            async with connect(endpoint, context=None, name="test", timeout_s=5, heartbeat_s=0) as connection:
                channel = await connection.channel()
                scope.cancel()
                channel.ack(1)
                await connection.wait_closed()

    assert scope.cancelled_caught
    assert found == ["Basic.Ack", "Connection.Close"]


async def test_fault_of_ours_ends_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in what takes a message is a lost connection that says so, and not the end of the process."""

    def stumble(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Channel, "take_method", stumble)
    async with linked() as (connection, peer), trio.open_nursery() as nursery:
        nursery.start_soon(peer.answer, commands.Channel.Open, commands.Channel.OpenOk())
        with pytest.raises(ConnectionLostError, match=r"a fault of Respite.*ZeroDivisionError"):
            await connection.channel()


async def test_numbers_of_channels_are_bounded_and_used_again() -> None:
    """The broker's channel_max holds, and a channel that is closed makes room."""
    async with linked(channel_max=2) as (connection, peer), trio.open_nursery() as nursery:

        async def serve() -> None:
            for _ in range(2):
                channel, _ = await peer.receive()
                await peer.send(commands.Channel.OpenOk(), channel=channel)
            await peer.expect(commands.Channel.Close, channel=1)
            await peer.send(commands.Channel.CloseOk(), channel=1)
            await peer.answer(commands.Channel.Open, commands.Channel.OpenOk(), channel=1)

        nursery.start_soon(serve)
        first, second = await connection.channel(), await connection.channel()
        with pytest.raises(AmqpError, match="allows 2 channels"):
            await connection.channel()
        await first.close()
        third = await connection.channel()

    assert (first.number, second.number, third.number) == (1, 2, 1)
