"""Writes that are announced on pinned links: in a client's own transactions, scripts, and what looks at bytes."""

from __future__ import annotations

import pytest

from proxy.core.slots import STREAM_BYTES, Failure
from proxy.wire.encode import array, bulk

from .scripted_notices import (
    ABORT,
    ID,
    LOADING,
    NIL,
    NOPERM,
    OK,
    OOM,
    QUEUED,
    announcing,
    bodies,
    spoken,
)
from .scripted_values import Pinned


def test_exec_is_given_the_notices_and_keeps_them_to_itself() -> None:
    """Behind what the client has queued; of what failed, the notice is withdrawn."""
    world = Pinned()
    notices = announcing(world)
    world.queue("SET b:1 x", "GET b:1", "LPUSH b:2 y")
    world.pin.asked()
    world.send("EXEC")
    asked = world.pin.asked()
    assert [one[0] for one in asked] == [b"XADD", b"XADD", b"EXEC"]
    assert [event["keys"] for _, event in bodies(asked)] == [["b:1"], ["b:2"]]
    world.pin.answer(QUEUED, QUEUED, array([OK, bulk(b"x"), b"-WRONGTYPE no\r\n", ID, bulk(b"7-0")]))

    assert world.client.received == array([OK, bulk(b"x"), b"-WRONGTYPE no\r\n"])
    assert world.pin.asked() == [[b"XDEL", b"respite:outbox", b"7-0"]]
    assert (notices.counts.announced, notices.counts.withdrawn) == (1, 1)
    world.pin.answer(b":1\r\n")
    assert world.is_over()


def test_exec_names_the_database_that_the_queue_selected() -> None:
    """SELECT inside of it moves what follows."""
    world = Pinned()
    announcing(world)
    world.queue("SET b:1 x", "SELECT 3", "SET b:2 y")
    world.pin.asked()
    world.send("EXEC")

    assert [event["db"] for _, event in bodies(world.pin.asked())] == [0, 3]


def test_exec_whose_notices_are_refused_is_run_without() -> None:
    """Queued anew in one piece; the client reads what it would have."""
    world = Pinned()
    notices = announcing(world)
    world.queue("SET b:1 x", "GET b:1")
    world.pin.asked()
    world.send("EXEC")
    world.pin.asked()
    world.pin.answer(NOPERM, ABORT)

    assert world.client.received == b""
    assert world.pin.names() == [b"MULTI", b"SET", b"GET", b"EXEC"]
    world.pin.answer(OK, QUEUED, QUEUED, array([OK, bulk(b"x")]))
    assert world.client.received == array([OK, bulk(b"x")])
    assert notices.counts.unannounced == 1
    assert world.is_over()


def test_exec_that_redis_refuses_while_it_loads_is_refused() -> None:
    """Nothing was queued; what comes after is announced like everything else."""
    world = Pinned()
    notices = announcing(world)
    world.queue("SET b:1 x")
    world.pin.asked()
    world.send("EXEC")
    world.pin.asked()
    world.pin.answer(LOADING, ABORT)

    assert (world.client.received, world.pin.asked()) == (ABORT, [])
    assert (notices.counts.unannounced, notices.owed) == (0, {})
    assert notices.notice(world.client, *spoken("SET b:1 x")) is not None


def test_exec_of_a_watching_session_whose_notices_are_refused_says_that_keys_were_changed() -> None:
    """Its WATCH is gone, so it must look again."""
    world = Pinned()
    announcing(world)
    world.send("WATCH b:1")
    world.pin.answer(OK)
    world.queue("SET b:1 x")
    world.send("EXEC")
    world.pin.answer(NOPERM, ABORT)

    assert world.client.received == b"*-1\r\n"
    assert world.is_over()


def test_exec_that_is_not_run_withdraws_nothing() -> None:
    """A key that was watched has changed: what was queued for us has gone as well."""
    world = Pinned()
    announcing(world)
    world.queue("SET b:1 x")
    world.pin.asked()
    world.send("EXEC")
    world.pin.asked()
    world.pin.answer(QUEUED, b"*-1\r\n")

    assert (world.client.received, world.pin.asked()) == (b"*-1\r\n", [])
    assert world.is_over()


def test_script_is_announced_with_the_keys_it_declares() -> None:
    """One that fails may have written before, one that Redis does not know has not."""
    world = Pinned()
    notices = announcing(world)
    world.send("EVAL s 1 b:1")
    assert world.pin.names() == [b"MULTI", b"EVAL", b"XADD", b"EXEC"]
    world.pin.answer(OK, QUEUED, QUEUED, array([b"-ERR halfway\r\n", ID]))
    assert (world.client.received, notices.counts.announced) == (b"-ERR halfway\r\n", 1)
    world.send("EVAL s 1 b:1")
    world.pin.asked()
    world.pin.answer(OK, QUEUED, QUEUED, array([b"-NOSCRIPT no\r\n", ID]))

    assert world.pin.names() == [b"XDEL"]


def test_command_on_unwrapped_values_is_announced_in_its_transaction() -> None:
    """The one that watches what it has unwrapped; where the notice is refused, it is run again without."""
    world = Pinned()
    notices = announcing(world)
    world.send("APPEND v:1 x")
    world.pin.asked()
    world.pin.answer(OK, array([NIL]), OK)
    assert world.pin.names() == [b"APPEND", b"XADD", b"EXEC"]
    world.pin.answer(QUEUED, NOPERM, ABORT)
    assert world.pin.names() == [b"WATCH", b"EVAL", b"MULTI"]
    world.pin.answer(OK, array([NIL]), OK)
    assert world.pin.names() == [b"APPEND", b"EXEC"]
    world.pin.answer(QUEUED, array([b":4\r\n"]))

    assert (world.client.received, notices.counts.unannounced) == (b":4\r\n", 1)


def test_write_of_a_watching_session_keeps_its_watch() -> None:
    """A transaction of ours would end it: the notice follows right behind, in one piece."""
    world = Pinned()
    announcing(world)
    world.send("WATCH b:9")
    world.pin.answer(OK)
    world.pin.asked()
    world.send("SET b:1 x")
    assert world.pin.names() == [b"SET", b"XADD"]
    world.pin.answer(OK, ID)

    assert world.client.received == OK + OK


@pytest.mark.parametrize(("failure", "is_owed"), [(Failure.LOST, True), (Failure.UNAVAILABLE, False)])
def test_write_that_may_be_done_without_its_notice_is_owed_one(failure: Failure, *, is_owed: bool) -> None:
    """The link was lost somewhere between the two."""
    world = Pinned()
    notices = announcing(world)
    world.send("WATCH b:9")
    world.pin.answer(OK)
    world.send("SET b:1 x")
    world.pin.lose(failure)

    assert list(notices.owed) == [(0, "bare", 0)] * is_owed


@pytest.mark.parametrize("reply", [array([OK, b":0\r\n"]), b"*-1\r\n", None])
def test_transaction_of_a_time_without_memory_is_owed_its_notice_when_it_is_done(reply: bytes | None) -> None:
    """Not when it was queued: that may be long before. None: the link is lost, and it may be done."""
    world = Pinned()
    notices = announcing(world)
    notices.refuse((b"u", 0), OOM)
    world.queue("SET b:1 x", "DEL b:2")
    world.send("EXEC")
    assert (world.pin.names()[-1], notices.owed) == (b"EXEC", {})
    if reply is None:
        world.pin.lose(Failure.LOST)
    else:
        world.pin.answer(reply)

    assert list(notices.owed) == [(0, "bare", 0)] * (reply != b"*-1\r\n")


def test_transaction_of_a_time_without_memory_is_owed_its_notice_however_large_its_reply_is() -> None:
    """What is owed is read from the reply, which therefore does not stream."""
    world = Pinned()
    notices = announcing(world)
    notices.refuse((b"u", 0), OOM)
    world.queue("DEL b:2", "GET x")
    world.send("EXEC")
    world.pin.fifo[0].partial(b"*2\r\n:1\r\n$%d\r\n" % (2 * STREAM_BYTES) + b"x" * (STREAM_BYTES + 1))
    world.pin.answer(b"x" * (STREAM_BYTES - 1) + b"\r\n")

    assert world.client.received == array([b":1\r\n", bulk(b"x" * 2 * STREAM_BYTES)])
    assert list(notices.owed) == [(0, "bare", 0)]


def test_transaction_whose_notices_redis_has_no_memory_for_is_owed_them_when_it_is_done() -> None:
    """It is queued anew without them."""
    world = Pinned()
    notices = announcing(world)
    world.queue("DEL b:1")
    world.send("EXEC")
    world.pin.asked()
    world.pin.answer(OOM, ABORT)
    assert notices.owed == {}
    world.pin.answer(OK, QUEUED, array([b":1\r\n"]))

    assert world.client.received == array([b":1\r\n"])
    assert list(notices.owed) == [(0, "bare", 0)]


def test_exec_keeps_the_notices_to_itself_where_classes_do_nothing_to_values() -> None:
    """Nobody else looks at its reply then."""
    world = Pinned()
    announcing(world)
    world.pinned_commands.value_commands = None
    world.queue("SET b:1 x", "GET b:1")
    world.send("EXEC")
    world.pin.answer(QUEUED, array([OK, bulk(b"x"), ID]))

    assert world.client.received == array([OK, bulk(b"x")])
    assert world.is_over()
