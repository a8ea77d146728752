"""The sending half of a client connection: replies in order, one send a wake-up, and what the client is slow to take.

    slots land -> queue [slot][slot] --settle--> out --flush--> socket, or outbox when it takes less

Owns the client's queue and its unsent bytes, and the limit on them. A client that stops reading in the middle of a
reply that streams holds up a link others use: the link is read no further, and the client closed soon after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from itertools import islice
from socket import socket
from typing import TYPE_CHECKING, Final

from proxy.core.figures.watching import Watch, WatchSlot
from proxy.core.session import Session
from proxy.core.slots import MUTED, FilledSlot, Slot
from proxy.net.links.dial import Stream
from proxy.net.links.link import Link
from proxy.net.outbox import JOIN_BYTES, Outbox, rest
from proxy.net.process import kernel_unsent
from proxy.net.reactor import PEER_CLOSED, READ, WRITE
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.net.worker import Worker

MANY: Final = 16  # replies above which their size is looked at before they are joined
SEEN_MAX: Final = 16  # slots whose replies are kept to see which are errors
STALL_BYTES: Final = 8 * 1024 * 1024  # unsent bytes at which the link that streams to a client is read no further


class Sender(ABC):
    """Collect and send. Subclasses read, and know where replies come from."""

    __slots__ = (
        "_dirty",
        "_fd",
        "_held",
        "_is_plain",
        "_mask",
        "_out",
        "_outbox",
        "_send",
        "_stream",
        "closed",
        "drained_at",
        "muting",
        "queue",
        "session",
        "stalls",
        "worker",
    )

    def __init__(self, worker: Worker, stream: Stream, session: Session) -> None:
        self.worker = worker
        self.session = session
        self.queue: deque[Slot] = deque()
        self.muting = False
        self.closed = False
        self.stalls: Link | None = None  # the link read no further because of us
        self.drained_at = 0.0  # when this client last took some of what it has to be sent
        self._stream = stream
        self._is_plain = isinstance(stream, socket)
        self._fd = stream.fileno()
        self._send = stream.send
        self._out: list[bytes] = []
        self._outbox: Outbox | None = None  # made when the socket first takes less than it is given
        self._dirty = False
        self._held = 0  # bytes the kernel held for the client at the last look
        self._mask = READ | PEER_CLOSED

    @abstractmethod
    def flush(self) -> None:
        """Send what has been collected."""

    def on_crash(self) -> None:
        """Close: something of ours broke on this client's bytes."""
        self.kill("internal error")

    @abstractmethod
    def close(self) -> None:
        """Close at once."""

    @abstractmethod
    def kill(self, why: str) -> None:
        """Close a client that broke a limit."""

    def kill_unread(self, why: str) -> None:
        """Close a client that leaves unread what it has asked for."""
        self.worker.stats.killed_unread += not self.closed
        self.kill(why)

    @abstractmethod
    def press(self) -> None:
        """Read on, or no further, as what is outstanding and unsent allows."""

    @property
    @abstractmethod
    def waits_long(self) -> bool:
        """Return whether what was asked for last is not answered as soon as Redis can."""

    @abstractmethod
    def streaming_link(self) -> Link | None:
        """Return the link a large reply comes from."""

    def reply(self, raw: bytes) -> None:
        """Send a reply in its turn."""
        if self.muting:
            return
        if self.queue:
            self.queue.append(FilledSlot(raw))
        else:
            self._out.append(raw)
            self._mark()

    def replies(self, frames: list[bytes]) -> None:
        """Send replies in their turn, and at once when it is. Held by reference: joined only when that is small."""
        if self.queue:
            self.queue.extend([FilledSlot(frame) for frame in frames])
        elif self._out or len(frames) > MANY:
            self._out += frames
            self._mark()
        else:
            self._send_now(frames[0] if len(frames) == 1 else b"".join(frames), frames)

    def owe(self, slot: Slot) -> None:
        """Add a slot to the queue."""
        if self.muting:
            slot.mode = MUTED
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

    def see_off(self, watch: Watch, waiting: int, answered: int) -> None:
        """Have a batch watched that has been run; before it so many slots and replies waited for their turn.

        A batch that waits for a connection, or for something to happen, is not: how long that takes says nothing. Of
        one in many pieces the errors go unseen: their replies are not kept to look at, who knows how large they are.
        """
        if self.closed or self.waits_long:
            return
        queue = self.queue
        if queue:
            slots = list(islice(queue, waiting, waiting + SEEN_MAX + 1))
            queue.append(WatchSlot(watch, slots if len(slots) <= SEEN_MAX else ()))
        else:
            watch.end(self._out[answered:])

    def stream(self, part: bytes) -> None:
        """Take a part of the reply of the slot at the head of the queue."""
        self._out.append(part)
        self._mark()

    def out_of_band(self, frame: bytes, before: Slot | None) -> None:
        """Send a frame that is no reply behind the replies that came before it, which may be held.

        `before` is whose reply comes next, None: no reply does.
        """
        queue = self.queue
        if queue and queue[0] is not before and (before is None or before in queue):
            queue.insert(len(queue) if before is None else queue.index(before), FilledSlot(frame))
            return
        self._out.append(frame)
        self._mark()

    def _mark(self) -> None:
        if not self._dirty:
            self._dirty = True
            self.worker.reactor.dirty_clients.append(self)

    def _send_now(self, data: bytes, parts: Sequence[bytes] = ()) -> None:
        """Send without waiting for the end of the wake-up.

        `parts` are what `data` was joined from: of what the socket does not take they are held, and not the whole. Of
        TLS the whole: it has taken a beginning that it must be given again.
        """
        if self._outbox is not None and self._outbox.size:
            self._out += parts or (data,)
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
            self._keep(rest(parts if parts and self._is_plain else (data,), sent), len(data) - sent)

    def _send_collected(self) -> None:
        """Send what has been collected since the last time, behind what is still unsent."""
        out = self._out
        outbox = self._outbox
        if outbox is not None and outbox.size:
            if out:
                self._out = []
                self._keep(out, sum(map(len, out)))
            if not self.closed:
                self._pump()
        elif len(out) <= MANY or (size := sum(map(len, out))) <= JOIN_BYTES:
            if len(out) == 1:
                data = out[0]
                out.clear()
                self._send_now(data)
            elif out:
                self._out = []
                self._send_now(b"".join(out), out)
        else:
            self._out = []
            self._keep(out, size)
            if not self.closed:
                self._pump()

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
        self.worker.unread_bytes += size
        if outbox.size > self.worker.output_limit:
            self.kill_unread("output buffer limit")
            return
        self._watch(self._mask | WRITE)
        if outbox.size > min(STALL_BYTES, self.worker.output_limit // 2):
            self._stall()
            self.press()

    def _pump(self) -> None:
        outbox = self._outbox
        assert outbox is not None
        before = outbox.size
        try:
            empty = outbox.pump(self._send)
        except OSError:
            self.worker.unread_bytes -= before - outbox.size
            self.close()
            return
        if outbox.size < before:
            self.drained_at = self.worker.engine.now
            self.worker.stats.sent_bytes += before - outbox.size
            self.worker.unread_bytes -= before - outbox.size
        if empty:
            self._watch(self._mask & ~WRITE)
        if self.stalls is not None and outbox.size < STALL_BYTES // 4:
            self.unstall()

    def _forget_unsent(self) -> None:
        """Hold nothing of what has been collected or not been taken."""
        self._out.clear()
        if self._outbox is not None:
            self.worker.unread_bytes -= self._outbox.size
            self._outbox.clear()

    def takes_some(self) -> bool:
        """Return whether the client has taken anything since the last look: what the kernel holds counts too.

        The socket says that it is writable only when much of it has gone: too much to wait for, with a slow reader.
        """
        held = kernel_unsent(self._fd)
        taken, self._held = held < self._held, held
        return taken

    def _stall(self) -> None:
        """Read the link no further that streams a large reply to us: others get another one meanwhile."""
        link = self.streaming_link()
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

    def _watch(self, mask: int) -> None:
        if mask != self._mask and not self.closed:
            self._mask = mask
            self.worker.reactor.modify(self._fd, mask)
