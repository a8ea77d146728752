"""The table of threats in docker/README.md: every line names tests that there are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_CHAPTER = "## Threats\n"
_TEST = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


def _lines() -> list[str]:
    chapter = (ROOT / "docker" / "README.md").read_text(encoding="utf-8").partition(_CHAPTER)[2]
    lines = [line for line in chapter.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith(("| ---", "| tries to"))]


@pytest.mark.parametrize("line", _lines(), ids=lambda line: str(line.split(" | ")[0][2:40]))
def test_line_names_tests_that_there_are(line: str) -> None:
    """A threat that is said to be met is met by a test of that name in that file."""
    who_what_test = line.strip("| ").split(" | ")
    named = _TEST.findall(who_what_test[2])
    missing = []
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8")) if (ROOT / path).is_file() else ast.Module([], [])
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        missing += [] if name in names else [f"{path}::{name}"]

    assert len(who_what_test) == 3
    assert named
    assert _TEST.sub("", who_what_test[2]).strip() == ""
    assert missing == []


def test_table_is_as_long_as_it_was() -> None:
    """Nobody takes a threat out without a word."""
    assert len(_lines()) >= 28


def test_hashes_have_a_seed_of_their_own_in_each_process() -> None:
    """Whoever chooses keys cannot know which of them fall into one place of a table; nothing of ours fixes the seed."""
    script = "import sys; print(sys.flags.hash_randomization, hash(b'key'), hash('key'))"
    seen = {
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={}).stdout
        for _ in range(2)
    }
    fixed = [
        path
        for folder in ("proxy", "conf", "docker")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "PYTHONHASHSEED" in path.read_text(errors="ignore")
    ]

    assert len(seen) == 2
    assert all(one.startswith("1 ") for one in seen)
    assert fixed == []
