"""An upgrade without a gap: the next proxy takes the addresses over, and this one finishes what it has begun."""

from __future__ import annotations

import os
import signal
import threading
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ..test_systemd import Heard
from .contract import is_alive
from .load import Kind, Told, load, pushed
from .raw import encode
from .servers import Server, free_port, wait_for
from .targets import Respite, running_respite

STORM = [
    Kind("once", batches=1, pause_s=0.03),
    Kind("piped", depth=20, batches=3, pause_s=0.03),
    Kind("thoughtful", pause_s=0.15),
    Kind("restless", pause_s=0.02),  # never quiet: what it sends just when it is let go is neither run nor answered
]


class Probes:
    """Asks an admin port all the time, on a new connection each, as a load balancer does."""

    def __init__(self, port: int) -> None:
        self.answers: list[int] = []
        self.failed: list[str] = []
        self._url = f"http://127.0.0.1:{port}/healthz"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with urllib.request.urlopen(self._url, timeout=10) as answer:
                    self.answers.append(answer.status)
            except (urllib.error.URLError, ConnectionError) as exc:
                self.failed.append(repr(exc))
            self._stopping.wait(0.05)

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()
        self._thread.join(15)


def _next(old: Respite, workers: int, **listen: Any) -> Respite:
    """Start the proxy that takes over, with what the other says but these keys."""
    settings = dict(old.settings)
    settings["listen"] = {**old.settings["listen"], "workers": workers, **listen}
    return Respite(settings, flags=["--replace"], at=old)


def _check(told: Told, server: Server) -> None:
    """Nobody was refused, nothing was half answered, and Redis has what was acknowledged, once each, and no more."""
    assert told.refused == 0
    assert told.errors == []
    assert told.half == []
    assert [one for one in told.unanswered if not one.startswith("restless")] == []
    assert sorted(pushed(server)) == sorted(told.acked)


@pytest.mark.parametrize("workers", [(2,), pytest.param((2, 2, 1), marks=pytest.mark.long)])
def test_hand_overs_under_a_storm_refuse_and_lose_nobody(
    empty: Server, tmp_path: Path, workers: tuple[int, ...]
) -> None:
    """From one worker to two, to two, to one: TCP, a unix socket and the admin port never turn anybody away."""
    path = tmp_path / "s"
    port = free_port()
    urls = [f"redis://127.0.0.1:{port}", f"unix://{path}"]
    settings = {"upstream": {"url": empty.url}, "listen": {"url": urls}}
    respite = Respite(settings, flags=["--replace"])  # nobody is there to be replaced: a start like any other
    proxies = [respite]
    try:
        respite.wait_until_started()
        probes = Probes(respite.admin_port)
        with load(("127.0.0.1", port), STORM, each=1) as tcp, load(str(path), STORM[:3], each=1) as unix:
            for count in workers:
                old = proxies[-1]
                proxies.append(_next(old, count))
                proxies[-1].wait_until_started()
                assert old.wait_for_exit(timeout_s=30) == 0
                assert "Traceback" not in old.errors + proxies[-1].errors
                assert "took over" in proxies[-1].errors
                assert proxies[-1].output.count(f"{port} ") == 1
            told = tcp.stop()
            told.add(unix.stop())
        probes.stop()

        _check(told, empty)
        assert told.connections > 20
        assert probes.failed == []
        assert set(probes.answers) == {200}
        proxies[-1].stop()
        assert not path.exists()
    finally:
        for one in proxies:
            one.discard()


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("wrong", ["tls", "redis"])
def test_new_one_that_cannot_start_leaves_the_old_one_serving(
    empty: Server, tmp_path: Path, workers: int, wrong: str
) -> None:
    """Files that are of no use, or a Redis that it does not reach: that is found before anybody is accepted."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    garbage.chmod(0o600)
    with running_respite({"upstream": {"url": empty.url}}) as old, load(old.address, STORM, each=1) as running:
        if wrong == "tls":
            tls = {"cert": str(garbage), "key": str(garbage)}
            failing = _next(old, workers, url=[old.url, "rediss://127.0.0.1:0"], tls=tls)
        else:
            settings = {"upstream": {"url": f"redis://127.0.0.1:{free_port()}"}, "listen": {"workers": workers}}
            failing = Respite(settings, flags=["--replace"], at=old)
        try:
            assert failing.wait_for_exit(timeout_s=60) == 1
            assert {"tls": "listen.tls cannot be used", "redis": "not fit to take over"}[wrong] in failing.errors
            assert failing.output == ""
            assert "Traceback" not in failing.errors
        finally:
            failing.discard()
        wait_for(lambda: "the next proxy has failed" in old.errors, what="the old one to notice")
        assert old.process.poll() is None

        told = running.stop()
        assert (told.refused, told.unanswered, told.errors) == (0, [], [])
        with old.connect() as client:
            assert is_alive(client)


def test_signal_has_the_service_replace_itself(empty: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGUSR2: systemd is told who the service is from now on, and hears of that one next; it never hears of a stop.

    The old one goes when its last client has what it waits for; the admin port is the new one's meanwhile.
    """
    with closing(Heard(tmp_path / "notify")) as heard:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "2000000")
        old = Respite({"upstream": {"url": empty.url}})
        pid = 0
        try:
            old.wait_until_started()
            blocked = old.connect()
            blocked.send(encode("BLPOP", "handed", "0"))
            wait_for(lambda: empty.info("blocked_clients") == "1", what="the blocked client")
            old.signal(signal.SIGUSR2)
            wait_for(lambda: len(heard.states()) >= 3, what="the new one's word", timeout_s=20)
            first, main, ready = heard.states()[:3]
            assert (first, ready) == ("READY=1", "READY=1")
            assert main.startswith("MAINPID=")
            pid = int(main.removeprefix("MAINPID="))
            wait_for(lambda: _serves_one(old), what="a client at the new one")
            assert old.process.poll() is None
            with old.connect() as client:
                assert client.command("RPUSH", "handed", "x") == b":1\r\n"
            with blocked:
                assert blocked.until_closed() == encode("handed", "x")
            assert old.wait_for_exit(timeout_s=30) == 0
            before = heard.feeds()
            wait_for(lambda: heard.feeds() > before, what="the new one feeds the watchdog")

            os.kill(pid, signal.SIGTERM)
            wait_for(lambda: heard.states()[3:] == ["STOPPING=1"], what="the end of the new one")
            pid = 0
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)
            old.discard()


def _serves_one(respite: Respite) -> bool:
    """Connect anew, and tell whether that came to the process that has the admin port, which has no other client."""
    with respite.connect() as client:
        return is_alive(client) and bool(respite.stats()["clients"]["connected"] == 1)
