"""What is spoken, what is asked of the other side, and what is never asked of anybody."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from proxy.config.model import TlsClient
from proxy.tls.contexts import client_side, server_side

from .pems import Pems, shake


@pytest.fixture
def pems(tmp_path: Path) -> Pems:
    """Write a certificate and its key."""
    made = Pems(tmp_path)
    made.write()
    return made


def test_server_speaks_1_2_unless_told_not_to_and_nothing_older(pems: Pems) -> None:
    """By default 1.2 and 1.3 are spoken; with min_version 1.3 a client that speaks at most 1.2 is refused."""
    by_default = server_side("listen.tls", pems.settings()).current()
    strict = server_side("listen.tls", pems.settings(min_version="1.3")).current()

    assert by_default.minimum_version == ssl.TLSVersion.TLSv1_2
    assert shake(by_default, pems.trusting())[0] == "TLSv1.3"
    assert shake(by_default, pems.trusting(most=ssl.TLSVersion.TLSv1_2))[0] == "TLSv1.2"
    assert shake(strict, pems.trusting())[0] == "TLSv1.3"
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        shake(strict, pems.trusting(most=ssl.TLSVersion.TLSv1_2))


def test_client_speaks_1_2_unless_told_not_to(pems: Pems) -> None:
    """Towards Redis and the broker the same holds, and the name is checked."""
    server = server_side("listen.tls", pems.settings()).current()
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    found = TlsClient(str(pems.ca), "", "", verify=True, min_version="1.2")
    strict = TlsClient(str(pems.ca), "", "", verify=True, min_version="1.3")

    assert shake(server, client_side("upstream.tls", found).current())[0] == "TLSv1.2"
    with pytest.raises(ssl.SSLError):
        shake(server, client_side("upstream.tls", strict).current())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, client_side("upstream.tls", found).current(), name="127.0.0.2")


def test_server_lets_nobody_renegotiate_or_compress(pems: Pems) -> None:
    """A handshake costs the server more than the client: one a connection is enough."""
    context = server_side("listen.tls", pems.settings()).current()

    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION


def test_client_certificate_is_asked_for_or_required(pems: Pems) -> None:
    """With an authority a certificate is checked if there is one; with require_client_cert there must be one."""
    optional = server_side("listen.tls", pems.settings(ca=True)).current()
    required = server_side("listen.tls", pems.settings(ca=True, required=True)).current()
    with_cert, with_foreign = pems.trusting(), pems.trusting()
    pems.authority.issue_cert("app").configure_cert(with_cert)
    trustme.CA().issue_cert("app").configure_cert(with_foreign)

    shake(optional, pems.trusting())
    shake(optional, with_cert)
    shake(required, with_cert)
    with pytest.raises(ssl.SSLError):
        shake(optional, with_foreign)
    with pytest.raises(ssl.SSLError):
        shake(required, pems.trusting(most=ssl.TLSVersion.TLSv1_2))


def test_encrypted_key_is_an_error_and_asks_nobody(pems: Pems, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key with a password would have OpenSSL ask at the terminal, and the proxy wait there."""
    key = serialization.load_pem_private_key(pems.key.read_bytes(), None)
    pems.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    with pytest.raises(ssl.SSLError, match="encrypted"):
        server_side("listen.tls", pems.settings())
