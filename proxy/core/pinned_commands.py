"""Commands of a session that has a link of its own: forwarded as they come, the connection's state followed.

Owns what each command does to the pinning: when the link is held, and after which command the next ones must wait.
No L1 here. Writes still drop their keys, and what MULTI queues is dropped again around EXEC.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from proxy.core.downstream import Downstream, PinnedConnection, Services
from proxy.core.engine import Engine
from proxy.core.notices import Notices
from proxy.core.pinned_slots import ExecSlot, MultiSlot, ScriptSlot
from proxy.core.pinning import Pinning
from proxy.core.plain import discard
from proxy.core.respite_commands import RespiteCommands
from proxy.core.session_commands import SessionCommands, is_login
from proxy.core.slots import CallSlot, EffectSlot, Slot, WriteAllSlot, WriteSlot
from proxy.core.value_commands import ValueCommands
from proxy.errors import LOGIN_IN_MULTI, TOO_MANY_SUBSCRIPTIONS
from proxy.wire.blocking import waits_s
from proxy.wire.commands import CommandSpec, Kind
from proxy.wire.encode import bulk, command, count
from proxy.wire.request import Raw

PING: Final = command("PING")
SPOILER: Final = command("RESPITE-DENIED")  # no command of any server: queued by MULTI, it has EXEC refused
WAITS: Final = frozenset([b"WAIT", b"WAITAOF"])  # they block, and take nothing
FOLLOWED: Final = frozenset([b"SELECT", b"CLIENT|GETNAME", b"CLIENT|ID", b"CLIENT|INFO", b"CLIENT|LIST"])
"""What MULTI may queue of a session's own commands, and its link serves others afterwards: SELECT is followed."""


class PinnedCommands:
    """Route the commands of pinned sessions."""

    def __init__(self, engine: Engine, services: Services, session_commands: SessionCommands) -> None:
        self._engine = engine
        self._services = services
        self._session_commands = session_commands
        self._respite_commands = RespiteCommands(services)
        self.value_commands: ValueCommands | None = None  # None: nothing is done to values
        self.notices: Notices | None = None  # None: nothing is announced

    def take(self, client: Downstream, args: list[bytes], raw: Raw) -> bool:
        """Forward a command on the client's pinned link; False = it must wait for the replies that are owed."""
        link = client.pin
        assert link is not None
        state = link.state
        if state.once or state.preparing:
            return False
        spec = client.rights.table.find(args)
        kind = spec.kind
        if kind is Kind.DENIED:
            self._deny(client, link, client.rights.refusal(spec, args))
            return True
        if state.stream:
            if kind is Kind.SUBSCRIBE and self._is_too_much(client, state, args):
                client.quit()
                return True
            self._linger(spec, args)
            link.send_raw(raw)
            return True
        name = bytes(args[0]).upper()
        if kind is Kind.SESSION and (name in (b"RESET", b"QUIT") or not self._is_redis_own(client, state)):
            return self._session(client, link, args, raw)
        if kind in (Kind.SESSION, Kind.MULTI) and client.queue and state.used and not state.multi:
            return False  # by then a subscription has begun, or the last has ended: Redis refuses these to a subscriber
        if kind is Kind.FORBIDDEN:
            client.quit()
        elif kind is Kind.SESSION and self._services.has_users and is_login(args):
            self._deny(client, link, LOGIN_IN_MULTI)
        elif name in (b"EXEC", b"DISCARD", b"UNWATCH"):
            if name == b"EXEC" and self.notices is not None and state.queued_notices:
                self.notices.queue(link, state)
            self._end(client, link, name, raw)
        elif kind is Kind.SUBSCRIBE and self._is_too_much(client, state, args):
            if client.queue and not state.multi:
                return False  # how many stand is known once those before it are acknowledged
            self._deny(client, link, TOO_MANY_SUBSCRIPTIONS)
        elif kind is Kind.SUBSCRIBE and not state.multi:
            state.used = True
            if len(args) == 1 and client.queue:
                return False  # how many acknowledgements it gets depends on those still to come
            link.subscribe(client, raw, state.acks_expected(args))
        elif self.notices is not None and self.notices.wants(spec, args) and not self.notices.is_ready(client):
            return False
        elif kind in (Kind.ONCE, Kind.UNKNOWN, Kind.RESPITE, Kind.STREAM) and not state.multi:
            if client.queue:
                return False
            self._once(client, link, kind, args, raw)
        else:
            self._plain(client, link, spec, args, raw)
        return True

    def _deny(self, client: Downstream, link: PinnedConnection, refusal: bytes) -> None:
        """Refuse a command as Redis does: what MULTI has queued can then only be discarded."""
        self._engine.stats.deny(client.rights.user)
        state = link.state
        if state.stream:
            client.quit()  # nothing that is no part of the stream can be said to it
        else:
            self.refuse(client, refusal)

    def refuse(self, client: Downstream, error: bytes) -> None:
        """Give an error for a command that Redis does not get; what MULTI has queued can then only be discarded."""
        link = client.pin
        if link is not None and link.state.multi:
            slot = CallSlot(client, lambda _: error)
            client.owe(slot)
            self._spoil(link, slot)
        else:
            client.reply(error)

    @staticmethod
    def _spoil(link: PinnedConnection, slot: Slot) -> None:
        """Have EXEC refuse what MULTI has queued."""
        link.state.keep(SPOILER)
        link.state.queued += 1
        link.submit(SPOILER, slot)

    @staticmethod
    def _is_denied_by_now(client: Downstream, state: Pinning) -> bool:
        """Return whether MULTI has queued what its client might run then and, since a reload, may not any more."""
        find = client.rights.table.find
        return any(find(name.split(b"|")).kind is Kind.DENIED for name in state.queued_commands)

    def _is_too_much(self, client: Downstream, state: Pinning, args: list[bytes]) -> bool:
        """Return whether a SUBSCRIBE may go over the limit of one client; what it asks for is counted if not."""
        most = self._services.max_subscriptions
        if not most or b"UNSUB" in bytes(args[0]).upper():
            return False
        if not (client.queue or state.multi or state.stream):
            state.asked_names = 0  # all that were asked for stand, or were refused
        asked = state.asked_names + len(args) - 1
        if sum(map(len, state.subscriptions.values())) + asked > most:
            return True
        state.asked_names = asked
        return False

    @staticmethod
    def _is_redis_own(client: Downstream, state: Pinning) -> bool:
        """Return whether Redis itself must judge a session command: queued by MULTI, or refused to a subscriber."""
        return state.multi or (client.session.protocol == 2 and state.subscribed)

    def _session(self, client: Downstream, link: PinnedConnection, args: list[bytes], raw: Raw) -> bool:
        if client.queue and bytes(args[0]).upper() != b"QUIT":
            return False
        if self._session_commands.answer(client, args, raw):
            return True
        if client.parked:
            return False
        link.state.once = True
        asked, then = self._session_commands.ask(client, link, args, raw)
        slot = CallSlot(client, then, lambda: client.give_up(args))
        client.owe(slot)
        link.submit(asked, slot)
        return True

    def _end(self, client: Downstream, link: PinnedConnection, name: bytes, raw: Raw) -> None:
        """Forward EXEC, DISCARD or UNWATCH; what follows waits, for it may belong on the shared link again."""
        state = link.state
        if name == b"EXEC":
            if state.rights is not client.rights and self._is_denied_by_now(client, state):
                self._spoil(link, Slot(None))
            self._engine.begin_write(state.queued_keys)
            if state.queued_all:
                self._engine.begin_write_all()
            noticed = None if self.notices is None else (self.notices, link)
            after = self._services.after_all(b"SWAPDB") if b"SWAPDB" in state.queued_commands else None
            slot: Slot = ExecSlot(
                client, self._engine, state, self._services.fence, after, values=self.value_commands, noticed=noticed
            )
            if self.value_commands is not None and self.value_commands.must_precede(state):
                client.owe(slot)
                if not self.value_commands.run_exec(link, slot):
                    self._prepare(client, link, raw, slot)
                return
            state.once = True
        elif name == b"UNWATCH" and state.multi:
            slot = Slot(client)
            state.keep(raw)
            state.queued += 1
        else:

            def then(reply: bytes) -> bytes:
                if name == b"DISCARD" and reply[:1] == b"+":
                    client.session.multi = -1
                    state.end_multi()
                elif reply[:1] == b"+":
                    state.watching = False
                return reply

            slot = CallSlot(client, then)
            state.once = True
        client.owe(slot)
        link.submit(raw, slot)

    def _prepare(self, client: Downstream, link: PinnedConnection, raw: Raw, slot: Slot) -> None:
        """Send EXEC once what it needs has been done on another link."""
        state = link.state
        state.preparing = True

        def prepared(error: bytes) -> None:
            state.preparing = False
            state.once = True
            if error:
                discard(link)
                slot.fill(error)
            else:
                link.submit(raw, slot)

        assert self.value_commands is not None
        self.value_commands.before_exec(client, state, prepared)

    def _once(self, client: Downstream, link: PinnedConnection, kind: Kind, args: list[bytes], raw: Raw) -> None:
        state = link.state
        state.once = True
        if kind is Kind.STREAM:
            state.used = True
            if bytes(args[0]).upper() == b"SYNC" and len(args) == 1:  # answered by a dump that is no frame
                state.stream = True
                link.send_raw(raw)
                return
            streaming = CallSlot(client, lambda reply: self._streams(state, reply))
            client.owe(streaming)
            link.submit(raw, streaming)
            return
        if kind is Kind.RESPITE:
            asked, then = self._respite_commands.ask(client, args)
            slot: Slot = CallSlot(client, then)
            client.owe(slot)
            link.submit(asked, slot)
            return
        state.used = True
        if kind is Kind.ONCE:
            self._engine.begin_write_all()
            slot = WriteAllSlot(client, self._engine)
        else:
            keys = [bulk(bytes(arg)) for arg in args[1:]]
            self._engine.begin_write(keys)

            def learn(reply: bytes) -> bytes:
                self._engine.end_write(keys)
                if reply[:1] not in b"-!":
                    # It exists, and we do not know what it did to its connection: the session keeps that for good.
                    state.sticky = not self._services.table_is_builtin
                    self._services.refresh_table()
                return reply

            slot = CallSlot(client, learn, lambda: self._engine.end_write(keys))
        client.owe(slot)
        link.submit(raw, slot)

    def _plain(
        self, client: Downstream, link: PinnedConnection, spec: CommandSpec, args: list[bytes], raw: Raw
    ) -> None:
        state = link.state
        kind = spec.kind
        blocks = kind is Kind.BLOCKING or (spec.blocks_if and spec.may_block(args))
        values = self.value_commands
        bare: list[bytes] = []  # keys to be unwrapped first
        notices, notice = self.notices, None
        mark = 0 if notices is None else notices.mark()
        if values is None or not values.concerns(spec, args):
            values = None
        elif state.multi:
            raw = values.queue(client, link, spec, args, raw)
        elif not blocks:
            bare = values.values.bare_keys(spec, args)
            raw = raw if bare else values.prepare(client, link, spec, args, raw)
        if notices is not None:
            notice = notices.notice(client, spec, args, mark, state.queues_in(client.session.db))
        is_refused = state.subscribed and client.session.protocol == 2
        if kind is Kind.MULTI and len(args) == 1 and not state.multi and not is_refused:
            state.multi = True
            state.rights = client.rights
            client.session.multi = 0
            link.introduce(client.session)
            slot: Slot = MultiSlot(client, link, self.value_commands)
        elif kind is Kind.WATCH and not state.multi:
            slot = CallSlot(client, partial(self._watched, state, was=state.watching))
            state.watching = True
        elif kind is Kind.WRITE_ALL or (state.multi and kind in (Kind.ONCE, Kind.UNKNOWN)):
            self._engine.begin_write_all()
            after = None if state.multi else self._services.after_all(spec.name)
            slot = WriteAllSlot(client, self._engine, after)
            state.queued_all = state.queued_all or state.multi
        elif spec.keys is not None:
            if kind is Kind.FIELD_EXPIRY:
                self._engine.let_fields_expire()
            keys = [bulk(bytes(key)) for key in spec.keys(args)]
            self._engine.begin_write(keys)
            slot = self._write_slot(client, state, spec, (args, keys), values)
            if state.multi:
                state.queued_keys += keys
                state.queued_script = state.queued_script or spec.may_write_undeclared
        elif values is not None and not state.multi:
            slot = values.read_slot(client, spec, args)
        else:
            slot = EffectSlot(client) if spec.is_write else Slot(client)
        if values is not None and bare:
            client.owe(slot)
            bound = None if notices is None or notice is None else notices.bind(client, link, notice)
            values.run_bare(link, bare, (args, raw, slot), client.session.protocol, bound)
            return
        if state.multi and kind not in (Kind.MULTI, Kind.WATCH):  # those are refused at once, and have no place in it
            if notice is not None:
                state.queued_notices.append((state.queued, notice))
            self._queue(state, args)
            state.queued_commands.add(spec.name)
            if notices is not None or (
                self.value_commands is not None and self.value_commands.values.rules.has_envelopes
            ):
                state.keep(raw)
            if kind is Kind.SUBSCRIBE or (kind is Kind.SESSION and bytes(args[0]).upper() in (b"AUTH", b"HELLO")):
                state.queued_unmatched = True
            # What it does to the link is for nobody who has that after it.
            state.used = state.used or (kind is Kind.SESSION and spec.name not in FOLLOWED)
            client.session.multi = state.queued
        elif blocks and client.leaving and spec.name not in WAITS:
            # Nobody is there to read what it would pop.
            if isinstance(slot, WriteSlot):
                self._engine.end_write(slot.keys)
            client.quit()
            return
        elif blocks:
            state.once = link.patient = True
            link.patience_s = waits_s(spec.name, args)
            if spec.name in WAITS:
                # It waits for the writes of its connection; a PING moves the pinned link up to all of them.
                link.submit(PING, Slot(None))
        if kind is Kind.STICKY:
            state.sticky = state.used = True
            if spec.name == b"SCRIPT|DEBUG":
                state.once = True
                slot = CallSlot(client, lambda reply: self._debugging(state, args, reply))
        client.owe(slot)
        if notices is None or notice is None or state.multi:
            link.submit(raw, slot)
        elif blocks:
            link.submit(raw, notices.after(client, link, notice, slot))
        else:
            notices.submit(client, link, notice, (raw, slot), is_watching=state.watching)

    def _write_slot(
        self,
        client: Downstream,
        state: Pinning,
        spec: CommandSpec,
        command: tuple[list[bytes], list[bytes]],
        values: ValueCommands | None,
    ) -> WriteSlot:
        """Return the slot of a write, given its words and its keys (as bulk strings)."""
        args, keys = command
        if state.multi:
            return WriteSlot(client, self._engine, keys)
        if spec.may_write_undeclared:
            known = None if values is None else values.values
            what = {} if known is None or not client.classed else known.dropped(spec, args, client.session.db)
            return ScriptSlot(client, self._engine, keys, self._services.fence, values=known, what=what)
        if values is None:
            return WriteSlot(client, self._engine, keys)
        return values.write_slot(client, spec, args, keys)

    def _linger(self, spec: CommandSpec, args: list[bytes]) -> None:
        """Keep what is written in stream mode out of L1 for a while: nobody sees its reply."""
        if spec.kind is Kind.WRITE_ALL or spec.kind is Kind.ONCE:
            self._engine.flush()
        elif spec.keys is not None:
            self._engine.linger([bulk(bytes(key)) for key in spec.keys(args)])

    @staticmethod
    def _streams(state: Pinning, reply: bytes) -> bytes:
        """Match nothing more once MONITOR or PSYNC is granted."""
        state.stream = reply[:1] == b"+"
        return reply

    @staticmethod
    def _watched(state: Pinning, reply: bytes, *, was: bool) -> bytes:
        """Hold the link for a WATCH that Redis takes."""
        state.watching = reply[:1] == b"+" or (was and state.watching)
        return reply

    @staticmethod
    def _debugging(state: Pinning, args: list[bytes], reply: bytes) -> bytes:
        """Match nothing more once the Lua debugger is on: a session of it answers as it likes, and then closes."""
        state.stream = reply[:1] == b"+" and bytes(args[-1]).upper() != b"NO"
        return reply

    @staticmethod
    def _queue(state: Pinning, args: list[bytes]) -> None:
        """Count what MULTI queues, and remember where a command stands in it that changes the session."""
        match [bytes(word) for word in args[:4]]:
            case [name, db] if name.upper() == b"SELECT" and count(db) is not None:
                state.queued_changes.append((state.queued, "db", count(db)))
            case [name, word, value] if (name.upper(), word.upper()) == (b"CLIENT", b"SETNAME"):
                state.queued_changes.append((state.queued, "name", value))
        state.queued += 1
