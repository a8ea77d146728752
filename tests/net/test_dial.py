"""Opening a connection to the upstream: refused, silent, closed, not let in, garbage; and no socket is left behind."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
import trustme

from proxy.config.model import Endpoint, parse_endpoint
from proxy.core.session import Identity
from proxy.errors import HandshakeError, RemoteError
from proxy.net.links.dial import Upstream, dial, open_stream, opening
from proxy.tls.renewal import Renewable
from proxy.wire.encode import command

from ..e2e.servers import Server, ServerOptions, find_kind, free_port
from .driver import within
from .peer import Handle, Peer, open_sockets, serve_raw, until

ANYBODY = Identity()
PING = command("PING")


def _upstream(
    port: int, *, connect_s: float = 2.0, response_s: float = 2.0, tls: ssl.SSLContext | None = None
) -> Upstream:
    endpoint = Endpoint("tls" if tls else "tcp", "127.0.0.1", port, "", "", "", 0)
    return Upstream(endpoint, Renewable.fixed(tls) if tls else None, connect_s, response_s)


async def _open(
    upstream: Upstream, *more: bytes, who: Identity = ANYBODY, db: int = 0, protocol: int = 2
) -> list[bytes]:
    """Open a link and close it again; return the replies to `more`."""
    stream, replies = await within(open_stream(upstream, who, db, protocol, "respite-data", *more), "the link is open")
    stream.close()
    return list(replies)


def _answering(*parts: bytes) -> Handle:
    """Return a server that sends these bytes once it has read something, each in a segment of its own, and waits."""

    async def handle(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await stream.receive_some()
        for part in parts:
            await stream.send_all(part)
            await trio.lowlevel.checkpoint()
        await stream.receive_some()

    return handle


async def _never(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


# -- the connection --------------------------------------------------------------------------------------------------


async def test_dial_refused_says_so_at_once() -> None:
    """A port nobody listens on is an error of the remote side, without waiting for a timeout."""
    began = trio.current_time()
    with pytest.raises(RemoteError, match=r"^Connection refused$"):
        await dial(_upstream(free_port(), connect_s=30))

    assert trio.current_time() - began < 2


async def test_dial_to_a_full_backlog_ends_at_the_connect_timeout() -> None:
    """A host that answers no SYN is given up after connect_timeout."""
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (one, two):
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(full.getsockname())
        began = trio.current_time()
        with pytest.raises(RemoteError, match=r"no connection within 0\.2 s"):
            await dial(_upstream(full.getsockname()[1], connect_s=0.2))

    assert 0.2 <= trio.current_time() - began < 2


async def test_dial_tls_to_a_silent_peer_ends_at_the_connect_timeout(nursery: trio.Nursery) -> None:
    """The TLS handshake counts to connect_timeout."""
    port = await serve_raw(nursery, _never)
    with pytest.raises(RemoteError, match=r"no connection within 0\.2 s"):
        await dial(_upstream(port, connect_s=0.2, tls=ssl.create_default_context()))


async def test_dial_tls_to_a_plain_peer_fails(nursery: trio.Nursery) -> None:
    """A server that speaks no TLS is an error of the remote side."""
    port = await serve_raw(nursery, _answering(b"-ERR what is this\r\n"))
    with pytest.raises(RemoteError):
        await dial(_upstream(port, tls=ssl.create_default_context()))


async def test_dial_to_a_name_nobody_knows_fails() -> None:
    """A host name that does not resolve is an error of the remote side."""
    with pytest.raises(RemoteError):
        await dial(Upstream(parse_endpoint("redis://nobody.invalid:6379"), None, 5.0, 5.0))


async def test_dial_to_a_name_that_none_can_be_fails() -> None:
    """It cannot be looked up, which is said as if it had been."""
    with pytest.raises(RemoteError):
        await dial(Upstream(Endpoint("tcp", "a..b", 6379), None, 5.0, 5.0))


async def test_dial_tries_the_next_address_of_a_name(monkeypatch: pytest.MonkeyPatch, peer: Peer) -> None:
    """A name with an address that refuses and one that answers is connected; its last refusal is the one told."""
    answers = [
        (socket.AF_INET, 0, 0, "", ("127.0.0.1", free_port())),
        (socket.AF_INET, 0, 0, "", ("127.0.0.1", peer.port)),
    ]

    async def getaddrinfo(*_: Any, **__: Any) -> Any:
        return answers

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)

    assert await _open(Upstream(parse_endpoint("redis://two:1"), None, 2.0, 2.0), PING) == [b"+PONG\r\n"]
    answers.reverse()
    await peer.refuse()
    with pytest.raises(RemoteError, match=r"^Connection refused$"):
        await dial(Upstream(parse_endpoint("redis://two:1"), None, 2.0, 2.0))


async def test_dial_unix_socket_connects_or_says_why_not(redis: Server) -> None:
    """A unix:// upstream is connected; a path that is not there is an error of the remote side."""
    upstream = Upstream(parse_endpoint(f"unix://{redis.path}"), None, 2.0, 2.0)

    assert await _open(upstream, PING) == [b"+PONG\r\n"]
    with pytest.raises(RemoteError, match="No such file"):
        await dial(Upstream(parse_endpoint(f"unix://{redis.path}-not"), None, 2.0, 2.0))


# -- the handshake ---------------------------------------------------------------------------------------------------


async def test_open_stream_with_a_silent_peer_ends_at_the_response_timeout(nursery: trio.Nursery) -> None:
    """A server that accepts and says nothing is given up after response_timeout."""
    port = await serve_raw(nursery, _never)
    with pytest.raises(RemoteError, match=r"no reply to the handshake within 0\.2 s"):
        await _open(_upstream(port, response_s=0.2))


@pytest.mark.parametrize("said", [b"", b"+OK", b"+OK\r\n", b"$5\r\nab"])
async def test_open_stream_to_a_peer_that_closes_in_the_handshake_fails(nursery: trio.Nursery, said: bytes) -> None:
    """A server that goes away before it has answered everything is a broken link, not a refusal."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if said:
            await stream.send_all(said)

    port = await serve_raw(nursery, handle)
    with pytest.raises(RemoteError) as caught:
        await _open(_upstream(port), PING)

    assert not isinstance(caught.value, HandshakeError)


@pytest.mark.parametrize("waits", [False, True], ids=["before it is spoken to", "with our commands unread"])
async def test_open_stream_at_the_servers_client_limit_relays_its_words(nursery: trio.Nursery, waits: bool) -> None:
    """A server that says `max number of clients reached` and closes is quoted, whether it read our commands or not."""
    words = b"-ERR max number of clients reached\r\n"

    async def handle(stream: trio.SocketStream) -> None:
        if waits:  # closing with something unread resets the connection
            await trio.lowlevel.wait_readable(stream.socket)
        await stream.send_all(words)

    port = await serve_raw(nursery, handle)
    for _ in range(20):
        with pytest.raises(HandshakeError) as caught:
            await _open(_upstream(port), PING)
        assert caught.value.reply == words


async def test_open_stream_with_wrong_password_relays_wrongpass(redis: Server) -> None:
    """Redis' own refusal is quoted byte for byte, in both protocols."""
    for protocol in (2, 3):
        with pytest.raises(HandshakeError) as caught:
            await _open(_upstream(redis.port), who=Identity(b"alice", b"no"), protocol=protocol)
        assert caught.value.reply == b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


async def test_open_stream_unauthenticated_relays_noauth() -> None:
    """Where a password is needed HELLO 3 is refused in Redis' words; RESP2 connects, and its commands are refused."""
    with Server(find_kind("redis7"), ServerOptions(password="pw")) as server:
        with pytest.raises(HandshakeError) as caught:
            await _open(_upstream(server.port), protocol=3)

        assert caught.value.reply.startswith(b"-NOAUTH HELLO must be called")
        assert await _open(_upstream(server.port), PING) == [b"-NOAUTH Authentication required.\r\n"]
        assert await _open(_upstream(server.port), PING, who=Identity(b"", b"pw")) == [b"+PONG\r\n"]
        assert await _open(_upstream(server.port), PING, who=Identity(b"", b"pw"), protocol=3) == [b"+PONG\r\n"]


async def test_open_stream_with_username_is_that_user(redis: Server) -> None:
    """The link belongs to the user it logged in as, under its name, in its database."""
    whoami, name, info = command("ACL", "WHOAMI"), command("CLIENT", "GETNAME"), command("CLIENT", "INFO")
    for protocol in (2, 3):
        replies = await _open(
            _upstream(redis.port), whoami, name, info, who=Identity(b"alice", b"pw"), db=7, protocol=protocol
        )

        assert replies[:2] == [b"$5\r\nalice\r\n", b"$12\r\nrespite-data\r\n"]
        assert b" db=7 " in replies[2]


async def test_open_stream_to_a_database_that_is_not_there_relays_the_refusal(redis: Server) -> None:
    """SELECT's error is quoted."""
    with pytest.raises(HandshakeError) as caught:
        await _open(_upstream(redis.port), db=99)

    assert caught.value.reply == b"-ERR DB index is out of range\r\n"


@pytest.mark.parametrize(
    ("who", "db", "protocol", "expected", "needed"),
    [
        (Identity(), 0, 2, [], 0),
        (Identity(), 0, 3, [("HELLO", "3")], 1),
        (Identity(b"", b"pw"), 0, 2, [("AUTH", "pw")], 1),
        (Identity(b"", b"pw"), 2, 3, [("HELLO", "3", "AUTH", "default", "pw"), ("SELECT", "2")], 2),
        (Identity(b"al", b"pw"), 3, 2, [("AUTH", "al", "pw"), ("SELECT", "3")], 2),
        (Identity(b"al", b""), 0, 3, [("HELLO", "3", "AUTH", "al", "")], 1),
    ],
)
def test_opening_says_who_and_where(
    who: Identity, db: int, protocol: int, expected: list[tuple[str, ...]], needed: int
) -> None:
    """A link logs in, selects and names itself; only the name may be refused."""
    commands, must_succeed = opening(who, db, protocol, "respite-x")

    assert commands == [command(*words) for words in [*expected, ("CLIENT", "SETNAME", "respite-x")]]
    assert must_succeed == needed


async def test_open_stream_goes_on_when_only_the_name_is_refused(peer: Peer) -> None:
    """CLIENT SETNAME is courtesy: a server without it is used all the same."""
    peer.on("CLIENT SETNAME", b"-ERR unknown command 'CLIENT'\r\n")

    assert await _open(_upstream(peer.port), PING, protocol=3) == [b"+PONG\r\n"]


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$abc\r\n", b"*-x\r\n", b"\x15\x03\x01\x00\x02\x02\n"]
)
async def test_open_stream_to_something_that_is_no_redis_fails(nursery: trio.Nursery, garbage: bytes) -> None:
    """Bytes that are no RESP end the attempt."""
    port = await serve_raw(nursery, _answering(garbage))
    with pytest.raises(RemoteError, match="no RESP"):
        await _open(_upstream(port))


async def test_open_stream_reads_replies_cut_anywhere(nursery: trio.Nursery) -> None:
    """Replies that come byte by byte are put together; each is returned as it was."""
    replies = [b"+OK\r\n", b"*2\r\n$1\r\n\n\r\n:1\r\n", b"%1\r\n+a\r\n_\r\n", b"$-1\r\n"]
    raw = b"".join(replies)
    port = await serve_raw(nursery, _answering(*(raw[at : at + 1] for at in range(len(raw)))))

    assert await _open(_upstream(port), PING, PING, PING) == replies[1:]


async def test_open_stream_sends_more_than_the_socket_takes(peer: Peer) -> None:
    """First commands that do not fit into the socket at once are sent as it takes them."""
    large = command("SET", "k", b"v" * 8_000_000)

    assert await _open(_upstream(peer.port), large, command("GET", "k")) == [
        b"+OK\r\n",
        b"$8000000\r\n" + b"v" * 8_000_000 + b"\r\n",
    ]


# -- cancellation ----------------------------------------------------------------------------------------------------


class _CancelAt(trio.abc.Instrument):
    """Cancels a scope when its task begins to wait for the `at`-th time."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.waits = 0
        self.scope = trio.CancelScope()
        self._task = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count the waits of the task."""
        if task is self._task:
            self.waits += 1
            if self.waits == self.at:
                self.scope.cancel()


@contextmanager
def _cancelled_at(wait: int) -> Iterator[_CancelAt]:
    instrument = _CancelAt(wait)
    trio.lowlevel.add_instrument(instrument)
    try:
        with instrument.scope:
            yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)


async def _cancel_everywhere(upstream: Upstream) -> int:
    """Open a link again and again, cancelled at each wait in turn; return how many waits there are."""
    at = 0
    await trio.lowlevel.checkpoint()
    before = open_sockets()
    while True:
        at += 1
        with _cancelled_at(at) as cancelled:
            stream, _ = await open_stream(upstream, Identity(b"", b"pw"), 1, 3, "respite-data", PING)
            stream.close()
        await until(lambda: open_sockets() == before, f"no socket is left after a cancellation at wait {at}")
        if not cancelled.scope.cancelled_caught:
            return at - 1


async def test_open_stream_cancelled_at_any_wait_leaves_no_socket(nursery: trio.Nursery) -> None:
    """Whatever open_stream is waiting for when it is cancelled, its socket is closed."""
    port = await serve_raw(nursery, _answering(b"+OK\r\n", b"+OK\r\n", b"+OK\r\n", b"+PO", b"NG\r\n"))
    assert await _cancel_everywhere(_upstream(port)) >= 4


async def test_open_stream_cancelled_at_any_wait_of_tls_leaves_no_socket(nursery: trio.Nursery) -> None:
    """The same with a TLS handshake before."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def handle(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await tls.receive_some()
        await tls.send_all(b"+OK\r\n" * 4)
        await tls.receive_some()

    port = await serve_raw(nursery, handle)
    assert await _cancel_everywhere(_upstream(port, tls=trusting)) >= 4


async def test_open_stream_that_is_refused_leaves_no_socket(peer: Peer) -> None:
    """An attempt that Redis refuses closes its connection."""
    peer.on("SELECT", b"-ERR DB index is out of range\r\n")
    before = open_sockets()
    with pytest.raises(HandshakeError):
        await _open(_upstream(peer.port), db=3)

    await until(lambda: open_sockets() == before, "no socket is left")
