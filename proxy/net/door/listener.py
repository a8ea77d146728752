"""Listening sockets: accept clients; TLS handshakes are `handshakes.py`'s.

Where a socket comes from is `addresses.py`'s: it was bound for this process, or for all workers, or was given by
systemd or by the proxy before this one. A queue of clients that wait is the kernel's, and lives as long as any process
holds its socket: who only closes takes nothing from the others, who closes the last one loses whoever waits in it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import trio

from proxy.config.model import Endpoint
from proxy.errors import ListenError
from proxy.log import get_logger
from proxy.net.door.handshakes import Handshakes
from proxy.net.links.dial import Stream, tune
from proxy.net.reactor import READ, Reactor
from proxy.tls.renewal import Renewable

UNSENT_MAX_BYTES: Final = 512 * 1024
"""Less makes replies of megabytes dearer: the socket has us woken for each piece."""
BACKLOG: Final = 4096
ACCEPTS: Final = 64  # a wake-up accepts so many, then serves those who are here
RETRY_S: Final = 0.1  # after the process ran out of descriptors
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# What became of a connection while it waited, told by who accepts it. Source: accept(2).
_BROKEN: Final = (
    *(errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENOPROTOOPT),
)
log = get_logger("listener")
Accepted = Callable[[Stream], None]


class Listener:
    """One address. `accepted` gets every connection that is ready to speak RESP; `failed` hears of failed handshakes.

    `inherited` is a socket that is bound already: the file behind it is its owner's. `is_shared`: other processes
    accept from it at the same time.
    """

    def __init__(
        self,
        reactor: Reactor,
        endpoint: Endpoint,
        context: Renewable | None,
        accepted: Accepted,
        *,
        failed: Callable[[], None] = lambda: None,
        inherited: socket.socket | None = None,
        is_shared: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self._reactor = reactor
        self.handshakes = None if context is None else Handshakes(context, self._shaken, failed)
        self._accepted = accepted
        self._sock = bind(endpoint) if inherited is None else inherited
        self._is_owner = inherited is None
        self.name = name_of(self._sock)  # of the address: several may have it
        # Who takes all that wait in a queue of several leaves the others idle.
        self._accepts = 1 if is_shared else ACCEPTS
        self._nursery: trio.Nursery | None = None
        self._open = True
        self._closed = trio.Event()

    @property
    def url(self) -> str:
        """The address as a user would write it, with the port the system chose."""
        if self.endpoint.scheme == "unix":
            return self.endpoint.display
        scheme = "rediss" if self.endpoint.scheme == "tls" else "redis"
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        return f"{scheme}://{host}:{self._sock.getsockname()[1]}"

    @property
    def is_shaking_hands(self) -> bool:
        """Whether a connection that was accepted is not a client yet."""
        return self.handshakes is not None and self.handshakes.is_busy

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and accept until cancelled, or closed: then until those who shake hands have. Raises ListenError."""
        if not self._open:
            task_status.started()
            return
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._listen()
                self._reactor.add(self._sock.fileno(), self)
                task_status.started()
                await self._closed.wait()
        finally:
            self.close()

    def _listen(self) -> None:
        try:
            self._sock.listen(BACKLOG)
        except OSError as exc:  # while we looked for Redis somebody else has come to listen there: both had bound it
            raise ListenError(f"cannot listen on {self.url}: {exc.strerror or exc}") from exc

    def close(self) -> None:
        """Accept no more; connections that were accepted go on."""
        if self._open:
            self._open = False
            self._closed.set()
            self._reactor.remove(self._sock.fileno())
            self._sock.close()
            if self.endpoint.scheme == "unix" and self._is_owner:
                with suppress(OSError):
                    os.unlink(self.endpoint.path)

    def retire(self) -> None:
        """Close, but take those first who wait already: they have connected and may have sent what they want."""
        if self._open:
            if self._nursery is not None:
                while self._accept():
                    pass
            self.close()

    def on_event(self, mask: int) -> None:
        """Accept what is waiting."""
        for _ in range(self._accepts):
            if not self._accept():
                return

    def on_crash(self) -> None:
        """Go on listening: one accept failed in a way we did not know."""

    def _accept(self) -> bool:
        """Accept one connection; return whether there may be another."""
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                self._rest(str(exc))
                return False
            if exc.errno in _BROKEN:
                return True  # it has been taken off the queue, and others wait behind it
            raise
        sock.setblocking(False)
        if self.endpoint.scheme != "unix":
            tune(sock)
            _limit_unsent(sock)
        if self.handshakes is None:
            self._accepted(sock)
        else:
            assert self._nursery is not None
            self.handshakes.begin(self._nursery, sock)
        return True

    def _shaken(self, stream: Stream) -> None:
        self._reactor.enter()
        self._reactor.guard(self, lambda: self._accepted(stream))
        self._reactor.flush()

    def _rest(self, why: str) -> None:
        """Stop accepting for a moment: no descriptor is free, and the poller would spin."""
        log.warning("cannot accept", why=why)
        self._reactor.modify(self._sock.fileno(), 0)
        assert self._nursery is not None
        self._nursery.start_soon(self._wake)

    async def _wake(self) -> None:
        await trio.sleep(RETRY_S)
        if self._open:
            self._reactor.modify(self._sock.fileno(), READ)


def _limit_unsent(sock: socket.socket) -> None:
    """Let the kernel take only so much for a peer that does not read; what is on its way does not count (Linux, macOS).

    A thousand who never read would else hold 4 MiB each, outside every bound of ours, and the kernel short of memory
    for all sockets of the machine.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_MAX_BYTES)


def bind(endpoint: Endpoint) -> socket.socket:
    """Return a listening non-blocking socket. Raises ListenError: a wrong address, or one that is taken."""
    sock = bound(endpoint)
    try:
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise ListenError(f"cannot listen on {endpoint.display}: {exc.strerror or exc}") from exc
    return sock


def bound(endpoint: Endpoint, *, reuse_port: bool = False) -> socket.socket:
    """Return a non-blocking socket that has the address and does not listen yet. Raises ListenError.

    `reuse_port`: others that say so too may have the address as well; the kernel deals clients out among all.
    """
    try:
        if endpoint.scheme == "unix":
            _remove_stale(endpoint.path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            address: object = endpoint.path
        else:
            family, address = resolve(endpoint)
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind(address)  # type: ignore[arg-type]
            if endpoint.mode is not None:  # before it listens: nobody gets in while the rights are others
                os.chmod(endpoint.path, endpoint.mode)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise ListenError(f"cannot listen on {endpoint.display}: {exc.strerror or exc}") from exc
    sock.setblocking(False)
    return sock


def resolve(endpoint: Endpoint) -> tuple[socket.AddressFamily, Any]:
    """Return the family and the socket address of a TCP endpoint. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(
        endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    return family, address


def name_of(sock: socket.socket) -> str:
    """Return what a listening socket's address is called: "unix:/path", "tcp:127.0.0.1:6380"."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{os.path.abspath(os.fsdecode(sock.getsockname()))}"
    host, port = sock.getsockname()[:2]
    return f"tcp:{host}:{port}"


def _remove_stale(path: str) -> None:
    """Remove a socket nobody listens on any more; one that somebody listens on is left, and bind will fail."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
