"""What protects the others from a client: limits, back-pressure, timeouts; and how clients end."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from proxy import errors
from proxy.config.model import TlsServer
from proxy.core.pipeline import Pipeline
from proxy.net import timers as timers_module
from proxy.net.clients.client import BACKLOG_MAX, RECV_MAX, ClientConnection
from proxy.net.clients.sender import STALL_BYTES
from proxy.net.door import handshakes
from proxy.net.door import listener as listener_module
from proxy.wire.encode import command

from ..e2e.servers import Server
from .conftest import Bugs, Serve
from .driver import Client, Proxy, make_settings, within
from .peer import Peer, until

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"


async def _is_served(client: Client) -> bool:
    return await client.command("PING") == PONG


def _connection(proxy: Proxy, client: Client) -> ClientConnection:
    """Return the worker's side of a client."""
    host, port = client.socket.getsockname()
    return next(one for one in proxy.worker.clients if one.session.address == f"{host}:{port}")


# -- how many ----------------------------------------------------------------------------------------------------------


async def test_max_clients_refuses_one_more_and_takes_the_next_when_one_has_left(peer: Peer, serve: Serve) -> None:
    """One client too many reads Redis' error and is closed; a place that becomes free is taken."""
    proxy = await serve(peer, listen={"max_clients": 3})
    clients = [await proxy.connect() for _ in range(3)]
    assert all([await _is_served(client) for client in clients])

    refused = await proxy.connect()
    assert await refused.until_closed() == errors.TOO_MANY_CLIENTS
    assert proxy.stats()["clients"]["rejected_total"] == 1

    clients.pop().close()
    await until(lambda: proxy.stats()["clients"]["connected"] == 2, "it has left")
    assert await _is_served(await proxy.connect())
    assert all([await _is_served(client) for client in clients])


# -- how much ----------------------------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize(
    "words",
    [("GET", "k"), ("GET", "exactly32byt"), ("INCR", "n"), ("STRLEN", "k"), ("MGET", "k", "k2"), ("CLIENT", "ID")],
)
async def test_pipeline_without_reading_is_bounded_and_answered_whole(
    redis: Server, serve: Serve, words: tuple[str, ...]
) -> None:
    """Of 100,000 commands whose replies nobody reads only so many are taken; once read, all are answered in order."""
    proxy = await serve(redis, listen={"max_pipeline": 1000})
    client, other = await proxy.connect(), await proxy.connect()
    value = b"v" * 400
    assert await client.command("MSET", "k", value, "k2", value, "exactly32byt", value) == OK
    await proxy.settled()
    expected = await client.command(*words)
    connection = _connection(proxy, client)
    most_owed = most_unsent = 0
    count = 100_000

    async def watch() -> None:
        nonlocal most_owed, most_unsent
        while True:
            most_owed = max(most_owed, sum(slot.left for slot in connection.queue), len(connection._backlog))
            most_unsent = max(most_unsent, connection.unsent_bytes)
            await trio.lowlevel.checkpoint()

    sent = trio.Event()

    async def send() -> None:
        await client.stream.send_all(command(*words) * count)
        sent.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        nursery.start_soon(send)
        await until(lambda: connection._backpressed or sent.is_set(), "it is read no further")
        for _ in range(50):
            assert await other.command("GET", "k") == b"$400\r\n%b\r\n" % value
        replies = [b":%d\r\n" % number for number in range(2, count + 2)] if words[0] == "INCR" else [expected] * count
        assert await client.exactly(sum(map(len, replies))) == b"".join(replies)
        nursery.cancel_scope.cancel()

    a_read = RECV_MAX // len(command(*words)) + 1
    assert most_owed <= 1000 + a_read
    assert most_unsent <= STALL_BYTES + 2 * a_read * len(expected)  # the limit is seen after a read, and after the next


async def test_output_buffer_limit_closes_who_does_not_read(peer: Peer, serve: Serve) -> None:
    """More unread replies than output_buffer_limit end the client, count as killed, and cost others nothing."""
    proxy = await serve(peer, listen={"output_buffer_limit_bytes": 1_000_000})
    slow, other = await proxy.connect_narrow(), await proxy.connect()
    assert await other.command("SET", "k", b"v" * 50_000) == OK
    assert await _is_served(other)
    connection = _connection(proxy, slow)

    await slow.send_raw(command("STRLEN", "k") + command("GET", "k") * 400)
    await until(lambda: connection.closed, "the slow client is closed")

    assert await other.command("GET", "k") == b"$50000\r\n" + b"v" * 50_000 + b"\r\n"
    clients = proxy.stats()["clients"]
    assert (clients["killed_total"], clients["killed_unread_total"]) == (1, 1)
    assert proxy.stats()["clients"]["connected"] == 1


async def test_reader_that_stops_in_a_streamed_reply_is_closed_and_others_go_on(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes nothing of a large reply for a while is closed, and the link serves the others again."""
    monkeypatch.setattr(timers_module, "STALL_S", 0.3)
    proxy = await serve(peer)
    other, slow = await proxy.connect(), await proxy.connect_narrow()
    assert await _is_served(other)
    large = b"v" * 40_000_000
    peer.on("SLY", b"$%d\r\n%b\r\n" % (len(large), large))
    await slow.send("SLY", "a", "b")
    connection = _connection(proxy, slow)
    await until(lambda: proxy.worker.stalled, "it holds up its link")
    assert connection.unsent_bytes < STALL_BYTES + 1_000_000
    stalled_at = trio.current_time()

    assert await other.command("INCR", "n") == b":1\r\n"
    await until(lambda: connection.closed, "it is closed")
    assert 0.2 < trio.current_time() - stalled_at < 2

    assert await other.command("INCR", "n") == b":2\r\n"
    assert not proxy.worker.stalled
    await until(lambda: all(row["outstanding"] == 0 for row in proxy.links("data")), "the rest is read and dropped")
    assert len(await slow.until_closed()) < len(large)


@pytest.mark.alone
async def test_reader_that_is_slow_but_reads_is_not_closed(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that takes a large reply in small sips for longer than the stall limit gets all of it."""
    monkeypatch.setattr(timers_module, "STALL_S", 0.3)
    proxy = await serve(peer)
    slow = await proxy.connect_narrow()
    assert await _is_served(slow)
    large = b"v" * 20_000_000
    peer.on("SLY", b"$%d\r\n%b\r\n" % (len(large), large))
    await slow.send("SLY", "a", "b")
    await until(lambda: proxy.worker.stalled, "it holds up its link")
    began = trio.current_time()
    received = 0
    while received < len(large) + 13:
        data = await within(slow.stream.receive_some(200_000), "more")
        assert data
        received += len(data)
        if trio.current_time() - began < 1.0:
            await trio.sleep(0.02)

    assert received == len(b"$20000000\r\n\r\n") + len(large)
    assert await _is_served(slow)


async def test_backlog_of_a_waiting_client_is_bounded(redis: Server, serve: Serve) -> None:
    """A client that sends on behind its own BLPOP is read no further after a while, and answered in the end."""
    proxy = await serve(redis)
    client, other = await proxy.connect(), await proxy.connect()
    await client.send("BLPOP", "q", "0")
    await until(lambda: redis.info("blocked_clients") == "1", "it is blocked")
    connection = _connection(proxy, client)
    count = 100_000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.stream.send_all, command("PING") * count)
        await until(lambda: connection._backpressed, "it is read no further")
        assert len(connection._backlog) <= BACKLOG_MAX + RECV_MAX // len(command("PING")) + 1
        assert await other.command("RPUSH", "q", "x") == b":1\r\n"

        assert await client.frame() == b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"
        assert await client.exactly(len(PONG) * count) == PONG * count


# -- how long ----------------------------------------------------------------------------------------------------------


async def test_idle_timeout_closes_the_silent_and_nobody_else(redis: Server, serve: Serve) -> None:
    """Silent for idle_timeout is closed; reading from L1, waiting for an event or being in a MULTI is not idle."""
    proxy = await serve(redis, listen={"idle_timeout_s": 0.5})
    idle, reader, blocked, subscriber, queuing = [await proxy.connect() for _ in range(5)]
    assert await reader.command("SET", "k", "v") == OK
    await proxy.settled()
    await blocked.send("BLPOP", "q", "0")
    await subscriber.command("SUBSCRIBE", "ch")
    assert await queuing.command("MULTI") == OK
    began = trio.current_time()
    assert await _is_served(idle)
    hits = proxy.stats()["l1"]["hits_total"]

    ended_at = 0.0
    while trio.current_time() - began < 1.3:
        assert await reader.command("GET", "k") == b"$1\r\nv\r\n"
        await trio.sleep(0.01)
        if not ended_at and proxy.stats()["clients"]["connected"] == 4:
            ended_at = trio.current_time()

    assert await idle.until_closed() == b""
    assert 0.45 < ended_at - began < 1.2
    assert proxy.stats()["l1"]["hits_total"] - hits > 20
    assert await reader.command("RPUSH", "q", "x") == b":1\r\n"
    assert await blocked.frame() == b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n"
    assert await reader.command("PUBLISH", "ch", "hi") == b":1\r\n"
    assert (await subscriber.frame()).endswith(b"$2\r\nhi\r\n")
    assert await queuing.command("EXEC") == b"*0\r\n"


# -- how clients end ---------------------------------------------------------------------------------------------------


async def test_client_that_blocks_then_sends_garbage_and_leaves_is_let_go(redis: Server, serve: Serve) -> None:
    """An error to be told after the block does not hide that nobody is there any more."""
    proxy = await serve(redis)
    client = await proxy.connect()
    assert await client.command("BLPOP", "warm", "0.01") == b"*-1\r\n"
    await client.send_raw(command("BLPOP", "q", "0") + b"*1\r\n+OK\r\n")
    await until(lambda: any(link.patient for link in proxy.worker.pool.links), "it blocks")
    client.close()

    await until(lambda: not proxy.worker.clients, "it is gone")


async def test_client_that_closes_its_sending_side_gets_its_answers(redis: Server, serve: Serve) -> None:
    """`printf .. | nc` works: what was asked before the end is answered, then the connection closed."""
    proxy = await serve(redis)
    client = await proxy.connect()
    await client.send_raw(b"".join(command(*words) for words in (("INCR", "n"), ("MULTI",), ("INCR", "n"), ("EXEC",))))
    assert isinstance(client.stream, trio.SocketStream)
    await client.stream.send_eof()

    assert await client.until_closed() == b":1\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n"
    assert proxy.stats()["clients"]["connected"] == 0


async def test_client_that_closes_its_sending_side_behind_a_wait_gets_its_answers(redis: Server, serve: Serve) -> None:
    """WAIT blocks, but takes nothing that somebody else would miss."""
    proxy = await serve(redis)
    client = await proxy.connect()
    await client.send_raw(b"".join(command(*words) for words in (("INCR", "n"), ("WAIT", "0", "0"), ("INCR", "n"))))
    assert isinstance(client.stream, trio.SocketStream)
    await client.stream.send_eof()

    assert await client.until_closed() == b":1\r\n:0\r\n:2\r\n"


@pytest.mark.parametrize("how", ["close", "eof", "reset"])
@pytest.mark.parametrize("when", ["at once", "blocked"])
async def test_client_gone_while_blocked_swallows_nothing(redis: Server, serve: Serve, how: str, when: str) -> None:
    """A blocked client that leaves, even before its command has reached Redis, takes nothing that comes later."""
    proxy = await serve(redis)
    other = await proxy.connect()
    assert await _is_served(other)
    for _ in range(5):
        client = await proxy.connect()
        await client.send("BLPOP", "q", "0")
        if when == "blocked":
            await until(lambda: redis.info("blocked_clients") == "1", "it is blocked")
        if how == "eof":
            assert isinstance(client.stream, trio.SocketStream)
            await client.stream.send_eof()
            assert await client.until_closed() == b""
        else:
            if how == "reset":
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        await until(lambda: proxy.stats()["clients"]["connected"] == 1, "it is forgotten")
        await until(lambda: redis.info("blocked_clients") == "0", "nobody is blocked")

        assert await other.command("RPUSH", "q", "job") == b":1\r\n"
        assert await other.command("LPOP", "q") == b"$3\r\njob\r\n"


async def test_protocol_error_closes_only_its_client(peer: Peer, serve: Serve) -> None:
    """Garbage is answered in Redis' words after what was asked before, and the connection closed."""
    proxy = await serve(peer)
    wrong, other = await proxy.connect(), await proxy.connect()
    await wrong.send_raw(command("INCR", "n") + b"*1\r\n+PING\r\n" + command("INCR", "n"))

    assert await wrong.until_closed() == b":1\r\n-ERR Protocol error: expected '$', got '+'\r\n"
    assert await other.command("INCR", "n") == b":2\r\n"
    assert proxy.worker.stats.protocol_errors == 1


@pytest.mark.parametrize("parked", [False, True])
async def test_exception_in_a_command_closes_only_its_client(
    redis: Server, serve: Serve, bugs: Bugs, monkeypatch: pytest.MonkeyPatch, parked: bool
) -> None:
    """A bug of ours that one client's command reaches ends that client; it is logged, and others are served."""
    usual = Pipeline.run

    def run(self: Pipeline, client: Any, requests: Any) -> None:
        if requests[0][0][0] == b"BOOM":
            raise RuntimeError("planted")
        usual(self, client, requests)

    monkeypatch.setattr(Pipeline, "run", run)
    proxy = await serve(redis)
    unlucky, other = await proxy.connect(), await proxy.connect()
    assert await _is_served(unlucky)
    before = command("BLPOP", "q", "0.05") if parked else b""
    await unlucky.send_raw(before + command("BOOM"))

    assert await unlucky.until_closed() in (b"", b"*-1\r\n")
    assert await _is_served(other)
    assert len(bugs.seen) == 1
    assert "planted" in bugs.seen.pop()
    assert proxy.stats()["clients"]["connected"] == 1


# -- TLS and unix sockets ----------------------------------------------------------------------------------------------


async def test_tls_handshake_that_does_not_end_is_given_up(
    peer: Peer, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who connects to a TLS port and says nothing, or no TLS, is closed; others are served meanwhile."""
    monkeypatch.setattr(handshakes, "TLS_HANDSHAKE_S", 0.4)
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(key)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    tls = TlsServer(str(cert), str(key), ca="", require_client_cert=False, min_version="1.2")
    proxy = await serve(peer, make_settings("rediss://127.0.0.1:0", listen={"tls": tls}))
    first = await proxy.connect_tls(context)
    assert await _is_served(first)
    silent = [await proxy.connect() for _ in range(2)]
    plain = await proxy.connect()
    await plain.send("PING")

    waiting = await proxy.connect_tls(context)
    assert await _is_served(waiting)
    assert await _is_served(first)
    assert [await one.until_closed() for one in silent] == [b"", b""]
    assert PONG not in await plain.until_closed()
    assert proxy.stats()["clients"]["connected"] == 2


async def test_unix_socket_left_by_a_dead_process_is_taken_over(peer: Peer, serve: Serve, tmp_path: Path) -> None:
    """A stale socket file is replaced; one that somebody listens on, or another file, is not; it goes with us."""
    path = tmp_path / "respite.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    proxy = await serve(peer, make_settings(f"unix://{path}"))
    client = Client(await trio.open_unix_socket(path))
    assert await _is_served(client)

    with pytest.raises(errors.ListenError, match="in use"):
        listener_module.bind(proxy.worker.listeners[0].endpoint)
    assert await _is_served(client)
    client.close()
    await proxy.stop()
    assert not path.exists()

    path.write_text("precious")
    with pytest.raises(errors.ListenError):
        listener_module.bind(proxy.worker.listeners[0].endpoint)
    assert path.read_text() == "precious"
