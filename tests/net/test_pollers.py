"""Both pollers, epoll and selectors, tell the same."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from proxy.net.reactor import PEER_CLOSED, READ, WRITE, Poller, SelectorPoller, make_poller

from .driver import within


@pytest.fixture(params=["best", "selector"])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    """Each poller there is here."""
    made = make_poller() if request.param == "best" else SelectorPoller()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def test_poller_tells_reading_from_writing(poller: Poller, pair: Pair) -> None:
    """A socket is told ready for what it is watched for and ready for, and for nothing else."""
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    assert poller.poll(0, 10) == []

    poller.modify(ours.fileno(), READ | WRITE)
    assert poller.poll(0, 10) == [(ours.fileno(), WRITE)]
    theirs.send(b"x")
    assert poller.poll(1, 10) == [(ours.fileno(), READ | WRITE)]
    poller.modify(ours.fileno(), READ | PEER_CLOSED)
    assert poller.poll(0, 10) == [(ours.fileno(), READ)]
    poller.unregister(ours.fileno())
    assert poller.poll(0, 10) == []


def test_poller_with_nothing_to_watch_for_stays_silent(poller: Poller, pair: Pair) -> None:
    """A socket that is read no further wakes nobody, and is found again when it is watched again."""
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.send(b"x")

    poller.modify(ours.fileno(), 0)
    assert poller.poll(0, 10) == []
    poller.modify(ours.fileno(), READ)
    assert poller.poll(0, 10) == [(ours.fileno(), READ)]
    poller.modify(ours.fileno(), 0)
    poller.unregister(ours.fileno())
    poller.register(ours.fileno(), 0)
    assert poller.poll(0, 10) == []
    poller.modify(ours.fileno(), READ)
    assert poller.poll(0, 10) == [(ours.fileno(), READ)]


def test_poller_tells_the_end_of_a_peer(poller: Poller, pair: Pair) -> None:
    """A peer that has closed makes a socket readable."""
    ours, theirs = pair
    poller.register(ours.fileno(), READ | PEER_CLOSED)
    theirs.close()

    ((fd, mask),) = poller.poll(1, 10)
    assert fd == ours.fileno()
    assert mask & READ
    assert ours.recv(1) == b""


def test_poller_returns_no_more_than_asked_for(poller: Poller) -> None:
    """A burst is handed out in portions; what is left is told the next time."""
    pairs = [socket.socketpair() for _ in range(5)]
    for ours, theirs in pairs:
        poller.register(ours.fileno(), READ)
        theirs.send(b"x")

    assert len(poller.poll(1, 3)) == 3
    assert len(poller.poll(1, 10)) == 5
    for one in pairs:
        poller.unregister(one[0].fileno())
        one[0].close()
        one[1].close()


async def test_poller_wakes_trio(poller: Poller, pair: Pair) -> None:
    """The poller's own descriptor is readable for trio when a socket is ready."""
    ours, theirs = pair
    poller.register(ours.fileno(), READ)
    theirs.send(b"x")

    await within(trio.lowlevel.wait_readable(poller.fileno()), "the poller is ready")
