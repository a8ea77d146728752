"""The lease rules: who may fill L1, when, and what takes it back.

Owns L1, the flights and the writes in flight. Every way a key can change ends in `begin_write`, `end_write`, `drop` or
`flush`; nothing is published but by `finish`. No sockets, no clock: `now` is set by the reactor once a wake-up.

    reader   open -> (read, PTTL on the client's link) -> finish -> L1
    writer   begin_write -> (the command on its link) -> end_write
    Redis    push -> drop / flush
    link     lost -> flush what it fed
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Entry, Flight, Namespace, ReplyEntry
from proxy.cache.flights import Flights
from proxy.cache.journal import EVERY_KEY, EXPIRED, FILL, FLUSH, LINK_LOST, PUSH, REFUSED, WRITE
from proxy.cache.l1 import L1
from proxy.core.fenced import FencedKeys
from proxy.core.figures.stats import Stats
from proxy.core.figures.tally import Tally
from proxy.core.outage.outage import Outage
from proxy.core.policy import Policy
from proxy.core.recompute import Recomputes
from proxy.core.verify import Verifier, is_resident
from proxy.wire.encode import unbulk
from proxy.wire.reads import GET_READ, CachedRead

if TYPE_CHECKING:
    from proxy.core.outage.fallbacks import Fallbacks

_UNFIT: Final = b"-!|"  # an error, or something that carries an attribute
NO_EXPIRY: Final = -1  # PTTL's words
NO_KEY: Final = -2
LINGER_S: Final = 5.0
REFRESHED_USES: Final = 4  # an entry used less often is left to end: to fetch it again may be for nobody
PUSHED_MAX: Final = 4096
FIELDS_S: Final = 10.0  # a command that lets a field expire may still be on its way for so long


class Engine:
    """Decide about L1. One a worker, for all clients and links."""

    def __init__(self, l1: L1, stats: Stats, *, enabled: bool, max_age_s: float, max_value_bytes: int) -> None:
        self.l1 = l1
        self.stats = stats
        self.flights = Flights(l1.namespaces)
        self.journal = l1.journal
        self.verifier = Verifier(self)
        self.recomputes = Recomputes(self)
        self.tally = Tally(self)
        self.outage = Outage(self)
        self._remaining = self.outage.remains.parts  # looked at for each key that is dropped
        self.guards: Fallbacks | None = None  # what commands of some classes get while Redis is away
        self.enabled = enabled
        self.max_age_s = max_age_s
        self.max_value_bytes = max_value_bytes
        self.early_refresh = 0.0  # share of max_age_s, before an entry's end, in which it is refreshed
        self.policy: Policy | None = None  # None: all keys alike
        self.judge: Callable[[bytes, bytes], bytes] | None = None  # (key, its value's frame) -> what is handed out
        self.is_fenced: Callable[[Entry], bool] = lambda _entry: False  # asked while L1 is hidden
        self.fenced: FencedKeys | None = None  # keys that writes of others may fence: each hit of theirs is looked at
        self.on_missing: Callable[[bytes], None] | None = None  # told of keys that were read and are not there
        self.selective: frozenset[bytes] = frozenset()  # users whose rights hang on which command names which keys
        self.proven_at = 0.0  # every push that Redis sent up to then has been applied
        self._random = random.Random().random
        self._pushed: dict[int, int] = {}  # hashes of keys that a push has dropped -> hash of the reply
        self.now = 0.0
        self.fields_expire = False
        self._fields_until = 0.0
        self.writing: dict[bytes, int] = {}  # keys with a write in flight -> how many
        self._lingering: deque[tuple[float, list[bytes]]] = deque()
        self.writing_all = 0  # writes in flight whose keys are unknown

    def can_lease(self, key: bytes, read: CachedRead = GET_READ) -> bool:
        """Return whether a read of the key may open or join a flight.

        Not while a write of it is in flight, L1 is not served, or a field of a hash may end sooner than its key.
        """
        return (
            self.l1.serving
            and not self.writing_all
            and key not in self.writing
            and not (read.fields and self.fields_expire)
            and (self.policy is None or self.policy.may_keep(key))
        )

    def count_misses(self, keys: Sequence[bytes], command: str) -> None:
        """Count reads of keys (as bulk strings) that L1 did not answer; those that it may never hold are none."""
        if self.policy is not None:
            keys = [key for key in keys if self.policy.may_keep(key)]
        stats = self.stats
        stats.misses += len(keys)
        if keys and stats.misses >= self.tally.missed_at:
            self.tally.miss(unbulk(keys[-1]), command)

    def held(self, namespace: Namespace, key: bytes, request: bytes | None = None) -> Entry | None:
        """Return what L1 holds of a key (as a bulk string), or of the read of a raw request.

        Also while it is hidden from hits because of a fence: then what the fence covers is dropped, and the rest found.
        """
        if not self.l1.hidden:
            return namespace.entries.get(key) if request is None else namespace.answers.get(request)
        if not self.l1.serving:
            return None
        entry: Entry | None = namespace.resident.get(key) if request is None else namespace.replies.get(request)
        if entry is not None and self.is_fenced(entry):
            self.drop(entry.key)
            return None
        return entry

    def revive(self, entry: Entry) -> bool:
        """Return whether an entry whose deadline has passed is served all the same, and until when from now on.

        Not when it has ended; not when its class bounds staleness tighter than pushes are proven to have come; not for
        the one reader that is to refresh it early.
        """
        now = self.now
        if entry.ends_at <= now:
            self.journal.note((now, EXPIRED, entry.key))
            if self.policy is not None and self._keeps_last(entry.key):
                self.recomputes.remember(entry)
            return False
        is_watched = entry.deadline < 0
        if is_watched and (self.fenced is None or self.fenced.has_gone(entry)):
            self.drop(entry.key)
            return False
        until = entry.ends_at
        if self.policy is not None:
            bound_s = self.policy.max_staleness_s(entry.key)
            if bound_s is not None:
                until = min(until, self.proven_at + bound_s)
                if until <= now:
                    return False
        if not is_watched:
            entry.deadline = until
        # The others are served meanwhile: the deadline has been moved for them.
        if now < entry.ends_at - self.early_refresh * self.max_age_s or entry.uses < REFRESHED_USES:
            return True
        request = entry.request if isinstance(entry, ReplyEntry) else entry.key
        if request in entry.namespace.flights:
            return True
        self.stats.refreshed += 1
        return False

    def let_fields_expire(self, at_least_s: float = FIELDS_S) -> None:
        """Keep no reply about a hash: a field may have an end of its own from now on, and PTTL does not tell it.

        `at_least_s`: how long `keep_fields` has no effect.
        """
        self._fields_until = max(self._fields_until, self.now + at_least_s)
        if not self.fields_expire:
            self.fields_expire = True
            self._flush()  # what remains for an outage was true, and may be older than that

    def keep_fields(self) -> None:
        """Keep replies about hashes again: Redis says that no field has an end, and nobody is about to give one."""
        if self.now >= self._fields_until:
            self.fields_expire = False

    def open(
        self,
        namespace: Namespace,
        key: bytes,
        link: object,
        request: bytes | None = None,
        read: CachedRead = GET_READ,
    ) -> Flight:
        """Open a lease for a miss: of a GET, or of the read of a raw request."""
        return self.flights.open(namespace, key, link, self.now, request=request, read=read)

    def finish(self, flight: Flight, pttl_ms: int) -> float:
        """Land a flight whose read and PTTL are both in; publish if the lease still stands.

        Returns the deadline found for the key, counted from when the PTTL was sent: a reader who joined after it must
        ask again. 0.0 when value and PTTL contradict each other: every reader who joined must.
        """
        if pttl_ms == NO_KEY and self.on_missing is not None:
            self.on_missing(flight.key)
        deadline = flight.sent_at + (pttl_ms / 1000 if pttl_ms >= 0 else self.max_age_s)
        reply = flight.reply
        is_fit = False
        if reply is not None and reply[0] not in _UNFIT:
            read = flight.read
            # PTTL knows no such key: what was read of one has expired between the two. It knows the key, and none was
            # read: it has come between the two, or MGET's nil hides another type.
            is_fit = read.may_be_missing(reply) if pttl_ms == NO_KEY else not (read.sole and read.may_be_missing(reply))
            if not is_fit:
                deadline = 0.0
        if self.flights.land(flight) and is_fit and len(reply) <= self.max_value_bytes:  # type: ignore[arg-type]
            until = min(deadline, flight.sent_at + self.max_age_s)
            if until > self.now:
                self._publish(flight, reply, until)  # type: ignore[arg-type]
                return deadline
        self.stats.refused += 1
        self.journal.note((self.now, REFUSED, flight.key))
        if reply is not None and reply[0] == 0x2D:
            self.outage.refused(reply)
        return deadline

    def recomputed(self, flight: Flight) -> bool:
        """Return whether a flight that found no key is handed to those who make its value anew.

        So is one that nobody joined, of an MGET: held in L1, its nil would send every later reader to make the value.
        """
        rules = self.policy.recompute(flight.key) if self.policy is not None else None
        if rules is None or flight.reply is None or not flight.read.may_be_missing(flight.reply):
            return False
        has_stood = self.flights.land(flight)
        joiners, flight.joiners = flight.joiners, None
        if joiners and has_stood:
            self.recomputes.begin(flight, flight.reply, rules, joiners)
        elif joiners:
            # Revoked by the push of the key's own expiry, which this read has caused, or by a write that this read
            # came before: who reads after that write must not wait for what was missing before it.
            self.recomputes.refetch(flight, joiners)
        return True

    def _publish(self, flight: Flight, reply: bytes, until: float) -> None:
        key, request = flight.key, flight.request
        if request is key:
            entry = self.l1.put(flight.namespace, key, reply, until, self.now)
        else:
            entry = self.l1.put_reply(flight.namespace, key, reply, until, self.now, request=request)
        if self.early_refresh and until == flight.sent_at + self.max_age_s:
            # It ends by max_age alone, so Redis may well have the same value for longer. Each entry at a place of its
            # own in the last part of its life, that not all are refreshed at once.
            entry.deadline = until - self._random() * self.early_refresh * self.max_age_s
        if self.policy is not None:
            self.recomputes.forget(key)
            bound_s = self.policy.max_staleness_s(key)
            if bound_s is not None:
                entry.deadline = min(entry.deadline, self.proven_at + bound_s)
        if self.fenced is not None:
            self.fenced.mark(entry)
        if self._pushed:
            self._tell_needless(entry)
        if not is_resident(entry):  # too large for the bound, or one of too many of its key
            self.stats.refused += 1
            self.journal.note((self.now, REFUSED, key))
            return
        self.stats.published += 1
        self.journal.note((self.now, FILL, key))

    def begin_write(self, keys: Iterable[bytes]) -> None:
        """Mark keys (as bulk strings) as being written, when the command is submitted."""
        writing = self.writing
        note = self.journal.note
        now = self.now
        forgets = self.recomputes.has_last  # asked once: most writes have nothing there
        for key in keys:
            writing[key] = writing.get(key, 0) + 1
            note((now, WRITE, key))
            if forgets:
                self.recomputes.forget(key)
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
            if self.policy is not None and self.recomputes:
                self.recomputes.written(key)

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
        if self._remaining:
            self.outage.remains.drop(key)
        if self.l1.ghosts is not None:
            self.l1.ghosts.changed(key, self.now)
        for namespace in self.l1.namespaces.values():
            if key in namespace.resident or (namespace.heads and key in namespace.heads):
                self.stats.dropped += self.l1.drop(key)
            if namespace.flights and (key in namespace.flights or key in namespace.pending):
                self.flights.revoke_key(key)

    def drop_pushed(self, keys: Sequence[bytes]) -> None:
        """Apply an invalidation push: plain keys."""
        self.stats.invalidations += len(keys)
        note = self.journal.note
        for key in keys:
            raw = b"$%d\r\n%b\r\n" % (len(key), key)
            note((self.now, PUSH, raw))
            self._remember_pushed(raw)
            self.drop(raw)
            if self.policy is not None and self.recomputes and not self._ends_soon(raw):
                self.recomputes.pushed(raw)

    def _ends_soon(self, key: bytes) -> bool:
        """Return whether a write is in flight whose end will tell, when a read may be leased again."""
        return key in self.writing and not any(key in keys for _, keys in self._lingering)

    def _remember_pushed(self, key: bytes) -> None:
        """Keep a digest of what a push drops: when Redis gives the same again, the push told of no change."""
        for namespace in self.l1.namespaces.values():
            entry = namespace.resident.get(key)
            if entry is not None:
                if len(self._pushed) >= PUSHED_MAX:
                    self._pushed.clear()
                self._pushed[hash(key)] = hash(entry.reply)
            if self.policy is not None and self._keeps_last(key):
                for last in (entry, *namespace.replies_of(key)):
                    if last is not None:
                        self.recomputes.remember(last)

    def _keeps_last(self, key: bytes) -> bool:
        rules = self.policy.recompute(key) if self.policy is not None else None
        return rules is not None and rules.while_recomputed == "stale"

    def _tell_needless(self, entry: Entry) -> None:
        pushed = None if isinstance(entry, ReplyEntry) else self._pushed.pop(hash(entry.key), None)
        if pushed is not None and pushed == hash(entry.reply):  # else the reply, which may be large, is not hashed
            self.stats.needless_pushes += 1

    def lose(self) -> None:
        """Drop everything: the link whose pushes kept it true is gone. For an outage some of it is kept aside."""
        if self.guards is not None:
            for namespace in self.l1.namespaces.values():
                self.outage.keep(namespace)
        self._flush()

    def flush(self) -> None:
        """Drop everything and revoke every lease."""
        self.outage.remains.clear()
        self._flush()

    def _flush(self) -> None:
        self.flights.revoke_all()
        self.recomputes.forget_all()
        if self.recomputes:
            self.recomputes.lost()
        if self.l1.clear():
            self.stats.flushes += 1
            self.journal.note((self.now, FLUSH, EVERY_KEY))

    def forget_users(self, but: bytes | None) -> None:
        """Drop and revoke what all users have read, but for one: what they may read now is not known."""
        self.outage.remains.clear()
        for scope, namespace in self.l1.namespaces.items():
            if scope.user != but:
                self.flights.revoke_namespace(namespace)
                self.recomputes.lost(namespace)
                self.l1.clear_namespace(namespace)

    def flush_namespace(self, namespace: Namespace) -> None:
        """Drop and revoke what one namespace holds: the link that fed it was lost, its pushes with it."""
        if self.guards is not None:
            self.outage.keep(namespace)
        self.flights.revoke_namespace(namespace)
        self.recomputes.lost(namespace)
        if self.l1.clear_namespace(namespace):
            self.stats.flushes += 1
            self.journal.note((self.now, LINK_LOST, EVERY_KEY))

    def suspend(self) -> None:
        """Stop serving L1, keeping it: pushes may be late, none is lost yet."""
        if self.l1.serving:
            self.l1.suspend()
            self.stats.suspensions += 1

    def serve(self) -> None:
        """Serve L1 (again)."""
        if self.enabled and not self.l1.serving:
            self.l1.serve()
