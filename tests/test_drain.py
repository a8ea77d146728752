"""A drain that somebody asked for: by the command, before the signal, and when the clients have left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .e2e.contract import is_alive
from .e2e.raw import encode
from .e2e.servers import Server, find_kind, wait_for
from .e2e.targets import ROOT, Respite


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one Redis for all tests here."""
    with Server(find_kind("redis7")) as started:
        yield started


def _drain(respite: Respite, *flags: str) -> subprocess.Popen[str]:
    admin = f"http://127.0.0.1:{respite.admin_port}"
    words = [sys.executable, "-m", "proxy", "drain", "--admin", admin, *flags]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_signal_after_a_drain_lets_what_runs_finish(server: Server) -> None:
    """Who stops containers sends SIGTERM right after the hook: it changes nothing. The second signal ends it."""
    respite = Respite({"upstream": {"url": server.url}})
    try:
        respite.wait_until_started()
        with respite.connect() as blocked:
            blocked.send(encode("BLPOP", "drained", "0"))
            wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
            drained = _drain(respite)
            out, err = drained.communicate(timeout=10)
            assert (drained.returncode, err) == (0, ""), out

            respite.signal(signal.SIGTERM)
            wait_for(lambda: "signal=SIGTERM" in respite.errors, what="the signal to be seen")
            assert respite.errors.count('app: stopping why="told to drain"') == 1
            with server.connect() as direct:
                assert direct.command("RPUSH", "drained", "x") == b":1\r\n"
            assert blocked.until_closed(timeout_s=5) == encode("drained", "x")

        assert respite.wait_for_exit() == 0
        assert "Traceback" not in respite.errors
    finally:
        respite.discard()


def test_drain_when_idle_serves_until_the_last_client_has_left(server: Server) -> None:
    """What a pod's hook does: the app keeps its Redis, new connections too, and with its last one the proxy ends."""
    respite = Respite({"upstream": {"url": server.url}})
    try:
        respite.wait_until_started()
        with respite.connect() as app:
            assert is_alive(app)
            hook = _drain(respite, "--when-idle", "60s")
            assert hook.stderr is not None
            assert "waiting until they have left" in hook.stderr.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                hook.wait(0.5)
            assert is_alive(app)
            with respite.connect() as another:
                assert is_alive(another)

        assert respite.wait_for_exit() == 0
        assert hook.communicate(timeout=10)[1] == ""
        assert hook.returncode == 0
    finally:
        respite.discard()
