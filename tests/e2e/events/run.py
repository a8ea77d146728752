"""A whole run: events in no order, with duplicates and garbage, while the broker, Redis and the proxies are killed.

Afterwards nothing that an event named may be cached as it was before: in Redis, and in the L1 of either proxy.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import pika
import redis

from ...amqp.broker import RabbitMq
from ..servers import Kind, Server, ServerOptions, wait_for
from ..targets import Respite
from .world import Publisher, Readers, Truth

SETTLE_S = 90.0
KEEPING = ('save ""', "appendonly yes", "appendfsync everysec")  # what was answered is there after kill -9


@attrs.frozen
class Plan:
    """How much happens in a run."""

    events: int
    keys: int
    broker_kills: int
    redis_kills: int
    proxy_kills: int
    readers: int = 3
    seed: int = 1
    prefetch: int = 200


@attrs.define
class Outcome:
    """What was seen."""

    published: int
    repeated: int
    garbage: int
    dead: list[str]  # message ids
    left: list[str]  # keys of one event each that are still there
    stale: list[str]  # "where: key is .., true is .."
    reads: int
    fills: int
    read_errors: int
    reports: list[dict[str, Any]]
    troubles: list[str]


def settings_of(server: Server, broker: RabbitMq, plan: Plan) -> dict[str, Any]:
    """Return the configuration of a proxy."""
    return {
        "upstream": {"url": server.url},
        "class": [{"name": "docs", "match": ["doc:*"], "version": True}],
        "amqp": {
            "url": broker.url,
            "prefetch": plan.prefetch,
            "retry": {"attempts": 5, "first": "200ms", "max": "2s"},
        },
    }


def play(plan: Plan, kind: Kind, broker: RabbitMq) -> Outcome:
    """Run it, and look what is there in the end."""
    truth = Truth(plan.keys)
    with ExitStack() as stack:
        server = stack.enter_context(Server(kind, ServerOptions(extra=KEEPING)))
        with redis.Redis.from_url(server.url) as direct:
            pipeline = direct.pipeline(transaction=False)
            for number in range(plan.events):
                pipeline.set(f"once:{number}", "cached before its event")
                if number % 5000 == 4999:
                    pipeline.execute()
            pipeline.execute()
        proxies = [Respite(settings_of(server, broker, plan)) for _ in range(2)]
        for proxy in proxies:
            stack.callback(proxy.discard)
            proxy.wait_until_started()
        wait_for(lambda: all(is_listening(proxy) for proxy in proxies), what="both proxies listen", timeout_s=20)
        publisher = Publisher(broker.url, "respite.events", plan.seed)
        stack.callback(publisher.close)
        readers = Readers(truth, [proxy.url for proxy in proxies], plan.seed)
        troubles: list[str] = []
        with readers.running(plan.readers):
            announcing = threading.Thread(target=publisher.run, args=(truth, 0, plan.events))
            announcing.start()
            for at, trouble in _schedule(plan, broker, server, proxies):
                while announcing.is_alive() and publisher.published < at * plan.events:
                    time.sleep(0.01)
                troubles.append(trouble())
            announcing.join()
        last_words(truth, publisher)
        settle(broker)
        dead = dead_letters(broker)
        return Outcome(
            publisher.published,
            publisher.repeated,
            len(publisher.garbage),
            dead,
            *what_is_left(plan, truth, server, proxies),
            readers.reads,
            readers.fills,
            readers.errors,
            [proxy.stats() for proxy in proxies],
            troubles,
        )


def is_listening(proxy: Respite) -> bool:
    """Return whether a proxy consumes events."""
    return bool(proxy.stats()["events"]["state"] == "up")


def last_words(truth: Truth, publisher: Publisher) -> None:
    """Change every key once more; nobody caches any of them from now on."""
    bodies = []
    for key in truth.versions:
        publisher.seq += 1
        version = truth.change(key)
        bodies.append(
            (
                f"last-{key}",
                b'{"keys": ["%b"], "version": %d, "publisher": "%b", "seq": %d}'
                % (key.encode(), version, publisher.name.encode(), publisher.seq),
            )
        )
    publisher.publish(bodies)


def dead_letters(broker: RabbitMq) -> list[str]:
    """Return the message ids of all dead letters, which are taken out."""
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    channel = connection.channel()
    found = []
    while (got := channel.basic_get("respite.dead", auto_ack=True))[0] is not None:
        found.append(str(got[1].message_id))
    connection.close()
    return found


def settle(broker: RabbitMq) -> None:
    """Wait until every event has been dealt with."""

    def is_empty() -> bool:
        found = broker.ctl("list_queues", "--quiet", "name", "messages")
        counts = {name: int(count) for name, count in re.findall(r"^(\S+)\s+(\d+)$", found, re.MULTILINE)}
        return not sum(count for name, count in counts.items() if name != "respite.dead")

    wait_for(is_empty, what="all queues but that of dead letters are empty", timeout_s=SETTLE_S)


def what_is_left(plan: Plan, truth: Truth, server: Server, proxies: Sequence[Respite]) -> tuple[list[str], list[str]]:
    """Return the keys that are still there and must not be, and every value that is not what is true."""
    left, stale = [], []
    with redis.Redis.from_url(server.url) as direct:
        names = [f"once:{number}" for number in range(plan.events)]
        for at in range(0, len(names), 1000):
            some = names[at : at + 1000]
            left += [name for name, value in zip(some, direct.mget(some), strict=True) if value is not None]
    for proxy in proxies:
        with redis.Redis.from_url(proxy.url) as client:
            for key, version in truth.versions.items():
                value = client.get(key)
                if value is not None and value.decode() != f"{key}={version}":
                    stale.append(f"{proxy.port}: {key} is {value.decode()}, true is {version}")
    return left, stale


def _schedule(
    plan: Plan, broker: RabbitMq, server: Server, proxies: list[Respite]
) -> list[tuple[float, Callable[[], str]]]:
    """Return the troubles of a run, each with the share of events at which it comes, spread evenly."""

    def kill_broker() -> str:
        broker.kill()
        broker.start()
        return "broker"

    def kill_redis() -> str:
        server.restart()
        return "redis"

    def kill_proxy(which: int) -> Callable[[], str]:
        def act() -> str:
            proxies[which].restart()
            return f"proxy {which}"

        return act

    several: list[Callable[[], str]] = []
    several += [kill_broker] * plan.broker_kills + [kill_redis] * plan.redis_kills
    several += [kill_proxy(number % 2) for number in range(plan.proxy_kills)]
    order = sorted(range(len(several)), key=lambda number: (number * 7919 + plan.seed) % 104729)
    return [((place + 1) / (len(several) + 1), several[number]) for place, number in enumerate(order)]
