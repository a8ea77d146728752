"""Which queues a worker accepts from: its own, shared ones, and those of a worker that is away."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
import trio

from proxy.config.model import Endpoint
from proxy.net.door.addresses import Address, Addresses
from proxy.net.door.listener import Listener
from proxy.net.door.queues import Queues, make_worker
from proxy.net.worker import Worker

from .driver import make_settings

ANY_PORT = Endpoint("tcp", "127.0.0.1", 0)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Make a worker that nobody runs."""
    made = make_worker(make_settings(), Endpoint("tcp", "127.0.0.1", 1))
    yield made
    for listener in made.listeners:
        listener.close()
    made.reactor.close()


@pytest.fixture
def addresses() -> Iterator[Addresses]:
    """Let go in the end of what a test has opened."""
    made = Addresses()
    yield made
    made.close()


def _inodes(fds: list[int]) -> list[int]:
    with_files = [socket.socket(fileno=socket.dup(fd)) for fd in fds]
    try:
        return [_inode(sock) for sock in with_files]
    finally:
        for sock in with_files:
            sock.close()


def _inode(sock: socket.socket | Listener) -> int:
    return os.fstat(sock.fileno() if isinstance(sock, socket.socket) else sock._sock.fileno()).st_ino


@pytest.mark.parametrize(
    ("queues", "count", "shares"),
    [
        (1, 1, [[0]]),
        (2, 2, [[0], [1]]),
        (4, 2, [[0, 2], [1, 3]]),  # taken over from a proxy of four workers
        (1, 3, [[0], [0], [0]]),  # given by systemd
        (2, 4, [[0], [1], [0], [1]]),
    ],
)
def test_every_queue_has_a_worker_and_every_worker_a_queue(
    worker: Worker, addresses: Addresses, queues: int, count: int, shares: list[list[int]]
) -> None:
    """However many there were when the address was opened: nobody waits in a queue that no one accepts from."""
    addresses.open([ANY_PORT], queues)
    all_of_them = _inodes(list(addresses.fds))
    for index in range(count):
        Queues(worker, addresses.all, index, count)

        assert [_inode(listener) for listener in worker.listeners] == [all_of_them[one] for one in shares[index]]
        assert {listener._accepts == 1 for listener in worker.listeners} == {queues < count}
        for listener in worker.listeners:
            listener.close()
        worker.listeners.clear()


async def test_cover_accepts_for_others_until_told_otherwise(
    worker: Worker, addresses: Addresses, nursery: trio.Nursery
) -> None:
    """The queue of one that is away is taken over, told twice or once, and left as it is when that one is back."""
    addresses.open([ANY_PORT], queues=3)
    queues = Queues(worker, addresses.all, 0, 3)
    await nursery.start(queues.run)
    own = list(worker.listeners)
    await queues.cover({1})
    await queues.cover({1, 2})
    assert len(worker.listeners) == 3

    await queues.cover({2})
    assert len(worker.listeners) == 2
    await queues.cover(set())
    assert worker.listeners == own

    queues.retire()
    await queues.cover({1})
    assert worker.listeners == own
    nursery.cancel_scope.cancel()


async def test_cover_that_is_told_otherwise_meanwhile_does_what_it_was_told_last(
    worker: Worker, addresses: Addresses, nursery: trio.Nursery
) -> None:
    """As when a worker that hung for a while reads at once what it was told, and then that all is over."""
    addresses.open([ANY_PORT, ANY_PORT], queues=3)
    queues = Queues(worker, addresses.all, 0, 3)
    await nursery.start(queues.run)
    own = list(worker.listeners)
    async with trio.open_nursery() as told:
        for seats in ({1}, {1, 2}, {2}):
            told.start_soon(queues.cover, seats)
            await trio.lowlevel.checkpoint()
    assert len(worker.listeners) == 4
    async with trio.open_nursery() as told:
        told.start_soon(queues.cover, {1})
        await trio.lowlevel.checkpoint()
        queues.retire()

    assert not any(listener._open for listener in worker.listeners if listener not in own)
    nursery.cancel_scope.cancel()


async def test_retire_takes_who_waits_but_where_others_go_on(
    worker: Worker, addresses: Addresses, nursery: trio.Nursery
) -> None:
    """A queue that the next proxy has is its own from now on; of one that ends everybody is let in."""
    addresses.open([ANY_PORT, ANY_PORT])
    queues = Queues(worker, (*addresses.all,), 0, 1)
    for listener in worker.listeners:
        await nursery.start(listener.run)
    ports = [address.endpoint.port for address in addresses.all]
    clients = [socket.create_connection(("127.0.0.1", port)) for port in ports]

    queues.retire({addresses.names[0]})

    assert len(worker.clients) == 1
    assert {client.session.local_address for client in worker.clients} == {f"127.0.0.1:{ports[1]}"}
    for client in clients:
        client.close()
    for served in list(worker.clients):
        served.close()
    nursery.cancel_scope.cancel()


def test_address_type_is_what_a_worker_gets(addresses: Addresses) -> None:
    """It is pickled on its way: plain values only."""
    addresses.open([ANY_PORT], queues=2)

    assert addresses.all == (Address(addresses.all[0].endpoint, addresses.fds),)
