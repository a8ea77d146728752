"""Every event is applied, whatever dies: a short run; the long one is in tests/soak."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ...amqp.broker import RabbitMq
from ..servers import Kind
from .run import Outcome, Plan, play


@pytest.fixture
def broker() -> Iterator[RabbitMq]:
    """Run a broker that may be killed."""
    with RabbitMq() as started:
        yield started


def assert_all_applied(outcome: Outcome, plan: Plan) -> None:
    """Check that both tiers agree with every event, and that what is dead was garbage."""
    assert outcome.left == [], f"{len(outcome.left)} of {plan.events} events were not applied"
    assert outcome.stale == []
    assert all(name.startswith("garbage-") for name in outcome.dead)
    assert len(set(outcome.dead)) == outcome.garbage, "unreadable messages are kept for a person to look at"
    assert outcome.fills > plan.keys, "too little was cached for the run to mean anything"


@pytest.mark.long
def test_no_event_is_lost_while_everything_is_killed(broker: RabbitMq, redis7: Kind) -> None:
    """Events in no order, twice, and unreadable ones; broker, Redis and a proxy killed: both tiers agree in the end."""
    plan = Plan(events=3000, keys=200, broker_kills=1, redis_kills=1, proxy_kills=1)

    outcome = play(plan, redis7, broker)

    assert sorted(outcome.troubles) == ["broker", "proxy 0", "redis"]
    assert_all_applied(outcome, plan)
