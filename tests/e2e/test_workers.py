"""Several workers behind one address: real clients see one proxy, whichever worker they are at."""

from __future__ import annotations

import os
import re
import signal
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from .contract import TOO_MANY_CLIENTS, is_alive
from .raw import encode
from .servers import Kind, Server, TlsFiles, wait_for
from .targets import Respite, running_respite
from .workers import (
    CLIENTS,
    WORKERS,
    children_of,
    client_id,
    comes_back,
    connected,
    metric,
    one_of_each,
    pids_of,
    rows_of,
    workers_on,
)


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run one Redis for all tests here."""
    with Server(redis7) as started:
        yield started


@pytest.fixture(scope="module")
def respite(server: Server) -> Iterator[Respite]:
    """Run one proxy of two workers, for tests that leave it as it was."""
    with running_respite(workers_on(server)) as started:
        yield started


def test_workers_share_the_clients_of_one_port(respite: Respite) -> None:
    """Connections are dealt to all workers, each client is counted once, and no two have the same id."""
    with connected(respite.address) as clients:
        ids = [client_id(client) for client in clients]
        stats = respite.stats()
        rows = stats["workers"]

        assert len(set(ids)) == CLIENTS
        assert {(number - 1) % WORKERS for number in ids} == {0, 1}
        assert [row["clients"] for row in rows] == [
            sum((number - 1) % WORKERS == index for number in ids) for index in range(WORKERS)
        ]
        assert stats["clients"]["connected"] == CLIENTS
        assert sorted(children_of(respite.process.pid)) == sorted(row["pid"] for row in rows)


def test_workers_figures_add_up(server: Server, redis7: Kind) -> None:
    """A counter of the whole is what all clients did together, in JSON and for Prometheus; the hit rate is of all."""
    with running_respite(workers_on(server)) as respite, connected(respite.address) as clients:
        one_of_each(clients)
        for number, client in enumerate(clients):
            assert client.command("SET", f"sum:{number}", "x") == b"+OK\r\n"
            for _ in range(5):
                assert client.command("GET", f"sum:{number}") == b"$1\r\nx\r\n"
        stats = respite.stats()
        l1 = stats["l1"]

        assert stats["commands"]["total"] == CLIENTS * 7
        assert metric(respite, "respite_commands_total") == CLIENTS * 7
        assert stats["clients"]["accepted_total"] == CLIENTS
        assert l1["hits_total"] + l1["misses_total"] == CLIENTS * 5
        assert 0 < l1["hit_rate"] == round(l1["hits_total"] / (CLIENTS * 5), 6)
        assert l1["max_bytes"] == 64 * 1024 * 1024
        # The proxy asks Redis a little for itself, between these two.
        assert 0 < stats["latency"]["count"] <= metric(respite, "respite_upstream_latency_seconds_count")
        assert {link["worker"] for link in stats["links"]} == {0, 1}
        gets = next(row for row in stats["commands_by_name"] if row["name"] == "GET")
        assert gets["hits_total"] + gets["misses_total"] == gets["commands_total"] == CLIENTS * 5
        assert gets["hit_rate"] == l1["hit_rate"]
        assert (stats["waited"]["count"], next(iter(stats["classes"]))["name"]) == (CLIENTS * 7, "(none)")
        assert metric(respite, "respite_latency_seconds_count") == CLIENTS * 7
        assert (metric(respite, "respite_workers"), metric(respite, "respite_worker_restarts_total")) == (2, 0)


def test_workers_read_own_writes_on_one_connection(respite: Respite) -> None:
    """Strictly: who was told that a write succeeded reads it, whatever other workers hold."""
    with connected(respite.address, count=6) as clients:
        for round_ in range(200):
            for number, client in enumerate(clients):
                value = f"{round_}-{number}"
                assert client.command("SET", "own", value) == b"+OK\r\n"
                # Others write it too, but not between these two: one client at a time.
                assert client.command("GET", "own").split(b"\r\n")[1] == value.encode()
                assert clients[number - 1].command("GET", "own") != b"$-1\r\n"


def test_workers_read_foreign_writes_within_the_invalidation_delay(respite: Respite) -> None:
    """A reader of another worker sees a write soon after, though it had the old value in L1, and never goes back."""
    with connected(respite.address) as clients:
        writer, reader = one_of_each(clients)
        hits = respite.stats()["l1"]["hits_total"]
        slowest_s = 0.0
        for number in range(200):
            new = b"$%d\r\n%d\r\n" % (len(str(number)), number)
            assert writer.command("SET", "foreign", number) == b"+OK\r\n"
            told_at = time.monotonic()
            while reader.command("GET", "foreign") != new:
                assert time.monotonic() - told_at < 2.0, number  # l1.max_staleness
            slowest_s = max(slowest_s, time.monotonic() - told_at)
            for _ in range(3):
                assert reader.command("GET", "foreign") == new

        assert respite.stats()["l1"]["hits_total"] - hits > 200, "the reader was not served from L1"
        assert slowest_s < 2.0


def test_workers_serve_redis_py(respite: Respite) -> None:
    """A real client with a pool whose connections end up at different workers sees one Redis."""
    pool = redis.ConnectionPool(port=respite.port, decode_responses=True)
    with ExitStack() as stack:
        many = [stack.enter_context(redis.Redis(connection_pool=pool).client()) for _ in range(CLIENTS)]
        assert {(int(client.client_id()) - 1) % WORKERS for client in many} == {0, 1}
        for number, client in enumerate(many):
            assert client.incr("counted") == number + 1
        with many[0].pipeline(transaction=True) as pipe:
            pipe.set("py", "1").incr("py").get("py")
            assert pipe.execute() == [True, 2, "2"]
        listening = many[1].pubsub()
        listening.subscribe("news")
        assert listening.get_message(timeout=5)["type"] == "subscribe"
        assert sum(client.publish("news", "x") for client in many[2:]) == CLIENTS - 2
        assert listening.get_message(timeout=5)["data"] == "x"
        listening.close()
        many[0].delete("counted")
    pool.disconnect()


def test_workers_serve_a_unix_socket(server: Server, tmp_path: Path) -> None:
    """The socket is opened once and served by all; when the proxy has left, so has its file."""
    path = tmp_path / "respite.sock"
    with running_respite(workers_on(server, url=f"unix://{path}")) as respite:
        assert f"listening on unix://{path}," in respite.output
        with connected(str(path)) as clients:
            assert all(is_alive(client) for client in clients)
            assert len({client_id(client) for client in clients}) == CLIENTS
            assert sum(row["clients"] for row in rows_of(respite)) == CLIENTS
        os.kill(pids_of(respite)[0], signal.SIGKILL)
        for _ in range(20):  # the socket is always there: another worker, or the next one, accepts from it
            wait_for(lambda: comes_back(str(path)), what="a new connection", timeout_s=2)
    assert not path.exists()


def test_workers_serve_tls(server: Server, tls_files: TlsFiles) -> None:
    """Each worker does its own handshakes on the shared port."""
    settings = workers_on(
        server, tls={"cert": str(tls_files.cert), "key": str(tls_files.key)}, url="rediss://127.0.0.1:0"
    )
    context = ssl.create_default_context(cafile=str(tls_files.ca))
    with running_respite(settings) as respite:
        found = re.search(r"listening on rediss://127\.0\.0\.1:(\d+),", respite.output)
        assert found
        with connected(("127.0.0.1", int(found[1])), context) as clients:
            one_of_each(clients)
            assert all(is_alive(client) for client in clients)


def test_workers_take_a_free_port(server: Server) -> None:
    """Port 0 is chosen once: the start line, one line, names the port that all workers serve."""
    with running_respite(workers_on(server, url="redis://127.0.0.1:0", admin="")) as respite:
        (line,) = respite.output.splitlines()
        found = re.fullmatch(
            rf"respite listening on redis://127\.0\.0\.1:(\d+), admin none, upstream {server.url}", line
        )
        assert found, line
        assert int(found[1]) != 0
        with connected(("127.0.0.1", int(found[1]))) as clients:
            one_of_each(clients)


def test_workers_share_the_limit_of_clients(server: Server) -> None:
    """max_clients is for all workers together, each of which refuses what is above its share."""
    with running_respite(workers_on(server, max_clients=4)) as respite, connected(respite.address) as clients:
        served = 0
        for client in clients:
            client.send(encode("PING"))
            served += client.until_closed() == TOO_MANY_CLIENTS if client.frame() != b"+PONG\r\n" else 1

        stats = respite.stats()
        assert [row["clients"] for row in stats["workers"]] == [2, 2]
        assert stats["clients"]["rejected_total"] == CLIENTS - 4
