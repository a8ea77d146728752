"""Whether Redis is up, slow or away, as one worker sees it, and who hears of a change.

    links  --failed, answered-->  breaker --> state, since --> on_away, on_back
    groups --lost, linked------>  away: the scopes that have no link now
    slow replies, LOADING, BUSY ->  slow, for a while

Owns the state and what is counted of outages. What is served meanwhile is `fallbacks`'; the links themselves and when
they knock again are `net`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal, Protocol

from proxy.cache.entry import Scope
from proxy.core.outage.breaker import Breaker
from proxy.core.outage.fallbacks import Fallbacks
from proxy.core.outage.remains import Remains
from proxy.core.outage.stand_in import BRIEF
from proxy.values.rules import ClassRules

if TYPE_CHECKING:
    from proxy.cache.entry import Namespace
    from proxy.config.model import Settings
    from proxy.core.downstream import Downstream
    from proxy.core.engine import Engine
    from proxy.core.policy import Policy
    from proxy.core.slots import Failure, RetrySlot
    from proxy.wire.commands import CommandSpec

State = Literal["up", "slow", "away"]
SLOW_S: Final = 1.0
"""How long Redis counts as slow after a reply that was late, or said that it is busy."""
KINDS: Final = (b"LOADING", b"MASTERDOWN", b"BUSY", b"READONLY", b"OOM", b"MISCONF", b"NOREPLICAS")
"""Refusals that are Redis' own state, and not about what was asked; counted by these words."""


class Memory(Protocol):
    """What takes commands of classes with `offline = "memory"` while Redis is away."""

    def first(self, client: Downstream, spec: CommandSpec, args: list[bytes]) -> bytes | None:
        """Return the reply to a command on a key that is still held, before it goes to Redis; None when none is."""

    def take(self, client: Downstream, spec: CommandSpec, args: list[bytes], failure: Failure) -> bytes | None:
        """Return the reply to a command that Redis did not answer; None when it is not for us."""

    @property
    def is_holding(self) -> bool:
        """Whether anything is held, whatever the classes say by now."""

    def has(self, key: bytes) -> bool:
        """Return whether a key is held, for any user, in any database."""

    def invalidate(self, db: int, versions: Iterable[tuple[bytes, int | None]]) -> None:
        """Take note that what is held of keys is wrong, where it is not newer than a version; None: in any case."""


class Outage:
    """One a worker: `engine.outage`."""

    def __init__(self, engine: Engine) -> None:
        self.breaker = Breaker()
        self.remains = Remains(engine)
        self.fallbacks = Fallbacks(engine, self)
        self.memory: Memory | None = None
        self.away: set[Scope] = set()  # scopes whose link is lost and not there again
        self.on_away: list[Callable[[], None]] = []  # the breaker has opened
        self.on_back: list[Callable[[], None]] = []  # .. and closed again
        self.on_linked: list[Callable[[Scope], None]] = []
        """Told of a scope that has a link (again), in the wake-up that brings it; what is submitted then goes behind
        what waited for it, and before anything else."""
        self.on_readonly: Callable[[], None] = lambda: None  # a write was refused by what is a replica
        self.find_class: Callable[[bytes], ClassRules | None] = lambda _key: None
        self.longest_s = 0.0  # of all classes' stale_if_error
        self.base_s = (
            0.0  # how long what L1 held may be gone on from in memory; 0.0 where no class takes commands there
        )
        self.takes_commands = False  # .. or one does
        self.retried = 0  # reads that were asked once more because their link was lost
        self.refusals: Counter[str] = Counter()  # by KINDS
        self._engine = engine
        self._retries: list[tuple[float, RetrySlot]] = []
        self._is_busy = False  # it has let a link in, and said that it cannot answer yet
        self._slow_until = 0.0
        self._slow_since = 0.0
        self._slow_why = ""
        self.fallback_classes: tuple[ClassRules, ...] = ()
        self.max_staleness_s = 0.0

    @property
    def state(self) -> State:
        """Whether Redis answers, answers late or not now, or cannot be reached."""
        if self.breaker.is_open:
            return "away"
        return "slow" if self._engine.now < self._slow_until else "up"

    @property
    def since(self) -> float:
        """When the state began, in seconds of the reactor's clock; 0.0 before Redis has answered or failed."""
        if self.state == "slow":
            return self._slow_since
        return max(self.breaker.since, self._slow_until) if self.state == "up" else self.breaker.since

    @property
    def why(self) -> str:
        """Why Redis is not up; "" while it is."""
        return {"up": "", "slow": self._slow_why, "away": self.breaker.why}[self.state]

    def take(self, policy: Policy, settings: Settings) -> None:
        """Follow these classes and settings from now on."""
        self.max_staleness_s = settings.l1.max_staleness_s
        self.fallbacks.soft_timeout_s = settings.upstream.soft_timeout_s
        self.fallbacks.late_s = settings.upstream.response_timeout_s / 4
        self.find_class = policy.rules.find
        self.fallback_classes = tuple(one for one in policy.rules.classes if one.has_fallback)
        self.longest_s = max((one.stale_if_error_s for one in policy.rules.classes), default=0.0)
        self.remains.max_bytes = settings.outage.stale_bytes
        self.takes_commands = any(one.offline == "memory" for one in policy.rules.classes)
        self.base_s = settings.l1.max_age_s if self.takes_commands else 0.0
        is_holding = self.memory is not None and self.memory.is_holding
        self._engine.guards = self.fallbacks if policy.has_fallbacks or is_holding else None

    # -- told by the links --------------------------------------------------------------------------------------------

    def failed(self, why: str) -> None:
        """Note that Redis cannot be reached, or does not answer."""
        if self.breaker.fail(self._engine.now, why):
            for told in self.on_away:
                told()

    def answered(self, *, is_ready: bool = True) -> None:
        """Note that Redis has let a link in. What was kept for its absence goes before anything is sent.

        Not while it only says that it is busy: then that goes once it answers (`heard`).
        """
        self._is_busy = not is_ready
        if is_ready:
            self.fallbacks.end_outage()
        if self.breaker.succeed(self._engine.now):
            for told in self.on_back:
                told()

    def heard(self) -> None:
        """Note that Redis has answered a PING: it is not busy any more."""
        if self._is_busy:
            self._is_busy = False
            self.fallbacks.end_outage()

    def lost(self, scope: Scope) -> None:
        """Note that a scope has no link."""
        self.away.add(scope)

    def linked(self, scope: Scope) -> None:
        """Note that a scope has a link, and no client has heard of it yet."""
        self.away.discard(scope)
        for told in self.on_linked:
            told(scope)

    def forget(self, scope: Scope) -> None:
        """Note that nobody uses a scope any more."""
        self.away.discard(scope)

    def refused(self, reply: bytes) -> None:
        """Take note of an error of Redis: its own state may be the reason."""
        word = reply[1 : reply.find(b" ")] if b" " in reply[:32] else reply[1:32].strip()
        if word not in KINDS:
            return
        self.refusals[word.decode()] += 1
        if word == b"READONLY":
            self.on_readonly()
        elif reply.startswith(BRIEF):
            self.slow(f"it says {word.decode()}")

    def invalidated(self, db: int, versions: Iterable[tuple[bytes, int | None]]) -> None:
        """Take note of keys that an event, or somebody, says are wrong: also where Redis has not heard of them yet."""
        if self.memory is not None and self.memory.is_holding:
            self.memory.invalidate(db, versions)

    def slow(self, why: str) -> None:
        """Note that Redis is late, or says that it cannot answer now."""
        now = self._engine.now
        if now >= self._slow_until:
            self._slow_since = now
        self._slow_until = now + SLOW_S
        self._slow_why = why

    def retry(self, slot: RetrySlot, until: float) -> None:
        """Count a read that is asked once more, and end its wait in time: it may have waited for long already."""
        self.retried += 1
        self._retries.append((until, slot))

    def _end_retries(self, now: float) -> None:
        self._retries = [(until, slot) for until, slot in self._retries if slot.reply is None]
        late = [slot for until, slot in self._retries if until <= now]
        for slot in late:
            self._engine.stats.failed += 1
            slot.give_up()

    # -- what L1 held -------------------------------------------------------------------------------------------------

    def keep(self, namespace: Namespace) -> None:
        """Keep what L1 holds of a namespace, before it is dropped because a link was lost."""
        if self.longest_s or self.base_s:
            self.remains.keep(namespace, min(self._engine.now, self.proven_until()))

    def proven_until(self, rules: ClassRules | None = None) -> float:
        """Return up to when L1 is, or was, proven to be no older than is allowed."""
        bound_s = None if rules is None else rules.max_staleness_s
        return self._engine.proven_at + (self.max_staleness_s if bound_s is None else bound_s)

    def tick(self, now: float) -> None:
        """Do what is due."""
        self.fallbacks.tick(now)
        if self._retries:
            self._end_retries(now)
        if not self.remains.is_empty:
            self.remains.tick(now)
