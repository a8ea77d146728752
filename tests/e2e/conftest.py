"""Fixtures of the end-to-end tests: the server matrix, targets, certificates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from .chromium import NAMES, Browser, find_chromium
from .load import KEY
from .servers import OPTIONAL_KINDS, REQUIRED_KINDS, Kind, MissingServerError, Server, TlsFiles, find_kind
from .targets import Target, is_direct_only, running_pair, running_respite


def kind_or_skip(name: str) -> Kind:
    """Find a kind; a missing optional one skips the test with the reason, a missing required one fails it.

    The optional ones are for `make soak`, which sets RESPITE_ALL_SERVERS: `make test` is to be done in minutes.
    """
    if name in OPTIONAL_KINDS and not os.environ.get("RESPITE_ALL_SERVERS"):
        pytest.skip(f"{name} is for make soak, or RESPITE_ALL_SERVERS=1")
    try:
        return find_kind(name)
    except MissingServerError as missing:
        if name in REQUIRED_KINDS:
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@pytest.fixture(scope="module", params=(*REQUIRED_KINDS, *OPTIONAL_KINDS))
def any_kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of the whole matrix."""
    return kind_or_skip(request.param)


@pytest.fixture(scope="module", params=REQUIRED_KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind that is always there."""
    return kind_or_skip(request.param)


@pytest.fixture(scope="session")
def redis7() -> Kind:
    """Debian's Redis, for tests that need one server and not the matrix."""
    return kind_or_skip("redis7")


@pytest.fixture(scope="module")
def server(redis7: Kind) -> Iterator[Server]:
    """Run one Redis for all tests of a module."""
    with Server(redis7) as started:
        yield started


@pytest.fixture
def empty(server: Server) -> Server:
    """Return it without anything of `load` in it."""
    with server.connect() as direct:
        direct.command("DEL", KEY)
    return server


@pytest.fixture(scope="session")
def redis8() -> Kind:
    """Find a Redis from 7.4 on, for what redis-py asks of a server."""
    return kind_or_skip("redis8")


@pytest.fixture(scope="module")
def any_pair(any_kind: Kind) -> Iterator[tuple[Target, Target]]:
    """Run two fresh servers of each kind of the whole matrix: direct, and behind Respite."""
    with running_pair(any_kind) as pair:
        yield pair


@pytest.fixture(scope="module", params=REQUIRED_KINDS)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Target]]:
    """Run two fresh servers of each required kind: direct, and behind Respite."""
    with running_pair(kind_or_skip(request.param)) as started:
        yield started


@pytest.fixture(scope="module", params=OPTIONAL_KINDS)
def other_pair(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Target]]:
    """Run two fresh servers of each kind that need not be there: direct, and behind Respite."""
    with running_pair(kind_or_skip(request.param)) as started:
        yield started


@pytest.fixture(scope="module")
def target(kind: Kind) -> Iterator[Target]:
    """Run a server of each required kind behind Respite, L1 on; its data is whatever the tests before left."""
    with Server(kind) as server:
        if is_direct_only():
            yield Target(server)
            return
        with running_respite({"upstream": {"url": server.url}}) as respite:
            yield Target(server, respite)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Run a headless Chromium; without one the test is skipped, with the reason."""
    path = find_chromium()
    if path is None:
        pytest.skip(f"no {NAMES[0]} on the PATH: install Debian's chromium, or run `make test` as root, which does")
    with Browser(path) as browser:
        yield browser


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Certificates of an authority made for this run."""
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    client = authority.issue_cert("client@example.org")
    files = TlsFiles(*(directory / name for name in ("ca.pem", "cert.pem", "key.pem", "client.pem", "client-key.pem")))
    authority.cert_pem.write_to_path(files.ca)
    _write_pair(server, files.cert, files.key)
    _write_pair(client, files.client_cert, files.client_key)
    return files


def _write_pair(leaf: trustme.LeafCert, cert: Path, key: Path) -> None:
    cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(key)
