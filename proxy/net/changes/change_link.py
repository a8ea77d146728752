"""One connection on which changes are heard: a RESP3 link with CLIENT TRACKING in broadcast mode, and subscriptions.

    open    HELLO 3 --> TRACKING ON BCAST PREFIX .., SUBSCRIBE .., PSUBSCRIBE .., TIME --> all answered
    run     pushes and messages --> hear             TIME every now and then; silent for too long: lost

Owns the connection, and which reply answers what. What is heard is understood in `change_watch`. Whether Redis notifies
of expiry and eviction is not asked: it may be told to at any time, and where CONFIG is forbidden nobody would know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import hiredis
import trio

from proxy.core.feed.clock import LatestClock
from proxy.core.session import Identity
from proxy.errors import HandshakeError, RemoteError
from proxy.log import get_logger
from proxy.net.invalidation.watch import is_brief
from proxy.net.links.dial import Stream, Upstream, open_stream
from proxy.values import changes, telling
from proxy.wire.encode import command

TIME: Final = command("TIME")
PING: Final = command("PING")
WHY: Final = (b"__keyevent@*__:expired", b"__keyevent@*__:evicted")
READ_BYTES: Final = 16_384  # what is heard in one go: about a millisecond's work
BEAT_MAX_S: Final = 1.0
log = get_logger("feed")

Hear = Callable[[list[Any]], None]


class ChangeLink:
    """A link. `prefixes` are what is watched on it; `deaf` says why changes of keys are not heard, "" if they are."""

    def __init__(self, stream: Stream, prefixes: tuple[bytes, ...], clock: LatestClock, silent_s: float) -> None:
        self.prefixes = prefixes
        self.deaf = ""
        self.why = ""
        """Why it has ended, "" while it has not."""
        self.hears_messages = False
        """Whether it is told why keys change, and what fences are set."""
        self.ended = trio.Event()
        self._stream = stream
        self._clock = clock
        self._silent_s = silent_s
        self._is_resp3 = True
        self._reader = hiredis.Reader()
        self._answers: deque[Callable[[Any], None]] = deque()
        self._unconfirmed = 0  # subscriptions that the server has not confirmed
        self._refusal = ""  # why not
        self._sending = trio.Lock()
        self._scope = trio.CancelScope()
        self._heard_at = self._beaten_at = trio.current_time()

    @classmethod
    async def open(
        cls,
        upstream: Upstream,
        identity: Identity,
        prefixes: tuple[bytes, ...],
        hear: Hear,
        *,
        clock: LatestClock,
        silent_s: float,
    ) -> Self:
        """Connect, and ask for what is to be heard; return once the server has answered all of it.

        What it pushes meanwhile is heard already. Raises RemoteError; then, and when cancelled, nothing stays open.
        """
        try:
            stream, _ = await open_stream(upstream, identity, 0, 3, "respite-feed")
            is_resp3 = True
        except HandshakeError as exc:
            if not exc.reply.lower().startswith((b"-err unknown command", b"-noproto")):
                raise
            stream, _ = await open_stream(upstream, identity, 0, 2, "respite-feed")
            is_resp3 = False
        link = cls(stream, prefixes, clock, silent_s)
        try:
            with trio.fail_after(upstream.response_timeout_s):
                await link._begin(hear, is_resp3=is_resp3)
        except trio.TooSlowError as exc:
            stream.close()
            raise RemoteError(f"no answer within {upstream.response_timeout_s:g} s") from exc
        except BaseException:
            stream.close()
            raise
        return link

    async def run(self, hear: Hear) -> None:
        """Hear until the link is lost or closed, which `why` and `ended` then say."""
        beat_s = min(self._silent_s / 4, BEAT_MAX_S)
        try:
            with self._scope:
                while True:
                    with trio.move_on_after(beat_s):
                        await self._read(hear)
                    now = trio.current_time()
                    if self._answers and now - self._heard_at > self._silent_s:
                        raise RemoteError(f"silent for {self._silent_s:g} s")
                    if now - self._beaten_at >= beat_s:
                        await self._beat()
        except RemoteError as exc:
            self.why = str(exc)
        finally:
            self.why = self.why or "closed"
            trio.lowlevel.notify_closing(self._stream.fileno())
            self._stream.close()
            self.ended.set()

    async def ask(self, raw: bytes, then: Callable[[Any], None]) -> None:
        """Send a command; `then` gets its reply, or is never called because the link is lost. Raises RemoteError."""
        if self.ended.is_set():
            raise RemoteError(self.why)
        if not self._answers:
            self._heard_at = trio.current_time()
        self._answers.append(then)
        await self._send(raw)

    def close(self) -> None:
        """End it."""
        self._scope.cancel()

    # -- within ------------------------------------------------------------------------------------------------------

    async def _begin(self, hear: Hear, *, is_resp3: bool) -> None:
        self._is_resp3 = is_resp3
        if not is_resp3:
            self.deaf = "this server cannot tell which keys change"
        elif self.prefixes:
            words = [word for prefix in self.prefixes if prefix for word in ("PREFIX", prefix)]
            await self.ask(command("CLIENT", "TRACKING", "ON", "BCAST", *words), self._tracked)
        self.hears_messages = await self._subscribe(b"SUBSCRIBE", (changes.CHANNEL, telling.CHANNEL), hear)
        await self._subscribe(b"PSUBSCRIBE", WHY, hear)  # refused, changes are told as writes
        await self._beat()
        while self._answers:
            await self._read(hear)

    async def _subscribe(self, name: bytes, channels: Sequence[bytes], hear: Hear) -> bool:
        """Subscribe, when nothing else is to be answered: only an error is a reply to it. Return whether none came."""
        while self._answers:
            await self._read(hear)
        self._unconfirmed = len(channels)
        await self._send(command(name, *channels))
        while self._unconfirmed > 0:
            await self._read(hear)
        if self._unconfirmed < 0:
            say = log.warning if name == b"SUBSCRIBE" else log.debug
            say("not all about changes can be heard", why=self._refusal)
        return self._unconfirmed == 0

    def _tracked(self, reply: Any) -> None:
        if is_brief(reply):
            raise RemoteError(str(reply))
        if isinstance(reply, hiredis.ReplyError):
            self.deaf = f"Redis does not tell which keys change: {reply}"

    async def _beat(self) -> None:
        """Ask for the time, or at least for an answer: a subscriber of RESP2 may not ask more."""
        self._beaten_at = sent_at = trio.current_time()

        def then(reply: Any) -> None:
            match reply:
                case [bytes(seconds), bytes(rest)] if seconds.isdigit() and rest.isdigit():
                    self._clock.anchor(int(seconds) * 1_000_000 + int(rest), sent_at)

        await self.ask(TIME if self._is_resp3 else PING, then)

    async def _send(self, raw: bytes) -> None:
        try:
            async with self._sending:
                with trio.fail_after(self._silent_s):
                    unsent = memoryview(raw)
                    while unsent:
                        try:
                            unsent = unsent[self._stream.send(unsent) :]
                        except BlockingIOError:
                            await trio.lowlevel.wait_writable(self._stream.fileno())
        except trio.TooSlowError as exc:
            raise RemoteError("it takes nothing") from exc
        except (OSError, trio.ClosedResourceError) as exc:
            raise RemoteError(str(exc) or self.why) from exc

    async def _read(self, hear: Hear) -> None:
        """Wait for something, and hear it."""
        while True:
            try:
                data = self._stream.recv(READ_BYTES)
                break
            except (BlockingIOError, InterruptedError):
                await trio.lowlevel.wait_readable(self._stream.fileno())
            except OSError as exc:
                raise RemoteError(str(exc)) from exc
        if not data:
            raise RemoteError("the upstream closed the connection")
        self._heard_at = trio.current_time()
        self._reader.feed(data)
        try:
            while (frame := self._reader.gets()) is not False:
                self._take(frame, hear)
        except hiredis.ProtocolError as exc:
            raise RemoteError(str(exc)) from exc
        await trio.lowlevel.checkpoint()

    def _take(self, frame: Any, hear: Hear) -> None:
        match frame:
            case [b"subscribe" | b"psubscribe", *_]:
                self._unconfirmed -= 1
            case [b"message" | b"pmessage", *_] if isinstance(frame, hiredis.PushNotification) or not self._is_resp3:
                hear(frame)
            case _ if isinstance(frame, hiredis.PushNotification):
                hear(frame)
            case _ if self._answers:
                self._answers.popleft()(frame)
            case hiredis.ReplyError() if self._unconfirmed > 0 and is_brief(frame):
                raise RemoteError(str(frame))  # it will be heard another time, not never
            case hiredis.ReplyError() if self._unconfirmed > 0:
                self._unconfirmed, self._refusal = -1, str(frame)
            case _:
                raise RemoteError("the upstream sent a reply to nothing")
