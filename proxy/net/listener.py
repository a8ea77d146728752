"""Listening sockets: accept clients, TLS handshakes included, and keep their number bounded.

A worker that is one of several shares its addresses with the others. A TCP port each of them binds for itself
(SO_REUSEPORT: the kernel deals connections out); a unix socket has one owner, who bound it and whose descriptor they
inherit.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import trio

from proxy.config.model import Endpoint
from proxy.errors import ListenError
from proxy.log import get_logger
from proxy.net.dial import Stream, tune
from proxy.net.reactor import READ, Reactor
from proxy.net.tls import handshake

BACKLOG: Final = 4096
ACCEPTS: Final = 64  # a wake-up accepts so many, then serves those who are here
TLS_HANDSHAKE_S: Final = 10.0
TLS_HANDSHAKES: Final = 256  # at once; more wait in the kernel's backlog
RETRY_S: Final = 0.1  # after the process ran out of descriptors
log = get_logger("listener")
Accepted = Callable[[Stream], None]


class Listener:
    """One address. `accepted` gets every connection that is ready to speak RESP.

    `inherited` is a socket that listens already: the file behind it is its owner's, and others accept from it too.
    """

    def __init__(
        self,
        reactor: Reactor,
        endpoint: Endpoint,
        context: ssl.SSLContext | None,
        accepted: Accepted,
        *,
        reuse_port: bool = False,
        inherited: socket.socket | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._reactor = reactor
        self._context = context
        self._accepted = accepted
        self._sock = bind(endpoint, reuse_port=reuse_port) if inherited is None else inherited
        self._is_owner = inherited is None
        # Who takes all that wait in a queue of several leaves the others idle.
        self._accepts = ACCEPTS if inherited is None else 1
        self._nursery: trio.Nursery | None = None
        self._handshakes = 0
        self._open = True

    @property
    def url(self) -> str:
        """The address as a user would write it, with the port the system chose."""
        if self.endpoint.scheme == "unix":
            return self.endpoint.display
        scheme = "rediss" if self.endpoint.scheme == "tls" else "redis"
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        return f"{scheme}://{host}:{self._sock.getsockname()[1]}"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept until cancelled or closed."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._reactor.add(self._sock.fileno(), self)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self.close()

    def close(self) -> None:
        """Accept no more; connections that were accepted go on."""
        if self._open:
            self._open = False
            self._reactor.remove(self._sock.fileno())
            self._sock.close()
            if self.endpoint.scheme == "unix" and self._is_owner:
                with suppress(OSError):
                    os.unlink(self.endpoint.path)

    def on_event(self, mask: int) -> None:
        """Accept what is waiting."""
        for _ in range(self._accepts):
            try:
                sock, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionError):
                return
            except OSError as exc:
                if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._rest(str(exc))
                    return
                raise
            sock.setblocking(False)
            if self.endpoint.scheme != "unix":
                tune(sock)
            if self._context is None:
                self._accepted(sock)
                continue
            assert self._nursery is not None
            self._handshakes += 1
            self._nursery.start_soon(self._handshake, sock, self._context)
            if self._handshakes >= TLS_HANDSHAKES:
                self._reactor.modify(self._sock.fileno(), 0)

    def on_crash(self) -> None:
        """Go on listening: one accept failed in a way we did not know."""

    async def _handshake(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        try:
            with trio.fail_after(TLS_HANDSHAKE_S):
                stream = await handshake(sock, context, server_side=True)
        except (OSError, trio.TooSlowError) as exc:
            log.info("TLS handshake failed", why=str(exc) or "too slow")
            return
        finally:
            self._handshakes -= 1
            if self._open:
                self._reactor.modify(self._sock.fileno(), READ)
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


def bind(endpoint: Endpoint, *, reuse_port: bool = False) -> socket.socket:
    """Return a listening non-blocking socket. Raises ListenError: a wrong address, or one that is taken."""
    return _bound(endpoint, reuse_port=reuse_port, listens=True)


def reserve(endpoint: Endpoint) -> socket.socket:
    """Return a TCP socket that holds a port for others to bind with `reuse_port`, and gets no connection itself.

    Raises ListenError, also when somebody who would share the port holds it already: another proxy of the same user.
    """
    _bound(endpoint, reuse_port=False, listens=False).close()
    return _bound(endpoint, reuse_port=True, listens=False)


def _bound(endpoint: Endpoint, *, reuse_port: bool, listens: bool) -> socket.socket:
    try:
        if endpoint.scheme == "unix":
            _remove_stale(endpoint.path)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            address: object = endpoint.path
        else:
            family, _, _, _, address = socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind(address)  # type: ignore[arg-type]
            if listens:
                sock.listen(BACKLOG)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise ListenError(f"cannot listen on {endpoint.display}: {exc.strerror or exc}") from exc
    sock.setblocking(False)
    return sock


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
