"""Commands of keys whose class does something to their values: on a shared link, on a pinned one, inside MULTI.

    shared    take -> sent sealed, or "needs a pinned link"
    pinned    send -> sealed, or run on unwrapped values
    MULTI     queue -> sealed as it is queued; before_exec unwraps what the queue looks at; dependents dropped after it

Owns the order of these steps; what is done to one command is `values`', how values are unwrapped `plain`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from hashlib import sha1
from typing import TYPE_CHECKING, Final

from proxy.core.pinning import Pinning
from proxy.core.plain import ExecRun, PlainRun, StepSlot, Unwrapping, WatchedRun, discard
from proxy.core.slots import EffectSlot, Link, Slot, WriteSlot
from proxy.core.value_slots import DependentSlot, What, WholeSlot, WholeWriteSlot, after, drop_dependents, judged
from proxy.core.values import LOOKING, NONE, Values, union
from proxy.errors import UPSTREAM_UNAVAILABLE
from proxy.values.envelope import MAGIC
from proxy.values.opening import open_in_place, run_plain
from proxy.values.scripts import swap
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import array, bulk, command
from proxy.wire.reply import elements
from proxy.wire.request import Raw

if TYPE_CHECKING:
    from proxy.core.downstream import Downstream, PinnedConnection
    from proxy.core.engine import Engine
    from proxy.core.notice_slots import Bound

_SHARED: Final = (Kind.READ, Kind.WRITE, Kind.GET, Kind.MGET, Kind.CACHED, Kind.FIELD_EXPIRY)
PING: Final = command("PING")
_WHOLE: Final = frozenset([b"GET", b"GETDEL", b"GETEX", b"GETSET", b"SET"])  # their reply is the value of their key
_QUEUED_WHOLE: Final = _WHOLE | {b"MGET"}


class Way(Enum):
    """What became of a command."""

    SENT = 1
    PINNED = 2  # it needs a connection of its own


class ValueCommands:
    """Route them. One a worker."""

    def __init__(self, engine: Engine, values: Values) -> None:
        self._engine = engine
        self.values = values

    def concerns(self, spec: CommandSpec, args: list[bytes]) -> bool:
        """Return whether anything is to be done about a command."""
        return self.values.concern(spec, args) is not NONE

    def take(self, client: Downstream, spec: CommandSpec, args: list[bytes], raw: Raw) -> Way | None:
        """Send a command that `concerns` us on the shared link; None when it may go its usual way."""
        kind = spec.kind
        if kind not in _SHARED or (spec.blocks_if and spec.may_block(args)):
            return None  # pinned anyway
        values = self.values
        if values.bare_keys(spec, args):
            return Way.PINNED
        if kind in (Kind.GET, Kind.MGET, Kind.CACHED) and (client.namespace or client.shadow) is not None:
            return None  # core.reads purges and counts
        link = client.route()
        if link is None:
            client.reply(client.why_not())
            return Way.SENT
        notices = values.notices
        mark = 0 if notices is None else notices.mark()
        raw = self.prepare(client, link, spec, args, raw)
        if spec.keys is None:
            slot = EffectSlot(client) if spec.is_write else self.read_slot(client, spec, args)
        else:
            if kind is Kind.FIELD_EXPIRY:
                self._engine.let_fields_expire()
            keys = [bulk(bytes(key)) for key in spec.keys(args)]
            self._engine.begin_write(keys)
            slot = self.write_slot(client, spec, args, keys)
        client.owe(slot)
        notice = None if notices is None else notices.notice(client, spec, args, mark)
        if notices is None or notice is None:
            link.submit(raw, slot)
        else:
            notices.submit(client, link, notice, (raw, slot))
        return Way.SENT

    def prepare(self, client: Downstream, link: Link, spec: CommandSpec, args: list[bytes], raw: Raw) -> Raw:
        """Return what is sent instead of a command that `concerns` us, behind what must come before it."""
        values = self.values
        if spec.keys is None:
            if spec.every_key is not None:
                values.before_read(link, [bytes(key) for key in spec.every_key(args)], client.session.db)
            return raw
        if spec.every_key is not None and len(values.fences):
            values.purge(link, [bytes(key) for key in spec.every_key(args)], client.session.db)
        return values.rewrite(spec, args, raw, self._engine.now, in_effect=client.classed)

    def read_slot(self, client: Downstream, spec: CommandSpec, args: list[bytes]) -> Slot:
        """Return the slot for the reply of a read."""
        if spec.kind in (Kind.GET, Kind.MGET) and len(args) > 1:
            return WholeSlot(client, (args,), self.values)
        return Slot(client)

    def write_slot(self, client: Downstream, spec: CommandSpec, args: list[bytes], keys: list[bytes]) -> WriteSlot:
        """Return the slot for the reply of a write of keys (as bulk strings)."""
        what = self.values.dropped(spec, args, client.session.db) if client.classed else {}
        if spec.name in _WHOLE:
            return WholeWriteSlot(client, self._engine, keys, self.values, what)
        if not what:
            return WriteSlot(client, self._engine, keys)
        return DependentSlot(client, self._engine, keys, self.values, what)

    def run_bare(
        self,
        link: PinnedConnection,
        keys: list[bytes],
        bare_command: tuple[Sequence[bytes], Raw, Slot],
        protocol: int,
        bound: Bound | None = None,
    ) -> None:
        """Run a command, given its words too, on a pinned link once its keys hold plain values.

        Its slot is in the client's queue; `bound` announces it.
        """
        words, raw, slot = bare_command
        link.state.once = True
        if link.state.watching:
            if bytes(words[0]).upper() in LOOKING:  # else it is a script, and none may run another
                raw = run_plain(keys, words, protocol)
            WatchedRun(self.values, link, (keys, link.db), (raw, slot), bound).begin()
        else:
            PlainRun(self.values, link, (keys, link.db), (raw, slot), bound).begin()

    # -- MULTI --------------------------------------------------------------------------------------------------------

    def queue(self, client: Downstream, link: PinnedConnection, spec: CommandSpec, args: list[bytes], raw: Raw) -> Raw:
        """Return what MULTI is given to queue; remember what EXEC must see to.

        What looks at the bytes of a value that was queued before it, sealed, finds that one unwrapped in between.
        """
        values, state = self.values, link.state
        if spec.every_key is None:
            return raw
        keys = [bytes(key) for key in spec.every_key(args)]
        db = state.queues_in(client.session.db)
        state.queued_fenced += [(db, key) for key in keys]
        bare = values.bare_keys(spec, args, moved=True)
        state.queued_bare += [(db, key) for key in bare]
        for key in bare:
            for stored, value in state.queued_sealed.pop((db, key), ()):
                _queue_ours(link, swap(key, sha1(stored).hexdigest().encode(), value))
        if bare:
            _queue_ours(link, open_in_place(bare))  # what others write between `before_exec` and EXEC
        if keys and spec.name in _QUEUED_WHOLE:
            state.queued_whole[state.queued] = keys
        if spec.keys is None:
            return raw
        for to, what in values.dropped(spec, args, db).items() if client.classed else ():
            state.queued_dependents[to] = union(state.queued_dependents.get(to), what) or what
        if bare:
            return raw
        sealed: dict[bytes, tuple[bytes, bytes]] = {}
        raw = values.rewrite(spec, args, raw, self._engine.now, in_effect=client.classed, sealed=sealed)
        for key, pair in sealed.items():
            state.queued_sealed.setdefault((db, key), []).append(pair)
        return raw

    def must_precede(self, state: Pinning) -> bool:
        """Return whether something must happen on another link before EXEC."""
        return bool(state.queued_bare) or (bool(state.queued_fenced) and len(self.values.fences) > 0)

    def run_exec(self, link: PinnedConnection, slot: Slot) -> bool:
        """Run what MULTI has queued on plain values, whoever writes meanwhile; False if it cannot be queued anew.

        A session that watches keys cannot let go of them: there EXEC follows the unwrapping (`before_exec`), and what
        comes between is unwrapped by the queue itself, as far as `values.opening` can.
        """
        state = link.state
        if not state.queued_bare or not state.may_queue_anew:
            return False
        state.once = True
        keys = _in(link.db, state.queued_bare)
        run = ExecRun(self.values, link, (keys, link.db), (state.queued_raws, slot))
        discard(link, run.refuse)
        self.values.purge(link, _in(link.db, state.queued_fenced), link.db)
        run.begin()
        return True

    def before_exec(self, client: Downstream, state: Pinning, then: Callable[[bytes], None]) -> None:
        """Unwrap what the queue looks at, and drop what fences say is gone, on links beside; `then` gets an error.

        b"" when there is none. A session that watches such a key finds that it was changed, and tries again.
        """
        dbs = list(dict.fromkeys([db for db, _ in (*state.queued_fenced, *state.queued_bare)]))
        then = after(len(dbs), then)
        for db in dbs:
            is_own = db == client.session.db  # one that the queue moves to has no link of the client's
            link = client.route() if is_own else self.values.link(db)
            if link is None:
                then(client.why_not() if is_own else UPSTREAM_UNAVAILABLE)
            else:
                self._before_exec(link, db, state, then)

    def _before_exec(self, link: Link, db: int, state: Pinning, then: Callable[[bytes], None]) -> None:
        is_purging = self.values.purge(link, _in(db, state.queued_fenced), db)
        bare = _in(db, state.queued_bare)
        if bare:
            Unwrapping(self.values, link, (bare, db), then).begin()
        elif is_purging:
            link.submit(PING, StepSlot(1, lambda _replies: then(b""), then))
        else:
            then(b"")

    def finish_exec(self, state: Pinning, reply: bytes) -> bytes:
        """Return EXEC's reply without what was ours, and with an error in the place of each value that is damaged."""
        looked_at = state.queued_ours or (state.queued_whole and MAGIC in reply)  # else it may be the end of a stream
        if not looked_at or reply[:1] != b"*" or reply[:2] == b"*-":
            return reply
        parts = elements(reply)
        for place, keys in state.queued_whole.items():
            if parts[place][:1] == b"*":
                frames = zip(keys, elements(parts[place]), strict=True)
                parts[place] = array([judged(self.values, key, frame) for key, frame in frames])
            else:
                parts[place] = judged(self.values, keys[0], parts[place])
        for place in reversed(state.queued_ours):
            del parts[place]
        return array(parts)

    def drop(self, what: What, then: Callable[[bytes], None]) -> None:
        """Drop what depends on what EXEC has run, by database; `then` gets b"" or an error."""
        drop_dependents(self.values, what, then)


def _queue_ours(link: PinnedConnection, raw: bytes) -> None:
    """Give MULTI a command of our own, whose reply the client does not get."""
    state = link.state
    link.submit(raw, Slot(None))
    state.keep(raw)
    state.queued_ours.append(state.queued)
    state.queued += 1


def _in(db: int, keys: Sequence[tuple[int, bytes]]) -> list[bytes]:
    """Return those of the keys that are of a database, each once."""
    return list(dict.fromkeys(key for of, key in keys if of == db))
