"""Redis is back: it is told of every key that is held, and then nothing is held any more.

    a link stands --> batch of keys --one send--> Redis --> written, older, deleted: held no more    --> next batch
                                                        --> refused: later, then by deletion alone, then given up
                                                        --> the link dies: all of it again, on the next link

Owns what Redis is told of a key, and the order and bounds of the telling. A value with a version replaces only what is
older; one without, or one that may lack what Redis knew, is not written: its key is deleted there, so that nobody reads
a mix. While a batch is under way its keys are read here and not changed, so each key is told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Final

from proxy.core.outage.offline.knowledge import Where
from proxy.core.outage.offline.memory import Memory, Place
from proxy.core.outage.offline.store import Item, Standing
from proxy.core.plain import StepSlot
from proxy.core.slots import Slot
from proxy.log import get_logger, short
from proxy.values.envelope import MAGIC, mark_of
from proxy.values.scripts import Settlement, settle
from proxy.values.sealing import is_number_like
from proxy.wire.encode import command
from proxy.wire.reply import text

if TYPE_CHECKING:
    from proxy.cache.entry import Scope
    from proxy.core.values import Values
    from proxy.values.rules import ClassRules

BATCH_KEYS: Final = 100
BATCH_BYTES: Final = 256 * 1024
"""What is told at once: so much waits in front of the clients' own commands at most."""
REFUSALS_MAX: Final = 5
"""So often a key is refused before only its deletion is asked for; so often again before it is given up."""
FIRST_RETRY_S: Final = 0.1
RETRY_MAX_S: Final = 1.0
PATIENCE_S: Final = 30.0
"""How long Redis may say that it cannot now (it is loading, a replica, ..), or not let the user in."""
INFORMED_S: Final = 1.0
"""How long it is waited for that Redis says which fences are in force: on another link than that of the keys."""
HALF_S: Final = 3.0
"""How long is waited for the links of all protocols: whose own is not there yet would find what Redis has been told
neither here nor there."""
NO_MARK: Final = b"none"
"""No value has it: what is there came to be while ours was made from none, or from a hash."""
_NOT_NOW: Final = (
    b"-LOADING",
    b"-READONLY",
    b"-MASTERDOWN",
    b"-BUSY",
    b"-TRYAGAIN",
    b"-CLUSTERDOWN",
    b"-MISCONF",
    b"-NOREPLICAS",
)
log = get_logger("offline")


class Settling:
    """Tell Redis. One a worker."""

    def __init__(self, memory: Memory, values: Values) -> None:
        self._memory = memory
        self._values = values
        self._engine = memory.engine
        memory.on_written = self._drop_dependents

    def linked(self, scope: Scope) -> None:
        """Begin with what is held for a user and database that has a link (again)."""
        place = self._memory.places.get(Where(scope.user, scope.db))
        if place is not None:
            place.linked_at = self._engine.now
            self._next(place)

    def tick(self, now: float) -> None:
        """Go on where nothing is under way; give up what Redis has not wanted for too long."""
        memory = self._memory
        for place in list(memory.places.values()):
            refusal = memory.ways.refusal(place.where)
            if refusal:
                place.refused_since = place.refused_since or now
                if now - place.refused_since > PATIENCE_S:
                    self._give_up(place, list(place.store.items), f"the user is not let in: {_shown(refusal)}")
                    self._end_if_empty(place)
                    continue
            else:
                place.refused_since = 0.0
            if not place.sending and now >= place.retry_at:
                self._next(place)
            if not place.sending:
                self._resume(place)  # they find that there is no link, or wait on

    def end(self) -> None:
        """Say what is lost: the worker ends while Redis is away."""
        for place in list(self._memory.places.values()):
            self._give_up(place, list(place.store.items), "the proxy ends")
            self._end_if_empty(place)

    # -- a batch ------------------------------------------------------------------------------------------------------

    def _next(self, place: Place) -> None:
        """Tell Redis of some keys, if there is a link to do it on and it is not being told already."""
        link = self._memory.ways.link(place.where)
        if link is None or place.sending or self._engine.now < place.retry_at:
            return
        place.linked_at = place.linked_at or self._engine.now
        if not self._memory.ways.is_informed() and self._engine.now - place.linked_at < INFORMED_S:
            return  # what was fenced meanwhile must not come back
        if self._is_half_back(place):
            return
        place.store.now_ms = self._memory.now_ms()
        raws: list[bytes] = []
        told: list[tuple[bytes, int]] = []
        size = 0
        for key, item in place.store.items.items():
            if len(raws) >= BATCH_KEYS or size >= BATCH_BYTES:
                break
            place.store.find(key)  # what has ended says so
            raw = self._raw(place, key, item)
            size += len(raw)
            raws.append(raw)
            told.append((key, item.changes))
        if not told:
            return
        place.sending = frozenset(key for key, _ in told)
        if place.told_on is not link:
            place.told_on = link
            for kill in self._memory.ways.kills(place.where):
                link.submit(kill, Slot(None))
        slot = StepSlot(
            len(told),
            lambda replies: self._told(place, told, replies),
            lambda _error: self._unheard(place),
            lambda _failure: self._unheard(place),
        )
        link.submit(b"".join(raws), slot)

    def _is_half_back(self, place: Place) -> bool:
        """Return whether to wait for the rest of the links."""
        if not self._memory.ways.is_half_back(place.where):
            place.half_since = 0.0
            return False
        place.half_since = place.half_since or self._engine.now
        return self._engine.now - place.half_since < HALF_S

    def _raw(self, place: Place, key: bytes, item: Item) -> bytes:
        """Return what Redis is told of a key."""
        if not item.version or item.refusals >= REFUSALS_MAX:
            return command("UNLINK", key)
        value = item.value if isinstance(item.value, bytes) and item.standing is not Standing.GUESSED else None
        values = self._values
        if values.fences.version_over(place.where.db, key, values.rules.find(key)) >= item.version:
            value = None  # everything that a fence covers is gone, and so is this
        since, sure, mark = item.since, item.sure, b""
        if item.standing is Standing.DERIVED:
            mark = mark_of(item.base) if isinstance(item.base, bytes) else NO_MARK
        if value is None:
            return settle(Settlement(key, None, since, told=item.told_version, sure=sure, mark=mark))
        base = told_digest = ""
        if item.standing is Standing.DERIVED:
            base = "none" if item.base is None else _digest(item.base)
            told_digest = "" if item.told is None else _digest(item.told)
        told_version, item.told_version, item.told = item.told_version, item.version, value
        life = self._life(place, key, item)
        if life == 0:
            value = None
        stored = None if value is None else self._stored(key, value, item.version)
        told = told_version or item.version
        return settle(Settlement(key, stored, since, told, life, base, told_digest, sure, mark))

    def _life(self, place: Place, key: bytes, item: Item) -> int | str:
        """Return how long a value is to live in Redis: in ms, 0 for not at all, "keep", or "" for ever."""
        if item.keeps_life:
            return "keep"
        left_ms = None if item.ends_ms is None else max(item.ends_ms - place.store.now_ms, 0)
        rules = self._values.rules.find(key)
        if rules is not None and rules.has_ttl and left_ms != 0:
            ttl_ms = self._values.lifetimes.decide_for(rules, key, left_ms, self._engine.now).ttl_ms
            left_ms = left_ms if ttl_ms is None else ttl_ms
        return "" if left_ms is None else left_ms

    def _stored(self, key: bytes, value: bytes, version: int) -> bytes:
        """Return what is stored for a value: numbers stay what INCR takes, all else is sealed where its class asks."""
        rules = self._values.rules.find(key)
        is_sealed = rules is not None and rules.has_envelope and self._values.writes_envelopes
        if value[:4] != MAGIC and (not is_sealed or is_number_like(value)):
            return value
        return self._sealed(rules, value, version)

    def _sealed(self, rules: ClassRules | None, value: bytes, version: int) -> bytes:
        sealer = self._values.sealer
        if rules is None:
            return sealer.seal(None, value, self._engine.now, envelopes=False)
        return sealer.seal_as(rules, value, version, self._engine.now)

    def _told(self, place: Place, told: Sequence[tuple[bytes, int]], replies: Sequence[bytes]) -> None:
        """Take what Redis answered."""
        place.sending = frozenset()
        items = place.store.items
        refused = False
        settled: list[bytes] = []
        for (key, changes), reply in zip(told, replies, strict=True):
            item = items.get(key)
            if item is None:
                continue
            if reply[:1] in (b"-", b"!"):
                refused = True
                self._refused(place, key, item, reply)
            elif item.changes == changes:
                # What Redis holds now is the last word; else it is told again.
                settled.append(key)
                self._count(place, "deleted" if reply[:1] == b":" else text(reply).decode())
                self._memory.release(place, key)
        if refused:
            place.refused_rounds += 1
            pause_s = min(FIRST_RETRY_S * 2.0 ** min(place.refused_rounds - 1, 8), RETRY_MAX_S)
            place.retry_at = self._engine.now + pause_s
        else:
            place.refused_rounds = 0
        self._announce(place, settled)
        self._end_if_empty(place)
        if place.store.items and not refused:
            self._next(place)
        self._resume(place)

    def _unheard(self, place: Place) -> None:
        """Take note that the link died: what Redis has heard is not known, and it is told again on the next."""
        place.sending = frozenset()
        self._resume(place)

    def _refused(self, place: Place, key: bytes, item: Item, reply: bytes) -> None:
        """Try again, try to delete it at least, or give it up."""
        now = self._engine.now
        if reply.startswith(_NOT_NOW) and now - place.linked_at < PATIENCE_S:
            return
        item.refusals = max(item.refusals + 1, REFUSALS_MAX if reply.startswith(b"-NOPERM") else 0)
        if item.refusals in (1, REFUSALS_MAX):
            log.warning("Redis refuses what was taken in memory", key=short(key), why=_shown(reply))
        if item.refusals >= 2 * REFUSALS_MAX or (item.refusals > REFUSALS_MAX and reply.startswith(b"-NOPERM")):
            self._give_up(place, [key], _shown(reply))

    # -- its end ------------------------------------------------------------------------------------------------------

    def _count(self, place: Place, how: str) -> None:
        place.told[how] += 1
        self._memory.figures.reconciled[how] += 1

    def _give_up(self, place: Place, keys: Sequence[bytes], why: str) -> None:
        for key in keys:
            self._count(place, "lost")
            self._memory.release(place, key)
        if keys:
            log.error("what was taken in memory is lost", keys=len(keys), why=why)

    def _announce(self, place: Place, keys: Sequence[bytes]) -> None:
        """Drop what depends on keys whose values have changed, and have the changes announced."""
        values, db = self._values, place.where.db
        changed: dict[str, ClassRules] = {}
        for key in keys:
            rules = values.rules.find(key)
            if rules is not None:
                changed[rules.name] = rules
        self._drop_dependents(db, keys)
        if changed and values.notices is not None:
            values.notices.owe(place.where, changed.values(), db)

    def _drop_dependents(self, db: int, keys: Iterable[bytes]) -> None:
        """Drop what depends on keys: from what is served here at once, in Redis when it has been told of them."""
        for key in keys:
            what = self._values.dependents_of(key)
            if what is not None:
                self._values.invalidate(what, db, _ignore)

    def _end_if_empty(self, place: Place) -> None:
        if place.store.items or self._memory.places.get(place.where) is not place:
            return
        told = place.told
        log.info(
            "Redis has been told of what was taken in memory",
            user=place.where.user.decode("utf-8", "replace"),
            db=place.where.db,
            seconds=round(self._engine.now - place.began_at, 3),
            **{how: told[how] for how in ("written", "older", "deleted", "lost")},
        )
        self._memory.forget(place)
        self._resume(place)

    def _resume(self, place: Place) -> None:
        """Let those go on who wait; they wait again if their keys are still held."""
        waiting, place.waiting = place.waiting, []
        for client in waiting:
            self._memory.ways.resume(client)


def _ignore(_result: object) -> None:
    """Go on: what was invalidated is counted elsewhere."""


def _digest(value: object) -> str:
    assert isinstance(value, bytes)
    return sha1(value, usedforsecurity=False).hexdigest()


def _shown(reply: bytes) -> str:
    return text(reply).decode("utf-8", "replace")[:200]
