"""A stop, and the restart of one worker, under the load of real clients: nothing that was asked for is lost."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request

import pytest

from .contract import is_alive
from .load import Kind, load, pushed
from .raw import encode
from .servers import Server, wait_for
from .targets import Respite, running_respite
from .workers import CLIENTS, connected, one_of_each, pids_of, wait_for_new_worker, worker_of, workers_on

LEAVING = [
    Kind("once", batches=1, pause_s=0.03),
    Kind("piped", depth=50, batches=3, pause_s=0.03),
    Kind("thoughtful", pause_s=0.15, is_last=True),
    Kind("restless", pause_s=0.01, is_last=True),  # never quiet: what it sends just when it is let go is not run
]


def _ready(respite: Respite) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{respite.admin_port}/readyz", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_drain_under_load_answers_all_that_was_run(empty: Server, workers: int) -> None:
    """First /readyz says no, and clients still come; then nobody comes, and each is let go between two requests.

    What Redis has is what was acknowledged, once each: no request was run and not answered, no answer was cut.
    """
    settings = {"upstream": {"url": empty.url}, "listen": {"workers": workers, "drain_delay": "500ms"}}
    respite = Respite(settings)
    try:
        respite.wait_until_started()
        with load(respite.address, LEAVING, each=1) as running:
            assert _ready(respite) == 200
            respite.signal(signal.SIGTERM)
            wait_for(lambda: _ready(respite) == 503, what="/readyz to turn")
            assert respite.stats()["doors"] == {"state": "draining"}
            with respite.connect() as late:
                assert is_alive(late)

            assert respite.wait_for_exit(timeout_s=30) == 0
            told = running.stop()
        assert "Traceback" not in respite.errors
        assert (told.errors, told.half) == ([], [])
        assert {one.partition("-")[0] for one in told.unanswered} <= {"restless"}
        assert sorted(pushed(empty)) == sorted(told.acked)
        assert told.refused > 0
    finally:
        respite.discard()


def test_clients_of_a_worker_that_leaves_are_taken_by_another(server: Server) -> None:
    """Who is dealt to the queue of a worker that drains, or has died, waits for no restart; later it has it again."""
    with running_respite(workers_on(server)) as respite, connected(respite.address) as clients:
        blocked, other = one_of_each(clients)
        blocked.send(encode("BLPOP", "covered", "0"))
        wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
        before = pids_of(respite)
        os.kill(before[0], signal.SIGTERM)
        wait_for(lambda: "stopping" in respite.errors, what="the worker to begin to drain")
        with connected(respite.address) as during:
            assert {worker_of(client) for client in during} == {1}

        assert other.command("RPUSH", "covered", "x") == b":1\r\n"
        assert blocked.until_closed() == encode("covered", "x")
        wait_for_new_worker(respite, before, timeout_s=30)
        with connected(respite.address) as after:
            fresh, _ = one_of_each(after)
            # L1 of the worker that stayed hears of what is written by way of the new one.
            assert other.command("SET", "seen", "1") == b"+OK\r\n"
            assert other.command("GET", "seen") == other.command("GET", "seen") == b"$1\r\n1\r\n"
            assert fresh.command("SET", "seen", "2") == b"+OK\r\n"
            wait_for(lambda: other.command("GET", "seen") == b"$1\r\n2\r\n", what="the other's write", timeout_s=2)

        before = pids_of(respite)
        os.kill(before[0], signal.SIGKILL)
        with connected(respite.address) as during:
            assert all(is_alive(client) for client in during)
            assert len(during) == CLIENTS
            assert {worker_of(client) for client in during} == {1}
        assert is_alive(other)


@pytest.mark.long
def test_killed_worker_loses_no_acknowledged_write(empty: Server) -> None:
    """Of a worker that dies only the connections are lost: what was told is there once, what was not once at most."""
    kinds = [Kind("once", batches=1, pause_s=0.01), Kind("piped", depth=20, batches=5, pause_s=0.01)]
    with running_respite(workers_on(empty)) as respite, load(respite.address, kinds, each=1) as running:
        before = pids_of(respite)
        os.kill(before[1], signal.SIGKILL)
        wait_for_new_worker(respite, before, timeout_s=30)
        told = running.stop()

        assert (told.refused, told.errors) == (0, [])
        has = pushed(empty)
        assert len(set(has)) == len(has)
        assert set(told.acked) <= set(has) <= set(told.acked) | set(told.unanswered)
