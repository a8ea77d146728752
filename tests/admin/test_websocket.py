"""WebSocket on real sockets: what subscribers hear, what they may say, and who is let in."""

from __future__ import annotations

import json
import struct

import attrs
import pytest
import trio
import trio.testing
from websockets.sync.client import connect

from proxy.admin.http import Limits
from proxy.admin.pushing import WATCHED_S
from proxy.admin.websocket import FRAMING

from .fakes import running
from .listening import HANDSHAKE, change, make_push, websocket


def _masked(head: bytes, payload: bytes = b"") -> bytes:
    return head + bytes(4) + payload  # the mask of zeros changes nothing


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
def test_frame_has_the_length_of_its_message(size: int) -> None:
    """Each of the three ways to write a length is used where it must be. RFC 6455 5.2."""
    frame = FRAMING.frame(b"x" * size, "")

    if size < 126:
        head = bytes((0x81, size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x81, 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 127, size)
    assert frame == head + b"x" * size


async def test_websocket_greets_and_tells_each_change_once() -> None:
    """The first message is the greeting; then every change of the channels comes, in order, with a cursor."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=k,ticket%3A%2A") as client:
        hello = await client.message()
        start = push.feed.cursor
        change(push.feed, "k")
        change(push.feed, "other")
        change(push.feed, "ticket:7")
        first, second = await client.messages(2)

    assert client.head.status == 101
    assert client.head.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert hello == {"type": "hello", "heartbeat_s": 15.0, "complete": True, "cursor": start}
    assert (first["channel"], first["keys"], first["cause"]) == ("k", ["k"], "write")
    assert (second["channel"], second["keys"], second["cursor"]) == ("ticket:*", ["ticket:7"], push.feed.cursor)


async def test_websocket_is_what_a_client_of_others_understands() -> None:
    """A client library that we have not written opens, hears, speaks and closes."""
    push = make_push()

    def talk(url: str) -> list[object]:
        with connect(url.replace("http://", "ws://") + "/ws?channels=k", compression=None) as client:
            heard = [json.loads(client.recv(10))["type"]]
            trio.from_thread.run_sync(change, push.feed, "k")
            heard.append(json.loads(client.recv(10))["keys"])
            client.send(json.dumps({"subscribe": ["z" * 200]}))
            heard.append(json.loads(client.recv(10))["channels"])
            client.ping().wait(10)
        return [*heard, client.close_code]

    async with running(push=push) as port:
        heard = await trio.to_thread.run_sync(talk, port.url)

    assert heard == ["hello", ["k"], ["k", "z" * 200], 1000]


async def test_websocket_resumes_where_its_cursor_was() -> None:
    """Who comes back with a cursor hears what was told meanwhile, and that nothing is missing."""
    push = make_push()
    async with running(push=push) as port:
        async with websocket(port, "?channels=k") as client:
            cursor = (await client.message())["cursor"]
        change(push.feed, "k")
        async with websocket(port, f"?channels=k&since={cursor}") as client:
            hello, update = await client.messages(2)

    assert (hello["complete"], hello["cursor"]) == (True, cursor)
    assert update["keys"] == ["k"]


async def test_websocket_with_the_cursor_of_another_life_is_told() -> None:
    """A cursor from before a restart is no use, and who brings it is told before anything else."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=k&since=other-7") as client:
        hello, lost = await client.messages(2)

    assert hello["complete"] is False
    assert (lost["type"], lost["count"]) == ("lost", None)


async def test_websocket_waits_with_its_greeting_until_changes_are_heard_of() -> None:
    """The greeting is a promise: what changes after it is told."""
    push = make_push()
    push.feed.watched(None)
    async with running(push=push) as port, websocket(port, "?channels=k") as client:
        with trio.move_on_after(0.05) as waiting:
            await client.message()
        push.feed.watched([b""])
        hello = await client.message()

    assert waiting.cancelled_caught
    assert hello["complete"] is True


async def test_websocket_listens_to_more_and_to_less() -> None:
    """A client may change its channels, and is told which it has then."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        await client.message()
        await client.say({"subscribe": ["b"], "unsubscribe": ["a", "never"]})
        answer = await client.message()
        change(push.feed, "a")
        change(push.feed, "b")
        update = await client.message()

    assert answer == {"type": "subscribed", "channels": ["b"]}
    assert update["channel"] == "b"


async def test_websocket_is_told_that_it_listens_once_changes_are_heard_of() -> None:
    """Like the greeting, the word that a channel is listened to is a promise."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        await client.message()
        push.feed.watched(None)
        await client.say({"subscribe": ["b"]})
        with trio.move_on_after(0.05) as waiting:
            await client.message()
        push.feed.watched([b""])
        began = trio.current_time()
        answer = await client.message()
        while answer["type"] == "lost":
            answer = await client.message()
        took_s = trio.current_time() - began

    assert waiting.cancelled_caught
    assert took_s < WATCHED_S / 2
    assert answer == {"type": "subscribed", "channels": ["a", "b"]}


async def test_websocket_that_listens_to_many_channels_is_told_all_of_them() -> None:
    """An answer may be long."""
    names = [f"tenant-1234567890:ticket:{number:06d}" for number in range(150)]
    async with running(push=make_push()) as port, websocket(port, "?channels=a") as client:
        await client.message()
        await client.say({"subscribe": names})
        answer = await client.message()

    assert answer["channels"] == ["a", *names]


async def test_websocket_that_reads_late_gets_its_answer() -> None:
    """What it asked while it was behind is answered behind what waits for it."""
    push = make_push(buffer_bytes=32 << 20)
    async with running(push=push) as port, websocket(port, "?channels=*") as client:
        await client.message()
        stream = next(iter(push.streams))
        count = 0
        with trio.fail_after(10):
            while not stream.outlet.is_stalled:
                change(push.feed, "x" * 50_000)
                count += 1
                await trio.testing.wait_all_tasks_blocked()
        await client.say({"subscribe": ["b"]})
        await trio.testing.wait_all_tasks_blocked()
        messages = await client.messages(count + 1)

    assert [message["type"] for message in messages].count("update") == count
    assert messages[-1] == {"type": "subscribed", "channels": ["*", "b"]}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("subscribe", "send {"),
        ("[" * 50_000, "send {"),
        ({"subscribe": ["b"], "more": 1}, "send {"),
        ([], "send {"),
        ({"subscribe": "b"}, "list of strings"),
        ({"unsubscribe": [1]}, "list of strings"),
        ({"subscribe": ["x" * 5000]}, "at most"),
        ({"subscribe": [""]}, "name"),
        ('{"subscribe": ["\\ud800"]}', "no text"),
    ],
)
async def test_websocket_that_says_what_nobody_understands_is_told(said: object, words: str) -> None:
    """A wrong message is answered with what is wrong, and the stream goes on."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        await client.message()
        await client.say(said)
        answer = await client.message()
        change(push.feed, "a")
        update = await client.message()

    assert answer["type"] == "error"
    assert words in answer["error"]
    assert update["channel"] == "a"


async def test_websocket_early_frames_are_heard() -> None:
    """A client may speak before it has seen the handshake's answer."""
    lines = ["GET /ws?channels=a HTTP/1.1", "Host: localhost", *HANDSHAKE, "", ""]
    early = _masked(b"\x81\x94", b'{"subscribe": ["b"]}')
    async with running(push=make_push()) as port, await port.connect() as socket:
        await socket.send_all("\r\n".join(lines).encode() + early)
        raw = b""
        with trio.fail_after(10):
            while b"subscribed" not in raw:
                raw += await socket.receive_some()

    assert raw.index(b'"hello"') < raw.index(b'["a", "b"]')


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"Upgrade: websocket": "Upgrade: h2c"}, 426),
        ({"Connection: Upgrade": "X: y"}, 426),
        ({"Sec-WebSocket-Version: 13": "Sec-WebSocket-Version: 8"}, 426),
        ({"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==": "Sec-WebSocket-Key: short"}, 400),
        ({"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==": "X: y"}, 400),
        ({"Upgrade: websocket": "X: y"}, 426),
    ],
)
async def test_websocket_without_its_handshake_is_refused(changed: dict[str, str], status: int) -> None:
    """What is no handshake is answered in JSON, with the version that is spoken, and takes no place."""
    push = make_push()
    async with running(push=push) as port:
        answer = await port.ask("GET /ws?channels=a", *(changed.get(line, line) for line in HANDSHAKE))

    assert answer.status == status
    assert set(answer.json) == {"error", "help"}
    if status == 426:
        assert answer.headers["sec-websocket-version"] == "13"
    assert push.feed.subscribers == 0


async def test_websocket_beyond_the_most_is_told_when_to_come_back() -> None:
    """The places are counted over all kinds of streams, and one that ends makes room."""
    push = make_push(max_subscribers=1)
    async with running(push=push) as port:
        async with websocket(port, "?channels=a") as client:
            await client.message()
            refused = [await port.ask(f"GET {path}?channels=a", *HANDSHAKE) for path in ("/ws", "/events", "/changes")]
        with trio.fail_after(10):
            while push.feed.subscribers:
                await trio.sleep(0.001)
        async with websocket(port, "?channels=a") as client:
            await client.message()

    assert [(one.status, one.headers["retry-after"]) for one in refused] == [(503, "5")] * 3


async def test_websockets_take_no_place_of_other_connections() -> None:
    """However many listen, a probe gets in."""
    push = make_push()
    async with running(push=push, limits=Limits(max_connections=2)) as port:
        opened = [websocket(port, "?channels=a") for _ in range(5)]
        clients = [await one.__aenter__() for one in opened]
        for client in clients:
            await client.message()
        serves = await port.still_serves()
        change(push.feed, "a")
        updates = [await client.message() for client in clients]
        for one in opened:
            await one.__aexit__(None, None, None)

    assert serves
    assert len(updates) == 5


async def test_websocket_where_push_is_off_is_not_there() -> None:
    """Without subscribers allowed the paths say so."""
    push = make_push()
    push.take(attrs.evolve(push.settings, max_subscribers=0))
    async with running(push=push) as port, running() as without:
        answers = [
            await one.ask(f"GET {path}?channels=a", *HANDSHAKE)
            for one in (port, without)
            for path in ("/ws", "/events", "/changes")
        ]

    assert [answer.status for answer in answers] == [404] * 6
