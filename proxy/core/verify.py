"""Is what L1 serves what Redis holds? A share of the hits is looked up again, and what differs is followed to its end.

    a hit (or, in shadow mode, what would have been one) --> the same read, to Redis
        equal                        verified
        differs, entry gone by now   overtaken: a change was pushed in between, nothing was stale
        differs, entry still there   stale; a fence tells when its push came, or that none will: then it is dropped

Owns when a hit is due, and what a comparison means.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Entry, Namespace, ReplyEntry
from proxy.cache.journal import HEALED
from proxy.core.slots import Client, Slot
from proxy.log import get_logger, short
from proxy.wire.encode import unbulk
from proxy.wire.reads import READS
from proxy.wire.reply import elements

if TYPE_CHECKING:
    from proxy.core.engine import Engine

GET: Final = b"*2\r\n$3\r\nGET\r\n"
NEVER: Final = 1 << 62
log = get_logger("verify")


class Verifier:
    """Choose hits and judge what Redis says of them.

    `probe` sends a raw read on a link of a namespace and gives its reply to a slot; `fence` calls when the pushes sent
    by now have been applied.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._every = 0.0
        self._random = random.Random()
        self.looks_at_all = False  # every hit is compared: the fast paths that look at some are not taken
        self.next_at = NEVER  # the number of hits at which one is due; the hot path compares it
        self.probe: Callable[[Namespace, bytes, Slot], None] = lambda namespace, raw, slot: None
        self.fence: Callable[[Callable[[], None]], None] = lambda then: then()

    def sample(self, share: float) -> None:
        """Compare this share of the hits from now on, 0 to 1."""
        self._every = 1 / share if share > 0 else 0.0
        self.looks_at_all = share >= 1
        self._schedule()

    def _schedule(self) -> None:
        hits = self._engine.stats.hits
        # Between half and three halves of the interval: a pattern in the traffic must not always hide the same hits.
        wait = 1 if self.looks_at_all else max(1, round(self._every * (0.5 + self._random.random())))
        self.next_at = hits + wait if self._every else NEVER
        self._engine.stats.look_at = 0  # what the fast path compares is found again at the next hit

    def count_hits(self, entries: Sequence[Entry], command: str = "") -> None:
        """Count hits off the fast path, and look at those that are due. `command`: that of all, if it is not theirs."""
        stats = self._engine.stats
        tally = self._engine.tally
        tally.slow_hits += len(entries)
        if entries and tally.slow_hits >= tally.slow_at:
            tally.hit(entries, command)
        for entry in entries:
            stats.hits += 1
            if stats.hits >= self.next_at:
                self.look(entry)

    def look(self, entry: Entry) -> None:
        """Ask Redis about the entry that has just been served."""
        self._schedule()
        request = entry.request if isinstance(entry, ReplyEntry) else GET + entry.key
        self.probe(entry.namespace, request, VerifySlot(None, self, entry))

    def judge(self, entry: Entry, reply: bytes) -> None:
        """Compare what was (or would have been) served with what Redis says now."""
        engine = self._engine
        if not is_resident(entry) or entry.ends_at <= engine.now or reply[:1] in (b"", b"-", b"!"):
            return
        if reply == entry.reply or is_reordered(entry, reply):
            engine.stats.verified += 1
        else:
            self.differs(entry)

    def differs(self, entry: Entry) -> None:
        """Follow a hit for which Redis has given something else."""
        engine = self._engine
        if is_resident(entry) and entry.ends_at > engine.now:
            engine.stats.verified += 1
            engine.stats.stale += 1
            seen_at = engine.now
            self.fence(lambda: self._settle(entry, seen_at))

    def _settle(self, entry: Entry, seen_at: float) -> None:
        """Note how long the difference lasted; every push that was on its way has been applied."""
        engine = self._engine
        if is_resident(entry):
            engine.stats.healed += 1
            engine.drop(entry.key)
            engine.journal.note((engine.now, HEALED, entry.key))
            log.warning("L1 held what Redis does not, and no push came", key=short(unbulk(entry.key)))
        engine.stats.staleness.add(engine.now - seen_at)


class VerifySlot(Slot):
    """The reply of Redis to what L1 has answered, or (with a client) would have answered."""

    __slots__ = ("_entry", "_verifier")
    needs_whole = True

    def __init__(self, client: Client | None, verifier: Verifier, entry: Entry) -> None:
        super().__init__(client)
        self._verifier = verifier
        self._entry = entry

    def may_stream(self, size: int) -> bool:
        """Stream what is so much larger than what L1 holds that it need not be compared."""
        if size <= len(self._entry.reply):
            return False
        self._verifier.differs(self._entry)
        return True

    def fill(self, reply: bytes) -> None:
        """Compare, then answer."""
        if not self.streams:
            self._verifier.judge(self._entry, reply)
        super().fill(reply)


def is_reordered(entry: Entry, reply: bytes) -> bool:
    """Return whether Redis says the same in another order, where that means nothing."""
    if not isinstance(entry, ReplyEntry) or len(reply) != len(entry.reply):
        return False
    read = READS.get(entry.request.split(b"\r\n", 3)[2].upper())
    if read is None or not read.unordered or reply[:1] not in (b"*", b"~", b"%"):
        return False
    return _sorted(entry.reply, read.unordered) == _sorted(reply, read.unordered)


def _sorted(reply: bytes, together: int) -> list[tuple[bytes, ...]]:
    """Return the elements of a reply, so many together, in an order of our own."""
    return sorted(zip(*[iter(elements(reply))] * together, strict=True))


def is_resident(entry: Entry) -> bool:
    """Return whether L1 still holds an entry."""
    if isinstance(entry, ReplyEntry):
        return entry.namespace.replies.get(entry.request) is entry
    return entry.namespace.resident.get(entry.key) is entry
