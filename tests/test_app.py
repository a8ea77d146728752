"""The process from its start to its end: the start line, signals at every moment, a Redis that is not there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import attrs
import pytest

from proxy.app import App, make_way, may_be_followed, start_line
from proxy.config.load import default_settings
from proxy.config.model import Settings, parse_endpoint
from proxy.net.worker import Worker
from proxy.outlook import Outlook
from proxy.supervisor.host import Host

from .e2e.contract import UNAVAILABLE, is_alive, wait_until_alive
from .e2e.raw import RawClient, encode
from .e2e.servers import Server, ServerOptions, find_kind, free_port, wait_for
from .e2e.targets import Respite, running_respite
from .e2e.workers import children_of


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one Redis for all tests here; user alice has a password."""
    with Server(find_kind("redis7"), ServerOptions(acl=["user alice on >s3cret ~* &* +@all"])) as started:
        yield started


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Listen as a Redis that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        yield listening


def _starting(silent: socket.socket) -> tuple[Respite, socket.socket]:
    """Start Respite in front of a silent Redis, up to the moment at which it waits for the first reply."""
    upstream = {"url": f"redis://127.0.0.1:{silent.getsockname()[1]}", "response_timeout": "60s"}
    respite = Respite({"upstream": upstream})
    try:
        connection, _ = silent.accept()
    except BaseException:
        respite.discard()
        raise
    return respite, connection


def _is_taken(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _status(respite: Respite, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{respite.admin_port}{path}", timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


# -- the start line ----------------------------------------------------------------------------------------------------


def test_start_line_names_every_address_and_no_password(server: Server, tmp_path: Path) -> None:
    """One line, once everything listens: all URLs, no admin port where there is none, the upstream without secrets."""
    ports = [free_port(), free_port()]
    path = tmp_path / "respite.sock"
    urls = [f"redis://127.0.0.1:{ports[0]}", f"unix://{path}", f"redis://127.0.0.1:{ports[1]}"]
    upstream = {"url": f"redis://alice:s3cret@127.0.0.1:{server.port}/3"}
    with running_respite({"upstream": upstream, "listen": {"url": urls, "admin": ""}}) as respite:
        (line,) = respite.output.splitlines()
        for address in (("127.0.0.1", ports[0]), str(path), ("127.0.0.1", ports[1])):
            with RawClient(address) as client:
                assert is_alive(client)

        head, _, shown = line.rpartition(", upstream ")
        assert head == f"respite listening on {' '.join(urls)}, admin none"
        assert f"127.0.0.1:{server.port}" in shown
        assert "s3cret" not in respite.output + respite.errors
    assert not path.exists()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("stdout", ["full", "closed", "none"])
def test_start_line_that_nobody_takes_keeps_nobody_from_serving(server: Server, stdout: str, workers: str) -> None:
    """A full disk, a reader that has gone, no stream at all: the line is lost, as one of the log would be."""
    port = free_port()
    words = [sys.executable, "-m", "proxy", "run", "--upstream", server.url, "--workers", workers]
    words += ["--listen", f"redis://127.0.0.1:{port}", "--admin", ""]
    reading, writing = os.pipe()
    os.close(reading)
    with Path("/dev/full").open("wb") as full, open(writing, "wb", buffering=0) as closed:
        process = subprocess.Popen(
            ["sh", "-c", 'exec "$@" >&-', "sh", *words] if stdout == "none" else words,
            stdout=full if stdout == "full" else closed,
            stderr=subprocess.PIPE,
        )
    try:
        wait_for(lambda: _is_taken(port), what="it serves", timeout_s=20)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)  # the line comes when clients are served already
        process.terminate()
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()

    assert (process.returncode, b"Traceback" in errors) == (0, False), errors


def test_start_line_names_an_address_of_many_queues_once() -> None:
    """One worker has several of them, after it took over from more."""
    urls = ["redis://127.0.0.1:1", "redis://127.0.0.1:1", "unix:///s"]

    line = start_line(urls, "none", parse_endpoint("redis://127.0.0.1:2"))

    assert line == "respite listening on redis://127.0.0.1:1 unix:///s, admin none, upstream redis://127.0.0.1:2"


def test_admin_port_is_left_to_the_proxy_that_took_over_before_anything_else() -> None:
    """Also in the middle of a drain: whoever asks it then must not hear that the service is going."""
    done: list[str] = []

    class Seen:
        def leave(self) -> None:
            done.append("left")

    make_way(cast("Outlook", Seen()), lambda: done.append("drains"))

    assert done == ["left", "drains"]


def test_first_process_of_a_container_is_followed_by_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The container would end with it, and the next one too."""
    settings = attrs.evolve(
        default_settings(),
        upstream=attrs.evolve(default_settings().upstream, endpoint=parse_endpoint("redis://127.0.0.1:2")),
    )
    assert may_be_followed(settings, started=True)
    assert not may_be_followed(settings, started=False)
    monkeypatch.setattr("proxy.app.os.getpid", lambda: 1)

    assert not may_be_followed(settings, started=True)


def test_start_with_a_taken_admin_port_fails_in_words(server: Server) -> None:
    """Exit code 1 and one sentence that names the address, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        respite = Respite({"upstream": {"url": server.url}, "listen": {"admin": f"http://127.0.0.1:{port}"}})
        try:
            assert respite.wait_for_exit() == 1
            assert str(port) in respite.errors
            assert "Traceback" not in respite.errors
            assert respite.output == ""
        finally:
            respite.discard()


# -- a Redis that is not there -----------------------------------------------------------------------------------------


def test_start_without_redis_serves_and_finds_it_later() -> None:
    """Respite starts, answers clients with an error, is not ready; once Redis is there it serves the same clients."""
    with Server(find_kind("redis7")) as server:
        server.kill()
        with running_respite({"upstream": {"url": server.url}}) as respite, respite.connect() as client:
            assert respite.output.endswith(f"upstream {server.url}\n")
            assert client.command("GET", "k") == UNAVAILABLE
            assert client.command("CLIENT", "GETNAME") == b"$-1\r\n"
            assert (_status(respite, "/healthz"), _status(respite, "/readyz")) == (200, 503)

            server.start()
            back_at = time.monotonic()
            wait_until_alive(client)
            assert time.monotonic() - back_at < 2

            wait_for(lambda: _status(respite, "/readyz") == 200, what="ready")
            assert client.command("GET", "alive") == client.command("GET", "alive") == b"$1\r\nx\r\n"


def test_start_with_a_silent_redis_serves_after_its_timeout(silent: socket.socket) -> None:
    """A Redis that accepts and says nothing holds the start up for response_timeout, not for ever."""
    upstream = {"url": f"redis://127.0.0.1:{silent.getsockname()[1]}", "response_timeout": "300ms"}
    with running_respite({"upstream": upstream}) as respite, respite.connect() as client:
        assert client.command("SET", "k", "v") == UNAVAILABLE
        assert client.command("BLPOP", "k", "0") == UNAVAILABLE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_while_starting_ends_at_once(silent: socket.socket, number: signal.Signals) -> None:
    """Ctrl-C while the first connection to Redis is tried does not wait for it: exit code 0, nothing printed."""
    respite, connection = _starting(silent)
    with connection:
        try:
            respite.signal(number)

            assert respite.wait_for_exit(timeout_s=5) == 0
            assert respite.output == ""
            assert "Traceback" not in respite.errors
        finally:
            respite.discard()


def test_sighup_while_starting_is_a_reload(silent: socket.socket) -> None:
    """A reload that comes too early ends nothing."""
    respite, connection = _starting(silent)
    with connection:
        try:
            respite.settings["l1"] = {"max_bytes": "1MiB"}
            respite.write_config()
            respite.signal(signal.SIGHUP)
            wait_for(lambda: "reloaded" in respite.errors, what="the reload")
            connection.close()  # Redis has gone: the start goes on

            respite.wait_until_started()
            respite.stop()
        finally:
            respite.discard()


# -- signals while serving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_end_of_the_embedded_redis_ends_its_proxy_in_words(workers: int) -> None:
    """Nothing could be served any more, ever; who started it starts it again, or reads why."""
    respite = Respite({"listen": {"workers": workers}})
    try:
        respite.wait_until_started()
        with respite.connect() as client:
            assert is_alive(client)
        (pid,) = (one for one in children_of(respite.process.pid) if b"\0worker\0" not in _command_line(one))
        os.kill(pid, signal.SIGKILL)

        assert respite.wait_for_exit() == 1
        assert "respite: the embedded Redis has ended (killed by signal 9)" in respite.errors
        assert "Traceback" not in respite.errors
    finally:
        respite.discard()


def _command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_second_signal_ends_at_once(server: Server) -> None:
    """The first signal waits for a blocked client, the second for nobody; both say exit code 0."""
    respite = Respite({"upstream": {"url": server.url}})
    try:
        respite.wait_until_started()
        with respite.connect() as blocked, respite.connect() as idle:
            assert is_alive(idle)
            blocked.send(encode("BLPOP", "never", "0"))
            wait_for(lambda: server.info("blocked_clients") == "1", what="the blocked client")
            respite.signal(signal.SIGTERM)
            assert idle.until_closed(timeout_s=5) == b""
            assert respite.process.poll() is None
            assert _status(respite, "/readyz") == 503

            respite.signal(signal.SIGINT)

            assert respite.wait_for_exit(timeout_s=5) == 0
            assert blocked.until_closed()[:1] in (b"", b"-")
        assert "Traceback" not in respite.errors
    finally:
        respite.discard()


@pytest.mark.parametrize("text", ['[listen]\nmax_clients = "many"\n', "no TOML at all [", "[nosuch]\nx = 1\n", None])
def test_sighup_with_a_wrong_file_keeps_the_old_settings(server: Server, text: str | None) -> None:
    """A file with mistakes, or none any more, changes nothing, is told in the log; the next right one is applied."""
    listen = {"max_clients": 2}
    with running_respite({"upstream": {"url": server.url}, "listen": listen}) as respite, respite.connect() as client:
        assert is_alive(client)
        if text is None:
            respite.config.unlink()
        else:
            respite.config.write_text(text)
        respite.signal(signal.SIGHUP)
        wait_for(lambda: "reload refused" in respite.errors, what="the refusal")

        with respite.connect() as second:
            assert is_alive(second)
            with respite.connect() as third:
                assert b"max number of clients" in third.until_closed()

        respite.settings["listen"]["max_clients"] = 1
        respite.write_config()
        respite.signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in respite.errors, what="the reload")
        with respite.connect() as second:
            assert b"max number of clients" in second.until_closed()
        assert is_alive(client)


async def test_reload_that_breaks_is_refused() -> None:
    """A mistake of ours in reading a file ends no proxy that serves."""

    def read() -> Settings:
        raise RuntimeError("a bug")

    settings = default_settings()
    settings = attrs.evolve(settings, listen=attrs.evolve(settings.listen, urls=()))
    app = App(Worker(settings, parse_endpoint("redis://127.0.0.1:1")), settings, read, cast("Any", None))
    host = Host(settings, read)

    assert "RuntimeError" in (await app.reload())["problems"][0]
    assert "RuntimeError" in (await host.reload())["problems"][0]


def test_reload_of_the_log_level_takes_effect(server: Server) -> None:
    """What a reload logs about itself is gone once log.level is above it."""
    with running_respite({"upstream": {"url": server.url}}) as respite:
        respite.settings["listen"]["max_clients"] = 7
        assert _reload(respite) == ["listen.max_clients"]
        assert respite.errors.count("reloaded") == 1

        respite.settings["log"] = {"level": "error"}
        assert _reload(respite) == ["log.level"]
        respite.settings["listen"]["max_clients"] = 8
        assert _reload(respite) == ["listen.max_clients"]

        assert respite.errors.count("reloaded") == 1


def test_reload_in_band_applies_and_names_mistakes(server: Server) -> None:
    """RESPITE RELOAD is answered with what was applied, or with what is wrong with the file."""
    with running_respite({"upstream": {"url": server.url}}) as respite, respite.connect() as client:
        respite.settings["listen"]["max_clients"] = 7
        respite.write_config()
        assert b'"applied": ["listen.max_clients"]' in client.command("RESPITE", "RELOAD")

        respite.config.write_text("[listen]\nmax_client = 3\n")
        reply = client.command("RESPITE", "RELOAD")

        assert reply.startswith(b"-ERR respite: the old settings stay: listen.max_client = 3")
        assert is_alive(client)


def _reload(respite: Respite) -> list[str]:
    """Write the settings, have them read, and return what was applied."""
    respite.write_config()
    request = urllib.request.Request(f"http://127.0.0.1:{respite.admin_port}/reload", method="POST")
    with urllib.request.urlopen(request, timeout=5) as response:
        return list(json.load(response)["applied"])
