"""Open a connection to the upstream: connect, TLS, and the first commands, before the reactor takes it over."""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Sequence
from typing import Any, Final, Protocol

import attrs
import trio

from proxy.config.model import Endpoint
from proxy.core.session import Identity
from proxy.errors import HandshakeError, RemoteError
from proxy.net.tls import handshake
from proxy.tls.renewal import Renewable
from proxy.wire.encode import command
from proxy.wire.reply import FrameScanner
from proxy.wire.request import Raw

USER_TIMEOUT_MS: Final = 20_000  # unacknowledged bytes for longer: the peer is gone, whatever TCP still hopes


class Stream(Protocol):
    """A connected, non-blocking socket, plain or TLS."""

    def recv(self, size: int, /) -> bytes: ...  # noqa: D102
    def send(self, data: Raw, /) -> int: ...  # noqa: D102
    def fileno(self) -> int: ...  # noqa: D102
    def getpeername(self) -> Any: ...  # noqa: D102
    def getsockname(self) -> Any: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@attrs.frozen
class Upstream:
    """Where to connect, and how."""

    endpoint: Endpoint
    context: Renewable | None
    connect_timeout_s: float
    response_timeout_s: float


async def dial(upstream: Upstream) -> Stream:
    """Connect within `connect_timeout_s`. Raises RemoteError; a cancellation leaves nothing open."""
    endpoint = upstream.endpoint
    try:
        with trio.fail_after(upstream.connect_timeout_s):
            sock = await _connect(endpoint)
            if upstream.context is None:
                return sock
            context = upstream.context.current()
            name = endpoint.host if context.check_hostname else None
            return await handshake(sock, context, server_side=False, server_hostname=name)
    except trio.TooSlowError as exc:
        raise RemoteError(f"no connection within {upstream.connect_timeout_s:g} s") from exc
    except (OSError, UnicodeError) as exc:  # the latter of a host name that none can have
        raise RemoteError(_said(exc)) from exc


def _said(exc: OSError | UnicodeError) -> str:
    """Return why there is no connection, for people; the words of trio have the address in them, and a number."""
    if isinstance(exc, socket.gaierror):
        return exc.strerror or str(exc)
    if isinstance(exc, OSError) and exc.errno and not isinstance(exc, ssl.SSLError):  # which has numbers of its own
        return os.strerror(exc.errno)
    return str(exc)


async def _connect(endpoint: Endpoint) -> socket.socket:
    """Return a connected non-blocking socket, the first address that answers."""
    if endpoint.scheme == "unix":
        return await _connect_to(socket.AF_UNIX, endpoint.path)
    found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    for family, _, _, _, address in found[:-1]:
        try:
            return await _connect_to(family, address)
        except OSError:
            continue
    return await _connect_to(found[-1][0], found[-1][4])


async def _connect_to(family: int, address: object) -> socket.socket:
    with trio.socket.socket(family, socket.SOCK_STREAM) as sock:
        await sock.connect(address)
        plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    if family != socket.AF_UNIX:
        tune(plain)
    return plain


def tune(sock: socket.socket) -> None:
    """Send at once, and notice a peer that vanished."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


def reset_on_close(sock: socket.socket) -> None:
    """Let close drop what was not sent: for a peer that does not read."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def exchange(stream: Stream, commands: Sequence[bytes], timeout_s: float) -> list[bytes]:
    """Send commands in one go and return one raw reply each. Raises RemoteError.

    Nothing else may arrive: the link is fresh. A cancellation leaves the stream unusable; the caller closes it.
    """
    try:
        with trio.fail_after(timeout_s):
            unsent = memoryview(b"".join(commands))
            while unsent:
                try:
                    unsent = unsent[stream.send(unsent) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(stream.fileno())
            return await _replies(stream, len(commands))
    except trio.TooSlowError as exc:
        raise RemoteError(f"no reply to the handshake within {timeout_s:g} s") from exc
    except OSError as exc:
        raise RemoteError(str(exc)) from exc


async def _replies(stream: Stream, count: int) -> list[bytes]:
    replies: list[bytes] = []
    scanner = FrameScanner()
    parts: list[bytes] = []
    while len(replies) < count:
        try:
            data = stream.recv(65536)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(stream.fileno())
            continue
        except ConnectionError:  # it closed on what we had sent already: its last words are what counts
            data = b""
        if not data:
            if replies and replies[-1][:1] == b"-":
                raise HandshakeError(replies[-1])
            raise RemoteError("the upstream closed the connection during the handshake")
        pos = 0
        while pos < len(data):
            end = scanner.scan(data, pos)
            if end < 0:
                parts.append(data[pos:])
                break
            replies.append(b"".join([*parts, data[pos:end]]))
            parts = []
            pos = end
    return replies


def opening(identity: Identity, db: int, protocol: int, name: str) -> tuple[list[bytes], int]:
    """Return the first commands of a link, and how many of them must succeed (the rest is courtesy).

    Source: Redis documentation, HELLO.
    """
    commands: list[bytes] = []
    username = identity.username or b"default"
    if protocol == 3:
        auth = ("AUTH", username, identity.password) if identity.user else ()
        commands.append(command("HELLO", "3", *auth))
    elif identity.user:
        auth_words = (identity.username, identity.password) if identity.username else (identity.password,)
        commands.append(command("AUTH", *auth_words))
    if db:
        commands.append(command("SELECT", db))
    needed = len(commands)
    commands.append(command("CLIENT", "SETNAME", name))
    return commands, needed


async def open_stream(
    upstream: Upstream, identity: Identity, db: int, protocol: int, name: str, *more: bytes
) -> tuple[Stream, list[bytes]]:
    """Dial and say the first commands; return the stream and the raw replies to `more`.

    Raises HandshakeError when Redis refuses who we are or the database, RemoteError when the connection fails.
    """
    stream = await dial(upstream)
    try:
        commands, needed = opening(identity, db, protocol, name)
        replies = await exchange(stream, [*commands, *more], upstream.response_timeout_s)
        for place, reply in enumerate(replies[:needed], 1):
            if reply[:1] == b"-":
                is_select = db > 0 and place == needed
                raise HandshakeError(reply, has_no_db=is_select and reply.startswith(b"-ERR "))
        return stream, replies[len(commands) :]
    except BaseException:
        stream.close()
        raise
