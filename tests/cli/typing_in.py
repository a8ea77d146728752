"""Typing a command, inside this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from proxy.cli.main import cli


def type_in(*words: str) -> Result:
    """Run `respite` with `words`; whatever it raises but an exit code is a failure of the test."""
    result = CliRunner().invoke(cli, words, prog_name="respite")
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result
