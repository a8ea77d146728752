"""The dead letters of a real broker: looked through, sent again, thrown away, and never lost."""

from __future__ import annotations

import os
import signal
import threading
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from pamqp.commands import Basic

from proxy.amqp.channel import Channel
from proxy.amqp.connection import connect
from proxy.amqp.deliveries import Delivery
from proxy.amqp.desk import DeskError, Selection, Tally, drop, fetch_letter, list_letters, replay
from proxy.amqp.frames import Outgoing
from proxy.amqp.topology import declare, plan
from proxy.config.load import load_settings
from proxy.config.model import Amqp

from .broker import RabbitMq
from .conftest import Names
from .eventing import nothing

_ALL = Selection()


def settings_for(broker: RabbitMq, names: Names, **more: object) -> Amqp:
    """Return [amqp] with the names of one test."""
    written: dict[str, object] = {
        "amqp.url": broker.url,
        "amqp.exchange": names.exchange,
        "amqp.queue": names.queue,
        "amqp.dead_letter_queue": names.dead,
    }
    more = {f"amqp.{name}": value for name, value in more.items()}
    return load_settings(None, env={}, overrides=written | more).amqp


async def bury(amqp: Amqp, *messages: tuple[bytes, Basic.Properties]) -> None:
    """Declare what a proxy declares, and put messages into the dead letter queue."""
    async with connect(amqp.urls[0], context=None, name="test", timeout_s=20) as connection:
        await declare(connection, amqp, plan(amqp, "test"), nothing)
        channel = await connection.channel()
        outgoing = [Outgoing("", amqp.dead_letter_queue, body, properties) for body, properties in messages]
        assert await channel.publish_all(outgoing) == [None] * len(messages)


async def take_all(amqp: Amqp, queue: str) -> list[Delivery]:
    """Take everything out of a queue."""
    async with connect(amqp.urls[0], context=None, name="test", timeout_s=20) as connection:
        channel: Channel = await connection.channel()
        taken = []
        while delivery := await channel.get(queue):
            channel.ack(delivery.tag)
            taken.append(delivery)
        await channel.close()
        return taken


def letter(number: int, body: bytes | None = None, /, **headers: Any) -> tuple[bytes, Basic.Properties]:
    """Return a message as a proxy buries it."""
    ours: dict[str, Any] = {
        "respite-reason": f"reason {number}",
        "respite-routing-key": f"ticket.{number}",
        "respite-exchange": "x",
        "respite-attempt": 5,
    }
    properties = Basic.Properties(
        content_type="application/json", message_id=f"m{number}", headers=ours | headers, delivery_mode=2
    )
    return b'{"n": %d}' % number if body is None else body, properties


def _ignore(_tally: Tally) -> None:
    pass


def _reasons(amqp: Amqp) -> list[str]:
    return [one.reason for one in list_letters(amqp, _ALL, _ignore).letters]


@pytest.fixture
def amqp(rabbitmq: RabbitMq, names: Names) -> Amqp:
    """Return settings of a broker in which five letters lie."""
    amqp = settings_for(rabbitmq, names)
    trio.run(bury, amqp, *(letter(number) for number in range(5)))
    return amqp


def test_list_shows_the_oldest_first_and_leaves_all_in_place(amqp: Amqp) -> None:
    """Listing as often as one likes changes neither the letters nor their order."""
    first = list_letters(amqp, _ALL, _ignore)

    assert (first.total, [one.reason for one in first.letters]) == (5, [f"reason {number}" for number in range(5)])
    assert list_letters(amqp, _ALL, _ignore) == first
    assert [one.body for one in trio.run(take_all, amqp, amqp.dead_letter_queue)] == [
        b'{"n": %d}' % number for number in range(5)
    ]


def test_list_is_no_longer_than_asked_for(amqp: Amqp) -> None:
    """A bound takes the oldest; how many there are in all is known still."""
    listing = list_letters(amqp, Selection(most=2), _ignore)

    assert (listing.total, [one.number for one in listing.letters]) == (5, [1, 2])


def test_list_of_an_empty_queue_is_empty(rabbitmq: RabbitMq, names: Names) -> None:
    """No letters are no error."""
    amqp = settings_for(rabbitmq, names)
    trio.run(bury, amqp)

    assert list_letters(amqp, _ALL, _ignore).letters == ()


def test_list_without_the_queue_says_that_it_is_not_there(rabbitmq: RabbitMq, names: Names) -> None:
    """A queue that no proxy has declared is an error that names it."""
    with pytest.raises(DeskError, match=f"no queue {names.dead}"):
        list_letters(settings_for(rabbitmq, names), _ALL, _ignore)


def test_what_the_broker_buried_itself_is_listed_with_its_reason(amqp: Amqp) -> None:
    """A message that a consumer rejected outright came by way of the broker, and says where it was published."""

    async def reject() -> None:
        async with connect(amqp.urls[0], context=None, name="test", timeout_s=20) as connection:
            channel = await connection.channel()
            await channel.publish(amqp.exchange, "ticket.new", b"x", Basic.Properties(), mandatory=True)
            delivery = await channel.get(amqp.queue)
            assert delivery is not None
            channel.nack(delivery.tag, requeue=False)
            await channel.close()
            channel = await connection.channel()
            with trio.fail_after(20):
                while (await channel.declare_queue(amqp.dead_letter_queue, passive=True)).messages < 6:
                    await trio.sleep(0.01)

    trio.run(reject)

    last = list_letters(amqp, _ALL, _ignore).letters[-1]
    assert last.reason == f"the broker: rejected in the queue {amqp.queue}"
    assert (last.exchange, last.message.routing_key) == (amqp.exchange, "ticket.new")


def test_fetch_letter_has_its_body_by_place_and_by_id(amqp: Amqp) -> None:
    """Both names of a letter lead to the same; one that is not there is None."""
    third = fetch_letter(amqp, Selection(frozenset({3})), _ignore)

    assert third is not None
    assert (third.message.body, third.message.message_id) == (b'{"n": 2}', "m2")
    assert fetch_letter(amqp, Selection(ids=frozenset({third.id})), _ignore) == third
    assert fetch_letter(amqp, Selection(frozenset({6})), _ignore) is None


def test_replay_gives_a_fresh_start_in_the_queue_it_came_from(amqp: Amqp) -> None:
    """Body and properties are the publisher's, the attempts are forgotten, the rest of the letters stays in order."""
    tally = replay(amqp, Selection(frozenset({2, 4})), _ignore)

    assert (tally.done, tally.refused, tally.is_finished) == (2, 0, True)
    assert _reasons(amqp) == ["reason 0", "reason 2", "reason 4"]
    sent = trio.run(take_all, amqp, amqp.queue)
    assert [one.body for one in sent] == [b'{"n": 1}', b'{"n": 3}']
    assert sent[0].properties.headers == {"respite-routing-key": "ticket.1", "respite-exchange": "x"}
    assert (sent[0].properties.message_id, sent[0].properties.content_type) == ("m1", "application/json")
    assert sent[0].properties.delivery_mode == 2


def test_replay_of_a_broadcast_event_goes_to_the_exchange(rabbitmq: RabbitMq, names: Names) -> None:
    """The queue it came from went with its sidecar; all that are there now get it, by its own routing key."""
    shared = settings_for(rabbitmq, names)
    trio.run(bury, shared, letter(1, None, **{"respite-exchange": names.exchange}))

    tally = replay(attrs.evolve(shared, delivery="broadcast"), _ALL, _ignore)

    assert tally.done == 1
    [sent] = trio.run(take_all, shared, shared.queue)
    assert (sent.exchange, sent.routing_key) == (names.exchange, "ticket.1")


def test_replay_to_an_exchange_that_is_gone_names_it(amqp: Amqp) -> None:
    """The queue of dead letters is there; all of them stay in it."""
    with pytest.raises(DeskError, match=r"^the broker refused: .*no exchange 'x'"):
        replay(attrs.evolve(amqp, delivery="broadcast"), _ALL, _ignore)

    assert len(_reasons(amqp)) == 5


def test_replay_to_a_queue_that_is_gone_keeps_the_letters(amqp: Amqp) -> None:
    """What the broker finds no queue for stays a dead letter, with the reason."""
    tally = replay(attrs.evolve(amqp, queue="nowhere"), Selection(frozenset({1, 2})), _ignore)

    assert (tally.done, tally.refused) == (0, 2)
    assert "no queue takes the message" in tally.reasons[0][1]
    assert len(_reasons(amqp)) == 5


def test_replay_takes_no_letter_that_dies_meanwhile(amqp: Amqp) -> None:
    """An event that fails again comes back behind the others; a replay of all must end."""

    def die_again(tally: Tally) -> None:
        if tally.total == 5 and not died:
            died.append(True)
            thread = threading.Thread(target=trio.run, args=(bury, amqp, letter(9), letter(10)))
            thread.start()
            thread.join()

    died: list[bool] = []
    tally = replay(amqp, _ALL, die_again)

    assert tally.done == 5
    assert _reasons(amqp) == ["reason 9", "reason 10"]


def test_drop_takes_exactly_what_is_named(amqp: Amqp) -> None:
    """By id, the same letters go whatever went before them."""
    ids = [one.id for one in list_letters(amqp, _ALL, _ignore).letters]
    drop(amqp, Selection(frozenset({1})), _ignore)

    tally = drop(amqp, Selection(ids=frozenset({ids[0], ids[3]})), _ignore)

    assert tally.done == 1
    assert _reasons(amqp) == ["reason 1", "reason 2", "reason 4"]
    assert trio.run(take_all, amqp, amqp.queue) == []


def test_letters_of_many_bytes_are_looked_through(amqp: Amqp) -> None:
    """A few large bodies among small ones neither fill memory nor change the order."""
    large = [letter(number, b"x" * (6 << 20)) for number in range(5, 8)]
    trio.run(partial(bury, amqp, *large, letter(8)))

    assert _reasons(amqp) == [f"reason {number}" for number in range(9)]


def test_interrupted_list_gives_everything_back(rabbitmq: RabbitMq, names: Names) -> None:
    """Ctrl-C while it reads: the letters are where they were."""
    amqp = settings_for(rabbitmq, names)
    trio.run(partial(bury, amqp, *(letter(number) for number in range(200))))

    with pytest.raises(KeyboardInterrupt):
        list_letters(amqp, _ALL, _interrupt)

    assert _reasons(amqp) == [f"reason {number}" for number in range(200)]


def test_interrupted_replay_stops_between_letters(rabbitmq: RabbitMq, names: Names) -> None:
    """Ctrl-C ends it after what runs: each letter is either sent or still there, none is both."""
    amqp = settings_for(rabbitmq, names)
    trio.run(partial(bury, amqp, *(letter(number) for number in range(200))))

    tally = replay(amqp, _ALL, _interrupt)

    assert not tally.is_finished
    assert 0 < tally.done < 200
    sent = [one.body for one in trio.run(take_all, amqp, amqp.queue)]
    kept = [one.body for one in trio.run(take_all, amqp, amqp.dead_letter_queue)]
    assert len(sent) == tally.done
    assert sent + kept == [b'{"n": %d}' % number for number in range(200)]


def test_broker_killed_while_replaying_loses_no_letter(rabbitmq_own: RabbitMq, names: Names) -> None:
    """The error says how far it came; every letter is in one of the two queues afterwards."""
    amqp = settings_for(rabbitmq_own, names)
    bodies = {b'{"n": %d}' % number for number in range(200)}
    trio.run(partial(bury, amqp, *(letter(number) for number in range(200))))

    def kill(tally: Tally) -> None:
        if tally.done > 10:
            rabbitmq_own.kill()

    with pytest.raises(DeskError, match="done before that, the rest is still in the queue"):
        replay(amqp, _ALL, kill)
    rabbitmq_own.start()

    found = [*trio.run(take_all, amqp, amqp.queue), *trio.run(take_all, amqp, amqp.dead_letter_queue)]
    assert {one.body for one in found} == bodies


def test_the_first_broker_that_answers_is_asked(amqp: Amqp) -> None:
    """Of a cluster's nodes one may be down."""
    nobody = attrs.evolve(amqp.urls[0], port=1)

    assert list_letters(attrs.evolve(amqp, urls=(nobody, *amqp.urls)), _ALL, _ignore).total == 5


@pytest.mark.parametrize("change", [{"port": 1}, {"password": "wrong"}, {"vhost": "nope"}])
def test_no_broker_that_lets_us_in_is_one_line_for_a_person(amqp: Amqp, change: dict[str, Any]) -> None:
    """Away, wrong password, wrong vhost: the address, the reason, and what to do; never the password."""
    endpoint = attrs.evolve(amqp.urls[0], **change)

    with pytest.raises(DeskError) as caught:
        list_letters(attrs.evolve(amqp, urls=(endpoint,)), _ALL, _ignore)

    text = str(caught.value)
    assert endpoint.display in text
    assert "--amqp URL" in text
    assert "\n" not in text
    assert "wrong" not in text


def _interrupt(_tally: Tally) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_replay_at_a_broker_short_of_memory_says_so(
    rabbitmq_own: RabbitMq, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that takes nothing for lack of memory is not waited for without end; no letter is lost."""
    monkeypatch.setattr("proxy.amqp.desk._CONFIRM_TIMEOUT_S", 2.0)
    amqp = settings_for(rabbitmq_own, names)
    trio.run(bury, amqp, letter(0))
    rabbitmq_own.block()

    with pytest.raises(DeskError, match=r"has not confirmed within 2 s: .*memory"):
        replay(amqp, _ALL, _ignore)

    rabbitmq_own.restart()
    found = [*trio.run(take_all, amqp, amqp.queue), *trio.run(take_all, amqp, amqp.dead_letter_queue)]
    assert {one.body for one in found} == {b'{"n": 0}'}
