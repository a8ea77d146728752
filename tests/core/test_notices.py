"""Writes that are announced on shared links: what is sent, what a client reads, what becomes of the notice."""

from __future__ import annotations

import json

import pytest

from proxy.core.notices import REFUSED_S, SHORT_S
from proxy.core.slots import Failure
from proxy.errors import UPSTREAM_LOST
from proxy.wire.encode import array, bulk

from .scripted_notices import (
    ABORT,
    ALLOWED,
    ID,
    LOADING,
    NIL,
    NOPERM,
    OK,
    OOM,
    QUEUED,
    Whole,
    announcing,
    bodies,
    spoken,
    unproven,
)
from .scripted_values import Shared, words


def test_write_and_its_notice_are_one_transaction() -> None:
    """In one piece on the link; the client reads what a write alone would have got."""
    world = Shared()
    notices = announcing(world)
    world.take("SET v:1 text")
    assert len(world.link.raws) == 1
    asked = world.link.asked()
    assert [one[0] for one in asked] == [b"MULTI", b"SET", b"XADD", b"EXEC"]
    ((topic, event),) = bodies(asked)
    assert topic == "versioned"
    assert event.keys() == {"id", "keys", "db", "publisher", "version"}
    assert (event["keys"], event["db"], event["publisher"]) == (["v:1"], 0, "respite")
    assert event["version"] == world.values.sealer.clock.last
    assert bulk(b"v:1") in world.engine.writing
    world.link.answer(OK, QUEUED, QUEUED, array([OK, ID]))

    assert (world.client.received, world.engine.writing) == (OK, {})
    assert (notices.counts.announced, world.link.raws) == (1, [])


@pytest.mark.parametrize(
    "line", ["GET v:1", "SET x 1", "EXPIRE v:1 10", "GETEX v:1 PERSIST", "GETEX v:1 EXAT 99999999999"]
)
def test_what_changes_no_value_of_a_class_is_not_announced(line: str) -> None:
    """Reads, keys of no class, and how long a key lives."""
    world = Whole()
    world.pipeline.take_notices(announcing(world))
    world.run(line)

    assert not {b"MULTI", b"XADD"} & set(world.link.names())


@pytest.mark.parametrize("line", ["EXPIRE v:1 0", "EXPIRE v:1 -1", "GETEX v:1 EXAT 1", "DEL v:1 x", "SET b:1 x"])
def test_pipeline_announces_what_ends_a_key(line: str) -> None:
    """Also commands that classes do nothing about."""
    world = Whole()
    world.pipeline.take_notices(announcing(world))
    world.run(line)
    asked = world.link.asked()

    assert [one[0] for one in asked] == [b"MULTI", line.split(maxsplit=1)[0].encode(), b"XADD", b"EXEC"]
    assert bodies(asked)[0][1]["keys"] == [line.split()[1]]


def test_each_class_is_told_of_its_own_keys() -> None:
    """The routing key is the class; keys of none are nobody's business."""
    world = Whole()
    world.pipeline.take_notices(announcing(world))
    world.run("DEL v:1 b:1 x v:2")
    asked = world.link.asked()

    assert [(topic, event["keys"]) for topic, event in bodies(asked)] == [
        ("versioned", ["v:1", "v:2"]),
        ("bare", ["b:1"]),
    ]
    world.link.answer(OK, QUEUED, QUEUED, QUEUED, array([b":3\r\n", ID, ID]))
    assert world.client.received == b":3\r\n"


def test_key_that_is_no_text_can_be_named() -> None:
    """As events name it: surrogates stand for its bytes."""
    world = Shared()
    announcing(world)
    world.take([b"SET", b"v:\xff", b"x"])

    assert bodies(world.link.asked())[0][1]["keys"] == ["v:\udcff"]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        *(("SET v:1 x NX", NIL), ("SET v:1 x NX", b"_\r\n"), ("DEL b:1", b":0\r\n"), ("GETDEL v:1", NIL)),
        *(("HSET v:1 f x", b"-WRONGTYPE no\r\n"), ("EXPIRE v:1 0", b":0\r\n")),
    ],
)
def test_notice_of_what_did_nothing_is_withdrawn(line: str, reply: bytes) -> None:
    """By the id that EXEC told."""
    world = Whole()
    notices = announcing(world)
    world.pipeline.take_notices(notices)
    world.run(line)
    world.link.asked()
    world.link.answer(OK, QUEUED, QUEUED, array([reply, ID]))

    assert world.client.received == reply
    assert world.link.asked() == [[b"XDEL", b"respite:outbox", b"1700000000000-0"]]
    assert (notices.counts.withdrawn, notices.counts.announced) == (1, 0)


@pytest.mark.parametrize(("line", "reply"), [("SET v:1 x GET", NIL), ("HSET v:1 f x", b":0\r\n")])
def test_notice_of_what_may_have_changed_something_stays(line: str, reply: bytes) -> None:
    """No old value, no new field: there may be another value now."""
    world = Whole()
    notices = announcing(world)
    world.pipeline.take_notices(notices)
    world.run(line)
    world.link.asked()
    world.link.answer(OK, QUEUED, QUEUED, array([reply, ID]))

    assert (world.link.asked(), notices.counts.announced) == ([], 1)


def test_error_at_queue_time_is_the_clients() -> None:
    """Byte for byte; nothing is announced, nothing withdrawn, the user is not to blame for the abort."""
    world = Shared()
    notices = announcing(world)
    world.take("SET v:1 text WRONG")
    world.link.asked()
    world.link.answer(OK, b"-ERR syntax error\r\n", QUEUED, ABORT)

    assert (world.client.received, world.link.asked()) == (b"-ERR syntax error\r\n", [])
    assert notices.notice(world.client, *spoken("SET v:1 x")) is not None


OOM_AT_EXEC = b"-EXECABORT Transaction discarded because of: OOM command not allowed\r\n"


@pytest.mark.parametrize(("added", "done"), [(NOPERM, ABORT), (OOM, ABORT), (QUEUED, OOM_AT_EXEC)])
def test_write_whose_notice_is_refused_is_sent_without(added: bytes, done: bytes) -> None:
    """Nothing was done so far; the keys are marked until its own reply. Without memory, its class is owed a notice."""
    world = Shared()
    notices = announcing(world)
    world.take("SET v:1 text")
    world.link.asked()
    world.link.answer(OK, QUEUED, added, done)

    assert world.client.received == b""
    assert bulk(b"v:1") in world.engine.writing
    assert world.link.names() == [b"SET"]
    assert notices.owed == {}, "it is not done yet: what is owed now could be paid before it is"
    world.link.answer(OK)
    assert (world.client.received, world.engine.writing) == (OK, {})
    is_owed = added != NOPERM
    assert (notices.counts.unannounced, notices.counts.coarse) == (int(not is_owed), int(is_owed))
    assert list(notices.owed) == [(0, "versioned", 0)] * is_owed


@pytest.mark.parametrize(
    ("added", "done", "answer"),
    [
        (LOADING, ABORT, LOADING),
        (QUEUED, b"-EXECABORT Transaction discarded because of: MISCONF no\r\n", b"-MISCONF no\r\n"),
    ],
)
def test_error_that_has_nothing_to_do_with_the_notice_is_the_clients(added: bytes, done: bytes, answer: bytes) -> None:
    """Redis loads, or cannot save: what is written next is announced like everything else."""
    world = Shared()
    notices = announcing(world)
    world.take("SET v:1 text")
    world.link.asked()
    world.link.answer(OK, QUEUED, added, done)

    assert (world.client.received, world.link.asked()) == (answer, [])
    assert notices.notice(world.client, *spoken("SET v:1 x")) is not None
    assert (notices.counts.unannounced, notices.owed) == (0, {})


def test_writes_are_owed_while_redis_has_no_memory_for_notices() -> None:
    """One notice by class for all of them, paid once; what is owed meanwhile is not forgotten."""
    world = Shared()
    notices = announcing(world)
    assert notices.refuse((b"u", 0), OOM)
    for line, reply in (("DEL v:9", b":0\r\n"), ("SET v:9 x", OOM)):
        world.take(line)
        assert world.link.names() == [line.split()[0].encode()]
        world.link.answer(reply)
    assert notices.owed == {}, "nothing was changed"
    for line in ("DEL v:1", "DEL v:2", "DEL b:1"):
        world.take(line)
        world.link.answer(b":1\r\n")
    places = sorted(notices.owed)
    assert [(home, db) for home, _, db in places] == [(0, 0), (0, 0)]
    assert b'"patterns": ["v:*"]' in notices.owed[places[1]]

    paid = notices.owed[places[1]]
    world.take("DEL v:3")
    world.link.answer(b":1\r\n")
    notices.paid(places[1], paid)
    assert places[1] in notices.owed
    notices.paid(places[1], notices.owed[places[1]])
    assert sorted(notices.owed) == places[:1]

    world.take("DEL v:3")
    world.link.lose(Failure.LOST)
    assert sorted(notices.owed) == places, "it may be done"

    world.engine.now += SHORT_S
    notice = notices.notice(world.client, *spoken("DEL v:1"))
    assert notice is not None
    assert not notice.is_owed


def test_notice_that_an_outbox_of_another_kind_refuses_is_owed() -> None:
    """Somebody has put something else where the outbox is."""
    world = Shared()
    notices = announcing(world)
    world.take("SET v:1 text")
    world.link.asked()
    world.link.answer(OK, QUEUED, QUEUED, array([OK, b"-WRONGTYPE no\r\n"]))

    assert world.client.received == OK
    assert len(notices.owed) == 1


def test_user_who_was_refused_is_not_asked_again_at_once() -> None:
    """For a minute, its writes go without; then it is looked at again."""
    world = Whole()
    notices = announcing(world)
    world.pipeline.take_notices(notices)
    notices.refuse((b"u", 0), NOPERM)
    world.run("SET v:1 text")
    assert world.link.names() == [b"SET"]

    world.engine.now += REFUSED_S
    world.run("SET v:1 text")
    assert world.link.names() == [b"EXEC", b"XADD", b"XDEL", b"HLEN"]


def test_user_without_transactions_has_its_writes_done_once() -> None:
    """MULTI was refused, so each command was executed by itself: not again."""
    world = Shared()
    notices = announcing(world)
    world.take("SET v:1 text")
    world.link.asked()
    world.link.answer(NOPERM, OK, ID, b"-ERR EXEC without MULTI\r\n")

    assert (world.client.received, world.link.asked()) == (OK, [])
    assert notices.notice(world.client, *spoken("SET v:1 x")) is None


@pytest.mark.parametrize("failure", [Failure.LOST, Failure.UNAVAILABLE])
def test_write_whose_link_is_lost_is_answered(failure: Failure) -> None:
    """With the words of the write, and no mark is left."""
    world = Shared()
    announcing(world)
    world.take("SET v:1 text")
    world.link.answer(OK)
    world.link.lose(failure)

    assert world.client.received.startswith(b"-ERR respite: upstream")
    assert (world.client.received == UPSTREAM_LOST) == (failure is Failure.LOST)
    assert (world.engine.writing, list(world.client.queue)) == ({}, [])


def test_old_value_comes_whole_out_of_the_transaction() -> None:
    """Whatever pieces it arrives in."""
    world = Shared()
    announcing(world)
    world.take("GETSET v:1 new")
    world.link.answer(OK, QUEUED, QUEUED)
    slot = world.link.fifo[0]
    frame = array([bulk(b"old" * 50_000), ID])
    slot.partial(frame[:100_000])
    world.link.fifo.popleft()
    slot.land(frame[100_000:])

    assert world.client.received == bulk(b"old" * 50_000)


# -- who may -----------------------------------------------------------------------------------------------------------


def test_first_write_of_a_user_waits_for_a_probe() -> None:
    """What comes behind it waits, too: nothing overtakes a write that would have to be sent again."""
    world = Whole()
    notices = unproven(world)
    world.pipeline.take_notices(notices)
    world.run("SET v:1 text", "GET x")
    assert world.link.names() == [b"EXEC", b"XADD", b"XDEL", b"HLEN"]
    assert world.client.waiting == [words("SET v:1 text"), words("GET x")]
    world.link.answer(*ALLOWED)

    assert (world.client.received, list(world.client.queue)) == (b"", [])
    assert notices.is_ready(world.client)


@pytest.mark.parametrize("at", range(4))
def test_probe_finds_who_may_not(at: int) -> None:
    """Any of the commands that announcing takes may be forbidden."""
    world = Shared()
    notices = unproven(world)
    assert not notices.is_ready(world.client)
    world.link.answer(*(NOPERM if at == number else reply for number, reply in enumerate(ALLOWED)))

    assert notices.is_ready(world.client)
    assert notices.notice(world.client, *spoken("SET v:1 x")) is None
    assert (notices.counts.unannounced, world.client.received) == (1, b"")


def test_probe_that_is_lost_keeps_nobody_waiting() -> None:
    """The write itself will show."""
    world = Shared()
    notices = unproven(world)
    notices.is_ready(world.client)
    world.link.lose()

    assert (world.client.received, list(world.client.queue)) == (b"", [])
    assert notices.is_ready(world.client)


def test_full_outbox_is_told_of_the_class_once() -> None:
    """However many writes there are, the hash holds one notice a class."""
    world = Shared()
    notices = announcing(world)
    notices.full.add(0)
    world.take("SET v:1 text")
    _, _, missed, _ = world.link.asked()
    assert missed[:3] == [b"HSET", b"respite:outbox:missed", b"versioned 0"]
    assert json.loads(missed[3])["patterns"] == ["v:*"]
    world.link.answer(OK, QUEUED, QUEUED, array([OK, b":1\r\n"]))

    assert (world.client.received, notices.counts.coarse) == (OK, 1)
