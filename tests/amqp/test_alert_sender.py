"""Notices of alerts at a real broker."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import structlog
import trio

from proxy.amqp import alert_sender
from proxy.amqp.alert_sender import EXCHANGE, MOST, AlertSender
from proxy.config.endpoint import parse_amqp_url
from proxy.config.load import default_settings
from proxy.errors import ConnectionLostError

from ..e2e.servers import Server, find_kind, wait_for
from ..e2e.targets import running_respite
from .broker import RabbitMq
from .conftest import Names
from .plain_client import PlainClient

DEADLINE_S = 15.0


@asynccontextmanager
async def _sending(*urls: str) -> AsyncIterator[AlertSender]:
    amqp = attrs.evolve(default_settings().amqp, urls=tuple(map(parse_amqp_url, urls)))
    sender = AlertSender(amqp, name="respite test")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.run)
        yield sender
        nursery.cancel_scope.cancel()


async def _took(client: PlainClient, queue: str, count: int) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    with trio.fail_after(DEADLINE_S):
        while len(found) < count:
            message = client.get(queue)
            if message is None:
                await trio.sleep(0.01)
            else:
                found.append(json.loads(message[0]))
    return found


async def test_offer_is_published_under_its_routing_key_in_order(rabbitmq: RabbitMq, names: Names) -> None:
    """On the topic exchange respite.alerts, as JSON, for whoever has bound a queue."""
    key = f"{names.queue}.low"
    with PlainClient(rabbitmq.address) as client:
        client.declare_exchange(EXCHANGE)
        client.declare_queue(names.queue)
        client.bind(names.queue, EXCHANGE, f"{names.queue}.*")
        async with _sending(rabbitmq.url) as sender:
            for number in range(3):
                sender.offer({"n": number}, key)
            sender.offer({"n": 9}, f"{names.dead}.nobody")
            first = await _took(client, names.queue, 3)
            sender.offer({"n": 3}, key)
            then = await _took(client, names.queue, 1)
        client.delete_queue(names.queue)

    assert [one["n"] for one in first + then] == [0, 1, 2, 3]
    assert sender.dropped == 0


async def test_offer_while_the_first_node_is_gone_goes_to_the_next(
    rabbitmq: RabbitMq, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be published waits, and is tried at another node."""
    monkeypatch.setattr(alert_sender, "PAUSES_S", (0.001, 0.001))
    with PlainClient(rabbitmq.address) as client, structlog.testing.capture_logs() as logs:
        client.declare_exchange(EXCHANGE)
        client.declare_queue(names.queue)
        client.bind(names.queue, EXCHANGE, names.queue)
        async with _sending("amqp://127.0.0.1:1", rabbitmq.url) as sender:
            sender.offer({"n": 0}, names.queue)
            took = await _took(client, names.queue, 1)
        client.delete_queue(names.queue)

    assert took == [{"n": 0}]
    assert [one["event"] for one in logs] == ["the broker does not take a notice, it is published again"]


async def test_offer_is_bounded_and_forgets_the_oldest() -> None:
    """A broker that is away for a week costs no memory."""
    sender = AlertSender(default_settings().amqp, name="respite test")
    for number in range(MOST + 3):
        sender.offer({"n": number}, "k")

    assert sender.dropped == 3
    assert len(sender._notices) == MOST
    assert json.loads(sender._notices[0].body)["n"] == 3


async def test_run_outlives_what_is_no_fault_of_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that cannot be looked up, or a bug: it is logged once, and tried again."""
    monkeypatch.setattr(alert_sender, "PAUSES_S", (0.001, 0.001))
    tried = trio.Event()
    numbers: list[int] = []

    async def serve(number: int) -> None:
        numbers.append(number)
        if number == 2:
            tried.set()
        await trio.lowlevel.checkpoint()
        raise UnicodeError("label empty or too long")

    with structlog.testing.capture_logs() as logs:
        async with _sending("amqp://127.0.0.1:1") as sender:
            monkeypatch.setattr(sender, "_serve", serve)
            sender.offer({"n": 0}, "k")
            with trio.fail_after(DEADLINE_S):
                await tried.wait()

    assert numbers[:3] == [0, 1, 2]
    assert [one["event"] for one in logs] == ["the sender of alerts broke"]


async def test_connection_that_breaks_while_none_waits_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is published again then; where a notice waits the next time, that is said as the first time."""
    monkeypatch.setattr(alert_sender, "PAUSES_S", (0.001, 0.001))
    took: list[int] = []
    outcomes = iter((True, False, True, True, False, False, True))
    waiting = trio.Event()

    with structlog.testing.capture_logs() as logs:
        async with _sending("amqp://127.0.0.1:1") as sender:

            async def serve(number: int) -> None:
                await trio.lowlevel.checkpoint()
                if next(outcomes):
                    took.append(json.loads(sender._notices.popleft().body)["n"])
                    waiting.set()
                raise ConnectionLostError("it left")

            monkeypatch.setattr(sender, "_serve", serve)
            for number in range(4):
                waiting = trio.Event()
                sender.offer({"n": number}, "k")
                with trio.fail_after(DEADLINE_S):
                    await waiting.wait()

    assert took == [0, 1, 2, 3]
    assert [one["event"] for one in logs] == ["the broker does not take a notice, it is published again"] * 2


async def test_connection_is_given_back_when_nothing_is_said(
    rabbitmq: RabbitMq, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker holds no connection for alerts that come once a month."""
    monkeypatch.setattr(alert_sender, "LINGER_S", 0.05)
    ended = trio.Event()
    async with _sending(rabbitmq.url) as sender:
        serve = sender._serve

        async def once(number: int) -> None:
            await serve(number)
            ended.set()

        monkeypatch.setattr(sender, "_serve", once)
        sender.offer({"n": 0}, "k")
        with trio.fail_after(DEADLINE_S):
            await ended.wait()

    assert not sender._notices


def test_alert_of_a_running_proxy_comes_to_the_broker(rabbitmq: RabbitMq, names: Names) -> None:
    """A rule with a routing key is heard by whoever has bound a queue for it."""
    amqp = {"url": rabbitmq.url, "exchange": names.exchange, "queue": names.queue, "dead_letter_queue": names.dead}
    told = f"{names.queue}-told"
    rule = {"name": "any", "when": "clients >= 0", "for": "0s", "notify": [told]}
    with PlainClient(rabbitmq.address) as client, Server(find_kind("redis7")) as server:
        client.declare_exchange(EXCHANGE)
        client.declare_queue(told)
        client.bind(told, EXCHANGE, told)
        found: list[bytes] = []

        def has_come() -> bool:
            message = client.get(told)
            if message is not None:
                found.append(message[0])
            return message is not None

        with running_respite({"upstream": {"url": server.url}, "amqp": amqp, "alert": [rule]}):
            wait_for(has_come, what="the notice", timeout_s=DEADLINE_S)
        for queue in (told, names.queue, names.dead):
            client.delete_queue(queue)

    notice = json.loads(found[0])
    assert (notice["state"], notice["name"], notice["figure"]) == ("on", "any", "clients")
