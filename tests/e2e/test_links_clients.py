"""Ways in for clients, who they are, what one can do to the others: TLS, ACL users, limits, slow readers."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from .contract import NOAUTH, TOO_MANY_CLIENTS, is_alive
from .raw import ClosedError, NoFrameError, RawClient, encode, encode_all
from .servers import Kind, Server, ServerOptions, TlsFiles, free_port, wait_for
from .targets import running_respite

USERS = ["user alice on >pw ~a:* &* +@all -@dangerous", "user bob on >pw ~* &* +@all"]
NOPERM_KEY = b"-NOPERM this user has no permissions to access one of the keys used as arguments\r\n"
MIB = 1024 * 1024
REFUSED_UNTIL_AUTH = (
    "GET k",
    "PING",
    "CLIENT ID",
    "SUBSCRIBE ch",
    "MULTI",
    "NOSUCH",
    "GET",
    "HELLO 3",
    "RESET",
    "SELECT 1",
)


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run one server for all tests here; its default user needs no password."""
    with Server(redis7, ServerOptions(acl=USERS)) as started:
        yield started


def _context(files: TlsFiles, *, with_cert: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.ca)
    if with_cert:
        context.load_cert_chain(files.client_cert, files.client_key)
    return context


def test_client_over_unix_socket_and_several_urls_is_served(server: Server) -> None:
    """Every URL of the list listens: TCP twice and a unix socket."""
    ports = [free_port(), free_port()]
    path = f"{server.directory}/respite.sock"
    urls = [f"redis://127.0.0.1:{ports[0]}", f"unix://{path}", f"redis://127.0.0.1:{ports[1]}"]
    with running_respite({"upstream": {"url": server.url}, "listen": {"url": urls}}):
        for address in (("127.0.0.1", ports[0]), path, ("127.0.0.1", ports[1])):
            with RawClient(address) as client:
                assert is_alive(client)


def test_client_over_tls_is_served(server: Server, tls_files: TlsFiles) -> None:
    """A TLS listener serves clients that trust its authority, big values included; plain bytes get no service."""
    port = free_port()
    listen = {"url": f"rediss://localhost:{port}", "tls": {"cert": str(tls_files.cert), "key": str(tls_files.key)}}
    with running_respite({"upstream": {"url": server.url}, "listen": listen}):
        value = bytes(range(256)) * 20_000
        with RawClient(("localhost", port), tls=_context(tls_files)) as client:
            assert is_alive(client)
            assert client.command("SET", "tls", value) == b"+OK\r\n"
            assert client.command("GET", "tls") == b"$%d\r\n%b\r\n" % (len(value), value)
            client.send(encode_all([("GET", "alive")] * 500))
            assert set(client.frames(500)) == {b"$1\r\nx\r\n"}
        with RawClient(("localhost", port)) as plain:
            plain.send(encode("GET", "tls"))
            assert b"$" not in plain.until_closed()
        app = redis.Redis(host="localhost", port=port, ssl=True, ssl_ca_certs=str(tls_files.ca))
        assert app.get("alive") == b"x"
        app.close()


def test_client_certificate_is_asked_for(server: Server, tls_files: TlsFiles) -> None:
    """With require_client_cert a client without a certificate is refused, one with is served."""
    port = free_port()
    tls = {"cert": str(tls_files.cert), "key": str(tls_files.key), "ca": str(tls_files.ca), "require_client_cert": True}
    listen = {"url": f"rediss://127.0.0.1:{port}", "tls": tls}
    with running_respite({"upstream": {"url": server.url}, "listen": listen}):
        with RawClient(("127.0.0.1", port), tls=_context(tls_files, with_cert=True)) as client:
            assert is_alive(client)
        with pytest.raises((ssl.SSLError, OSError, ClosedError)), _connected(port, tls_files) as client:
            client.command("PING")


def _connected(port: int, files: TlsFiles) -> RawClient:
    return RawClient(("127.0.0.1", port), tls=_context(files))


def test_client_that_never_says_hello_in_tls_harms_nobody(server: Server, tls_files: TlsFiles) -> None:
    """Connections that stop in the middle of a TLS handshake do not hold up others."""
    port = free_port()
    listen = {"url": f"rediss://127.0.0.1:{port}", "tls": {"cert": str(tls_files.cert), "key": str(tls_files.key)}}
    with running_respite({"upstream": {"url": server.url}, "listen": listen}):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for index, opened in enumerate(silent):
            opened.sendall(b"\x16\x03\x01\x02\x00"[: index % 6])
        with RawClient(("127.0.0.1", port), tls=_context(tls_files), timeout_s=3) as client:
            assert is_alive(client)
        for opened in silent:
            opened.close()


def test_acl_user_never_reads_what_redis_refuses(server: Server) -> None:
    """A key that one user has hot in L1 is refused to another exactly as Redis does, before and after any change."""
    with running_respite({"upstream": {"url": server.url}}) as respite, respite.connect() as bob:
        assert bob.command("AUTH", "bob", "pw") == b"+OK\r\n"
        assert bob.command("SET", "b:secret", "x") == b"+OK\r\n"
        assert bob.command("SET", "a:shared", "y") == b"+OK\r\n"
        assert [bob.command("GET", "b:secret") for _ in range(5)] == [b"$1\r\nx\r\n"] * 5
        for protocol in (2, 3):
            with respite.connect() as alice:
                alice.command("HELLO", protocol, "AUTH", "alice", "pw")
                assert [alice.command("GET", "b:secret") for _ in range(3)] == [NOPERM_KEY] * 3
                assert alice.command("MGET", "a:shared", "b:secret") == NOPERM_KEY
                assert [alice.command("GET", "a:shared") for _ in range(3)] == [b"$1\r\ny\r\n"] * 3
                assert alice.command("CONFIG", "GET", "port")[:7] == b"-NOPERM"
                assert alice.command("BLPOP", "b:list", "0.01") == NOPERM_KEY
                assert bob.command("ACL", "SETUSER", "alice", "resetkeys", "~c:*") == b"+OK\r\n"
                assert alice.command("GET", "a:shared") == NOPERM_KEY
                assert bob.command("ACL", "SETUSER", "alice", "~a:*") == b"+OK\r\n"
                assert alice.command("GET", "a:shared") == b"$1\r\ny\r\n"


def test_acl_user_of_a_connection_changes_with_auth_and_reset(server: Server) -> None:
    """AUTH and RESET change who a connection is, for what is hot too; a refused AUTH changes nothing."""
    with running_respite({"upstream": {"url": server.url}}) as respite, respite.connect() as client:
        assert client.command("SET", "b:k", "x") == b"+OK\r\n"
        assert client.command("GET", "b:k") == b"$1\r\nx\r\n"
        assert client.command("AUTH", "alice", "pw") == b"+OK\r\n"
        assert client.command("GET", "b:k") == NOPERM_KEY
        assert client.command("AUTH", "bob", "wrong")[:10] == b"-WRONGPASS"
        assert client.command("GET", "b:k") == NOPERM_KEY
        assert client.command("ACL", "WHOAMI") == b"$5\r\nalice\r\n"
        assert client.command("RESET") == b"+RESET\r\n"
        assert client.command("GET", "b:k") == b"$1\r\nx\r\n"
        assert client.command("ACL", "WHOAMI") == b"$7\r\ndefault\r\n"


def test_client_must_authenticate_where_redis_says_so(redis7: Kind) -> None:
    """Without credentials in the URL a password of Redis is the client's to give; until then nothing is served."""
    with (
        Server(redis7, ServerOptions(password="pw", acl=USERS)) as server,
        running_respite({"upstream": {"url": server.url}}) as respite,
        respite.connect() as client,
        respite.connect() as other,
    ):
        for line in REFUSED_UNTIL_AUTH:
            with RawClient(server.address) as direct:
                assert client.command(*line.split()) == direct.command(*line.split())
        assert client.command("AUTH", "wrong")[:10] == b"-WRONGPASS"
        assert client.command("GET", "k") == NOAUTH
        assert client.command("AUTH", "pw") == b"+OK\r\n"
        assert is_alive(client)
        assert other.command("GET", "alive") == NOAUTH
        assert other.command("HELLO", "2")[:7] == b"-NOAUTH"
        assert other.command("HELLO", "2", "AUTH", "bob", "pw")[:1] == b"*"
        assert other.command("GET", "alive") == b"$1\r\nx\r\n"


def test_listen_users_are_checked_by_respite(server: Server) -> None:
    """With listen.users only these get in, with their passwords; Redis sees the user of the URL."""
    users = [{"name": "app", "password": "one"}, {"name": "default", "password": "two"}]
    url = f"redis://bob:pw@127.0.0.1:{server.port}"
    with (
        running_respite({"upstream": {"url": url}, "listen": {"users": users}}) as respite,
        respite.connect() as client,
        respite.connect() as other,
    ):
        assert client.command("GET", "alive") == NOAUTH
        assert client.command("PING") == NOAUTH
        assert client.command("AUTH", "app", "two")[:10] == b"-WRONGPASS"
        assert client.command("AUTH", "bob", "pw")[:10] == b"-WRONGPASS"
        assert client.command("AUTH", "app", "one") == b"+OK\r\n"
        assert is_alive(client)
        assert client.command("BLPOP", "none", "0.01") == b"*-1\r\n"
        assert other.command("GET", "alive") == NOAUTH
        assert other.command("AUTH", "two") == b"+OK\r\n"
        assert other.command("GET", "alive") == b"$1\r\nx\r\n"
        with respite.connect() as third:
            assert third.command("HELLO", "3", "AUTH", "app", "wrong")[:10] == b"-WRONGPASS"
            assert third.command("HELLO", "3", "AUTH", "app", "one")[:1] == b"%"
            assert third.command("GET", "alive") == b"$1\r\nx\r\n"


def test_max_clients_refuses_one_more_in_redis_words(server: Server) -> None:
    """One client too many reads Redis' error and is closed; a place that becomes free is taken."""
    with running_respite({"upstream": {"url": server.url}, "listen": {"max_clients": 2}}) as respite:
        first, second = respite.connect(), respite.connect()
        assert is_alive(first)
        assert is_alive(second)
        with respite.connect() as third:
            assert third.until_closed() == TOO_MANY_CLIENTS
        assert is_alive(first)
        second.close()
        wait_for(lambda: _is_served(respite.address), what="a free place")
        first.close()


def _is_served(address: tuple[str, int] | str) -> bool:
    with RawClient(address) as client:
        return is_alive(client)


def test_idle_client_is_closed_after_idle_timeout(server: Server) -> None:
    """A client that says nothing for idle_timeout is closed; one that subscribed or blocks is not idle."""
    listen = {"idle_timeout": "1s"}
    with (
        running_respite({"upstream": {"url": server.url}, "listen": listen}) as respite,
        respite.connect() as idle,
        respite.connect() as waiting,
        respite.connect() as busy,
    ):
        waiting.send(encode("SUBSCRIBE", "ch"))
        waiting.frame()
        started = time.monotonic()
        while not idle.is_readable(0.1):
            assert is_alive(busy)
            assert time.monotonic() - started < 5
        assert idle.until_closed() == b""
        assert time.monotonic() - started > 0.9
        assert busy.command("PUBLISH", "ch", "hi") == b":1\r\n"
        assert b"hi" in waiting.frame()


def test_client_that_stops_reading_is_closed_and_harms_nobody(server: Server) -> None:
    """Replies that nobody reads end in a close at output_buffer_limit; memory stays bounded, others are served on."""
    listen = {"output_buffer_limit": "4MiB"}
    with (
        running_respite({"upstream": {"url": server.url}, "listen": listen}) as respite,
        respite.connect() as other,
        respite.connect() as slow,
    ):
        other.command("SET", "chunk", b"v" * 500_000)
        before = respite.rss_bytes
        slow.send(encode_all([("GET", "chunk")] * 400))

        worst = _worst_latency(other, seconds=1.0)
        rest = slow.until_closed(timeout_s=10)

        assert len(rest) < 400 * 500_000
        assert worst < 0.5
        assert respite.peak_rss_bytes - before < 40 * MIB
        assert is_alive(other)


def test_client_that_reads_no_big_reply_holds_up_nobody(server: Server) -> None:
    """One reply of 200 MB to a client that does not read neither blocks the link of the others nor fills memory."""
    listen = {"output_buffer_limit": "8MiB"}
    with (
        running_respite({"upstream": {"url": server.url}, "listen": listen}) as respite,
        respite.connect() as other,
        respite.connect() as slow,
    ):
        assert other.command("SETRANGE", "huge", 200_000_000, "x") == b":200000001\r\n"
        before = respite.rss_bytes
        slow.send(encode("GET", "huge"))

        worst = _worst_latency(other, seconds=1.5)

        assert worst < 5.0  # it is closed after a second; two more have passed on a machine that was short of cores
        assert respite.peak_rss_bytes - before < 60 * MIB
        assert len(slow.until_closed(timeout_s=10)) < 200_000_000
        other.command("DEL", "huge")


def test_subscriber_that_stops_reading_is_closed(server: Server) -> None:
    """Messages for a subscriber that does not read are bounded by output_buffer_limit; the publisher goes on."""
    with (
        running_respite({"upstream": {"url": server.url}, "listen": {"output_buffer_limit": "2MiB"}}) as respite,
        respite.connect() as publisher,
        respite.connect() as slow,
    ):
        slow.command("SUBSCRIBE", "flood")
        before = respite.rss_bytes
        for _ in range(300):
            publisher.command("PUBLISH", "flood", b"m" * 200_000)
        slow.until_closed(timeout_s=10)
        assert publisher.command("PUBLISH", "flood", "nobody") == b":0\r\n"
        assert respite.peak_rss_bytes - before < 40 * MIB


def _worst_latency(client: RawClient, seconds: float) -> float:
    worst = 0.0
    end = time.monotonic() + seconds
    while (started := time.monotonic()) < end:
        assert is_alive(client)
        worst = max(worst, time.monotonic() - started)
    return worst


def test_pipeline_deeper_than_max_pipeline_is_answered_whole(server: Server) -> None:
    """A client is read no further while max_pipeline commands are outstanding, and loses none."""
    with (
        running_respite({"upstream": {"url": server.url}, "listen": {"max_pipeline": 10}}) as respite,
        respite.connect() as client,
    ):
        commands = [("INCR", "deep")] * 5000
        sender = threading.Thread(target=client.send, args=[encode_all(commands)])
        sender.start()
        replies = client.frames(5000)
        sender.join()
        assert replies == [b":%d\r\n" % index for index in range(1, 5001)]


def test_request_beyond_max_bulk_is_refused_in_redis_words(server: Server) -> None:
    """An argument over max_bulk is a protocol error before its memory is taken."""
    with running_respite({"upstream": {"url": server.url}, "listen": {"max_bulk": "1MiB"}}) as respite:
        with respite.connect() as client:
            client.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n")
            assert client.until_closed() == b"-ERR Protocol error: invalid bulk length\r\n"
        with respite.connect() as client:
            assert client.command("SET", "k", b"v" * MIB) == b"+OK\r\n"


def test_garbage_of_many_clients_takes_no_memory_and_harms_nobody(server: Server) -> None:
    """Promises of huge requests are cheap, and a client beside them is served."""
    with running_respite({"upstream": {"url": server.url}}) as respite, respite.connect() as other:
        assert is_alive(other)
        before = respite.rss_bytes
        opened = [respite.connect() for _ in range(50)]
        for client in opened:
            client.send(b"*1000000\r\n$500000000\r\nstart")
        assert is_alive(other)
        for client in opened:
            client.close()
        assert is_alive(other)
        assert respite.peak_rss_bytes - before < 40 * MIB


def test_half_closed_client_gets_its_replies(server: Server) -> None:
    """A client that has shut its sending side down still reads the replies of what it sent, as from Redis."""
    with running_respite({"upstream": {"url": server.url}}) as respite:
        results = []
        for address in (server.address, respite.address):
            with RawClient(address, timeout_s=3) as client:
                client.send(encode_all([("SET", "half", "x"), ("GET", "half")]))
                client.socket.shutdown(socket.SHUT_WR)
                try:
                    results.append(client.until_closed())
                except NoFrameError as error:
                    results.append(error.partial)
        assert results[0] == results[1]
