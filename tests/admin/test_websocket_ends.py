"""WebSocket on real sockets: heartbeats, pings, and what ends a stream."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from wsproto.events import CloseConnection, Ping, TextMessage

from .fakes import running
from .listening import HANDSHAKE, change, make_push, websocket


def _masked(head: bytes, payload: bytes = b"") -> bytes:
    return head + bytes(4) + payload  # the mask of zeros changes nothing


async def test_websocket_pings_and_beats() -> None:
    """At each heartbeat comes a ping, for the connection, and a message, for a page, which sees no ping."""
    push = make_push(heartbeat_s=0.4)
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        await client.message()
        beat = await client.message()

    assert beat == {"type": "heartbeat", "cursor": push.feed.cursor}
    assert client.pings == 1


async def test_websocket_of_a_client_that_speaks_all_the_time_beats() -> None:
    """A client with a keepalive of its own is told at each heartbeat how far it has come, too."""
    push = make_push(heartbeat_s=0.2)
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        await client.message()

        async def speak() -> None:
            while True:
                await client.send(client.protocol.send(Ping(b"")))
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            with trio.fail_after(10):
                beats = await client.messages(2)
            nursery.cancel_scope.cancel()

    assert [beat["type"] for beat in beats] == ["heartbeat"] * 2


async def test_websocket_that_answers_no_ping_is_closed() -> None:
    """A peer that is silent for longer than two heartbeats is gone."""
    async with running(push=make_push(heartbeat_s=0.05)) as port, websocket(port, "?channels=a") as client:
        client.answers_pings = False

        with trio.fail_after(10):
            assert await client.end() == (1008, "pings were not answered")


async def test_websocket_ping_of_a_client_is_answered() -> None:
    """A ping comes back as a pong with the same payload; frames in pieces are whole ones."""
    async with running(push=make_push()) as port, websocket(port, "?channels=a") as client:
        await client.message()
        for byte in client.protocol.send(Ping(b"are you there")):
            await client.send(bytes([byte]))
        with trio.fail_after(10):
            raw = await client.socket.receive_some(100)

    assert raw == b"\x8a\x0dare you there"


async def test_websocket_message_in_pieces_is_one_message() -> None:
    """A message may come in several frames, with a control frame between them."""
    async with running(push=make_push()) as port, websocket(port, "?channels=a") as client:
        await client.message()
        await client.send(client.protocol.send(TextMessage('{"subscribe"', message_finished=False)))
        await client.send(client.protocol.send(Ping(b"")))
        await client.send(client.protocol.send(TextMessage(': ["b"]}', message_finished=True)))
        answer = await client.message()

    assert answer["channels"] == ["a", "b"]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (_masked(b"\x83\x80"), 1002),  # an opcode that there is not
        (b"\x81\x02hi", 1002),  # not masked, as a client's must be
        (_masked(b"\xc1\x82", b"hi"), 1002),  # a reserved bit
        (_masked(b"\x89\xfe\x00\x7e", b"x" * 126), 1002),  # a ping of more than 125 bytes
        (_masked(b"\x09\x82", b"hi"), 1002),  # a ping in pieces
        (_masked(b"\x80\x82", b"hi"), 1002),  # goes on with what has not begun
        (_masked(b"\x81\x82", b"\xff\xfe"), 1007),  # no UTF-8
        (_masked(b"\x82\x82", b"hi"), 1003),  # bytes, not text
        (_masked(b"\x88\x81", b"x"), 1002),  # a close with half a code
    ],
)
async def test_websocket_that_breaks_the_protocol_is_closed_with_the_code(raw: bytes, code: int) -> None:
    """What is no WebSocket ends the stream, with the code that says why, and nobody else's."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=a") as other:
        await other.message()
        async with websocket(port, "?channels=a") as client:
            await client.message()
            await client.send(raw)
            closed = await client.end()
        change(push.feed, "a")
        update = await other.message()

    assert closed is not None
    assert closed[0] == code
    assert update["keys"] == ["a"]
    assert push.feed.subscribers == 0


async def test_websocket_message_without_end_is_closed() -> None:
    """Nobody makes the port keep more of a message than its limit."""
    async with running(push=make_push()) as port, websocket(port, "?channels=a") as client:
        await client.message()
        for _ in range(9):
            await client.send(client.protocol.send(TextMessage(" " * (64 << 10), message_finished=False)))

        closed = await client.end()

    assert closed is not None
    assert closed[0] == 1009


async def test_websocket_that_is_closed_by_its_client_is_answered() -> None:
    """The close comes back, the connection ends at once, and the place is free."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        await client.message()
        await client.send(client.protocol.send(CloseConnection(1000, "done")))
        began = trio.current_time()
        with trio.fail_after(10):
            raw = await client.socket.receive_some(100)
            end = await client.socket.receive_some(100)
        took_s = trio.current_time() - began
        with trio.fail_after(10):
            while push.feed.subscribers:
                await trio.sleep(0.001)

    assert (raw, end) == (b"\x88\x06\x03\xe8done", b"")
    assert took_s < 0.5


async def test_websocket_hears_that_the_proxy_goes() -> None:
    """A drain ends every stream with 1001, and lets no new one in."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        await client.message()
        push.stop()
        closed = await client.end()
        refused = await port.ask("GET /ws?channels=a", *HANDSHAKE)

    assert closed == (1001, "the proxy is going away")
    assert (refused.status, refused.headers["retry-after"]) == (503, "5")


async def test_websocket_hears_that_the_port_is_closed() -> None:
    """When the port ends, each stream gets its last word on the way."""
    push = make_push()
    async with running(push=push) as port:
        opened = websocket(port, "?channels=a")
        client = await opened.__aenter__()
        await client.message()
    closed = await client.end()
    await opened.__aexit__(None, None, None)

    assert closed == (1001, "the proxy is going away")
