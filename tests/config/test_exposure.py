"""Files that others may read or change are named, with the command that closes them; the others are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.config.exposure import exposures
from proxy.config.load import load_settings

SECRETS = {
    "users": '[listen]\nusers = [{ name = "app", password = "secret" }]\n',
    "token": '[listen]\nadmin_token = "secret"\n',
    "upstream": '[upstream]\nurl = "redis://:secret@127.0.0.1"\n',
    "broker": '[amqp]\nurl = "amqp://app:secret@127.0.0.1"\n',
    "push": '[push]\ntokens = [{ token = "secret", channels = ["a"] }]\n',
    "webhook": '[metrics]\nnotify = ["https://hooks.example/secret"]\n',
    "alert": '[[alert]]\nname = "errors"\nnotify = ["https://hooks.example/secret"]\n',
}
PLAIN = '[upstream]\nurl = "redis://127.0.0.1"\n[amqp]\nurl = "amqp://127.0.0.1"\n[metrics]\nnotify = ["log"]\n'


def _found(path: Path, mode: int, env: dict[str, str] | None = None) -> list[str]:
    path.chmod(mode)
    return list(exposures(path, load_settings(path, env=env or {}, overrides={})))


@pytest.mark.parametrize("what", SECRETS)
def test_file_with_a_secret_that_everybody_reads_is_named(tmp_path: Path, what: str) -> None:
    """Each kind of secret counts; chmod as said is the end of it."""
    path = tmp_path / "respite.toml"
    path.write_text(SECRETS[what])

    (text,) = _found(path, 0o644)

    assert text == f"{path} holds passwords or tokens and can be read by everybody on this machine: chmod o-rwx {path}"
    assert _found(path, 0o640) == _found(path, 0o600) == []


def test_file_without_a_secret_may_be_read_by_all(tmp_path: Path) -> None:
    """What anybody may know, and what the environment says, is no reason to hide a file."""
    path = tmp_path / "respite.toml"
    path.write_text(PLAIN)

    assert _found(path, 0o644) == []
    assert _found(path, 0o644, {"RESPITE_UPSTREAM": "redis://:secret@127.0.0.1"}) == []


def test_file_that_others_write_is_named_whatever_it_holds(tmp_path: Path) -> None:
    """Who writes the configuration says where the app's data goes."""
    path = tmp_path / "respite.toml"
    path.write_text(PLAIN)

    assert _found(path, 0o666) == [f"{path} can be changed by everybody on this machine: chmod o-w {path}"]
    os.chown(path, os.geteuid(), os.geteuid()) if os.geteuid() == 0 else None
    assert _found(path, 0o664) == []  # a group of one's own is nobody else


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")
def test_group_counts_only_where_it_is_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of root that the proxy's group reads is how it should be; one's own that a group reads is not."""
    path = tmp_path / "respite.toml"
    path.write_text(SECRETS["token"])
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    os.chown(path, 0, 1234)
    assert _found(path, 0o640) == []
    assert _found(path, 0o660) == [f"{path} can be changed by its whole group: chmod g-w {path}"]
    os.chown(path, 4321, 1234)
    assert _found(path, 0o640) == [
        f"{path} holds passwords or tokens and can be read by its whole group: chmod g-rwx {path}"
    ]


def test_private_key_is_a_secret(tmp_path: Path) -> None:
    """The key of each side is looked at, and named once; a certificate may be read by all."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    for path in (key, cert):
        path.write_text("")
        path.chmod(0o644)
    tls = {"listen.tls.cert": str(cert), "listen.tls.key": str(key)}
    settings = load_settings(
        None, env={}, overrides={**tls, "listen.url": "rediss://127.0.0.1:6380", "upstream.url": "redis://127.0.0.1"}
    )

    assert list(exposures(None, settings)) == [
        f"{key} is a private key and can be read by everybody on this machine: chmod o-rwx {key}"
    ]
    key.chmod(0o600)
    assert list(exposures(None, settings)) == []
    key.unlink()
    assert list(exposures(None, settings)) == []
