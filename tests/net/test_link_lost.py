"""A link that ends answers everybody, with what is known about each command."""

from __future__ import annotations

import pytest

from proxy.core.slots import CallSlot, EffectSlot, Failure, Slot, WriteSlot
from proxy.errors import UPSTREAM_LOST, UPSTREAM_TIMED_OUT, UPSTREAM_UNAVAILABLE

from ..core.scripted_slots import ScriptedClient
from .scripted import Harness


@pytest.mark.parametrize(
    ("kind", "sent", "expected"),
    [
        ("write", True, UPSTREAM_LOST),
        ("effect", True, UPSTREAM_LOST),
        ("call", True, UPSTREAM_LOST),
        ("read", True, UPSTREAM_UNAVAILABLE),
        ("write", False, UPSTREAM_UNAVAILABLE),
        ("effect", False, UPSTREAM_UNAVAILABLE),
        ("read", False, UPSTREAM_UNAVAILABLE),
    ],
)
def test_link_lost_answers_with_what_is_known(kind: str, sent: bool, expected: bytes) -> None:
    """A write that was sent may have been applied; one that was not, and any read, has done nothing."""
    harness = Harness().attached()
    harness.stream.room = [] if sent else [0, 0, 0]
    client = harness.client
    slots: dict[str, Slot] = {
        "write": WriteSlot(client, harness.engine, []),
        "effect": EffectSlot(client),
        "call": CallSlot(client, lambda raw: raw),
        "read": Slot(client),
    }
    harness.ask(b"x", slots[kind])
    harness.reactor.flush()

    harness.turn(b"")

    assert expected == client.received
    assert harness.lost == ["the upstream closed the connection"]
    assert harness.stream.closed
    assert harness.poller.masks == {}
    assert not harness.link.open
    assert harness.stats.failed == 1
    assert harness.stats.links_lost == 1


def test_link_lost_halfway_tells_sent_from_unsent() -> None:
    """Of three writes one was sent, one in part, one not at all: the first two may have been applied."""
    harness = Harness().attached()
    slots = []
    harness.stream.room = [3, 1, 0, 0, 0]
    for raw in (b"one", b"two", b"six"):
        slots.append(harness.ask(raw, EffectSlot(harness.client)))
        harness.reactor.flush()

    harness.link.lose("test")

    assert [slot.reply for slot in slots] == [UPSTREAM_LOST, UPSTREAM_LOST, UPSTREAM_UNAVAILABLE]


def test_link_lost_before_anything_was_flushed_has_sent_nothing() -> None:
    """What was submitted in this very wake-up has not been sent."""
    harness = Harness().attached()
    slot = harness.ask(b"x", EffectSlot(harness.client))

    harness.link.lose("test")

    assert slot.reply == UPSTREAM_UNAVAILABLE


def test_link_whose_send_fails_has_not_sent_that() -> None:
    """A socket that refuses the bytes has taken none of them: the writes in them were not applied."""
    harness = Harness().attached()
    harness.stream.room = [BrokenPipeError("gone")]
    slot = harness.ask(b"x", EffectSlot(harness.client))

    harness.reactor.flush()

    assert harness.lost == ["gone"]
    assert slot.reply == UPSTREAM_UNAVAILABLE


def test_link_that_never_connected_answers_as_unavailable() -> None:
    """Commands that waited for a connection that was not made have done nothing; later ones fail at once."""
    harness = Harness()
    early = harness.ask(b"x", EffectSlot(harness.client))

    harness.link.lose("refused")
    late = harness.ask(b"y", EffectSlot(harness.client))

    assert early.reply == late.reply == UPSTREAM_UNAVAILABLE
    assert harness.stats.links_lost == 0


def test_link_timed_out_says_so() -> None:
    """Whoever was sent reads that the upstream timed out; what never left, that it was unavailable."""
    harness = Harness().attached()
    sent = [harness.ask(b"x", EffectSlot(harness.client)), harness.ask(b"y")]
    harness.reactor.flush()
    unsent = harness.ask(b"z", EffectSlot(harness.client))

    harness.link.lose("no reply in 1 s", Failure.TIMED_OUT)

    assert [slot.reply for slot in sent] == [UPSTREAM_TIMED_OUT] * 2
    assert unsent.reply == UPSTREAM_UNAVAILABLE


def test_link_lost_in_a_batch_keeps_the_replies_that_came() -> None:
    """Of a batch of five, two whole replies came and half a third: those two are passed on, three are errors."""
    for cuts in ([b"+a\r\n+b\r\n+c"], [b"+a\r\n", b"+b\r\n", b"+", b"c"], [b"+a\r\n+b\r\n", b"+c"]):
        harness = Harness().attached()
        slot = harness.ask(b"x", replies=5)
        harness.reactor.flush()
        harness.turn(*cuts)

        harness.link.lose("test")

        assert slot.reply == b"+a\r\n+b\r\n" + UPSTREAM_UNAVAILABLE * 3
        assert not harness.client.aborted


def test_link_lost_tells_its_owner_before_the_waiters() -> None:
    """What the link fed is dropped before anybody is answered: an answer must not find it."""
    harness = Harness()
    order: list[str] = []
    link = harness.make(lambda _, why: order.append(why))
    link.attach(harness.stream)
    harness.client.settle = lambda: order.append("answered")  # type: ignore[method-assign]
    slot = Slot(harness.client)
    harness.client.owe(slot)
    link.submit(b"x", slot)

    link.lose("why")
    link.lose("again")

    assert order == ["why", "answered"]


def test_link_lost_answers_the_others_when_one_answer_stumbles() -> None:
    """A mistake of ours in one answer is not everybody's: the slots behind it are answered all the same."""
    harness = Harness().attached()

    def stumble() -> None:
        raise ZeroDivisionError

    harness.ask(b"x", CallSlot(None, lambda raw: raw, stumble))
    behind = harness.ask(b"y")

    harness.link.lose("test")

    assert behind.reply == UPSTREAM_UNAVAILABLE


def test_link_lost_relieves_whoever_waited_for_it() -> None:
    """A client that was read no further because of this link reads on."""
    harness = Harness().attached()
    relieved: list[str] = []
    harness.link.relieved.add(lambda: relieved.append("yes"))

    harness.link.lose("test")

    assert relieved == ["yes"]


@pytest.mark.parametrize(
    "garbage",
    [b"hello\r\n", b"$x\r\n", b"$1\r\nab\r\n!", b"*1\r\nx\r\n", b"\0\n", b"$" + b"9" * 5000 + b"\r\n", b"*?\r\n"],
)
def test_link_garbage_ends_it(garbage: bytes) -> None:
    """Bytes that are no RESP end the link, and whoever waits is answered; nobody gets them."""
    for pieces in ([garbage], [garbage[at : at + 1] for at in range(len(garbage))]):
        harness = Harness().attached()
        slots = [harness.ask(b"x"), harness.ask(b"y")]
        harness.reactor.flush()

        harness.turn(*pieces)

        assert not harness.link.open
        assert slots[1].reply == UPSTREAM_UNAVAILABLE


def test_link_reply_to_nothing_ends_it() -> None:
    """A reply nobody asked for means that the order is lost."""
    harness = Harness().attached()
    harness.ask(b"x")
    harness.reactor.flush()

    harness.turn(b"+one\r\n+two\r\n")

    assert harness.client.received == b"+one\r\n"
    assert harness.lost == ["the upstream sent a reply to nothing"]


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("keepalive")])
def test_link_broken_socket_ends_it(error: OSError) -> None:
    """An error of the socket ends the link, with its own words."""
    harness = Harness().attached()
    slot = harness.ask(b"x")

    harness.turn(error)

    assert [str(error)] == harness.lost
    assert slot.reply == UPSTREAM_UNAVAILABLE


def test_link_crash_of_ours_ends_it() -> None:
    """When a reply made us stumble the order of slots cannot be trusted: everybody is answered."""
    harness = Harness().attached()
    slot = harness.ask(b"x")

    harness.link.on_crash()

    assert slot.reply == UPSTREAM_UNAVAILABLE
    assert harness.lost == ["internal error"]


def test_link_lost_inside_a_streamed_reply_cuts_the_client_off() -> None:
    """Half a reply cannot be finished by an error line: the client is closed, others are answered."""
    harness = Harness().attached()
    other = ScriptedClient()
    harness.ask(b"x")
    behind = Slot(other)
    other.owe(behind)
    harness.link.submit(b"y", behind)
    harness.reactor.flush()
    harness.turn(b"$1000000\r\n" + b"v" * 300_000)

    harness.turn(b"")

    assert harness.client.aborted == "upstream lost inside a reply"
    assert UPSTREAM_UNAVAILABLE not in harness.client.received
    assert behind.reply == UPSTREAM_UNAVAILABLE
    assert not other.aborted
