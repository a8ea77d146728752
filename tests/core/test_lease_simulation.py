"""Random walks through the whole worker on a hand clock: thousands of orders of events that no scene thought of."""

from __future__ import annotations

import os
import random
from typing import Literal

import pytest

from proxy.core.engine import Engine
from proxy.core.fill_slots import JoinSlot

from . import lease_switches as off
from .lease_rule import Switch, do_nothing, replace
from .simulation import Simulation, Violation
from .world import make_settings, running_world

WALKS = 25 if os.environ.get("RESPITE_ALL_SERVERS") else 12
WALKS_UNTIL_FOUND = 60
STEPS = 600

SABOTAGE: dict[str, Switch] = {
    "pushes-ignored": do_nothing(Engine, "drop_pushed"),
    "own-writes-ignored": replace(Engine, "begin_write", off.begin_without_drop),
    "one-database-dropped": replace(Engine, "drop", off.drop_in_one_database),
    "joiners-answered-late": replace(JoinSlot, "answer", off.answer_joiners_anyway),
    "expiry-ignored": off.finish_with(off.find_no_expiry),
}


def walk(seed: int, tracking: Literal["redirect", "broadcast"]) -> int:
    """Take one walk and return how many reads were checked. Raises: Violation."""
    settings = make_settings(tracking=tracking, max_value_bytes=100_000, max_age_s=20.0)
    with running_world(settings) as world:
        simulation = Simulation(world, random.Random(seed))
        simulation.run(STEPS)
    return simulation.checked


@pytest.mark.parametrize("tracking", ["redirect", "broadcast"])
def test_walk_of_any_order_reads_nothing_that_must_not_be(tracking: Literal["redirect", "broadcast"]) -> None:
    """Whatever the order of commands, answers, pushes, losses and time: each read is one that may be."""
    checked = [walk(seed, tracking) for seed in range(WALKS)]

    assert sum(checked) > 100 * WALKS


def walk_until_found() -> None:
    """Take walks until one finds something. Raises: Violation."""
    for seed in range(WALKS_UNTIL_FOUND):
        walk(seed, "redirect")


@pytest.mark.parametrize("switch", SABOTAGE.values(), ids=SABOTAGE)
def test_walks_without_a_rule_find_what_must_not_be(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walks are no walks in the park: with a rule taken out one of them soon reads what must not be."""
    switch(monkeypatch)

    with pytest.raises(Violation):
        walk_until_found()
