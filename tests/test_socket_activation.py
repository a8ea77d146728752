"""Socket activation: systemd opens the addresses, and has them still when the service ends."""

from __future__ import annotations

import configparser
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .e2e.contract import is_alive
from .e2e.raw import RawClient, encode
from .e2e.servers import Server, find_kind
from .e2e.targets import Respite

UNITS = Path(__file__).parents[1] / "conf" / "systemd"
# What systemd does between fork and exec: the descriptors from 3 on, and whose they are.
LAUNCH = """
import fcntl, os, sys
fds, words = sys.argv[1].split(","), sys.argv[2:]
kept = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in fds]
for at, fd in enumerate(kept):
    os.dup2(fd, 3 + at, inheritable=True)
os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"] = str(os.getpid()), str(len(kept))
os.execv(words[0], words)
"""


class Activated(Respite):
    """A proxy that is given its sockets."""

    def __init__(self, settings: dict[str, Any], socks: Sequence[socket.socket], names: str) -> None:
        self.socks = socks
        self.names = names
        super().__init__(settings)

    def _start(self) -> subprocess.Popen[bytes]:
        fds = [sock.fileno() for sock in self.socks]
        with (self.directory / "stdout").open("wb") as out, (self.directory / "stderr").open("wb") as err:
            return subprocess.Popen(
                [
                    *(sys.executable, "-c", LAUNCH, ",".join(map(str, fds))),
                    *(sys.executable, "-m", "proxy", "run", "-c", str(self.config)),
                ],
                cwd=UNITS.parents[1],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "LISTEN_FDNAMES": self.names},
                pass_fds=fds,
            )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run one Redis for all tests here."""
    with Server(find_kind("redis7")) as started:
        yield started


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_service_serves_what_it_is_given_and_leaves_it_open(server: Server, tmp_path: Path, workers: int) -> None:
    """TCP, a unix socket and the admin port of the unit in place of those in the file; who comes in between waits."""
    path = tmp_path / "s"
    with ExitStack() as stack:
        tcp, admin = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(path))
        unix.listen()
        early = stack.enter_context(RawClient(tcp.getsockname()))
        early.send(encode("PING"))  # before there is any process: the kernel keeps it
        settings = {"upstream": {"url": server.url}, "listen": {"workers": workers}}
        respite = Activated(settings, [tcp, unix, admin], "clients:clients:admin")
        try:
            line = respite.wait_until_started()
            respite.admin_port = admin.getsockname()[1]

            assert f"redis://127.0.0.1:{tcp.getsockname()[1]} unix://{path}, admin" in line
            assert early.frame() == b"+PONG\r\n"
            with RawClient(str(path)) as client:
                assert is_alive(client)
            assert respite.stats()["clients"]["accepted_total"] == 2
            for unused in (respite.port, int(respite.settings["listen"]["admin"].rpartition(":")[2])):
                with pytest.raises(ConnectionRefusedError):
                    RawClient(("127.0.0.1", unused))
            respite.stop()
            late = stack.enter_context(RawClient(tcp.getsockname()))
            late.send(encode("PING"))  # between two starts
            assert path.exists()
        finally:
            respite.discard()
        if workers == 1:  # the next start finds who came in between
            respite = Activated(settings, [tcp], "")
            try:
                respite.wait_until_started()
                assert late.frame() == b"+PONG\r\n"
                respite.stop()
            finally:
                respite.discard()


def test_units_fit_each_other() -> None:
    """The names in the unit are those that are understood, and the service is told to leave the opening to it."""
    sockets: dict[str, dict[str, str]] = {}
    for name in ("respite.socket", "respite-admin.socket"):
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read(UNITS / name, encoding="utf-8")
        sockets[name] = dict(unit["Socket"])

    assert sockets["respite.socket"]["FileDescriptorName"] == "clients"
    assert sockets["respite-admin.socket"]["FileDescriptorName"] == "admin"
    assert {one.get("Service", "respite.service") for one in sockets.values()} == {"respite.service"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_are_understood_by_systemd(tmp_path: Path) -> None:
    """Systemd itself finds nothing to complain of."""
    program = tmp_path / "respite"
    shutil.copy("/bin/true", program)
    for unit in UNITS.iterdir():
        text = unit.read_text(encoding="utf-8").replace("/opt/respite/bin/respite", str(program))
        (tmp_path / unit.name).write_text(text)

    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS.iterdir())],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
