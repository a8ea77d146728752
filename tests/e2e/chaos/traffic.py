"""What the clients of a run do: each in a thread of its own, moves chosen by the seed, every request judged.

An id or a number is written once and never again, whatever came of it: what is in Redis in the end tells what was
done. Who gets an error waits a moment, as clients do.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from .claims import Claims, Register
from .clients import Client, FailedError, NotConnectedError, RawSocket, Word
from .ledger import PLAIN, Failure, Ledger

AFTER_ERROR_S = 0.1
PLACES = 4  # registers of a client
SCRIPT = "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('INCR', KEYS[2])"


@attrs.define(eq=False)
class Stage:
    """What all clients of a run share."""

    ledger: Ledger
    claims: Claims
    staleness_s: float
    """How old a value read through another connection may be."""

    stale_if_error_s: float = 30.0
    pause_s: float = 0.06
    """Between two moves of a client, at most, by chance."""

    stop: threading.Event = attrs.field(factory=threading.Event)
    hold: threading.Event = attrs.field(factory=threading.Event)  # no changes that the fallbacks would not know of


class Ask:
    """Sends the commands of one client, and enters into the ledger how each of them ended."""

    def __init__(self, stage: Stage, client: Client, who: str, proxy: int) -> None:
        self.client = client
        self.who = who
        self.proxy = proxy
        self._stage = stage

    def __call__(self, *words: Word, group: str = PLAIN, wait_s: float = 0.0) -> Any:
        """Send one command. Raises: FailedError, entered already; NotConnectedError, which is no request."""
        began = time.monotonic()
        try:
            reply = self.client.call(*words)
        except FailedError as error:
            self.enter(words, (group, wait_s), began, error)
            raise
        self.enter(words, (group, wait_s), began, None)
        return reply

    def all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Send several at once, FailedError in place of replies that did not come."""
        assert isinstance(self.client, RawSocket)
        began = time.monotonic()
        replies = self.client.call_all(commands)
        for words, reply in zip(commands, replies, strict=True):
            self.enter(words, (PLAIN, 0.0), began, reply if isinstance(reply, FailedError) else None)
        return replies

    def enter(self, words: Sequence[Word], group: tuple[str, float], began: float, error: FailedError | None) -> None:
        """Note one request."""
        ended = time.monotonic()
        how, text = (error.how, str(error)) if error else ("", f"{ended - began:.2f} s")
        what = " ".join(str(word) for word in words)[:80]
        entry = Failure(self.who, self.proxy, group[0], what, began, ended, how, text)
        self._stage.ledger.judge_time(entry, group[1])
        if error:
            self._stage.ledger.fail(entry)
        else:
            self._stage.ledger.succeed(group[0], ended)


@attrs.define(eq=False)
class Actor:
    """One client at work."""

    stage: Stage
    ask: Ask
    rng: random.Random
    _serial: int = 0

    def run(self) -> None:
        """Work until the end of the run."""
        moves = self._moves()
        while not self.stage.stop.is_set():
            move = self.rng.choice(moves)
            try:
                move()
            except FailedError:
                time.sleep(AFTER_ERROR_S)
            except NotConnectedError:
                time.sleep(AFTER_ERROR_S)
            time.sleep(self.stage.pause_s * self.rng.random())
        self.ask.client.close()

    def _moves(self) -> list[Callable[[], None]]:
        moves = [
            *[self._write] * 3,
            *[self._read_own] * 2,
            *[self._read_others] * 6,
            *(self._push, self._add, self._put, self._count, self._multi, self._watch, self._script, self._job),
        ]
        return [*moves, *[self._pipeline] * 4] if isinstance(self.ask.client, RawSocket) else moves

    def _ident(self) -> str:
        self._serial += 1
        return f"{self.ask.who}-{self._serial}"

    # Registers

    def _register(self, place: int) -> Register:
        registers = self.stage.claims.registers
        name = f"{self.ask.who}:{place}"
        if name not in registers:
            registers[name] = Register(f"reg:{name}:0", self.ask.proxy)
        return registers[name]

    def _write(self) -> None:
        place = self.rng.randrange(PLACES)
        register = self._register(place)
        register.sent += 1
        try:
            self.ask("SET", register.key, register.sent)
        except FailedError as error:
            if error.how != "refused":
                # What it holds is not known from now on, nor when that will be written: another key goes on.
                name = f"{self.ask.who}:{place}"
                self.stage.claims.registers[name] = Register(f"reg:{name}:{self._ident()}", self.ask.proxy)
            raise
        register.raised(register.sent)

    def _read_own(self) -> None:
        register = self._register(self.rng.randrange(PLACES))
        floor = register.floor(time.monotonic())
        self.judge(register, floor, self.ask("GET", register.key), "own")

    def _read_others(self) -> None:
        registers = self.rng.choices(list(self.stage.claims.registers.values()) or [self._register(0)], k=2)
        before = time.monotonic() - self.stage.staleness_s
        floors = [register.floor(before) for register in registers]
        if self.rng.random() < 0.3:
            values = self.ask("MGET", *(register.key for register in registers))
        else:
            values = [self.ask("GET", register.key) for register in registers]
        for register, floor, value in zip(registers, floors, values, strict=True):
            self.judge(register, floor, value, "others'")

    def judge(self, register: Register, floor: int, value: Any, whose: str) -> None:
        """Check what a read has found."""
        self.stage.claims.reads += 1
        number = int(value or 0)
        if number < floor:
            self.stage.claims.stale += 1
            self.stage.ledger.blame(
                f"{self.ask.who} read {number} of {whose} {register.key}, {floor} was acknowledged (proxy"
                f" {self.ask.proxy}, written through {register.proxy})"
            )
        elif number > register.sent:
            self.stage.ledger.blame(f"{self.ask.who} read {number} of {register.key}, {register.sent} was sent")

    # What grows

    def _push(self) -> None:
        self._append(self.stage.claims.lists, "list", lambda key, ident: self.ask("RPUSH", key, ident))

    def _add(self) -> None:
        self._append(self.stage.claims.streams, "stream", lambda key, ident: self.ask("XADD", key, "*", "id", ident))

    def _put(self) -> None:
        self._append(self.stage.claims.hashes, "hash", lambda key, ident: self.ask("HINCRBY", key, ident, 1))

    def _count(self) -> None:
        self._append(self.stage.claims.counters, "count", lambda key, _: self.ask("INCR", key))

    def _job(self) -> None:
        self._note([self.stage.claims.jobs], self._ident(), lambda ident: self.ask("LPUSH", "jobs", ident))

    def _append(self, table: Any, name: str, send: Callable[[str, str], Any]) -> None:
        key = f"{name}:{self.ask.who}"
        self._note([self.stage.claims.of(table, key)], self._ident(), lambda ident: send(key, ident))

    def _note(self, claims: Sequence[Any], ident: str, send: Callable[[str], Any]) -> None:
        try:
            is_done = send(ident) is not None
        except FailedError as error:
            for claim in claims:
                claim.note(ident, error.how)
            raise
        except NotConnectedError:
            for claim in claims:
                claim.note(ident, "refused")
            raise
        for claim in claims:
            claim.note(ident, "" if is_done else "refused")

    # Together

    def _pair(self, name: str) -> tuple[str, str, list[Any]]:
        """Return a list and a counter that are only ever changed together."""
        keys = f"{name}:list:{self.ask.who}", f"{name}:count:{self.ask.who}"
        claims = self.stage.claims
        return *keys, [claims.of(claims.lists, keys[0]), claims.of(claims.counters, keys[1])]

    def _multi(self) -> None:
        items, count, both = self._pair("multi")
        self._note(
            both,
            self._ident(),
            lambda ident: self._transaction([("RPUSH", items, ident), ("INCR", count)]),
        )

    def _script(self) -> None:
        items, count, both = self._pair("script")
        self._note(both, self._ident(), lambda ident: self.ask("EVAL", SCRIPT, 2, items, count, ident))

    def _watch(self) -> None:
        claim = self.stage.claims.of(self.stage.claims.counters, "watched")

        def send(_: str) -> Any:
            with self._alone():
                self.ask("WATCH", "watched")
                before = int(self.ask("GET", "watched") or 0)
            return self._transaction([("SET", "watched", before + 1)])

        self._note([claim], self._ident(), send)

    def _transaction(self, commands: Sequence[Sequence[Word]]) -> Any:
        with self._alone():
            self.ask("MULTI")
            for command in commands:
                self.ask(*command)
        # Only EXEC writes: what failed before it is certainly not done.
        return self.ask("EXEC")

    def _alone(self) -> _Undone:
        return _Undone(self.ask.client)

    def _pipeline(self) -> None:
        claims = self.stage.claims
        who = self.ask.who
        idents = [self._ident() for _ in range(self.rng.randint(2, 12))]
        several = [
            (claims.of(claims.lists, f"list:{who}"), ("RPUSH", f"list:{who}")),
            (claims.of(claims.streams, f"stream:{who}"), ("XADD", f"stream:{who}", "*", "id")),
        ]
        chosen = [(ident, *self.rng.choice(several)) for ident in idents]
        try:
            replies = self.ask.all([(*words, ident) for ident, _, words in chosen])
        except NotConnectedError:
            for ident, claim, _ in chosen:
                claim.note(ident, "refused")
            raise
        for (ident, claim, _), reply in zip(chosen, replies, strict=True):
            claim.note(ident, reply.how if isinstance(reply, FailedError) else "")
        for reply in replies:
            if isinstance(reply, FailedError):
                raise reply


class _Undone:
    """Turns a failure inside into one that certainly wrote nothing, and leaves the connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, FailedError):
            self._client.drop()
            raise FailedError("refused", str(error)) from error
