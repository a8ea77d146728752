"""The command as a process: what it imports, its signals, and its screen in a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from proxy import __version__

from ..admin.fakes import STATS, FakeSource
from .conftest import Serve
from .typing_in import type_in

_DEADLINE_S = 60.0


def _start(*words: str, **kwargs: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "proxy", *words], **kwargs)


def test_version_is_printed_the_same_by_module_and_command() -> None:
    """`python -m proxy` is `respite`."""
    process = _start("--version", stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=_DEADLINE_S)

    assert out.decode() == type_in("--version").stdout == f"respite {__version__}\n"


def test_commands_that_draw_nothing_import_neither_rich_nor_trio() -> None:
    """`respite check` and the like start at once: what is dear is imported by who needs it."""
    script = (
        "import sys; from click.testing import CliRunner; from proxy.cli.main import cli; "
        "assert CliRunner().invoke(cli, ['check']).exit_code == 0; "
        "print({'rich', 'trio', 'structlog', 'h11', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=_DEADLINE_S)

    assert done.stdout.decode().strip() == "set()"


def test_watch_json_prints_a_line_a_redraw_until_interrupted(serve: Serve) -> None:
    """A script that watches reads one object a line; Ctrl-C ends it with exit code 0 and no words."""
    process = _start(
        "stats", "--watch", "--json", "--admin", serve(FakeSource()), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=_DEADLINE_S)

    assert lines == [STATS, STATS]
    assert (process.returncode, err) == (0, b"")


def test_watch_json_goes_on_when_the_proxy_is_away_for_a_while(serve: Serve) -> None:
    """A restart is the very moment somebody watches: it is said beside the lines. At first it is an error."""
    source = FakeSource()
    process = _start(
        "stats", "--watch", "--json", "--admin", serve(source), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        source.answers["uptime_s"] = float("nan")  # which the admin port cannot send
        assert b"respite: " in process.stderr.readline()
        source.answers["uptime_s"] = 7.0
        while json.loads(process.stdout.readline())["uptime_s"] != 7.0:
            pass
    finally:
        process.kill()
        process.communicate()
    nowhere = type_in("stats", "--watch", "--json", "--admin", "http://127.0.0.1:1")
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk here that is always full")
@pytest.mark.parametrize("words", [("--help",), ("check",), ("explain", "k"), ("stats",), ("stats", "--json")])
def test_output_that_cannot_be_written_is_one_line_and_exit_code_1(serve: Serve, words: tuple[str, ...]) -> None:
    """No traceback, neither at once nor when Python ends."""
    admin = ("--admin", serve(FakeSource())) if words[0] in {"explain", "stats"} else ()
    with Path("/dev/full").open("wb") as full:
        process = _start(*words, *admin, stdout=full, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=_DEADLINE_S)

    assert err == b"respite: the output cannot be written: No space left on device\n"
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("hash-password",), 2, b"respite: an empty password lets everybody in\n"),
        (("events", "test", "-"), 1, b"respite: it would be a dead letter: there is no body"),
    ],
)
def test_input_that_is_closed_is_an_empty_one(words: tuple[str, ...], code: int, said: bytes) -> None:
    """Who starts us without a standard input reads a reason, and no traceback."""
    command = ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-m", "proxy", *words]
    done = subprocess.run(command, capture_output=True, check=False, timeout=_DEADLINE_S)

    assert (done.returncode, done.stderr.count(b"\n")) == (code, 1)
    assert done.stderr.startswith(said)


def test_ctrl_c_while_the_command_is_being_imported_is_no_traceback() -> None:
    """Half of what a command takes on a busy machine is spent there."""
    script = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'proxy.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from proxy.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, timeout=_DEADLINE_S)

    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_watch_in_a_terminal_redraws_survives_a_restart_and_ends_quietly(serve: Serve) -> None:
    """In a terminal the screen is redrawn in place; a proxy that fails is said to; Ctrl-C is exit code 0."""
    source = FakeSource()
    url = serve(source)
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40"}
    process = _start("stats", "--watch", "--admin", url, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    try:
        _read_until(master, "87.4 %")
        source.answers["l1"]["hit_rate"] = 0.912
        _read_until(master, "91.2 %")
        source.answers["uptime_s"] = float("nan")  # which the admin port cannot send
        _read_until(master, "failed")
        source.answers["uptime_s"] = 1.0
        source.answers["l1"]["hit_rate"] = 0.933
        _read_until(master, "93.3 %")
        process.send_signal(signal.SIGINT)
        rest = _read_until(master, None)

        assert process.wait(_DEADLINE_S) == 0
        assert "Traceback" not in rest
        assert "Aborted" not in rest
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _read_until(master: int, words: str | None) -> str:
    """Read the terminal until `words` are drawn, or to its end."""
    seen = b""
    deadline = time.monotonic() + _DEADLINE_S
    while words is None or words.encode() not in seen:
        left = deadline - time.monotonic()
        assert left > 0, seen.decode("utf-8", "replace")
        if not select.select([master], [], [], left)[0]:
            continue
        try:
            chunk = os.read(master, 65536)
        except OSError:  # how Linux says that nobody holds the other end
            chunk = b""
        if not chunk:
            assert words is None, seen.decode("utf-8", "replace")
            break
        seen += chunk
    return seen.decode("utf-8", "replace")
