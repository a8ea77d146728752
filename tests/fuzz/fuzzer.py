"""The fuzzer: takes an input that brought something, changes it, tries it, keeps it if it brings something new.

    corpus, seeds --> pool --pick, mutate--> input --run--> fine: of some, traced, those with new steps --> pool
                                                        --> raised, hung, took memory: shrunk, a Finding

Owns the loop. The same seed makes the same inputs in the same order, as long as the code and the corpus are the same;
only where it stops goes by the clock.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Final

import attrs
import trio
from trio import TrioInternalError
from trio.testing import MockClock

from . import corpus
from .findings import Finding, place_of
from .lines import Lines, Step
from .mutator import Mutator
from .target import Target
from .watch import HangError, Watch, held_bytes

POOL_MAX: Final = 2000
FINDINGS_MAX: Final = 5
GROWTH_BYTES: Final = 24 << 20
"""How much more memory a process may hold at the end than when it had warmed up."""

WAITS_S: Final = 900
"""How long an input may wait for something, by trio's clock."""

_STRIDE: Final = 3
_STRIDE_MAX: Final = 48
_CALM: Final = 400  # traced inputs in a row that bring nothing, after which fewer are traced
_WARM_SHARE: Final = 0.3  # of a run, before its memory is measured first
_LOOK_EVERY: Final = 256
_SHRINK_TRIES: Final = 400
_SHRINK_TRIES_HANG: Final = 12  # a second each
_SHORTENED_S: Final = 20.0
"""How long inputs of a corpus are made shorter."""
_MADE_SHARE: Final = 0.2


@attrs.define
class Outcome:
    """What a run has shown, in how many seconds, and of these so many of computing.

    `growth_bytes` None: it was too short to be measured.
    """

    target: str
    inputs: int = 0
    seconds: float = 0.0
    computed_s: float = 0.0
    steps: int = 0
    findings: list[Finding] = attrs.field(factory=list)
    pool: list[bytes] = attrs.field(factory=list)
    growth_bytes: int | None = None

    @property
    def is_flat(self) -> bool:
        """Whether memory did not grow."""
        return self.growth_bytes is None or self.growth_bytes <= GROWTH_BYTES


def try_once(target: Target, data: bytes) -> None:
    """Give a target one input. Raises what it raises, HangError and TooMuchMemoryError."""
    trio.run(_Runner(target).judge, data, clock=MockClock(autojump_threshold=0))


async def minimise(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """Return few and short inputs that take the same steps of a target together."""

    async def steps_of(data: bytes) -> frozenset[Step]:
        with lines.trace():
            await runner.error(data)
        return lines.last

    lines = Lines(target.modules)
    runner = _Runner(target)
    with runner.watch.alarm():
        began = time.process_time()
        return await corpus.minimise(inputs, steps_of, lambda: time.process_time() - began > _SHORTENED_S)


def fuzz(
    target: Target,
    *,
    seed: int,
    seconds: float = float("inf"),
    inputs: int | None = None,
    is_guided: bool = True,
    on_finding: Callable[[Finding], None] = lambda _: None,
) -> Outcome:
    """Try inputs for so long, or so many of them; those of the corpus and the seeds come first, and count.

    Not guided, no lines are looked at: quicker, and what is found is what chance finds in changed inputs of the corpus.
    Ends early where FINDINGS_MAX different things were found, or an input has stopped trio itself.
    """
    fuzzer = _Fuzzer(target, seed, on_finding, is_guided=is_guided)
    try:
        return trio.run(fuzzer.fuzz, seconds, inputs or 1 << 62, clock=MockClock(autojump_threshold=0))
    except (HangError, TrioInternalError) as error:  # raised where no target could hand it on: nothing of ours ran
        outcome = fuzzer.outcome
        cause = error.__cause__ if isinstance(error.__cause__, HangError) else error
        outcome.findings.append(Finding(target.name, fuzzer.data, cause, outcome.inputs, seed))
        on_finding(outcome.findings[-1])
        return outcome


class _Runner:
    """Runs inputs, watched."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.watch = Watch(target.jump_bytes, target.slow_s)

    async def judge(self, data: bytes) -> None:
        """Try one by itself."""
        with self.watch.alarm():
            await self.run(data)

    async def run(self, data: bytes) -> None:
        """Try one; the alarm is on. Raises whatever is wrong with it."""
        watch = self.watch
        watch.begin()
        try:
            result = self.target.run(data)
            if result is not None:
                # Where nothing can go on any more, the clock comes to this at once.
                with trio.move_on_after(WAITS_S) as scope:
                    await result
                if scope.cancelled_caught:
                    raise HangError(f"it waits for more than {WAITS_S} s")
        except BaseException:
            watch.leave()
            raise
        watch.end()

    async def error(self, data: bytes) -> BaseException | None:
        """Return what is wrong with one."""
        try:
            await self.run(data)
        except (KeyboardInterrupt, trio.Cancelled):
            raise
        except BaseException as error:
            return error
        return None


class _Fuzzer(_Runner):
    """One run."""

    def __init__(
        self, target: Target, seed: int, on_finding: Callable[[Finding], None], *, is_guided: bool = True
    ) -> None:
        super().__init__(target)
        self._is_guided = is_guided
        self._seed = seed
        self._rng = random.Random(f"{target.name} {seed}")
        self._mutator = Mutator(self._rng, target.tokens, target.max_bytes)
        self._lines = Lines(target.modules)
        self.outcome = Outcome(target.name)
        self._on_finding = on_finding
        self._found: set[str] = set()
        self._stride, self._calm = _STRIDE, 0
        self.data = b""  # the input under way

    async def fuzz(self, seconds: float, inputs: int) -> Outcome:
        """Run, and say what it has shown."""
        outcome = self.outcome
        began, computed = time.monotonic(), time.process_time()
        warm_bytes = 0
        with self.watch.alarm():
            for data in (*corpus.load(self.target.name), *self.target.seeds):
                await self._try(data, is_traced=self._is_guided)
                if not self._is_guided:
                    outcome.pool.append(data)
            while outcome.inputs < inputs and len(outcome.findings) < FINDINGS_MAX:
                await self._try(self._next(), is_traced=self._is_guided and outcome.inputs % self._stride == 0)
                if outcome.inputs % _LOOK_EVERY == 0:
                    outcome.seconds = time.monotonic() - began
                    if outcome.seconds >= seconds:
                        break
                    if not warm_bytes and max(outcome.seconds / seconds, outcome.inputs / inputs) > _WARM_SHARE:
                        warm_bytes = held_bytes()
                    await trio.lowlevel.checkpoint()
        outcome.seconds = time.monotonic() - began
        outcome.computed_s = time.process_time() - computed
        outcome.steps = len(self._lines.seen)
        if warm_bytes:
            outcome.growth_bytes = held_bytes() - warm_bytes
        return outcome

    async def _try(self, data: bytes, *, is_traced: bool) -> None:
        outcome = self.outcome
        outcome.inputs += 1
        self.data = data
        before = len(self._lines.seen)
        with self._lines.trace() if is_traced else nullcontext():
            error = await self.error(data)
        if is_traced:
            self._take(data, is_new=len(self._lines.seen) > before)
        if error is not None and (place := place_of(error)) not in self._found:
            self._found.add(place)
            await self._note(Finding(self.target.name, data, error, outcome.inputs, self._seed))

    async def _note(self, finding: Finding) -> None:
        """Keep a finding, with an input as short as can be found."""

        async def still(data: bytes) -> bool:
            error = await self.error(data)
            return error is not None and place_of(error) == finding.place

        tries = _SHRINK_TRIES_HANG if isinstance(finding.error, HangError) else _SHRINK_TRIES
        data = await corpus.shrink(finding.data, still, tries=tries)
        self.outcome.findings.append(attrs.evolve(finding, data=data))
        self._on_finding(self.outcome.findings[-1])

    def _take(self, data: bytes, *, is_new: bool) -> None:
        """Keep an input that took new steps; trace fewer of them while none does."""
        pool = self.outcome.pool
        if is_new:
            pool.append(data)
            if len(pool) > POOL_MAX:
                del pool[self._rng.randrange(POOL_MAX // 2)]
            self._stride, self._calm = _STRIDE, 0
            return
        self._calm += 1
        if self._calm > _CALM:
            self._stride, self._calm = min(self._stride * 2, _STRIDE_MAX), 0

    def _next(self) -> bytes:
        rng, pool, target = self._rng, self.outcome.pool, self.target
        if target.make is not None and rng.random() < _MADE_SHARE:
            data = target.make(rng)
            if rng.random() < 0.3:
                return data[: target.max_bytes]
        else:
            data = rng.choice(pool) if pool else b""
        changed = self._mutator.mutate(data, rng.choice(pool) if pool else b"")
        return target.repair(changed)[: target.max_bytes] if rng.random() < 0.5 else changed
