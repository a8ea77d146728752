"""The trace of a message, on a real broker: what its publisher wrote stays as it is, whatever becomes of the event."""

from __future__ import annotations

import trio

from proxy.amqp.deliveries import Delivery
from proxy.amqp.desk import Selection, list_letters, replay
from proxy.config.model import Retry
from proxy.events.event import Event
from proxy.events.sink import Failed, Outcome

from .broker import RabbitMq
from .conftest import Names
from .eventing import FakeSink, make_service, publisher, running, settings, until

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {"traceparent": TRACE, "tracestate": "vendor=1,other=a:b", "baggage": "user=alice"}


def test_traceparent_survives_retry_dead_letter_and_replay(rabbitmq: RabbitMq, names: Names) -> None:
    """Each try is part of the same trace; in the dead letter and in what is sent again the headers are untouched."""
    amqp = settings(rabbitmq, names, retry=Retry(1, 0.05, 0.05))
    sink, seen = FakeSink(), list[str]()

    def fail(event: Event) -> Outcome:
        seen.append(event.trace)
        return Failed("not today")

    sink.decide = fail

    async def publish_and_fail() -> None:
        async with publisher(rabbitmq, names) as broker, running(make_service(amqp, sink)) as figures:
            await broker.publish([b'{"keys": ["k"]}'], headers=HEADERS)
            await until(lambda: figures.dead == 1, "the dead letter")

    async def take() -> list[Delivery]:
        async with publisher(rabbitmq, names) as broker:
            return await broker.drain(names.queue)

    trio.run(publish_and_fail)
    assert seen == [TRACE, TRACE]

    (letter,) = list_letters(amqp, Selection(), lambda _: None).letters
    assert HEADERS.items() <= letter.message.headers.items()

    replay(amqp, Selection(), lambda _: None)
    (again,) = trio.run(take)
    assert HEADERS.items() <= (again.properties.headers or {}).items()
