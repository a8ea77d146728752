"""The sockets that systemd passes: read from the environment once, and judged before anybody is served."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.errors import ListenError
from proxy.net.door.activation import take_given
from proxy.net.door.addresses import ADMIN


@pytest.fixture
def passed() -> Iterator[list[int]]:
    """Hold the descriptors of two listening sockets, one behind the other; closed in the end."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    first = 200  # far above what the test itself has open
    fds = [os.dup2(sock.fileno(), first + number, inheritable=True) for number, sock in enumerate(socks)]
    for sock in socks:
        sock.close()
    yield fds
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


def _environment(count: int, names: str = "", pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names, "HOME": "/"}


def test_sockets_come_with_their_names_and_are_for_nobody_else(passed: list[int]) -> None:
    """They are ours alone: not in the environment of children, nor open in them."""
    environment = _environment(2, "clients:admin")

    given = take_given(environment, passed[0])

    assert [(one.sock.fileno(), one.name, one.owns_file) for one in given] == [
        (passed[0], "clients", False),
        (passed[1], ADMIN, False),
    ]
    assert environment == {"HOME": "/"}
    assert not any(os.get_inheritable(fd) for fd in passed)
    for one in given:
        one.sock.detach()


def test_sockets_of_another_process_are_not_ours(passed: list[int]) -> None:
    """A variable that was inherited from a parent says nothing about us."""
    environment = _environment(2, pid=os.getpid() + 1)

    assert take_given(environment, passed[0]) == []
    assert environment == {"HOME": "/"}
    assert take_given({}, passed[0]) == []


def test_socket_that_does_not_listen_is_refused_in_words(passed: list[int]) -> None:
    """Accept=yes, or a datagram socket: a unit that was meant for something else."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        os.dup2(datagrams.fileno(), passed[0], inheritable=True)

    with pytest.raises(ListenError, match="clients of systemd does not listen: the unit needs ListenStream="):
        take_given(_environment(1, "clients"), passed[0])
    os.close(passed[1])
    with pytest.raises(ListenError, match="cannot be used"):
        take_given(_environment(1), passed[1])


def test_admin_port_on_a_unix_socket_is_refused_in_words(passed: list[int], tmp_path: Path) -> None:
    """It is HTTP over TCP, for browsers and scrapers."""
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        os.dup2(unix.fileno(), passed[0], inheritable=True)

    with pytest.raises(ListenError, match="HTTP over TCP"):
        take_given(_environment(1, ADMIN), passed[0])
