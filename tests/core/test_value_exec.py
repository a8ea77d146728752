"""EXEC of commands of classes: its end when its preparation fails, and what depends on it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from proxy.core.slots import Failure
from proxy.errors import DEPENDENTS_LEFT, UPSTREAM_LOST, UPSTREAM_UNAVAILABLE, damaged_value
from proxy.wire.encode import array

from .scripted_values import DAMAGED, Pinned, Shared, commands_in, peeked

OK, QUEUED, NIL = b"+OK\r\n", b"+QUEUED\r\n", b"*-1\r\n"
NOPERM = b"-NOPERM not for you\r\n"
BARE = peeked(None)


# -- EXEC's preparation fails ------------------------------------------------------------------------------------------


def prepared() -> Pinned:
    """Bring a transaction of a session that watches, and that needs unwrapping, to its EXEC."""
    world = Pinned()
    world.queue("APPEND v:1 x", "DEL d:1")
    world.pin.asked()
    world.pin.state.watching = True
    world.send("EXEC")
    return world


@pytest.mark.parametrize(
    ("answers", "expected"),
    [([NOPERM], NOPERM), ([peeked(DAMAGED)], damaged_value(b"v:1")), ([peeked(b"plain"), NOPERM], NOPERM)],
)
def test_exec_that_cannot_be_prepared_is_discarded(answers: list[bytes], expected: bytes) -> None:
    """The client has the reason, Redis forgets the queue, nothing is marked and nothing dropped."""
    world = prepared()
    world.link.answer(*answers)

    assert world.pin.names() == [b"DISCARD"]
    assert (world.client.received, world.invalidations.calls) == (expected, [])
    assert world.is_over()
    assert world.pin.state.once
    world.pin.answer(OK)
    assert world.client.received == expected


@pytest.mark.parametrize("answers", [[], [peeked(b"plain")], [peeked(b"plain"), b":1\r\n"]])
@pytest.mark.parametrize("failure", [Failure.LOST, Failure.TIMED_OUT, Failure.UNAVAILABLE])
def test_exec_whose_preparation_loses_its_link_is_discarded(answers: list[bytes], failure: Failure) -> None:
    """At any step of it."""
    world = prepared()
    world.link.answer(*answers)
    world.link.lose(failure)

    assert world.pin.names() == [b"DISCARD"]
    assert world.client.received.startswith(b"-ERR respite: upstream ")
    assert world.is_over()


def test_exec_without_a_link_to_prepare_it_on_is_discarded() -> None:
    """Redis is away for the shared links."""
    world = Pinned()
    world.queue("APPEND v:1 x")
    world.pin.asked()
    world.client.link = None
    world.pin.state.watching = True
    world.send("EXEC")

    assert (world.pin.names(), world.client.received) == ([b"DISCARD"], UPSTREAM_UNAVAILABLE)
    assert world.is_over()


def test_exec_whose_own_link_goes_while_it_is_prepared_is_answered() -> None:
    """It was never sent."""
    world = prepared()
    world.pin.lose()
    assert world.client.received == b""
    world.link.answer(BARE)

    assert (world.client.received, world.invalidations.calls) == (UPSTREAM_UNAVAILABLE, [])
    assert world.is_over()


def test_exec_whose_client_goes_while_it_is_prepared_ends() -> None:
    """Its pinned link is closed with it; the keys are unmarked."""
    world = prepared()
    slot = world.client.queue.popleft()
    slot.orphan()
    world.pin.lose()
    world.link.answer(BARE)

    assert world.is_over()
    assert world.client.received == b""


def test_exec_behind_a_fence_waits_until_its_keys_are_purged() -> None:
    """A read in the queue must find nothing older than the fence."""
    world = Pinned()
    world.queue("GET v:1")
    world.pin.asked()
    world.values.fences.put(0, "glob", b"v:*", 7)
    world.send("EXEC")
    assert (world.pin.raws, world.link.names()) == ([], [b"EVAL", b"PING"])
    world.link.answer(b":1\r\n", b"+PONG\r\n")
    assert world.pin.names() == [b"EXEC"]
    world.pin.answer(array([b"$-1\r\n"]))
    assert world.is_over()

    world.pin.state.once = False
    world.queue("GET v:1", "GET x")
    world.pin.asked()
    world.send("EXEC")
    assert (world.pin.names(), world.link.raws) == ([b"EXEC"], [])


def test_exec_behind_a_fence_whose_purge_is_lost_is_discarded() -> None:
    """Nobody knows whether the older value is gone."""
    world = Pinned()
    world.queue("GET v:1")
    world.values.fences.put(0, "glob", b"v:*", 7)
    world.pin.asked()
    world.send("EXEC")
    world.link.lose()

    assert (world.pin.names(), world.client.received) == ([b"DISCARD"], UPSTREAM_LOST)
    assert world.is_over()


# -- what depends on EXEC ----------------------------------------------------------------------------------------------


def executed(reply: bytes = b"") -> Pinned:
    """Send the EXEC of writes that others depend on, and answer it."""
    world = Pinned()
    world.queue([b"SET", b"d:1", b"text"], "EXPIRE d:2 5", "DEL d:3")
    world.send("EXEC")
    if reply:
        world.pin.answer(reply)
    return world


@pytest.mark.parametrize(
    ("error", "expected"), [("", array([OK, b":1\r\n", b":1\r\n"])), ("ERR away", DEPENDENTS_LEFT)]
)
def test_exec_answers_when_what_depends_on_it_is_dropped(error: str, expected: bytes) -> None:
    """All of the queue in one go, the new TTL not counted."""
    world = executed(array([OK, b":1\r\n", b":1\r\n"]))

    assert world.client.received == b""
    ((what, db, _),) = world.invalidations.calls
    assert (what.keys, what.tags, db) == ((b"v:1", b"v:3"), (b"all-1", b"all-3"), 0)
    world.invalidations.end(error)
    assert world.client.received == expected
    assert world.is_over()


@pytest.mark.parametrize(("failure", "drops"), [(Failure.LOST, 1), (Failure.TIMED_OUT, 1), (Failure.UNAVAILABLE, 0)])
def test_exec_that_is_lost_drops_what_depends_on_it_if_it_was_sent(failure: Failure, drops: int) -> None:
    """It may have been executed."""
    world = executed()
    world.pin.lose(failure)

    assert len(world.invalidations.calls) == drops
    assert world.client.received.startswith(b"-ERR respite: upstream ")
    assert world.is_over()


def test_discard_forgets_what_exec_would_have_seen_to() -> None:
    """The next transaction of the link begins with nothing."""
    world = Pinned()
    world.queue([b"SET", b"v:1", b"one"], "APPEND v:1 x", "GET v:2", "DEL d:1")
    world.send("DISCARD")
    world.pin.answer(OK)

    assert world.pin.state.queued_dependents == {}
    assert not world.commands.must_precede(world.pin.state)
    assert (world.pin.state.queued_sealed, world.pin.state.queued_ours) == ({}, [])


def test_queue_for_a_client_without_effect_seals_and_drops_nothing() -> None:
    """But what looks at bytes is unwrapped: others may have written envelopes."""
    world = Pinned()
    world.client.classed = False
    world.queue([b"SET", b"v:1", b"one"], "DEL d:1", "STRLEN v:1")

    assert world.pin.asked()[1] == [b"SET", b"v:1", b"one"]
    assert world.pin.state.queued_dependents == {}
    assert world.commands.must_precede(world.pin.state)


def test_finish_exec_of_nothing_queued_is_untouched() -> None:
    """An empty transaction has an empty reply."""
    world = Shared()
    state = SimpleNamespace(queued_ours=[], queued_whole={})

    assert world.commands.finish_exec(state, b"*0\r\n") == b"*0\r\n"  # type: ignore[arg-type]
    assert commands_in(array([])) == [[]]
