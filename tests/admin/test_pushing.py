"""Delivery to many: who does not read, who lags, and what all that costs the others."""

from __future__ import annotations

import socket
import struct
from contextlib import AsyncExitStack
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from proxy.admin.pushing import SLICE_S, Push
from proxy.core.feed.feed import CHANNELS_MAX, FeedError

from .fakes import running
from .listening import EventSource, Listener, WebSocket, change, events, make_push, websocket

_LONG = "k" * 900  # a key that makes messages large, so that buffers fill soon


async def _until_stalled(push: Push, count: int = 1) -> None:
    """Tell changes until so many streams take no more."""
    with trio.fail_after(10):
        while sum(stream.outlet.is_stalled for stream in push.streams) < count:
            for _ in range(20):
                change(push.feed, _LONG)
            await trio.testing.wait_all_tasks_blocked()


async def _free(push: Push, subscribers: int) -> None:
    with trio.fail_after(10):
        while push.feed.subscribers > subscribers:
            await trio.sleep(0.001)


@pytest.mark.parametrize("kind", [websocket, events])
async def test_stalled_stream_loses_the_oldest_and_is_told_how_many(kind: Any) -> None:
    """Who does not read holds up nobody; when it reads again, each message has come or is counted as lost."""
    push = make_push(buffer_bytes=64 << 10)
    async with (
        running(push=push) as port,
        kind(port, f"?channels={_LONG}") as stalled,
        events(port, "?channels=b") as b,
    ):
        await stalled.message()
        await b.message()
        await _until_stalled(push)
        for _ in range(200):
            change(push.feed, _LONG)
        change(push.feed, "b")
        prompt = await b.message()
        told = push.feed.changes - 1
        came, lost, last = 0, 0, ""
        while came + lost < told:
            message = await stalled.message()
            came += message["type"] == "update"
            lost += message.get("count", 0)
            last = message.get("cursor", last)
        change(push.feed, _LONG)
        following = await stalled.message()

    assert prompt["keys"] == ["b"]
    assert lost > 0
    assert (came + lost, following["type"]) == (told, "update")
    assert following["cursor"] == push.feed.cursor


@pytest.mark.parametrize("kind", [websocket, events])
async def test_stalled_stream_is_cut_when_it_takes_nothing_at_all(kind: Any) -> None:
    """A stream has so long to take anything; then its place is free."""
    push = make_push(write_s=0.1)
    async with running(push=push) as port, kind(port, f"?channels={_LONG}") as stalled:
        await stalled.message()
        await _until_stalled(push)
        await _free(push, 0)

        assert await port.still_serves()


async def test_stream_that_reads_slowly_is_not_cut() -> None:
    """Whoever takes something now and then may take its time: the deadline is for who takes nothing."""
    push = make_push(write_s=0.2)
    async with running(push=push) as port, websocket(port, f"?channels={_LONG}") as slow:
        await slow.message()
        await _until_stalled(push)
        began = trio.current_time()
        while trio.current_time() - began < 0.6:
            with trio.fail_after(10):
                await slow.socket.receive_some(16384)
            change(push.feed, _LONG)
            await trio.sleep(0.01)

        assert push.feed.subscribers == 1


async def test_stalled_stream_is_ended_by_a_drain() -> None:
    """Nobody waits for who does not read."""
    push = make_push()
    with trio.fail_after(10):
        async with running(push=push) as port, websocket(port, f"?channels={_LONG}") as stalled:
            await stalled.message()
            await _until_stalled(push)
            push.stop()
            await _free(push, 0)


async def test_stream_reset_by_its_peer_ends_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """A peer that vanishes, stalled or not, is no error of ours, and the others hear on."""
    push = make_push()
    async with running(push=push) as port, events(port, f"?channels={_LONG}") as other:
        await other.message()
        for stalls in (False, True):
            async with websocket(port, f"?channels={_LONG}") as client:
                await client.message()
                if stalls:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_read_on, other)
                        await _until_stalled(push)
                        nursery.cancel_scope.cancel()
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            change(push.feed, _LONG)
            await _free(push, 1)
        change(push.feed, _LONG)
        await other.message()

    assert "failed" not in capsys.readouterr().err


async def _read_on(client: Listener) -> None:
    assert isinstance(client, EventSource)
    while True:
        await client.message()


async def test_every_subscriber_hears_every_change_in_order() -> None:
    """However many listen, in whatever way, nobody misses anything or hears it twice."""
    push = make_push()
    async with running(push=push) as port, AsyncExitStack() as stack:
        clients: list[WebSocket | EventSource] = []
        for _ in range(10):
            clients += [
                await stack.enter_async_context(websocket(port, "?channels=a,b")),
                await stack.enter_async_context(events(port, "?channels=*")),
            ]
        for client in clients:
            await client.message()
        for number in range(300):
            change(push.feed, "ab"[number % 2])
            if number % 7 == 0:
                await trio.lowlevel.checkpoint()
        heard = [[message["keys"] for message in await client.messages(300)] for client in clients]

    assert heard == [[["a"], ["b"]] * 150] * 20


async def test_burst_comes_whole_though_nothing_follows() -> None:
    """What is more than one turn's worth goes on by itself."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        await client.message()
        for _ in range(500):
            change(push.feed, "a")
        messages = await client.messages(500)

    assert messages[-1]["cursor"] == push.feed.cursor
    assert push._frames == {}


@attrs.define
class _Sharer:
    """A reactor that counts its turns, and notes how far another task has come at each."""

    turns: int = 0
    hurried_s: float = 0.0
    others: int = 0
    seen: set[int] = attrs.field(factory=set)

    def turn(self) -> None:
        self.turns += 1
        self.seen.add(self.others)

    async def be_another(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.others += 1

    def hurry(self, seconds: float) -> None:
        self.hurried_s = seconds


async def test_clients_of_the_proxy_get_their_turn_between_slices() -> None:
    """However many are to be told, the reactor is let in after each slice of work, and other tasks every few."""
    sharer = _Sharer()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += SLICE_S / 2  # each stream takes half a slice
        return now

    plain = make_push()
    push = Push(plain.feed, plain.settings, sharer=sharer, clock=clock)
    async with running(push=push) as port, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(websocket(port, "?channels=a")) for _ in range(30)]
        for client in clients:
            await client.message()
        await trio.testing.wait_all_tasks_blocked()
        sharer.turns = 0
        sharer.seen.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sharer.be_another)
            change(push.feed, "a")
            for client in clients:
                await client.message()
            nursery.cancel_scope.cancel()

    assert 8 <= sharer.turns <= 16
    assert 2 <= len(sharer.seen) <= 5  # in which order a round takes its tasks is a matter of chance
    assert sharer.hurried_s > 0


async def test_clients_of_the_proxy_get_their_turn_while_channels_are_weighed() -> None:
    """One who asks for as many as he may have, and dear ones, holds up nobody."""
    sharer = _Sharer()
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += SLICE_S
        return now

    plain = make_push()
    push = Push(plain.feed, plain.settings, sharer=sharer, clock=clock)
    refused = await push.weigh([f"a{number}*" for number in range(CHANNELS_MAX)], lambda name: name != "a7*")

    assert refused == ["a7*"]
    assert sharer.turns > CHANNELS_MAX / 4


async def test_more_channels_than_one_may_have_are_not_looked_at() -> None:
    """A message has room for tens of thousands of names."""
    push = make_push()
    asked: list[str] = []

    with pytest.raises(FeedError, match="at most 256 channels"):
        await push.weigh([str(number) for number in range(CHANNELS_MAX + 1)], lambda name: bool(asked.append(name)))

    assert asked == []


async def test_stream_that_is_not_greeted_yet_is_ended_too() -> None:
    """Who was let in just before the end hears of it at once."""
    push = make_push()
    push.feed.watched(None)  # so that the greeting is not there yet
    async with running(push=push) as port, websocket(port, "?channels=a") as client:
        push.stop()

        assert await client.end() == (1001, "the proxy is going away")


async def test_mistake_of_ours_ends_one_stream_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever goes wrong for one subscriber, the others hear on, and so does the proxy."""
    push = make_push()
    async with running(push=push) as port, websocket(port, "?channels=a") as client, events(port, "?channels=a") as b:
        await client.message()
        await b.message()
        next(iter(push.streams)).framing = None  # type: ignore[assignment]
        change(push.feed, "a")
        assert (await b.message())["keys"] == ["a"]
        with trio.fail_after(10):
            assert await client.socket.receive_some() == b""

    assert "delivery failed" in capsys.readouterr().err
