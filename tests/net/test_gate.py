"""The gate: whose turn it is to knock at a Redis that is away."""

from __future__ import annotations

import trio
import trio.testing

from proxy.cache.l1 import L1
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.tracking import Tracking
from proxy.net.links.gate import Gate
from proxy.net.reactor import Reactor


def _gate() -> Gate:
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    reactor = Reactor(engine, Tracking(engine, wanted="auto", max_staleness_s=2.0))
    return Gate(reactor, engine.outage)


async def test_all_may_knock_while_redis_is_up() -> None:
    """Nobody waits for anybody."""
    gate = _gate()

    assert [await gate.turn() for _ in range(3)] == [False] * 3


async def test_one_knocks_while_redis_is_away_and_the_others_wait_for_it(nursery: trio.Nursery) -> None:
    """However long its attempt takes; when it is let in, all go."""
    gate = _gate()
    gate.failed("refused")
    turns: list[bool] = []

    async def take_turn() -> None:
        turns.append(await gate.turn())

    for _ in range(3):
        nursery.start_soon(take_turn)
    await trio.sleep(0.2)
    assert turns == [True]

    with gate.knocking(alone=True):
        gate.passed()
    await trio.testing.wait_all_tasks_blocked()
    assert turns == [True, False, False]
    assert not gate.is_shut


async def test_one_that_is_called_off_gives_its_turn_on(nursery: trio.Nursery) -> None:
    """A group that is given up while it knocks leaves the gate to the next."""
    gate = _gate()
    gate.failed("refused")
    assert await gate.turn()
    turns: list[bool] = []

    async def take_turn() -> None:
        turns.append(await gate.turn())

    nursery.start_soon(take_turn)
    await trio.testing.wait_all_tasks_blocked()

    with trio.CancelScope() as scope, gate.knocking(alone=True):
        scope.cancel()
        await trio.lowlevel.checkpoint()
    await trio.testing.wait_all_tasks_blocked()

    assert turns == [True]
    assert gate.is_shut
