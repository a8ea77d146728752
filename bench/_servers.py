"""The processes a benchmark measures: started on free ports, watched through /proc, ended by pid.

A `Rig` owns every process and the temporary directory they write to; leaving it ends them all, newest first, on
success, error and Ctrl-C alike. Nothing is pinned to a core and nothing of this machine's own servers is touched.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import attrs
import redis

from bench._lib import ROOT, BenchError, find_program, say

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 5.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """Return a loopback TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@attrs.frozen
class Server:
    """One running process that answers Redis commands on 127.0.0.1:port."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    admin_port: int = 0
    """HTTP port of Respite's admin side; 0 for everything else."""

    def cpu_s(self) -> float:
        """Return the processor time of all its threads so far, user and system; good to 10 ms."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def rss_bytes(self) -> int:
        """Return its resident memory; what the kernel holds for its sockets is not part of that."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * PAGE_BYTES

    def client(self) -> "redis.Redis":
        """Open a redis-py client to it, speaking RESP2 as redis-benchmark does; the caller closes it."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=30, protocol=2)

    def check_alive(self) -> None:
        """Raise BenchError if the process is gone; the rig shows what it wrote."""
        if self.process.poll() is not None:
            raise BenchError(f"{self.name} ended with {self.process.returncode}")

    def log_tail(self) -> str:
        """Return the last lines it wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-15:])

    def stats(self) -> dict[str, Any]:
        """Fetch /stats.json of a Respite."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/stats.json", timeout=5) as answer:
            body: dict[str, Any] = json.load(answer)
        return body


class Rig:
    """Starts servers and ends all of them on leaving."""

    def __init__(self) -> None:
        self._running: list[Server] = []
        self._home = Path()

    def __enter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="respite-bench-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            for server in self._running:
                if server.admin_port or server.process.poll() is not None:
                    say(f"--- the last that {server.name} wrote:\n{server.log_tail()}")
        for server in self._running:
            if server.process.poll() is None:
                server.process.terminate()
        for server in reversed(self._running):
            end(server.process)
        shutil.rmtree(self._home, ignore_errors=True)

    def redis(self, name: str, *, max_clients: int = 1000, keeps: bool = False) -> Server:
        """Start a redis-server; it persists nothing, unless it `keeps` its data over `restart`."""
        port = free_port()
        options = {"port": port, "bind": "127.0.0.1", "dir": self._home, "maxclients": max_clients, "tcp-backlog": 4096}
        flags = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        return self._start(name, port, ["redis-server", *flags, "--save", "", "--appendonly", "yes" if keeps else "no"])

    def restart(self, server: Server) -> Server:
        """Kill a server as a crash would, start it again on its port, and return once it answers."""
        server.process.kill()
        server.process.wait()
        self._running.remove(server)
        return self._start(server.name, server.port, list(map(str, server.process.args)))  # type: ignore[arg-type]

    def twemproxy(self, upstream: Server) -> Server:
        """Start nutcracker with its defaults: one upstream connection, mbufs of 16 KiB."""
        port = free_port()
        config = self._file(
            "nutcracker.yml",
            f"pool:\n  listen: 127.0.0.1:{port}\n  redis: true\n  preconnect: true\n  auto_eject_hosts: false\n"
            f"  servers:\n   - 127.0.0.1:{upstream.port}:1\n",
        )
        flags = ["-c", str(config), "-a", "127.0.0.1", "-s", str(free_port()), "-p", str(self._home / "nutcracker.pid")]
        return self._start("twemproxy", port, ["nutcracker", *flags, "-o", str(self._home / "twemproxy.log")])

    def haproxy(self, upstream: Server) -> Server:
        """Start haproxy in TCP mode with one thread, as all the others have one worker."""
        port = free_port()
        config = self._file(
            "haproxy.cfg",
            "global\n  nbthread 1\n  maxconn 4000\n"
            "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 60s\n  timeout server 60s\n"
            f"listen redis\n  bind 127.0.0.1:{port}\n  server redis 127.0.0.1:{upstream.port}\n",
        )
        return self._start("haproxy", port, ["haproxy", "-db", "-f", str(config)])

    def relay(self, upstream: Server, delay_ms: float) -> Server:
        """Start a relay that holds back everything by `delay_ms` each way."""
        port = free_port()
        flags = ["--listen", f"127.0.0.1:{port}", "--target", f"127.0.0.1:{upstream.port}", "--delay-ms", str(delay_ms)]
        return self._start(f"relay-{upstream.name}", port, [sys.executable, "-m", "bench.relay", *flags])

    def respite(
        self,
        name: str,
        upstream: Server,
        *,
        rollout: str = "on",
        writes_envelopes: bool = True,
        l1: Mapping[str, str | int | float | bool] | None = None,
        max_clients: int = 10000,
        interpreter_flags: Sequence[str] = (),
        more: str = "",
    ) -> Server:
        """Start Respite from this checkout in front of `upstream` and wait until /readyz says so.

        `l1` holds the keys of [l1] that differ from the defaults, `more` further sections as the file has them.
        """
        port, admin_port = free_port(), free_port()
        config = self._file(
            f"{name}.toml",
            f'[listen]\nurl = "redis://127.0.0.1:{port}"\nadmin = "http://127.0.0.1:{admin_port}"\n'
            f"max_clients = {max_clients}\n"
            f'[upstream]\nurl = "redis://127.0.0.1:{upstream.port}"\n'
            f'[rollout]\nmode = "{rollout}"\nwrite_envelopes = {str(writes_envelopes).lower()}\n'
            "[l1]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in (l1 or {}).items()) + more,
        )
        command = [sys.executable, *interpreter_flags, "-m", "proxy", "run", "-c", str(config)]
        return self._start(name, port, command, admin_port=admin_port)

    def _file(self, name: str, text: str) -> Path:
        path = self._home / name
        path.write_text(text, encoding="utf-8")
        return path

    def _start(self, name: str, port: int, command: Sequence[str], *, admin_port: int = 0) -> Server:
        program = find_program(command[0])
        if program is None:
            raise BenchError(f"not installed: {command[0]}; run bench/install-tools.sh")
        log = self._home / f"{name}.log"
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches the script only, which then ends its children in order.
            process = subprocess.Popen(
                [program, *command[1:]],
                cwd=ROOT,
                env=_clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        server = Server(name, port, process, log, admin_port)
        self._running.append(server)
        _wait_until_answering(server)
        return server


def _clean_environment() -> dict[str, str]:
    """Drop what would override the configuration a benchmark wrote."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RESPITE_") and key != "REDIS_URL"}


def end(process: "subprocess.Popen[bytes]") -> None:
    """End one process of ours: politely, then for good. It has been reaped when this returns."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_answering(server: Server) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (_is_ready(server) if server.admin_port else _answers_ping(server.port)):
        server.check_alive()
        if time.monotonic() > deadline:
            raise BenchError(f"{server.name} does not answer after {START_TIMEOUT_S:.0f} s")
        time.sleep(0.02)


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _is_ready(server: Server) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.admin_port}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def versions(programs: Sequence[str]) -> dict[str, str]:
    """Ask each program for its version, one line each."""
    flags = {"nutcracker": "-V", "haproxy": "-v"}
    found = {}
    for program in programs:
        path = find_program(program)
        if path is not None:
            answer = subprocess.run(
                [path, flags.get(program, "--version")], capture_output=True, text=True, timeout=10, check=False
            )
            found[program] = (answer.stdout + answer.stderr).strip().splitlines()[0]
    return found
