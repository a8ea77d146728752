"""What goes wrong with Redis itself: it is frozen, crashes and comes back, is replaced by its replica.

    frozen       stopped for longer than `max_staleness`, then let go on: its sockets stay open
    crash        killed, and started again with all that it had acknowledged
    wiped        killed, and started again with nothing
    switch       the replica has everything, is made the primary, and everybody is led to it
    split        the replica is made the primary while writes still go to the old one: those are lost, all at once

A server that was replaced comes back as the replica of the one that replaced it. Nobody writes while the oracle is
told what has become of the data; readers go on all the time.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

import attrs

from ..raw import Arg, encode
from ..servers import Server, ServerOptions
from .faults import Faults, harm_links
from .loop import Actor, Port
from .oracle import DIRECT, EXPIRY_SLACK_S, FOREVER, Register
from .reads import Read
from .reads_sorted import whole
from .states import NOTHING, TYPES, State
from .world import Steps, World, ask

KINDS = ("frozen", "split", "crash", "wiped", "switch")
OPTIONS = ServerOptions(
    # What was acknowledged has been written to the file, though perhaps not to the disk.
    extra=("appendonly yes", "appendfsync no", "repl-diskless-sync-delay 0", "repl-diskless-sync yes")
)
HARM_S = 1.0
"""How long only links suffer between two troubles of Redis."""


@attrs.define(eq=False)
class Trouble:
    """The servers, and what happens to them."""

    world: World
    relays: list[Faults]
    primary: Server
    replica: Server
    ports: list[Port]  # those of strangers, who are told at once where Redis is
    max_staleness_s: float
    harm: tuple[str, ...]
    kinds: tuple[str, ...]
    opened: list[Port] = attrs.field(factory=list)
    brought_back: int = 0  # values that were overwritten when a fail-over brought them back

    def actor(self) -> Actor:
        """Give trouble until it is over, with quiet times in which L1 can be of use."""
        rng = self.world.rng
        kinds: list[str] = []
        yield 0.5
        while not self.world.is_stopping:
            end = time.monotonic() + HARM_S
            while time.monotonic() < end and not self.world.is_stopping:
                yield from harm_links(self.world, self.relays, self.max_staleness_s, self.harm)
            if not kinds:
                kinds = list(self.kinds)
                rng.shuffle(kinds)
            if kinds and not self.world.is_stopping:
                kind = kinds.pop()
                self.world.mark(kind)
                yield from getattr(self, f"_{kind}")()
                self.world.mark(f"{kind} is over")
                self.relays[0].given[kind] += 1

    def _frozen(self) -> Steps:
        self.world.is_frozen = True
        self.primary.pause()
        yield self.max_staleness_s * self.world.rng.choice((1.2, 2.0, 3.0))
        self.primary.resume()
        self.world.is_frozen = False

    def _crash(self) -> Steps:
        # What it has taken over from a primary is in its file only when that has been written anew.
        yield from self._until(self.primary, aof_rewrite_in_progress="0", aof_rewrite_scheduled="0")
        self.primary.kill()
        yield self.world.rng.choice((0.0, 0.3))
        self.primary.start()

    def _wiped(self) -> Steps:
        world = self.world
        yield from world.hold(0, 1)
        now = time.monotonic()
        changes = [(register, register.begin(now, NOTHING)) for keys in world.registers for register in keys]
        self._wipe(self.primary)
        self.primary.start()
        for register, change in changes:
            register.done(change, time.monotonic(), who=DIRECT)
        world.let_go(0, 1)

    def _switch(self) -> Steps:
        yield from self._attach()
        yield from self.world.hold(0, 1)
        offset = int(self.primary.info("master_repl_offset"))
        while int(self.replica.info("slave_repl_offset")) < offset:
            yield 0.01
        self._order(self.replica, "REPLICAOF", "NO", "ONE")
        yield from self._fail_over()

    def _split(self) -> Steps:
        yield from self._attach()
        self._order(self.replica, "REPLICAOF", "NO", "ONE")
        yield self.world.rng.choice((0.1, 0.3))
        yield from self.world.hold(0, 1)
        yield from self._fail_over()

    def _fail_over(self) -> Steps:
        """Lead everybody to the new primary, while nobody writes."""
        world, old, new = self.world, self.primary, self.replica
        began_at = time.monotonic()
        yield from self._take_stock(new)
        took_s = time.monotonic() - began_at
        world.mark("all is known that the new primary has")
        self._wipe(old)
        for faults in self.relays:
            faults.lead_to(new)
        for port in (*self.ports, *world.direct):
            port.address, port.is_spoiled = new.address, True
        now = time.monotonic()
        for register in (register for keys in world.registers for register in keys):
            last = register.last
            register.done(last, now, who=DIRECT, lifetime_s=last.gone_after + EXPIRY_SLACK_S + took_s - now)
        self.primary, self.replica = new, old
        world.let_go(0, 1)
        old.start()
        self._order(old, "REPLICAOF", "127.0.0.1", new.port)

    def _take_stock(self, server: Server) -> Steps:
        """Tell the oracle what a server has of every key, and until when."""
        for db, registers in enumerate(self.world.registers):
            port = Port(server.address, db=db)
            replies = yield from ask(
                port, b"".join(encode("TYPE", register.key) for register in registers), len(registers)
            )
            found = [(register, kind) for register, kind in zip(registers, replies, strict=True) if kind != b"none"]
            reads = {register.key: whole(_family(register, kind), register.key) for register, kind in found}
            data = b"".join(encode(*read.words) + encode("PTTL", key) for key, read in reads.items())
            asked_at = time.monotonic()
            replies = (yield from ask(port, data, 2 * len(reads))) if reads else []
            pairs = zip(replies[::2], replies[1::2], strict=True)
            answers = dict(zip(reads, pairs, strict=True))
            for register in registers:
                value, pttl_ms = answers.get(register.key, (None, -2))
                state = NOTHING
                if pttl_ms != -2:
                    state = self._recognise(register, reads[register.key], value)
                lifetime_s = pttl_ms / 1000 if pttl_ms >= 0 else FOREVER
                # How long the reply was on its way nobody knows: it may have counted from when it was asked for.
                register.begin(asked_at, state, lifetime_s=lifetime_s)
            self.opened.append(port)

    def _recognise(self, register: Register, read: Read, value: Any) -> State:
        got = read.see(value)
        for change in reversed(register.changes):
            if change.exists and read.expect(change.state) == got:
                self.brought_back += change is not register.last
                return change.state
        self.world.blame(register, f"the replica has {str(value)[:100]}")
        return NOTHING

    def _wipe(self, server: Server) -> None:
        """Kill a server, with its data."""
        server.kill()
        shutil.rmtree(server.directory / "appendonlydir", ignore_errors=True)
        for path in server.directory.glob("*.[ar][od][fb]"):
            path.unlink()

    def _attach(self) -> Steps:
        """Wait until the replica follows the primary."""
        yield from self._until(self.replica, master_link_status="up")

    def _until(self, server: Server, **fields: str) -> Steps:
        """Wait until INFO of a server says all this."""
        deadline = time.monotonic() + 20
        while any(server.info(name) != value for name, value in fields.items()):
            assert time.monotonic() < deadline, f"{server.url} does not come to {fields}"
            yield 0.01

    def _order(self, server: Server, *words: Arg) -> None:
        with server.connect() as client:
            assert client.command(*words) == b"+OK\r\n"


def _family(register: Register, kind: bytes) -> str:
    return next(family for family in register.families if TYPES[family] == kind)
