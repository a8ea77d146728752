"""What keys must agree on."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.model import Settings

from .conftest import Fail, Load


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("listen.url = 'rediss://h'", "listen.url", "needs listen.tls.cert and listen.tls.key"),
        ("listen.tls.cert = 'PEM'\nlisten.url = 'rediss://h'", "listen.tls.cert", "tls.cert needs tls.key"),
        ("listen.tls.key = 'PEM'\nlisten.url = 'rediss://h'", "listen.tls.key", "tls.key needs tls.cert"),
        ("listen.tls = { cert = 'PEM', key = 'PEM' }", "listen.url", "no URL begins with rediss://"),
        ("listen.tls.ca = 'PEM'", "listen.url", "no URL begins with rediss://"),
        (
            "listen.url = 'rediss://h'\nlisten.tls = { cert = 'PEM', key = 'PEM', require_client_cert = true }",
            "listen.tls.require_client_cert",
            "needs listen.tls.ca",
        ),
        ("listen.admin = 'http://0.0.0.0:1'", "listen.admin", "needs listen.admin_token"),
        ("listen.admin = 'http://[::]:1'", "listen.admin", "needs listen.admin_token"),
        ("listen.admin = 'http://127.0.0.1:6380'", "listen.admin", "has that port already"),
        ("listen.max_bulk = '2GiB'", "listen.max_request", "at least listen.max_bulk (2GiB)"),
        ("upstream.url = 'rediss://h'\nupstream.tls.cert = 'PEM'", "upstream.tls.cert", "tls.cert needs tls.key"),
        ("upstream.url = 'rediss://h'\nupstream.tls.key = 'PEM'", "upstream.tls.key", "tls.key needs tls.cert"),
        ("upstream.tls.ca = 'PEM'", "upstream.url", "the embedded Redis has no TLS"),
        ("upstream.tls.verify = false", "upstream.url", "the embedded Redis has no TLS"),
        ("upstream.url = 'redis://h'\nupstream.tls.ca = 'PEM'", "upstream.url", "does not begin with rediss://"),
        ("upstream.url = 'redis://localhost:6380'", "upstream.url", "where Respite itself listens"),
        (
            "upstream.url = 'redis://127.0.0.1:1'\nlisten.url = 'redis://0.0.0.0:1'",
            "upstream.url",
            "where Respite itself listens",
        ),
        ("upstream.url = 'unix:///r'\nlisten.url = 'unix:///r'", "upstream.url", "where Respite itself listens"),
        ("l1.max_bytes = '512KiB'", "l1.max_value_bytes", "at most l1.max_bytes (512KiB)"),
        ("l1.max_bytes = '2MiB'\nlisten.workers = 4", "l1.max_value_bytes", "the part of one worker (512KiB)"),
        ("ttl.hot_above = 4", "ttl.warm_above", "at most ttl.hot_above (4)"),
        ("ttl.warm_above = 11", "ttl.warm_above", "at most ttl.hot_above (10)"),
    ],
)
def test_load_keys_that_disagree_are_reported(fail: Fail, pem: Path, text: str, path: str, words: str) -> None:
    """What two keys must agree on is said at one of them, once."""
    problems = fail(text.replace("PEM", str(pem)))

    assert [path] == list(problems)
    assert words in problems[path].allowed


@pytest.mark.parametrize(
    "text",
    [
        "listen.admin = 'http://0.0.0.0:1'\nlisten.admin_token = 't'",
        "listen.admin = 'http://localhost:1'",
        "listen.admin = 'http://127.0.0.1:0'\nlisten.url = 'redis://127.0.0.1:0'",
        "listen.url = ['redis://127.0.0.1:0', 'redis://127.0.0.1:0']",
        "upstream.url = 'redis://10.0.0.1:6380'",
        "upstream.url = 'unix:///a'\nlisten.url = 'unix:///b'",
        "upstream.url = 'rediss://h'\nupstream.tls.verify = false",
        "upstream.url = 'rediss://h'",
        "l1.max_bytes = '4MiB'\nlisten.workers = 4",
        "listen.workers = 64",
        "ttl = { warm_above = 10, hot_above = 10 }",
        "ttl = { hot = '2h', cold = '1m' }",
        "compression.codec = 'lz4'",
    ],
)
def test_load_keys_that_agree_pass(load: Load, text: str) -> None:
    """The rules stop what is wrong and no more."""
    assert isinstance(load(text), Settings)


def test_load_key_that_is_wrong_by_itself_is_not_held_to_a_rule(fail: Fail, pem: Path) -> None:
    """A certificate that cannot be read is one problem; that its key now stands alone is none."""
    problems = fail(f"listen.url = 'rediss://h'\nlisten.tls = {{ cert = '/does/not/exist', key = '{pem}' }}")

    assert list(problems) == ["listen.tls.cert"]


def test_load_zstd_without_its_package_says_what_to_install(fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that cannot be used is refused when the file is read, not when the first value comes."""
    monkeypatch.setattr("proxy.config.rules.find_spec", lambda name: None)

    (problem,) = fail("compression.codec = 'zstd'").values()

    assert problem.path == "compression.codec"
    assert "pip install 'respite-proxy[zstd]'" in problem.allowed


def test_load_zstd_with_its_package_passes(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is asked for by the name under which it is imported."""
    asked = []
    monkeypatch.setattr("proxy.config.rules.find_spec", lambda name: asked.append(name) or name)

    assert load("compression.codec = 'zstd'").compression.codec == "zstd"
    assert asked == ["zstandard"]
