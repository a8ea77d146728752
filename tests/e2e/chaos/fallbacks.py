"""Clients of classes with a fallback: they must never notice that Redis is away.

A `Reader` reads old values for bad times; another app changes them, behind the proxies. A `Keeper` writes what is taken
in memory meanwhile: with versions it is what was written last, in the end too; without, it may be gone once Redis is
back, and is never anything older.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from itertools import cycle

import attrs

from .claims import Register
from .clients import FailedError, NotConnectedError
from .ledger import MEMORY, PLAIN, STALE
from .traffic import AFTER_ERROR_S, Ask, Stage

READ_EVERY_S = 0.02  # often enough that all are in L1 when something falls
JUST_S = 0.5  # what Redis had answered as it fell
BACK_S = 2.0  # until it is found again


@attrs.define(eq=False)
class Reader:
    """Reads a few keys of a class with old values for bad times; somebody changes them behind the proxies."""

    stage: Stage
    ask: Ask
    rng: random.Random
    registers: Sequence[Register]
    last: dict[str, tuple[int, int]] = attrs.field(factory=dict)  # what the last two reads of a key found

    def run(self) -> None:
        """Read until the end of the run."""
        for register in cycle(self.registers):  # in turn: each is read anew soon after it has changed
            if self.stage.stop.is_set():
                break
            now = time.monotonic()
            floor = register.floor(now - self.stage.staleness_s)
            old_floor = register.floor(now - self.stage.staleness_s - self.stage.stale_if_error_s)
            group = STALE if self.is_known(register) else PLAIN
            try:
                number = int(self.ask("GET", register.key, group=group) or 0)
            except (FailedError, NotConnectedError) as error:
                if isinstance(error, NotConnectedError) or error.how == "closed":
                    self.last.clear()  # who answers next has seen nothing yet
                time.sleep(AFTER_ERROR_S)
            else:
                self.last[register.key] = number, self.last.get(register.key, (0, 0))[0]
                self._judge(register, number, floor, old_floor)
            time.sleep(READ_EVERY_S)
        self.ask.client.close()

    def is_known(self, register: Register) -> bool:
        """Tell whether the proxy must have it: read twice since it changed, but for changes while things are fallen."""
        window = next(reversed(self.stage.ledger.windows), None)
        is_fallen = window is not None and window.ended > time.monotonic()
        newest = register.floor(window.began if window is not None and is_fallen else time.monotonic())
        return min(self.last.get(register.key, (0, 0))) >= max(newest, 1)

    def _judge(self, register: Register, number: int, floor: int, old_floor: int) -> None:
        self.stage.claims.reads += 1
        now = time.monotonic()
        window = next(reversed(self.stage.ledger.windows), None)
        is_fallen = window is not None and now < window.ended + self.stage.staleness_s
        if number < (old_floor if is_fallen else floor):
            self.stage.claims.stale += 1
            self.stage.ledger.blame(f"{self.ask.who} read {number} of {register.key}, {floor} was there before")


@attrs.define(eq=False)
class Keeper:
    """Writes and reads keys that nobody else does: texts, and fields of hashes."""

    stage: Stage
    ask: Ask
    rng: random.Random
    registers: Sequence[Register]

    def run(self) -> None:
        """Work until the end of the run."""
        while not self.stage.stop.is_set():
            register = self.rng.choice(self.registers)
            try:
                if self.rng.random() < 0.5:
                    self._write(register)
                else:
                    self._read(register)
            except (FailedError, NotConnectedError):
                time.sleep(AFTER_ERROR_S)
            time.sleep(self.stage.pause_s * self.rng.random())
        self.ask.client.close()

    def _write(self, register: Register) -> None:
        register.sent += 1
        words = ("HSET", register.key, "f") if is_hash(register) else ("SET", register.key)
        self.ask(*words, written(register.sent), group=MEMORY)
        register.raised(register.sent)

    def _read(self, register: Register) -> None:
        floor = register.floor(time.monotonic())
        words = ("HGET", register.key, "f") if is_hash(register) else ("GET", register.key)
        number = read(self.ask(*words, group=MEMORY))
        self.stage.claims.reads += 1
        is_gone = number == 0 and (may_vanish(register) or self.is_out_of_reach(register))
        if not (floor <= number <= register.sent or is_gone):
            self.stage.claims.stale += 1
            self.stage.ledger.blame(f"{self.ask.who} read {number} of {register.key}, not {floor} to {register.sent}")

    def is_out_of_reach(self, register: Register) -> bool:
        """Tell whether Redis is away, or was until just now, and had been told last what is to be read."""
        at, _ = register.acked[-1]
        windows = self.stage.ledger.windows[-1:]
        return any(at < window.began + JUST_S and time.monotonic() < window.ended + BACK_S for window in windows)


def is_hash(register: Register) -> bool:
    """Tell whether a key of a keeper is a hash."""
    return register.key.endswith("hash")


def may_vanish(register: Register) -> bool:
    """Tell whether it carries no version: Redis may have lost it when it is back, rather than have a mix."""
    return register.key.startswith("bare:")


def written(number: int) -> str:
    """Return what is written for a number: a text, as bare numbers carry no version."""
    return f"v{number}"


def read(value: str | bytes | None) -> int:
    """Return the number of what was read, 0 for nothing."""
    text = value.decode() if isinstance(value, bytes) else value
    return int(text[1:]) if text else 0


def keys_of(proxy: int) -> list[str]:
    """Return the keys of the keeper of a proxy."""
    return [f"{name}:{proxy}:{number}" for name in ("memory", "bare") for number in range(3)] + [f"bare:{proxy}:hash"]
