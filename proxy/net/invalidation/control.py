"""The invalidation link: a RESP3 connection that receives pushes and PONGs, and tells what the server is.

Owns the connection the tracking hangs on, and the command table it brings. What else is asked of the server, again and
again, is `watch`'s; what other proxies say, `announcements`'. Everything that arrives is decoded here, by
hiredis: nothing of it is ever forwarded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
import trio

from proxy.core.figures.links import LinkFigures
from proxy.core.figures.tally_report import LinkKind
from proxy.core.outage.stand_in import BRIEF
from proxy.core.session import Identity
from proxy.errors import HandshakeError, RemoteError
from proxy.log import get_logger
from proxy.net.invalidation.fence_line import FenceLine
from proxy.net.invalidation.greet import greet
from proxy.net.invalidation.watch import Watch, is_brief
from proxy.net.links.backoff import Backoff
from proxy.net.links.dial import Stream, Upstream
from proxy.net.links.gate import STEADY_S, Gate
from proxy.net.outbox import Outbox
from proxy.net.reactor import READ, WRITE, Reactor
from proxy.wire.commands import CommandTable, Kind
from proxy.wire.encode import command
from proxy.wire.greeting import CLIENT_FIELDS, Greeting

PING: Final = command("PING")
UNHEARD_S: Final = 0.1  # a PING that is out for less may well be answered yet
WATCH_EVERY_S: Final = 1.0  # how long a change of ACLs made elsewhere may go unseen
log = get_logger("control")


class ControlLink:
    """Keep the invalidation link; one a worker. `table` is what the server's commands are known to be."""

    def __init__(self, reactor: Reactor, upstream: Upstream, gate: Gate, identity: Identity) -> None:
        self.table = CommandTable.builtin()
        self.table_is_builtin = True
        self.server = ""
        self.run_id = b""  # of the server this link leads, or led, to
        self.client_fields: Sequence[str] = CLIENT_FIELDS
        self.version: tuple[int, ...] = ()
        self.state = "connecting"
        self.why = "not reached yet"
        self.first_attempt = trio.Event()
        self.on_up: Callable[[], None] = lambda: None
        self.on_down: Callable[[], None] = lambda: None
        self.on_table: Callable[[CommandTable], None] = lambda _: None
        self.on_watch: Callable[[], None] = lambda: None  # it is time to ask what must be asked again and again
        self.on_message: Callable[[bytes], None] = lambda _: None
        self._reactor = reactor
        self._engine = reactor.engine
        self._tracking = reactor.tracking
        self._upstream = upstream
        self._gate = gate
        self._identity = identity
        self.own_user: bytes | None = identity.user  # that of upstream.url; None: the link is in a client's name
        self._adopted = trio.Event()
        self._stream: Stream | None = None
        self._reader = hiredis.Reader()
        self._outbox = Outbox()
        self._mask = READ
        self._ended = trio.Event()
        self._client_id = 0
        self._figures = LinkFigures()  # of all such links since the start
        self._expected: list[str] = []  # what the replies to come answer: ping, fence, asked ..
        self._answered_at = 0.0  # when something came last
        self._heard_at = 0.0  # .. or the wait for it began
        self._pinged_at = 0.0
        self._watched_at = 0.0
        self._redirect_refused = False
        self._also_cached: tuple[str, ...] = ()
        self.watch = Watch(self, self._engine, self._tracking)
        self._asked: deque[Callable[[Any], None]] = deque()
        self._on_refused: Callable[[str], None] = lambda _: None
        self._fences = FenceLine()

    @property
    def is_up(self) -> bool:
        """Return whether the link stands."""
        return self._stream is not None

    @property
    def user(self) -> bytes:
        """Return who this link is to Redis."""
        return self._identity.user

    def is_unheard_since(self, then: float) -> bool:
        """Return whether nothing has come since, though Redis was pinged: it may be Redis itself that is silent."""
        return not self.is_up or (self._answered_at <= then and self._tracking.waited_s() >= UNHEARD_S)

    def counted(self) -> LinkKind:
        """Return how the link stands, and what was counted of it and of those before it; latency is that of PINGs."""
        return LinkKind(int(self.is_up), len(self._expected), self._outbox.size, self._figures)

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        backoff = Backoff()
        try:
            while True:
                alone = await self._gate.turn()
                with self._gate.knocking(alone=alone):
                    is_up = await self._open()
                began = trio.current_time()
                if is_up:
                    await self._ended.wait()
                if trio.current_time() - began >= STEADY_S:
                    backoff.reset()
                elif not self._gate.is_shut:
                    with trio.move_on_after(backoff.next_s()):
                        await self._adopted.wait()
        finally:
            self._reactor.enter()
            self.lose("stopping")

    def adopt(self, identity: Identity) -> None:
        """Use a client's credentials when the configured ones (or none) are not let in."""
        if not self.is_up and self.state == "refused":
            self._identity, self.own_user = identity, None
            self._adopted.set()

    def use_broadcast(self) -> None:
        """Start again in broadcast mode: the server refuses to redirect."""
        self._redirect_refused = True
        self.lose("CLIENT TRACKING REDIRECT was refused")

    def cache(self, commands: Sequence[str]) -> None:
        """Let L1 keep the replies of these module commands, besides those it knows."""
        if tuple(commands) != self._also_cached:
            self._also_cached = tuple(commands)
            self._engine.flush()
            self.refresh()

    def _learn(self, table: CommandTable) -> None:
        self.table = table
        self.on_table(table)
        for name, why in self.table.refused.items():
            log.warning("not cached", command=name, why=why)
        self.watch.has_field_expiry = self.table.find([b"HPEXPIRE"]).kind is Kind.FIELD_EXPIRY

    def refresh(self) -> None:
        """Read the command table anew: the server knows a command that we do not."""
        if self._stream is not None and "table" not in self._expected:
            self._send(command("COMMAND"), "table")

    async def _open(self) -> bool:
        self._adopted = trio.Event()
        try:
            stream, greeting = await greet(self._upstream, self._identity, self._also_cached)
        except RemoteError as exc:
            self._reactor.enter()
            self._gate.judge(exc)
            self._reactor.flush()
            is_about_us = isinstance(exc, HandshakeError) and not exc.reply.startswith(BRIEF)
            state = "refused" if is_about_us and not self._gate.is_shut else "unreachable"
            self.state, state, self.why = state, self.state, str(exc)
            if state != self.state == "refused":
                log.warning("upstream refused", why=str(exc))
            self.first_attempt.set()
            return False
        self._reactor.enter()
        self._gate.passed()
        self._begin(stream, greeting)
        self._reactor.flush()
        self.first_attempt.set()
        return True

    def _begin(self, stream: Stream, greeting: Greeting) -> None:
        self.server, self.version, self.run_id = greeting.server, greeting.version, greeting.run_id
        self.client_fields = greeting.client_fields
        self._learn(greeting.table)
        self.table_is_builtin = False
        self._stream = stream
        self._reader = hiredis.Reader()
        self._outbox = Outbox()
        self._mask = READ
        self._ended = trio.Event()
        for left in (self._expected, self._fences.sent, self._asked):
            left.clear()
        self.watch.begin()
        self._watched_at = 0.0  # at once: what is read from now on is kept by rights that nobody has seen
        self._heard_at = self._engine.now
        self._reactor.add(stream.fileno(), self)
        self._client_id = greeting.client_id
        mode = self._tracking.choose(
            resp3=self._client_id > 0, version=self.version, redirect_refused=self._redirect_refused
        )
        if mode == "broadcast":  # L1 begins when it is granted: a read before it would not be tracked
            prefixes = [word for prefix in self._tracking.prefixes for word in ("PREFIX", prefix)]
            self._send(command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes), "track")
        else:
            self._tracking.begin(self._client_id, self._engine.now)
        self.state, self.why = "up", ""
        log.info("upstream up", server=self.server, tracking=mode, reason=self._tracking.reason)
        self.watch.begin_governing()
        self._ping()
        self.on_up()

    @property
    def is_resp3(self) -> bool:
        """Return whether pushes can come on it."""
        return self._client_id > 0

    def ask(self, raw: bytes, then: Callable[[Any], None]) -> None:
        """Send a command of ours; `then` gets its reply, decoded, or never is called because the link is lost."""
        self._asked.append(then)
        self._send(raw, "asked")

    def subscribe(self, channel: bytes, refused: Callable[[str], None]) -> None:
        """Hear what is published in a channel (`on_message`); `refused` hears why that is not possible."""
        self._on_refused = refused
        self._send(command("SUBSCRIBE", channel), "subscribe")

    def fence(self, then: Callable[[], None]) -> None:
        """Call `then` when a PING sent at the end of this wake-up has come back: the pushes before it are applied.

        A link that is lost, or silent for so long that L1 stops, ends the wait as well; what the silence still holds
        back is waited for before L1 is served again.
        """
        if self._stream is None or self._tracking.mode == "off":
            then()
            return
        if self._tracking.is_silent():
            self._tracking.distrust()
            then()
            return
        if self._fences.ask(then):
            self._reactor.dirty_links.append(self)

    def flush(self) -> None:
        """Send one PING for all who asked for a fence in this wake-up."""
        if self._stream is None:
            self._release()
        elif self._fences.send():
            self._send(PING, "fence")

    def _release(self) -> None:
        """Let go of all who wait for a fence."""
        waiting = self._fences.empty()
        if waiting:
            self._tracking.distrust()
        for then in waiting:
            then()

    def tick(self, now: float, response_timeout_s: float, paused_until: float) -> None:
        """Ping when it is time; end a link that has been silent for too long, CLIENT PAUSE not counted."""
        if self._stream is None:
            return
        if self._tracking.is_silent():
            self._release()
        if self._expected and now - max(self._heard_at, paused_until) > max(
            response_timeout_s, self._tracking.max_staleness_s
        ):
            self._gate.failed("no answer from the upstream")
            self.lose("no answer from the upstream")
        elif now - self._pinged_at >= self._tracking.ping_every_s:
            self._ping()

    def check_acl(self) -> None:
        """Look at the ACLs now."""
        if self._stream is not None:
            self.watch.check_acl()

    def _ping(self) -> None:
        now = self._engine.now
        self._pinged_at = now
        if not self._expected:
            self._heard_at = now
        self._tracking.ping(now)
        self._send(PING, "ping")
        if now - self._watched_at >= WATCH_EVERY_S:
            self._watched_at = now
            self.watch.turn()
            self.on_watch()
        self.watch.turn_governor()

    def _send(self, raw: bytes, expect: str) -> None:
        self._expected.append(expect)
        self._figures.commands += 1
        self._figures.sent_bytes += len(raw)
        self._outbox.put([raw], len(raw))
        self._pump()

    def _pump(self) -> None:
        if self._stream is None:
            return
        try:
            empty = self._outbox.pump(self._stream.send)
        except OSError as exc:
            self.lose(str(exc))
            return
        mask = READ if empty else READ | WRITE
        if mask != self._mask:
            self._mask = mask
            self._reactor.modify(self._stream.fileno(), mask)

    def on_event(self, mask: int) -> None:
        """Read pushes and replies."""
        if mask & WRITE:
            self._pump()
        if self._stream is None or not mask & ~WRITE:
            return
        try:
            data = self._stream.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self.lose(str(exc))
            return
        if not data:
            self.lose("the upstream closed the connection")
            return
        self._heard_at = self._answered_at = self._engine.now
        self._figures.received_bytes += len(data)
        self._reader.feed(data)
        try:
            while (frame := self._reader.gets()) is not False:
                self._take(frame)
                if self._stream is None:
                    return
        except hiredis.ProtocolError as exc:
            self.lose(str(exc))

    def _take(self, frame: Any) -> None:
        if isinstance(frame, hiredis.PushNotification):
            match frame:
                case [b"invalidate", None]:
                    self._engine.flush()  # FLUSHALL, FLUSHDB: the null means everything
                case [b"invalidate", [*keys]] if all(isinstance(key, bytes) for key in keys):
                    self._engine.drop_pushed(keys)
                case [b"message", _, payload]:
                    self.on_message(payload)
                case [b"subscribe", *_]:
                    self._expected.remove("subscribe")
                case [b"invalidate", *_]:
                    self._engine.flush()
                    self.lose("an invalidation that cannot be understood may be one that is missed")
            return
        if not self._expected:
            self.lose("the upstream sent a reply to nothing")
            return
        expected = self._expected.pop(0)
        if expected == "ping":
            if isinstance(frame, hiredis.ReplyError) and self._gate.is_told(f"-{frame}\r\n".encode()):
                self.lose(str(frame))
                return
            if not isinstance(frame, hiredis.ReplyError):
                self._engine.outage.heard()
            self._tracking.pong()
            if "ping" not in self._expected:
                self._figures.latency.add(self._engine.now - self._pinged_at)
        elif expected == "asked":
            self._asked.popleft()(frame)
        elif expected in ("subscribe", "track") and is_brief(frame):
            self.lose(str(frame))  # it began to be busy just now: what else was asked was not answered either
        elif expected == "subscribe":
            self._on_refused(str(frame))
        elif expected == "fence":
            self._fences.come()
        elif expected == "track" and isinstance(frame, hiredis.ReplyError):
            log.warning("tracking refused", reply=str(frame))
            self._tracking.refuse(str(frame))
        elif expected == "track":
            self._tracking.begin(self._client_id, self._engine.now)
        elif expected == "table" and not isinstance(frame, hiredis.ReplyError):
            self._learn(CommandTable.from_reply(frame, self._also_cached))

    def on_crash(self) -> None:
        """End: a push that is not understood may be one that is missed."""
        self.lose("internal error")

    def lose(self, why: str) -> None:
        """End the link: L1 stops and is flushed."""
        if self._stream is None:
            return
        self._reactor.remove(self._stream.fileno())
        self._stream.close()
        self._stream = None
        self._figures.failed += len(self._expected)
        self._expected.clear()
        self._outbox.clear()
        self.state, self.why = "unreachable", why
        if why != "stopping":
            log.warning("invalidation link lost", why=why)
        self._tracking.lose()
        self._release()
        self._ended.set()
        self.on_down()
