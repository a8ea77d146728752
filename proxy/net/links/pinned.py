"""Pinned links: connections that one session at a time has to itself.

    idle --take--> held by a session --give back--> idle (clean) or closed
      ^                                   |
      +---- opened when none is idle      +--> the first of those who wait at the limit

Owns how many there are (`upstream.pinned_connections`), who waits for one, and which idle ones may be used again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import attrs
import trio

from proxy.cache.entry import Scope
from proxy.core.figures.stats import Stats
from proxy.core.pinning import MESSAGES, Pinning, push_kind
from proxy.core.session import Identity, Session
from proxy.core.slots import MUTED, WHOLE, Client, Slot
from proxy.errors import PINNED_EXHAUSTED, UPSTREAM_UNAVAILABLE, HandshakeError, RemoteError
from proxy.net.links.dial import Upstream, open_stream
from proxy.net.links.gate import Gate
from proxy.net.links.link import Link
from proxy.net.reactor import Reactor
from proxy.wire.encode import command, count
from proxy.wire.greeting import INFO_SERVER, run_id_of
from proxy.wire.reply import ReplyError
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.values.stream import StreamOpener

IDLE_S: Final = 30.0
NAME: Final = "respite-pinned"  # in CLIENT LIST of Redis


@attrs.frozen
class Place:
    """Who a pinned link is and what it speaks: it serves sessions of the same place only."""

    identity: Identity
    db: int
    protocol: int


class Holder(Protocol):
    """The client a pinned link belongs to."""

    def out_of_band(self, frame: bytes, before: Slot | None) -> None:
        """Send a frame that is no reply, and came before that of a slot (None: no reply is awaited)."""

    def acknowledged(self) -> None:
        """Note that subscriptions have begun, or ended."""

    def pin_quiet(self) -> None:
        """Note that no reply is owed any more."""

    def pin_lost(self, why: str) -> None:
        """Note that the link is gone; its slots are answered after this."""


class SubscribeSlot(Slot):
    """What a (UN)SUBSCRIBE is owed: acknowledgements, which are no replies in RESP3, or one error.

    `said`: what has come in its place so far. CLIENT REPLY does not silence it, only the error.
    """

    __slots__ = ("acks", "said")

    def __init__(self, client: Client, acks: int) -> None:
        super().__init__(client)
        self.acks = acks
        self.said: list[bytes] = []

    def end(self) -> None:
        """Answer: the last acknowledgement is there."""
        if self.mode is MUTED:
            self.mode = WHOLE
        self.fill(b"".join(self.said))


class PinnedLink(Link):
    """A link with one holder. Frames nobody asked for are the holder's too."""

    __slots__ = ("holder", "idle_since", "name", "place", "state", "upstream_id")

    def __init__(self, reactor: Reactor, stats: Stats, place: Place, on_lost: Callable[[Link, str], None]) -> None:
        super().__init__(reactor, stats, "pinned", on_lost)
        self.place = place
        self.holder: Holder | None = None
        self.state = Pinning()
        self.upstream_id = 0
        self.idle_since = 0.0
        self.name = NAME.encode()  # what CLIENT GETNAME says on it

    def _receive_sealed(self, opener: StreamOpener, data: bytes) -> None:
        """Open nothing where nothing is matched: what MONITOR or a dump says is no reply."""
        if self.state.stream and not self.fifo:
            self.receive(data)
        else:
            super()._receive_sealed(opener, data)

    def receive(self, data: bytes) -> None:
        """Land replies; hand over what is out of band."""
        if self.state.stream and not self.fifo:
            if self.holder is not None:
                self.holder.out_of_band(data, None)
            return
        if self.place.protocol == 2 and (self.state.subscribed or self._awaits_acks() or self._push_parts is not None):
            self._receive_subscribed(data)
        else:
            super().receive(data)
        if not self.fifo and self.holder is not None and not self.ended:
            self.patient = False
            self.holder.pin_quiet()

    def on_surplus(self, data: bytes) -> None:
        """Hand over what nobody matches any more."""
        if not self.state.stream:
            super().on_surplus(data)
        elif self.holder is not None:
            self.holder.out_of_band(data, None)

    @property
    def db(self) -> int:
        """The database it is in."""
        return self.place.db

    def send_raw(self, raw: Raw) -> None:
        """Forward bytes whose replies nobody matches."""
        self._out.append(raw)
        self.flush()

    def subscribe(self, client: Client, raw: Raw, acks: int) -> None:
        """Submit a (UN)SUBSCRIBE that gets so many acknowledgements."""
        slot = SubscribeSlot(client, acks)
        client.owe(slot)
        self.submit(raw, slot)

    def introduce(self, session: Session) -> None:
        """Give the link the session's name, for commands that MULTI queues and Redis answers."""
        if self.name != session.name:
            self.name = session.name
            self.submit(command("CLIENT", "SETNAME", session.name), Slot(None))

    def move(self, session: Session) -> None:
        """Note that the link now is who, and speaks what, its session does."""
        self.place = Place(session.identity, session.db, session.protocol)

    def _awaits_acks(self) -> bool:
        return any(isinstance(slot, SubscribeSlot) for slot in self.fifo)

    def _receive_subscribed(self, data: bytes) -> None:
        """In RESP2, messages and acknowledgements look like replies: look at every frame."""
        scanner = self._scanner
        pos = self._continue(data) if scanner.busy and self._push_parts is None else 0
        while pos < len(data):
            end = scanner.scan(data, pos)
            if end < 0:
                self._push_parts = [*(self._push_parts or ()), data[pos:]]
                return
            frame = data[pos:end]
            if self._push_parts is not None:
                frame = b"".join([*self._push_parts, frame])
                self._push_parts = None
            pos = end
            self._take_frame(frame)

    def _take_frame(self, frame: bytes) -> None:
        if frame[0] == 0x2A and self._is_out_of_band(frame):
            return
        if not self.fifo:
            raise ReplyError("the upstream sent a reply to nothing")
        slot = self.fifo[0]
        if slot.left > 1:
            slot.keep(frame, 1)
        else:
            self.fifo.popleft()
            slot.land(frame)

    def on_push(self, frame: bytes) -> None:
        """Take a RESP3 push."""
        if self.holder is not None and not self._is_out_of_band(frame):
            self.holder.out_of_band(frame, self.fifo[0] if self.fifo else None)

    def _is_out_of_band(self, frame: bytes) -> bool:
        """Hand over a message or an acknowledgement; return False for any other frame."""
        holder = self.holder
        if holder is None:
            return False
        head = self.fifo[0] if self.fifo else None
        subscribing = head if isinstance(head, SubscribeSlot) else None
        if subscribing is None and not self.state.subscribed:
            return False
        is_ack = bool(self.state.acknowledged(frame))
        if is_ack:
            holder.acknowledged()
        elif push_kind(frame) not in MESSAGES:
            return False
        if subscribing is not None:
            subscribing.said.append(frame)
        else:
            holder.out_of_band(frame, head)
        if is_ack and subscribing is not None:
            subscribing.acks -= 1
            if not subscribing.acks:
                self.fifo.popleft()
                subscribing.end()
        return True


@attrs.define
class _Waiting:
    place: Place
    then: Callable[[PinnedLink | None, bytes], None]
    since: float


class PinnedPool:
    """Hand out pinned links, `limit` at most."""

    def __init__(self, reactor: Reactor, stats: Stats, upstream: Upstream, gate: Gate, limit: int) -> None:
        self.links: set[PinnedLink] = set()
        self.limit = limit
        self.upstream = upstream
        self.on_cut: Callable[[Scope, Link], None] = lambda *_: None  # a link is lost on which something was asked
        self._gate = gate
        self._reactor = reactor
        self._stats = stats
        self._idle: dict[Place, deque[PinnedLink]] = {}
        self._waiting: deque[_Waiting] = deque()
        self._opening = 0
        self._making_room = False
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; every link is ended on the way out."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._reactor.enter()
            for waiting in self._waiting:
                waiting.then(None, UPSTREAM_UNAVAILABLE)
            self._waiting.clear()
            for link in list(self.links):
                link.lose("stopping")
            self._reactor.flush()

    def take_nowait(self, place: Place) -> PinnedLink | None:
        """Return an idle link of the place, None when there is none."""
        idle = self._idle.get(place)
        while idle:
            link = idle.pop()
            if link.open:
                return link
        return None

    def take(self, place: Place, then: Callable[[PinnedLink | None, bytes], None]) -> None:
        """Open a link, or wait for one at the limit; `then` gets it inside the reactor."""
        assert self._nursery is not None
        if self._gate.is_shut:
            self.decline(lambda: then(None, self._gate.refusal or UPSTREAM_UNAVAILABLE))
            return
        if len(self.links) + self._opening >= self.limit and not self._close_one_idle():
            self._waiting.append(_Waiting(place, then, self._reactor.engine.now))
            return
        self._opening += 1
        self._nursery.start_soon(self._open, place, then)

    def decline(self, then: Callable[[], None]) -> None:
        """Call `then` in a wake-up of its own: no link is to be had."""
        assert self._nursery is not None
        self._nursery.start_soon(self._decline, then)

    async def _decline(self, then: Callable[[], None]) -> None:
        self._reactor.enter()
        then()
        self._reactor.flush()

    def give_back(self, link: PinnedLink) -> None:
        """Take a link back; a clean one is used again."""
        link.holder = None
        if not link.open:
            return
        if link.state.used or link.fifo or not link.state.is_free:
            link.lose("given back")
            return
        link.state = Pinning()
        if self._waiting and self._waiting[0].place == link.place:
            self._waiting.popleft().then(link, b"")
            return
        link.idle_since = self._reactor.engine.now
        self._idle.setdefault(link.place, deque()).append(link)
        if self._waiting:
            self._serve_waiting()

    def prove(self, user: bytes) -> None:
        """Hand out no link again that a user was let in on before."""
        for link in list(self.links):
            if link.place.identity.user != user:
                continue
            if link.holder is None:
                link.lose("the rights of its user have changed")
            else:
                link.state.used = True

    def tick(self, now: float, wait_s: float) -> None:
        """Close what has been idle for long; answer those who waited too long."""
        for place, idle in list(self._idle.items()):
            while idle and (not idle[0].open or now - idle[0].idle_since > IDLE_S):
                link = idle.popleft()
                link.lose("idle")
            if not idle:
                del self._idle[place]
        while self._waiting and now - self._waiting[0].since > wait_s:
            self._waiting.popleft().then(None, PINNED_EXHAUSTED)

    async def _open(self, place: Place, then: Callable[[PinnedLink | None, bytes], None]) -> None:
        more = [command("CLIENT", "ID")]
        if self._reactor.engine.outage.base_s > 0:
            more.append(INFO_SERVER)
        try:
            stream, replies = await open_stream(
                self.upstream,
                place.identity,
                place.db,
                place.protocol,
                NAME,
                *more,
            )
        except RemoteError as exc:
            self._opening -= 1
            self._reactor.enter()
            self._gate.judge(exc)
            then(None, exc.reply if isinstance(exc, HandshakeError) else UPSTREAM_UNAVAILABLE)
            self._serve_waiting()
            self._reactor.flush()
            return
        except BaseException:
            self._opening -= 1
            raise
        self._opening -= 1
        self._reactor.enter()
        link = PinnedLink(self._reactor, self._stats, place, self._on_lost)
        link.upstream_id = count(replies[0][1:-2]) or 0
        if len(replies) > 1:
            link.client_id, link.run_id = link.upstream_id, run_id_of(replies[1])
        self.links.add(link)
        link.attach(stream)
        then(link, b"")
        self._reactor.flush()

    def _on_lost(self, link: Link, why: str) -> None:
        assert isinstance(link, PinnedLink)
        self.links.discard(link)
        if link.fifo and link.client_id:
            place = link.place
            self.on_cut(Scope(place.identity.user, place.db, place.protocol), link)
        holder, link.holder = link.holder, None
        if holder is not None:
            holder.pin_lost(why)
        if not self._making_room:
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting and self._nursery is not None:
            if len(self.links) + self._opening >= self.limit and not self._close_one_idle():
                return
            waiting = self._waiting.popleft()
            self._opening += 1
            self._nursery.start_soon(self._open, waiting.place, waiting.then)

    def _close_one_idle(self) -> bool:
        """Make room: end the idle link that is oldest in its place."""
        for idle in self._idle.values():
            if idle:
                link = idle.popleft()
                self._making_room = True
                link.lose("making room")
                self._making_room = False
                return True
        return False
