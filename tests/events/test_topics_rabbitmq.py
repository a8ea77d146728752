"""Topic patterns, held against a real RabbitMQ."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from proxy.events.topics import takes

from ..amqp.broker import MissingBrokerError, RabbitMq
from ..amqp.plain_client import PlainClient

PATTERNS = ("", "#", "*", "*.*", "a", "a.*", "a.#", "#.a", "*.#", "#.*", "#.#", "a.#.b", "a..b", "a.*.b", "#.a.#", "a*")


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMq]:
    """Run a broker for these tests; a machine without RabbitMQ fails them with what to install."""
    try:
        started = RabbitMq()
    except MissingBrokerError as missing:
        pytest.fail(str(missing))
    with started:
        yield started


def _routing_keys() -> set[str]:
    seeded = random.Random(7)
    drawn = {".".join(seeded.choices(["a", "b", "", "*", "#", "a*"], k=seeded.randint(1, 4))) for _ in range(150)}
    return drawn | {"", ".", "a", "a.b", "a..b", "#", "*"}


def test_takes_is_what_rabbitmq_routes(broker: RabbitMq) -> None:
    """Each pattern takes the routing keys that RabbitMQ delivers to a queue bound by it, and no others."""
    routing_keys = _routing_keys()
    delivered: dict[str, set[str]] = {}
    with PlainClient(broker.address) as client:
        client.declare_exchange("topics")
        for number, pattern in enumerate(PATTERNS):
            client.declare_queue(f"q-{number}")
            client.bind(f"q-{number}", "topics", pattern)
        for routing_key in routing_keys:
            client.publish_nowait("topics", routing_key, routing_key.encode())
        client.wait_confirmed()
        for number, pattern in enumerate(PATTERNS):
            delivered[pattern] = set()
            while (got := client.get(f"q-{number}")) is not None:
                delivered[pattern].add(got[0].decode())

    assert delivered == {pattern: {key for key in routing_keys if takes(pattern, key)} for pattern in PATTERNS}
