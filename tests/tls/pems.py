"""Certificates for the tests of TLS: an authority, and files that a proxy can be given."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import attrs
import trustme

from proxy.config.model import TlsServer


@attrs.define
class Pems:
    """The files of one proxy, which may be written anew; `authority` signs what is in them."""

    directory: Path
    authority: trustme.CA = attrs.field(factory=trustme.CA)

    @property
    def cert(self) -> Path:
        """The certificate, with its chain."""
        return self.directory / "cert.pem"

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.directory / "key.pem"

    @property
    def ca(self) -> Path:
        """The authority."""
        return self.directory / "ca.pem"

    def write(self, name: str = "127.0.0.1", ends: datetime | None = None) -> trustme.LeafCert:
        """Write all three, for a new certificate."""
        leaf = self.authority.issue_cert(name, not_after=ends)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(self.key)
        self.authority.cert_pem.write_to_path(self.ca)
        return leaf

    def settings(self, *, ca: bool = False, required: bool = False, min_version: str = "1.2") -> TlsServer:
        """Return the table that names them."""
        return TlsServer(
            str(self.cert),
            str(self.key),
            str(self.ca) if ca else "",
            required,
            "1.3" if min_version == "1.3" else "1.2",
        )

    def trusting(self, *, most: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
        """Return the context of a client that trusts the authority."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.maximum_version = most
        return context


def at(year: int, month: int = 1, day: int = 1) -> datetime:
    """Return a moment."""
    return datetime(year, month, day, tzinfo=UTC)


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "127.0.0.1") -> tuple[str, int]:
    """Shake hands in memory; return the version that was agreed on and the serial number shown. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [theirs, ours]
    for _ in range(20):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
        if not waiting:
            shown = theirs.getpeercert()
            assert shown is not None
            return str(theirs.version()), int(str(shown["serialNumber"]), 16)
    raise AssertionError("no end of the handshake")
