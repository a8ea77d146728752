"""Slots: the places replies are awaited in.

    client.queue   [slot][slot][slot]      what the client is owed, in its order
    link.fifo      [slot][slot]            what the link owes, in the order it was asked

A slot usually stands in both. The link lands raw frames in the slot at its head; the client is sent the longest filled
prefix of its queue. Every slot ends by `land` or by `fail`: nobody waits for ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from proxy import errors
from proxy.cache.flights import Flight
from proxy.wire.reply import elements

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


class Client(Protocol):
    """What a slot knows of the client that waits."""

    queue: deque[Slot]

    def owe(self, slot: Slot) -> None:
        """Add a slot to the queue."""

    def settle(self) -> None:
        """Take the filled prefix of the queue."""

    def stream(self, part: bytes) -> None:
        """Take a part of the reply of the slot at the head of the queue."""

    def ask(self, raw: bytes, slot: Slot) -> None:
        """Submit a read for a slot that is in the queue already."""

    def abort(self, why: str) -> None:
        """Close the connection: what it was being sent cannot be finished."""


class Link(Protocol):
    """What the core knows of a link."""

    tracked: bool

    def submit(self, raw: Raw, slot: Slot) -> None:
        """Queue a command whose reply, or replies, the slot takes."""


class Slot:
    """One or more replies owed to a client, forwarded as they are."""

    __slots__ = ("at", "client", "half", "is_write", "left", "muted", "parts", "reply", "size", "submitted_at", "whole")

    def __init__(self, client: Client | None, *, is_write: bool = False) -> None:
        self.client = client
        self.is_write = is_write
        self.left = 1  # replies still to come
        self.reply: bytes | None = None  # None until all are there
        self.parts: list[bytes] | None = None  # what has come so far
        self.whole = 0  # how many of the parts are whole replies
        self.size = 0  # bytes of the parts; below 0 the slot streams
        self.half = False  # the last bytes that came end inside a reply
        self.muted = False  # CLIENT REPLY OFF or SKIP: the reply is awaited, and not sent
        self.at = 0  # how many bytes the link had been given before this one's
        self.submitted_at = 0.0

    def keep(self, raw: bytes, count: int) -> None:
        """Take bytes that end `count` replies; more replies are owed."""
        self.left -= count
        self.half = False
        self._take(raw)
        if self.parts is not None:
            self.whole = len(self.parts)

    def partial(self, raw: bytes) -> None:
        """Take bytes that end inside a reply."""
        self.half = True
        self._take(raw)

    def land(self, raw: bytes) -> None:
        """Take the bytes that end the last reply."""
        if self.parts is not None:
            self.parts.append(raw)
            raw = b"".join(self.parts)
            self.parts = None
        self.fill(raw)

    def fill(self, reply: bytes) -> None:
        """Give the client its reply."""
        self.reply = b"" if self.muted else reply
        client = self.client
        if client is not None and client.queue and client.queue[0] is self:
            client.settle()

    def fail(self, failure: Failure) -> None:
        """Answer what is still owed with an error; a client that has half a reply is cut off."""
        if self.size < 0 and self.half and self.client is not None and not self.muted:
            self.client.abort("upstream lost inside a reply")
            self.fill(b"")
            return
        whole = b"".join(self.parts[: self.whole]) if self.parts is not None else b""
        self.parts = None
        self.fill(whole + failure_line(failure, is_write=self.is_write) * self.left)

    def refuse(self, error: bytes) -> None:
        """Answer with Redis' own refusal: the command was never sent, because its link was not let in."""
        self.fill(error * self.left)

    def may_stream(self) -> bool:
        """Return whether parts may reach the client before the whole reply is there."""
        return True

    def _take(self, raw: bytes) -> None:
        client = self.client
        if self.muted:
            return
        if self.size < 0:
            assert client is not None
            client.stream(raw)
            return
        if self.parts is None:
            self.parts = [raw]
        else:
            self.parts.append(raw)
        self.size += len(raw)
        if self.size > STREAM_BYTES and client is not None and client.queue[0] is self and self.may_stream():
            for part in self.parts:
                client.stream(part)
            self.parts = None
            self.size = -1


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

    def __init__(self, client: Client, reply: bytes, *, muted: bool = False) -> None:
        super().__init__(client)
        self.reply = b"" if muted else reply


class WriteSlot(Slot):
    """Replies of writes: their keys are dropped again when the last is in."""

    __slots__ = ("_engine", "keys")

    def __init__(self, client: Client, engine: Engine, keys: list[bytes]) -> None:
        super().__init__(client, is_write=True)
        self._engine = engine
        self.keys = keys  # as bulk strings

    def fill(self, reply: bytes) -> None:
        """End the writes, then answer: who reads this reply must find nothing older."""
        self._engine.end_write(self.keys)
        super().fill(reply)


class WriteAllSlot(Slot):
    """The reply of a write that may have changed any key."""

    __slots__ = ("_engine",)

    def __init__(self, client: Client, engine: Engine) -> None:
        super().__init__(client, is_write=True)
        self._engine = engine

    def fill(self, reply: bytes) -> None:
        """End the write, then answer."""
        self._engine.end_write_all()
        super().fill(reply)


class FillSlot(Slot):
    """The read of a flight: its opener is answered when it lands, L1 when the PTTL behind it has."""

    __slots__ = ("_engine", "flight")

    def __init__(self, client: Client, engine: Engine, flight: Flight) -> None:
        super().__init__(client)
        self._engine = engine
        self.flight = flight

    def may_stream(self) -> bool:
        """Stream what is too large for L1, and give its lease back."""
        if self.flight.standing and self.size <= self._engine.max_value_bytes:
            return False
        self._engine.flights.revoke(self.flight)
        return True

    def fill(self, reply: bytes) -> None:
        """Keep the reply for whoever joined, answer the opener."""
        if self.size >= 0:
            self.flight.reply = reply
        super().fill(reply)

    def fail(self, failure: Failure) -> None:
        """Give the lease back; those who joined ask again when the PTTL fails."""
        self._engine.flights.revoke(self.flight)
        super().fail(failure)
        self.flight.reply = None


class JoinSlot(Slot):
    """A later reader of a flight's key."""

    __slots__ = ("_raw", "joined_at")

    def __init__(self, client: Client, raw: bytes, now: float) -> None:
        super().__init__(client)
        self._raw = raw  # the read, for asking oneself
        self.joined_at = now

    def answer(self, reply: bytes | None, deadline: float) -> None:
        """Take the flight's reply, or ask again when there is none or it had ended before this reader came."""
        if reply is not None and self.joined_at < deadline:
            self.fill(reply)
        else:
            assert self.client is not None
            self.client.ask(self._raw, self)


class PttlSlot(Slot):
    """The PTTL behind a flight's read: ends the flight."""

    __slots__ = ("_engine", "flight")

    def __init__(self, engine: Engine, flight: Flight) -> None:
        super().__init__(None)
        self._engine = engine
        self.flight = flight

    def fill(self, reply: bytes) -> None:
        """Publish if the lease stands, then answer those who joined."""
        flight = self.flight
        if reply[0] != 0x3A:  # a user who may GET but not PTTL: no deadline, no entry
            self._engine.flights.revoke(flight)
            pttl_ms = 0
        else:
            pttl_ms = int(reply[1:-2])
        deadline = self._engine.finish(flight, pttl_ms)
        if flight.joiners is not None:
            joiners, flight.joiners = flight.joiners, None
            for joiner in joiners:
                joiner.answer(flight.reply, deadline)

    def fail(self, failure: Failure) -> None:
        """Give the lease back; those who joined ask for themselves."""
        flight = self.flight
        self._engine.flights.revoke(flight)
        if flight.joiners is not None:
            joiners, flight.joiners = flight.joiners, None
            for joiner in joiners:
                joiner.answer(None, 0.0)


class MgetSlot(Slot):
    """An MGET of which some keys were in L1: the rest is fetched and joined in order."""

    __slots__ = ("_engine", "_flights", "_frames")

    def __init__(
        self, client: Client, engine: Engine, frames: list[bytes | None], flights: list[Flight | None]
    ) -> None:
        super().__init__(client)
        self._engine = engine
        self._frames = frames  # None where the key was fetched
        self._flights = flights  # one a fetched key; None where no lease was open to us

    def may_stream(self) -> bool:
        """Stream only what was fetched whole."""
        if any(frame is not None for frame in self._frames):
            return False
        self._revoke()
        return True

    def fill(self, reply: bytes) -> None:
        """Join what was fetched with what was here; an error is passed on as it is."""
        if self.size < 0 or reply[0] != 0x2A:
            self._revoke()
        else:
            fetched = elements(reply)
            for flight, frame in zip(self._flights, fetched, strict=True):
                if flight is not None:
                    flight.reply = frame
            if len(fetched) < len(self._frames):
                rest = iter(fetched)
                frames = [next(rest) if frame is None else frame for frame in self._frames]
                reply = b"*%d\r\n%b" % (len(frames), b"".join(frames))
        super().fill(reply)

    def fail(self, failure: Failure) -> None:
        """Give the leases back."""
        self._revoke()
        super().fail(failure)

    def _revoke(self) -> None:
        for flight in self._flights:
            if flight is not None:
                self._engine.flights.revoke(flight)


class CallSlot(Slot):
    """A reply for the proxy itself, or one it must read before the client does.

    `then` gets the whole raw frame and returns what the client is sent; its result is ignored when there is no client.
    """

    __slots__ = ("_failed", "_then")

    def __init__(
        self,
        client: Client | None,
        then: Callable[[bytes], bytes],
        failed: Callable[[], None] | None = None,
        *,
        is_write: bool = False,
    ) -> None:
        super().__init__(client, is_write=is_write)
        self._then = then
        self._failed = failed

    def may_stream(self) -> bool:
        """Never: it must be read first."""
        return False

    def land(self, raw: bytes) -> None:
        """Let `then` read the reply before the client gets it."""
        if self.parts is not None:
            self.parts.append(raw)
            raw = b"".join(self.parts)
            self.parts = None
        self.fill(self._then(raw))

    def fail(self, failure: Failure) -> None:
        """Tell whoever waits, then the client."""
        if self._failed is not None:
            self._failed()
        super().fail(failure)
