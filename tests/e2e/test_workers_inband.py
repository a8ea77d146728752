"""Several workers, asked in band: what a client asks about the proxy is about all workers, wherever it is connected."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from .contract import is_alive
from .raw import RawClient, encode
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite
from .workers import CLIENTS, client_id, connected, one_of_each, workers_on


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run one Redis for all tests here."""
    with Server(redis7) as started:
        yield started


@pytest.fixture(scope="module")
def respite(server: Server) -> Iterator[Respite]:
    """Run one proxy of two workers."""
    with running_respite(workers_on(server)) as started:
        yield started


def _text(reply: bytes) -> str:
    assert reply[:1] == b"$", reply
    return reply.partition(b"\r\n")[2].removesuffix(b"\r\n").decode()


def _json(client: RawClient, *words: str) -> Any:
    return json.loads(_text(client.command("RESPITE", *words)))


def _ids(lines: str) -> list[int]:
    return [int(line.split()[0].removeprefix("id=")) for line in lines.splitlines()]


def test_stats_in_band_are_of_all_workers(respite: Respite) -> None:
    """STATS, INFO and LINKS say the same to a client of either worker as the admin port says."""
    with connected(respite.address) as clients:
        for client in one_of_each(clients):
            stats = _json(client, "STATS")
            assert stats["clients"]["connected"] == CLIENTS
            assert [row["index"] for row in stats["workers"]] == [0, 1]
            assert f"connected:{CLIENTS}\r\n" in _text(client.command("RESPITE", "INFO", "clients"))
            assert f"connected:{CLIENTS}\r\n" in _text(client.command("RESPITE", "INFO"))
            links = _text(client.command("RESPITE", "LINKS")).splitlines()
            assert {line.rpartition(" ")[2] for line in links} == {"worker=0", "worker=1"}


def test_clients_are_listed_of_all_workers_in_order(respite: Respite) -> None:
    """CLIENT LIST, with filters too, and RESPITE CLIENTS name each session of the host once."""
    with connected(respite.address) as clients:
        ids = sorted(client_id(client) for client in clients)
        one, other = one_of_each(clients)
        assert one.command("CLIENT", "SETNAME", "me") == b"+OK\r\n"

        for client in (one, other):
            assert _ids(_text(client.command("CLIENT", "LIST"))) == ids
            assert _ids(_text(client.command("RESPITE", "CLIENTS"))) == ids
            assert " name=me " in _text(client.command("CLIENT", "LIST", "ID", client_id(one)))


def test_client_kill_reaches_every_worker(respite: Respite) -> None:
    """By id, by address, and by filter, sessions of the other worker end too and are counted."""
    with connected(respite.address) as clients:
        one, other = one_of_each(clients)
        victim = next(c for c in clients if c is not other and client_id(c) % 2 == client_id(other) % 2)
        assert one.command("CLIENT", "KILL", "ID", client_id(victim)) == b":1\r\n"
        assert victim.until_closed() == b""

        host, port = other.socket.getsockname()
        assert one.command("CLIENT", "KILL", f"{host}:{port}") == b"+OK\r\n"
        assert other.until_closed() == b""
        assert one.command("CLIENT", "KILL", f"{host}:{port}") == b"-ERR No such client\r\n"

        assert one.command("CLIENT", "KILL", "TYPE", "normal") == b":%d\r\n" % (CLIENTS - 3)
        assert is_alive(one)
        left = [client for client in clients if client not in (one, other, victim)]
        assert all(client.until_closed() == b"" for client in left)
        assert one.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no") == b":1\r\n"
        assert one.until_closed() == b""


def test_l1_clear_empties_every_worker(respite: Respite) -> None:
    """What both workers hold goes, and is counted; EXPLAIN names the worker that holds a copy."""
    with connected(respite.address) as clients:
        one, other = one_of_each(clients)
        assert one.command("SET", "cleared", "x") == b"+OK\r\n"
        for client in (one, other):
            for _ in range(4):
                assert client.command("GET", "cleared") == b"$1\r\nx\r\n"
        held = _json(one, "EXPLAIN", "cleared")["l1"]
        assert {row["worker"] for row in held} == {0, 1}

        cleared = other.command("RESPITE", "L1", "CLEAR")
        assert int(cleared[1:]) >= 2
        assert _json(one, "EXPLAIN", "cleared")["l1"] == []


def test_answers_from_the_host_keep_their_place(respite: Respite) -> None:
    """In a pipeline the reply that takes a turn through the other process stands where it was asked for."""
    with respite.connect() as client:
        client.send(
            encode("SET", "place", "1")
            + encode("RESPITE", "STATS")
            + encode("INCR", "place")
            + encode("CLIENT", "LIST")
            + encode("GET", "place")
        )
        ok, stats, incremented, listed, got = client.frames(5)

        assert (ok, incremented, got) == (b"+OK\r\n", b":2\r\n", b"$1\r\n2\r\n")
        assert '"workers"' in _text(stats)
        assert _ids(_text(listed)) == [client_id(client)]


def test_unblock_reaches_a_client_of_another_worker(respite: Respite, server: Server) -> None:
    """CLIENT UNBLOCK names a client by its id, wherever it is."""
    with connected(respite.address) as clients:
        for blocked, asking in (one_of_each(clients), one_of_each(clients)[::-1]):
            number = client_id(blocked)
            blocked.send(encode("BLPOP", "never", "0"))
            wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")

            assert asking.command("CLIENT", "UNBLOCK", number) == b":1\r\n"
            assert blocked.frame() == b"*-1\r\n"
            assert asking.command("CLIENT", "UNBLOCK", number) == b":0\r\n"
            assert asking.command("CLIENT", "UNBLOCK", 999_999) == b":0\r\n"
            assert is_alive(asking)
        assert not [link for link in respite.stats()["links"] if link["state"] == "held"]


def test_tracking_redirects_to_a_client_of_another_worker(respite: Respite) -> None:
    """Client-side caching on two connections works though they ended up in different workers."""
    with connected(respite.address) as clients:
        listener, tracker = one_of_each(clients)
        number = client_id(listener)
        listener.command("SUBSCRIBE", "__redis__:invalidate")
        assert tracker.command("CLIENT", "TRACKING", "ON", "REDIRECT", 999_999).startswith(b"-ERR The client ID")
        assert tracker.command("CLIENT", "TRACKING", "ON", "REDIRECT", number) == b"+OK\r\n"
        tracker.command("GET", "tracked")
        clients[0].command("SET", "tracked", "x")  # neither of the two, which come last

        assert listener.frame() == b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$7\r\ntracked\r\n"


@pytest.mark.parametrize("in_multi", [False, True])
def test_swapdb_through_one_worker_reaches_l1_of_the_other(server: Server, respite: Respite, *, in_multi: bool) -> None:
    """Redis announces it to nobody: the worker that sent it tells the others."""
    with connected(respite.address) as clients, server.connect() as stranger:
        swapping, reading = one_of_each(clients)
        for db in (1, 0):
            stranger.command("SELECT", db)
            stranger.command("SET", "swapped", db)
        before = [reading.command("GET", "swapped") for _ in range(3)]
        if in_multi:
            swapping.command("MULTI")
        swapping.command("SWAPDB", 0, 1)
        if in_multi:
            swapping.command("EXEC")
        wait_for(lambda: reading.command("GET", "swapped") == b"$1\r\n1\r\n", what="the other worker has heard of it")

    assert before == [b"$1\r\n0\r\n"] * 3


def test_host_that_does_not_answer_is_an_error_for_the_asker_only(respite: Respite) -> None:
    """Without the parent's answer a client reads an error after a while, and its worker serves the others."""
    with respite.connect() as asking, respite.connect() as other:
        assert is_alive(other)
        respite.signal(signal.SIGSTOP)
        try:
            asking.send(encode("RESPITE", "STATS"))
            assert is_alive(other)
            assert asking.frame(timeout_s=20) == b"-ERR respite: the other workers do not answer\r\n"
            assert is_alive(asking)
        finally:
            respite.signal(signal.SIGCONT)
