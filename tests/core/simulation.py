"""A random walk through a whole worker: every step is one small thing that may happen, and every reply is checked.

Owns the clients' commands and what must be true of their replies. The model Redis knows every state each key has been
in and when, so nothing has to be guessed: a reply must be a state the key was in, not older than a write the reader
could know of, not older than `max_staleness`, not expired, and not younger than what the reader itself asked for next.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
import hiredis

from proxy.wire.encode import command

from .model_redis import Connection, Executed, Place, State
from .world import STALENESS_S, ScriptedClient, World

KEYS = (b"a", b"b", b"big")
DBS = (0, 1)
BIG_BYTES = (70_000, 120_000)  # streamed, and streamed because it is too large for L1


COMMANDS = {
    "GET": 60.0,
    "MGET": 12.0,
    "SET": 4.0,
    **dict.fromkeys(("DEL", "PEXPIRE", "MSET", "EXEC", "WATCH", "SELECT"), 1.0),
    "FLUSHDB": 0.2,
}
"""What clients ask for, and how often."""

RARE = 20
"""What is done less often than this depends on the walk's mood."""


class Violation(AssertionError):  # noqa: N818  # it is a finding, not an error of the program
    """A reply that must not be."""


@attrs.define(eq=False)
class Asked:
    """A command whose reply is awaited."""

    name: str
    places: list[Place]
    sent_at: float
    floors: dict[Place, int]  # what the sender could know of when it sent
    token: bytes = b""  # in the words of a write, to find it again in Redis' log
    watched: frozenset[int] = frozenset()  # for EXEC: what states the read under WATCH may have seen


@attrs.define(eq=False)
class Walker:
    """One client of the walk."""

    client: ScriptedClient
    db: int
    is_lost: bool = False  # nobody knows any more what its next replies are
    awaited: deque[Asked] = attrs.field(factory=deque)
    reader: hiredis.Reader = attrs.field(factory=hiredis.Reader)
    written: dict[Place, int] = attrs.field(factory=dict)  # by itself, as far as it has been told
    read: dict[Place, int] = attrs.field(factory=dict)  # the oldest state its last read may have been


class Simulation:
    """The walk. `rng` decides everything."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self.rng = rng
        self.acked: dict[Place, int] = {}
        self.checked = 0
        self.failed = 0
        self.trace: deque[str] = deque(maxlen=100)
        self._tokens = 0
        self._executed: dict[bytes, Executed] = {}
        self._seen = 0
        self._dying: list[Connection] = []
        self._commands = {name: self._mood(weight) for name, weight in COMMANDS.items()}
        self.walkers = [self._walker() for _ in range(4)]

    def _mood(self, weight: float) -> float:
        """Let this walk do a thing never, seldom or often: what each walk leaves out shows what the others hide."""
        return weight * self.rng.choice((0.0, 0.2, 1.0, 1.0, 3.0)) if weight < RARE else weight

    def _walker(self) -> Walker:
        db, protocol = self.rng.choice(DBS), self.rng.choice((2, 3))
        if not self.world.worker.control.is_up:
            self.world.connect_control()
        return Walker(self.world.client(db=db, protocol=protocol), db)

    def run(self, steps: int) -> None:
        """Walk, then let everything come to rest and compare. Raises: Violation."""
        actions: list[tuple[Callable[[], None], int]] = [
            (self._ask, 30),
            (self._execute, 30),
            (self._deliver, 40),
            (self._foreign, 8),
            (self._pass_time, 10),
            (self._repair, 6),
            (self._calm, 15),
            (self._kill, 3),
            (self._notice, 3),
            (self._replace_client, 1),
        ]
        choices, weights = [action for action, _ in actions], [self._mood(weight) for _, weight in actions]
        try:
            for action in self.rng.choices(choices, weights, k=steps):
                action()
                self._collect()
            self._come_to_rest()
        except Violation as violation:
            violation.add_note("\n".join(self.trace))
            raise

    # -- what may happen ---------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        walker = self.rng.choice(self.walkers)
        data = b"".join(self._command(walker) for _ in range(self.rng.choice((1, 1, 2, 4))))
        if self.rng.random() < 0.2:
            cut = self.rng.randrange(len(data))
            walker.client.send_raw(data[:cut])
            data = data[cut:]
        walker.client.send_raw(data)

    def _command(self, walker: Walker) -> bytes:
        key = self.rng.choice(KEYS)
        other = self.rng.choice(KEYS)
        kind = self.rng.choices(list(self._commands), list(self._commands.values()))[0]
        if kind == "GET":
            return self._note(walker, "GET", [key], b"GET", key)
        if kind == "MGET":
            return self._note(walker, "MGET", [key, other], b"MGET", key, other)
        if kind == "SET":
            words: tuple[bytes, ...] = (b"SET", key, value := self._value(walker.db, key))
            expiry = (b"PX", b"%d" % self.rng.choice((50, 200, 1000))) if self.rng.random() < 0.3 else ()
            return self._note(walker, "SET", [key], *words, *expiry, token=value)
        if kind == "DEL":
            return self._note(walker, "DEL", [key], b"DEL", key, token := self._token(), token=token)
        if kind == "PEXPIRE":
            self._tokens += 1
            milliseconds = b"%d" % (self.rng.choice((30, 200)) * 1_000_000 + self._tokens)
            return self._note(walker, "PEXPIRE", [key], b"PEXPIRE", key, milliseconds, token=milliseconds)
        if kind == "MSET":
            value = self._value(walker.db, key)
            words = (key, value) if key == other else (other, self._value(walker.db, other), key, value)
            return self._note(walker, "MSET", [key], b"MSET", *words, token=value)
        if kind == "FLUSHDB":
            return self._note(walker, "FLUSHDB", list(KEYS), b"FLUSHDB", token := self._token(), token=token)
        if kind == "SELECT":
            walker.db = self.rng.choice(DBS)
            return self._note(walker, "SELECT", [], b"SELECT", b"%d" % walker.db)
        return self._transaction(walker, key, watches=kind == "WATCH")

    def _transaction(self, walker: Walker, key: bytes, *, watches: bool) -> bytes:
        value = self._value(walker.db, key)
        data = b""
        if watches:
            data += self._note(walker, "OTHER", [], b"WATCH", key)
            data += self._note(walker, "WATCHED", [key], b"GET", key)
        data += self._note(walker, "OTHER", [], b"MULTI")
        data += self._note(walker, "OTHER", [], b"SET", key, value)
        return data + self._note(walker, "EXEC" if watches else "BLIND", [key], b"EXEC", token=value)

    def _note(self, walker: Walker, name: str, keys: list[bytes], *words: bytes, token: bytes = b"") -> bytes:
        places = [(walker.db, key) for key in keys]
        floors = {place: self.acked.get(place, 0) for place in places}
        walker.awaited.append(Asked(name, places, self.world.now, floors, token))
        self._say("asks", walker.client.stream.fileno(), *(word[:24] for word in words))
        return command(*words)

    def _token(self) -> bytes:
        self._tokens += 1
        return b"token-%d" % self._tokens

    def _value(self, db: int, key: bytes) -> bytes:
        self._tokens += 1
        head = b"%d|%b|%d|" % (db, key, self._tokens)
        return head.ljust(self.rng.choice(BIG_BYTES), b".") if key == b"big" else head

    def _connection(self) -> Connection | None:
        opened = [c for c in self.world.redis.connections.values() if c.id in self.world.streams]
        return self.rng.choice(opened) if opened else None

    def _execute(self) -> None:
        if (connection := self._connection()) and self.world.execute(connection, self.rng.choice((1, 1, 2, 50))):
            self._say("executed on", connection.name, connection.id)

    def _deliver(self) -> None:
        if (connection := self._connection()) and connection.answers:
            size = self.rng.choice((1, 7, 40, 20_000, 1_000_000, 1_000_000))
            self._say("delivered", min(size, len(connection.answers)), connection.name, connection.id)
            self.world.deliver(connection, size)

    def _foreign(self) -> None:
        db, key = self.rng.choice(DBS), self.rng.choice(KEYS)
        words: tuple[str | bytes, ...] = self.rng.choice(
            (("SET", key, self._value(db, key)), ("SET", key, self._value(db, key), "PX", "100"), ("DEL", key))
        )
        if self.rng.random() < 0.05:
            words = ("FLUSHDB",)
        self._say("a stranger in", db, *(word[:24] for word in words))
        self.world.redis.foreign(*words, db=db)

    def _pass_time(self) -> None:
        self.world.now += self.rng.choice((0.001, 0.02, 0.05, 0.2, 0.6))
        self._say("time is", round(self.world.now, 3))
        if self.rng.random() < 0.8:
            self.world.tick()

    def _repair(self) -> None:
        if not self.world.worker.control.is_up:
            self._say("invalidation link opened")
            self.world.connect_control()
        self.world.run_tasks()

    def _calm(self) -> None:
        self._say("everything moves")
        self.world.settle()

    def _kill(self) -> None:
        if connection := self._connection():
            self._say("killed", connection.name, connection.id)
            self.world.kill(connection)
            self._dying.append(connection)

    def _notice(self) -> None:
        if self._dying:
            connection = self._dying.pop(self.rng.randrange(len(self._dying)))
            self._say("noticed", connection.name, connection.id)
            self.world.notice(connection)

    def _replace_client(self) -> None:
        self._replace(self.rng.randrange(len(self.walkers)))

    def _replace(self, at: int) -> None:
        self._say("closed", self.walkers[at].client.stream.fileno())
        self.walkers[at].client.close()
        while self._dying:  # a new client needs a way in
            self._notice()
        self.walkers[at] = self._walker()

    def _say(self, *words: object) -> None:
        self.trace.append(" ".join(str(word) for word in words))

    # -- what must be true -------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for entry in self.world.redis.log[self._seen :]:
            for word in entry.words[1:]:
                self._executed[word] = entry
        self._seen = len(self.world.redis.log)
        for walker in self.walkers:
            walker.reader.feed(bytes(walker.client.received))
            walker.client.received.clear()
            while not walker.is_lost and (reply := walker.reader.gets()) is not False:
                self._check(walker, walker.awaited.popleft(), reply)
        for at, walker in enumerate(self.walkers):
            if walker.is_lost:
                self._replace(at)

    def _check(self, walker: Walker, asked: Asked, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            if "respite: upstream" not in str(reply):
                raise Violation(f"{asked.name} was answered {reply}")
            self.failed += 1
            if asked.name == "SELECT":  # it is not where we thought it would be
                walker.is_lost = True
        elif asked.name in ("GET", "WATCHED"):
            seen = self._check_value(walker, asked, asked.places[0], reply)
            if asked.name == "WATCHED":
                next(later for later in walker.awaited if later.name == "EXEC").watched = seen
        elif asked.name == "MGET":
            for place, value in zip(asked.places, reply, strict=True):
                self._check_value(walker, asked, place, value)
        elif asked.token and reply is not None:
            self._written(walker, asked)

    def _written(self, walker: Walker, asked: Asked) -> None:
        changes = self._executed[asked.token].changes
        for place, number in changes.items():
            self.acked[place] = max(self.acked.get(place, 0), number)
            walker.written[place] = max(walker.written.get(place, 0), number)
            if walker.read.pop(place, -1) >= number:
                raise Violation(f"{place} was read before it was written, and the read had state {number} already")
            if asked.watched and number - 1 not in asked.watched:
                raise Violation(f"EXEC overwrote a state of {place} that was not the one read under WATCH")

    def _check_value(self, walker: Walker, asked: Asked, place: Place, value: bytes | None) -> frozenset[int]:
        states = self.world.redis.states(*place)
        held = [at for at, state in enumerate(states) if state.data == value]
        floor = max(asked.floors[place], walker.written.get(place, 0))
        shown = value and value[:24]
        if not held:
            raise Violation(f"{place} never was {shown!r}")
        known = [at for at in held if states[at].number >= floor]
        if not known:
            raise Violation(f"{place} was {shown!r}, state {states[held[-1]].number}, in spite of an own write {floor}")
        fresh = [at for at in known if self._end(states, at) >= asked.sent_at - STALENESS_S]
        if not fresh:
            raise Violation(f"{place} was {shown!r}, {asked.sent_at - self._end(states, known[-1]):.3f} s old")
        # What was replaced before its expiry has not expired: it is only old.
        alive = [at for at in fresh if states[at].expires_at > min(asked.sent_at, self._end(states, at))]
        if not alive:
            late_s = asked.sent_at - states[fresh[-1]].expires_at
            raise Violation(f"{place} was {shown!r}, {late_s:.3f} s after its expiry")
        self.checked += 1
        walker.read[place] = states[alive[0]].number
        return frozenset(states[at].number for at in alive)

    @staticmethod
    def _end(states: list[State], at: int) -> float:
        return states[at + 1].since if at + 1 < len(states) else float("inf")

    def _come_to_rest(self) -> None:
        self._say("comes to rest")
        while self._dying:
            self._notice()
        for _ in range(2):  # a lost link is opened again, what waited for it goes on
            self._repair()
            self.world.settle()
            self._collect()
        self.world.pass_time(2 * STALENESS_S)
        self._collect()
        for walker in self.walkers:
            if walker.awaited and not walker.client.connection.closed:
                raise Violation(f"never answered: {[asked.name for asked in walker.awaited]}")
            if walker.client.connection.closed:
                continue
            for key in KEYS:
                value = self.world.redis.look(walker.db, key)
                expected = None if value is None else value.data
                for _ in range(2):
                    if (reply := walker.client.ask("GET", key)) != expected:
                        raise Violation(f"{key!r} stays {reply and reply[:24]!r} for good")
                    self.checked += 1
