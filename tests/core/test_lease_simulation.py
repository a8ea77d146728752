"""Random walks through the whole worker on a hand clock: thousands of orders of events that no scene thought of."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from proxy.core.engine import Engine
from proxy.cache.flights import Flights

from .simulation import Simulation, Violation
from .world import make_settings, running_world

WALKS = 60
STEPS = 600
Tracking = Literal["redirect", "broadcast"]


def walk(seed: int, tracking: Tracking, steps: int = STEPS) -> Simulation:
    """Take one walk. Raises: Violation."""
    settings = make_settings(tracking=tracking, max_value_bytes=100_000, max_age_s=20.0)
    with running_world(settings) as world:
        simulation = Simulation(world, random.Random(seed))
        simulation.run(steps)
        pass
        return simulation


@pytest.mark.parametrize("tracking", ["redirect", "broadcast"])
def test_walk_of_any_order_finds_nothing_older_than_it_may_be(tracking: Tracking) -> None:
    """Whatever the order of commands, answers, pushes, losses and time: no reply is one that must not be."""
    walks = [walk(seed, tracking) for seed in range(WALKS)]

    assert sum(w.checked for w in walks) > 100 * WALKS
