"""What clients connect to: the addresses, and for each the sockets in whose queues they wait to be accepted.

    opened here      TCP: one socket for each worker (SO_REUSEPORT: the kernel deals clients out); unix: one, for all
    given            by systemd, or by the proxy that this one replaces: they listen already

Owned by the process that outlives the others (the parent of several workers, or the only one): a worker that ends
leaves its queue behind, for another to accept from. Nothing is accepted here.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

import attrs

from proxy.config.model import Endpoint
from proxy.errors import ListenError
from proxy.log import get_logger
from proxy.net.door.listener import bind, bound, name_of, resolve

_SO_ATTACH_FILTER: Final = 26  # Linux; Python has no name for it
# Classic BPF on a TCP header: if SYN is set in its flags, drop, else take. Who is in the middle of a handshake gets in.
_NO_SYN: Final = b"".join(
    struct.pack("HBBI", *step) for step in ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFF))
)
ADMIN: Final = "admin"  # what a given socket is called that is for the admin port
TLS: Final = "rediss"  # .. and one for clients that speak TLS
log = get_logger("addresses")


@attrs.frozen
class Given:
    """A listening socket of somebody else. `name` may be ADMIN or TLS; `owns_file`: the file of it is ours now."""

    sock: socket.socket
    name: str = ""
    owns_file: bool = False


@attrs.frozen
class Address:
    """One address as a worker gets it: port 0 has become the port it is. `fds` are its sockets, open in the owner."""

    endpoint: Endpoint
    fds: tuple[int, ...]


@attrs.frozen
class _Held:
    endpoint: Endpoint
    name: str
    socks: tuple[socket.socket, ...]
    owns_file: bool
    is_given: bool = False

    @property
    def is_tls(self) -> bool:
        return self.endpoint.scheme == "tls"


class Addresses:
    """Open all at once, close when no more clients are wanted; closing also removes the files that are ours.

    `given` are used where they have the address that is asked for; `in_place`: they are what there is, whatever is
    asked for. Those that are not used are closed. Their files stay whatever happens, until `inherit` says that nobody
    else is found by them any more.
    """

    def __init__(self, given: Iterable[Given] = (), *, in_place: bool = False) -> None:
        self.all: tuple[Address, ...] = ()
        self.in_place = in_place
        self._given = list(given)
        self._held: list[_Held] = []
        self._has_inherited = False

    def open(self, endpoints: Iterable[Endpoint], queues: int = 1) -> None:
        """Take every address, with so many sockets each. Raises ListenError and holds none when one cannot be had."""
        wanted = list(endpoints)
        try:
            if self.in_place and self._given:
                self._open_in_place(wanted)
            else:
                for endpoint in wanted:
                    self._held.append(self._take(endpoint) or _opened(endpoint, queues))
            names = [held.name for held in self._held]
            if twice := {name for name in names if names.count(name) > 1}:
                raise ListenError(f"listen.url names {twice.pop()} twice")
        except BaseException:
            self.close()
            raise
        finally:
            for one in self._given:
                one.sock.close()
            self._given.clear()
        self.all = tuple(Address(held.endpoint, tuple(sock.fileno() for sock in held.socks)) for held in self._held)

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that a worker inherits."""
        return tuple(fd for address in self.all for fd in address.fds)

    @property
    def names(self) -> list[str]:
        """The addresses as they are told apart, see `name_of`."""
        return [held.name for held in self._held]

    def to_give(self) -> list[Given]:
        """Return all sockets, for a proxy that comes after this one; they stay ours, too."""
        return [Given(sock, TLS if held.is_tls else "", held.owns_file) for held in self._held for sock in held.socks]

    def inherit(self) -> None:
        """Note that who gave us sockets leaves them to us: their files are ours to remove in the end."""
        self._has_inherited = True

    def turn_away(self, kept: Collection[str] = ()) -> None:
        """Let no more clients come; those who have connected wait for `Listener.retire`. `kept`: names left alone.

        A connection that the kernel makes between the last accept and the close would be cut with its request in it.
        """
        leaving = [held for held in self._held if held.name not in kept]
        try:
            for held in leaving:
                for sock in held.socks:
                    _refuse_syn(sock)
        except OSError as exc:  # a sandbox may not have it
            log.warning("who connects at the last moment may be cut off", why=exc.strerror)
        for held in leaving:
            self._remove(held)

    def close(self, kept: Collection[str] = ()) -> None:
        """Let go of all: an address takes no more clients once the workers have closed theirs too.

        The files of those in `kept` are somebody else's now, and stay.
        """
        self.all = ()
        while self._held:
            held = self._held.pop()
            for sock in held.socks:
                sock.close()
            if held.name not in kept:
                self._remove(held)

    def _remove(self, held: _Held) -> None:
        is_ours = held.owns_file and (self._has_inherited or not held.is_given)
        if held.endpoint.scheme == "unix" and is_ours:
            with suppress(OSError):
                os.unlink(held.endpoint.path)

    def _open_in_place(self, wanted: list[Endpoint]) -> None:
        schemes = {name_at(endpoint): endpoint.scheme for endpoint in wanted}
        grouped: dict[str, list[Given]] = {}
        for one in self._given:
            grouped.setdefault(name_of(one.sock), []).append(one)
        for name, group in grouped.items():
            is_tls = group[0].name == TLS or schemes.get(name) == "tls"
            self._held.append(_given(_endpoint_of(group[0].sock, is_tls=is_tls), name, group))
        self._given.clear()

    def _take(self, endpoint: Endpoint) -> _Held | None:
        """Return an address whose sockets were given, None if they were not."""
        name = name_at(endpoint)
        group = [one for one in self._given if name_of(one.sock) == name]
        self._given = [one for one in self._given if one not in group]
        return _given(endpoint, name, group) if group else None


def name_at(endpoint: Endpoint) -> str:
    """Return what a socket at an endpoint would be called, "" when there can be none."""
    if endpoint.scheme == "unix":
        return f"unix:{os.path.abspath(endpoint.path)}"
    try:
        _, address = resolve(endpoint)
    except OSError:
        return ""
    return f"tcp:{address[0]}:{address[1]}"


def _opened(endpoint: Endpoint, queues: int) -> _Held:
    if endpoint.scheme == "unix":  # listens at once: to one that does not, the next start would say it is left behind
        socks = [bind(endpoint)]
    else:
        # Bound without sharing first: another proxy of the same user, who would share it, is somebody else too.
        first = bound(endpoint)
        endpoint = attrs.evolve(endpoint, port=first.getsockname()[1])
        socks = [first]
        if queues > 1:
            first.close()
            socks = []
            try:
                for _ in range(queues):
                    socks.append(bound(endpoint, reuse_port=True))
            except ListenError:
                for sock in socks:
                    sock.close()
                raise
    return _Held(endpoint, name_of(socks[0]), tuple(socks), owns_file=True)


def _given(endpoint: Endpoint, name: str, group: list[Given]) -> _Held:
    for one in group:
        one.sock.setblocking(False)
    return _Held(endpoint, name, tuple(one.sock for one in group), all(one.owns_file for one in group), is_given=True)


def _endpoint_of(sock: socket.socket, *, is_tls: bool) -> Endpoint:
    if sock.family == socket.AF_UNIX:
        return Endpoint("unix", path=os.fsdecode(sock.getsockname()))
    host, port = sock.getsockname()[:2]
    return Endpoint("tls" if is_tls else "tcp", host, port)


def _refuse_syn(sock: socket.socket) -> None:
    if sys.platform != "linux" or sock.family == socket.AF_UNIX:
        return
    program = ctypes.create_string_buffer(_NO_SYN)
    steps = len(_NO_SYN) // 8
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", steps, ctypes.addressof(program)))
