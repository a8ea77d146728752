"""Listening sockets: those that others opened, and the end of one, which loses nobody who waits."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from proxy.cache.l1 import L1
from proxy.config.model import Endpoint, parse_endpoint
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.tracking import Tracking
from proxy.errors import ListenError
from proxy.net.door.listener import Listener, bind, bound
from proxy.net.reactor import READ, Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """Make a reactor that nobody runs."""
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    made = Reactor(engine, Tracking(engine, wanted="auto", max_staleness_s=1.0))
    yield made
    made.close()


def test_inherited_socket_is_taken_from_one_at_a_time_and_its_file_left(reactor: Reactor, tmp_path: Path) -> None:
    """Others accept from the same queue: who takes one leaves the rest to them, and who closes leaves the file."""
    path = tmp_path / "s"
    accepted: list[socket.socket] = []
    with bind(parse_endpoint(f"unix://{path}")) as opened:
        listener = Listener(
            reactor,
            parse_endpoint(f"unix://{path}"),
            None,
            accepted.append,  # type: ignore[arg-type]
            inherited=opened.dup(),
            is_shared=True,
        )
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.connect(str(path))

        listener.on_event(READ)
        assert len(accepted) == 1
        listener.on_event(READ)
        assert len(accepted) == 2

        listener.close()
        assert path.exists()
        clients.append(socket.socket(socket.AF_UNIX))
        clients[-1].connect(str(path))  # its owner listens still
        for sock in [*clients, *accepted]:
            sock.close()


async def test_retire_takes_who_waits_in_the_queue(reactor: Reactor, nursery: trio.Nursery) -> None:
    """They have connected and may have sent a request: closing on them would throw it away."""
    accepted: list[socket.socket] = []
    listener = Listener(reactor, Endpoint("tcp", "127.0.0.1", 0), None, accepted.append)  # type: ignore[arg-type]
    await nursery.start(listener.run)
    address = ("127.0.0.1", int(listener.url.rpartition(":")[2]))
    clients = [socket.create_connection(address) for _ in range(100)]

    listener.retire()

    assert len(accepted) == 100
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    for sock in [*clients, *accepted]:
        sock.close()
    nursery.cancel_scope.cancel()


async def test_retire_is_not_stopped_by_one_that_has_gone(
    reactor: Reactor, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that broke while it waited is nobody; those behind it are taken in."""
    accepted: list[socket.socket] = []
    listener = Listener(reactor, Endpoint("tcp", "127.0.0.1", 0), None, accepted.append)  # type: ignore[arg-type]
    await nursery.start(listener.run)
    address = ("127.0.0.1", int(listener.url.rpartition(":")[2]))
    clients = [socket.create_connection(address) for _ in range(3)]
    broken = [OSError(errno.ECONNABORTED, "aborted"), OSError(errno.ENETDOWN, "down")]

    class Flawed:
        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def accept(self) -> object:
            if broken:
                raise broken.pop()
            return self._sock.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(self._sock, name)

    monkeypatch.setattr(listener, "_sock", Flawed(listener._sock))
    listener.retire()

    assert len(accepted) == 3
    for sock in [*clients, *accepted]:
        sock.close()
    nursery.cancel_scope.cancel()


async def test_run_where_somebody_else_listens_by_now_says_so(reactor: Reactor) -> None:
    """Two proxies that start at once both have the address, until the first of them listens."""
    first = bound(parse_endpoint("redis://127.0.0.1:0"))
    endpoint = Endpoint("tcp", "127.0.0.1", first.getsockname()[1])
    listener = Listener(reactor, endpoint, None, lambda _: None, inherited=bound(endpoint))
    with first:
        first.listen()
        with pytest.raises(ExceptionGroup) as caught:
            await listener.run()

    assert caught.group_contains(
        ListenError, match=f"cannot listen on redis://127.0.0.1:{endpoint.port}: Address .* in"
    )


async def test_run_ends_when_nobody_is_accepted_any_more(reactor: Reactor) -> None:
    """Queues of workers that are away are covered time and again: nothing may be left of each time."""
    listener = Listener(reactor, Endpoint("tcp", "127.0.0.1", 0), None, lambda _: None)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.run)
            listener.close()


def test_close_of_a_listener_that_never_ran_removes_its_socket(reactor: Reactor, tmp_path: Path) -> None:
    """A start that is broken off leaves no file behind."""
    path = tmp_path / "s"
    listener = Listener(reactor, parse_endpoint(f"unix://{path}"), None, lambda _: None)
    assert path.exists()

    listener.close()
    listener.close()

    assert not path.exists()
