"""Nothing is lost: events in random order, twice, and among garbage, while the broker is killed and the sink fails."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence

import pytest
import trio

from proxy.config.model import Retry
from proxy.errors import AmqpError
from proxy.events.event import Event
from proxy.events.sink import Applied, Failed, Outcome

from .broker import RabbitMq
from .conftest import Names
from .eventing import FakeSink, Publisher, QueueType, event, make_service, publisher, running, settings, until

RECOVERY_S = 2.0
CHUNK = 50


class Moody(FakeSink):
    """Fails on one event in twenty, never for good; and is slow now and then."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._chance = random.Random(seed)
        self.decide = self._decide

    def _decide(self, one: Event) -> Outcome:
        self.delay_s = 0.05 if self._chance.random() < 0.002 else 0.0
        return Failed("moody") if self._chance.random() < 0.05 else Applied()


def make_bodies(count: int, chance: random.Random) -> tuple[list[bytes], int]:
    """Make events of `count` keys in random order, a tenth of them twice, with 1 % garbage; and say how much of it."""
    bodies = [event(f"k{number}", publisher="p", seq=number) for number in range(count)]
    bodies += chance.sample(bodies, count // 10)
    garbage = [chance.randbytes(chance.randint(0, 200)) + b"\xff" for _ in range(count // 100)]
    bodies += garbage
    chance.shuffle(bodies)
    return bodies, len(garbage)


async def publish_all(broker: RabbitMq, names: Names, bodies: Sequence[bytes], *, per_second: int) -> None:
    """Publish until the broker has confirmed everything, whatever happens to it; may publish twice."""
    chunks: Iterator[Sequence[bytes]] = (bodies[at : at + CHUNK] for at in range(0, len(bodies), CHUNK))
    chunk = next(chunks, None)
    while chunk:
        try:
            async with publisher(broker, names) as to:
                while chunk:
                    await to.publish(chunk)
                    chunk = next(chunks, None)
                    await trio.sleep(CHUNK / per_second)
        except AmqpError:
            await trio.sleep(0.05)


async def kill_and_start(broker: RabbitMq) -> None:
    """Kill the broker and bring it back."""
    await trio.to_thread.run_sync(broker.kill)
    await trio.sleep(0.3)
    await trio.to_thread.run_sync(broker.start)


async def assert_nothing_left(to: Publisher, names: Names, garbage: int, retry_queues: Sequence[str]) -> None:
    """Check that no queue holds anything but the dead letters, all of them garbage and none missing."""
    await to.until_empty(names.queue, *retry_queues)
    dead = [delivery.body for delivery in await to.drain(names.dead)]
    assert all(body.endswith(b"\xff") for body in dead)
    assert garbage == len(set(dead))


@pytest.mark.parametrize("queue_type", ["classic", pytest.param("quorum", marks=pytest.mark.long)])
async def test_broker_killed_under_load_loses_nothing(
    rabbitmq_own: RabbitMq, names: Names, queue_type: QueueType
) -> None:
    """With the broker killed twice, every event is applied, all garbage is among the dead letters; back within 2 s."""
    bodies, garbage = make_bodies(4000, random.Random(7))
    sink = Moody(7)
    amqp = settings(rabbitmq_own, names, retry=Retry(8, 0.1, 0.8), queue_type=queue_type)
    recovered: list[float] = []
    async with running(make_service(amqp, sink)) as figures, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: publish_all(rabbitmq_own, names, bodies, per_second=800))
        for part in (1000, 2000):
            await until(lambda: len(sink.applied) > part, "a part is applied")  # noqa: B023
            before = figures.reconnects
            await kill_and_start(rabbitmq_own)
            began = time.monotonic()
            await until(lambda: figures.state == "up" and figures.reconnects > before, "it is back")  # noqa: B023
            recovered.append(time.monotonic() - began)
        await until(lambda: len(sink.applied) == 4000, "all are applied")
        await until(lambda: figures.waiting() == 0, "all are settled")
        async with publisher(rabbitmq_own, names) as to:
            queues = [f"{names.queue}.retry.{delay}ms" for delay in (100, 200, 400, 800)]
            await assert_nothing_left(to, names, garbage, queues)

    assert max(recovered) < RECOVERY_S
    assert figures.reconnects == 2
    assert (0, 0.0) == (figures.failed, figures.sync_errors)
    assert figures.retried > 50
    assert {("p", number) for number in range(4000)} == set(sink.noted)


async def test_proxy_stopped_under_load_loses_nothing(rabbitmq: RabbitMq, names: Names) -> None:
    """A proxy that is stopped at any point, again and again, leaves every event to the next one."""
    bodies, garbage = make_bodies(2000, random.Random(8))
    sink = Moody(8)
    amqp = settings(rabbitmq, names, retry=Retry(8, 0.05, 0.2), prefetch=50)
    async with running(make_service(amqp, sink)):
        pass  # without a queue the broker keeps nothing
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: publish_all(rabbitmq, names, bodies, per_second=1000))
        for pause_s in (0.2, 0.05, 0.3, 0.1, 0.4):
            async with running(make_service(amqp, sink)):
                await trio.sleep(pause_s)
    async with running(make_service(amqp, sink)) as figures:
        await until(lambda: len(sink.applied) == 2000, "all are applied")
        await until(lambda: figures.waiting() == 0, "all are settled")
        async with publisher(rabbitmq, names) as to:
            await assert_nothing_left(to, names, garbage, [f"{names.queue}.retry.{n}ms" for n in (50, 100, 200)])


async def test_sink_away_again_and_again_loses_nothing(rabbitmq: RabbitMq, names: Names) -> None:
    """Redis that goes and comes in the middle of batches costs no attempt and no event."""
    bodies, garbage = make_bodies(2000, random.Random(9))
    sink = FakeSink()
    chance = random.Random(9)
    sink.decide = lambda _: Failed("gone", is_away=True) if chance.random() < 0.01 else Applied()
    amqp = settings(rabbitmq, names)
    async with running(make_service(amqp, sink)) as figures, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: publish_all(rabbitmq, names, bodies, per_second=1000))
        for _ in range(5):
            await trio.sleep(0.1)
            sink.leave()
            await trio.sleep(0.2)
            sink.come_back()
        await until(lambda: len(sink.applied) == 2000, "all are applied")
        await until(lambda: figures.waiting() == 0, "all are settled")
        async with publisher(rabbitmq, names) as to:
            await assert_nothing_left(to, names, garbage, [])

    assert figures.retried == 0
