"""The lease rules: who may fill L1, when, and what takes it back.

Owns L1, the flights and the writes in flight. Every way a key can change ends in `begin_write`, `end_write`, `drop` or
`flush`; nothing is published but by `finish`. No sockets, no clock: `now` is set by the reactor once a wake-up.

    reader   open -> (read, PTTL on the client's link) -> finish -> L1
    writer   begin_write -> (the command on its link) -> end_write
    Redis    push -> drop / flush
    link     lost -> flush what it fed
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from proxy.cache.entry import Flight, Namespace
from proxy.cache.flights import Flights
from proxy.cache.l1 import L1
from proxy.core.stats import Stats

_NILS: Final = (b"$-1\r\n", b"_\r\n")
NO_EXPIRY: Final = -1  # PTTL's words
NO_KEY: Final = -2
LINGER_S: Final = 5.0


class Engine:
    """Decide about L1. One a worker, for all clients and links."""

    def __init__(self, l1: L1, stats: Stats, *, enabled: bool, max_age_s: float, max_value_bytes: int) -> None:
        self.l1 = l1
        self.stats = stats
        self.flights = Flights(l1.namespaces)
        self.enabled = enabled
        self.max_age_s = max_age_s
        self.max_value_bytes = max_value_bytes
        self.now = 0.0
        self.writing: dict[bytes, int] = {}  # keys with a write in flight -> how many
        self._lingering: deque[tuple[float, list[bytes]]] = deque()
        self.writing_all = 0  # writes in flight whose keys are unknown

    def can_lease(self, key: bytes) -> bool:
        """Return whether a read of the key may open or join a flight: not while a write of it is in flight."""
        return self.enabled and not self.writing_all and key not in self.writing

    def open(self, namespace: Namespace, key: bytes, link: object) -> Flight:
        """Open a lease for a miss."""
        return self.flights.open(namespace, key, link, self.now)

    def finish(self, flight: Flight, pttl_ms: int) -> float:
        """Land a flight whose read and PTTL are both in; publish if the lease still stands.

        Returns the deadline found for the key, counted from when the PTTL was sent: a reader who joined after it must
        ask again. 0.0 when value and PTTL contradict each other: every reader who joined must.
        """
        deadline = flight.sent_at + (pttl_ms / 1000 if pttl_ms >= 0 else self.max_age_s)
        reply = flight.reply
        if reply is None:
            is_fit = False
        elif reply[0] == 0x24 and reply[1] != 0x2D:
            # A value. PTTL knows no such key: it has expired between the two.
            is_fit = pttl_ms != NO_KEY and len(reply) <= self.max_value_bytes
            if pttl_ms == NO_KEY:
                deadline = 0.0
        elif reply in _NILS:
            # No value. PTTL knows the key: it has come between the two, or MGET's nil hides another type.
            is_fit = pttl_ms == NO_KEY
            if not is_fit:
                deadline = 0.0
        else:
            is_fit = False  # an error, or something that carries an attribute
        if self.flights.land(flight) and is_fit:
            until = min(deadline, flight.sent_at + self.max_age_s)
            if until > self.now:
                self.l1.put(flight.namespace, flight.key, reply, until, self.now)  # type: ignore[arg-type]
                self.stats.published += 1
                return deadline
        self.stats.refused += 1
        return deadline

    def begin_write(self, keys: Iterable[bytes]) -> None:
        """Mark keys (as bulk strings) as being written, when the command is submitted."""
        writing = self.writing
        for key in keys:
            writing[key] = writing.get(key, 0) + 1
            self.drop(key)

    def end_write(self, keys: Iterable[bytes]) -> None:
        """Unmark keys when the reply has come, or never will."""
        writing = self.writing
        for key in keys:
            left = writing[key] - 1
            if left:
                writing[key] = left
            else:
                del writing[key]
            self.drop(key)

    def linger(self, keys: list[bytes]) -> None:
        """Mark keys as being written for `LINGER_S`: a write whose reply will not be seen."""
        self.begin_write(keys)
        self._lingering.append((self.now + LINGER_S, keys))

    def end_lingering(self) -> None:
        """Unmark the keys whose time is over."""
        while self._lingering and self._lingering[0][0] <= self.now:
            self.end_write(self._lingering.popleft()[1])

    def begin_write_all(self) -> None:
        """Mark every key as being written."""
        self.writing_all += 1
        self.flush()

    def end_write_all(self) -> None:
        """Undo `begin_write_all`."""
        self.writing_all -= 1
        self.flush()

    def drop(self, key: bytes) -> None:
        """Drop a key (as a bulk string) everywhere and revoke its leases."""
        for namespace in self.l1.namespaces.values():
            if key in namespace.resident:
                self.stats.dropped += self.l1.drop(key)
            if key in namespace.flights:
                self.flights.revoke_key(key)

    def drop_pushed(self, keys: Sequence[bytes]) -> None:
        """Apply an invalidation push: plain keys."""
        self.stats.invalidations += len(keys)
        for key in keys:
            self.drop(b"$%d\r\n%b\r\n" % (len(key), key))

    def flush(self) -> None:
        """Drop everything and revoke every lease."""
        self.flights.revoke_all()
        if self.l1.clear():
            self.stats.flushes += 1

    def flush_namespace(self, namespace: Namespace) -> None:
        """Drop and revoke what one namespace holds: the link that fed it was lost, its pushes with it."""
        self.flights.revoke_namespace(namespace)
        if self.l1.clear_namespace(namespace):
            self.stats.flushes += 1

    def suspend(self) -> None:
        """Stop serving L1, keeping it: pushes may be late, none is lost yet."""
        if self.l1.serving:
            self.l1.suspend()
            self.stats.suspensions += 1

    def serve(self) -> None:
        """Serve L1 (again)."""
        if self.enabled and not self.l1.serving:
            self.l1.serve()
