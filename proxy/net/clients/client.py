"""One client connection: bytes in, requests through the pipeline, replies out in order.

    recv --> hit path: the request's own bytes are the key of L1 --> one send
         --> parser --> pipeline --> queue [slot][slot] --settle--> out --flush: one send--> client

Owns reading, parking, and the limits that protect the others from a client; `sender` owns what goes back to it,
`placement` where its commands go.
"""

from __future__ import annotations

from socket import socket
from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Entry
from proxy.core.rights.origins import Origin
from proxy.core.session import Session
from proxy.errors import ProtocolError
from proxy.net.clients.known import ANSWER_MAX, GET_LENGTH, GETS, KnowingClient
from proxy.net.clients.sender import STALL_BYTES
from proxy.net.links.dial import Stream, reset_on_close
from proxy.net.process import kernel_unread
from proxy.net.reactor import ERROR, HANGUP, PEER_CLOSED, READ, WRITE
from proxy.wire.encode import error
from proxy.wire.request import Assembler, Request

if TYPE_CHECKING:
    from proxy.net.worker import Worker

RECV_MIN: Final = 2048  # a 64 KiB buffer a call is dear; grown for clients that fill it
RECV_MAX: Final = 128 * 1024  # RECV_MIN times a power of four
RECV_METERED: Final = 4 * RECV_MIN  # of a client with a rate: what one read holds may go beyond it
SHORT_READS: Final = 32
TAIL_MAX: Final = 32 * 1024  # an incomplete command up to here is parsed again with what follows; above, assembled
BACKLOG_MAX: Final = 1024  # commands kept for a parked client before it is read no further ..
BACKLOG_BYTES: Final = 1024 * 1024  # .. and their bytes, looked at after each read
STRANGER_BYTES: Final = 64 * 1024  # the same for one that has not logged in where it must, and what it has not read
AWAITED: Final = ("link", "login")  # what a client is parked for that somebody else will tell it of
GIVES_MEANING: Final = frozenset([b"MULTI", b"WATCH", b"SELECT", b"HELLO", b"AUTH"])  # .. to what follows
NEAR: Final = 64  # outstanding commands below which no limit is near
LINK_HIGH: Final = 16 * 1024 * 1024  # unsent bytes of a link at which the clients that feed it are read no further


class ClientConnection(KnowingClient):
    """A client, from accept to close."""

    __slots__ = (
        "_assembler",
        "_backlog_bytes",
        "_backpressed",
        "_recv",
        "_recv_size",
        "_refusal",
        "_short_reads",
        "_tail",
        "ended",
        "read_at",
        "waits_off",
    )

    def __init__(self, worker: Worker, stream: Stream, session: Session, origin: Origin) -> None:
        super().__init__(worker, stream, session, origin)
        self.ended = False  # QUIT: no command is looked at any more
        self.read_at = worker.engine.now
        self._recv = stream.recv
        self._recv_size = RECV_MIN
        self._short_reads = 0
        self._assembler: Assembler | None = None
        self._tail = b""  # a short incomplete command
        self._backlog_bytes = 0  # of what was read while it was parked
        self._refusal = b""  # what it is told of bytes that are no request, behind the replies to what came before
        self.waits_off = False  # it has asked for more than its rate allows
        self._backpressed = False  # read no further: too much is outstanding, or unsent
        worker.reactor.add(self._fd, self, self._mask)

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
            self._recv_size = min(self._recv_size * 4, RECV_MAX if self.meter is None else RECV_METERED)
        elif self._recv_size != RECV_MIN:
            # The last piece of a burst is short: only many short reads in a row say that the bursts are over.
            self._short_reads = self._short_reads + 1 if size * 8 < self._recv_size else 0
            if self._short_reads > SHORT_READS:
                self._recv_size //= 4
                self._short_reads = 0
        if not size:
            self._end_of_stream()
            return
        worker = self.worker
        namespace = self.namespace
        engine = worker.engine
        self.read_at = engine.now
        worker.stats.received_bytes += size
        if (
            namespace is None
            or self._tail
            or self._assembler is not None
            or self.checked
            or engine.verifier.looks_at_all
        ):
            self._parse(data)
            return
        if data.startswith(GETS):
            # The bytes after `GET` are the key as L1 knows it: a hit is one look-up, two attribute writes and a send.
            entry: Entry | None = namespace.entries.get(data[GET_LENGTH:])
        elif size <= ANSWER_MAX and namespace.answers:
            entry = namespace.answers.get(data)  # any other read is known by all of its bytes
        else:
            entry = None
        if entry is not None and entry.deadline > engine.now and not self.queue and not self._out:
            entry.uses += 1
            entry.used_at = engine.now
            stats = worker.stats
            stats.commands += 1
            stats.hits += 1
            self._send_now(entry.reply)
            if stats.hits >= stats.look_at:
                engine.tally.look(entry)
            return
        if data.startswith(GETS):
            data = self.gets(namespace, data)
            if self.queue:
                self._press_if_needed()
        if data and namespace.answers and self.namespace is namespace:
            data = self.known(namespace, data)
        if data:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Split a chunk into requests and run them; keep what is incomplete."""
        requests: list[Request] = []
        assembler = self._assembler
        refused: ProtocolError | None = None
        if assembler is None:
            if self._tail:
                data = self._tail + data
                self._tail = b""
            group = self.group
            if group is None and self.pin is None:
                group = self.regroup()
            is_limited = not self.session.authenticated or self.worker.limits.bulk_bytes < RECV_MAX
            if group is not None and group.refusal:
                is_limited = True
            # Sizes that the fast parser does not look at may be too large.
            taken = 0 if is_limited else self.worker.parser.parse(data, requests)
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
            session.last_words = requests[-1][0][:2]
            self.worker.stats.commands += len(requests)
            if self.parked:
                self._backlog_bytes += sum([len(raw) for _, raw in requests])
                self.park(self.parked, requests)
            else:
                self._run(requests)
            if self.meter is not None and not self.meter.take(len(requests), self.worker.engine.now):
                self.worker.door.rates.hold_back(self)
            self._press_if_needed()
        if refused is not None and not self.closed:
            self.worker.stats.protocol_errors += 1
            self._refusal = error(f"ERR {refused}")
            self._refuse()
            self._assembler = None
            self._tail = b""
            self.close_when_settled()

    def _refuse(self) -> None:
        """Say what was wrong with the last bytes, once everything before them has been run."""
        if self._refusal and not self.parked and not self.ended:
            self.reply(self._refusal)
            self._refusal = b""

    def _run(self, requests: list[Request]) -> None:
        """Run a batch; now and then see what becomes of it."""
        worker = self.worker
        tally = worker.engine.tally
        tally.asked += len(requests)
        if tally.asked < tally.asked_at:
            worker.pipeline.run(self, requests)
            return
        watch = tally.watch(requests, worker.table)
        waiting, answered = len(self.queue), len(self._out)
        worker.pipeline.run(self, requests)
        self._press_if_needed()  # it looks at the last slot, which is that of the watch from now on
        self.see_off(watch, waiting, answered)

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
        elif self.waits_off and not kernel_unread(self._fd):
            self.close_when_settled()  # nothing is left to be waited for, and its place is wanted
        else:
            self._gone = True  # nothing that blocks is begun for it any more
            self._watch(self._mask & ~PEER_CLOSED)

    def park(self, why: str, requests: list[Request]) -> None:
        """Keep requests until `why` has passed: "settle", "reply", "link" or "login"."""
        self.parked = why
        self.namespace = self.shadow = None
        self._backlog += requests
        self.press()
        self._mark()

    def unpark(self) -> None:
        """Run what was kept. It may park again."""
        self.parked = ""
        backlog, self._backlog = self._backlog, []
        self.expose()
        if backlog:
            self.worker.pipeline.run(self, backlog)
        if not self._backlog:
            self._backlog_bytes = 0
        self._refuse()
        self.press()

    def flush(self) -> None:
        """Send what has been collected; run what waited for it; close if that was all."""
        self._dirty = False
        if self.closed:
            return
        self._send_collected()
        if self.closed:
            return
        is_held = self.parked in AWAITED or (self.pin is not None and self.pin.state.once)
        if self.parked and not self.queue and not is_held:
            self.unpark()
        elif self._backpressed:
            self.press()
        if self._closing and not self.queue and not self._out and not self.parked and not self.unsent_bytes:
            self.close()

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
            self.press()

    def press(self) -> None:
        """Read on, or no further, as what is outstanding and unsent allows."""
        link = self.link
        is_stranger = self.unproven
        too_much = (
            sum(slot.left for slot in self.queue) > self.worker.max_pipeline
            or len(self._backlog) > BACKLOG_MAX
            or self._backlog_bytes > (STRANGER_BYTES if is_stranger else BACKLOG_BYTES)
            or self.unsent_bytes > (STRANGER_BYTES if is_stranger else STALL_BYTES)
            or self.waits_off
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

    def close_when_settled(self) -> None:
        """Close once everything owed has been sent."""
        if not self._closing:
            self._closing = True
            self.namespace = self.shadow = None
            self._watch(self._mask & ~READ)  # that it leaves is still seen: it may be blocked
        self._mark()

    def quit(self) -> None:
        """Close after the replies owed by now; what the client has sent since is not looked at."""
        self.ended = True
        self._backlog.clear()
        self.close_when_settled()

    def give_up(self, args: list[bytes]) -> None:
        """Close if anything was sent behind a command that gives it its meaning and has failed without Redis' word.

        Behind a MULTI that failed it would be run one by one, behind a SELECT in the wrong database. A client that
        waits for each reply has sent nothing yet, and may stay.
        """
        if self._backlog and bytes(args[0]).upper() in GIVES_MEANING:
            self.quit()

    @property
    def is_idle(self) -> bool:
        """Return whether the client is owed nothing and holds no connection."""
        return not self.queue and not self.parked and self.pin is None and not self.unsent_bytes and not self._out

    @property
    def is_mid_request(self) -> bool:
        """Return whether the client has sent something that was not looked at yet, or not all of a command."""
        return bool(self._tail) or self._assembler is not None or kernel_unread(self._fd) > 0

    def kill(self, why: str) -> None:
        """Close a client that broke a limit; what it has not read is dropped."""
        if not self.closed:
            self.worker.stats.killed += 1
            self.worker.door.log_killed(self.session, why)
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
        self.namespace = self.shadow = None
        self.worker.reactor.remove(self._fd)
        self._stream.close()
        self.unstall()
        for slot in self.queue:
            slot.orphan()
        self.queue.clear()
        self._forget_unsent()
        self._backlog.clear()
        self._assembler = None
        self._tail = b""  # who waits for a login of this client may hold it for a while
        if self.pin is not None:
            self.pin.state.used = True  # whatever it was doing, nobody else wants it
            pin = self._let_go()
            assert pin is not None
            self.worker.pool.give_back(pin)
        if self.group is not None:
            self.worker.leave(self.group)
            self.group = None
        self.worker.door.forget(self)
