"""Writes that are announced: the notice of a write enters Redis with it, in one transaction, or neither does.

    shared link, pinned link   MULTI, the write, XADD respite:outbox .., EXEC      in one piece: nobody comes between
    a client's own MULTI       .., XADD .., EXEC                                   ours are taken out of its reply
    blocking, WATCH            the write, and the XADD right behind it             not in one step

Owns what is announced, and what becomes of it: the notice of a write that Redis refused, or that changed nothing, is
removed at once; where the user may not write the outbox, the write goes without. Where only the notice is lost (Redis
has no memory for it, or is gone between the two) it is owed: by class, until the outbox takes it. The relay takes it
from there.

A key is announced by the class it has. Commands that only change how long it lives announce nothing, unless they end
it. A script that fails may have written before: its notice stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import attrs

from proxy.core.notice_slots import (
    EXEC,
    MULTI,
    PROBE,
    BlockedSlot,
    Bound,
    Notice,
    NoticeSlot,
    OursSlot,
    ProbeSlot,
    Who,
)
from proxy.core.plain import StepSlot
from proxy.core.slots import Failure, Slot
from proxy.events.notices import BODY, CLASS, MISSED_KEY, OUTBOX_KEY
from proxy.log import get_logger
from proxy.values.writes import LIFE_ONLY, asked_ms, parse
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import command
from proxy.wire.reply import elements, text
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.core.downstream import Downstream, PinnedConnection
    from proxy.core.engine import Engine
    from proxy.core.pinning import Pinning
    from proxy.core.slots import Link
    from proxy.core.values import Values
    from proxy.values.rules import ClassRules

KEYS_MAX: Final = 1000  # of one notice
REFUSED_S: Final = 60.0  # then it is looked at again whether the user may
SHORT_S: Final = 1.0  # for so long, Redis is not asked again to take what it had no memory for
NOWHERE: Final = -1  # the place in a transaction of what has not entered it
PAST_MS: Final = 1000  # the clock here may be so far behind the server's

log = get_logger("notices")


@attrs.define
class NoticeCounts:
    """Counted by one worker since it started."""

    announced: int = 0
    """Writes whose notice entered the outbox with them."""
    withdrawn: int = 0
    """Notices removed again: Redis refused the write, or it changed nothing."""
    coarse: int = 0
    """Writes that are announced as "any key of the class": the outbox is full, or their own notice was lost."""
    unannounced: int = 0
    """Writes that went without."""

    def report(self) -> dict[str, int]:
        """Return them as stats.json has them."""
        return {
            "announced_total": self.announced,
            "withdrawn_total": self.withdrawn,
            "coarse_total": self.coarse,
            "unannounced_total": self.unannounced,
        }


class Notices:
    """Announce writes. One a worker; there is none while `publish_changes` is off."""

    def __init__(self, engine: Engine, values: Values, counts: NoticeCounts, *, token: str) -> None:
        """`token` is what the ids of this worker's notices begin with, another one after each start."""
        self.counts = counts
        self.databases: set[int] = set()
        """Those that notices were put into."""
        self.full: set[int] = set()
        """Those whose outbox has FULL_AT entries or more; somebody else looks."""
        self.owed: dict[tuple[int, str, int], bytes] = {}
        """Notices by class that are still to be put into an outbox: its database, class, database of the keys."""
        self._engine = engine
        self._values = values
        self._clock = values.sealer.clock
        self._token = token
        self._number = 0
        self._verdicts: dict[Who, float] = {}  # until when a user may not; 0.0: may
        self._short_until = 0.0  # until when Redis is taken to have no memory for notices
        self._said: set[Who] = set()

    def wants(self, spec: CommandSpec, args: Sequence[bytes]) -> bool:
        """Return whether a command is to be announced: it writes a key of a class."""
        finder = spec.keys
        if finder is None or spec.kind is Kind.UNKNOWN:
            return False
        find = self._values.rules.find
        if not any(find(bytes(key)) is not None for key in finder(args)):
            return False
        return spec.name not in LIFE_ONLY or self._ends_it(spec.name, args)

    def _ends_it(self, name: bytes, args: Sequence[bytes]) -> bool:
        """Return whether a command that sets when a key ends may end it at once."""
        write = parse(name, list(args))
        if write is None or not write.ttl_at:
            return False
        now_ms = self._clock.now_ms()
        asked = asked_ms(write, args, now_ms)
        return asked is not None and asked <= (PAST_MS if write.ttl_absolute else 0)

    def is_ready(self, client: Downstream) -> bool:
        """Return whether it is known if a client's user may write the outbox.

        If not, it is being asked; the client is to be parked until all that it is owed has come. Known beforehand, so
        that no write has to be sent again behind what came after it.
        """
        until = self._verdicts.get(_who(client))
        if until is not None and (until == 0.0 or self._engine.now < until):
            return True
        link = client.route()
        if link is None:
            return True
        slot = ProbeSlot(client, self, _who(client))
        client.owe(slot)
        link.submit(PROBE, slot)
        return False

    def judge(self, who: Who, replies: Sequence[bytes]) -> None:
        """Take the replies to a probe; none: it could not be asked, and the first write will show."""
        refused = next((reply for reply in replies if _is_forbidden(reply)), b"")
        if refused:
            self.refuse(who, refused)
        else:
            self._verdicts[who] = 0.0
            self._said.discard(who)

    def refuse(self, who: Who, error: bytes) -> bool:
        """Return whether a user's writes go without for a while, given what Redis answered to a notice.

        It does where the user may not, and where Redis has no memory for notices: it still takes what frees some.
        All else is said of the write as well.
        """
        if _is_forbidden(error):
            self._verdicts[who] = self._engine.now + REFUSED_S
        elif b"OOM " in error:
            self._short_until = self._engine.now + SHORT_S
        else:
            return False
        self._say(who, error)
        return True

    def _say(self, who: Who, error: bytes) -> None:
        if who not in self._said:
            self._said.add(who)
            log.warning(
                "writes are not announced by key",
                user=who[0].decode("utf-8", "replace") or "default",
                db=who[1],
                why=text(error).decode("utf-8", "replace")[:200],
            )

    # -- what enters the outbox ---------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return what `notice` is told about a write that may get versions after this."""
        return self._clock.last

    def notice(
        self, client: Downstream, spec: CommandSpec, args: Sequence[bytes], mark: int, db: int | None = None
    ) -> Notice | None:
        """Return the notice of a command; None where there is none, or must be none.

        Its version is the last one that was given to a value since `mark`, else a new one.
        """
        if not self.wants(spec, args):
            return None
        assert spec.keys is not None
        last = self._clock.last
        return self.of_keys(
            client,
            [bytes(key) for key in spec.keys(args)],
            spec.name,
            version=last if last > mark else self._clock.next(),
            gives_value=spec.name == b"SET" and any(len(arg) == 3 and bytes(arg).upper() == b"GET" for arg in args[3:]),
            is_script=spec.kind is Kind.SCRIPT,
            db=db,
        )

    def of_keys(
        self,
        client: Downstream,
        keys: Sequence[bytes],
        name: bytes,
        *,
        version: int,
        gives_value: bool = False,
        is_script: bool = False,
        db: int | None = None,
    ) -> Notice | None:
        """Return the notice of a write of keys; None where it must go without."""
        classes: dict[ClassRules, list[bytes]] = {}
        for key in dict.fromkeys(keys):
            rules = self._values.rules.find(key)
            if rules is not None:
                classes.setdefault(rules, []).append(key)
        if not classes:
            return None
        who = _who(client)
        if db is None:
            db = who[1]
        now = self._engine.now
        if self._verdicts.get(who, 0.0) > now:
            self.counts.unannounced += 1
            return None
        self.databases.add(who[1])
        if self._short_until > now:
            return Notice((), name, tuple(classes), db, gives_value, is_script, is_owed=True)
        is_full = who[1] in self.full
        raws: list[bytes] = []
        for rules, found in classes.items():
            if is_full:
                raws.append(self._coarse(rules, db))
                continue
            for at in range(0, len(found), KEYS_MAX):
                raws.append(self._entry(rules.name, found[at : at + KEYS_MAX], db, version))
        return Notice(tuple(raws), name, tuple(classes), db, gives_value, is_script, is_full)

    def owe(self, who: Who, classes: Iterable[ClassRules], db: int) -> None:
        """Have it announced, as soon as the outbox takes it, that any key of classes may have changed.

        Not before the write is done: what is owed may be paid at once.
        """
        self.counts.coarse += 1
        for rules in classes:
            self.owed[who[1], rules.name, db] = self._coarse(rules, db)

    def paid(self, place: tuple[int, str, int], raw: bytes) -> None:
        """Take note that an outbox has taken what was owed to it."""
        if self.owed.get(place) == raw:
            del self.owed[place]

    def _entry(self, name: str, keys: list[bytes], db: int, version: int) -> bytes:
        body: dict[str, object] = {
            "id": self._id(),
            "keys": [key.decode("utf-8", "surrogateescape") for key in keys],
            "db": db,
            "publisher": "respite",
        }
        if version:
            body["version"] = version
        return command("XADD", OUTBOX_KEY, "*", CLASS, name, BODY, json.dumps(body))

    def _coarse(self, rules: ClassRules, db: int) -> bytes:
        """Return what says that any key of a class may have changed, once, however many writes there are."""
        globs = [glob.raw.decode("utf-8", "surrogateescape") for glob in rules.globs]
        body = {"id": self._id(), "patterns": globs, "db": db, "publisher": "respite"}
        return command("HSET", MISSED_KEY, f"{rules.name} {db}", json.dumps(body))

    def _id(self) -> str:
        self._number += 1
        return f"{self._token}-{self._number}"

    # -- sending ------------------------------------------------------------------------------------------------------

    def submit(
        self, client: Downstream, link: Link, notice: Notice, write: tuple[Raw, Slot], *, is_watching: bool = False
    ) -> None:
        """Send a write and its notice; `write` is the command and the slot that waits for its reply.

        `is_watching`: the session watches keys, and a transaction of ours would end that.
        """
        raw, slot = write
        bound = self.bind(client, link, notice)
        if is_watching or notice.is_owed:
            bound.submit_loose(raw, slot)
        else:
            link.submit(b"".join((MULTI, raw, *notice.raws, EXEC)), NoticeSlot(bound, raw, slot, is_atomic=True))

    def after(self, client: Downstream, link: Link, notice: Notice, slot: Slot) -> Slot:
        """Return the slot for a blocking command: the notice follows its reply, then `slot` gets that."""
        return BlockedSlot(self.bind(client, link, notice), slot)

    def bind(self, client: Downstream, link: Link, notice: Notice) -> Bound:
        """Return what somebody else needs who runs the transaction."""
        return Bound(self, link, _who(client), notice)

    def without(self, who: Who, notice: Notice) -> Notice | None:
        """Return what becomes of a notice that Redis has refused: it is owed, or (None) the user may not have any."""
        if self._verdicts.get(who, 0.0) > self._engine.now:
            self.counts.unannounced += 1
            return None
        return attrs.evolve(notice, raws=(), is_owed=True)

    def settle(self, who: Who, link: Link, notice: Notice, reply: bytes, ids: Sequence[bytes]) -> None:
        """Look at what became of a write and of its notices: replies to each."""
        counts = self.counts
        if notice.is_void(reply):
            gone = [text(one) for one in ids if one[:1] == b"$"]
            if gone:
                counts.withdrawn += 1
                link.submit(command("XDEL", OUTBOX_KEY, *gone), Slot(None))
        elif notice.is_owed:
            self.owe(who, notice.classes, notice.db)
        elif (error := next((one for one in ids if one[:1] in (b"-", b"!")), None)) is not None:
            if _is_forbidden(error):
                counts.unannounced += 1
            else:
                self.owe(who, notice.classes, notice.db)
            self._say(who, error)
        elif notice.is_coarse:
            counts.coarse += 1
        else:
            counts.announced += 1

    # -- MULTI --------------------------------------------------------------------------------------------------------

    def queue(self, link: PinnedConnection, state: Pinning) -> None:
        """Queue the notices of what a client's MULTI has queued, before its EXEC."""
        for place, notice in state.queued_notices:
            if notice.is_owed:
                state.notice_places.append((NOWHERE, place, notice))
            for raw in notice.raws:
                link.submit(raw, OursSlot(state))
                state.keep(raw)
                state.notice_places.append((state.queued, place, notice))
                state.queued_ours.append(state.queued)
                state.queued += 1

    def settle_exec(self, client: Downstream, link: Link, state: Pinning, reply: bytes) -> None:
        """Look at EXEC's reply, ours still in it."""
        if not state.notice_places or reply[:1] != b"*" or reply[:2] == b"*-":
            return
        parts = elements(reply)
        for ours, place, notice in state.notice_places:
            ids = () if ours == NOWHERE else parts[ours : ours + 1]
            self.settle(_who(client), link, notice, parts[place], ids)

    def lose_exec(self, client: Downstream, state: Pinning, failure: Failure) -> None:
        """Take note that the link has gone, perhaps after EXEC: what entered the outbox with it has, or has not."""
        if failure is not Failure.UNAVAILABLE:
            for ours, _, notice in state.notice_places:
                if ours == NOWHERE:
                    self.owe(_who(client), notice.classes, notice.db)

    def exec_bare(self, client: Downstream, link: Link, state: Pinning, slot: Slot) -> bool:
        """Run what MULTI has queued without notices, as Redis would not queue those; False if that cannot be.

        A session that watched keys is told that they were changed, which it may try again.
        """
        error, state.ours_refused = state.ours_refused, b""
        who = _who(client)
        if not self.refuse(who, error):
            return False
        places = {ours for ours, _, _ in state.notice_places if ours != NOWHERE}
        is_whole = len(state.queued_raws) == state.queued
        raws = [raw for at, raw in enumerate(state.queued_raws) if at not in places]
        state.queued -= len(places)
        state.queued_ours = [at for at in state.queued_ours if at not in places]
        bare = [(place, self.without(who, notice)) for place, notice in state.queued_notices]
        state.notice_places = [(NOWHERE, place, notice) for place, notice in bare if notice is not None]
        state.queued_notices = []
        if state.watching:
            slot.fill(b"_\r\n" if client.session.protocol == 3 else b"*-1\r\n")
            return True
        if not is_whole or state.queued_bare:
            return False
        step = StepSlot(len(raws) + 2, lambda replies: slot.fill(replies[-1]), slot.fill, slot.fail)
        link.submit(b"".join((MULTI, *raws, EXEC)), step)
        return True


def _who(client: Downstream) -> Who:
    session = client.session
    return session.identity.user, session.db


def _is_forbidden(reply: bytes) -> bool:
    return reply.startswith((b"-NOPERM", b"!")) or b"unknown command" in reply[:40]
