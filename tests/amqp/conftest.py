"""Fixtures of the AMQP tests: a real broker for the run, one of its own for a test that breaks it, names of a test.

Other packages of tests import them into their own conftest.py (`broker_tls` with `rabbitmq`), and get the same broker.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trustme

from ..e2e.servers import TlsFiles
from .broker import CLIENT_NAME, BrokerOptions, MissingBrokerError, RabbitMq


@attrs.frozen
class Names:
    """Names that no other test has: the session's broker is shared, and keeps what is durable."""

    exchange: str
    queue: str
    dead: str


@pytest.fixture
def names() -> Names:
    """Return names of an exchange, a queue and its dead letter queue for this test alone."""
    unique = secrets.token_hex(6)
    return Names(f"x-{unique}", f"q-{unique}", f"q-{unique}-dead")


def start_broker(options: BrokerOptions | None = None) -> RabbitMq:
    """Start a broker; a machine without RabbitMQ fails the test with what to install."""
    try:
        return RabbitMq(options)
    except MissingBrokerError as missing:
        pytest.fail(str(missing))


@functools.cache
def shared_broker(tls: TlsFiles) -> RabbitMq:
    """Start the one broker of the run, for every package that imports the fixture below."""
    return start_broker(BrokerOptions(tls=tls))


@pytest.fixture(scope="session")
def rabbitmq(broker_tls: TlsFiles) -> Iterator[RabbitMq]:
    """Run the one broker of the test run, with a TLS listener: for tests that leave it as they found it."""
    broker = shared_broker(broker_tls)
    yield broker
    broker.remove()


@pytest.fixture(scope="session")
def breakable() -> Iterator[RabbitMq]:
    """Run a second broker, without TLS: it costs seconds."""
    with start_broker() as broker:
        yield broker


@pytest.fixture
def rabbitmq_own(breakable: RabbitMq) -> RabbitMq:
    """Return a sound broker that nobody else uses: the test may kill, freeze or block it."""
    breakable.mend()
    return breakable


@pytest.fixture(scope="session")
def broker_tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Make certificates of an authority of this run: the broker's, and the client's with the name for EXTERNAL."""
    directory = tmp_path_factory.getbasetemp() / "broker-tls"
    files = TlsFiles(*(directory / name for name in ("ca.pem", "cert.pem", "key.pem", "client.pem", "client-key.pem")))
    if not directory.exists():
        directory.mkdir()
        authority = trustme.CA()
        authority.cert_pem.write_to_path(files.ca)
        server = authority.issue_cert("127.0.0.1", "localhost")
        client = authority.issue_cert("client@example.org", common_name=CLIENT_NAME)
        _write_pair(server, files.cert, files.key)
        _write_pair(client, files.client_cert, files.client_key)
    return files


def _write_pair(leaf: trustme.LeafCert, cert: Path, key: Path) -> None:
    cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(key)
