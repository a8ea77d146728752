"""Sockets that systemd has opened for us: `LISTEN_FDS`, from a .socket unit beside the service.

What they are for is said by FileDescriptorName= in the unit: "admin" the admin port, "rediss" clients with TLS, any
other name, or none, clients without. Source: sd_listen_fds(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import Final

from proxy.errors import ListenError
from proxy.net.door.addresses import ADMIN, Given

FIRST: Final = 3  # behind standard input, output and error


def take_given(environment: MutableMapping[str, str], first: int = FIRST) -> list[Given]:
    """Return what we were given, and take that out of the environment: it is not for children of ours.

    Raises ListenError when it cannot be listened on: a unit that was meant otherwise.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return []
    given = []
    for number in range(int(count)):
        name = names[number] if number < len(names) else ""
        given.append(Given(_socket(first + number, name), name))
    return given


def _socket(fd: int, name: str) -> socket.socket:
    called = f"the socket {name or fd} of systemd"
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        kind, listens = sock.type, sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as exc:
        raise ListenError(f"{called} cannot be used: {exc.strerror or exc}") from exc
    why = ""
    if kind != socket.SOCK_STREAM or not listens:
        why = "does not listen: the unit needs ListenStream= and Accept=no"
    elif name == ADMIN and sock.family == socket.AF_UNIX:
        why = "is a unix socket: the admin port is HTTP over TCP"
    if why:
        sock.close()
        raise ListenError(f"{called} {why}")
    return sock
