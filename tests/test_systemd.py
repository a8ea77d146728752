"""Respite under systemd: what the process says from its start to its end, and that the unit fits what it does."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest

from proxy.app import DRAIN_S
from proxy.cli.main import cli

from .e2e.raw import encode
from .e2e.servers import Server, find_kind, wait_for
from .e2e.targets import Respite, running_respite
from .e2e.workers import pids_of, post, wait_for_new_worker, workers_on

UNIT = Path(__file__).parents[1] / "conf" / "systemd" / "respite.service"


class Heard:
    """Stands for systemd: a datagram socket, and every word that came to it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        self._words: list[str] = []

    def words(self) -> list[str]:
        """Return what has come so far."""
        while True:
            try:
                self._words.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return self._words

    def states(self) -> list[str]:
        """Return what has come so far but the feeds of the watchdog, without what is for people."""
        return [word.partition("\n")[0] for word in self.words() if word != "WATCHDOG=1"]

    def feeds(self) -> int:
        """Return how often the watchdog was fed."""
        return self.words().count("WATCHDOG=1")

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """Listen as systemd does; what is started meanwhile is told where, and to say something every 2 s."""
    with closing(Heard(tmp_path / "notify")) as made:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        yield made


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one Redis for all tests here."""
    with Server(find_kind("redis7")) as started:
        yield started


def _fed(heard: Heard) -> None:
    before = heard.feeds()
    wait_for(lambda: heard.feeds() > before, what="the next feed of the watchdog")


# -- the process -------------------------------------------------------------------------------------------------------


def test_service_says_what_it_does_from_start_to_end(server: Server, heard: Heard) -> None:
    """Ready with the start line, reloading and ready again, stopping; the watchdog is fed all the time."""
    with running_respite({"upstream": {"url": server.url}}) as respite:
        wait_for(heard.words, what="the first word")
        assert heard.words()[0] == f"READY=1\nSTATUS={respite.output.strip()}"
        _fed(heard)

        respite.signal(signal.SIGHUP)
        wait_for(lambda: heard.states() == ["READY=1", "RELOADING=1", "READY=1"], what="the reload")
        _fed(heard)

    assert heard.states() == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


def test_service_is_not_ready_before_it_serves(heard: Heard) -> None:
    """A Redis that accepts and says nothing holds the start up: no word before the start line, nor of a reload."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        respite = Respite({"upstream": {"url": url, "response_timeout": "60s"}})
        try:
            connection, _ = silent.accept()
            respite.signal(signal.SIGHUP)
            wait_for(lambda: "reloaded" in respite.errors, what="the reload")
            connection.close()
            silent.close()
            assert heard.words() == []

            respite.wait_until_started()
            wait_for(heard.words, what="the first word")
        finally:
            respite.discard()


def test_service_of_several_workers_replaces_one_that_hangs(server: Server, heard: Heard) -> None:
    """The parent speaks for all: a worker that is stopped dead is killed, another takes its seat, the feeds go on."""
    with running_respite(workers_on(server)) as respite:
        wait_for(heard.words, what="the first word")
        assert heard.words()[0] == f"READY=1\nSTATUS={respite.output.strip()}"
        before = pids_of(respite)
        os.kill(before[0], signal.SIGSTOP)

        wait_for_new_worker(respite, before)

        assert "worker killed: it hangs" in respite.errors
        assert pids_of(respite)[1] == before[1]
        respite.signal(signal.SIGHUP)
        wait_for(lambda: heard.states() == ["READY=1", "RELOADING=1", "READY=1"], what="the reload")
        _fed(heard)
        with respite.connect() as blocked:
            blocked.send(encode("BLPOP", "drained", "0"))
            wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
            assert post(respite, "/drain") == (202, {"draining": True})
            wait_for(lambda: heard.states()[3:] == ["STOPPING=1"], what="the end to begin")

            respite.signal(signal.SIGTERM)  # after a drain that was asked for it is the first, and hurries nobody
            wait_for(lambda: "signal=SIGTERM" in respite.errors, what="the signal to be seen")
            with server.connect() as direct:
                assert direct.command("RPUSH", "drained", "x") == b":1\r\n"
            assert blocked.until_closed(timeout_s=5) == encode("drained", "x")
        assert respite.wait_for_exit() == 0


# -- the unit ----------------------------------------------------------------------------------------------------------


def _service() -> dict[str, str]:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(UNIT, encoding="utf-8")
    return dict(unit["Service"])


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_unit_waits_for_what_the_process_says() -> None:
    """The words above are asked for, from the process that says them, and a stop has longer than a drain may take."""
    service = _service()

    assert (service["Type"], service["NotifyAccess"]) == ("notify", "main")
    assert _seconds(service["WatchdogSec"]) == 30
    assert _seconds(service["TimeoutStopSec"]) > DRAIN_S + 2
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


@pytest.mark.parametrize("name", ["ExecStartPre", "ExecStart"])
def test_unit_runs_commands_that_there_are(name: str) -> None:
    """What the unit calls is read by our own command line."""
    program, *words = shlex.split(_service()[name])
    assert Path(program).name == "respite"

    command = cli.commands[words[0]]
    with command.make_context(words[0], words[1:]) as context:
        assert isinstance(context, click.Context)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_unit_is_understood_by_systemd(tmp_path: Path) -> None:
    """Systemd itself finds nothing to complain of, and calls the service well confined."""
    program = tmp_path / "respite"
    shutil.copy("/bin/true", program)
    unit = tmp_path / "respite.service"
    unit.write_text(UNIT.read_text(encoding="utf-8").replace("/opt/respite/bin/respite", str(program)))

    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], check=False, capture_output=True, text=True, timeout=30
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")

    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    found = re.search(r"exposure level for respite.service: ([0-9.]+)", judged.stdout)
    assert found, judged
    assert float(found[1]) < 2
