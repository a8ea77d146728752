"""Slots: the places replies are awaited in.

    client.queue   [slot][slot][slot]      what the client is owed, in its order
    link.fifo      [slot][slot]            what the link owes, in the order it was asked

A slot usually stands in both. The link lands raw frames in the slot at its head; the client is sent the longest filled
prefix of its queue. Every slot ends by `land` or by `fail`: nobody waits for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Final, Protocol

from proxy import errors

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.wire.request import Raw

STREAM_BYTES: Final = 64 * 1024
"""From here on a reply is forwarded as it arrives, if it is its client's turn; below, one send is cheaper."""


class Failure(Enum):
    """Why a slot's reply will never come."""

    UNAVAILABLE = 0  # the command was never sent
    LOST = 1  # it was sent, then the link died
    TIMED_OUT = 2
    REFUSED = 3  # Redis answers, and cannot do it now: it loads, it runs a script, it has lost its master
    OVERLOADED = 4  # it was never sent: too many wait for Redis, which is there


class Client(Protocol):
    """What a slot knows of the client that waits."""

    queue: deque[Slot]
    joins: int  # JoinSlots in the queue that are not answered

    def owe(self, slot: Slot) -> None:
        """Add a slot to the queue."""

    def settle(self) -> None:
        """Take the filled prefix of the queue."""

    def stream(self, part: bytes) -> None:
        """Take a part of the reply of the slot at the head of the queue."""

    def ask(self, raw: Raw, slot: Slot) -> None:
        """Submit a read for a slot that is in the queue already."""

    def ask_again(self, raw: Raw, slot: Slot) -> bool:
        """Ask once more for a slot in the queue whose read was lost with its link; False: somebody else sees to it."""

    def abort(self, why: str) -> None:
        """Close the connection: what it was being sent cannot be finished."""


class Link(Protocol):
    """What the core knows of a link."""

    tracked: bool
    optin: bool  # a read is tracked only behind CLIENT CACHING YES

    def submit(self, raw: Raw, slot: Slot) -> None:
        """Queue a command whose reply, or replies, the slot takes."""


class Mode(IntEnum):
    """How a slot treats what comes for it."""

    WHOLE = 0  # kept until all is there
    MUTED = 1  # CLIENT REPLY OFF or SKIP: awaited, and not sent
    STREAMS = 2  # forwarded as it comes; nothing, or whole replies, have been
    HALF = 3  # the last bytes forwarded end inside a reply


WHOLE: Final = Mode.WHOLE  # to look up a member of an enum takes 0.1 us before Python 3.12
MUTED: Final = Mode.MUTED
STREAMS: Final = Mode.STREAMS
HALF: Final = Mode.HALF


class Parts:
    """What has come for a slot so far: made only for replies that do not come in one piece."""

    __slots__ = ("chunks", "size", "whole")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.whole = 0  # how many of the chunks are whole replies
        self.size = 0


class Slot:
    """One or more replies owed to a client, forwarded as they are.

    `left` is how many replies are still to come, `reply` None until all are there. Few attributes on purpose: a slot
    is made for every command that goes upstream, and each costs 35 ns.
    """

    __slots__ = ("at", "client", "left", "mode", "parts", "reply", "submitted_at")
    is_write = False  # its effect may have been applied although no reply came
    needs_whole = False  # the reply is read here, even if it is not sent

    at: int  # how many bytes the link had been given before this wake-up's; set by the link
    submitted_at: float  # set by the link

    def __init__(self, client: Client | None) -> None:
        self.client = client
        self.left = 1
        self.reply: bytes | None = None
        self.parts: Parts | None = None
        self.mode: Mode = WHOLE

    def keep(self, raw: bytes, count: int) -> None:
        """Take bytes that end `count` replies; more replies are owed."""
        self.left -= count
        self._take(raw)
        if self.parts is not None:
            self.parts.whole = len(self.parts.chunks)
        elif self.mode is HALF:
            self.mode = STREAMS

    def partial(self, raw: bytes) -> None:
        """Take bytes that end inside a reply."""
        self._take(raw)
        if self.mode is STREAMS:
            self.mode = HALF

    def land(self, raw: bytes) -> None:
        """Take the bytes that end the last reply."""
        parts = self.parts
        if parts is not None:
            parts.chunks.append(raw)
            raw = b"".join(parts.chunks)
            self.parts = None
        self.fill(raw)

    def fill(self, reply: bytes) -> None:
        """Give the client its reply."""
        self.reply = b"" if self.mode is MUTED else reply
        client = self.client
        if client is not None and client.queue and client.queue[0] is self:
            client.settle()

    def again(self, reply: bytes) -> None:
        """Take the replies to what was asked once more."""
        self.fill(reply)

    def fail(self, failure: Failure) -> None:
        """Answer what is still owed with an error; a client that has half a reply is cut off."""
        if self.mode is HALF and self.client is not None:
            self.client.abort("upstream lost inside a reply")
            self.fill(b"")
            return
        whole = b"".join(self.parts.chunks[: self.parts.whole]) if self.parts is not None else b""
        self.parts = None
        self.fill(whole + failure_line(failure, is_write=self.is_write) * self.left)

    def refuse(self, error: bytes) -> None:
        """Answer with Redis' own refusal: the command was never sent, because its link was not let in."""
        self.fill(error * self.left)

    def may_stream(self, size: int) -> bool:
        """Return whether parts of `size` bytes may reach the client before the whole reply is there."""
        return True

    def orphan(self) -> None:
        """Go on without the client, who has gone: the link still awaits the reply."""
        if self.streams:
            self.client = None
        else:
            self.mode = MUTED

    @property
    def streams(self) -> bool:
        """Return whether parts are forwarded as they come."""
        return self.mode >= STREAMS

    def _take(self, raw: bytes) -> None:
        if self.mode is MUTED and not self.needs_whole:
            return
        client = self.client
        if self.mode >= STREAMS:
            if client is not None:
                client.stream(raw)
            return
        parts = self.parts
        if parts is None:
            parts = self.parts = Parts()
        parts.chunks.append(raw)
        parts.size += len(raw)
        if (
            parts.size > STREAM_BYTES
            and self.mode is WHOLE
            and client is not None
            and client.queue[0] is self
            and self.may_stream(parts.size)
        ):
            for chunk in parts.chunks:
                client.stream(chunk)
            self.parts = None
            self.mode = STREAMS


class ReadSlot(Slot):
    """Replies of plain reads, that are asked once more if their link is lost. `raw` is what was asked."""

    __slots__ = ("raw",)

    def __init__(self, client: Client, raw: Raw) -> None:
        # Slot's own lines again: to call them costs 2 % of a read that passes through.
        self.client = client
        self.left = 1
        self.reply = None
        self.parts = None
        self.mode = WHOLE
        self.raw = raw

    def fail(self, failure: Failure) -> None:
        """Ask again, or answer with an error."""
        if not retry(self, self.raw):
            super().fail(failure)


class RetrySlot(Slot):
    """The replies to reads that were asked once more, for the slot that waits; they are not asked a third time."""

    __slots__ = ("_waiting",)
    needs_whole = True

    def __init__(self, waiting: Slot) -> None:
        super().__init__(None)
        self.left = waiting.left
        self._waiting = waiting

    def fill(self, reply: bytes) -> None:
        """Hand them over, unless it took too long."""
        is_waited_for, self.reply = self.reply is None, reply
        if is_waited_for:
            self._waiting.again(reply)

    def give_up(self) -> None:
        """Tell the slot that waits that the time is over; whatever comes now is nobody's."""
        self.fill(errors.UPSTREAM_TIMED_OUT * self._waiting.left)


def retry(slot: Slot, raw: Raw) -> bool:
    """Ask once more for reads whose link was lost, on the link that comes next; False if they must fail now.

    So must those whose own time is over; what was sent behind them on a link that was late has some left.
    """
    parts = slot.parts
    if slot.client is None or slot.mode >= STREAMS or (parts and parts.whole):
        return False
    slot.parts = None  # half a reply that nobody has seen
    return slot.client.ask_again(raw, slot)


class EffectSlot(Slot):
    """The reply of a command that changes something and names no key: PUBLISH, SCRIPT LOAD."""

    __slots__ = ()
    is_write = True


def failure_line(failure: Failure, *, is_write: bool) -> bytes:
    """Return the error a client reads for a command that failed."""
    if failure is Failure.TIMED_OUT:
        return errors.UPSTREAM_TIMED_OUT
    if failure is Failure.LOST and is_write:
        return errors.UPSTREAM_LOST
    return errors.UPSTREAM_UNAVAILABLE


class FilledSlot(Slot):
    """A reply that was known at once, waiting behind others for its turn."""

    __slots__ = ()

    def __init__(self, reply: bytes) -> None:
        super().__init__(None)
        self.reply = reply


class WriteSlot(Slot):
    """Replies of writes: their keys are dropped again when the last is in."""

    __slots__ = ("_engine", "keys")
    is_write = True

    def __init__(self, client: Client | None, engine: Engine, keys: list[bytes]) -> None:
        super().__init__(client)
        self._engine = engine
        self.keys = keys  # as bulk strings

    def fill(self, reply: bytes) -> None:
        """End the writes, then answer: who reads this reply must find nothing older."""
        engine = self._engine
        engine.end_write(self.keys)
        if reply[:1] == b"-":
            engine.outage.refused(reply)
        super().fill(reply)


class WriteAllSlot(Slot):
    """The reply of a write that may have changed any key."""

    __slots__ = ("_after", "_engine")
    is_write = True

    def __init__(self, client: Client, engine: Engine, after: Callable[[], None] | None = None) -> None:
        super().__init__(client)
        self._engine = engine
        self._after = after

    def fill(self, reply: bytes) -> None:
        """End the write, then answer."""
        self._engine.end_write_all()
        super().fill(reply)
        if self._after is not None and reply[:1] != b"-":
            self._after()

    def fail(self, failure: Failure) -> None:
        """Answer with an error; what follows the command does so, too, if it may have been applied."""
        super().fail(failure)
        if self._after is not None and failure in (Failure.LOST, Failure.TIMED_OUT):
            self._after()


class Pending:
    """A reply that somebody else will give: returned by the `then` of a CallSlot that has to ask further."""

    __slots__ = ("_reply", "_slot")

    def __init__(self) -> None:
        self._slot: Slot | None = None
        self._reply: bytes | None = None

    def settle(self, reply: bytes) -> None:
        """Give the client its reply; before the slot waits for it, too."""
        self._reply = reply
        if self._slot is not None:
            self._slot.fill(reply)

    def await_in(self, slot: Slot) -> None:
        """Fill a slot with the reply, once it is known."""
        self._slot = slot
        if self._reply is not None:
            slot.fill(self._reply)


class CallSlot(Slot):
    """A reply for the proxy itself, or one it must read before the client does.

    `then` gets the whole raw frame and returns what the client is sent, or that it is not known yet; its result is
    ignored when there is no client.
    """

    __slots__ = ("_failed", "_then")
    is_write = True
    needs_whole = True

    def __init__(
        self, client: Client | None, then: Callable[[bytes], bytes | Pending], failed: Callable[[], None] | None = None
    ) -> None:
        super().__init__(client)
        self._then = then
        self._failed = failed

    def may_stream(self, size: int) -> bool:
        """Never: it must be read first."""
        return False

    def keep(self, raw: bytes, count: int) -> None:
        """Take one reply of one."""
        raise AssertionError("a call is owed one reply")

    def land(self, raw: bytes) -> None:
        """Let `then` read the reply before the client gets it."""
        if self.parts is not None:
            self.parts.chunks.append(raw)
            raw = b"".join(self.parts.chunks)
            self.parts = None
        reply = self._then(raw)
        if isinstance(reply, Pending):
            reply.await_in(self)
        else:
            self.fill(reply)

    def fail(self, failure: Failure) -> None:
        """Tell whoever waits, then the client."""
        if self._failed is not None:
            self._failed()
        super().fail(failure)
