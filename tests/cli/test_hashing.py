"""`respite hash-password`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from proxy.cli.main import cli
from proxy.config.passwords import PasswordHash


@pytest.mark.parametrize("typed", ["geheim", "geheim\n", "geheim\r\nsecond line\n"])
def test_hash_password_reads_one_line_and_prints_what_takes_it(typed: str) -> None:
    """And nothing else: the output can be put into the file as it is, and never holds the password."""
    result = CliRunner().invoke(cli, ["hash-password"], input=typed)

    assert result.exit_code == 0
    assert PasswordHash.parse(result.stdout.strip()).matches(b"geheim")
    assert "geheim" not in result.output


def test_hash_password_of_nothing_is_refused() -> None:
    """An empty password would let everybody in."""
    result = CliRunner().invoke(cli, ["hash-password"], input="\n")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "lets everybody in" in result.stderr


def test_hash_password_twice_gives_two_hashes() -> None:
    """The salt is new each time: who has the same password cannot be seen in the file."""
    first, second = (CliRunner().invoke(cli, ["hash-password"], input="x").stdout for _ in range(2))

    assert first != second


def test_hash_password_takes_bytes_that_are_no_utf_8() -> None:
    """A client sends them as they are."""
    result = CliRunner().invoke(cli, ["hash-password"], input=b"\xff\xfe\n")

    assert result.exit_code == 0
    assert PasswordHash.parse(result.stdout.strip()).matches(b"\xff\xfe")
