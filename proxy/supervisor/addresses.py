"""The addresses that all workers serve: TCP ports held for them, unix sockets opened for them.

tcp, tls   reserved here without listening; each worker binds it too (SO_REUSEPORT), the kernel deals out
unix       bound and listened on here, once; each worker inherits the descriptor
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress

import attrs

from proxy.config.model import Endpoint
from proxy.errors import ListenError
from proxy.net.listener import bind, reserve


@attrs.frozen
class Address:
    """One address as a worker gets it: port 0 has become the port it is. `fd` is the unix socket's, -1 for TCP."""

    endpoint: Endpoint
    fd: int = -1


class Addresses:
    """Open all at once, close when no more clients are wanted; closing also removes the sockets' files."""

    def __init__(self) -> None:
        self.all: tuple[Address, ...] = ()
        self._held: list[tuple[Endpoint, socket.socket]] = []

    def open(self, endpoints: Iterable[Endpoint]) -> None:
        """Take every address. Raises ListenError and holds none when one cannot be had."""
        try:
            for endpoint in endpoints:
                self._held.append((endpoint, bind(endpoint) if endpoint.scheme == "unix" else reserve(endpoint)))
            names = [sock.getsockname() for _, sock in self._held]
            # Each worker would bind it twice, and the kernel deal its clients to either.
            if twice := {name for name in names if names.count(name) > 1}:
                raise ListenError(f"listen.url names {twice.pop()} twice")
        except BaseException:
            self.close()
            raise
        self.all = tuple(_address(endpoint, sock) for endpoint, sock in self._held)

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that a worker inherits."""
        return tuple(address.fd for address in self.all if address.fd >= 0)

    def close(self) -> None:
        """Let go of all: a unix socket takes no more clients once the workers have closed theirs too."""
        while self._held:
            endpoint, sock = self._held.pop()
            sock.close()
            if endpoint.scheme == "unix":
                with suppress(OSError):
                    os.unlink(endpoint.path)


def _address(endpoint: Endpoint, sock: socket.socket) -> Address:
    if endpoint.scheme == "unix":
        return Address(endpoint, sock.fileno())
    return Address(attrs.evolve(endpoint, port=sock.getsockname()[1]))
