"""Completion, tried in a real bash."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.cli.main import cli

from .typing_in import type_in

_DEADLINE_S = 20.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Put a `respite` on the PATH, as an installation does."""
    command = tmp_path / "bin" / "respite"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m proxy "$@"\n')
    command.chmod(0o755)
    home = str(Path(__file__).parents[2])
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": home, "TERM": "dumb"}


def test_bash_completes_what_there_is(environment: dict[str, str]) -> None:
    """Commands but not the hidden one, sub-commands, flags, and the words that a flag may be."""
    script = """
        eval "$(respite completion bash)"
        for line in "" "dlq " "drain --when" "run --log-level "; do
            IFS=' ' read -ra words <<< "$line"
            [[ "$line" == *" " || -z "$line" ]] && words+=("")
            COMP_WORDS=(respite "${words[@]}") COMP_CWORD=${#words[@]} COMPREPLY=()
            _respite_completion respite
            echo "${COMPREPLY[@]}"
        done
    """
    done = subprocess.run(
        ["bash", "-c", script], check=True, capture_output=True, text=True, env=environment, timeout=_DEADLINE_S
    )

    assert done.stderr == ""
    assert [set(line.split()) for line in done.stdout.splitlines()] == [
        {name for name, command in cli.commands.items() if not command.hidden},
        {"drop", "list", "replay", "show"},
        {"--when-idle"},
        {"debug", "error", "info", "warning"},
    ]


@pytest.fixture
def terminal(environment: dict[str, str], tmp_path: Path) -> Iterator[int]:
    """Run an interactive bash in an empty directory; give the terminal it runs in."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env={**environment, "PS1": "ready> "},
        start_new_session=True,
    )
    os.close(theirs)
    yield ours
    process.kill()
    process.wait()
    os.close(ours)


def test_tab_in_a_terminal_completes_a_command_and_a_file(terminal: int, tmp_path: Path) -> None:
    """What a person sees: `dr` becomes `drain`, and after -c the files there are."""
    (tmp_path / "special.toml").touch()
    os.write(terminal, b'eval "$(respite completion bash)"; echo lo""aded\n')
    _read_until(terminal, "loaded\r\n")

    os.write(terminal, b"respite dr\t")
    _read_until(terminal, "respite drain ")
    os.write(terminal, b"\x15respite check -c spec\t")

    _read_until(terminal, "special.toml ")


def _read_until(terminal: int, wanted: str) -> None:
    seen = ""
    deadline = time.monotonic() + _DEADLINE_S
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        assert ready, f"{wanted!r} has not come: {seen!r}"
        seen += os.read(terminal, 4096).decode(errors="replace")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_script_of_other_shells_asks_the_same_command(shell: str) -> None:
    """Those are made of the same name and variable."""
    script = type_in("completion", shell).stdout

    assert f"_RESPITE_COMPLETE={shell}_complete" in script
