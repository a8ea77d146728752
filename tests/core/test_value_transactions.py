"""Commands of classes inside MULTI: what is queued, and queued anew, and what EXEC's reply leaves out."""

from __future__ import annotations

from hashlib import sha1

import pytest

from proxy.core import pinning
from proxy.core.plain import ROUNDS_MAX
from proxy.core.slots import STREAM_BYTES
from proxy.errors import CROWDED, UPSTREAM_LOST, UPSTREAM_UNAVAILABLE, damaged_value
from proxy.values.envelope import open_value
from proxy.values.opening import open_in_place
from proxy.wire.encode import array, bulk

from .scripted_values import DAMAGED, Pinned, ScriptedLink, commands_in, peeked

OK, QUEUED, NIL = b"+OK\r\n", b"+QUEUED\r\n", b"*-1\r\n"
NOPERM = b"-NOPERM not for you\r\n"
BARE = peeked(None)
OPENED = b":0\r\n"  # nothing was left that could not be opened in its place


def guard(*keys: str) -> list[bytes]:
    """Return what stands in a queue before a command that looks at keys: it opens what others have written since."""
    (found,) = commands_in(open_in_place([key.encode() for key in keys]))
    return found


# -- MULTI -------------------------------------------------------------------------------------------------------------


def test_multi_queues_sealed_values_and_needs_nothing_before_exec() -> None:
    """EXEC's reply is handed on as it is."""
    world = Pinned()
    world.queue([b"SET", b"v:1", b"text"], "GET x")
    assert open_value(world.pin.asked()[1][2], {})[0] == b"text"
    assert world.send("EXEC")
    assert (world.pin.names(), world.link.raws) == ([b"EXEC"], [])
    world.pin.answer(array([OK, b"$-1\r\n"]))

    assert world.client.received == array([OK, b"$-1\r\n"])
    assert world.is_over()


def test_multi_that_looks_at_bytes_is_queued_anew_on_plain_values() -> None:
    """WATCH must come before MULTI: what was queued is discarded, and said again behind it; what follows waits."""
    world = Pinned()
    world.queue("APPEND v:1 x", "PING", "STRLEN v:1")
    world.pin.asked()
    assert world.send("EXEC")
    assert not world.send("GET x")
    assert world.pin.names() == [b"DISCARD", b"WATCH", b"EVAL", b"MULTI"]
    world.pin.answer(OK, OK, peeked(b"plain"), OK)
    swap, *queue, execute = world.pin.asked()
    assert (swap[3:], execute) == ([b"v:1", b"digest of plain", b"plain"], [b"EXEC"])
    assert queue == [guard("v:1"), [b"APPEND", b"v:1", b"x"], [b"PING"], guard("v:1"), [b"STRLEN", b"v:1"]]
    replies = [b":1\r\n", OPENED, b":6\r\n", b"+PONG\r\n", OPENED, b":6\r\n"]
    world.pin.answer(*[QUEUED] * 6, array(replies))

    assert world.client.received == array([b":6\r\n", b"+PONG\r\n", b":6\r\n"])
    assert world.is_over()


ANEW = ("APPEND v:1 x", "DEL d:1")
PLAIN = (OK, OK, BARE)  # DISCARD, WATCH, peek


def queued_anew() -> Pinned:
    """Bring a transaction that looks at bytes to its EXEC."""
    world = Pinned()
    world.queue(*ANEW)
    world.pin.asked()
    world.send("EXEC")
    return world


@pytest.mark.parametrize("nil", [NIL, b"_\r\n"])
def test_exec_that_others_write_into_is_queued_again_and_gives_up_in_the_end(nil: bytes) -> None:
    """The client never sees a nil that it has not asked for."""
    world = queued_anew()
    world.pin.answer(OK)
    rounds = 0
    while world.pin.fifo:
        rounds += 1
        assert rounds <= ROUNDS_MAX + 1
        world.pin.answer(OK, BARE, OK, QUEUED, QUEUED, QUEUED, nil)

    assert rounds == ROUNDS_MAX + 1
    assert (world.client.received, world.invalidations.calls) == (CROWDED, [])
    assert world.is_over()


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        *(([OK, NOPERM, BARE, OK, b"*0\r\n"], NOPERM), ([OK, OK, NOPERM, OK, b"*0\r\n"], NOPERM)),
        *(([*PLAIN, NOPERM, OK], NOPERM), ([NOPERM, NOPERM, QUEUED, NOPERM, b"-EXECABORT\r\n"], NOPERM)),
        ([OK, OK, peeked(DAMAGED), OK, b"*0\r\n"], damaged_value(b"v:1")),
        ([OK, OK, peeked(b"plain"), OK, NOPERM, *[QUEUED] * 3, b"-EXECABORT discarded\r\n"], NOPERM),
        ([*PLAIN, OK, QUEUED, NOPERM, QUEUED, b"-EXECABORT discarded\r\n"], b"-EXECABORT discarded\r\n"),
    ],
)
def test_exec_queued_anew_error_at_any_step_ends_it(answers: list[bytes], expected: bytes) -> None:
    """Nothing was run, nothing depends on it."""
    world = queued_anew()
    world.pin.answer(*answers)

    assert (world.client.received, world.invalidations.calls) == (expected, [])
    assert world.is_over()


@pytest.mark.parametrize(
    ("answers", "drops"),
    [
        *(([], 0), ([OK], 0), ([OK, OK], 0), ([OK, OK, peeked(b"plain")], 0), ([OK, OK, peeked(b"plain"), OK], 1)),
        *(([*PLAIN], 0), ([*PLAIN, OK, QUEUED], 1)),
    ],
)
def test_exec_queued_anew_link_lost_at_any_step_ends_it(answers: list[bytes], drops: int) -> None:
    """What depends on it goes where it may have been run."""
    world = queued_anew()
    world.pin.answer(*answers)
    world.pin.lose()

    assert (world.client.received, len(world.invalidations.calls)) == (UPSTREAM_LOST, drops)
    assert world.is_over()


def test_exec_queued_anew_has_our_swaps_in_their_places() -> None:
    """And they are cut out of its reply."""
    world = Pinned()
    world.queue([b"SET", b"v:1", b"one"], "APPEND v:1 x")
    queued = world.pin.asked()[1:]
    world.send("EXEC")
    world.pin.answer(*PLAIN, OK)
    assert world.pin.asked()[-5:-1] == queued
    world.pin.answer(*[QUEUED] * 4, array([OK, b":1\r\n", OPENED, b":4\r\n"]))

    assert world.client.received == array([OK, b":4\r\n"])
    assert world.is_over()


def test_exec_queued_anew_purges_what_is_behind_a_fence() -> None:
    """Of all its keys, not only of those whose bytes it looks at."""
    world = Pinned()
    world.queue("APPEND v:1 x", "GET v:2")
    world.values.fences.put(0, "glob", b"v:*", 7)
    world.pin.asked()
    world.send("EXEC")
    discard, purge, *_ = world.pin.asked()

    assert discard == [b"DISCARD"]
    assert purge[2:5] == [b"2", b"v:1", b"v:2"]


@pytest.mark.parametrize("why", ["watching", "session", "size"])
def test_exec_that_cannot_be_queued_anew_is_prepared_beside(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that watches keeps its WATCH; one that moves is where Redis has it; what is too much is not kept."""
    monkeypatch.setattr(pinning, "KEPT_MAX_BYTES", 40 if why == "size" else 1 << 20)
    world = Pinned()
    world.pin.state.watching = why == "watching"
    world.queue("APPEND v:1 x", *(["SELECT 3"] if why == "session" else []), "PING")
    world.pin.asked()
    world.send("EXEC")
    assert not world.send("GET x")
    assert (world.pin.raws, world.link.names()) == ([], [b"EVAL"])
    world.link.answer(peeked(b"plain"), b":1\r\n", BARE)
    assert world.pin.names() == [b"EXEC"]
    world.pin.answer(array([OPENED, b":6\r\n", *([OK] if why == "session" else []), b"+PONG\r\n"]))

    assert world.client.received == array([b":6\r\n", *([OK] if why == "session" else []), b"+PONG\r\n"])
    assert world.is_over()


def test_watch_inside_multi_has_no_place_in_execs_reply() -> None:
    """Redis refuses it, and goes on queueing."""
    world = Pinned()
    world.queue([b"SET", b"v:1", b"one"], "WATCH v:2", "APPEND v:1 x", "GET v:1")
    world.pin.state.watching = True
    world.send("EXEC")
    world.link.answer(BARE)
    world.pin.answer(array([OK, b":1\r\n", OPENED, b":4\r\n", bulk(DAMAGED)]))

    assert world.client.received == array([OK, b":4\r\n", damaged_value(b"v:1")])


def test_multi_unwraps_in_between_what_it_has_queued_itself() -> None:
    """Our swaps stand in the queue and are cut out of EXEC's reply, wherever they are."""
    world = Pinned()
    world.queue(
        [b"SET", b"v:1", b"one"], "PING", "APPEND v:1 x", [b"MSET", b"v:2", b"two", b"v:1", b"three"], "PFCOUNT v:1 v:2"
    )
    _, first, _, swap, opening, append, second, *swaps, again, last = world.pin.asked()
    assert (opening, again) == (guard("v:1"), guard("v:1", "v:2"))
    assert swap[3:] == [b"v:1", sha1(first[2]).hexdigest().encode(), b"one"]
    assert (append[0], last[0]) == (b"APPEND", b"PFCOUNT")
    assert [one[3:] for one in swaps] == [
        [b"v:1", sha1(second[4]).hexdigest().encode(), b"three"],
        [b"v:2", sha1(second[2]).hexdigest().encode(), b"two"],
    ]
    world.pin.state.watching = True
    world.send("EXEC")
    world.link.answer(peeked(None, None))
    swapped = [b":1\r\n", b":0\r\n", OPENED]
    world.pin.answer(array([OK, b"+PONG\r\n", b":1\r\n", OPENED, b":4\r\n", OK, *swapped, b":2\r\n"]))

    assert world.client.received == array([OK, b"+PONG\r\n", b":4\r\n", OK, b":2\r\n"])
    assert world.is_over()


def test_multi_changes_of_the_session_are_found_behind_our_swaps() -> None:
    """Places in the queue count what we have queued."""
    world = Pinned()
    world.queue([b"SET", b"v:1", b"one"], "APPEND v:1 x", "SELECT 3")
    world.send("EXEC")
    world.link.answer(BARE)
    world.pin.answer(array([OK, b":1\r\n", OPENED, b":4\r\n", OK]))

    assert world.client.session.db == 3
    assert world.client.received == array([OK, b":4\r\n", OK])


@pytest.mark.parametrize("reply", [NIL, b"_\r\n", b"-EXECABORT discarded\r\n"])
def test_multi_that_was_not_executed_is_answered_as_it_is(reply: bytes) -> None:
    """Nothing is cut out of it, and nothing depends on it."""
    world = Pinned()
    world.queue([b"SET", b"v:1", b"one"], "APPEND v:1 x", "DEL d:1")
    world.pin.state.watching = True
    world.send("EXEC")
    world.link.answer(BARE)
    world.pin.answer(reply)

    assert (world.client.received, world.invalidations.calls) == (reply, [])
    assert world.is_over()


def test_multi_names_the_damaged_values_in_its_reply() -> None:
    """Each in its place, and only where a value of an envelope class is the reply."""
    world = Pinned()
    world.queue("GET v:1", "GET x", "HGETALL v:2", "MGET x v:3", "APPEND v:4 x")
    world.pin.state.watching = True
    world.send("EXEC")
    world.link.answer(BARE)
    hurt = bulk(DAMAGED)
    world.pin.answer(array([hurt, hurt, array([hurt]), array([hurt, hurt]), OPENED, b":1\r\n"]))

    assert world.client.received == array(
        [damaged_value(b"v:1"), hurt, array([hurt]), array([hurt, damaged_value(b"v:3")]), b":1\r\n"]
    )
    assert world.is_over()


def test_multi_end_of_a_streamed_reply_is_not_taken_apart() -> None:
    """The last part of a large reply is no frame, whatever it looks like."""
    world = Pinned()
    world.queue("PING")
    world.send("EXEC")
    slot = world.pin.fifo[0]
    head, end = b"*1\r\n$%d\r\n" % (2 * STREAM_BYTES) + b"x" * (STREAM_BYTES + 100), b"*3\r\n" + DAMAGED + b"\r\n"
    slot.partial(head)
    world.pin.answer(end)

    assert world.client.received == head + end
    assert world.is_over()


def test_multi_with_whole_values_does_not_stream() -> None:
    """A damaged value may still come, and so may what is ours."""
    for lines in (["GET v:1"], [[b"SET", b"v:1", b"one"], "APPEND v:1 x"], ["DEL d:1"]):
        world = Pinned()
        world.queue(*lines)
        world.pin.state.watching = True
        world.send("EXEC")
        while world.link.fifo:
            world.link.answer(BARE)

        assert not world.pin.fifo[0].may_stream(1 << 20)


def test_watch_that_redis_refuses_holds_no_link() -> None:
    """Nor does it end one that was taken before, or will be after it."""
    world = Pinned()
    for answers, is_free in (([NOPERM, NOPERM], True), ([OK, NOPERM], False), ([NOPERM, OK], False)):
        world.pin.state.watching = False
        world.send("WATCH a", "WATCH b")
        world.pin.answer(*answers)

        assert world.pin.state.is_free is is_free


def test_multi_that_swaps_databases_is_told_of_however_large_its_reply_is() -> None:
    """Redis tells nobody of it; that it was done stands at the head of the reply, which therefore does not stream."""
    world = Pinned()
    world.queue("SWAPDB 0 1", "GET x")
    world.send("EXEC")
    world.pin.fifo[0].partial(b"*2\r\n+OK\r\n$%d\r\n" % (2 * STREAM_BYTES) + b"x" * (STREAM_BYTES + 1))
    world.pin.answer(b"x" * (STREAM_BYTES - 1) + b"\r\n")

    assert world.client.received == array([OK, bulk(b"x" * 2 * STREAM_BYTES)])
    assert world.services.asked == [("after_all", b"SWAPDB")]


# -- SELECT in the queue -----------------------------------------------------------------------------------------------


def moving(*lines: str | list[bytes]) -> tuple[Pinned, ScriptedLink]:
    """Queue a transaction, and bring it to its EXEC; return also the proxy's own link to database 3."""
    world, beside = Pinned(), ScriptedLink()
    world.values.link = {3: beside}.get
    world.queue(*lines)
    world.pin.asked()
    world.send("EXEC")
    return world, beside


def test_exec_unwraps_keys_in_the_database_that_its_queue_moves_to() -> None:
    """There the command runs, and there alone the envelope would be found by it."""
    world, beside = moving("STRLEN v:1", "SELECT 3", "APPEND v:2 x", "STRLEN v:2")
    assert (world.pin.raws, [one[3] for one in world.link.asked()]) == ([], [b"v:1"])
    (peek,) = beside.asked()
    assert peek[2:4] == [b"1", b"v:2"]
    world.link.answer(BARE)
    assert world.pin.raws == []
    beside.answer(peeked(b"plain"), b":1\r\n", BARE)
    assert world.pin.names() == [b"EXEC"]
    world.pin.answer(array([OPENED, b":0\r\n", OK, OPENED, b":6\r\n", OPENED, b":6\r\n"]))

    assert world.client.session.db == 3
    assert world.client.received == array([b":0\r\n", OK, b":6\r\n", b":6\r\n"])
    assert world.is_over()


def test_exec_purges_keys_in_the_database_that_its_queue_moves_to() -> None:
    """A fence is of one database."""
    world, beside = Pinned(), ScriptedLink()
    world.values.link = {3: beside}.get
    world.values.fences.put(3, "glob", b"v:*", 7)
    world.queue("SELECT 3", "GET v:1")
    world.pin.asked()
    world.send("EXEC")
    assert (world.pin.raws, world.link.raws, beside.names()) == ([], [], [b"EVAL", b"PING"])
    beside.answer(b":1\r\n", b"+PONG\r\n")

    assert world.pin.names() == [b"EXEC"]


def test_exec_without_a_link_to_the_database_it_moves_to_is_discarded() -> None:
    """Rather no answer than one made from an envelope."""
    world, beside = moving("SELECT 4", "APPEND v:1 x")

    assert (world.pin.names(), world.client.received) == ([b"DISCARD"], UPSTREAM_UNAVAILABLE)
    assert (world.is_over(), beside.raws) == (True, [])


def test_multi_unwraps_in_between_what_it_has_queued_in_the_same_database() -> None:
    """Two keys of one name are two keys."""
    world = Pinned()
    world.queue([b"SET", b"v:1", b"one"], "SELECT 3", [b"SET", b"v:1", b"two"], "STRLEN v:1", "SELECT 0", "STRLEN v:1")
    swaps = [one[3:] for one in world.pin.asked() if one[0] == b"EVAL" and one != guard("v:1")]

    assert [(one[0], one[2]) for one in swaps] == [(b"v:1", b"two"), (b"v:1", b"one")]


def test_exec_drops_what_depends_on_it_in_the_database_it_was_written_in() -> None:
    """The session may be in another one by then."""
    world = Pinned()
    world.queue("DEL d:1", "SELECT 3", "DEL d:2")
    world.send("EXEC")
    world.pin.answer(array([b":1\r\n", OK, b":1\r\n"]))
    assert [db for _, db, _ in world.invalidations.calls] == [0, 3]
    world.invalidations.end()
    assert world.client.received == b""
    world.invalidations.end()

    assert world.client.received == array([b":1\r\n", OK, b":1\r\n"])
    assert world.is_over()


def test_exec_is_answered_although_no_class_asks_for_anything_any_more() -> None:
    """The classes were taken out of the configuration meanwhile."""
    world = Pinned()
    world.queue("DEL d:1")
    world.pinned_commands.value_commands = None
    world.send("EXEC")
    world.pin.answer(array([b":1\r\n"]))

    assert (world.client.received, world.invalidations.calls) == (array([b":1\r\n"]), [])
    assert world.is_over()
