"""What happens to each command of a client: answered here, sent on the shared link, or on one of its own.

    requests --> L1 hit ------------------------------------------> reply
             --> miss: lease, read + PTTL, or join a flight ------> shared link
             --> write: drop, mark, forward ----------------------> shared link
             --> of a class that does something to values --------> core.value_commands
             --> session's own (HELLO, SELECT, CLIENT ...) -------> reply, or asked on a pinned link
             --> needs a connection's state ----------------------> pinned link  (core.pinned)

Owns the routing and the order of a client's slots. Everything here is synchronous; what must wait parks the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.core.downstream import Downstream, Services
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.gather import is_joined
from proxy.core.notices import Notices
from proxy.core.outage.fallback_slot import FallbackSlot, Words
from proxy.core.outage.offline.commands import is_brief
from proxy.core.outage.offline.memory import WAIT, Memory
from proxy.core.outage.stand_in import failure_of
from proxy.core.pinned_commands import PinnedCommands
from proxy.core.reads import Reads, is_of_many, is_of_one
from proxy.core.session_commands import SessionCommands
from proxy.core.shadow import shadow
from proxy.core.slots import EffectSlot, Failure, Link, ReadSlot, Slot, WriteAllSlot, WriteSlot
from proxy.core.value_commands import ValueCommands, Way
from proxy.core.value_slots import WholeSlot
from proxy.core.values import ALL, READ, Values
from proxy.wire.commands import (
    LANE_CACHED,
    LANE_EFFECT,
    LANE_FALLBACK,
    LANE_NONE,
    LANE_READ,
    LANE_WRITE,
    READ_KINDS,
    WHOLE_READS,
    CommandSpec,
    Kind,
)
from proxy.wire.encode import bulk
from proxy.wire.request import Raw, Request

_NOT_PLAIN: Final = (LANE_NONE, LANE_CACHED)
_ANNOUNCED: Final = (Kind.WRITE, Kind.FIELD_EXPIRY)  # of what travels on shared links
_MGET: Final = Kind.MGET
ENDS: Final = frozenset([b"SCRIPT|KILL", b"FUNCTION|KILL", b"SHUTDOWN"])
"""What a Redis takes while a script keeps it busy, which takes no SELECT then; it is about no database."""
NOAUTH: Final = b"-NOAUTH Authentication required.\r\n"


def _every_key(spec: CommandSpec, args: list[bytes]) -> Sequence[bytes]:
    return () if spec.every_key is None else spec.every_key(args)


class Pipeline:
    """Route commands. One a worker."""

    def __init__(self, engine: Engine, stats: Stats, services: Services) -> None:
        self.engine = engine
        self.stats = stats
        self.services = services
        self.reads = Reads(engine, stats)
        self.session_commands = SessionCommands(services)
        self.pinned_commands = PinnedCommands(engine, services, self.session_commands)
        self.value_commands: ValueCommands | None = None
        self.notices: Notices | None = None
        self.memory: Memory | None = None  # set while anything is held that Redis has not been told of

    def take_values(self, values: Values | None) -> None:
        """Do to values what classes ask for; None: they ask for nothing."""
        self.value_commands = None if values is None else ValueCommands(self.engine, values)
        self.pinned_commands.value_commands = self.value_commands
        self.reads.values = values
        self.engine.judge = None if values is None else values.judge

    def take_notices(self, notices: Notices | None) -> None:
        """Announce what is written from now on; None: nothing is."""
        self.notices = self.pinned_commands.notices = notices

    def run(self, client: Downstream, requests: list[Request]) -> None:
        """Route a client's requests in order; park the client when one must wait, the rest behind it."""
        at = 0
        total = len(requests)
        while at < total:
            if client.parked:
                client.park(client.parked, requests[at:])
                return
            if client.ended:
                return
            session = client.session
            if session.muted or session.skips or client.muting:
                self._mute(client)
            memory = self.memory
            if memory is not None and session.authenticated:
                met = memory.meet(client, client.rights.table.find(requests[at][0]), requests[at][0])
                if met == WAIT:
                    memory.wait(client)
                    self._hold(client, "link", requests[at:])
                    return
                if met is not None:
                    self.pinned_commands.refuse(client, met)
                    at += 1
                    continue
            if client.pin is not None:
                args, raw = requests[at]
                if not self._take_pinned(client, args, raw):
                    self._hold(client, client.parked or "reply", requests[at:])
                    return
                at += 1
                continue
            if client.joins and client.rights.table.find(requests[at][0]).kind not in READ_KINDS:
                # A reader who joined may have to ask again: no write, SELECT .. of its own may overtake that.
                self._hold(client, "settle", requests[at:])
                return
            if session.authenticated:
                taken = self._plain(client, requests, at, 1 if client.muting or memory is not None else total)
                if taken != at:
                    at = taken
                    continue
            args, raw = requests[at]
            spec = client.rights.table.find(args)
            if not session.authenticated and spec.kind is not Kind.SESSION:
                client.reply(NOAUTH)
            elif spec.kind is Kind.DENIED:
                self.stats.deny(client.rights.user)
                client.reply(client.rights.refusal(spec, args))
            elif not self._special(client, spec, args, raw):
                self._hold(client, client.parked or "settle", requests[at:])
                return
            at += 1

    def _plain(self, client: Downstream, requests: list[Request], at: int, most: int) -> int:
        """Send the reads and writes that follow each other from `at` on, up to `most` of one lane in one slot.

        Returns the place of the first request that is neither.
        """
        engine = self.engine
        table = client.rights.table
        by_word = table.by_word
        find = table.find
        cached = client.namespace is not None or client.shadow is not None
        writes = engine.enabled
        values = None if self.value_commands is None else self.value_commands.values
        notices = self.notices
        guards = engine.guards
        find_class = engine.outage.find_class if guards is not None and engine.outage.takes_commands else None
        total = len(requests)
        while at < total:
            slot: Slot
            raws: list[Raw] = []
            keys: list[bytes] = []
            guarded: list[Words]
            link: Link | None = None
            common = LANE_NONE  # the lane of all of them
            first = at
            judged = False
            while at < total:
                args, raw = requests[at]
                spec = by_word.get(args[0]) or find(args)
                lane = spec.lane
                if lane == LANE_CACHED and not cached:
                    lane = LANE_READ
                elif lane == LANE_WRITE and not writes and find_class is None:
                    lane = LANE_EFFECT
                elif lane == LANE_WRITE:
                    finder = spec.keys
                    assert finder is not None
                    named = finder(args)
                    if find_class is not None:  # not a call of its own: a SET of another class would cost 4 % more
                        for key in named if spec.every_key is finder else _every_key(spec, args):
                            rules = find_class(key if key.__class__ is bytes else bytes(key))
                            if rules is not None and rules.offline == "memory":
                                lane = LANE_FALLBACK if is_brief(spec.name, args) else LANE_NONE
                                break
                        if lane == LANE_WRITE and not writes:
                            lane = LANE_EFFECT
                if lane != common or not lane:
                    if common or lane in _NOT_PLAIN:
                        break
                    if lane == LANE_FALLBACK:
                        link, guarded = None if client.joins else client.route(), []
                        if link is None:
                            break  # one by one: it waits, or is taken in memory, and those behind it find it there
                    common = lane
                if spec.blocks_if and spec.may_block(args):
                    break
                if notices is not None and notices.wants(spec, args):
                    break
                if guards is not None and lane < LANE_WRITE and guards.wants(spec, args):
                    break
                if values is None:
                    raws.append(raw)
                elif spec.is_write:
                    if not values.send_write(raws, spec, args, raw, in_effect=client.classed):
                        break
                else:
                    concern = values.concern(spec, args)
                    if concern is ALL:
                        break
                    judged = judged or concern is READ
                    raws.append(raw)
                if lane >= LANE_WRITE:
                    for key in named:
                        keys.append(b"$%d\r\n%b\r\n" % (len(key), key))  # most have one
                    if lane != LANE_WRITE:
                        guarded.append((spec, args))
                at += 1
                if at - first >= most:
                    break
            count = at - first
            if not count:
                return at
            if link is None:
                link = client.route()
            if link is None:
                for _ in range(count):
                    client.reply(client.why_not())
            elif common == LANE_READ and not judged:
                asked = raws[0] if count == 1 else b"".join(raws)
                slot = ReadSlot(client, asked)
                slot.left = count
                client.owe(slot)
                link.submit(asked, slot)
            else:
                if common == LANE_WRITE:
                    engine.begin_write(keys)
                    slot = WriteSlot(client, engine, keys)
                elif common == LANE_FALLBACK and guards is not None:
                    engine.begin_write(keys)
                    slot = FallbackSlot(client, guards, keys, guarded)
                    guards.wait(slot)
                elif judged and values is not None:
                    slot = WholeSlot(client, [asked for asked, _ in requests[first:at]], values)
                else:
                    slot = EffectSlot(client)
                slot.left = count
                client.owe(slot)
                link.submit(raws[0] if len(raws) == 1 else b"".join(raws), slot)
            if most == 1:
                return at
        return at

    def _take_pinned(self, client: Downstream, args: list[bytes], raw: Raw) -> bool:
        """Route a command of a client that has a link of its own; False = it must wait."""
        guards = self.engine.guards
        state = None if client.pin is None else client.pin.state
        if guards is not None and state is not None and not (state.multi or state.watching or state.stream):
            spec = client.rights.table.find(args)
            if guards.wants(spec, args):
                guarded = guards.begin(client, raw, (spec, args))
                return guarded is None or self.pinned_commands.take(guarded, args, raw)
        return self.pinned_commands.take(client, args, raw)

    def instead(self, client: Downstream, args: list[bytes], error: bytes) -> bytes:
        """Return what a command gets for which no connection could be opened: what its fallback says, or the error."""
        guards = self.engine.guards
        spec = client.rights.table.find(args)
        failure = failure_of(error)
        if guards is None or failure is None or not guards.wants(spec, args):
            return error
        if failure is Failure.REFUSED and client.route() is not None:
            return error  # Redis lets no more links in, and serves those that stand: the key is there
        found = guards.answer(client, spec, args, failure)
        if found is None:
            return error
        self.stats.failed -= 1  # whoever asks has counted one
        return found

    def _special(self, client: Downstream, spec: CommandSpec, args: list[bytes], raw: Raw) -> bool:
        """Route what is neither a plain read nor a plain write; False = it must wait."""
        guards = self.engine.guards
        if guards is None or (client.namespace is not None and is_of_one(spec)) or not guards.wants(spec, args):
            return self._route(client, spec, args, raw)
        guarded = guards.begin(client, raw, (spec, args))
        return guarded is None or self._route(guarded, spec, args, raw)

    def _route(self, client: Downstream, spec: CommandSpec, args: list[bytes], raw: Raw) -> bool:
        kind = spec.kind
        namespace, shadowed = client.namespace, client.shadow
        selective = self.engine.selective
        if is_of_many(spec, args) or (
            selective and is_joined(spec, args) and client.session.identity.user in selective
        ):
            namespace = shadowed = None
        is_whole_read = kind in WHOLE_READS and (namespace or shadowed) is not None
        notices = self.notices
        is_announced = notices is not None and kind in _ANNOUNCED and notices.wants(spec, args)
        if is_announced and notices is not None and not notices.is_ready(client):
            return False
        if self.value_commands is not None and not is_whole_read and self.value_commands.concerns(spec, args):
            way = self.value_commands.take(client, spec, args, raw)
            if way is Way.SENT:
                return True
            if way is Way.PINNED:
                return self._pinned(client, args, raw)
        if shadowed is not None and kind in READ_KINDS and len(args) > 1:
            shadow(self.reads, client, spec, args, raw)
            return True
        if is_whole_read and namespace is not None and len(args) > 1:
            if kind is _MGET:
                self.reads.mget(client, namespace, args[1:])
                return True
            if len(args) == 2:
                self.reads.get(client, namespace, bulk(args[1]))
                return True
        if kind is Kind.CACHED and namespace is not None and len(args) > 1:
            self.reads.read(client, namespace, spec, args, raw)
            return True
        if kind in READ_KINDS:  # of wrong arity (Redis has the words), or L1 is not asked
            self._forward(client, raw, ReadSlot(client, raw))
            return True
        if kind is Kind.FIELD_EXPIRY:
            self.engine.let_fields_expire()
            self._write(client, spec, args, raw)
            return True
        is_plain = kind in (Kind.READ, Kind.WRITE) and not (spec.blocks_if and spec.may_block(args))
        if is_plain and spec.keys is not None:  # announced, or of a class with a fallback: else it had gone with others
            self._write(client, spec, args, raw)
            return True
        if is_plain:
            self._forward(client, raw, EffectSlot(client) if spec.is_write else ReadSlot(client, raw))
            return True
        if kind is Kind.WRITE_ALL:
            if client.route() is None:
                client.reply(client.why_not())
            else:
                self.engine.begin_write_all()
                self._forward(client, raw, WriteAllSlot(client, self.engine, self.services.after_all(spec.name)))
            return True
        if kind is Kind.FORBIDDEN:
            client.quit()
            return True
        if kind is Kind.SESSION and (self.session_commands.answer(client, args, raw) or client.parked):
            return not client.parked
        return self._pinned(client, args, raw)

    def _pinned(self, client: Downstream, args: list[bytes], raw: Raw) -> bool:
        """Send a command that needs a connection of its own; False = it must wait."""
        if client.queue:
            return False  # what it asked for before comes first
        if not client.pin_down(anywhere=client.rights.table.find(args).name in ENDS):
            return False
        return self.pinned_commands.take(client, args, raw)

    def _write(self, client: Downstream, spec: CommandSpec, args: list[bytes], raw: Raw) -> None:
        """Forward one write of known keys."""
        assert spec.keys is not None
        keys = [bulk(bytes(key)) for key in spec.keys(args)]
        link, notices = client.route(), self.notices
        if link is None:
            client.reply(client.why_not())
            return
        notice = None if notices is None else notices.notice(client, spec, args, notices.mark())
        self.engine.begin_write(keys)
        slot = WriteSlot(client, self.engine, keys)
        if notices is None or notice is None:
            self._forward(client, raw, slot)
        else:
            client.owe(slot)
            notices.submit(client, link, notice, (raw, slot))

    def _forward(self, client: Downstream, raw: Raw, slot: Slot) -> None:
        link = client.route()
        if link is None:
            client.reply(client.why_not())
            return
        client.owe(slot)
        link.submit(raw, slot)

    @staticmethod
    def _hold(client: Downstream, why: str, requests: list[Request]) -> None:
        """Park the command at hand and those behind it; a SKIP that was meant for it still is when it goes on."""
        session = client.session
        if client.muting and not session.muted:
            client.muting = False
            session.skips = 1
        client.park(why, requests)

    @staticmethod
    def _mute(client: Downstream) -> None:
        """Decide whether the command at hand gets a reply (CLIENT REPLY OFF, SKIP)."""
        session = client.session
        was = client.muting
        client.muting = session.muted or session.skips == 1
        if session.skips:
            session.skips -= 1
        elif was and not client.muting:
            client.rescope()  # reads may be answered from L1 again
