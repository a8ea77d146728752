"""Who asks for what, and how long it takes: commands, hits, errors and latency by class and by command.

    a hit of the fast path   --every Nth--> look()      class, command, and what it waited
    a hit of the slow path   --every Nth--> hit()       class and command
    a miss                   --every Nth--> miss()      class and command
    a batch of requests      --every Nth--> watch() --> Watch, ended when the last of its replies is sent

Owns these sums. They are counted in full at up to 200 a second and sampled above (core.figures.sampling), with weights:
so they add up to what there was, and a class or command that is seldom asked for may be off by one sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from proxy.cache.entry import Entry, ReplyEntry
from proxy.core.figures.sampling import Pace
from proxy.core.figures.stats import Histogram
from proxy.core.figures.watching import Watch
from proxy.wire.encode import unbulk

if TYPE_CHECKING:
    from proxy.core.engine import Engine
    from proxy.values.rules import Rules
    from proxy.wire.commands import CommandTable
    from proxy.wire.request import Request

NO_CLASS: Final = "(none)"  # no class can be called so
OTHER: Final = "(other)"
NAMES_MAX: Final = 128
"""Classes, and commands, that are told apart; what comes after these is one. Nobody has so many, and metrics must not
grow with what clients send."""
WATCHED_MAX: Final = 64  # requests of a batch that are looked at


class Counted:
    """What is counted of one class or command. `waited` is what clients waited, from the request to the reply."""

    __slots__ = ("commands", "errors", "hits", "misses", "waited")

    def __init__(self) -> None:
        self.commands = 0
        self.hits = 0
        self.misses = 0
        self.errors = 0
        self.waited = Histogram()


class Tally:
    """Count for one worker. `class_of` names the class of a key, `clock` is the time now (not of this wake-up)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.class_of: Callable[[bytes], str] = lambda key: NO_CLASS
        self.clock: Callable[[], float] = lambda: engine.now
        self.classes: dict[str, Counted] = {}
        self.commands: dict[str, Counted] = {}
        self.asked = 0  # commands that did not take the fast path
        self.asked_at = 1  # the number of them at which the batch is watched; the pipeline's callers compare it
        self.missed_at = 1  # .. the number of misses at which one is looked at
        self.slow_hits = 0
        self.slow_at = 1  # .. the number of hits off the fast path
        self._is_on = True
        self._fast, self._slow, self._missed, self._batches = self._paces = [Pace() for _ in range(4)]
        self._random = random.Random(0).randrange

    def name_classes(self, rules: Rules) -> None:
        """Follow these classes from now on; what was counted of others stays."""
        find = rules.find

        def class_of(key: bytes) -> str:
            found = find(key)
            return NO_CLASS if found is None else found.name

        self.class_of = class_of

    @property
    def is_on(self) -> bool:
        """Whether anything is looked at."""
        return self._is_on

    @is_on.setter
    def is_on(self, is_on: bool) -> None:
        self._is_on = is_on
        for pace, count in zip(self._paces, self._counts(), strict=True):
            if is_on:
                pace.go(count)
            else:
                pace.stop()
        self._schedule()

    def tick(self) -> None:
        """Look more often again when little goes on. Called some times a second."""
        if self._is_on:
            for pace, count in zip(self._paces, self._counts(), strict=True):
                pace.tick(count, self._engine.now)
            self._schedule()

    def _counts(self) -> Iterator[int]:
        stats = self._engine.stats
        yield stats.hits - self.slow_hits
        yield self.slow_hits
        yield stats.misses
        yield self.asked

    def _schedule(self) -> None:
        """Tell the hot paths when to look."""
        self._engine.stats.look_at = min(self._engine.verifier.next_at, self._fast.next_at + self.slow_hits)
        self.slow_at = self._slow.next_at
        self.missed_at = self._missed.next_at
        self.asked_at = self._batches.next_at

    def look(self, entry: Entry, *, waits: bool = False) -> None:
        """Look at a hit of the fast path, for whoever wanted to see one. `waits`: it is not sent at once."""
        engine = self._engine
        stats, pace = engine.stats, self._fast
        if stats.hits >= engine.verifier.next_at:
            engine.verifier.look(entry)
        fast = stats.hits - self.slow_hits
        if fast >= pace.next_at:
            weight = pace.take(fast, engine.now)
            of_class, of_command = self._of_class(unbulk(entry.key)), self.of_command(command_of(entry))
            of_class.hits += weight
            of_class.commands += weight
            of_command.hits += weight
            of_command.commands += weight
            if not waits:
                waited = (stats.waited, of_class.waited, of_command.waited)
                Histogram.add_to_all(waited, self.clock() - engine.now, weight)
        stats.look_at = min(engine.verifier.next_at, pace.next_at + self.slow_hits)

    def hit(self, entries: Sequence[Entry], command: str = "") -> None:
        """Look at one of some hits off the fast path, of one `command` (else that of the entry): of a batch."""
        weight = self._slow.take(self.slow_hits, self._engine.now)
        self.slow_at = self._slow.next_at
        entry = entries[self._random(len(entries))]
        self._of_class(unbulk(entry.key)).hits += weight
        self.of_command(command or command_of(entry)).hits += weight

    def miss(self, key: bytes, command: str) -> None:
        """Look at a miss of a key."""
        weight = self._missed.take(self._engine.stats.misses, self._engine.now)
        self.missed_at = self._missed.next_at
        self._of_class(key).misses += weight
        self.of_command(command).misses += weight

    def watch(self, requests: Sequence[Request], table: CommandTable) -> Watch:
        """Watch a batch of requests to their end."""
        some = requests[:WATCHED_MAX]
        whose: list[Counted] = []
        for args, _ in some:
            spec = table.find(args)
            whose.append(self.of_command(spec.name.decode("ascii", "replace") or OTHER))
            keys = spec.every_key(args) if spec.every_key is not None and len(args) > 1 else ()
            key = next(iter(keys), None)
            whose.append(self._of_class(None if key is None else bytes(key)))
        return self._watch(whose, len(some))

    def watch_gets(self, keys: Sequence[bytes]) -> Watch:
        """Watch GETs of keys (as bulk strings) to their end."""
        some = keys[:WATCHED_MAX]
        get = self.of_command("GET")
        return self._watch([one for key in some for one in (get, self._of_class(unbulk(key)))], len(some))

    def _watch(self, whose: list[Counted], count: int) -> Watch:
        engine = self._engine
        weight = self._batches.take(self.asked, engine.now)
        self.asked_at = self._batches.next_at
        # A weight for each that was looked at, so that they add up.
        weights = [(weight * (at + 1)) // count - (weight * at) // count for at in range(count)]
        for at, one in enumerate(whose):
            one.commands += weights[at // 2]
        return Watch(whose, weights, engine.now, engine.stats.waited, self.clock)

    def _of_class(self, key: bytes | None) -> Counted:
        return _named(self.classes, NO_CLASS if key is None else self.class_of(key))

    def of_command(self, name: str) -> Counted:
        """Return what is counted of a command."""
        return _named(self.commands, name)


def command_of(entry: Entry) -> str:
    """Return the name of the read that an entry answers."""
    return name_of(entry.request if isinstance(entry, ReplyEntry) else None)


def name_of(request: bytes | None) -> str:
    """Return the name of the read of a raw request; None is a GET."""
    return "GET" if request is None else request.split(b"\r\n", 3)[2].upper().decode("ascii", "replace")


def _named(found: dict[str, Counted], name: str) -> Counted:
    one = found.get(name)
    if one is None:
        name = name if len(found) < NAMES_MAX else OTHER
        one = found.setdefault(name, Counted())
    return one
