"""One client connection: bytes in, requests through the pipeline, replies out in order.

    recv --> hit path: the request's own bytes are the key of L1 --> one send
         --> parser --> pipeline --> queue [slot][slot] --settle--> out --flush: one send--> client

Owns the client's queue, what it has not been sent yet, and every limit that protects the others from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from socket import socket
from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Namespace, Scope
from proxy.core.session import Session
from proxy.core.slots import FilledSlot, Mode, Slot
from proxy.errors import ProtocolError
from proxy.net.dial import Stream, reset_on_close
from proxy.net.link import Link
from proxy.net.outbox import Outbox
from proxy.net.pinned import PinnedLink, Place
from proxy.net.reactor import ERROR, HANGUP, PEER_CLOSED, READ, WRITE
from proxy.net.upstream import Group
from proxy.wire.encode import error
from proxy.wire.request import Assembler, Raw, Request, is_bulk

if TYPE_CHECKING:
    from proxy.net.worker import Worker

RECV_MIN: Final = 2048  # a 64 KiB buffer a call is dear; grown for clients that fill it
RECV_MAX: Final = 128 * 1024  # RECV_MIN times a power of four
TAIL_MAX: Final = 4096  # an incomplete command up to here is parsed again with what follows; above, assembled
BACKLOG_MAX: Final = 1024  # commands kept for a parked client before it is read no further
NEAR: Final = 64  # outstanding commands below which no limit is near
STALL_BYTES: Final = 8 * 1024 * 1024  # unsent bytes at which the link that streams to a client is read no further
LINK_HIGH: Final = 16 * 1024 * 1024  # unsent bytes of a link at which the clients that feed it are read no further
_GETS: Final = (b"*2\r\n$3\r\nGET\r\n", b"*2\r\n$3\r\nget\r\n")
_GET_LENGTH: Final = 13


class ClientConnection:
    """A client, from accept to close."""

    __slots__ = (
        "_assembler",
        "_backlog",
        "_backpressed",
        "_closing",
        "_dirty",
        "_fd",
        "_mask",
        "_out",
        "_outbox",
        "_recv",
        "_recv_size",
        "_send",
        "_stream",
        "_tail",
        "closed",
        "drained_at",
        "ended",
        "group",
        "joins",
        "link",
        "muting",
        "namespace",
        "parked",
        "pin",
        "queue",
        "session",
        "stalls",
        "worker",
    )

    def __init__(self, worker: Worker, stream: Stream, session: Session) -> None:
        self.worker = worker
        self.session = session
        self.queue: deque[Slot] = deque()
        self.group: Group | None = None
        self.link: Link | None = None
        self.namespace: Namespace | None = None
        self.pin: PinnedLink | None = None
        self.parked = ""
        self.muting = False
        self.joins = 0
        self.closed = False
        self.ended = False  # QUIT: no command is looked at any more
        self.stalls: Link | None = None  # the link read no further because of us
        self.drained_at = 0.0  # when this client last took some of what it has to be sent
        self._stream = stream
        self._fd = stream.fileno()
        self._recv = stream.recv
        self._send = stream.send
        self._recv_size = RECV_MIN
        self._out: list[bytes] = []
        self._outbox: Outbox | None = None  # made when the socket first takes less than it is given
        self._assembler: Assembler | None = None
        self._tail = b""  # a short incomplete command
        self._backlog: list[Request] = []  # requests of a parked client
        self._backpressed = False  # read no further: too much is outstanding, or unsent
        self._closing = False  # close once everything owed has been sent
        self._dirty = False
        self._mask = READ | PEER_CLOSED
        worker.reactor.add(self._fd, self, self._mask)
        self.rescope()

    # -- reading -----------------------------------------------------------------------------------------------------

    def on_event(self, mask: int) -> None:
        """Read, and send what is waiting."""
        if mask & READ and not self._backpressed:
            self._read()
            if mask == READ or self.closed:
                return
        if mask & WRITE:
            self.flush()
        if self.closed:
            return
        if mask & (ERROR | HANGUP) and (self._backpressed or not mask & READ):
            self.close()
        elif mask & PEER_CLOSED and (self._backpressed or self._closing):
            self._peer_closed()

    def on_crash(self) -> None:
        """Close: something of ours broke on this client's bytes."""
        self.kill("internal error")

    def _read(self) -> None:
        try:
            data = self._recv(self._recv_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        size = len(data)
        if size >= self._recv_size:
            self._recv_size = min(self._recv_size * 4, RECV_MAX)
        elif self._recv_size != RECV_MIN and size * 8 < self._recv_size:
            self._recv_size //= 4
        if not size:
            self._end_of_stream()
            return
        worker = self.worker
        namespace = self.namespace
        worker.stats.received_bytes += size
        if namespace is not None and data.startswith(_GETS) and not self._tail and self._assembler is None:
            key = data[_GET_LENGTH:]
            # The bytes after `GET` are the key as L1 knows it: a hit is one look-up, two attribute writes and a send.
            entry = namespace.entries.get(key)
            engine = worker.engine
            if entry is not None and entry.deadline > engine.now and not self.queue and not self._out:
                entry.uses += 1
                entry.used_at = engine.now
                stats = worker.stats
                stats.commands += 1
                stats.hits += 1
                self._send_now(entry.reply)
                return
            data = self._gets(namespace, data)
            if not data:
                return
        self._parse(data)

    def _gets(self, namespace: Namespace, data: bytes) -> bytes:
        """Answer the GETs a chunk starts with, without a parser; return the bytes from the first other command on.

        Between two heads lies exactly one bulk string, or something else: what is found in L1 was framed as a parser
        would have framed it, for the keys of L1 are well formed; what is not found is looked at.
        """
        worker = self.worker
        engine = worker.engine
        now = engine.now
        find = namespace.entries.get
        out: list[bytes] = []
        taken = hits = misses = 0
        for key in data.split(data[:_GET_LENGTH])[1:]:
            entry = find(key)
            if entry is not None and entry.deadline > now:
                entry.uses += 1
                entry.used_at = now
                out.append(entry.reply)
                hits += 1
            elif is_bulk(key):
                if out:
                    self.reply(b"".join(out))
                    out = []
                worker.pipeline.miss(self, namespace, key)
                misses += 1
            else:
                break
            taken += _GET_LENGTH + len(key)
        stats = worker.stats
        stats.commands += hits + misses
        stats.hits += hits
        if out:
            reply = out[0] if len(out) == 1 else b"".join(out)
            if self.queue or self._out or misses:
                self.reply(reply)
            else:
                self._send_now(reply)
        if misses:
            self.session.last_at = now
            self.session.last_words = [b"get"]
            self._press_if_needed()
        return b"" if taken == len(data) else data[taken:]

    def _parse(self, data: bytes) -> None:
        """Split a chunk into requests and run them; keep what is incomplete."""
        requests: list[Request] = []
        assembler = self._assembler
        refused: ProtocolError | None = None
        if assembler is None:
            if self._tail:
                data = self._tail + data
                self._tail = b""
            taken = self.worker.parser.parse(data, requests)
            if taken < len(data):
                rest = data[taken:] if taken else data
                assembler = Assembler(self.worker.limits, authenticated=not self.unproven)
                refused = self._assemble(assembler, rest, requests)
                if assembler.held_bytes == len(rest) <= TAIL_MAX:
                    self._tail = rest
                elif assembler.held_bytes:
                    self._assembler = assembler
        else:
            refused = self._assemble(assembler, data, requests)
            if not assembler.held_bytes:
                self._assembler = None
        if requests:
            session = self.session
            session.last_at = self.worker.engine.now
            session.last_words = requests[-1][0][:2]
            self.worker.stats.commands += len(requests)
            if self.parked:
                self.park(self.parked, requests)
            else:
                if self.group is None and self.pin is None:
                    self._regroup()
                self.worker.pipeline.run(self, requests)
            self._press_if_needed()
        if refused is not None and not self.closed:
            self.worker.stats.protocol_errors += 1
            self.reply(error(f"ERR {refused}"))
            self._assembler = None
            self._tail = b""
            self.close_when_settled()

    @staticmethod
    def _assemble(assembler: Assembler, data: bytes, requests: list[Request]) -> ProtocolError | None:
        """Read requests exactly; return what was wrong with the one they stopped at."""
        try:
            assembler.feed(data)
            while (request := assembler.next()) is not None:
                requests.append(request)
        except ProtocolError as exc:
            return exc
        return None

    def _end_of_stream(self) -> None:
        """Take the end of what the client sends: what it asked for is still answered, unless it waits for an event."""
        if self.pin is not None and self.pin.patient:
            self.close()
        else:
            self.close_when_settled()

    def _peer_closed(self) -> None:
        """Notice that the client closed its sending side while we do not read."""
        if self.pin is not None and self.pin.patient:
            self.close()
        else:
            self._watch(self._mask & ~PEER_CLOSED)

    # -- what the pipeline asks for ----------------------------------------------------------------------------------

    @property
    def unproven(self) -> bool:
        """Whether Redis has not yet let this user in."""
        return not self.session.authenticated or (self.group is not None and self.group.is_unauthenticated)

    def reply(self, raw: bytes) -> None:
        """Send a reply in its turn."""
        if self.muting:
            return
        if self.queue:
            self.queue.append(FilledSlot(self, raw))
        else:
            self._out.append(raw)
            self._mark()

    def owe(self, slot: Slot) -> None:
        """Add a slot to the queue."""
        if self.muting:
            slot.mode = Mode.MUTED
        self.queue.append(slot)

    def settle(self) -> None:
        """Take the filled prefix of the queue."""
        queue = self.queue
        out = self._out
        while queue and (reply := queue[0].reply) is not None:
            queue.popleft()
            if reply:
                out.append(reply)
        if not self._dirty:
            self._dirty = True
            self.worker.reactor.dirty_clients.append(self)

    def stream(self, part: bytes) -> None:
        """Take a part of the reply of the slot at the head of the queue."""
        self._out.append(part)
        self._mark()

    def out_of_band(self, frame: bytes) -> None:
        """Send a frame that is no reply."""
        self._out.append(frame)
        self._mark()

    def acknowledged(self, frame: bytes) -> None:
        """Send a subscription's acknowledgement."""
        if not self.session.muted:
            self.out_of_band(frame)
        if self.pin is not None:
            names = self.pin.state.subscriptions
            self.session.subscriptions = len(names.get(b"", ())) + len(names.get(b"s", ()))
            self.session.patterns = len(names.get(b"p", ()))

    def route(self) -> Link | None:
        """Return the shared link for the next command: the one that owes us replies, else the best of the group."""
        link = self.link
        if link is not None and link.open and (self.queue or (link.connected and not link.paused)):
            return link
        group = self.group
        if group is None or group.closed:
            group = self._regroup()
        link = self.link = group.pick()
        return link

    def why_not(self) -> bytes:
        """Return the error for a command that has no link."""
        self.worker.stats.failed += 1
        return self._regroup().why_not() if self.group is None else self.group.why_not()

    def ask(self, raw: bytes, slot: Slot) -> None:
        """Submit a read for a slot that is in the queue already."""
        if self.closed:
            slot.fill(b"")
            return
        link = self.route()
        if link is None:
            slot.refuse(self.why_not())
        else:
            link.submit(raw, slot)

    def rescope(self) -> None:
        """Follow the session: its links and its namespace are those of its user, database and protocol."""
        self.link = None
        if self.group is not None:
            self.worker.leave(self.group)
            self.group = None
        self._expose()

    def _regroup(self) -> Group:
        session = self.session
        scope = Scope(session.identity.user, session.db, session.protocol)
        self.group = self.worker.join(scope, session.identity)
        self._expose()
        return self.group

    def _expose(self) -> None:
        """Let reads be answered from L1, or not: never while pinned, muted, parked or not let in."""
        session = self.session
        if (
            self.group is None
            or self.pin is not None
            or self.parked
            or self._closing
            or session.muted
            or session.skips
            or self.muting
            or not session.authenticated
            or not self.worker.engine.enabled
        ):
            self.namespace = None
        else:
            self.namespace = self.group.namespace

    def park(self, why: str, requests: list[Request]) -> None:
        """Keep requests until `why` has passed: "settle", "reply" or "link"."""
        self.parked = why
        self.namespace = None
        self._backlog += requests
        self._press()
        self._mark()

    def _unpark(self) -> None:
        """Run what was kept. It may park again."""
        self.parked = ""
        backlog, self._backlog = self._backlog, []
        self._expose()
        if backlog:
            self.worker.pipeline.run(self, backlog)
        self._press()

    # -- a connection of one's own -----------------------------------------------------------------------------------

    def pin_down(self) -> bool:
        """Get a connection of its own; False = one is being opened, and the client must be parked."""
        session = self.session
        place = Place(session.identity, session.db, session.protocol)
        link = self.worker.pool.take_nowait(place)
        if link is None:
            self.parked = "link"
            self.worker.pool.take(place, self._pinned)
            return False
        self._hold(link)
        return True

    def _hold(self, link: PinnedLink) -> None:
        link.holder = self
        self.pin = link
        self.namespace = None
        self.session.upstream_id = link.upstream_id

    def _pinned(self, link: PinnedLink | None, refusal: bytes) -> None:
        """Go on with the link that was opened, or answer the command that needed it."""
        if self.closed:
            if link is not None:
                self.worker.pool.give_back(link)
            return
        if link is not None:
            self._hold(link)
        else:
            self._backlog.pop(0)
            self.worker.stats.failed += 1
            self.reply(refusal)
        self._unpark()

    def pin_quiet(self) -> None:
        """Give the link back if nothing holds it any more, and run what waited for its replies."""
        link = self.pin
        if link is None:
            return
        link.state.once = False
        if link.state.is_free:
            self.pin = None
            self.session.upstream_id = 0
            if self._is_place_of(link):
                self._expose()
            else:
                self.rescope()
            self.worker.pool.give_back(link)
        self._mark()

    def _is_place_of(self, link: PinnedLink) -> bool:
        """Return whether what was done on the link has left the session where it was."""
        scope = self.group.scope if self.group is not None else None
        place = link.place
        return scope == Scope(place.identity.user, place.db, place.protocol) and (
            self.group is not None and self.group.identity == place.identity
        )

    def pin_lost(self, why: str) -> None:
        """Go on without the link if it held nothing; else close, as the session's state is gone with it."""
        link, self.pin = self.pin, None
        self.session.upstream_id = 0
        if link is not None and not link.state.is_free:
            self.close_when_settled()
        self.rescope()
        self._mark()

    def unpin(self) -> None:
        """End the pinned link, if there is one, with whatever state it holds."""
        link, self.pin = self.pin, None
        self.session.upstream_id = 0
        if link is not None:
            link.holder = None
            link.lose("reset")

    # -- sending -----------------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.worker.reactor.dirty_clients.append(self)

    def _send_now(self, data: bytes) -> None:
        """Send without waiting for the end of the wake-up."""
        if self._outbox is not None and self._outbox.size:
            self._out.append(data)
            self._mark()
            return
        try:
            sent = self._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.close()
            return
        self.worker.stats.sent_bytes += sent
        if sent < len(data):
            self._keep([memoryview(data)[sent:]], len(data) - sent)

    def flush(self) -> None:
        """Send what has been collected; run what waited for it; close if that was all."""
        self._dirty = False
        if self.closed:
            return
        out = self._out
        outbox = self._outbox
        if outbox is not None and outbox.size:
            if out:
                self._out = []
                self._keep(out, sum(map(len, out)))
            self._pump()
        elif out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            self._send_now(data)
        if self.closed:
            return
        if self.parked and self.parked != "link" and not self.queue and (self.pin is None or not self.pin.state.once):
            self._unpark()
        elif self._backpressed:
            self._press()
        if self._closing and not self.queue and not self._out and not self.parked and not self.unsent_bytes:
            self.close()

    @property
    def unsent_bytes(self) -> int:
        """Bytes this client has not taken yet."""
        return 0 if self._outbox is None else self._outbox.size

    def _keep(self, parts: Sequence[Raw], size: int) -> None:
        """Hold what the socket did not take, up to the limit."""
        outbox = self._outbox
        if outbox is None:
            outbox = self._outbox = Outbox()
        if not outbox.size:
            self.drained_at = self.worker.engine.now
        outbox.put(list(parts), size)
        if outbox.size > self.worker.output_limit:
            self.kill("output buffer limit")
            return
        self._watch(self._mask | WRITE)
        if outbox.size > min(STALL_BYTES, self.worker.output_limit // 2):
            self._stall()

    def _pump(self) -> None:
        outbox = self._outbox
        assert outbox is not None
        before = outbox.size
        try:
            empty = outbox.pump(self._send)
        except OSError:
            self.close()
            return
        if outbox.size < before:
            self.drained_at = self.worker.engine.now
            self.worker.stats.sent_bytes += before - outbox.size
        if empty:
            self._watch(self._mask & ~WRITE)
        if self.stalls is not None and outbox.size < STALL_BYTES // 4:
            self.unstall()

    def _stall(self) -> None:
        """Read the link no further that streams a large reply to us: others get another one meanwhile."""
        link = self.pin or self.link
        if self.stalls is None and link is not None and link.streams_to(self):
            self.stalls = link
            self.worker.stalled.add(self)
            link.pause()

    def unstall(self) -> None:
        """Let the link be read again."""
        link, self.stalls = self.stalls, None
        self.worker.stalled.discard(self)
        if link is not None and link.open:
            link.resume()

    # -- limits ------------------------------------------------------------------------------------------------------

    def _press_if_needed(self) -> None:
        """Look at the limits only where one can be near: most clients have one command outstanding."""
        link = self.link
        queue = self.queue
        if (
            (queue and (len(queue) > NEAR or queue[-1].left > NEAR))
            or self._backlog
            or self._outbox is not None
            or (link is not None and link.unsent_bytes)
        ):
            self._press()

    def _press(self) -> None:
        """Read on, or no further, as what is outstanding and unsent allows."""
        link = self.link
        too_much = (
            sum(slot.left for slot in self.queue) > self.worker.max_pipeline
            or len(self._backlog) > BACKLOG_MAX
            or self.unsent_bytes > STALL_BYTES
        )
        if link is not None and link.unsent_bytes > LINK_HIGH:
            too_much = True
            link.relieved.add(self._mark)
        if too_much and not self._backpressed:
            self._backpressed = True
            self._watch(self._mask & ~READ)
        elif not too_much and self._backpressed and not self._closing:
            self._backpressed = False
            self._watch(self._mask | READ | PEER_CLOSED)

    def _watch(self, mask: int) -> None:
        if mask != self._mask and not self.closed:
            self._mask = mask
            self.worker.reactor.modify(self._fd, mask)

    # -- the end -----------------------------------------------------------------------------------------------------

    def close_when_settled(self) -> None:
        """Close once everything owed has been sent."""
        if not self._closing:
            self._closing = True
            self.namespace = None
            self._watch(self._mask & ~(READ | PEER_CLOSED))
        self._mark()

    def quit(self) -> None:
        """Close after the replies owed by now; what the client has sent since is not looked at."""
        self.ended = True
        self._backlog.clear()
        self.close_when_settled()

    @property
    def is_idle(self) -> bool:
        """Return whether the client is owed nothing and holds no connection."""
        return not self.queue and not self.parked and self.pin is None and not self.unsent_bytes and not self._out

    def kill(self, why: str) -> None:
        """Close a client that broke a limit; what it has not read is dropped."""
        if not self.closed:
            self.worker.stats.killed += 1
            self.worker.log_killed(self.session, why)
            if isinstance(self._stream, socket):
                reset_on_close(self._stream)
            self.close()

    def abort(self, why: str) -> None:
        """Close: what it was being sent cannot be finished."""
        self.kill(why)

    def close(self) -> None:
        """Close at once. Slots in flight stay with their links, and are thrown away when they land."""
        if self.closed:
            return
        self.closed = True
        self.namespace = None
        self.worker.reactor.remove(self._fd)
        self._stream.close()
        self.unstall()
        for slot in self.queue:
            slot.orphan()
        self._out.clear()
        self._backlog.clear()
        self._assembler = None
        if self._outbox is not None:
            self._outbox.clear()
        if self.pin is not None:
            pin, self.pin = self.pin, None
            pin.state.used = True  # whatever it was doing, nobody else wants it
            self.worker.pool.give_back(pin)
        if self.group is not None:
            self.worker.leave(self.group)
            self.group = None
        self.worker.forget(self)
