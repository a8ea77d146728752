"""Delivery to every stream: one task takes what subscriptions hold and writes it, and waits for no socket.

    change --> Feed --> subscription has something --> ready --> deliver: take, frame, one write a stream
                                                         ^                    |
                                                         '--- flushed <--- stalled: the socket takes no more

Owns which streams there are and whose turn it is. A stream that does not read is left out until it does: what comes for
it meanwhile stays in its subscription, which drops the oldest and says so. After each slice of work, clients of the
proxy and other tasks get theirs. A change is framed once, however many subscribers it has. The last message of each
turn bears a `cursor`, which is how far the subscriber has come.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, Protocol

import trio

from proxy.admin.answers import Streaming
from proxy.admin.outlet import Outlet
from proxy.config import model
from proxy.config.model import PushToken
from proxy.core.feed.channels import read_channel
from proxy.core.feed.feed import CHANNELS_MAX, Feed, FeedError, Subscription
from proxy.log import get_logger

# How long one go may keep clients of the proxy waiting.
SLICE_S: Final = 0.0005
# Every so many slices all tasks get a turn, not the proxy's clients alone.
SLICES_A_ROUND: Final = 4
HURRY_S: Final = 0.1
# Of one subscription at a time, so that who lags far behind does not hold up the others.
MESSAGES_A_TURN: Final = 64
# A client is greeted after it in any case; what it misses until changes are heard of, it is told of.
WATCHED_S: Final = 2.0
GOING: Final = "the proxy is going away"


log = get_logger("proxy.admin")


class Sharer(Protocol):
    """Who else needs this thread: the reactor, where clients are served on it."""

    def turn(self) -> None:
        """Serve what is ready at this moment."""

    def hurry(self, seconds: float) -> None:
        """Leave the thread to other tasks at once for so long, when nothing is ready."""


class Framing(Protocol):
    """How messages look on one kind of stream."""

    def frame(self, message: bytes, cursor: str) -> bytes:
        """Frame one message, JSON in one line; `cursor` is "" or the one that it bears."""
        ...


class Stream:
    """One subscriber: what it hears, its way out, and the scope that ends it."""

    __slots__ = ("framing", "is_gone", "last_words", "outlet", "scope", "subscription", "token")

    def __init__(
        self,
        socket: trio.SocketStream,
        streaming: Streaming,
        framing: Framing,
        on_stalled: Callable[[Stream], None],
    ) -> None:
        self.subscription = streaming.subscription
        self.token = streaming.token
        self.framing = framing
        self.outlet = Outlet(socket, partial(on_stalled, self), self.cut)
        self.scope = trio.CancelScope()
        self.is_gone = False  # its peer hears nothing more
        self.last_words = ""  # why we end it, for a peer that hears

    def end(self, why: str) -> None:
        """End it with last words."""
        self.last_words = why
        self.scope.cancel()

    def cut(self) -> None:
        """End it without a word: its peer is gone, or takes nothing."""
        self.is_gone = True
        self.scope.cancel()


async def watched(subscription: Subscription) -> None:
    """Wait until every change of a subscription's channels is heard of, but not for ever."""
    if not subscription.is_watched:
        event = trio.Event()
        subscription.on_watched = event.set
        try:
            with trio.move_on_after(WATCHED_S):
                await event.wait()
        finally:
            subscription.on_watched = None


class Push:
    """All streams of one admin port."""

    def __init__(
        self,
        feed: Feed,
        settings: model.Push,
        *,
        sharer: Sharer | None = None,
        write_s: float = 10.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Make the deliverer; a stream that takes nothing of what was written for `write_s` is cut."""
        self.feed = feed
        self.settings = settings
        self.is_stopping = False
        self._sharer = sharer
        self._write_s = write_s
        self._clock = clock
        self.streams: dict[Stream, None] = {}
        self._waiting: dict[trio.CancelScope, None] = {}
        self._ready: dict[Stream, None] = {}
        self._has_ready = trio.Event()
        self._frames: dict[tuple[Framing, bytes, str], bytes] = {}
        self._nursery: trio.Nursery | None = None

    def take(self, settings: model.Push) -> None:
        """Go by these settings from now on; streams whose token has gone end, and who waits is looked at again."""
        were, self.settings = self.settings, settings
        for stream in list(self.streams):
            if not self.knows(stream.token):
                stream.end("your token is not known any more")
        if were.tokens != settings.tokens:
            for scope in self._waiting:
                scope.cancel()

    def knows(self, token: PushToken | None) -> bool:
        """Return whether a visitor who came with this push token, None for none, may still hear."""
        return token is None or token in self.settings.tokens

    async def weigh(self, channels: Collection[str], may_hear: Callable[[str], bool]) -> list[str]:
        """Return which channels somebody asks for who may not hear them; everybody else gets their turn meanwhile.

        Raises FeedError for what is no channel, and for more than one subscription has.
        """
        if len(channels) > CHANNELS_MAX:
            raise FeedError(f"one subscription has at most {CHANNELS_MAX} channels")
        refused: list[str] = []
        began = self._clock()
        for name in channels:
            read_channel(name)  # remembered until it is subscribed to
            if not may_hear(name):
                refused.append(name)
            if self._clock() - began > SLICE_S:
                await self._share(is_round=True)
                began = self._clock()
        return refused

    def stop(self) -> None:
        """End every stream and every wait, and let no new one in: the proxy is going. A second call changes nothing."""
        self.is_stopping = True
        for stream in list(self.streams):
            stream.end(GOING)
        for scope in self._waiting:
            scope.cancel()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the block, which answers somebody, wait; `stop` ends it where it is."""
        with trio.CancelScope() as scope:
            self._waiting[scope] = None
            try:
                if self.is_stopping:
                    scope.cancel()
                yield
            finally:
                del self._waiting[scope]

    @contextmanager
    def stream(self, socket: trio.SocketStream, streaming: Streaming, framing: Framing) -> Iterator[Stream]:
        """Hold a subscriber's place during the block, which closes its subscription at the end; `greet` begins it."""
        stream = Stream(socket, streaming, framing, self._stalled)
        self.streams[stream] = None
        try:
            stream.outlet.tune(2 * self.settings.heartbeat_s + self._write_s)
            yield stream
        finally:
            del self.streams[stream]
            self._ready.pop(stream, None)
            stream.subscription.close()
            stream.outlet.close()

    async def greet(self, stream: Stream) -> None:
        """Say hello, once every change of its channels will be heard of, and deliver from there on."""
        subscription = stream.subscription
        await watched(subscription)
        is_complete = subscription.begin()
        hello = {
            "type": "hello",
            "heartbeat_s": self.settings.heartbeat_s,
            "complete": is_complete,
        }
        stream.outlet.write(self._frame(stream.framing, json.dumps(hello).encode(), subscription.cursor))
        subscription.on_ready = lambda: self._mark(stream)
        self._mark(stream)

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while True:
                    await self._has_ready.wait()
                    self._has_ready = trio.Event()
                    await self._deliver()
        finally:
            self._nursery = None

    async def _deliver(self) -> None:
        slices = 0
        began = self._clock()
        while self._ready:
            ready, self._ready = self._ready, {}
            for stream in ready:
                try:
                    self._deliver_to(stream)
                except Exception:  # a bug of ours, for which the others must not pay
                    log.exception("delivery failed")
                    stream.cut()
                if self._clock() - began > SLICE_S:
                    slices += 1
                    await self._share(is_round=slices % SLICES_A_ROUND == 0)
                    began = self._clock()
            self._frames.clear()

    def _deliver_to(self, stream: Stream) -> None:
        outlet, subscription = stream.outlet, stream.subscription
        if outlet.is_stalled or stream not in self.streams:
            return
        messages = subscription.take(MESSAGES_A_TURN)
        if not messages:
            return
        framing = stream.framing
        last = self._frame(framing, messages.pop(), subscription.cursor)
        if messages:
            last = b"".join([*(self._frame(framing, message, "") for message in messages), last])
        outlet.write(last)
        if subscription.has_more:
            self._mark(stream)

    def _frame(self, framing: Framing, message: bytes, cursor: str) -> bytes:
        key = (framing, message, cursor)
        frame = self._frames.get(key)
        if frame is None:
            if cursor:
                message = b'%b,"cursor":"%b"}' % (message[:-1], cursor.encode())
            frame = self._frames[key] = framing.frame(message, cursor)
        return frame

    async def _share(self, *, is_round: bool) -> None:
        if self._sharer is not None:
            self._sharer.hurry(HURRY_S)
            self._sharer.turn()
        if is_round or self._sharer is None:
            await trio.lowlevel.checkpoint()

    def _mark(self, stream: Stream) -> None:
        if not self._ready:
            self._has_ready.set()
        self._ready[stream] = None

    def _stalled(self, stream: Stream) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._wait_for, stream)

    async def _wait_for(self, stream: Stream) -> None:
        """Write what a stalled stream takes, as it takes it; then it is as good as any other."""
        outlet = stream.outlet
        try:
            while outlet.is_stalled:
                with trio.move_on_after(self._write_s) as scope:
                    await outlet.wait_writable()
                if scope.cancelled_caught:
                    stream.cut()
                    return
                outlet.flush()
        except trio.ClosedResourceError:  # its connection has ended meanwhile
            return
        self._mark(stream)
