"""One connection to Redis: commands go out in one send a wake-up, replies come in and land in slots, in order.

      submit(raw, slot)                                   recv
            |                                               |
      [raw][raw][raw]  --flush: one send-->  Redis  -->  frames, found by offset, never decoded
      [slot][slot][slot]  fifo              the head takes each, or a batch of them in one slice

Owns the fifo and the unsent bytes. A link that ends fails every slot with the right words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.core.figures.links import LinkFigures
from proxy.core.figures.stats import Stats
from proxy.core.outage.stand_in import StandIn
from proxy.core.slots import Failure, Slot
from proxy.errors import UPSTREAM_OVERLOADED
from proxy.log import get_logger
from proxy.net.links.dial import Stream
from proxy.net.links.landing import Landing
from proxy.net.outbox import Outbox
from proxy.net.reactor import READ, WRITE, Reactor
from proxy.wire.blocking import FOREVER
from proxy.wire.reply import ReplyError
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.values.stream import StreamOpener

RECV_MIN: Final = 16 * 1024
RECV_MAX: Final = 256 * 1024  # one read of a link that streams; more only delays the others
SLOW_CLIENT: Final = 1  # why a link is not read: bits
DICTIONARY: Final = 2
log = get_logger("link")


class Link(Landing):
    """A link that takes commands as soon as it exists; they are sent once `attach` brings a connection."""

    __slots__ = (
        "_dirty",
        "_given",
        "_mask",
        "_on_lost",
        "_out",
        "_outbox",
        "_pauses",
        "_reactor",
        "_recv_size",
        "_stats",
        "_stream",
        "client_id",
        "connected",
        "ended",
        "figures",
        "full",
        "kind",
        "mode",
        "open",
        "opener",
        "optin",
        "patience_s",
        "patient",
        "paused",
        "progress",
        "relieved",
        "run_id",
        "waiting_since",
    )

    def __init__(self, reactor: Reactor, stats: Stats, kind: str, on_lost: Callable[[Link, str], None]) -> None:
        super().__init__()
        self.kind = kind
        self.open = True  # commands may be submitted
        self.full = False  # .. or not, because too many wait
        self.ended = False
        self.connected = False
        self.run_id = b""  # of the server it leads to, where that is known
        self.client_id = 0  # what that calls it, where it was asked
        self.mode = ""  # how Redis was asked to track, "" when it never was
        self.optin = False  # it tracks only reads that CLIENT CACHING YES goes before
        self.patient = False  # a blocking command runs: its reply is late only after the time it asked for
        self.patience_s = FOREVER  # .. which is so long
        self.paused = False  # not read: its reply's client is slow, or a value cannot be opened without a dictionary
        self.figures = LinkFigures()
        self.waiting_since = 0.0  # when Redis last answered, or when the first of the waiting commands was given
        self.progress = (0, 0.0)  # bytes that had come when more than a trickle had last come, and when (net.timers)
        self.relieved: set[Callable[[], None]] = set()  # clients read no further until the outbox is empty
        self._reactor = reactor
        self._stats = stats
        self._on_lost = on_lost
        self._stream: Stream | None = None
        self._outbox = Outbox()
        self._out: list[Raw] = []  # this wake-up's commands
        self._given = 0  # bytes ever given to the socket or the outbox
        self._dirty = False
        self._mask = READ
        self._pauses = 0  # what it is paused for
        self._recv_size = RECV_MIN
        # None: values are stored as they were written. It opens them before anything here sees them.
        self.opener = None if reactor.openers is None else reactor.openers.make()

    @property
    def unsent_bytes(self) -> int:
        """Bytes submitted and not yet taken by the socket."""
        return self._outbox.size

    def counted(self) -> LinkFigures:
        """Return what is counted of the link, up to now."""
        self.figures.sent_bytes = self._given - self._outbox.size
        return self.figures

    def streams_to(self, client: object) -> bool:
        """Return whether a reply that is arriving is forwarded to a client part by part."""
        if not self.fifo or not self.fifo[0].streams:
            return False
        waits = self.fifo[0].client
        return (waits.client if isinstance(waits, StandIn) else waits) is client

    def submit(self, raw: Raw, slot: Slot) -> None:
        """Queue a command whose reply, or replies, the slot takes."""
        if not self.open:
            if self.full:
                slot.refuse(UPSTREAM_OVERLOADED)
            else:
                slot.fail(Failure.UNAVAILABLE)
            return
        now = self._reactor.engine.now
        if not self.fifo:
            self.waiting_since = now
        slot.submitted_at = now
        slot.at = self._given
        self.figures.commands += slot.left
        self.fifo.append(slot)
        self._out.append(raw)
        if not self._dirty:
            self._dirty = True
            self._reactor.dirty_links.append(self)

    def attach(self, stream: Stream) -> None:
        """Take over a connection that has said its first commands."""
        self._stream = stream
        self.connected = True
        self._stats.links_opened += 1
        self._reactor.add(stream.fileno(), self)
        self.waiting_since = now = self._reactor.engine.now
        self.progress = (0, now)
        self.flush()
        self._pump()

    def flush(self) -> None:
        """Send what was submitted."""
        self._dirty = False
        out = self._out
        if not out:
            return
        stream = self._stream
        if stream is not None and self._outbox.size == 0 and len(out) < 1024:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            try:
                sent = stream.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as exc:
                self.lose(str(exc))
                return
            self._given += len(data)  # only now: a send that fails has sent nothing
            if sent == len(data):
                return
            self._outbox.put([memoryview(data)[sent:]], len(data) - sent)
        else:
            size = sum(map(len, out))
            self._given += size
            self._outbox.put(out, size)
            self._out = []
        if stream is not None:
            self._pump()

    def _pump(self) -> None:
        if self._stream is None:
            return
        try:
            empty = self._outbox.pump(self._stream.send)
        except OSError as exc:
            self.lose(str(exc))
            return
        self._watch(READ if empty else READ | WRITE)
        if empty and self.relieved:
            relieved, self.relieved = self.relieved, set()
            for resume in relieved:
                resume()

    def _watch(self, mask: int) -> None:
        if self.paused:
            mask &= ~READ
        if mask != self._mask and self._stream is not None:
            self._mask = mask
            self._reactor.modify(self._stream.fileno(), mask)

    def pause(self, why: int = SLOW_CLIENT) -> None:
        """Read no further for now."""
        self._pauses |= why
        self.paused = True
        self._watch(self._mask & ~READ)

    def resume(self, why: int = SLOW_CLIENT) -> None:
        """Read again, unless it is paused for another reason, too."""
        self._pauses &= ~why
        if self._pauses:
            return
        self.paused = False
        self.waiting_since = now = self._reactor.engine.now
        self.progress = (self.figures.received_bytes, now)
        self._watch(self._mask | READ)

    def on_event(self, mask: int) -> None:
        """Read and land what has come; send on."""
        if mask & WRITE:
            self._pump()
        if mask & ~WRITE and self._stream is not None:
            if self.paused and not mask & READ:
                self.lose("the upstream closed the connection")
                return
            self._read()

    def on_crash(self) -> None:
        """End: a reply made us stumble, the order of slots cannot be trusted any more."""
        self.lose("internal error")

    def _read(self) -> None:
        assert self._stream is not None
        size = self._recv_size
        try:
            data = self._stream.recv(size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self.lose(str(exc))
            return
        if not data:
            self.lose("the upstream closed the connection")
            return
        if len(data) >= size:
            self._recv_size = min(size * 2, RECV_MAX)
        elif len(data) < size // 4:
            self._recv_size = max(size // 2, RECV_MIN)
        self.waiting_since = now = self._reactor.engine.now
        figures = self.figures
        figures.received_bytes += len(data)
        if self.fifo:  # one sample a chunk, its oldest command: a count for each would be 4 % of a pass-through
            waited_s = now - self.fifo[0].submitted_at
            self._stats.latency.add(waited_s)
            figures.latency.add(waited_s)
        try:
            if self.opener is not None:
                self._receive_sealed(self.opener, data)
            else:
                self.receive(data)
        except (ReplyError, ValueError) as exc:  # ValueError: a length that is no number
            self.lose(str(exc))

    def _receive_sealed(self, opener: StreamOpener, data: bytes) -> None:
        """Land what may be looked at, its values opened; read no further while one of them cannot be yet."""
        data = opener.open(self._scanner, data)
        if data:
            self.receive(data)
        wanted = opener.waits_for
        if wanted and not self.ended:  # only now: the answer may be there at once, and what came before is landed first
            self.pause(DICTIONARY)
            assert self._reactor.openers is not None
            self._reactor.openers.fetch(wanted, lambda: self._reactor.guard(self, lambda: self._reopen(wanted)))

    def _reopen(self, wanted: int) -> None:
        """Go on: a dictionary has come, or is lost."""
        opener, openers = self.opener, self._reactor.openers
        if self.ended or opener is None or opener.waits_for != wanted:
            return
        if openers is None or not openers.knows(wanted):
            opener.give_up(wanted)
        self.resume(DICTIONARY)
        try:
            self._receive_sealed(opener, b"")
        except (ReplyError, ValueError) as exc:
            self.lose(str(exc))

    def lose(self, why: str, failure: Failure = Failure.LOST) -> None:
        """End the link: every slot is answered, then the owner is told."""
        if self.ended:
            return
        self.ended = True
        self.open = self.full = self.connected = self.tracked = False
        sent = self._given - self._outbox.size
        self.counted().failed += sum(slot.left for slot in self.fifo)
        self._stats.ended_links.setdefault(self.kind, LinkFigures()).add(self.figures)
        if self._stream is not None:
            self._reactor.remove(self._stream.fileno())
            self._stream.close()
            self._stream = None
            self._stats.links_lost += 1
        self._outbox.clear()
        self._out.clear()
        fifo = self.fifo
        self._stats.failed += sum(slot.client is not None for slot in fifo)
        self._on_lost(self, why)
        while fifo:
            slot = fifo.popleft()
            try:
                slot.fail(failure if slot.at < sent else Failure.UNAVAILABLE)
            except Exception:
                log.exception("bug", owner=type(slot).__name__)
        relieved, self.relieved = self.relieved, set()
        for resume in relieved:
            resume()
