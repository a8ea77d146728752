"""TLS: the contexts of both sides of a worker, and a socket that reads like a plain one."""

from __future__ import annotations

import ssl
from socket import socket

import trio

from proxy.config.model import TlsClient, TlsServer
from proxy.errors import ListenError, RemoteError
from proxy.tls.contexts import client_side, server_side
from proxy.tls.renewal import Renewable
from proxy.wire.request import Raw


def server_context(settings: TlsServer) -> Renewable:
    """Return the context for `rediss://` listeners. Raises ListenError when the files cannot be used."""
    if not settings.cert or not settings.key:
        raise ListenError("a rediss:// listener needs listen.tls.cert and listen.tls.key")
    try:
        return server_side("listen.tls", settings)
    except OSError as exc:
        raise ListenError(f"listen.tls cannot be used: {exc}") from exc


def client_context(settings: TlsClient) -> Renewable:
    """Return the context for a `rediss://` upstream. Raises RemoteError when the files cannot be used."""
    try:
        return client_side("upstream.tls", settings)
    except OSError as exc:
        raise RemoteError(f"upstream.tls cannot be used: {exc}") from exc


class TlsSocket:
    """A non-blocking TLS socket with `recv` and `send` as a plain one has them.

    `recv` empties what OpenSSL has decrypted already: the poller sees the socket, not OpenSSL's buffer.
    """

    __slots__ = ("_tls", "fileno", "getpeername", "getsockname")

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self.fileno = tls.fileno
        self.getpeername = tls.getpeername
        self.getsockname = tls.getsockname

    def recv(self, size: int, /) -> bytes:
        """Return what has come, b"" at the end. Raises BlockingIOError when nothing has, OSError when it broke."""
        tls = self._tls
        try:
            data = tls.recv(size)
            if not tls.pending():
                return data
            parts = [data]
            while pending := tls.pending():
                parts.append(tls.recv(pending))
            return b"".join(parts)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        except ssl.SSLZeroReturnError:
            return b""

    def send(self, data: Raw, /) -> int:
        """Send what the socket takes; return how much. Raises BlockingIOError when it takes nothing."""
        try:
            return self._tls.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def close(self) -> None:
        """Close without a farewell: the peer may not be reading."""
        self._tls.close()


async def handshake(
    sock: socket, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
) -> TlsSocket:
    """Do the TLS handshake on a connected non-blocking socket.

    Raises OSError (ssl.SSLError among them); the socket is closed then, and when cancelled.
    """
    try:
        sock.getpeername()  # of a peer that has reset already, wrap_socket would fail and leave the socket open
        tls = context.wrap_socket(
            sock, server_side=server_side, server_hostname=server_hostname, do_handshake_on_connect=False
        )
    except BaseException:
        sock.close()
        raise
    try:
        while True:
            try:
                tls.do_handshake()
                return TlsSocket(tls)
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(tls)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(tls)
    except BaseException:
        tls.close()
        raise
