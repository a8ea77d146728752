"""What a test talks to: a server directly, or the same kind of server behind a Respite process.

Owns the Respite subprocess: its configuration file, its start line, its clean end. A `Target` knows the way in
(`connect`, `address`) and the server behind it (`server`), so that a test written for one runs on the other.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from .raw import Address, RawClient
from .servers import Kind, Server, free_port, wait_for

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0  # a process takes a second of processor; on a loaded machine others have most of it
STOP_TIMEOUT_S = 10.0

Settings = Mapping[str, Any]
"""Sections of the configuration file, as in conf/respite.toml: a mapping each, a list of them for [[class]]."""


def to_toml(settings: Settings) -> str:
    """Write settings as TOML: sections of plain values, lists and inline tables, and arrays of such sections."""
    sections = [
        (f"[[{name}]]" if isinstance(section, list) else f"[{name}]", keys)
        for name, section in settings.items()
        for keys in (section if isinstance(section, list) else [section])
    ]
    return "\n".join(
        f"{head}\n" + "".join(f"{key} = {_toml_value(value)}\n" for key, value in keys.items())
        for head, keys in sections
    )


def _toml_value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return json.dumps(value)


class Respite:
    """One Respite process. Listens on a free TCP port unless the settings say otherwise; the admin port is free too.

    `flags` are added to its command line; `at` is one whose ports it has.
    """

    def __init__(self, settings: Settings, *, flags: Sequence[str] = (), at: Respite | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="respite-test-"))
        self.port: int = free_port() if at is None else at.port
        self.admin_port: int = free_port() if at is None else at.admin_port
        self.flags = flags
        self.config = self.directory / "respite.toml"
        self.settings: dict[str, Any] = dict(settings)
        self.settings["listen"] = {
            "url": f"redis://127.0.0.1:{self.port}",
            "admin": f"http://127.0.0.1:{self.admin_port}",
        } | self.settings.get("listen", {})
        self.write_config()
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self.directory / "stdout").open("wb") as out, (self.directory / "stderr").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "proxy", "run", "-c", str(self.config), *self.flags],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def restart(self) -> None:
        """Kill it as a crash would, and start it again with what the configuration file says."""
        self.process.kill()
        self.process.wait()
        self.process = self._start()
        self.wait_until_started()

    def write_config(self) -> None:
        """Write the settings to the configuration file, as an operator would before a reload."""
        self.config.write_text(to_toml(self.settings))

    def wait_until_started(self) -> str:
        """Wait for the line that says where it listens, and give it."""
        wait_for(self._has_started, what="the start line of Respite", timeout_s=START_TIMEOUT_S)
        return self.output

    def _has_started(self) -> bool:
        assert self.process.poll() is None, f"exit code {self.process.poll()}\n{self.output}{self.errors}"
        return re.search(r"^respite listening on .*\n", self.output, re.MULTILINE) is not None

    @property
    def output(self) -> str:
        """What it has written to standard output so far."""
        return (self.directory / "stdout").read_text()

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return (self.directory / "stderr").read_text()

    @property
    def address(self) -> Address:
        """Where it listens, when the settings left that to us."""
        return ("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found, status
        return int(found[1]) * 1024

    @property
    def peak_rss_bytes(self) -> int:
        """Highest resident memory of the process so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found, status
        return int(found[1]) * 1024

    def stats(self) -> Any:
        """Read its /stats.json."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/stats.json", timeout=5) as answer:
            return json.loads(answer.read())

    def connect(self, *, timeout_s: float = 10.0, tls: ssl.SSLContext | None = None) -> RawClient:
        """Open a client connection."""
        return RawClient(self.address, timeout_s=timeout_s, tls=tls)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait_for_exit(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait until the process has ended and give its exit code. Raises: subprocess.TimeoutExpired."""
        return self.process.wait(timeout=timeout_s)

    def stop(self) -> None:
        """Stop it as an operator would and check that it ended well: exit code 0 and no traceback."""
        try:
            if self.process.poll() is None:
                self.signal(signal.SIGTERM)
            code = self.wait_for_exit()
            errors = self.errors
            assert "Traceback" not in errors, errors[-6000:]
            assert code == 0, f"exit code {code}\n{errors[-3000:]}"
        finally:
            self.discard()

    def discard(self) -> None:
        """Kill what is left of it and delete its directory."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def running_respite(settings: Settings) -> Iterator[Respite]:
    """Run Respite for the length of a `with` block; on the way out it must end well."""
    respite = Respite(settings)
    try:
        respite.wait_until_started()
        yield respite
    except BaseException as error:
        error.add_note(f"standard error of Respite ended:\n{respite.errors[-3000:]}")
        respite.discard()
        raise
    respite.stop()


@attrs.frozen
class Target:
    """A way to a server: direct, or through Respite when `respite` is set."""

    server: Server
    respite: Respite | None = None

    @property
    def name(self) -> str:
        """How reports call it."""
        return "direct" if self.respite is None else "respite"

    @property
    def address(self) -> Address:
        """Where its clients connect."""
        return self.server.address if self.respite is None else self.respite.address

    @property
    def port(self) -> int:
        """The TCP port of `address`."""
        return self.server.port if self.respite is None else self.respite.port

    @property
    def url(self) -> str:
        """The same as a URL."""
        return f"redis://127.0.0.1:{self.port}"

    def connect(self, *, timeout_s: float = 10.0) -> RawClient:
        """Open a client connection the way this target goes."""
        return RawClient(self.address, timeout_s=timeout_s)


@contextmanager
def running_pair(kind: Kind, *, settings: Settings | None = None) -> Iterator[tuple[Target, Target]]:
    """Run two fresh servers of a kind: the first target is direct, the second behind Respite, with L1 by default.

    With RESPITE_E2E_DIRECT=1 both are direct: what differs then is no fault of Respite.
    """
    with Server(kind) as direct, Server(kind) as behind:
        if is_direct_only():
            yield Target(direct), Target(behind)
            return
        with running_respite({"upstream": {"url": behind.url}, **(settings or {})}) as respite:
            yield Target(direct), Target(behind, respite)


def is_direct_only() -> bool:
    """Tell whether the tests shall check themselves: two servers, no Respite."""
    return os.environ.get("RESPITE_E2E_DIRECT") == "1"
