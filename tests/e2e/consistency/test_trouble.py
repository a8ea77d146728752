"""What is done to links and servers is done when the oracle takes it for done, and noted as it was."""

from __future__ import annotations

import time
from collections import Counter
from random import Random
from typing import cast

import pytest

from ..raw import ClosedError, RawClient
from ..servers import Kind, Server
from .faults import Faults
from .loop import Ask
from .oracle import Register
from .states import NOTHING, State
from .trouble import Trouble
from .world import OUTCOME_S, World


def test_relay_obeys_orders_that_come_together(redis7: Kind) -> None:
    """Of two orders in one write the second does not wait for a third."""
    with Server(redis7) as server:
        faults = Faults(server, Random(1), Counter())
        with RawClient(("127.0.0.1", faults.port)) as client:
            assert client.command("PING") == b"+PONG\r\n"
            faults.order("calm\nkill", "all")

            with pytest.raises((ClosedError, ConnectionError)):
                client.frame(2.0)
        faults.close()


def test_relay_leads_elsewhere_at_once(redis7: Kind) -> None:
    """When a fail-over goes on, no new link leads to the old server, and no old one is left."""
    with Server(redis7) as old, Server(redis7) as new:
        faults = Faults(old, Random(1), Counter())
        for primary, other in ((new, old), (old, new)) * 10:
            faults.lead_to(primary)
            before = other.info("total_connections_received")
            with RawClient(("127.0.0.1", faults.port)) as client:
                assert client.command("PING") == b"+PONG\r\n"
            # The one more is that which asks.
            assert int(other.info("total_connections_received")) == int(before) + 1
        faults.close()


def test_stock_counts_an_expiry_from_when_it_was_asked_for() -> None:
    """A reply that was on its way for long tells of an end that is nearer than it says."""
    register = Register(0, b"k", ("string",))
    register.begin(time.monotonic(), State(b"string", b"v1"))
    world = World(Random(1), [[register], []], 0.5, [])
    server = cast(Server, type("Address", (), {"address": ("127.0.0.1", 1)}))
    steps = Trouble(world, [], server, server, [], 0.3, (), ())._take_stock(server)

    assert isinstance(next(steps), Ask)
    assert isinstance(steps.send([b"string"]), Ask)
    asked_at = time.monotonic()
    time.sleep(0.2)
    assert isinstance(steps.send([b"v1", 300]), Ask)
    assert not list(_rest(steps))

    assert register.last.number == 2
    assert register.last.gone_after < asked_at + 0.3
    assert NOTHING in register.last.states(register.start(asked_at, 0.5, 0), asked_at + 0.31)


def _rest(steps: object) -> list[object]:
    try:
        return [steps.send([])]  # type: ignore[attr-defined]
    except StopIteration:
        return []


def test_settling_is_not_over_because_everything_stood_still() -> None:
    """However late one of its steps ends, what others have still to do has nearly all of the time left."""
    steps = [float(cast(float, step)) for step in World(Random(1), [[], []], 0.5, []).settle()]

    assert sum(steps) == pytest.approx(OUTCOME_S)
    assert max(steps) <= OUTCOME_S / 20
