"""TLS towards others: the context that a `tls` table of the configuration asks for, whoever is at the other end."""

from __future__ import annotations

import ssl

from proxy.config.model import TlsClient


def make_client_context(settings: TlsClient) -> ssl.SSLContext:
    """Return the context. Raises OSError (ssl.SSLError is one) when the files cannot be used."""
    context = ssl.create_default_context(cafile=settings.ca or None)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.cert:
        context.load_cert_chain(settings.cert, settings.key or None)
    return context
