"""Ways to Redis, and what happens when it goes away: unix socket, TLS, credentials, crash, freeze, lost replies."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator

import pytest

from .contract import LOST, TIMED_OUT, UNAVAILABLE, is_alive, wait_until_alive
from .raw import RawClient, encode, encode_all
from .relay import Relay
from .servers import Kind, Server, ServerOptions, TlsFiles, wait_for
from .targets import Respite, running_respite

ALICE = "user alice on >s3cr%t ~* &* +@all"


@pytest.fixture
def server(redis7: Kind) -> Iterator[Server]:
    """Run a server of its own for each test."""
    with Server(redis7) as started:
        yield started


def _check_service(respite: Respite, server: Server, db: int) -> None:
    """Check data links, pinned links, subscriptions and L1, in the database that the URL names."""
    with respite.connect() as client, respite.connect() as other:
        assert client.command("SET", "k", "v") == b"+OK\r\n"
        assert [client.command("GET", "k") for _ in range(3)] == [b"$1\r\nv\r\n"] * 3
        assert other.command("BLPOP", "none", "0.01") == b"*-1\r\n"
        assert other.command("SUBSCRIBE", "ch").startswith(b"*3\r\n$9\r\nsubscribe")
        assert client.command("PUBLISH", "ch", "hi") == b":1\r\n"
        assert other.frame() == b"*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$2\r\nhi\r\n"
    with server.connect() as direct:
        assert direct.command("SELECT", db) == b"+OK\r\n"
        assert direct.command("GET", "k") == b"$1\r\nv\r\n"


def test_upstream_over_unix_socket_serves(server: Server) -> None:
    """A unix:// URL with a database reaches Redis."""
    with running_respite({"upstream": {"url": f"unix://{server.path}?db=3"}}) as respite:
        _check_service(respite, server, db=3)


def test_upstream_with_user_password_and_database_serves(redis7: Kind) -> None:
    """Credentials and database of the URL are used on every link; clients need none of their own."""
    with Server(redis7, ServerOptions(password="other", acl=[ALICE])) as server:
        url = f"redis://alice:s3cr%25t@127.0.0.1:{server.port}/2"
        with running_respite({"upstream": {"url": url}}) as respite:
            _check_service(respite, server, db=2)
            with respite.connect() as client:
                assert client.command("ACL", "WHOAMI") == b"$5\r\nalice\r\n"
            assert "s3cr" not in respite.output + respite.errors


def test_upstream_with_password_serves(redis7: Kind) -> None:
    """A URL with a password only authenticates as the default user."""
    with (
        Server(redis7, ServerOptions(password="pw")) as server,
        running_respite({"upstream": {"url": f"redis://:pw@127.0.0.1:{server.port}"}}) as respite,
    ):
        _check_service(respite, server, db=0)


@pytest.mark.parametrize("has_client_cert", [False, True])
def test_upstream_over_tls_serves(redis7: Kind, tls_files: TlsFiles, has_client_cert: bool) -> None:
    """A rediss:// URL reaches Redis over TLS, with a client certificate where Redis asks for one."""
    demand = ["tls-auth-clients yes"] if has_client_cert else []
    own = {"cert": str(tls_files.client_cert), "key": str(tls_files.client_key)} if has_client_cert else {}
    with Server(redis7, ServerOptions(tls=tls_files, extra=demand)) as server:
        upstream = {"url": f"rediss://localhost:{server.tls_port}/1", "tls": {"ca": str(tls_files.ca), **own}}
        with running_respite({"upstream": upstream}) as respite:
            _check_service(respite, server, db=1)


def test_upstream_of_unknown_authority_is_refused(redis7: Kind, tls_files: TlsFiles) -> None:
    """A server certificate that nobody vouches for is not talked to."""
    with Server(redis7, ServerOptions(tls=tls_files)) as server:
        with (
            running_respite({"upstream": {"url": f"rediss://localhost:{server.tls_port}"}}) as respite,
            respite.connect() as client,
        ):
            assert client.command("SET", "k", "secret") == UNAVAILABLE
        with server.connect() as direct:
            assert direct.command("EXISTS", "k") == b":0\r\n"


def test_upstream_with_wrong_password_says_what_redis_says(redis7: Kind) -> None:
    """Clients read Redis' own refusal when the URL's password is wrong, or that Redis cannot be reached."""
    with (
        Server(redis7, ServerOptions(password="pw")) as server,
        running_respite({"upstream": {"url": f"redis://:wrong@127.0.0.1:{server.port}"}}) as respite,
        respite.connect() as client,
    ):
        assert client.command("GET", "k")[:10] in (b"-WRONGPASS", UNAVAILABLE[:10])


def test_upstream_absent_at_start_is_found_later(server: Server) -> None:
    """Respite starts without Redis, says so to clients, and serves the same connections once Redis is there."""
    server.kill()
    with running_respite({"upstream": {"url": server.url}}) as respite, respite.connect() as client:
        assert client.command("GET", "k") == UNAVAILABLE
        assert client.command("BLPOP", "k", "1") == UNAVAILABLE

        server.start()

        wait_until_alive(client)


def test_upstream_crash_answers_everyone_and_recovers(server: Server) -> None:
    """A crash answers every waiter with the right words at once; a restart is served on the same connections."""
    with running_respite({"upstream": {"url": server.url}}) as respite:
        writer, reader, blocked, idle = (respite.connect() for _ in range(4))
        assert is_alive(idle)
        assert [idle.command("SET", "hot", "old"), idle.command("GET", "hot")] == [b"+OK\r\n", b"$3\r\nold\r\n"]
        blocked.send(encode("BLPOP", "queue", "0"))
        wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
        server.pause()
        writer.send(encode("SET", "k", "v"))
        reader.send(encode("GET", "cold"))
        # Until both have been sent, and the BLPOP: what was never sent would be answered as unavailable, and rightly.
        wait_for(lambda: sum(link["outstanding"] for link in respite.stats()["links"]) == 3, what="all are sent")

        started = time.monotonic()
        server.kill()

        assert writer.frame() == LOST
        assert reader.frame() == UNAVAILABLE
        assert blocked.frame() == LOST
        wait_for(lambda: idle.command("GET", "hot") == UNAVAILABLE, what="L1 is not served without Redis", timeout_s=3)
        assert idle.command("SET", "k", "v") == UNAVAILABLE
        assert time.monotonic() - started < 3
        server.start()
        for client in (idle, writer, reader, blocked):
            wait_until_alive(client)
        assert idle.command("GET", "hot") == b"$-1\r\n"
        for client in (writer, reader, blocked, idle):
            client.close()


def test_upstream_crash_ends_transactions_and_subscriptions(server: Server) -> None:
    """State that lived on the lost connection does not live on: EXEC is refused or the client is closed."""
    with running_respite({"upstream": {"url": server.url}}) as respite:
        with respite.connect() as client, respite.connect() as subscriber:
            assert client.command("MULTI") == b"+OK\r\n"
            assert client.command("SET", "k", "queued") == b"+QUEUED\r\n"
            subscriber.command("SUBSCRIBE", "ch")

            server.restart()

            client.send(encode("EXEC"))
            assert client.until_closed()[:1] in (b"", b"-")
            assert subscriber.until_closed()[:1] in (b"", b"-")
        with respite.connect() as client:
            wait_until_alive(client)
            assert client.command("GET", "k") == b"$-1\r\n"


def test_upstream_freeze_times_out_and_recovers(server: Server) -> None:
    """No reply within response_timeout ends the wait; a blocking command may wait for longer."""
    with (
        running_respite({"upstream": {"url": server.url, "response_timeout": "300ms"}}) as respite,
        respite.connect() as client,
        respite.connect() as blocked,
        respite.connect() as reader,
    ):
        assert is_alive(client)
        assert blocked.command("BLPOP", "queue", "0.6") == b"*-1\r\n"
        server.pause()
        client.send(encode("INCR", "counter"))
        reader.send(encode("GET", "cold"))

        assert client.frame(timeout_s=3) == TIMED_OUT
        assert reader.frame(timeout_s=3) in (TIMED_OUT, UNAVAILABLE)
        server.resume()
        wait_until_alive(client)

        assert client.command("GET", "counter") == b"$1\r\n1\r\n"


def test_hit_behind_an_unanswered_command_waits_its_turn(server: Server) -> None:
    """What L1 could answer at once is sent after the reply of what the client asked before, not earlier."""
    with running_respite({"upstream": {"url": server.url}}) as respite, respite.connect() as client:
        assert client.command("SET", "hot", "v") == b"+OK\r\n"
        assert [client.command("GET", "hot") for _ in range(3)] == [b"$1\r\nv\r\n"] * 3
        server.pause()
        client.send(encode("STRLEN", "hot"))
        time.sleep(0.05)  # the hit must arrive in a chunk of its own
        client.send(encode("GET", "hot"))
        assert client.is_quiet(0.1)
        client.send(encode("MGET", "hot"))
        assert client.is_quiet(0.1)
        server.resume()
        assert client.frames(3) == [b":1\r\n", b"$1\r\nv\r\n", b"*1\r\n$1\r\nv\r\n"]


def test_write_with_lost_reply_is_never_sent_again(server: Server) -> None:
    """Each of many writes whose reply is cut off is applied once, and its client is told that it may have been."""
    with (
        Relay(server.port) as relay,
        running_respite({"upstream": {"url": relay.url}}) as respite,
        respite.connect() as client,
    ):
        for index in range(1, 16):
            wait_until_alive(client, timeout_s=10)
            relay.cut_after(b"INCR")
            assert client.command("INCR", "counter") == LOST
            wait_for(lambda: relay.cuts == index, what="the cut")  # noqa: B023 (called at once)
        wait_until_alive(client)

        assert client.command("GET", "counter") == b"$2\r\n15\r\n"


def test_pipeline_with_lost_reply_answers_in_order(server: Server) -> None:
    """A pipeline that the link dies under gets one answer a command: those that came, then the error."""
    with (
        Relay(server.port) as relay,
        running_respite({"upstream": {"url": relay.url}}) as respite,
        respite.connect() as client,
    ):
        wait_until_alive(client)
        relay.cut_after(b"marker")
        client.send(encode_all([("SET", "marker", "1"), *[("INCR", "n")] * 50]))

        replies = client.frames(51)

        assert set(replies) == {LOST}
        wait_until_alive(client)
        assert client.command("GET", "n") in (b"$-1\r\n", b"$2\r\n50\r\n")


def test_upstream_reply_of_hundreds_of_megabytes_streams(server: Server) -> None:
    """A reply of 300 MB arrives whole while Respite grows by less than half of it."""
    part = hashlib.sha512(b"seed").digest() * 16_384
    size = len(part) * 300
    with server.connect(timeout_s=60) as direct:
        direct.send(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n" % size)
        for _ in range(300):
            direct.send(part)
        direct.send(b"\r\n")
        assert direct.frame() == b"+OK\r\n"
    with running_respite({"upstream": {"url": server.url}}) as respite, respite.connect(timeout_s=60) as client:
        assert is_alive(client)
        before = respite.rss_bytes
        client.send(encode("GET", "big") + encode("PING"))

        received = hashlib.sha256()
        left = len(b"$%d\r\n" % size) + size + 2
        while left:
            chunk = client.socket.recv(min(left, 1 << 20))
            assert chunk
            received.update(chunk)
            left -= len(chunk)

        expected = hashlib.sha256(b"$%d\r\n" % size)
        for _ in range(300):
            expected.update(part)
        expected.update(b"\r\n")
        assert received.digest() == expected.digest()
        assert client.frame() == b"+PONG\r\n"
        assert respite.peak_rss_bytes - before < 150_000_000


def test_upstream_blocked_client_that_leaves_swallows_nothing(server: Server) -> None:
    """When a blocked client goes away its block on Redis goes too: what is pushed later stays for others."""
    with running_respite({"upstream": {"url": server.url}}) as respite:
        for leave in ("close", "reset"):
            leaver = respite.connect()
            leaver.send(encode("BLPOP", "queue", "0"))
            wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
            if leave == "reset":
                leaver.send(encode("PING") * 3)
            leaver.close()
            wait_for(lambda: server.info("blocked_clients") == "0", what="the end of the block")
            with respite.connect() as client:
                assert client.command("RPUSH", "queue", "job") == b":1\r\n"
                assert client.command("LRANGE", "queue", 0, -1) == b"*1\r\n$3\r\njob\r\n"
                client.command("DEL", "queue")


def test_upstream_state_of_clients_that_leave_is_given_back(server: Server) -> None:
    """Subscriptions, watches and open transactions of clients that left end on Redis too."""
    with running_respite({"upstream": {"url": server.url}}) as respite:
        for index in range(30):
            with respite.connect() as client:
                client.command("WATCH", "k")
                client.command("MULTI")
                client.command("SET", "k", index)
            with respite.connect() as client:
                client.command("SUBSCRIBE", f"ch{index}")

        wait_for(lambda: not server.channels, what="no subscription left")
        with respite.connect() as client:
            assert client.command("GET", "k") == b"$-1\r\n"
            assert client.command("SET", "k", "free") == b"+OK\r\n"
        assert int(server.info("connected_clients")) < 80


def test_upstream_pinned_connections_are_bounded(server: Server) -> None:
    """More blocked clients than pinned_connections wait or are refused; nobody else is held up."""
    with running_respite({"upstream": {"url": server.url, "pinned_connections": 2}}) as respite:
        blocked = [respite.connect() for _ in range(3)]
        try:
            for client in blocked[:2]:
                client.send(encode("BLPOP", "queue", "0"))
            wait_for(lambda: server.info("blocked_clients") == "2", what="two blocked clients")
            blocked[2].send(encode("BLPOP", "queue", "0"))
            with respite.connect() as client:
                assert is_alive(client)
                assert client.command("RPUSH", "queue", "a", "b", "c")[:1] == b":"
            first = [client.frame() for client in blocked[:2]]
            third = blocked[2].frame()
            assert sorted(first) == [b"*2\r\n$5\r\nqueue\r\n$1\r\na\r\n", b"*2\r\n$5\r\nqueue\r\n$1\r\nb\r\n"]
            assert third == b"*2\r\n$5\r\nqueue\r\n$1\r\nc\r\n" or third.startswith(b"-ERR respite: ")
        finally:
            for client in blocked:
                client.close()


def test_upstream_many_databases_stay_apart(redis7: Kind) -> None:
    """Clients on forty databases at once read what is in theirs."""
    with (
        Server(redis7, ServerOptions(databases=64)) as server,
        running_respite({"upstream": {"url": server.url}}) as respite,
    ):
        wrong: list[tuple[int, bytes]] = []

        def work(db: int) -> None:
            with respite.connect() as client:
                client.command("SELECT", db)
                client.command("SET", "k", f"db{db}")
                for _ in range(20):
                    got = client.command("GET", "k")
                    if got != b"$%d\r\ndb%d\r\n" % (len(f"db{db}"), db):
                        wrong.append((db, got))

        threads = [threading.Thread(target=work, args=[db]) for db in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

        assert wrong == []
        with RawClient(respite.address) as client:
            assert client.command("SELECT", 63) == b"+OK\r\n"
            assert client.command("SELECT", 64) == b"-ERR DB index is out of range\r\n"
