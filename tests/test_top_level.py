"""The shape of the repository: what lies at its top, and how long a file may be."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_LINES = 400

TOP_LEVEL = {
    *("CHANGELOG.md", "Makefile", "README.md", "pyproject.toml"),
    *("bench", "conf", "docker", "proxy", "tests"),
}
# What building and running leaves behind; .gitignore keeps it out of the repository.
LEFT_BEHIND = {"__pycache__", "build", "dist"}
SOURCES = {".py", ".sh", ".js", ".mjs"}


def test_top_level_holds_only_what_belongs_there() -> None:
    """Longer explanations live beside what they explain; the top stays readable at one glance."""
    names = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.suffix != ".egg-info"}

    assert names - LEFT_BEHIND == TOP_LEVEL


def test_sources_are_one_idea_long() -> None:
    """A file past 400 lines is two ideas."""
    too_long = {}
    for folder in ("proxy", "bench", "tests"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SOURCES and "node_modules" not in path.parts:
                lines = len(path.read_text(encoding="utf-8").splitlines())
                if lines > MAX_LINES:
                    too_long[str(path.relative_to(ROOT))] = lines

    assert too_long == {}
