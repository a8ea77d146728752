"""A link lands every reply in its slot, wherever the chunks end, and answers everybody when it goes."""

from __future__ import annotations

import pytest

from proxy.core.slots import Slot
from proxy.net.links.link import RECV_MAX, RECV_MIN
from proxy.net.reactor import READ, WRITE

from ..core.scripted_slots import ScriptedClient
from .scripted import Harness

PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
REPLIES = (
    *(b"+OK\r\n", b"$5\r\nhello\r\n", b"$5\r\nworld\r\n", b"$-1\r\n", b":12\r\n", b"-ERR no\r\n", b"+OK\r\n"),
    *(b"*2\r\n$1\r\na\r\n*1\r\n$-1\r\n", b"%1\r\n+k\r\n:1\r\n", b"_\r\n", b"$0\r\n\r\n", b"+OK\r\n", b"+PONG\r\n"),
    b"|1\r\n+ttl\r\n:5\r\n$1\r\na\r\n",
)


def asked(sizes: tuple[int, ...]) -> tuple[Harness, list[Slot]]:
    """Ask for as many replies as there are, a slot for each batch of these sizes."""
    harness = Harness().attached()
    slots = [harness.ask(b"x" * size, replies=size) for size in sizes]
    harness.reactor.flush()
    assert sum(sizes) == len(REPLIES)
    return harness, slots


def expected_replies(sizes: tuple[int, ...]) -> list[bytes]:
    """Say what each batch is to be filled with."""
    rest = list(REPLIES)
    return [b"".join(rest.pop(0) for _ in range(size)) for size in sizes]


BATCHES = [(1,) * len(REPLIES), (len(REPLIES),), (3, 1, 5, 2, 3), (2,) * 7]


@pytest.mark.parametrize("sizes", BATCHES)
def test_link_whole_chunk_fills_every_slot(sizes: tuple[int, ...]) -> None:
    """One chunk with every kind of reply gives each slot its own, alone or in batches."""
    harness, slots = asked(sizes)

    harness.turn(b"".join(REPLIES))

    assert expected_replies(sizes) == [slot.reply for slot in slots]
    assert b"".join(REPLIES) == harness.client.received
    assert not harness.link.fifo


@pytest.mark.parametrize("sizes", BATCHES)
def test_link_every_split_fills_every_slot(sizes: tuple[int, ...]) -> None:
    """Wherever a chunk ends, in a batch or between two, the slots get the same."""
    data = b"".join(REPLIES)
    for at in range(1, len(data)):
        harness, slots = asked(sizes)
        harness.turn(data[:at], data[at:])

        assert expected_replies(sizes) == [slot.reply for slot in slots], at
        assert data == harness.client.received


@pytest.mark.parametrize("sizes", BATCHES)
def test_link_byte_by_byte_fills_every_slot(sizes: tuple[int, ...]) -> None:
    """Single bytes give what the whole gives."""
    harness, slots = asked(sizes)
    data = b"".join(REPLIES)

    harness.turn(*(data[at : at + 1] for at in range(len(data))))

    assert expected_replies(sizes) == [slot.reply for slot in slots]


@pytest.mark.parametrize("sizes", BATCHES)
def test_link_push_between_replies_is_nobodys_reply(sizes: tuple[int, ...]) -> None:
    """A push before, between or behind replies, cut anywhere, moves no reply to another slot."""
    for place in range(len(REPLIES) + 1):
        data = b"".join((*REPLIES[:place], PUSH, *REPLIES[place:]))
        for pieces in ([data], [data[at : at + 1] for at in range(len(data))], [data[:-20], data[-20:]]):
            harness, slots = asked(sizes)
            harness.turn(*pieces)

            assert expected_replies(sizes) == [slot.reply for slot in slots], place
            assert harness.pushes == [PUSH]


def test_link_values_of_one_size_in_a_batch_are_told_apart() -> None:
    """Values of one size behind each other, one of another size and a nil among them, end where they end."""
    values = [b"$3\r\nabc\r\n"] * 4 + [b"$-1\r\n"] * 3 + [b"$3\r\n$3\r\r\n", b"$4\r\n$3\r\n\r\n", b"$3\r\nabc\r\n"]
    data = b"".join(values)
    for at in range(1, len(data)):
        harness = Harness().attached()
        slot = harness.ask(b"x", replies=len(values))
        after = harness.ask(b"y")
        harness.turn(data[:at], data[at:] + b":7\r\n")

        assert data == slot.reply, at
        assert after.reply == b":7\r\n"


@pytest.mark.parametrize("count", [2, 512, 513, 2000])
def test_link_many_oks_in_a_batch_are_all_counted(count: int) -> None:
    """A batch of SETs is answered by as many OKs, and the command behind it by what comes after them."""
    for error_at in (None, 0, count - 1):
        replies = [b"-ERR full\r\n" if at == error_at else b"+OK\r\n" for at in range(count)]
        harness = Harness().attached()
        slot = harness.ask(b"x", replies=count)
        after = harness.ask(b"y")

        harness.turn(b"".join(replies) + b"+OK\r\n")

        assert b"".join(replies) == slot.reply
        assert after.reply == b"+OK\r\n"


def test_link_what_was_submitted_goes_in_one_send() -> None:
    """The commands of a wake-up are one call to the socket, in order; before there is a connection they wait."""
    harness = Harness()
    harness.ask(b"one")
    harness.ask(b"two")
    harness.reactor.flush()
    assert harness.stream.sends == []

    harness.attached()
    assert harness.stream.sends == [b"onetwo"]
    harness.ask(b"three")
    harness.reactor.flush()

    assert harness.stream.sends == [b"onetwo", b"three"]
    assert harness.stats.links_opened == 1


def test_link_full_socket_sends_the_rest_when_it_can() -> None:
    """What the socket does not take waits, and is sent in order; only then is the socket watched for room."""
    harness = Harness().attached()
    harness.stream.room = [4, 0]
    harness.ask(b"hello ")
    harness.reactor.flush()
    assert harness.link.unsent_bytes == 2
    assert harness.poller.masks == {7: READ | WRITE}
    relieved: list[str] = []
    harness.link.relieved.add(lambda: relieved.append("yes"))

    harness.stream.room = [1, 0]
    harness.ask(b"world")
    harness.reactor.flush()
    assert relieved == []
    harness.link.on_event(WRITE)
    harness.link.on_event(WRITE)

    assert harness.stream.sent == b"hello world"
    assert harness.poller.masks == {7: READ}
    assert relieved == ["yes"]
    assert harness.link.unsent_bytes == 0


def test_link_thousands_of_commands_arrive_in_order() -> None:
    """More commands in a wake-up than are joined at once arrive all the same, in their order."""
    harness = Harness().attached()
    for number in range(3000):
        harness.ask(b"%d " % number)
    harness.reactor.flush()

    assert b"".join(b"%d " % number for number in range(3000)) == harness.stream.sent


def test_link_push_to_nothing_is_taken() -> None:
    """A push needs nobody who asks; the one that says that tracking has ended ends leases."""
    harness = Harness().attached()
    harness.link.tracked = True

    harness.turn(PUSH)
    assert harness.link.tracked
    harness.turn(b">2\r\n$21\r\ntracking-redir-broken\r\n:12\r\n")

    assert harness.link.open
    assert not harness.link.tracked


def test_link_nothing_to_read_is_no_error() -> None:
    """A wake-up for nothing changes nothing."""
    harness = Harness().attached()

    harness.turn(BlockingIOError(), InterruptedError())

    assert harness.link.open


def test_link_large_reply_streams_to_the_client_whose_turn_it_is() -> None:
    """A large reply is forwarded as it comes; whose turn it is not waits for its own."""
    harness = Harness().attached()
    first, second = harness.ask(b"x"), harness.ask(b"y")
    harness.reactor.flush()
    value = b"$1000000\r\n" + b"v" * 1_000_000 + b"\r\n"

    harness.turn(value[:300_000])
    assert harness.client.received == value[:300_000]
    assert harness.link.streams_to(harness.client)
    assert not harness.link.streams_to(ScriptedClient())
    harness.turn(value[300_000:] + b"+next\r\n")

    assert value + b"+next\r\n" == harness.client.received
    assert second.reply == b"+next\r\n"
    assert first.reply is not None
    assert not harness.client.queue


def test_link_pause_reads_no_further_until_resumed() -> None:
    """A paused link is not watched for reading; a peer that closes meanwhile is noticed all the same."""
    harness = Harness().attached()
    harness.link.pause()
    assert harness.poller.masks == {7: 0}
    harness.stream.room = [0, 0]
    harness.ask(b"x")
    harness.reactor.flush()
    assert harness.poller.masks == {7: WRITE}

    harness.clock.now += 5
    harness.reactor.enter()
    harness.link.resume()

    assert harness.poller.masks == {7: READ | WRITE}
    assert harness.clock.now == harness.link.waiting_since
    harness.link.pause()
    harness.link.on_event(0x10)
    assert harness.lost == ["the upstream closed the connection"]


def test_link_waiting_since_is_when_redis_last_answered() -> None:
    """What is late is judged from the last sign of life, or from when the first of the waiting was asked."""
    harness = Harness().attached()
    for expected_after, act in (
        (10.0, lambda: harness.ask(b"x")),
        (10.0, lambda: harness.ask(b"y")),
        (30.0, lambda: harness.turn(b"+one\r\n")),
    ):
        harness.clock.now += 10
        harness.reactor.enter()
        act()
        harness.reactor.flush()
        assert harness.link.waiting_since == 100.0 + expected_after


def test_link_read_size_follows_what_comes() -> None:
    """Full reads grow the buffer to its bound, small ones shrink it again; nothing is lost on the way."""
    harness = Harness().attached()
    value = b"$5000000\r\n" + b"v" * 5_000_000 + b"\r\n"
    harness.ask(b"x")
    harness.turn(value)
    for _ in range(10):
        harness.ask(b"y")
        harness.turn(b"+OK\r\n")

    assert value + b"+OK\r\n" * 10 == harness.client.received
    assert harness.stream.sizes[0] == RECV_MIN == harness.stream.sizes[-1]
    assert max(harness.stream.sizes) == RECV_MAX
