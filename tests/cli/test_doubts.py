"""`respite check` and `respite run` say what lies open to others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result

from proxy.cli.doubts import dangers
from proxy.config.load import load_settings

from ..tls.pems import Pems
from .typing_in import type_in


def test_check_warns_of_an_open_file_and_of_a_certificate_that_ends(tmp_path: Path) -> None:
    """Both are warnings: the configuration is fine, and the exit code 0."""
    pems = Pems(tmp_path)
    pems.write(ends=datetime.now(UTC) + timedelta(days=3))
    pems.key.chmod(0o600)
    path = tmp_path / "respite.toml"
    path.write_text(
        f'[listen]\nurl = "rediss://127.0.0.1:6380"\nadmin_token = "s3cret"\n'
        f'tls = {{ cert = "{pems.cert}", key = "{pems.key}" }}\n'
    )
    path.chmod(0o644)

    result = type_in("check", "-c", str(path))

    assert result.exit_code == 0
    assert f"chmod o-rwx {path}" in result.stderr
    assert "listen.tls.cert ends at" in result.stderr
    assert "s3cret" not in result.stderr


@pytest.mark.parametrize(
    ("flag", "is_said"),
    [("redis://:s3cret@127.0.0.1", True), ("redis://127.0.0.1", False), ("redis://app@127.0.0.1", False), ("", False)],
)
def test_password_in_a_flag_is_warned_of(flag: str, *, is_said: bool) -> None:
    """`ps` shows the flags of every process to everybody; the environment only to its owner."""
    settings = load_settings(
        None, env={"RESPITE_UPSTREAM": "redis://:s3cret@h"}, overrides={"upstream.url": flag or None}
    )

    said = list(dangers(None, settings, flag))

    assert bool(said) is is_said
    assert "s3cret" not in "".join(said)


@pytest.mark.parametrize("side", ["listen", "upstream", "amqp"])
def test_check_names_tls_files_that_nothing_can_be_made_of(tmp_path: Path, side: str) -> None:
    """A key of another certificate, or a file that is no PEM: `run` could not start with them."""
    pems, others = Pems(tmp_path), Pems(tmp_path / "others")
    others.directory.mkdir()
    pems.write()
    others.write()
    url = {"listen": "rediss://127.0.0.1:6380", "upstream": "rediss://127.0.0.1", "amqp": "amqps://127.0.0.1"}[side]
    path = tmp_path / "respite.toml"

    def check(key: Path, *words: str) -> Result:
        table = f'tls = {{ cert = "{pems.cert}", key = "{key}", ca = "{pems.ca}" }}'
        path.write_text(f'[{side}]\nurl = "{url}"\n{table}\n')
        return type_in("check", "-c", str(path), *words)

    assert check(pems.key).exit_code == 0
    for wrong in (others.key, path):
        result = check(wrong)
        assert (result.exit_code, result.stdout) == (2, "")
        assert f"  {side}.tls = " in result.stderr
        assert "the private key that belongs to it" in result.stderr
    assert json.loads(check(others.key, "--json").stdout)["problems"][0]["path"] == f"{side}.tls"
