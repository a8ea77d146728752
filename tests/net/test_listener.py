"""Listening sockets that are shared: bound by several, or inherited from who opened them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cache.l1 import L1
from proxy.config.model import Endpoint, parse_endpoint
from proxy.core.engine import Engine
from proxy.core.figures.stats import Stats
from proxy.core.tracking import Tracking
from proxy.errors import ListenError
from proxy.net.listener import Listener, bind, reserve
from proxy.net.reactor import READ, Reactor


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """Make a reactor that nobody runs."""
    engine = Engine(L1(1 << 20), Stats(), enabled=True, max_age_s=60.0, max_value_bytes=1 << 20)
    made = Reactor(engine, Tracking(engine, wanted="auto", max_staleness_s=1.0))
    yield made
    made.close()


def _at(sock: socket.socket) -> Endpoint:
    return parse_endpoint(f"redis://127.0.0.1:{sock.getsockname()[1]}")


def test_listeners_that_reuse_the_port_share_it(reactor: Reactor) -> None:
    """Each of them has the port, and the clients that come are dealt to all."""
    accepted: list[tuple[int, object]] = []
    with reserve(parse_endpoint("redis://127.0.0.1:0")) as held:
        endpoint = _at(held)
        listeners = [
            Listener(reactor, endpoint, None, lambda stream, n=number: accepted.append((n, stream)), reuse_port=True)  # type: ignore[misc]
            for number in range(2)
        ]
        clients = [socket.create_connection((endpoint.host, endpoint.port)) for _ in range(40)]
        for listener in listeners:
            listener.on_event(READ)

        assert [listener.url for listener in listeners] == [f"redis://127.0.0.1:{endpoint.port}"] * 2
        assert {number for number, _ in accepted} == {0, 1}
        assert len(accepted) == 40
        for sock in [*clients, *(stream for _, stream in accepted), *listeners]:
            sock.close()  # type: ignore[attr-defined]


def test_bind_without_reuse_is_refused_by_who_shares() -> None:
    """A port is shared by those who agreed to it only."""
    with reserve(parse_endpoint("redis://127.0.0.1:0")) as held, bind(_at(held), reuse_port=True):
        with pytest.raises(ListenError, match=str(_at(held).port)):
            bind(_at(held))
        with pytest.raises(ListenError, match=str(_at(held).port)):
            reserve(_at(held))


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


def test_close_of_a_listener_that_never_ran_removes_its_socket(reactor: Reactor, tmp_path: Path) -> None:
    """A start that is broken off leaves no file behind."""
    path = tmp_path / "s"
    listener = Listener(reactor, parse_endpoint(f"unix://{path}"), None, lambda _: None)
    assert path.exists()

    listener.close()
    listener.close()

    assert not path.exists()
