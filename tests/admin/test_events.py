"""Server-sent events on real sockets."""

from __future__ import annotations

import pytest
import trio

from .fakes import Answer, running
from .listening import change, events, make_push, websocket


async def test_events_greet_and_tell_each_change_once() -> None:
    """The answer is a stream that browsers read; its events bear the id to come back with."""
    push = make_push()
    async with running(push=push) as port, events(port, "?channels=k") as client:
        hello = await client.message()
        start = push.feed.cursor
        change(push.feed, "k")
        update = await client.message()

    assert client.head.status == 200
    assert client.head.headers["content-type"] == "text/event-stream"
    assert client.head.headers["cache-control"] == "no-store"
    assert "content-length" not in client.head.headers
    assert hello == {"type": "hello", "heartbeat_s": 15.0, "complete": True, "cursor": start}
    assert (update["keys"], update["cursor"], client.last_id) == (["k"], push.feed.cursor, push.feed.cursor)


@pytest.mark.parametrize("how", ["header", "query", "both"])
async def test_events_resume_by_last_event_id_or_since(how: str) -> None:
    """A browser comes back with Last-Event-ID, which is newer than what its URL may still say."""
    push = make_push()
    async with running(push=push) as port:
        async with events(port, "?channels=k") as client:
            await client.message()
            older = client.last_id
            change(push.feed, "k")
            await client.message()
        change(push.feed, "k")
        since = {"header": "", "query": f"&since={client.last_id}", "both": f"&since={older}"}[how]
        begin, middle = client.last_id, push.feed.cursor
        headers = [] if how == "query" else [f"Last-Event-ID: {client.last_id}"]
        async with events(port, f"?channels=k{since}", *headers) as client:
            hello, update = await client.messages(2)
            change(push.feed, "k")
            following = await client.message()

    assert (hello["complete"], hello["cursor"]) == (True, begin)
    assert [update["cursor"], following["cursor"]] == [middle, push.feed.cursor]


async def test_events_beat_with_a_comment_and_the_id() -> None:
    """A page sees no message at a heartbeat; what it comes back with is as new as can be."""
    push = make_push(heartbeat_s=0.05)
    async with running(push=push) as port, events(port, "?channels=k") as client, websocket(port, "?channels=z"):
        await client.message()
        change(push.feed, "z")
        await client.beat()

    assert client.last_id == push.feed.cursor


async def test_events_that_are_left_free_their_place() -> None:
    """A browser that closes the page is noticed at once."""
    push = make_push()
    async with running(push=push) as port:
        async with events(port, "?channels=k") as client:
            await client.message()
        with trio.fail_after(10):
            while push.feed.subscribers:
                await trio.sleep(0.001)


async def test_events_end_when_the_proxy_goes() -> None:
    """A drain ends the stream; the browser comes back elsewhere."""
    push = make_push()
    async with running(push=push) as port, events(port, "?channels=k") as client:
        await client.message()
        push.stop()
        await client.end()


async def test_events_whose_client_talks_on_and_on_end() -> None:
    """Who asked has said all; a flood behind it is dropped, and then the flooder."""
    push = make_push()
    async with running(push=push) as port, events(port, "?channels=k") as client:
        await client.message()
        await client.socket.send_all(b"x" * 1000)
        change(push.feed, "k")
        assert (await client.message())["keys"] == ["k"]
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            await client.socket.send_all(b"x" * (100 << 20))


async def test_events_of_http_1_0_and_head() -> None:
    """The oldest clients may listen; HEAD tells the type, and takes no place."""
    push = make_push()
    async with running(push=push) as port:
        head = await port.ask("HEAD /events?channels=k")
        async with await port.connect() as socket:
            await socket.send_all(b"GET /events?channels=k HTTP/1.0\r\n\r\n")
            raw = b""
            with trio.fail_after(10):
                while b"hello" not in raw:
                    raw += await socket.receive_some()

    assert (head.status, head.headers["content-type"]) == (200, "text/event-stream")
    assert Answer.of(raw).headers["connection"] == "close"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "at least one channel"),
        ("?channels=", "at least one channel"),
        ("?channels=%", "badly encoded"),
        ("?channels=a,%zz", "badly encoded"),
        ("?channels=respite%3Anothing", "respite:"),
        ("?channels=" + "x" * 5000, "at most"),
        ("?channels=" + ",".join(map(str, range(300))), "at most"),
    ],
)
@pytest.mark.parametrize("path", ["/events", "/changes"])
async def test_events_of_channels_that_are_none_are_refused(path: str, query: str, words: str) -> None:
    """What cannot be listened to is refused with the reason and an example."""
    push = make_push()
    async with running(push=push) as port:
        answer = await port.ask(f"GET {path}{query}")

    assert answer.status == 400
    assert words in answer.json["error"]
    assert "?channels=" in answer.json["help"]
    assert push.feed.subscribers == 0


async def test_events_of_channels_of_any_bytes() -> None:
    """Commas part channels, and %2C is one in a name; a name is bytes, be they text or not."""
    push = make_push()
    async with running(push=push) as port, events(port, "?channels=a%2Cb,%C3%A4&channels=c+d,%FF") as client:
        await client.message()
        for key in (b"a,b", "\u00e4".encode(), b"c+d", b"\xff", b"a", b"b"):
            change(push.feed, key.decode("utf-8", "surrogateescape"))
        updates = await client.messages(4)

    assert [update["channel"] for update in updates] == ["a,b", "\u00e4", "c+d", "\udcff"]
