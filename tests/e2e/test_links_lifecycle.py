"""Starting, reloading and stopping a Respite that has clients."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from .contract import is_alive, wait_until_alive
from .raw import RawClient, encode
from .servers import Kind, Server, wait_for
from .targets import ROOT, Respite, running_respite


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run one server for all tests here."""
    with Server(redis7) as started:
        yield started


@pytest.fixture
def respite(server: Server) -> Iterator[Respite]:
    """Run a Respite of its own for each test, which the test itself may stop."""
    started = Respite({"upstream": {"url": server.url}})
    try:
        started.wait_until_started()
        yield started
        assert "Traceback" not in started.errors
    finally:
        started.discard()


def _get(respite: Respite, path: str, method: str = "GET") -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{respite.admin_port}{path}", method=method)
    try:
        answer = urllib.request.urlopen(request, timeout=5)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = answer.read()
    return json.loads(body) if body.startswith(b"{") else body.decode()


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "proxy", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)


def test_start_line_names_where_it_listens(server: Server, respite: Respite) -> None:
    """The one line on standard output says the listening URL, the admin URL and the upstream."""
    expected = (
        f"respite listening on redis://127.0.0.1:{respite.port}, admin http://127.0.0.1:{respite.admin_port}, "
        f"upstream {server.url}\n"
    )

    assert respite.output == expected


def test_start_on_a_taken_port_fails_in_words(server: Server, respite: Respite) -> None:
    """A second Respite on the same port ends with exit code 1 and one sentence, no traceback."""
    second = Respite({"upstream": {"url": server.url}, "listen": {"url": respite.url, "admin": ""}})
    try:
        assert second.wait_for_exit() == 1
        assert str(respite.port) in second.errors
        assert "Traceback" not in second.errors
    finally:
        second.discard()


def test_start_with_a_wrong_file_names_every_problem(server: Server) -> None:
    """A configuration that cannot be used ends with exit code 2 and all its problems."""
    wrong = Respite({"upstream": {"url": server.url}, "listen": {"max_client": 5}, "l1": {"max_age": "soon"}})
    try:
        assert wrong.wait_for_exit() == 2
        assert "listen.max_client" in wrong.errors
        assert "l1.max_age" in wrong.errors
    finally:
        wrong.discard()


def test_sigterm_finishes_what_runs_and_exits_0(respite: Respite) -> None:
    """A command under way is answered, idle clients are closed, nobody new gets in, and the exit code is 0."""
    with respite.connect() as idle, respite.connect() as busy:
        assert is_alive(idle)
        busy.send(encode("DEBUG", "SLEEP", "0.5"))
        time.sleep(0.1)
        respite.signal(signal.SIGTERM)

        assert busy.frame(timeout_s=3) == b"+OK\r\n"
        assert busy.until_closed(timeout_s=5) == b""
        assert idle.until_closed(timeout_s=5) == b""

    assert respite.wait_for_exit() == 0
    with pytest.raises(OSError, match="refused"):
        respite.connect()


def test_sigterm_waits_for_a_transaction_and_a_pipeline(respite: Respite) -> None:
    """What a client has begun it can end while Respite drains."""
    with respite.connect() as client, respite.connect() as other:
        assert client.command("MULTI") == b"+OK\r\n"
        assert client.command("SET", "drained", "yes") == b"+QUEUED\r\n"
        other.send(encode("DEBUG", "SLEEP", "0.3"))
        time.sleep(0.05)
        respite.signal(signal.SIGTERM)

        assert client.command("EXEC") == b"*1\r\n+OK\r\n"

    assert respite.wait_for_exit() == 0


def test_second_signal_stops_at_once(respite: Respite) -> None:
    """A blocked client holds the drain up; a second signal ends it."""
    with respite.connect() as blocked:
        blocked.send(encode("BLPOP", "never", "0"))
        wait_for(lambda: respite.stats()["clients"]["pinned"] == 1, what="the pinned client")
        respite.signal(signal.SIGTERM)
        time.sleep(0.3)
        assert respite.process.poll() is None
        started = time.monotonic()
        respite.signal(signal.SIGTERM)

        respite.wait_for_exit(timeout_s=3)

    assert time.monotonic() - started < 2


def test_sigint_stops_like_sigterm(respite: Respite) -> None:
    """Ctrl-C drains as well."""
    with respite.connect() as client:
        assert is_alive(client)
        respite.signal(signal.SIGINT)
        assert client.until_closed(timeout_s=5) == b""

    assert respite.wait_for_exit() == 0


def test_sighup_applies_the_file_and_keeps_clients(respite: Respite) -> None:
    """A reload changes the limits of running connections' neighbours; nobody is disconnected."""
    with respite.connect() as client:
        assert is_alive(client)
        respite.settings["listen"]["max_clients"] = 1
        respite.settings["l1"] = {"enabled": False}
        respite.write_config()
        respite.signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in respite.errors, what="the reload")

        with respite.connect() as second:
            assert b"max number of clients" in second.until_closed()
        assert is_alive(client)
        assert respite.stats()["l1"]["enabled"] is False
        hits = respite.stats()["l1"]["hits_total"]
        assert [client.command("GET", "alive") for _ in range(5)] == [b"$1\r\nx\r\n"] * 5
        assert respite.stats()["l1"]["hits_total"] == hits


def test_reload_of_a_wrong_file_changes_nothing(respite: Respite) -> None:
    """A wrong file is refused with its problems; the old settings stay in force and clients stay connected."""
    with respite.connect() as client:
        respite.settings["listen"]["max_clients"] = "many"
        respite.write_config()

        answer = _get(respite, "/reload", method="POST")

        assert any("listen.max_clients" in problem for problem in answer["problems"])
        assert answer["applied"] == []
        with respite.connect() as second:
            assert is_alive(client)
            assert is_alive(second)


def test_reload_says_what_needs_a_restart(respite: Respite) -> None:
    """Settings that cannot change while running are named, and the rest is applied."""
    respite.settings["l1"] = {"max_bytes": "1MiB"}
    respite.settings["upstream"]["connect_timeout"] = "1s"
    respite.write_config()

    answer = json.loads(_command("reload", "--json", "--admin", f"http://127.0.0.1:{respite.admin_port}").stdout)

    assert answer["applied"] == ["l1.max_bytes"]
    assert answer["needs_restart"] == ["upstream.connect_timeout"]
    assert respite.stats()["l1"]["max_bytes"] == 1024 * 1024


def test_drain_of_the_command_line_ends_respite(respite: Respite) -> None:
    """`respite drain` does what SIGTERM does."""
    with respite.connect() as client:
        assert is_alive(client)

        done = _command("drain", "--admin", f"http://127.0.0.1:{respite.admin_port}")

        assert done.returncode == 0, done.stderr
        assert client.until_closed(timeout_s=5) == b""
    assert respite.wait_for_exit() == 0


def test_admin_port_tells_the_truth_about_traffic(respite: Respite) -> None:
    """Figures follow what clients do: connections, commands, hits and misses, links, entries."""
    with respite.connect() as client:
        client.command("SET", "seen", "x")
        assert [client.command("GET", "seen") for _ in range(11)] == [b"$1\r\nx\r\n"] * 11
        stats = respite.stats()
        metrics = _get(respite, "/metrics")
        explained = _command("explain", "seen", "--json", "--admin", f"http://127.0.0.1:{respite.admin_port}")

    assert stats["clients"]["connected"] == 1
    assert (stats["l1"]["hits_total"], stats["l1"]["misses_total"], stats["l1"]["entries"]) == (10, 1, 1)
    assert stats["commands"]["total"] >= 12
    assert stats["upstream"]["state"] == "up"
    assert "# TYPE respite_" in metrics
    assert explained.returncode == 0, explained.stderr
    assert "seen" in explained.stdout


def test_readyz_follows_the_upstream(redis7: Kind) -> None:
    """/healthz says alive all the time, /readyz only while Redis can be reached."""
    with (
        Server(redis7) as server,
        running_respite({"upstream": {"url": server.url}}) as respite,
        respite.connect() as client,
    ):
        wait_until_alive(client)
        assert _status(respite, "/readyz") == 200
        server.kill()
        wait_for(lambda: _status(respite, "/readyz") == 503, what="not ready")
        assert _status(respite, "/healthz") == 200
        server.start()
        wait_until_alive(client)
        wait_for(lambda: _status(respite, "/readyz") == 200, what="ready again")


def _status(respite: Respite, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{respite.admin_port}{path}", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_in_band_commands_answer_any_client(respite: Respite) -> None:
    """RESPITE commands work on an ordinary connection; an unknown one is told so."""
    with RawClient(respite.address) as client:
        client.command("SET", "k", "v")
        assert [client.command("GET", "k") for _ in range(2)] == [b"$1\r\nv\r\n"] * 2
        for command in (("HELP",), ("INFO",), ("STATS",), ("CLIENTS",), ("LINKS",)):
            assert client.command("RESPITE", *command)[:1] in (b"$", b"*", b"=", b"%"), command
        assert client.command("RESPITE", "L1", "CLEAR")[:1] in (b"+", b":")
        assert client.command("RESPITE", "NOSUCH").startswith(b"-ERR unknown RESPITE subcommand")
        assert client.command("GET", "k") == b"$1\r\nv\r\n"
