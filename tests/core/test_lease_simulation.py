"""Random walks through the whole worker on a hand clock: thousands of orders of events that no scene thought of."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from proxy.core.engine import Engine
from proxy.core.fill_slots import JoinSlot

from . import lease_switches as off
from .lease_rule import Switch, do_nothing, replace
from .simulation import Simulation, Violation
from .world import make_settings, running_world

WALKS = 25
WALKS_UNTIL_FOUND = 60
STEPS = 600

SABOTAGE: tuple[Switch, ...] = (
    do_nothing(Engine, "drop_pushed"),
    replace(Engine, "begin_write", off.begin_without_drop),
    replace(Engine, "drop", off.drop_in_one_database),
    replace(JoinSlot, "answer", off.answer_joiners_anyway),
    off.finish_with(off.find_no_expiry),
)


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


@pytest.mark.parametrize("switch", SABOTAGE)
def test_walks_without_a_rule_find_what_must_not_be(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The walks are no walks in the park: with a rule taken out one of them soon reads what must not be."""
    switch(monkeypatch)

    with pytest.raises(Violation):
        for seed in range(WALKS_UNTIL_FOUND):
            walk(seed, "redirect")
