"""The ports and sockets that workers share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from proxy.config.model import Endpoint, parse_endpoint
from proxy.errors import ListenError
from proxy.net.listener import bind
from proxy.supervisor.addresses import Addresses


@pytest.fixture
def addresses() -> Iterator[Addresses]:
    """Close whatever the test has opened."""
    made = Addresses()
    yield made
    made.close()


def _connects(endpoint: Endpoint) -> bool:
    with socket.socket() as client:
        return client.connect_ex((endpoint.host, endpoint.port)) == 0


def test_open_reserves_a_port_that_several_can_bind(addresses: Addresses) -> None:
    """Port 0 becomes one port for all; nobody is served by the reservation, everybody by those who bind it."""
    addresses.open([parse_endpoint("redis://127.0.0.1:0")])
    [address] = addresses.all

    assert (address.fd, addresses.fds) == (-1, ())
    assert address.endpoint.port != 0
    assert not _connects(address.endpoint)
    with bind(address.endpoint, reuse_port=True), bind(address.endpoint, reuse_port=True):
        assert _connects(address.endpoint)


def test_open_listens_on_a_unix_socket_until_close(addresses: Addresses, tmp_path: Path) -> None:
    """The socket is opened here, once, for others to inherit; its file goes with `close`, which may be repeated."""
    path = tmp_path / "s"
    addresses.open([parse_endpoint(f"unix://{path}")])
    [address] = addresses.all
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert addresses.fds == (address.fd,)

    addresses.close()
    addresses.close()

    assert not path.exists()


@pytest.mark.parametrize("shared", [True, False])
def test_open_refuses_a_port_somebody_serves(addresses: Addresses, shared: bool) -> None:
    """Also when that one would share it: two proxies on one port would each get half of the clients."""
    with bind(parse_endpoint("redis://127.0.0.1:0"), reuse_port=shared) as taken:
        endpoint = parse_endpoint(f"redis://127.0.0.1:{taken.getsockname()[1]}")

        with pytest.raises(ListenError, match=str(endpoint.port)):
            addresses.open([endpoint])


def test_open_that_fails_holds_nothing(addresses: Addresses, tmp_path: Path) -> None:
    """One address that cannot be had lets go of those before it."""
    path = tmp_path / "s"
    with bind(parse_endpoint("redis://127.0.0.1:0")) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError):
            addresses.open([parse_endpoint(f"unix://{path}"), parse_endpoint(f"redis://127.0.0.1:{port}")])

    assert (addresses.all, path.exists()) == ((), False)
    addresses.open([parse_endpoint(f"redis://127.0.0.1:{port}")])


def test_open_refuses_an_address_named_twice(addresses: Addresses) -> None:
    """Nobody would know whether a client comes to the one or to the other, which may speak TLS."""
    addresses.open([parse_endpoint("redis://127.0.0.1:0")])
    endpoint = addresses.all[0].endpoint
    addresses.close()

    with pytest.raises(ListenError, match="twice"):
        addresses.open([endpoint, attrs.evolve(endpoint, scheme="tls")])
