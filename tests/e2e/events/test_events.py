"""Events as people use them: one published with a client of the trade, and a key that is gone everywhere."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pika
import pytest
import redis

from ...amqp.broker import RabbitMq
from ..raw import encode
from ..servers import Kind, Server, wait_for
from ..targets import Respite, running_respite
from ..workers import CLIENTS, connected, is_gone, one_of_each, pids_of

EXCHANGE = "respite.events"


@attrs.define
class Stage:
    """A Redis, a proxy that listens to the broker, and who publishes."""

    server: Server
    respite: Respite
    channel: pika.adapters.blocking_connection.BlockingChannel
    queue: str

    def publish(self, body: dict[str, Any], routing_key: str = "a.b") -> None:
        """Announce something."""
        self.channel.basic_publish(EXCHANGE, routing_key, json.dumps(body).encode())

    def events(self) -> dict[str, Any]:
        """Read the section of /stats.json."""
        return dict(self.respite.stats()["events"])


@pytest.fixture(params=[1, 2], ids=["one-worker", "two-workers"])
def stage(request: pytest.FixtureRequest, rabbitmq: RabbitMq, redis7: Kind) -> Iterator[Stage]:
    """Run all of it; the queue is this test's own."""
    queue = f"events.{secrets.token_hex(4)}"
    with Server(redis7) as server:
        settings = {
            "upstream": {"url": server.url},
            "listen": {"workers": request.param},
            "l1": {"admit": "always"},
            "amqp": {"url": rabbitmq.url, "queue": queue, "dead_letter_queue": f"{queue}.dead"},
            "class": [{"name": "tickets", "match": ["ticket:*"], "version": True, "tags": ["ticket-{1}"]}],
            "event": [{"routing_key": "stock.*", "keys": ["product:{body.items[].id}"]}],
        }
        with running_respite(settings) as respite:
            wait_for(lambda: respite.stats()["events"]["state"] == "up", what="it listens", timeout_s=20)
            with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
                channel = connection.channel()
                yield Stage(server, respite, channel, queue)
                channel.queue_delete(queue)
                channel.queue_delete(f"{queue}.dead")


def values(clients: Sequence[redis.Redis], key: str) -> set[Any]:
    """Return what the clients read, all of them."""
    return {client.get(key) for client in clients}


EVENTS: Sequence[tuple[dict[str, Any], str, str]] = (
    ({"keys": ["a"]}, "a.b", "a"),
    ({"patterns": ["ticket:*"]}, "a.b", "ticket:7"),
    ({"tags": ["ticket-7"]}, "a.b", "ticket:7"),
    ({"items": [{"id": 7}, {"id": 8}]}, "stock.changed", "product:8"),
    ({"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"keys": ["a"]}}, "a.b", "a"),
)
"""Body, routing key, and a key that the event names."""


def test_what_an_event_names_is_gone_for_every_client(stage: Stage) -> None:
    """Through whichever worker a client reads, and in Redis."""
    clients = [redis.Redis.from_url(stage.respite.url) for _ in range(CLIENTS)]
    for number, (body, routing_key, key) in enumerate(EVENTS, 1):
        clients[0].set(key, "old")
        wait_for(lambda key=key: values(clients, key) == {b"old"}, what=f"all have read {key}")

        stage.publish(body, routing_key)
        wait_for(lambda number=number: stage.events()["applied_total"] == number, what=f"{body} is applied")

        wait_for(lambda key=key: values(clients, key) == {None}, what=f"{body} has {key} gone for all", timeout_s=2.0)
    for client in clients:
        client.close()


@pytest.mark.parametrize("stage", [2], ids=["two-workers"], indirect=True)
def test_events_are_taken_while_the_worker_that_takes_them_finishes(stage: Stage) -> None:
    """One of its clients waits for something: for as long as that lasts nothing may stay stale for all others."""
    pid = pids_of(stage.respite)[0]
    with connected(stage.respite.address) as clients:
        waiting, other = one_of_each(clients)
        waiting.send(encode("BLPOP", "nothing", "0"))
        wait_for(lambda: stage.respite.stats()["clients"]["pinned"] == 1, what="it waits")
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: "stopping" in stage.respite.errors, what="the worker leaves")
        assert other.command("SET", "a", "old") == b"+OK\r\n"

        stage.publish({"keys": ["a"]})

        wait_for(lambda: other.command("GET", "a") == b"$-1\r\n", what="the event is applied", timeout_s=5)
        assert not is_gone(pid)
        assert other.command("RPUSH", "nothing", "1") == b":1\r\n"
        wait_for(lambda: is_gone(pid), what="it ends", timeout_s=20)
        assert other.command("SET", "a", "old") == b"+OK\r\n"
        stage.publish({"keys": ["a"]})
        wait_for(lambda: other.command("GET", "a") == b"$-1\r\n", what="the next one takes them", timeout_s=20)


def test_an_event_older_than_the_value_changes_nothing(stage: Stage) -> None:
    """Late news about what has been written since is no news."""
    with redis.Redis.from_url(stage.respite.url) as client:
        client.set("ticket:9", "new")
        stage.publish({"keys": ["ticket:9"], "version": 1_700_000_000_000})
        wait_for(lambda: stage.events()["ignored_old_total"] == 1, what="the event is ignored")

        assert client.get("ticket:9") == b"new"


def test_what_is_no_event_is_a_dead_letter(stage: Stage) -> None:
    """It is kept with its reason, and those behind it are applied."""
    with redis.Redis.from_url(stage.respite.url) as client:
        client.set("a", "old")
        stage.channel.basic_publish(EXCHANGE, "a.b", b"{")
        stage.publish({"keys": ["a"]})
        wait_for(lambda: client.get("a") is None, what="the one behind it is applied")
        wait_for(lambda: stage.events()["dead_total"] == 1, what="it is dead")

        _, properties, body = stage.channel.basic_get(f"{stage.queue}.dead", auto_ack=True)
    assert body == b"{"
    assert "no JSON" in properties.headers["respite-reason"]
