"""Writes that pass through are announced: at least once each that Redis has, none that it has not, whatever dies."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import attrs
import pika
import pytest
import redis

from ...amqp.broker import RabbitMq
from ..servers import Kind, Server, ServerOptions, wait_for
from ..targets import Respite
from .run import KEEPING

WRITERS = 4
SETTLE_S = 60.0
QUIET_S = 5.0
PAUSE_S = 0.03  # between writes: what is written must be published in the end, on a small machine, too


@pytest.fixture
def broker() -> Iterator[RabbitMq]:
    """Run a broker that may be killed."""
    with RabbitMq() as started:
        yield started


@attrs.define
class Writer:
    """One client that writes keys which nobody writes again, in every way there is, and connects anew when it must."""

    number: int
    url: str
    sent: set[str] = attrs.field(factory=set)
    acked: set[str] = attrs.field(factory=set)

    def run(self, stop: threading.Event) -> None:
        """Write until told to stop."""
        chance = random.Random(self.number)
        ways: list[Callable[[redis.Redis, list[str]], None]] = [self._set, self._pipeline, self._multi, self._eval]
        count = 0
        while not stop.is_set():
            try:
                with redis.Redis.from_url(self.url, protocol=2 + self.number % 2, socket_timeout=8) as client:
                    while not stop.is_set():
                        keys = [f"doc:{self.number}:{count + at}" for at in range(chance.randint(1, 12))]
                        count += len(keys)
                        self.sent.update(keys)
                        chance.choice(ways)(client, keys)
                        self.acked.update(keys)
                        time.sleep(PAUSE_S)
            except redis.RedisError:
                time.sleep(0.02)

    @staticmethod
    def _set(client: redis.Redis, keys: list[str]) -> None:
        client.mset(dict.fromkeys(keys, "x"))

    @staticmethod
    def _pipeline(client: redis.Redis, keys: list[str]) -> None:
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.set(key, "text of a document")
            pipeline.get(key)
        assert pipeline.execute() == [True, b"text of a document"] * len(keys)

    @staticmethod
    def _multi(client: redis.Redis, keys: list[str]) -> None:
        pipeline = client.pipeline(transaction=True)
        for key in keys:
            pipeline.rpush(key, "a")
        assert pipeline.execute() == [1] * len(keys)

    @staticmethod
    def _eval(client: redis.Redis, keys: list[str]) -> None:
        assert (
            client.eval("for _, key in ipairs(KEYS) do redis.call('SET', key, 'e') end return 3", len(keys), *keys) == 3
        )


class Listener:
    """Who hears of changes: through a durable queue of its own."""

    def __init__(self, broker: RabbitMq) -> None:
        self._broker = broker
        self.heard: dict[str, int] = {}
        self.topics: set[str] = set()
        with self._channel() as channel:
            channel.exchange_declare("respite.changes", "topic", durable=True)
            channel.queue_declare("heard", durable=True)
            channel.queue_bind("heard", "respite.changes", "#")

    @contextmanager
    def _channel(self) -> Iterator[Any]:
        connection = pika.BlockingConnection(pika.URLParameters(self._broker.url))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def drain(self) -> None:
        """Note all that waits in the queue, until nothing comes for a while."""
        with self._channel() as channel:
            for method, _, body in channel.consume("heard", auto_ack=True, inactivity_timeout=QUIET_S):
                if method is None:
                    return
                self.topics.add(method.routing_key)
                for key in json.loads(body)["keys"]:
                    self.heard[key] = self.heard.get(key, 0) + 1


def settings_of(server: Server, broker: RabbitMq) -> dict[str, Any]:
    """Return the configuration of a proxy that announces."""
    return {
        "upstream": {"url": server.url},
        "class": [{"name": "docs", "match": ["doc:*"], "version": True}],
        "amqp": {"url": broker.url, "publish_changes": True},
    }


@attrs.define
class World:
    """Redis, a broker, proxies, clients of each and who hears of their changes."""

    server: Server
    proxies: list[Respite]
    writers: list[Writer]
    listener: Listener
    stopped: threading.Event = attrs.field(factory=threading.Event)
    threads: list[threading.Thread] = attrs.field(factory=list)

    def start(self) -> None:
        """Let the clients write."""
        self.threads = [threading.Thread(target=writer.run, args=(self.stopped,)) for writer in self.writers]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Have the clients stop."""
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def check(self) -> None:
        """Wait until everything is published, then compare what Redis has with what was heard."""
        with redis.Redis.from_url(self.server.url) as direct:
            try:
                wait_for(lambda: direct.xlen("respite:outbox") == 0, what="the outbox is empty", timeout_s=SETTLE_S)
            except AssertionError as exc:
                for proxy in self.proxies:
                    exc.add_note(json.dumps(proxy.stats()["events"]["changes"]))
                    exc.add_note(proxy.errors()[-4000:])
                exc.add_note(str(direct.xinfo_stream("respite:outbox")))
                raise
            there = {key.decode() for key in direct.scan_iter("doc:*", count=5000)}
        self.listener.drain()
        heard = set(self.listener.heard)
        acked = set().union(*(writer.acked for writer in self.writers))
        sent = set().union(*(writer.sent for writer in self.writers))
        assert len(acked) > 500, "too little was written for the run to mean anything"
        assert acked - there == set()
        assert there - heard == set(), f"{len(there - heard)} of {len(there)} writes were not announced"
        assert heard - there == set(), f"{len(heard - there)} writes were announced that Redis has not"
        assert heard <= sent
        assert self.listener.topics == {"docs"}


@contextmanager
def playing(kind: Kind, broker: RabbitMq, *, proxies: int) -> Iterator[World]:
    """Run clients against proxies for the length of a `with` block."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(kind, ServerOptions(extra=KEEPING)))
        listener = Listener(broker)
        running = [Respite(settings_of(server, broker)) for _ in range(proxies)]
        for proxy in running:
            stack.callback(proxy.discard)
            proxy.wait_until_started()
        writers = [Writer(number, running[number % proxies].url) for number in range(WRITERS)]
        world = World(server, running, writers, listener)
        world.start()
        try:
            yield world
        finally:
            world.stop()


def test_committed_writes_are_announced_though_the_proxy_is_killed(broker: RabbitMq, redis7: Kind) -> None:
    """One of two proxies is killed again and again, under load, at any point of a write."""
    chance = random.Random(7)
    with playing(redis7, broker, proxies=2) as world:
        for number in range(4):
            time.sleep(chance.uniform(0.3, 1.0))
            world.proxies[number % 2].restart()
        world.stop()
        world.check()


def test_committed_writes_are_announced_though_broker_and_redis_are_killed(broker: RabbitMq, redis7: Kind) -> None:
    """The broker is away for a while, then Redis is; what waits in the outbox outlives both."""
    with playing(redis7, broker, proxies=1) as world:
        time.sleep(0.7)
        broker.kill()
        time.sleep(1.0)
        world.server.kill()
        world.server.start()
        time.sleep(0.5)
        broker.start()
        time.sleep(0.5)
        world.stop()
        world.check()
