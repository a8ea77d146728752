"""Several workers from start to end: what dies is replaced, a reload reaches all, nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from .contract import TOO_MANY_CLIENTS, is_alive
from .raw import RawClient, encode
from .servers import Kind, Server, wait_for
from .targets import Respite, running_respite
from .workers import (
    WORKERS,
    children_of,
    client_id,
    comes_back,
    connected,
    is_gone,
    metric,
    one_of_each,
    pids_of,
    post,
    rows_of,
    wait_for_new_worker,
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


# -- a worker dies -----------------------------------------------------------------------------------------------------


def test_killed_worker_is_replaced_and_others_are_unharmed(server: Server) -> None:
    """Its clients are cut off and can come back at once, those of the other notice nothing, a new one serves in 5 s."""
    with running_respite(workers_on(server)) as respite, connected(respite.address) as clients:
        mine, other = one_of_each(clients)
        # Known to the parent from now on: a counter must not go back when the one who counted is gone.
        total = respite.stats()["commands"]["total"]
        ids = {client_id(client) for client in clients}
        pids = pids_of(respite)
        os.kill(pids[0], signal.SIGKILL)
        killed_at = time.monotonic()

        assert mine.until_closed() == b""
        assert is_alive(other)
        wait_for(lambda: comes_back(respite.address), what="a new connection", timeout_s=2)
        wait_for_new_worker(respite, pids)
        assert time.monotonic() - killed_at < 5

        assert is_alive(other)
        assert pids[1] in pids_of(respite)
        assert [row["restarts"] for row in rows_of(respite)] == [1, 0]
        assert metric(respite, "respite_worker_restarts_total") == 1
        assert respite.stats()["commands"]["total"] >= total
        assert "worker ended" in respite.errors
        assert "SIGKILL" in respite.errors
        with connected(respite.address) as new:
            one_of_each(new)
            assert not {client_id(client) for client in new} & ids, "an id was given twice"


def test_killed_worker_takes_no_client_of_redis_py_down(server: Server) -> None:
    """A client that retries on a new connection goes through the death of its worker."""
    retry = redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), 60)
    with running_respite(workers_on(server)) as respite:
        clients = [redis.Redis(port=respite.port, retry=retry) for _ in range(12)]
        try:
            for client in clients:
                client.set("r", "1")
            pids = pids_of(respite)
            os.kill(pids[1], signal.SIGKILL)

            assert [client.get("r") for client in clients] == [b"1"] * 12
            wait_for_new_worker(respite, pids)
        finally:
            for client in clients:
                client.close()


def test_terminated_worker_finishes_and_is_replaced(server: Server) -> None:
    """SIGTERM to one worker drains it: a client that waits for something gets it, and another worker starts."""
    with running_respite(workers_on(server)) as respite, connected(respite.address) as clients:
        blocked, other = one_of_each(clients)
        blocked.send(encode("BLPOP", "drained", "0"))
        wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
        pids = pids_of(respite)
        os.kill(pids[0], signal.SIGTERM)

        assert other.command("RPUSH", "drained", "x") == b":1\r\n"
        assert blocked.until_closed() == b"*2\r\n$7\r\ndrained\r\n$1\r\nx\r\n"
        wait_for_new_worker(respite, pids)


def test_stopped_worker_is_shown_silent_and_holds_nobody_up(server: Server) -> None:
    """A worker that hangs is named in the figures, which come all the same, its counters included."""
    with running_respite(workers_on(server)) as respite, connected(respite.address) as clients:
        one_of_each(clients)
        before = respite.stats()
        pid = before["workers"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            stats = respite.stats()
        finally:
            os.kill(pid, signal.SIGCONT)

        assert [row["state"] for row in stats["workers"]] == ["silent", "serving"]
        assert stats["commands"]["total"] == before["commands"]["total"]
        wait_for(lambda: rows_of(respite)[0]["state"] == "serving", what="the worker's answer")


# -- reload, drain, end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_signal", [True, pytest.param(False, marks=pytest.mark.long)])
def test_reload_applies_in_every_worker(server: Server, by_signal: bool) -> None:
    """One reload changes all workers, drops no client, and answers once; a worker started later has it too."""
    with running_respite(workers_on(server)) as respite, connected(respite.address) as clients:
        respite.settings["l1"] = {"max_bytes": "10MiB"}
        respite.settings["listen"]["max_clients"] = 4
        respite.write_config()
        if by_signal:
            respite.signal(signal.SIGHUP)
            wait_for(lambda: "reloaded" in respite.errors, what="the reload")
        else:
            assert post(respite, "/reload") == (
                200,
                {"applied": ["listen.max_clients", "l1.max_bytes"], "needs_restart": [], "problems": []},
            )

        assert respite.stats()["l1"]["max_bytes"] == 10 * 1024 * 1024
        assert all(is_alive(client) for client in clients)
        with connected(respite.address) as more:  # both workers are above their share now
            assert {client.until_closed() for client in more} == {TOO_MANY_CLIENTS}
        pids = pids_of(respite)
        os.kill(pids[0], signal.SIGKILL)
        wait_for_new_worker(respite, pids)
        assert respite.stats()["l1"]["max_bytes"] == 10 * 1024 * 1024
        assert respite.errors.count("reloaded") == 1


def test_reload_of_a_wrong_file_changes_nothing(server: Server) -> None:
    """The problems are told, as with one worker, and what needs a restart is named."""
    with running_respite(workers_on(server)) as respite:
        respite.settings["l1"] = {"max_bytes": "many"}
        respite.write_config()
        status, answer = post(respite, "/reload")
        assert (status, answer["applied"], len(answer["problems"])) == (422, [], 1)

        respite.settings["l1"] = {"max_bytes": "8MiB"}
        respite.settings["listen"]["workers"] = 3
        respite.write_config()
        assert post(respite, "/reload") == (
            200,
            {"applied": ["l1.max_bytes"], "needs_restart": ["listen.workers"], "problems": []},
        )
        assert len(rows_of(respite)) == WORKERS


@pytest.mark.parametrize("by_signal", [pytest.param(True, marks=pytest.mark.long), False])
def test_drain_finishes_what_runs_in_every_worker(server: Server, by_signal: bool) -> None:
    """Idle clients are let go, blocked ones of all workers get their reply, nobody is accepted; exit code 0."""
    respite = Respite(workers_on(server))
    try:
        respite.wait_until_started()
        with connected(respite.address) as clients, server.connect() as direct:
            blocked = one_of_each(clients)
            for client in blocked:
                client.send(encode("BLPOP", f"last:{_number(client, clients)}", "0"))
            wait_for(lambda: server.info("blocked_clients") == "2", what="the blocked clients")
            if by_signal:
                respite.signal(signal.SIGTERM)
            else:
                assert post(respite, "/drain") == (202, {"draining": True})

            assert all(client.until_closed(timeout_s=5) == b"" for client in clients if client not in blocked)
            wait_for(lambda: _is_refused(respite.address), what="an end of accepting")
            for client in blocked:
                direct.command("RPUSH", f"last:{_number(client, clients)}", "x")
                assert client.until_closed().endswith(b"$1\r\nx\r\n")
            assert respite.wait_for_exit() == 0
        assert "Traceback" not in respite.errors
    finally:
        respite.discard()


def _number(client: RawClient, clients: Sequence[RawClient]) -> int:
    return clients.index(client)


def _is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return True
    return False


def test_second_signal_ends_all_at_once(server: Server) -> None:
    """The first signal waits for a blocked client, the second for nobody; no worker is left."""
    respite = Respite(workers_on(server))
    try:
        respite.wait_until_started()
        pids = pids_of(respite)
        with respite.connect() as blocked:
            blocked.send(encode("BLPOP", "never", "0"))
            wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
            respite.signal(signal.SIGTERM)
            wait_for(lambda: any(is_gone(pid) for pid in pids), what="the end of the other worker")
            assert respite.process.poll() is None

            respite.signal(signal.SIGINT)

            assert respite.wait_for_exit(timeout_s=5) == 0
            assert all(is_gone(pid) for pid in pids)
        assert "Traceback" not in respite.errors
    finally:
        respite.discard()


def test_killed_parent_leaves_no_worker(server: Server) -> None:
    """Workers do not outlive the parent that would answer for them, however it went."""
    respite = Respite(workers_on(server))
    try:
        respite.wait_until_started()
        pids = pids_of(respite)
        respite.signal(signal.SIGKILL)
        respite.wait_for_exit()

        wait_for(lambda: all(is_gone(pid) for pid in pids), what="the end of the workers", timeout_s=5)
    finally:
        respite.discard()


# -- a start that fails, or is broken off ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_start_on_a_port_of_another_proxy_fails_in_words(respite: Respite, server: Server, workers: int) -> None:
    """SO_REUSEPORT would let two proxies share a port unnoticed: whoever comes second is told, and serves nobody."""
    second = Respite(workers_on(server, url=respite.url, workers=workers))
    try:
        assert second.wait_for_exit() == 1
        assert second.errors.splitlines()[-1].startswith("respite: cannot listen on")
        assert str(respite.port) in second.errors
        assert second.output == ""
    finally:
        second.discard()


def test_start_with_unusable_tls_fails_in_words(server: Server, tmp_path: Path) -> None:
    """What no worker can start with is one sentence and exit code 1, no loop of restarts."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    garbage.chmod(0o600)
    tls = {"cert": str(garbage), "key": str(garbage)}
    respite = Respite(workers_on(server, tls=tls, url="rediss://127.0.0.1:0"))
    try:
        assert respite.wait_for_exit() == 1
        assert [line for line in respite.errors.splitlines() if line.startswith("respite: ")] == [
            line for line in respite.errors.splitlines() if "listen.tls cannot be used" in line
        ]
        assert respite.errors.count("listen.tls cannot be used") == 1
        assert "Traceback" not in respite.errors
    finally:
        respite.discard()


def test_worker_killed_while_it_starts_fails_the_start(tmp_path: Path) -> None:
    """Nothing is served by half: a worker that never served is not started over and over."""
    path = tmp_path / "respite.sock"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        respite = Respite(_silent(silent, f"unix://{path}"))
        try:
            silent.settimeout(10)
            connection, _ = silent.accept()  # a worker waits for Redis' first word
            with connection:
                os.kill(children_of(respite.process.pid)[0], signal.SIGKILL)

                assert respite.wait_for_exit() == 1
            assert re.search(
                r"^respite: worker \d ended while it started: killed by SIGKILL$", respite.errors, re.MULTILINE
            )
            assert not path.exists()
        finally:
            respite.discard()


@pytest.mark.parametrize(
    ("number", "moments"),
    [
        pytest.param(signal.SIGINT, (0, 1, 4), id="SIGINT"),
        pytest.param(signal.SIGTERM, range(6), id="SIGTERM", marks=pytest.mark.long),
    ],
)
def test_signal_at_any_moment_of_the_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, moments: Sequence[int]
) -> None:
    """Ctrl-C while the workers are being started ends all of them, at whatever moment; no socket file is left."""
    path = tmp_path / "respite.sock"
    mark = uuid.uuid4().hex
    monkeypatch.setenv("RESPITE_TEST_MARK", mark)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for moment in moments:
            respite = Respite(_silent(silent, f"unix://{path}"))
            try:
                wait_for(lambda: len(_marked(mark)) > min(moment, 2), what="the processes")  # noqa: B023
                if moment > 2:
                    wait_for(path.exists, what="the socket")
                    time.sleep((moment - 2) * 0.15)  # not to synchronise: at another moment each time
                respite.signal(number)

                code = respite.wait_for_exit(timeout_s=10)
                # Before Python has come to us, it is Python's own death by the signal.
                assert code == 0 if moment else code in (0, 1, -number), respite.errors
                wait_for(lambda: not _marked(mark), what="the end of all processes", timeout_s=5)
                assert not path.exists()
                assert respite.output == ""
            finally:
                respite.discard()


def _silent(silent: socket.socket, url: str) -> dict[str, dict[str, Any]]:
    """Return settings whose Redis accepts and never says a word: the start waits."""
    upstream = {"url": f"redis://127.0.0.1:{silent.getsockname()[1]}", "response_timeout": "60s"}
    return {"upstream": upstream, "listen": {"workers": WORKERS, "url": url}}


def _marked(mark: str) -> list[int]:
    """Find the living processes that have inherited a variable of this test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in environment and not is_gone(int(entry.name)):
                found.append(int(entry.name))
    return found
