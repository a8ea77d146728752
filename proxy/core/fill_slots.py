"""Slots that fill L1: reads under a lease, those who joined them, and what ends a flight.

opener   FillSlot   the value and the PTTL, two replies in one slot
later    JoinSlot   answered when the flight ends, or asks again
MGET     MgetSlot   the value of each key; a PttlSlot behind it for each lease
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Flight, Namespace
from proxy.core.slots import WHOLE, Client, Failure, Link, Slot, retry
from proxy.wire.encode import OK, array, command
from proxy.wire.reply import elements

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.wire.request import Raw

KEY_IS_MISSING: Final = b":-2\r\n"
GET: Final = b"*2\r\n$3\r\nGET\r\n"  # and the key as a bulk string, as behind PTTL
PTTL: Final = b"*2\r\n$4\r\nPTTL\r\n"
CACHING_YES: Final = command("CLIENT", "CACHING", "YES")


class JoinSlot(Slot):
    """A later reader of a flight's key."""

    __slots__ = ("_engine", "_raw", "joined_at")

    def __init__(self, client: Client, raw: bytes, engine: Engine) -> None:
        super().__init__(client)
        client.joins += 1
        self._raw = raw  # the read, for asking oneself
        self._engine = engine
        self.joined_at = engine.now

    def fill(self, reply: bytes) -> None:
        """Answer; what the client holds back until then may go on."""
        if self._engine.judge is not None and self._raw.startswith(GET):
            reply = self._engine.judge(self._raw[len(GET) :], reply)
        if self.client is not None:
            self.client.joins -= 1
        super().fill(reply)

    def answer(self, reply: bytes | None, deadline: float) -> None:
        """Take the flight's reply, or ask again when there is none or it had ended before this reader came."""
        if reply is not None and self.joined_at < deadline:
            self.fill(reply)
        else:
            assert self.client is not None
            self.client.ask(self._raw, self)

    def fail(self, failure: Failure) -> None:
        """Ask again, or answer with an error."""
        self.submitted_at = self.joined_at  # it may not have been asked for by itself yet
        if not retry(self, self._raw):
            super().fail(failure)


class CachingSlot(Slot):
    """The reply of CLIENT CACHING YES: when it is refused, the read behind it is not tracked."""

    __slots__ = ("_engine", "_link", "_namespace")

    def __init__(self, engine: Engine, link: Link, namespace: Namespace) -> None:
        super().__init__(None)
        self._engine = engine
        self._link = link
        self._namespace = namespace

    def fill(self, reply: bytes) -> None:
        """Hold nothing that was read on a link whose user may not ask for tracking."""
        if reply != OK:
            self._link.tracked = False
            self._engine.flush_namespace(self._namespace)
        super().fill(reply)


def with_pttl(raw: Raw, key: bytes) -> bytes:
    """Return a read, and behind it the PTTL of its key: what a FillSlot takes the replies of."""
    return b"".join((raw, PTTL, key))


def submit_leased(engine: Engine, link: Link, namespace: Namespace, raw: Raw, slot: Slot) -> None:
    """Send a read under a lease, in such a way that Redis tracks it."""
    if link.optin:
        link.submit(CACHING_YES, CachingSlot(engine, link, namespace))
    link.submit(raw, slot)


def end_flight(engine: Engine, flight: Flight, pttl: bytes) -> None:
    """Publish what a flight fetched if its lease stands, then answer those who joined. `pttl` is PTTL's raw reply."""
    if pttl[:1] != b":":  # a user who may GET but not PTTL: no deadline, no entry
        engine.flights.revoke(flight)
        deadline = engine.finish(flight, 0)
    elif engine.policy is not None and pttl == KEY_IS_MISSING and engine.recomputed(flight):
        return
    else:
        deadline = engine.finish(flight, int(pttl[1:]))
        if engine.policy is not None and engine.recomputes:
            engine.recomputes.found(flight)
    if flight.joiners is not None:
        joiners, flight.joiners = flight.joiners, None
        for joiner in joiners:
            joiner.answer(flight.reply, deadline)


def abandon_flight(engine: Engine, flight: Flight, failure: Failure) -> None:
    """Give a lease back; those who joined ask for themselves, unless it took too long already."""
    engine.flights.revoke(flight)
    if flight.joiners is not None:
        joiners, flight.joiners = flight.joiners, None
        engine.stats.failed += len(joiners)
        for joiner in joiners:
            joiner.fail(failure)


class FillSlot(Slot):
    """The read of a flight and the PTTL behind it: two replies, of which the client is owed the first."""

    __slots__ = ("_engine", "flight")
    needs_whole = True

    def __init__(self, client: Client | None, engine: Engine, flight: Flight) -> None:
        super().__init__(client)
        self.left = 2
        self._engine = engine
        self.flight = flight

    def may_stream(self, size: int) -> bool:
        """Stream what is too large for L1, and give its lease back."""
        if self.left == 1 or (self.flight.standing and size <= self._engine.max_value_bytes):
            return False
        self._engine.flights.revoke(self.flight)
        return True

    def keep(self, raw: bytes, count: int) -> None:
        """Take the end of the value; the PTTL comes later."""
        super().keep(raw, count)
        if self.streams:
            self.mode = WHOLE  # what comes now is ours
            self.fill(b"")

    def land(self, raw: bytes) -> None:
        """Take the PTTL, or both at once: publish if the lease stands, then answer."""
        parts = self.parts
        if parts is not None:
            parts.chunks.append(raw)
            raw = b"".join(parts.chunks)
            self.parts = None
        at = raw.rfind(b"\n", 0, len(raw) - 1) + 1  # PTTL's reply is one line, whatever it says
        value = b""
        if self.streams:  # what has gone to the opener is not here any more, whether he is or not
            if self.client is not None:
                self.client.stream(raw[:at])
        elif self.reply is None:
            value = raw[:at]
            if self._engine.judge is not None and self.flight.request is self.flight.key:  # else no GET: no value
                value = self._engine.judge(self.flight.key, value)
            self.flight.reply = value
        end_flight(self._engine, self.flight, raw[at:])
        if self.reply is None:
            self.fill(value)

    def fail(self, failure: Failure) -> None:
        """Give the lease back; answer the opener with the value if that came, else ask again, or with the error."""
        abandon_flight(self._engine, self.flight, failure)
        if self.reply is None and self.left == 1 and self.parts is not None:
            self.fill(b"".join(self.parts.chunks[: self.parts.whole]))
        elif self.reply is None:
            self.left = 1
            flight = self.flight
            raw = flight.request if flight.request is not flight.key else GET + flight.key
            if not self.ask_again(raw, failure):
                super().fail(failure)

    def ask_again(self, raw: bytes, failure: Failure) -> bool:
        """Ask once more, without a lease; False if that cannot be."""
        return retry(self, raw)

    def again(self, reply: bytes) -> None:
        """Answer with what was read without a lease."""
        if self._engine.judge is not None and self.flight.request is self.flight.key:
            reply = self._engine.judge(self.flight.key, reply)
        self.fill(reply)

    def refuse(self, error: bytes) -> None:
        """Give the lease back and answer, also those who joined."""
        joiners, self.flight.joiners = self.flight.joiners, None
        self._engine.flights.revoke(self.flight)
        self.fill(error)
        for joiner in joiners or ():
            joiner.refuse(error)


class PttlSlot(Slot):
    """The PTTL of a key that an MGET fetched: ends its flight."""

    __slots__ = ("_engine", "flight")

    def __init__(self, engine: Engine, flight: Flight) -> None:
        super().__init__(None)
        self._engine = engine
        self.flight = flight

    def fill(self, reply: bytes) -> None:
        """Publish if the lease stands, then answer those who joined."""
        end_flight(self._engine, self.flight, reply)

    def fail(self, failure: Failure) -> None:
        """Give the lease back."""
        abandon_flight(self._engine, self.flight, failure)


class MgetSlot(Slot):
    """An MGET of which some keys were in L1: the rest is fetched and joined in order."""

    __slots__ = ("_engine", "_flights", "_frames", "keys", "raw")
    needs_whole = True

    def __init__(
        self, client: Client, engine: Engine, frames: list[bytes | None], flights: list[Flight | None]
    ) -> None:
        super().__init__(client)
        self._engine = engine
        self._frames = frames  # None where the key was fetched
        self._flights = flights  # one a fetched key; None where no lease was open to us
        self.keys: list[bytes] = []  # what was fetched, as bulk strings; () where nobody judges it
        self.raw = b""  # what was asked, where it may be asked again

    def may_stream(self, size: int) -> bool:
        """Stream only what was fetched whole, and is too large for L1 anyway."""
        if size <= self._engine.max_value_bytes or any(frame is not None for frame in self._frames):
            return False
        if self.keys:  # any of the values to come may be a damaged one
            return False
        self._revoke()
        return True

    def fill(self, reply: bytes) -> None:
        """Join what was fetched with what was here; an error is passed on as it is."""
        if self.streams or reply[:1] != b"*":
            self._revoke()
        else:
            fetched = elements(reply)
            if self._engine.judge is not None and self.keys:
                judged = list(map(self._engine.judge, self.keys, fetched))
                if judged != fetched:
                    fetched = judged
                    reply = array(fetched)
            for flight, frame in zip(self._flights, fetched, strict=True):
                if flight is not None:
                    flight.reply = frame
            if len(fetched) < len(self._frames):
                rest = iter(fetched)
                frames = [next(rest) if frame is None else frame for frame in self._frames]
                reply = b"*%d\r\n%b" % (len(frames), b"".join(frames))
        super().fill(reply)

    def fail(self, failure: Failure) -> None:
        """Give the leases back; ask again, or answer with an error."""
        self._revoke()
        if not (self.raw and retry(self, self.raw)):
            super().fail(failure)

    def _revoke(self) -> None:
        for flight in self._flights:
            if flight is not None:
                self._engine.flights.revoke(flight)
