"""A hundred thousand events while broker, Redis and proxies are killed again and again."""

from __future__ import annotations

from ..amqp.broker import RabbitMq
from ..e2e.conftest import kind_or_skip
from ..e2e.events.run import Plan, play
from ..e2e.events.test_nothing_is_lost import assert_all_applied


def test_no_event_of_many_is_lost() -> None:
    """Three kills of the broker, two of Redis, one of each proxy: both tiers agree with every event."""
    plan = Plan(events=100_000, keys=2000, broker_kills=3, redis_kills=2, proxy_kills=2)

    with RabbitMq() as broker:
        outcome = play(plan, kind_or_skip("redis7"), broker)

    print(outcome)
    assert_all_applied(outcome, plan)
