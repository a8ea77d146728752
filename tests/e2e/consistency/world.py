"""What all actors of a run share: the keys, the rules for reading them, what was counted and what was found."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Generator
from typing import Any

import attrs
import hiredis

from .loop import Ask, LostError, Port
from .oracle import Register, Start
from .reads import Read

OUTCOME_S = 0.3
"""After so long nothing is left of a connection that was killed: Redis has executed what it had received."""

STEP_S = 0.01
MARKS = 16
CHANGES = 8
"""What is told of a violation: what had gone wrong before it, and the last changes of its key."""

AWAY = ("respite: upstream", "LOADING", "READONLY")
"""Errors that are no answer: Redis is not there, or not yet, or was told to follow another."""

Steps = Generator[Ask | float, Any, None]
"""A part of an actor."""


@attrs.define
class Counts:
    """What was done."""

    reads: int = 0
    commands: Counter[str] = attrs.field(factory=Counter)  # of the reads
    writes: int = 0
    foreign_writes: int = 0
    moved: int = 0  # keys renamed and copied
    flushes: int = 0
    unknown: int = 0
    refused_reads: int = 0


@attrs.define(eq=False)
class World:
    """What all actors share."""

    rng: random.Random
    registers: list[list[Register]]  # by database
    bound_s: float
    direct: list[Port]  # by database, for those who write over
    counts: Counts = attrs.field(factory=Counts)
    violations: list[str] = attrs.field(factory=list)
    is_stopping: bool = False
    is_frozen: bool = False  # Redis does nothing just now
    flushing: set[int] = attrs.field(factory=set)  # databases in which nobody may begin to write
    marks: deque[tuple[float, str]] = attrs.field(factory=lambda: deque(maxlen=MARKS))  # when what went wrong
    _serial: int = 0

    def serial(self) -> int:
        """Return a number that is higher than any before."""
        self._serial += 1
        return self._serial

    def start(self, register: Register, port: Port) -> Start:
        """Note that a read starts."""
        return register.start(time.monotonic(), self.bound_s, port.who)

    def judge(self, register: Register, start: Start, read: Read, reply: Any, before: int | None = None) -> None:
        """Check one reply."""
        if is_away(reply):
            self.counts.refused_reads += 1
            return
        self.counts.reads += 1
        self.counts.commands[str(read.words[0])] += 1
        now = time.monotonic()
        if wrong := register.judge(start, now, read, reply, before=before):
            asked = f"asked {start.at - now:.3f} when {start.floor} was known"
            self.blame(register, f"{read.words!r} through {start.who}, {asked}, got {str(reply)[:400]}: {wrong}")

    def blame(self, register: Register, wrong: str) -> None:
        """Note a violation, with what one needs to know to understand it."""
        now = time.monotonic()
        lines = register.history(now, CHANGES) + [f"{at - now:.3f} {what}" for at, what in self.marks]
        self.violations.append("\n    ".join([f"db {register.db} {register.key!r}: {wrong}", *lines]))

    def mark(self, what: str) -> None:
        """Note what goes wrong."""
        self.marks.append((time.monotonic(), what))

    def count(self, who: int) -> None:
        """Note a write."""
        if who >= 0:
            self.counts.writes += 1
        else:
            self.counts.foreign_writes += 1

    def rest(self, seconds: float) -> Steps:
        """Wait for so long, or until it is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.is_stopping:
            yield 0.05

    def settle(self) -> Steps:
        """Wait until what was sent has been executed or never will be.

        In short steps: when everything stands still, as on a machine that is short of cores, one of them is late. One
        long wait would be over as soon as this process goes on, and what the others had still to do yet to come.
        """
        yield from _steps(OUTCOME_S)
        while self.is_frozen:
            while self.is_frozen:
                yield 0.005
            yield from _steps(OUTCOME_S)

    def hold(self, *dbs: int) -> Steps:
        """Wait until nobody writes to these databases, and let nobody begin."""
        for db in dbs:
            while db in self.flushing:
                yield 0.002
            self.flushing.add(db)
        while any(register.is_busy for db in dbs for register in self.registers[db]):
            yield 0.001

    def let_go(self, *dbs: int) -> None:
        """Let writers go on."""
        self.flushing.difference_update(dbs)


def _steps(seconds: float) -> Steps:
    """Wait for so long, not counting for how long this process was held up."""
    for _ in range(round(seconds / STEP_S)):
        yield STEP_S


def is_away(reply: Any) -> bool:
    """Tell whether a reply says that there is no Redis to ask."""
    return isinstance(reply, hiredis.ReplyError) and any(words in str(reply) for words in AWAY)


def ask(port: Port, data: bytes, count: int) -> Generator[Ask | float, Any, list[Any]]:
    """Ask until there is an answer, however often the connection is lost; for what may be done twice."""
    while True:
        while port.waiting is not None:
            yield 0.001
        try:
            replies: list[Any] = yield Ask(port, data, count)
        except LostError:
            continue
        if not any(is_away(reply) for reply in replies):
            return replies
        yield 0.005
