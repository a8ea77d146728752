"""The addresses that clients connect to: opened for several workers, or given, and let go without losing anybody."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from proxy.config.model import Endpoint, parse_endpoint
from proxy.errors import ListenError
from proxy.log import configure
from proxy.net.door.addresses import TLS, Addresses, Given
from proxy.net.door.listener import bind, bound, name_of

ANY_PORT = Endpoint("tcp", "127.0.0.1", 0)


@pytest.fixture
def addresses() -> Iterator[Addresses]:
    """Hold no address yet; let go in the end of what a test has opened."""
    made = Addresses()
    yield made
    made.close()


def _connects(endpoint: Endpoint) -> bool:
    with socket.socket() as client:
        return client.connect_ex((endpoint.host, endpoint.port)) == 0


def _at(sock: socket.socket) -> Endpoint:
    return parse_endpoint(f"redis://127.0.0.1:{sock.getsockname()[1]}")


def _listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


# -- opened ------------------------------------------------------------------------------------------------------------


def test_open_makes_a_queue_for_each_worker(addresses: Addresses) -> None:
    """Port 0 becomes one port for all; nobody gets in before a worker listens, and each has its part then."""
    addresses.open([ANY_PORT], queues=2)
    [address] = addresses.all

    assert address.endpoint.port != 0
    assert (len(set(address.fds)), addresses.fds) == (2, address.fds)
    assert not _connects(address.endpoint)
    with ExitStack() as stack:
        workers = [stack.enter_context(socket.socket(fileno=socket.dup(fd))) for fd in address.fds]
        for worker in workers:
            worker.listen(64)
            worker.settimeout(0.2)
        for _ in range(40):
            stack.enter_context(socket.create_connection((address.endpoint.host, address.endpoint.port)))
        assert all(_accepted(worker, stack) for worker in workers)


def _accepted(sock: socket.socket, stack: ExitStack) -> int:
    count = 0
    try:
        while True:
            stack.enter_context(sock.accept()[0])
            count += 1
    except TimeoutError:
        return count


def test_open_listens_on_a_unix_socket_until_close(addresses: Addresses, tmp_path: Path) -> None:
    """The socket is opened here, once, for others to inherit; its file goes with `close`, which may be repeated."""
    path = tmp_path / "s"
    addresses.open([parse_endpoint(f"unix://{path}")], queues=2)
    [address] = addresses.all
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert addresses.fds == address.fds
    assert len(address.fds) == 1

    addresses.close()
    addresses.close()

    assert not path.exists()


@pytest.mark.parametrize("queues", [1, 2])
@pytest.mark.parametrize("is_shared", [True, False])
def test_open_refuses_a_port_somebody_serves(addresses: Addresses, queues: int, is_shared: bool) -> None:
    """Also when that one would share it: two proxies on one port would each get half of the clients."""
    with bound(ANY_PORT, reuse_port=is_shared) as taken:
        taken.listen()

        with pytest.raises(ListenError, match=str(_at(taken).port)):
            addresses.open([_at(taken)], queues)


def test_open_that_fails_holds_nothing(addresses: Addresses, tmp_path: Path) -> None:
    """One address that cannot be had lets go of those before it."""
    path = tmp_path / "s"
    with bind(ANY_PORT) as taken:
        endpoint = _at(taken)
        with pytest.raises(ListenError):
            addresses.open([parse_endpoint(f"unix://{path}"), endpoint])

    assert (addresses.all, path.exists()) == ((), False)
    addresses.open([endpoint])


def test_open_refuses_an_address_named_twice(addresses: Addresses) -> None:
    """Nobody would know whether a client comes to the one or to the other, which may speak TLS."""
    addresses.open([ANY_PORT], queues=2)
    endpoint = addresses.all[0].endpoint
    addresses.close()

    with pytest.raises(ListenError, match="twice"):
        addresses.open([endpoint, attrs.evolve(endpoint, scheme="tls")], queues=2)


# -- given -------------------------------------------------------------------------------------------------------------


def test_given_socket_is_used_where_it_has_the_address_and_closed_where_none_has() -> None:
    """Who takes over opens what the one before did not have, and keeps nothing that it does not serve."""
    had, other = _listening(), _listening()
    new = Addresses([Given(had), Given(other)])
    endpoint = _at(had)
    new.open([endpoint, ANY_PORT])
    try:
        assert new.all[0].endpoint.port == endpoint.port
        assert new.all[0].fds == (had.fileno(),)
        assert other.fileno() == -1
        assert len(new.all) == 2
    finally:
        new.close()


def test_given_in_place_is_all_there_is(tmp_path: Path) -> None:
    """What systemd opened is served, whatever the file says; that says only where TLS is spoken. The files stay."""
    plain, tls, named, unix = _listening(), _listening(), _listening(), socket.socket(socket.AF_UNIX)
    path = tmp_path / "s"
    unix.bind(str(path))
    unix.listen()
    new = Addresses([Given(plain), Given(tls), Given(named, TLS), Given(unix)], in_place=True)
    configured = attrs.evolve(_at(tls), scheme="tls")
    names = [name_of(one) for one in (plain, tls, named, unix)]
    new.open([ANY_PORT, configured])

    assert [address.endpoint.scheme for address in new.all] == ["tcp", "tls", "tls", "unix"]
    assert new.names == names
    new.close()
    assert path.exists()


def test_file_of_a_socket_that_another_proxy_has_stays(addresses: Addresses, tmp_path: Path) -> None:
    """Its clients find it there without a break."""
    path = tmp_path / "s"
    addresses.open([parse_endpoint(f"unix://{path}")])
    kept = addresses.names
    addresses.turn_away(kept)
    addresses.close(kept)

    assert path.exists()


# -- let go ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's filter on a socket")
def test_turn_away_lets_nobody_begin_and_keeps_who_has(addresses: Addresses) -> None:
    """Between the last accept and the close nobody slips in: who is connected waits, who comes is refused later."""
    addresses.open([ANY_PORT])
    endpoint = addresses.all[0].endpoint
    with socket.socket(fileno=socket.dup(addresses.fds[0])) as listening:
        listening.listen()
        with socket.create_connection((endpoint.host, endpoint.port)) as early:
            early.sendall(b"asked")
            addresses.turn_away()
            with pytest.raises(TimeoutError):
                socket.create_connection((endpoint.host, endpoint.port), timeout=0.2)

            listening.settimeout(1)
            with listening.accept()[0] as accepted:
                assert accepted.recv(64) == b"asked"
            listening.setblocking(False)
            with pytest.raises(BlockingIOError):
                listening.accept()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's filter on a socket")
def test_turn_away_where_no_filter_may_be_set_says_so(
    addresses: Addresses, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A sandbox may refuse it: the proxy stops as well as it can, and its log has a line, not one for each socket."""
    configure("info", "text")
    addresses.open([ANY_PORT], queues=3)
    monkeypatch.setattr("proxy.net.door.addresses._SO_ATTACH_FILTER", 9999)
    addresses.turn_away()

    said = capfd.readouterr().err
    assert said.count("may be cut") == 1
    assert "Protocol not available" in said


def test_turn_away_takes_the_name_of_a_unix_socket_first(addresses: Addresses, tmp_path: Path) -> None:
    """There the queue closes to who comes later when nobody finds it any more."""
    path = tmp_path / "s"
    addresses.open([parse_endpoint(f"unix://{path}")])
    with socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))
        addresses.turn_away()

        assert not path.exists()
        with socket.socket(fileno=socket.dup(addresses.fds[0])) as listening:
            listening.accept()[0].close()
